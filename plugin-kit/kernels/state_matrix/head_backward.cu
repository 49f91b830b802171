// The gradients of head.cu, which stands in front of this file. With S' the state after a chunk, dS' its gradient and
// U_j the gradient of c_j v_j,
//
//   U_j = V_j + sum over i >= j of q_i k_j exp(s_i - s_j) do_i with V_j = exp(s_L - s_j) k_j dS',
//   dv_j = c_j U_j + d do_j, and that of c_j is v_j U_j.
//
// That of the logarithm of a decay at t is the sum of all that reaches across token t:
//
//   what an earlier token says to t or a later one, over i >= t > j of q_i k_j exp(s_i - s_j) c_j (do_i v_j)  (`within`),
//   what the state before says to t or a later one, over i >= t of exp(s_i) do_i q_i S                    (`reads`),
//   what an earlier token leaves in the state after, over j < t of c_j v_j V_j,
//   what the state before leaves there, exp(s_L) <S, dS'>.
//
// It is summed as that, not as gradients of s_i over all tokens of which most would cancel: where a head forgets fast,
// or factors are rounded, the rounding of what cancels is more than all that is left.

#if LEVELS
__device__ __forceinline__ void hear_within(const InChunks& p, const Place& place, u32 head, float* shared);
__device__ __forceinline__ bool is_read(const InChunks& p, u32 chunk, u32 level);
__device__ __forceinline__ float factor_of(const InChunks& p, u64 token, u32 head, u32 level);
__device__ __forceinline__ u64 left_of(const InChunks& p, const Place& place, u32 head, u32 level);
__device__ __forceinline__ u64 heard_of(const InChunks& p, const Place& place, u32 head, u32 level);
__device__ __forceinline__ const float* range_read(const InChunks& p, const Place& place, u32 level);
__device__ __forceinline__ float heard_across(const InChunks& p, const Place& place, u32 head, u32 t);
#endif

// A block of the heads of a group.
struct Part {
    u32 group, head, heads, index;  // index over [G, parts]
};

// `within` of a head from what each token says to each, [i, j] in shared memory with 0 for j >= i.
__device__ __forceinline__ void sum_within(const InChunks& p, const Place& place, u32 head, float* shared) {
    // Over i from the last row on, each half of the rows for itself.
    const u32 col = threadIdx.x % 64, begin = threadIdx.x / 64 * 32;
    float sum = 0.0f;
#pragma unroll 8
    for (u32 i = 0; i < 32; i++) {
        float* value = shared + (begin + 31 - i) * STRIDE + col;
        sum += *value;
        *value = sum;
    }
    __syncthreads();
    // Over j < t, odd and even ones for themselves.
    const u32 t = threadIdx.x / 2;
    const float *row = shared + t * STRIDE, *lower = shared + 32 * STRIDE;
    float total = 0.0f;
#pragma unroll 8
    for (u32 j = threadIdx.x % 2; j < 64; j += 2) {
        if (j < t) total += row[j] + (t < 32 ? lower[j] : 0.0f);
    }
    total += __shfl_xor_sync(ALL_LANES, total, 1);
    if (threadIdx.x % 2 == 0) p.within[sums_of(p, place, head) + t] = total;
}

