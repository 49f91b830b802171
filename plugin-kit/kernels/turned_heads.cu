// What groups of heads share, with a bias and a rotation for every head (arXiv 2603.15569, section 3.2): in a head value
// i pairs with value i + n, and what is past 2 n stays. No shared memory, no limits.

// Value i of a head with its bias.
__device__ inline float with_bias(const TurnedParams& p, u64 row, u32 head, u32 i) {
    const u32 group = head / (p.heads / p.groups);
    return p.x[row * p.x_stride + group * p.width + i] + p.bias[head * p.width + i];
}

// One thread a value.
KERNEL(256, turned_heads, TurnedParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / (p.heads * p.width);
    if (row >= p.rows) return;
    const u32 col = (u32)(index % (p.heads * p.width)), head = col / p.width, i = col % p.width, n = p.pairs;
    float value = with_bias(p, row, head, i);
    if (i < 2 * n) {
        const stored* turns = p.turns + row * p.turns_stride + head * n + i % n;
        const float other = with_bias(p, row, head, i < n ? i + n : i - n);
        const float sine = turns[p.heads * n];
        value = value * turns[0] + other * (i < n ? -sine : sine);
    }
    p.y[index] = value;
}

// One thread a value.
KERNEL(256, turned_back, TurnedParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / (p.heads * p.width);
    if (row >= p.rows) return;
    const u32 col = (u32)(index % (p.heads * p.width)), head = col / p.width, i = col % p.width, n = p.pairs;
    const stored* dy = p.dy + row * p.dy_stride + head * p.width;
    float value = dy[i];
    if (i < 2 * n) {
        const stored* turns = p.turns + row * p.turns_stride + head * n + i % n;
        const float sine = turns[p.heads * n];
        value = value * turns[0] + dy[i < n ? i + n : i - n] * (i < n ? sine : -sine);
    }
    p.unturned[index] = value;
}

// The gradient of x: what its heads have. One thread a value.
KERNEL(256, turned_shared, TurnedParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / (p.groups * p.width);
    if (row >= p.rows) return;
    const u32 col = (u32)(index % (p.groups * p.width)), group = col / p.width, i = col % p.width;
    const u32 sharing = p.heads / p.groups;
    const float* unturned = p.unturned + (row * p.heads + group * sharing) * p.width + i;
    float sum = 0.0f;
    for (u32 head = 0; head < sharing; head++) sum += unturned[head * p.width];
    leave(&p.grad_x[row * p.grad_x_stride + col], sum, p.adds_x);
}

// The gradients of cosines and sines. One thread a pair.
KERNEL(256, turned_angles, TurnedParams) {
    const u32 n = p.pairs;
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / (p.heads * n);
    if (row >= p.rows) return;
    const u32 col = (u32)(index % (p.heads * n)), head = col / n, i = col % n;
    const stored* dy = p.dy + row * p.dy_stride + head * p.width;
    const float a = with_bias(p, row, head, i), b = with_bias(p, row, head, i + n);
    stored* place = p.grad_turns + row * p.grad_turns_stride + col;
    const float cosine = dy[i] * a + dy[i + n] * b, sine = dy[i + n] * a - dy[i] * b;
    place[0] = p.adds_turns ? place[0] + cosine : cosine;
    place[p.heads * n] = p.adds_turns ? place[p.heads * n] + sine : sine;
}
