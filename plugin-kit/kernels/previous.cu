// What stood at the position before: y[t] = x[t - 1]. One thread a value, no shared memory, no limits.

KERNEL(256, previous, PreviousParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, at = index / p.cols, c = index % p.cols;
    if (at >= p.rows * p.length) return;
    float value = 0.0f;
    if (at % p.length) value = p.x[(at - 1) * p.x_stride + c];
    else if (p.state) value = p.state[at / p.length * p.cols + c];
    p.y[at * p.y_stride + c] = value;
}

// After `previous`, which reads the state before.
KERNEL(256, previous_state, PreviousParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.cols;
    if (row >= p.rows) return;
    p.state[index] = p.x[((row + 1) * p.length - 1) * p.x_stride + index % p.cols];
}

KERNEL(256, previous_gradient, PreviousParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, at = index / p.cols, c = index % p.cols;
    if (at >= p.rows * p.length) return;
    const float value = at % p.length + 1 < p.length ? p.y[(at + 1) * p.y_stride + c] : 0.0f;
    leave(&p.x[at * p.x_stride + c], value, p.accumulate);
}
