// Token shift (arXiv 2305.13048, eq. 11 to 13): y_i[t] = x[t] + (x[t - 1] - x[t]) share_i, up to eight blends
// of one input, share = m or 1 - m. What is before a sequence is the state, or 0.
//
// shift_forward and shift_backward: one thread a value of x, all blends of it. shift_sums: a block takes 32
// columns of one part of the positions, 8 at a time, with 256 values of shared memory; shift_add_sums: one
// thread a column.

#define MOST 8

// The previous position's share.
__device__ inline float share(float weight, u32 current) { return current ? 1.0f - weight : weight; }

// A blend's weight at a position.
__device__ inline float weight_of(const ShiftWeights& w, u32 blend, u64 at, u64 col) {
    return w.tokens[blend] ? (float)w.tokens[blend][at * w.token_strides[blend] + col] : w.channels[blend][col];
}

KERNEL(256, shift_forward, ShiftForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 at = index / p.cols, col = index % p.cols;
    if (at >= p.rows) return;
    const float x = p.x[at * p.x_stride + col];
    float previous = 0.0f;
    if (at % p.length > 0)
        previous = p.x[(at - 1) * p.x_stride + col];
    else if (p.history)
        previous = p.history[at / p.length * p.cols + col];
#pragma unroll
    for (u32 i = 0; i < MOST; i++)
        if (i < p.outputs) p.y[i][index] = x + (previous - x) * share(weight_of(p, i, at, col), p.current);
}

// A training sequence begins from nothing, so there is no history here.
KERNEL(256, shift_backward, ShiftBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 at = index / p.cols, col = index % p.cols;
    if (at >= p.rows) return;
    const float x = p.x[at * p.x_stride + col];
    const float previous = at % p.length > 0 ? p.x[(at - 1) * p.x_stride + col] : 0.0f;
    const bool followed = (at + 1) % p.length > 0;
    stored* to_x = &p.grad_x[at * p.grad_x_stride + col];
    float sum = p.accumulate_x ? *to_x : 0.0f;
#pragma unroll
    for (u32 i = 0; i < MOST; i++)
        if (i < p.outputs) {
            sum += p.dy[i][index] * share(weight_of(p, i, at, col), !p.current);
            if (followed) sum += p.dy[i][index + p.cols] * share(weight_of(p, i, at + 1, col), p.current);
        }
    *to_x = sum;
    const float ahead = p.current ? x - previous : previous - x;
#pragma unroll
    for (u32 i = 0; i < MOST; i++)
        if (i < p.outputs && p.grad_weights[i]) {
            stored* place = &p.grad_weights[i][at * p.grad_strides[i] + col];
            *place = (p.accumulate[i] ? *place : 0.0f) + p.dy[i][index] * ahead;
        }
}

// The gradients of weights [D]: sums over all positions.
KERNEL(256, shift_sums, ShiftSums) {
    SHARED(lines);  // [8, 32]
    const u32 lane = threadIdx.x % 32, line = threadIdx.x / 32;
    const u32 col = blockIdx.x * 32 + lane, part = blockIdx.y;
    float sums[MOST];
#pragma unroll
    for (u32 i = 0; i < MOST; i++) sums[i] = 0.0f;
    if (col < p.cols)
        for (u64 at = part * 8 + line; at < p.rows; at += p.part_count * 8) {
            const float x = p.x[at * p.x_stride + col];
            const float previous = at % p.length > 0 ? p.x[(at - 1) * p.x_stride + col] : 0.0f;
            const float ahead = p.current ? x - previous : previous - x;
#pragma unroll
            for (u32 i = 0; i < MOST; i++)
                if (i < p.outputs) sums[i] += p.dy[i][at * p.cols + col] * ahead;
        }
#pragma unroll
    for (u32 i = 0; i < MOST; i++)
        if (i < p.outputs) {
            lines[threadIdx.x] = sums[i];
            __syncthreads();
            if (line == 0 && col < p.cols) {
                float sum = sums[i];
                for (u32 other = 1; other < 8; other++) sum += lines[other * 32 + lane];
                p.parts[((u64)part * p.outputs + i) * p.cols + col] = sum;
            }
            __syncthreads();
        }
}

KERNEL(256, shift_add_sums, ShiftSums) {
    const u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= p.cols) return;
    for (u32 i = 0; i < p.outputs; i++) {
        float sum = p.sums[i][col];
        for (u32 part = 0; part < p.part_count; part++) sum += p.parts[((u64)part * p.outputs + i) * p.cols + col];
        p.sums[i][col] = sum;
    }
}
