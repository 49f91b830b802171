// The gradients of ssd.cu, which stands in front of this file. With S' the state after a chunk, dS' its
// gradient and U_j the gradient of dt_j x_j,
//
//   U_j = V_j + sum over i >= j of C_i B_j exp(s_i - s_j) dy_i with V_j = exp(s_L - s_j) B_j dS',
//   dx_j = dt_j U_j + D dy_j, and that of dt_j is x_j U_j.
//
// That of dt_t a, the logarithm of a decay, is the sum of all that reaches across token t:
//
//   what an earlier token says to t or a later one, over i >= t > j of C_i B_j exp(s_i - s_j) dt_j (dy_i x_j)  (`within`),
//   what the state before says to t or a later one, over i >= t of exp(s_i) dy_i C_i S                        (`reads`),
//   what an earlier token leaves in the state after, over j < t of dt_j x_j V_j,
//   what the state before leaves there, exp(s_L) <S, dS'>.
//
// It is summed as that, not as gradients of s_i over all tokens of which most would cancel: where a head forgets fast,
// or factors are rounded, the rounding of what cancels is more than all that is left.

// A block of the heads of a group.
struct Part {
    u32 group, head, heads, index;  // index over [G, parts]
};

// `within` of a head from what each token says to each, [i, j] in shared memory with 0 for j >= i.
__device__ __forceinline__ void sum_within(const Ssd& p, const Place& place, u32 head, float* shared) {
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
    if (threadIdx.x % 2 == 0) p.within[steps_of(p, place, head) + t] = total;
}

// The gradient of C B^T, [i, j]: over the heads, in order, (dy_i x_j) exp(s_i - s_j) dt_j where j <= i. Also writes
// `within` of the heads.
__device__ __forceinline__ Tile<64> grad_products(const Ssd& p, const Place& place, const Part& part, float* shared) {
    const float* products = p.products + (place.index * p.groups + part.group) * CHUNK * CHUNK;
    Tile<64> sum = {};
    for (u32 head = part.head; head < part.head + part.heads; head++) {
        const float *dy = p.dy + (u64)head * p.width, *x = p.x + (u64)head * p.width;
        Tile<64> grad = {};
        add_product<64, ALONG_INNER, ALONG_INNER, ALL>(
            p.width, shared, grad,
            [&](u32 t, u32 col) { return t < place.count && col < p.width ? dy[(place.token + t) * p.dy_stride + col] : 0.0f; },
            [&](u32 t, u32 col) { return t < place.count && col < p.width ? x[(place.token + t) * p.x_stride + col] : 0.0f; });
        const float* steps = p.steps + steps_of(p, place, head);
        const float* sums = p.sums + steps_of(p, place, head);
        const float* rests = p.rests + steps_of(p, place, head);
#pragma unroll
        for (u32 i = 0; i < Tile<64>::rows; i++) {
            const u32 row = Tile<64>::row(i);
#pragma unroll
            for (u32 j = 0; j < Tile<64>::cols; j++) {
                const u32 col = Tile<64>::col(j);
                float& value = grad.at(i, j);
                value = col <= row ? value * decay_between(sums, rests, row, col) * steps[col] : 0.0f;
                sum.at(i, j) += value;
                value *= col < row ? products[row * CHUNK + col] : 0.0f;
            }
        }
        lay_out(grad, shared);
        sum_within(p, place, head, shared);
    }
    return sum;
}

// Adds to a head's `reads` what 64 columns of N say of them: `read`, [t, n] in shared memory, is exp(s) dy S^T.
__device__ __forceinline__ void add_reads(const Ssd& p, const Place& place, u32 head, u32 first_n, const float* c, const float* read) {
    const u32 lane = threadIdx.x % WARP, rows = p.state - first_n;
    float* reads = p.reads + steps_of(p, place, head);
    // Four rows a warp are read before the first sum is needed.
    for (u32 start = threadIdx.x / WARP * 4; start < place.count; start += 16) {
        float sum[4] = {};
#pragma unroll
        for (u32 n = lane; n < 64; n += WARP) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 t = start + i;
                sum[i] += t < place.count && n < rows ? c[(place.token + t) * p.c_stride + n] * read[t * STRIDE + n] : 0.0f;
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sum[i] = warp_sum(sum[i]);
            if (lane == 0 && start + i < place.count) reads[start + i] = (first_n == 0 ? 0.0f : reads[start + i]) + sum[i];
        }
    }
}