// The gradient of Q K^T, [i, j]: over the heads, in order, (do_i v_j) exp(s_i - s_j) c_j where j <= i. Also writes
// `within` of the heads.
__device__ __forceinline__ Tile<64> grad_products(const InChunks& p, const Place& place, const Part& part, float* shared) {
    const float* products = p.products + (place.index * p.groups + part.group) * CHUNK * CHUNK;
    Tile<64> sum = {};
    for (u32 head = part.head; head < part.head + part.heads; head++) {
        const stored *grad_o = p.grad_o + (u64)head * p.value, *v = p.v + (u64)head * p.value;
        Tile<64> grad = {};
        add_product<64, ALONG_INNER, ALONG_INNER, ALL>(
            p.value, shared, grad, tokens_of(place, grad_o, p.grad_o_stride, p.value), tokens_of(place, v, p.v_stride, p.value));
        // Read again by each: those of a chunk stay in the first-level cache.
        const float* sums = p.sums + sums_of(p, place, head);
        const float* rests = p.rests + sums_of(p, place, head);
#pragma unroll
        for (u32 i = 0; i < Tile<64>::rows; i++) {
            const u32 row = Tile<64>::row(i);
#pragma unroll
            for (u32 j = 0; j < Tile<64>::cols; j++) {
                const u32 col = Tile<64>::col(j);
                float& value = grad.at(i, j);
                value = col <= row ? value * decay_between(sums, rests, row, col) * (col < place.count ? scale_of(p, place.token + col, head) : 0.0f) : 0.0f;
#if LEVELS
                // What is said before factors, of the token itself too.
                sum.at(i, j) += col <= row && row < place.count ? value * factor_within(p, place, head, row, col) : 0.0f;
                value *= col <= row ? products[row * CHUNK + col] : 0.0f;
#else
                sum.at(i, j) += value;
                value *= col < row ? products[row * CHUNK + col] : 0.0f;
#endif
            }
        }
        lay_out(grad, shared);
#if LEVELS
        hear_within(p, place, head, shared);
#endif
        sum_within(p, place, head, shared);
    }
    return sum;
}

// Adds to a head's `reads` [64] what 64 columns of N say of them: `read`, [t, n] in shared memory, is exp(s) grad_o S^T.
__device__ __forceinline__ void add_reads(const InChunks& p, const Place& place, u32 first_n, const stored* q, const float* read, float* reads) {
    const u32 lane = threadIdx.x % WARP, rows = p.key - first_n;
    // Four rows a warp are read before the first sum is needed.
    for (u32 start = threadIdx.x / WARP * 4; start < place.count; start += 16) {
        float sum[4] = {};
#pragma unroll
        for (u32 n = lane; n < 64; n += WARP) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 t = start + i;
                sum[i] += t < place.count && n < rows ? q[(place.token + t) * p.q_stride + n] * read[t * STRIDE + n] : 0.0f;
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sum[i] = warp_sum(sum[i]);
            if (lane == 0 && start + i < place.count) reads[start + i] = (first_n == 0 ? 0.0f : reads[start + i]) + sum[i];
        }
    }
}

// 64 columns of a part of the gradient of q, over the heads exp(s) do S^T, and M K with M that of Q K^T; or of k,
// (share v) dS'^T and M^T C. That of C also writes `reads` of the heads.
template <bool OF_Q>
__device__ __forceinline__ void grad_shared(const InChunks& p, const Place& place, const Part& part, u32 first_n, float* shared, const float* mixed) {
    const u64 value_stride = OF_Q ? p.grad_o_stride : p.v_stride, other_stride = OF_Q ? p.k_stride : p.q_stride;
    const u64 channels = (u64)p.heads * p.value, shared_column = (u64)part.group * p.key + first_n;
    const stored* other = (OF_Q ? p.k : p.q) + shared_column;
    const u32 rows = p.key - first_n;
    Tile<64> tile = {};
#if LEVELS
    const u32 levels = OF_Q ? p.depth : 1;
#else
    const u32 levels = 1;
#endif
    for (u32 turn = 0; turn < part.heads * levels; turn++) {
        const u32 head = part.head + turn / levels;
        const u64 column = (u64)head * p.value;
        const float* weights = (OF_Q ? p.decays : p.shares) + sums_of(p, place, head);
        const stored* values = (OF_Q ? p.grad_o : p.v) + column;
        const float* states = (OF_Q ? p.states : p.grad_states) + place.index * p.key * channels + column;
        float* reads = p.reads + sums_of(p, place, head);
#if LEVELS
        const u32 level = turn % levels;
        if (OF_Q && !is_read(p, place.chunk, level)) continue;
        if (OF_Q) {
            weights = p.left + left_of(p, place, head, level);
            states = range_read(p, place, level) + column;
            reads = p.heard + heard_of(p, place, head, WITHIN + level);
        }
#endif
        Tile<64> own = {};
        add_product<64, ALONG_INNER, ALONG_INNER, ALL>(
            p.value, shared, OF_Q ? own : tile,
            weighted(tokens_of(place, values, value_stride, p.value), [&](u32 t, u32) { return weights[t]; }),
            lines_of(states + first_n * channels, channels, rows, p.value));
        if (!OF_Q) continue;
#pragma unroll
        for (u32 i = 0; i < Tile<64>::rows; i++) {
#if LEVELS
            const u32 row = Tile<64>::row(i);
            const float factor = row < place.count ? factor_of(p, place.token + row, head, WITHIN + level) : 0.0f;
#else
            const float factor = 1.0f;
#endif
#pragma unroll
            for (u32 j = 0; j < Tile<64>::cols; j++) tile.at(i, j) += factor * own.at(i, j);
        }
        lay_out(own, shared);
        add_reads(p, place, first_n, p.q + shared_column, shared, reads);
    }
    add_product<64, OF_Q ? ALONG_INNER : ALONG_ROWS, ALONG_ROWS, ALL>(
        place.count, shared, tile, Lines<float>{mixed, STRIDE * 4, CHUNK, CHUNK, true}, tokens_of(place, other, other_stride, rows));
    lay_out(tile, shared);
    const u64 part_stride = (u64)p.groups * p.parts * p.key;
    float* parts = (OF_Q ? p.q_parts : p.k_parts) + place.token * part_stride + (u64)part.index * p.key + first_n;
    write_lines<128>(shared, parts, part_stride, place.count, rows);
}

