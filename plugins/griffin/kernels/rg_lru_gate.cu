// The gates of the real-gated linear recurrent unit (arXiv 2402.19427, section 2.4, eq. 1 to 4), position by position
// and channel by channel: what its diagonal scan h = a h + b is given,
//
//   log a = -8 softplus(lambda) sigmoid(r)        b = sqrt(1 - a^2) sigmoid(i) x
//
// and b = sigmoid(i) x at position 0; and their gradients. One thread a value, 256 a block; no shared memory.

#define EXPONENT 8.0f     // c of the gate, eq. 3
#define STEEPEST 1000.0f  // bound of the square root's slope, as in the official code

KERNEL(256, rg_lru_gate_forward, RgLruGateForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.width, channel = index % p.width;
    if (row >= p.rows) return;
    const bool first = row % p.length == 0 && (!p.feed || p.control->position == 0);
    const float log_a = -EXPONENT * softplus(p.lambda[channel]) * sigmoid(p.r[row * p.r_stride + channel]);
    const float scale = first ? 1.0f : sqrtf(-expm1f(2.0f * log_a));
    p.log_a[index] = log_a;
    p.b[index] = scale * sigmoid(p.i[row * p.i_stride + channel]) * p.x[row * p.x_stride + channel];
}

KERNEL(256, rg_lru_gate_backward, RgLruGateBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.width, channel = index % p.width;
    if (row >= p.rows) return;
    const bool first = row % p.length == 0;
    const float lambda = p.lambda[channel], rate = -EXPONENT * softplus(lambda), x = p.x[row * p.x_stride + channel];
    const float r = sigmoid(p.r[row * p.r_stride + channel]), i = sigmoid(p.i[row * p.i_stride + channel]);
    const float log_a = rate * r, room = -expm1f(2.0f * log_a), grad_b = p.grad_b[index];
    const float scale = first ? 1.0f : sqrtf(room);
    // d sqrt(1 - a^2) / d log a = -a^2 / sqrt(1 - a^2), its slope bounded; the first token's input is not scaled.
    const float root_slope = 1.0f / sqrtf(fmaxf(4.0f * room, 1.0f / (STEEPEST * STEEPEST)));
    const float by_scale = first ? 0.0f : grad_b * i * x * root_slope * (-2.0f * expf(2.0f * log_a));
    const float grad_log_a = p.grad_a[index] + by_scale;
    // One after the other: the three may be one tensor.
    leave(&p.dx[row * p.dx_stride + channel], grad_b * scale * i, p.add_x);
    leave(&p.dr[row * p.dr_stride + channel], grad_log_a * rate * r * (1.0f - r), p.add_r);
    leave(&p.di[row * p.di_stride + channel], grad_b * scale * x * i * (1.0f - i), p.add_i);
    p.shares[index] = -EXPONENT * sigmoid(lambda) * grad_log_a * r;
}