// 64 columns of a part of the gradient of C, over the heads exp(s) dy S^T, and M B with M that of C B^T; or of B,
// (share x) dS'^T and M^T C. That of C also writes `reads` of the heads.
template <bool OF_C>
__device__ __forceinline__ void grad_shared(const Ssd& p, const Place& place, const Part& part, u32 first_n, float* shared, const float* mixed) {
    const u64 value_stride = OF_C ? p.dy_stride : p.x_stride, other_stride = OF_C ? p.b_stride : p.c_stride;
    const u64 channels = (u64)p.heads * p.width, shared_column = (u64)part.group * p.state + first_n;
    const float* other = (OF_C ? p.b : p.c) + shared_column;
    const u32 rows = p.state - first_n;
    Tile<64> tile = {};
    for (u32 head = part.head; head < part.head + part.heads; head++) {
        const u64 column = (u64)head * p.width;
        const float* weights = (OF_C ? p.decays : p.shares) + steps_of(p, place, head);
        const float* values = (OF_C ? p.dy : p.x) + column;
        const float* states = (OF_C ? p.states : p.grad_states) + place.index * p.state * channels + column;
        Tile<64> own = {};
        add_product<64, ALONG_INNER, ALONG_INNER, ALL>(
            p.width, shared, OF_C ? own : tile,
            [&](u32 t, u32 col) {
                return t < place.count && col < p.width ? weights[t] * values[(place.token + t) * value_stride + col] : 0.0f;
            },
            [&](u32 n, u32 col) { return n < rows && col < p.width ? states[(first_n + n) * channels + col] : 0.0f; });
        if (!OF_C) continue;
#pragma unroll
        for (u32 i = 0; i < Tile<64>::rows; i++) {
#pragma unroll
            for (u32 j = 0; j < Tile<64>::cols; j++) tile.at(i, j) += own.at(i, j);
        }
        lay_out(own, shared);
        add_reads(p, place, head, first_n, p.c + shared_column, shared);
    }
    add_product<64, OF_C ? ALONG_INNER : ALONG_ROWS, ALONG_ROWS, ALL>(
        place.count, shared, tile,
        [&](u32 row, u32 t) { return OF_C ? mixed[row * STRIDE + t] : mixed[t * STRIDE + row]; },
        [&](u32 n, u32 t) { return t < place.count && n < rows ? other[(place.token + t) * other_stride + n] : 0.0f; });
    lay_out(tile, shared);
    float* parts = OF_C ? p.c_parts : p.b_parts;
    FOR_EACH(index, CHUNK * 64, 128) {
        const u32 t = index / 64, n = index % 64;
        if (t < place.count && n < rows)
            parts[((place.token + t) * p.groups * p.parts + part.index) * p.state + first_n + n] = shared[t * STRIDE + n];
    }
}

// Parts of the gradients of B and C. Grid: chunks, groups and parts. Shared: slabs, the gradient of C B^T
// [64, STRIDE].
KERNEL(128, ssd_grad_shared, Ssd) {
    SHARED(shared);
    float* mixed = shared + SLABS;
    const u32 index = blockIdx.x % (p.groups * p.parts), group = index / p.parts, in_group = p.heads / p.groups;
    const u32 first = index % p.parts * p.part_heads, left = in_group - first;
    const Part part = {group, group * in_group + first, left < p.part_heads ? left : p.part_heads, index};
    const Place place = place_of(p, blockIdx.x / (p.groups * p.parts));
    Tile<64> sum = grad_products(p, place, part, shared);
    lay_out(sum, mixed);
    for (u32 first_n = 0; first_n < p.state; first_n += 64) {
        grad_shared<true>(p, place, part, first_n, shared, mixed);
        grad_shared<false>(p, place, part, first_n, shared, mixed);
    }
}

// Adds to `left` what tokens leave in the state after of columns that start at `column`: dt x times V, which is laid
// out in shared memory.
template <u32 COLS>
__device__ __forceinline__ void add_left(const Ssd& p, const Place& place, u64 column, u32 cols, const float* steps, const float* shared, float* left) {
    const u32 lane = threadIdx.x % WARP;
    for (u32 start = threadIdx.x / WARP * 4; start < place.count; start += 4 * (2 * COLS / WARP)) {
        float sum[4] = {};
#pragma unroll
        for (u32 col = lane; col < COLS; col += WARP) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 t = start + i;
                sum[i] += t < place.count && col < cols ? p.x[(place.token + t) * p.x_stride + column + col] * shared[t * STRIDE + col] : 0.0f;
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            sum[i] = warp_sum(sum[i]);
            if (lane == 0) left[start + i] += steps[start + i] * sum[i];
        }
    }
}

