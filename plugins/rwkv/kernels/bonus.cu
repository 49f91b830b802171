// What a position gives itself: y = base + (r . u k) v in every head (arXiv 2404.05892, eq. 19; arXiv
// 2503.14456, section 4.1), D = H K.
//
// A warp takes a head of a position. bonus_forward: blocks of 8 such pairs. bonus_backward: a block takes a
// head and one part of the positions, 8 at a time, with [8, K] values of shared memory for the gradient of u;
// so K is at most 1024.

KERNEL(256, bonus_forward, BonusForward) {
    const u32 lane = threadIdx.x % WARP;
    const u64 pair = blockIdx.x * 8ull + threadIdx.x / WARP;
    const u64 at = pair / p.heads, head = pair % p.heads;
    if (at >= p.rows) return;  // a whole warp
    const u64 first = head * p.head_dim;
    const float *r = p.r + at * p.r_stride + first, *k = p.k + at * p.k_stride + first;
    const float *v = p.v + at * p.v_stride + first, *base = p.base + at * p.base_stride + first;
    float* y = p.y + (at * p.heads + head) * p.head_dim;
    float weight = 0.0f;
    for (u32 i = lane; i < p.head_dim; i += WARP) weight += r[i] * k[i] * p.u[first + i];
    weight = warp_sum(weight);
    for (u32 i = lane; i < p.head_dim; i += WARP) y[i] = base[i] + weight * v[i];
}

__device__ inline void leave(float* place, u32 accumulate, float value) { *place = accumulate ? *place + value : value; }

KERNEL(256, bonus_backward, BonusBackward) {
    SHARED(sums);  // [8, K]
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 head = blockIdx.x % p.heads, part = blockIdx.x / p.heads;
    const u64 first = (u64)head * p.head_dim;
    const float* u = p.u + first;
    float* sum_u = sums + warp * p.head_dim;
    for (u32 i = lane; i < p.head_dim; i += WARP) sum_u[i] = 0.0f;
    for (u64 at = part * 8 + warp; at < p.rows; at += p.part_count * 8) {
        const float *r = p.r + at * p.r_stride + first, *k = p.k + at * p.k_stride + first;
        const float *v = p.v + at * p.v_stride + first, *dy = p.dy + (at * p.heads + head) * p.head_dim;
        float weight = 0.0f, slope = 0.0f;
        for (u32 i = lane; i < p.head_dim; i += WARP) {
            weight += r[i] * k[i] * u[i];
            slope += dy[i] * v[i];
        }
        weight = warp_sum(weight);
        slope = warp_sum(slope);
        for (u32 i = lane; i < p.head_dim; i += WARP) {
            const u64 col = first + i;
            const float scaled = slope * u[i];
            sum_u[i] += slope * r[i] * k[i];
            leave(&p.grad_base[at * p.grad_base_stride + col], p.add_base, dy[i]);
            leave(&p.grad_r[at * p.grad_r_stride + col], p.add_r, scaled * k[i]);
            leave(&p.grad_k[at * p.grad_k_stride + col], p.add_k, scaled * r[i]);
            leave(&p.grad_v[at * p.grad_v_stride + col], p.add_v, weight * dy[i]);
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < p.head_dim; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 line = 0; line < 8; line++) sum += sums[line * p.head_dim + i];
        p.parts[(u64)part * p.heads * p.head_dim + first + i] = sum;
    }
}
