// y = f(gate) x, or f(gate) where there is no x, and its gradients. One thread a value.

KERNEL(256, gate_forward, GateForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float value = activate(p.activation, p.gate[row * p.gate_stride + col]);
    p.y[index] = p.x ? value * p.x[row * p.x_stride + col] : value;
}

// grad_gate = dy x f'(gate) and grad_x = dy f(gate), each where its place is not null.
KERNEL(256, gate_backward, GateBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const float dy = p.dy[row * p.dy_stride + col], gate = p.gate[row * p.gate_stride + col];
    if (p.grad_gate) {
        float value = dy * activation_slope(p.activation, gate);
        if (p.x) value *= p.x[row * p.x_stride + col];
        leave(&p.grad_gate[row * p.grad_gate_stride + col], value, p.adds_gate);
    }
    if (p.grad_x) leave(&p.grad_x[row * p.grad_x_stride + col], dy * activate(p.activation, gate), p.adds_x);
}