// A chunk's gradients of x and dt, and parts of those of the parameters. Block: a chunk of a head, the head's
// columns in tiles. Shared: slabs, steps, sums in two, gradients of steps, what a token leaves in the state after
// [64 each], scratch [32].
template <u32 COLS>
__device__ __forceinline__ void grad_x(const Ssd& p, float* shared) {
    float *steps = shared + SLABS, *sums = steps + CHUNK, *rests = sums + CHUNK;
    float *grad_steps = rests + CHUNK, *left = grad_steps + CHUNK, *scratch = left + CHUNK;
    const u32 head = blockIdx.x % p.heads, group = head / (p.heads / p.groups);
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Place place = place_of(p, blockIdx.x / p.heads);
    const bool last_chunk = place.chunk + 1 == p.chunks;
    const u64 channels = (u64)p.heads * p.width, values = p.state * channels;
    const float* products = p.products + (place.index * p.groups + group) * CHUNK * CHUNK;
    const float* grad_after = p.grad_states + place.index * values;
    const float* before = p.states + place.index * values;
    const float* b = p.b + (u64)group * p.state;
    for (u32 t = threadIdx.x; t < CHUNK; t += 2 * COLS) {
        steps[t] = p.steps[steps_of(p, place, head) + t];
        sums[t] = p.sums[steps_of(p, place, head) + t];
        rests[t] = p.rests[steps_of(p, place, head) + t];
        grad_steps[t] = left[t] = 0.0f;
    }
    const float skip = p.d[head];
    float grad_skip = 0.0f, grad_before = 0.0f;  // grad_before: <S, dS'>
    for (u32 first = 0; first < p.width; first += COLS) {
        const u64 column = (u64)head * p.width + first;
        const u32 cols = p.width - first;
        Tile<COLS> tile = {};
        // The gradient of the state after the last chunk is 0.
        add_product<COLS, ALONG_INNER, ALONG_ROWS, ALL>(
            last_chunk ? 0 : p.state, shared, tile,
            [&](u32 t, u32 n) { return t < place.count && n < p.state ? b[(place.token + t) * p.b_stride + n] : 0.0f; },
            [&](u32 col, u32 n) {
                if (n >= p.state || col >= cols) return 0.0f;
                const float grad = grad_after[n * channels + column + col];
                grad_before += grad * before[n * channels + column + col];
                return grad;
            });
        if (!last_chunk) {
            __syncthreads();
#pragma unroll
            for (u32 i = 0; i < Tile<COLS>::rows; i++) {
                const float decay = decay_between(sums, rests, CHUNK - 1, Tile<COLS>::row(i));
#pragma unroll
                for (u32 j = 0; j < Tile<COLS>::cols; j++) tile.at(i, j) *= decay;
            }
            lay_out(tile, shared);
            add_left<COLS>(p, place, column, cols, steps, shared, left);
        }
        add_product<COLS, ALONG_ROWS, ALONG_ROWS, UPPER>(
            place.count, shared, tile,
            [&](u32 j, u32 i) {
                const bool seen = j <= i && i < place.count;
                return seen ? products[i * CHUNK + j] * decay_between(sums, rests, i, j) : 0.0f;
            },
            [&](u32 col, u32 t) { return t < place.count && col < cols ? p.dy[(place.token + t) * p.dy_stride + column + col] : 0.0f; });
        lay_out(tile, shared);
        // Four rows are read before the first is written, as the compiler cannot know that dx is not x.
        for (u32 start = 4 * warp; start < place.count; start += 4 * (2 * COLS / WARP)) {
            float grad_step[4] = {};
#pragma unroll
            for (u32 col = lane; col < COLS; col += WARP) {
                float x[4], dy[4], old[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const bool there = start + i < place.count && col < cols;
                    const u64 token = place.token + start + i, at = column + col;
                    x[i] = there ? p.x[token * p.x_stride + at] : 0.0f;
                    dy[i] = there ? p.dy[token * p.dy_stride + at] : 0.0f;
                    old[i] = there && p.dx_accumulate ? p.dx[token * p.dx_stride + at] : 0.0f;
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const u64 token = place.token + start + i;
                    const float u = shared[(start + i) * STRIDE + col];
                    if (start + i < place.count && col < cols)
                        p.dx[token * p.dx_stride + column + col] = old[i] + steps[start + i] * u + skip * dy[i];
                    grad_step[i] += x[i] * u;
                    grad_skip += dy[i] * x[i];
                }
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                grad_step[i] = warp_sum(grad_step[i]);
                if (lane == 0) grad_steps[start + i] += grad_step[i];
            }
        }
    }
    // Also makes the sums of all warps visible.
    grad_skip = block_sum(grad_skip, scratch);
    grad_before = expf(sums[CHUNK - 1]) * block_sum(grad_before, scratch);
    if (warp != 0) return;
    // A lane has tokens t and t + 1: what is read by them and later ones, and left by those before them.
    const u32 t = 2 * lane;
    const u64 at = steps_of(p, place, head) + t;
    const float read[2] = {t < place.count ? p.reads[at] : 0.0f, t + 1 < place.count ? p.reads[at + 1] : 0.0f};
    float later = read[0] + read[1], earlier = left[t] + left[t + 1];
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        const float behind = __shfl_down_sync(ALL_LANES, later, lanes), ahead = __shfl_up_sync(ALL_LANES, earlier, lanes);
        if (lane + lanes < WARP) later += behind;
        if (lane >= lanes) earlier += ahead;
    }
    // Those of the lanes beside, and so without the lane's own; a difference would have the rounding of both.
    const float behind = __shfl_down_sync(ALL_LANES, later, 1), ahead = __shfl_up_sync(ALL_LANES, earlier, 1);
    const float read_later = lane + 1 < WARP ? behind : 0.0f, left_before = lane > 0 ? ahead : 0.0f;
    const float across[2] = {
        p.within[at] + later + left_before + grad_before,
        p.within[at + 1] + (read[1] + read_later) + (left_before + left[t]) + grad_before,
    };
    const float decay = -expf(p.a_log[head]);
    float grad_decay = 0.0f, grad_bias = 0.0f;
    for (u32 i = 0; i < 2; i++) {
        if (t + i >= place.count) continue;
        const u64 token = place.token + t + i;
        const float slope = sigmoid(p.dt[token * p.dt_stride + head] + p.dt_bias[head]);
        const float grad = (grad_steps[t + i] + across[i] * decay) * slope;
        float* place_dt = &p.ddt[token * p.ddt_stride + head];
        *place_dt = p.ddt_accumulate ? *place_dt + grad : grad;
        grad_decay += across[i] * steps[t + i];
        grad_bias += grad;
    }
    grad_decay = warp_sum(grad_decay);
    grad_bias = warp_sum(grad_bias);
    if (lane != 0) return;
    float* part = p.param_parts + place.index * 3 * p.heads + head;
    // a = -exp(A_log), so da / dA_log = a.
    part[0] = grad_decay * decay;
    part[p.heads] = grad_skip;
    part[2 * p.heads] = grad_bias;
}

KERNEL(64, ssd_grad_x_32, Ssd) {
    SHARED(shared);
    grad_x<32>(p, shared);
}

KERNEL(128, ssd_grad_x_64, Ssd) {
    SHARED(shared);
    grad_x<64>(p, shared);
}

// The gradients of B and C from their parts, in order. One thread a value of B and of C.
KERNEL(256, ssd_add_parts, Ssd) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, cols = (u64)p.groups * p.state;
    const u64 token = index / cols, col = index % cols, group = col / p.state, n = col % p.state;
    if (token >= (u64)p.batch * p.length) return;
    const u64 first = (token * p.groups + group) * p.parts * p.state + n;
    float *db = &p.db[token * p.db_stride + col], *dc = &p.dc[token * p.dc_stride + col];
    float sum_b = p.db_accumulate ? *db : 0.0f, sum_c = p.dc_accumulate ? *dc : 0.0f;
    for (u32 part = 0; part < p.parts; part++) {
        sum_b += p.b_parts[first + (u64)part * p.state];
        sum_c += p.c_parts[first + (u64)part * p.state];
    }
    *db = sum_b;
    *dc = sum_c;
}