// Parts of the gradients of q and k. Grid: chunks, groups and parts. Shared: slabs, the gradient of Q K^T
// [64, STRIDE].
DENSE_KERNEL(128, LEVELS ? 3 : 4, head_grad_shared, InChunks) {
    SHARED(shared);
    float* mixed = shared + SLABS;
    const u32 index = blockIdx.x % (p.groups * p.parts), group = index / p.parts, in_group = p.heads / p.groups;
    const u32 first = index % p.parts * p.part_heads, left = in_group - first;
    const Part part = {group, group * in_group + first, left < p.part_heads ? left : p.part_heads, index};
    const Place place = place_of(p, blockIdx.x / (p.groups * p.parts));
    Tile<64> sum = grad_products(p, place, part, shared);
    lay_out(sum, mixed);
    for (u32 first_n = 0; first_n < p.key; first_n += 64) {
        grad_shared<true>(p, place, part, first_n, shared, mixed);
        grad_shared<false>(p, place, part, first_n, shared, mixed);
    }
}

// Adds to `left` what tokens leave in the state after of columns that start at `column`: logs v times V, which is laid
// out in shared memory.
template <u32 COLS>
__device__ __forceinline__ void add_left(const InChunks& p, const Place& place, u64 column, u32 cols, const float* scales, const float* shared, float* left) {
    const u32 lane = threadIdx.x % WARP;
    for (u32 start = threadIdx.x / WARP * 4; start < place.count; start += 4 * (2 * COLS / WARP)) {
        float sum[4] = {};
#pragma unroll
        for (u32 col = lane; col < COLS; col += WARP) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 t = start + i;
                sum[i] += t < place.count && col < cols ? p.v[(place.token + t) * p.v_stride + column + col] * shared[t * STRIDE + col] : 0.0f;
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sum[i] = warp_sum(sum[i]);
            if (lane == 0) left[start + i] += scales[start + i] * sum[i];
        }
    }
}

// The gradient of the state after a chunk, whose product with the state before is summed on the way.
struct GradAfter {
    Lines<float> of, before;
    float& sum;
    bool whole = of.whole;

    template <bool WHOLE>
    __device__ __forceinline__ Quad read(u32 line, u32 col) const {
        const Quad grad = of.template read<WHOLE>(line, col);
        // With levels it is levels_across that adds what reaches across a chunk.
        if (LEVELS) return grad;
        const Quad own = before.template read<WHOLE>(line, col);
#pragma unroll
        for (u32 i = 0; i < 4; i++) sum += grad.v[i] * own.v[i];
        return grad;
    }
};

