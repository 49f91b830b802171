// Columns of heads times a factor a head, and the products of two heads, which are the gradient of the factor.

// y = factor x. One thread a value.
KERNEL(256, by_head, ByHeadValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float factor = p.factor[row * p.factor_stride + col / (p.cols / p.heads)];
    const float value = factor * p.x[row * p.x_stride + col];
    leave(&p.y[row * p.y_stride + col], value, p.accumulate);
}

// The sum over a head's columns of dy x. One thread a head of a row.
KERNEL(256, by_head_sums, ByHeadValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.heads, head = index % p.heads;
    if (row >= p.rows) return;
    const u32 width = p.cols / p.heads;
    const stored* dy = p.factor + row * p.factor_stride + head * width;
    const stored* x = p.x + row * p.x_stride + head * width;
    float sum = 0.0f;
    for (u32 col = 0; col < width; col++) sum += dy[col] * x[col];
    leave(&p.y[row * p.y_stride + head], sum, p.accumulate);
}
