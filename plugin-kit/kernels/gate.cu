// y = f(gate) x, or f(gate) where there is no x, and its gradients. One thread a value.

KERNEL(256, gate_forward, GateForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float value = activate(p.activation, p.gate[row * p.gate_stride + col]);
    p.y[index] = p.x ? value * p.x[row * p.x_stride + col] : value;
}

// grad = dy x f'(gate).
KERNEL(256, gate_backward, GateBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    float value = p.dy[row * p.dy_stride + col] * activation_slope(p.activation, p.gate[row * p.gate_stride + col]);
    if (p.x) value *= p.x[row * p.x_stride + col];
    leave(&p.grad[row * p.grad_stride + col], value, p.accumulate);
}

// grad = dy f(gate), the gradient of x.
KERNEL(256, gated_backward, GateBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float value = p.dy[row * p.dy_stride + col] * activate(p.activation, p.gate[row * p.gate_stride + col]);
    leave(&p.grad[row * p.grad_stride + col], value, p.accumulate);
}
