// Step sizes dt = softplus(x + bias) with the logarithms of the decays that they make, -e^a_log dt (arXiv 2405.21060,
// section 7). One thread a value; no shared memory.

KERNEL(256, step_sizes_forward, StepSizesValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float dt = softplus(p.x[row * p.x_stride + col] + p.bias[col]);
    p.dt[index] = dt;
    p.logs[index] = -expf(p.a_log[col]) * dt;
}

KERNEL(256, step_sizes_backward, StepSizesValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float slope = sigmoid(p.x[row * p.x_stride + col] + p.bias[col]);
    const float grad = (p.grad_dt[index] - expf(p.a_log[col]) * p.grad_logs[index]) * slope;
    leave(&p.grad_x[row * p.grad_stride + col], grad, p.accumulate);
    p.shares[(2 * row) * p.cols + col] = grad;
    p.shares[(2 * row + 1) * p.cols + col] = p.grad_logs[index] * p.logs[index];
}