// A chunk's gradients of v, the logarithms and scales, and parts of those of skips. Block: a chunk of a head, the head's
// columns in tiles. Shared: slabs, scales, sums in two, gradients of scales, what a token leaves in the state after
// [64 each], scratch [32].
template <u32 COLS>
__device__ __forceinline__ void grad_values(const InChunks& p, float* shared) {
    float *scales = shared + SLABS, *sums = scales + CHUNK, *rests = sums + CHUNK;
    float *grad_scales = rests + CHUNK, *left = grad_scales + CHUNK, *scratch = left + CHUNK;
    const u32 head = blockIdx.x % p.heads, group = head / (p.heads / p.groups);
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Place place = place_of(p, blockIdx.x / p.heads);
    const bool last_chunk = place.chunk + 1 == p.chunks;
    const u64 channels = (u64)p.heads * p.value, values = p.key * channels;
    const ToEachOther products = {p, place, head, sums, rests, p.products + (place.index * p.groups + group) * CHUNK * CHUNK};
    const float* grad_after = p.grad_states + place.index * values;
    const float* before = p.states + place.index * values;
    const stored* k = p.k + (u64)group * p.key;
    for (u32 t = threadIdx.x; t < CHUNK; t += 2 * COLS) {
        sums[t] = p.sums[sums_of(p, place, head) + t];
        rests[t] = p.rests[sums_of(p, place, head) + t];
        scales[t] = t < place.count ? scale_of(p, place.token + t, head) : 0.0f;
        grad_scales[t] = left[t] = 0.0f;
    }
    const float skip = p.skip ? p.skip[head] : 0.0f;
    float grad_skip = 0.0f, grad_before = 0.0f;  // grad_before: <S, dS'>
    for (u32 first = 0; first < p.value; first += COLS) {
        const u64 column = (u64)head * p.value + first;
        const u32 cols = p.value - first;
        Tile<COLS> tile = {};
        // The gradient of the state after the last chunk is 0.
        add_product<COLS, ALONG_INNER, ALONG_ROWS, ALL>(
            last_chunk ? 0 : p.key, shared, tile, tokens_of(place, k, p.k_stride, p.key),
            GradAfter{lines_of(grad_after + column, channels, p.key, cols), lines_of(before + column, channels, p.key, cols), grad_before});
        if (!last_chunk) {
            __syncthreads();
#pragma unroll
            for (u32 i = 0; i < Tile<COLS>::rows; i++) {
                const float decay = decay_between(sums, rests, CHUNK - 1, Tile<COLS>::row(i));
#pragma unroll
                for (u32 j = 0; j < Tile<COLS>::cols; j++) tile.at(i, j) *= decay;
            }
            lay_out(tile, shared);
            add_left<COLS>(p, place, column, cols, scales, shared, left);
        }
        add_product<COLS, ALONG_ROWS, ALONG_ROWS, UPPER>(
            place.count, shared, tile, products, tokens_of(place, p.grad_o + column, p.grad_o_stride, cols));
        lay_out(tile, shared);
        // Four rows are read before the first is written, as the compiler cannot know that grad_v is not v.
        for (u32 start = 4 * warp; start < place.count; start += 4 * (2 * COLS / WARP)) {
            float grad_scale[4] = {};
#pragma unroll
            for (u32 col = lane; col < COLS; col += WARP) {
                float v[4], grad_o[4], old[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const bool there = start + i < place.count && col < cols;
                    const u64 token = place.token + start + i, at = column + col;
                    v[i] = there && (p.scale || p.skip) ? p.v[token * p.v_stride + at] : 0.0f;
                    grad_o[i] = there && p.skip ? p.grad_o[token * p.grad_o_stride + at] : 0.0f;
                    old[i] = there && p.grad_v_accumulate ? p.grad_v[token * p.grad_v_stride + at] : 0.0f;
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const u64 token = place.token + start + i;
                    const float u = shared[(start + i) * STRIDE + col];
                    if (start + i < place.count && col < cols)
                        p.grad_v[token * p.grad_v_stride + column + col] = old[i] + scales[start + i] * u + skip * grad_o[i];
                    grad_scale[i] += v[i] * u;
                    grad_skip += grad_o[i] * v[i];
                }
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                grad_scale[i] = warp_sum(grad_scale[i]);
                if (lane == 0) grad_scales[start + i] += grad_scale[i];
            }
        }
    }
    // Also makes the sums of all warps visible.
    grad_skip = block_sum(grad_skip, scratch);
    grad_before = expf(sums[CHUNK - 1]) * block_sum(grad_before, scratch);
    if (warp != 0) return;
    // A lane has tokens t and t + 1: what is read by them and later ones, and left by those before them.
    const u32 t = 2 * lane;
    const u64 at = sums_of(p, place, head) + t;
#if LEVELS
    const float read[2] = {heard_across(p, place, head, t), heard_across(p, place, head, t + 1)};
#else
    const float read[2] = {t < place.count ? p.reads[at] : 0.0f, t + 1 < place.count ? p.reads[at + 1] : 0.0f};
#endif
    float later = read[0] + read[1], earlier = left[t] + left[t + 1];
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        const float behind = __shfl_down_sync(ALL_LANES, later, lanes), ahead = __shfl_up_sync(ALL_LANES, earlier, lanes);
        if (lane + lanes < WARP) later += behind;
        if (lane >= lanes) earlier += ahead;
    }
    // Those of the lanes beside, and so without the lane's own; a difference would have the rounding of both.
    const float behind = __shfl_down_sync(ALL_LANES, later, 1), ahead = __shfl_up_sync(ALL_LANES, earlier, 1);
    const float read_later = lane + 1 < WARP ? behind : 0.0f, left_before = lane > 0 ? ahead : 0.0f;
