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
    const stored *r = p.r + at * p.r_stride + first, *k = p.k + at * p.k_stride + first;
    const stored *v = p.v + at * p.v_stride + first, *base = p.base + at * p.base_stride + first;
    stored* y = p.y + (at * p.heads + head) * p.head_dim;
    float weight = 0.0f;
    for (u32 i = lane; i < p.head_dim; i += WARP) weight += r[i] * k[i] * p.u[first + i];
    weight = warp_sum(weight);
    for (u32 i = lane; i < p.head_dim; i += WARP) y[i] = base[i] + weight * v[i];
}

KERNEL(256, bonus_backward, BonusBackward) {
    SHARED(sums);  // [8, K]
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 head = blockIdx.x % p.heads, part = blockIdx.x / p.heads;
    const u64 first = (u64)head * p.head_dim;
    const float* u = p.u + first;
    float* sum_u = sums + warp * p.head_dim;
    for (u32 i = lane; i < p.head_dim; i += WARP) sum_u[i] = 0.0f;
    for (u64 at = part * 8 + warp; at < p.rows; at += p.part_count * 8) {
        const stored *r = p.r + at * p.r_stride + first, *k = p.k + at * p.k_stride + first;
        const stored *v = p.v + at * p.v_stride + first, *dy = p.dy + (at * p.heads + head) * p.head_dim;
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
            leave(&p.grad_base[at * p.grad_base_stride + col], dy[i], p.add_base);
            leave(&p.grad_r[at * p.grad_r_stride + col], scaled * k[i], p.add_r);
            leave(&p.grad_k[at * p.grad_k_stride + col], scaled * r[i], p.add_k);
            leave(&p.grad_v[at * p.grad_v_stride + col], weight * dy[i], p.add_v);
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < p.head_dim; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 line = 0; line < 8; line++) sum += sums[line * p.head_dim + i];
        p.parts[(u64)part * p.heads * p.head_dim + first + i] = sum;
    }
}
