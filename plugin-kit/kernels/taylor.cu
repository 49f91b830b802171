// The features of a head [width] whose products are 1 + s + s^2 / 2, s = scale q.k: a one, x sqrt(scale), and the
// products x_i x_j of i <= j times scale, over sqrt(2) where i = j. One thread a value of x.

// Where the products of value i with itself and those after it begin.
__device__ inline u32 products(u32 width, u32 i) { return 1 + width + i * width - i * (i - 1) / 2; }

KERNEL(256, taylor_forward, TaylorValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 unit = index / p.width;
    if (unit >= p.rows * p.heads) return;
    const u32 i = index % p.width;
    const stored* x = p.x + unit / p.heads * p.x_stride + unit % p.heads * p.width;
    stored* y = p.out + unit / p.heads * p.out_stride + unit % p.heads * products(p.width, p.width);
    if (i == 0) y[0] = 1.0f;
    y[1 + i] = sqrtf(p.scale) * x[i];
    stored* products_of = y + products(p.width, i);
    products_of[0] = p.scale * 0.70710678f * x[i] * x[i];
    for (u32 j = i + 1; j < p.width; j++) products_of[j - i] = p.scale * x[i] * x[j];
}

KERNEL(256, taylor_backward, TaylorValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 unit = index / p.width;
    if (unit >= p.rows * p.heads) return;
    const u32 i = index % p.width;
    const stored* x = p.x + unit / p.heads * p.x_stride + unit % p.heads * p.width;
    const stored* dy = p.dy + unit / p.heads * p.dy_stride + unit % p.heads * products(p.width, p.width);
    float sum = 1.41421356f * x[i] * dy[products(p.width, i)];
    for (u32 j = 0; j < i; j++) sum += x[j] * dy[products(p.width, j) + i - j];
    for (u32 j = i + 1; j < p.width; j++) sum += x[j] * dy[products(p.width, i) + j - i];
    const float value = p.scale * sum + sqrtf(p.scale) * dy[1 + i];
    stored* dx = p.out + unit / p.heads * p.out_stride + unit % p.heads * p.width + i;
    leave(dx, value, p.accumulate);
}