#if LEVELS
    float* across_chunk = p.across + (place.index * p.heads + head) * 2;
    if (lane == 0) across_chunk[0] = later;
    if (lane == WARP - 1) across_chunk[1] = earlier;
#endif
    const float across[2] = {
        p.within[at] + later + left_before + grad_before,
        p.within[at + 1] + (read[1] + read_later) + (left_before + left[t]) + grad_before,
    };
    for (u32 i = 0; i < 2; i++) {
        if (t + i >= place.count) continue;
        const u64 token = place.token + t + i;
        if (p.grad_logs) leave(&p.grad_logs[token * p.grad_logs_stride + head], across[i], p.grad_logs_accumulate);
        if (p.grad_scale) leave(&p.grad_scale[token * p.grad_scale_stride + head], grad_scales[t + i], p.grad_scale_accumulate);
    }
    if (p.skip && lane == 0) p.skip_parts[place.index * p.heads + head] = grad_skip;
}

KERNEL(64, head_grad_values_32, InChunks) {
    SHARED(shared);
    grad_values<32>(p, shared);
}

KERNEL(128, head_grad_values_64, InChunks) {
    SHARED(shared);
    grad_values<64>(p, shared);
}

// The gradients of q and k from their parts, in order. One thread a value of each.
KERNEL(256, head_add_parts, InChunks) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, cols = (u64)p.groups * p.key;
    const u64 token = index / cols, col = index % cols, group = col / p.key, n = col % p.key;
    if (token >= (u64)p.batch * p.length) return;
    const u64 first = (token * p.groups + group) * p.parts * p.key + n;
    stored *grad_k = &p.grad_k[token * p.grad_k_stride + col], *grad_q = &p.grad_q[token * p.grad_q_stride + col];
    float sum_k = p.grad_k_accumulate ? *grad_k : 0.0f, sum_q = p.grad_q_accumulate ? *grad_q : 0.0f;
    for (u32 part = 0; part < p.parts; part++) {
        sum_k += p.k_parts[first + (u64)part * p.key];
        sum_q += p.q_parts[first + (u64)part * p.key];
    }
    *grad_k = sum_k;
    *grad_q = sum_q;
}
