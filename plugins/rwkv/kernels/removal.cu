// What RWKV-7 removes from its state and what it puts there (arXiv 2503.14456, section 4.1): with
// a = sigmoid(rate), in every head of K channels, D = H K,
//
//   kappa = k xi / |k xi|     b = a kappa     key = k (1 + (a - 1) alpha)
//
// A warp takes a head of a position. removal_forward: blocks of 8 such pairs. removal_backward: a block takes
// a head and one part of the positions, 8 at a time, with [2, 8, K] values of shared memory for the gradients
// of xi and alpha; so K is at most 512.

#define LEAST 1e-24f  // squared length below which a direction is that of nothing

KERNEL(256, removal_forward, RemovalForward) {
    const u32 lane = threadIdx.x % WARP;
    const u64 pair = blockIdx.x * 8ull + threadIdx.x / WARP;
    const u64 at = pair / p.heads, first = pair % p.heads * p.head_dim;
    if (at >= p.rows) return;  // a whole warp
    const stored *k = p.k + at * p.k_stride + first, *rate = p.rate + at * p.rate_stride + first;
    float square = 0.0f;
    for (u32 i = lane; i < p.head_dim; i += WARP) {
        const float x = k[i] * p.xi[first + i];
        square += x * x;
    }
    const float length = 1.0f / sqrtf(fmaxf(warp_sum(square), LEAST));
    if (lane == 0) p.lengths[pair] = length;
    for (u32 i = lane; i < p.head_dim; i += WARP) {
        const u64 place = pair * p.head_dim + i;
        const float a = sigmoid(rate[i]), kappa = k[i] * p.xi[first + i] * length;
        p.kappa[place] = kappa;
        p.b[place] = kappa * a;
        p.key[place] = k[i] * (1.0f + (a - 1.0f) * p.alpha[first + i]);
    }
}

KERNEL(256, removal_backward, RemovalBackward) {
    SHARED(sums);  // [2, 8, K]
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 head = blockIdx.x % p.heads, part = blockIdx.x / p.heads;
    const u64 first = (u64)head * p.head_dim;
    const float *xi = p.xi + first, *alpha = p.alpha + first;
    float *sum_xi = sums + warp * p.head_dim, *sum_alpha = sum_xi + 8 * p.head_dim;
    for (u32 i = lane; i < p.head_dim; i += WARP) sum_xi[i] = sum_alpha[i] = 0.0f;
    for (u64 at = part * 8 + warp; at < p.rows; at += p.part_count * 8) {
        const u64 pair = at * p.heads + head, place = pair * p.head_dim;
        const stored *k = p.k + at * p.k_stride + first, *rate = p.rate + at * p.rate_stride + first;
        const stored *kappa = p.kappa + place, *grad_kappa = p.grad_kappa + place;
        const stored *grad_b = p.grad_b + place, *grad_key = p.grad_key + place;
        // What lies along kappa does not change a direction.
        float along = 0.0f;
        for (u32 i = lane; i < p.head_dim; i += WARP) along += (grad_kappa[i] + sigmoid(rate[i]) * grad_b[i]) * kappa[i];
        along = warp_sum(along);
        for (u32 i = lane; i < p.head_dim; i += WARP) {
            const float a = sigmoid(rate[i]);
            const float across = (grad_kappa[i] + a * grad_b[i] - kappa[i] * along) * p.lengths[pair];
            const float scaled = grad_key[i] * k[i];
            sum_xi[i] += across * k[i];
            sum_alpha[i] += scaled * (a - 1.0f);
            const float by_k = across * xi[i] + grad_key[i] * (1.0f + (a - 1.0f) * alpha[i]);
            const float by_rate = (grad_b[i] * kappa[i] + scaled * alpha[i]) * a * (1.0f - a);
            leave(&p.grad_k[at * p.grad_k_stride + first + i], by_k, p.add_k);
            leave(&p.grad_rate[at * p.grad_rate_stride + first + i], by_rate, p.add_rate);
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < p.head_dim; i += blockDim.x) {
        float of_xi = 0.0f, of_alpha = 0.0f;
        for (u32 line = 0; line < 8; line++) {
            of_xi += sums[line * p.head_dim + i];
            of_alpha += sums[(8 + line) * p.head_dim + i];
        }
        const u64 place = (u64)part * p.heads * p.head_dim + first + i;
        p.parts_xi[place] = of_xi;
        p.parts_alpha[place] = of_alpha;
    }
}
