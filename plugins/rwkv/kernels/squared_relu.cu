// y = max(x, 0)^2 (arXiv 2109.08668) and its gradient. One thread a value.

KERNEL(256, squared_relu_forward, SquaredReluForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float positive = fmaxf(p.x[row * p.x_stride + col], 0.0f);
    p.y[index] = positive * positive;
}

KERNEL(256, squared_relu_backward, SquaredReluBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float value = 2.0f * p.dy[index] * fmaxf(p.x[row * p.x_stride + col], 0.0f);
    leave(&p.grad[row * p.grad_stride + col], value, p.accumulate);
}
