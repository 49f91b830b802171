// A running sum of angles, in turns, as cosines and sines (arXiv 2603.15569, section 3.2). Sums are integers of which
// 2^32 are a turn, so they are exact modulo a turn. No shared memory, no limits.

// One thread a sum, over all tokens.
KERNEL(256, turns, TurnsParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 sums = p.heads * p.angles, sum = (u32)(index % sums);
    const u64 row = index / sums;
    if (row >= p.rows) return;
    u32 total = 0;
    float* state = p.state ? p.state + row * 2 * sums + sum : p.state;
    if (state) total = (u32)(state[0] * 65536.0f) << 16 | (u32)(state[sums] * 4294967296.0f);
    for (u64 at = row * p.length; at < (row + 1) * p.length; at++) {
        const float turns = p.rate[at * p.rate_stride + sum % p.angles] * p.step[at * p.step_stride + sum / p.angles];
        total += (u32)(long long)((turns - rintf(turns)) * 4294967296.0f);
        double sine, cosine;
        sincospi((double)(int)total / 2147483648.0, &sine, &cosine);
        p.y[at * 2 * sums + sum] = (float)cosine;
        p.y[at * 2 * sums + sums + sum] = (float)sine;
    }
    if (!state) return;
    state[0] = (float)(total >> 16) / 65536.0f;
    state[sums] = (float)(total & 0xffffu) / 4294967296.0f;
}

// The gradient of each angle: that of its sum, and of all later ones. One thread a sum.
KERNEL(256, turns_gradient, TurnsParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 sums = p.heads * p.angles, sum = (u32)(index % sums);
    const u64 row = index / sums;
    if (row >= p.rows) return;
    float total = 0.0f;
    for (u64 at = (row + 1) * p.length; at-- > row * p.length;) {
        const stored* y = p.y + at * 2 * sums + sum;
        const stored* dy = p.dy + at * p.dy_stride + sum;
        total += 6.2831853f * (y[0] * dy[sums] - y[sums] * dy[0]);
        p.grads[at * sums + sum] = total;
    }
}

// A rate's gradient over heads, a step's over angles. One thread each.
KERNEL(256, turns_shares, TurnsParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 each = p.angles + p.heads, which = (u32)(index % each);
    const u64 at = index / each;
    if (at >= p.rows * p.length) return;
    const float* grads = p.grads + at * p.heads * p.angles;
    float sum = 0.0f;
    if (which < p.angles) {
        for (u32 h = 0; h < p.heads; h++) sum += grads[h * p.angles + which] * p.step[at * p.step_stride + h];
        leave(&p.grad_rate[at * p.grad_rate_stride + which], sum, p.adds_rate);
        return;
    }
    const u32 head = which - p.angles;
    for (u32 i = 0; i < p.angles; i++) sum += grads[head * p.angles + i] * p.rate[at * p.rate_stride + i];
    leave(&p.grad_step[at * p.grad_step_stride + head], sum, p.adds_step);
}
