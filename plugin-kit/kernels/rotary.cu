// Rotary position embedding (RoPE, arXiv 2104.09864, eq. 34) in the half-split form: value n of a head
// pairs with value n + dims / 2, and the pair turns by position * base^(-2n / dims), blended with the same over
// `factor` where angles are scaled (rotary_scaling.rs). One thread an angle or a value, no shared memory, no limits.

// In float64, so that angles are exact to float32 at a million tokens. The blend's numbers come from the host and
// no frequencies do, because an operation keeps no memory on a device.
KERNEL(256, rotary_table, RotaryTableParams) {
    const u32 half = p.dims / 2;
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, t = index / half;
    const u32 n = (u32)(index % half);
    if (t >= p.length) return;
    u64 position = (p.control ? p.control->position : 0) + t;
    if (p.period) position %= p.period;
    const double frequency = pow(p.base, -2.0 * (double)n / (double)p.dims);
    const double x = p.original > 0.0 ? frequency * p.original / 6.283185307179586 : (double)n;
    const double b = fmin(fmax((x - p.from) / (p.to - p.from), 0.0), 1.0);
    const double angle = (double)position * (frequency * (b + (1.0 - b) / p.factor));
    double sine, cosine;
    sincos(angle, &sine, &cosine);
    p.table[t * p.dims + n] = (float)(p.scale * cosine);
    p.table[t * p.dims + half + n] = (float)(p.scale * sine);
}

KERNEL(256, rotary, RotaryParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols;
    if (row >= p.rows) return;
    const u32 col = (u32)(index % p.cols), n = col % p.head_dim, half = p.dims / 2;
    const stored* x = p.x + row * p.x_stride + col;
    float value = *x;
    if (n < p.dims) {
        const float* angles = p.table + row % p.length * p.dims + n % half;
        const float c = angles[0], s = p.sign * angles[half];
        value = n < half ? value * c - x[half] * s : value * c + *(x - half) * s;
    }
    leave(&p.y[row * p.y_stride + col], value, p.accumulate);
}
