// State-space duality in chunks of L = 64 tokens (arXiv 2405.21060, section 6), for H heads of width P in G
// groups that share B and C:
//
//   dt = softplus(dt + bias), s_i = sum of dt a from the chunk's start to i, a = -exp(A_log),
//   S' = exp(s_L) S + sum over j of exp(s_L - s_j) dt_j B_j x_j^T,
//   y_i = exp(s_i) C_i S + sum over j <= i of C_i B_j exp(s_i - s_j) dt_j x_j + D x_i.
//
// Sums s are made in float64 and kept as two float32 values: where a head forgets fast they grow to thousands while
// s_i - s_j may be small, and would have their rounding.
//
// Forward: ssd_steps, ssd_products (C B^T), ssd_states (what each chunk adds to the state) and ssd_pass (the
// states in order) or, where the batch alone fills a card, ssd_states_in_order, ssd_output_32 or _64. A feed of
// at most 8 tokens is ssd_step alone, which reads and writes the state once. Backward: ssd_grad_states and
// ssd_grad_pass or ssd_grad_states_in_order, ssd_grad_shared (parts of B and C by blocks of heads),
// ssd_grad_x_32 or _64 (x, dt and parts of the parameters), ssd_add_parts.
//
// Matrix products are of tiles, see ssd_tile.cuh, which stands in front of this file. Shared: two slabs
// (SLABS), and what each kernel says. Any N, P, H, G and T: tiles are padded with 0.
//
// Bytes that ptxas spills at most, over the widths and cards that are compiled for:
// spills: ssd_step 16

#define CHUNK 64u
#define SLABS (2 * SLAB_VALUES)
#define STEP_TOKENS 8
#define SLICES 8

struct Ssd {
    const float* x;                        // [B, T, H P]
    const float *b, *c;                    // [B, T, G N]
    const float* dt;                       // [B, T, H], before bias and softplus
    const float *a_log, *d, *dt_bias;      // [H]
    float* y;                              // [B, T, H P]
    float *steps, *sums, *rests;           // [B, chunks, H, 64]: dt after softplus, s in two; 0 and s_L past the end
    float *decays, *shares;                // [B, chunks, H, 64]: exp(s), exp(s_L - s) dt
    float* products;                       // [B, chunks, G, 64, 64]: C B^T
    float* states;                         // [B, chunks, N, H P]: the state before each chunk
    float* carried;                        // [B, units, N, unit_cols]: a session's state, null in training
    const float* dy;                       // [B, T, H P]
    float* grad_states;                    // [B, chunks, N, H P]: gradient of the state after each chunk
    float *dx, *ddt;                       // like x, dt
    float *within, *reads;                 // [B, chunks, H, 64]: parts of the gradients of dt a, see ssd_backward.cu
    float *b_parts, *c_parts;              // [B, T, G, parts, N]
    float *db, *dc;                        // like b, c
    float* param_parts;                    // [B, chunks, 3, H]: gradients of A_log, D, dt_bias
    u64 x_stride, b_stride, c_stride, dt_stride, y_stride, dy_stride, dx_stride, ddt_stride, db_stride, dc_stride;
    u32 batch, length, chunks, heads, width, groups, state, unit_cols;  // B, T, chunks, H, P, G, N
    u32 parts, part_heads;                 // blocks of heads of a group, and the heads of each but the last
    u32 dx_accumulate, ddt_accumulate, db_accumulate, dc_accumulate;
};

// A chunk of a sequence.
struct Place {
    u64 index;  // over [B, chunks]
    u64 token;  // its first, over [B, T]
    u32 chunk, count;
};

__device__ __forceinline__ Place place_of(const Ssd& p, u32 index) {
    const u32 chunk = index % p.chunks, start = chunk * CHUNK, left = p.length - start;
    return {index, (u64)(index / p.chunks) * p.length + start, chunk, left < CHUNK ? left : CHUNK};
}

// Where the 64 steps and sums of a head begin.
__device__ __forceinline__ u64 steps_of(const Ssd& p, const Place& place, u32 head) {
    return (place.index * p.heads + head) * CHUNK;
}

// exp(s_i - s_j).
__device__ __forceinline__ float decay_between(const float* sums, const float* rests, u32 i, u32 j) {
    return expf((sums[i] - sums[j]) + (rests[i] - rests[j]));
}

// dt after softplus and its running sums. Block: one chunk, 32 heads. Shared: [3, 64, 33].
KERNEL(256, ssd_steps, Ssd) {
    SHARED(steps);
    float *sums = steps + CHUNK * 33, *rests = sums + CHUNK * 33;
    const Place place = place_of(p, blockIdx.x);
    const u32 lane = threadIdx.x % WARP, line = threadIdx.x / WARP, first = blockIdx.y * WARP, head = first + lane;
    const bool inside = head < p.heads;
#pragma unroll
    for (u32 turn = 0; turn < CHUNK / 8; turn++) {
        const u32 t = turn * 8 + line;
        const bool there = inside && t < place.count;
        steps[t * 33 + lane] = there ? softplus(p.dt[(place.token + t) * p.dt_stride + head] + p.dt_bias[head]) : 0.0f;
    }
    __syncthreads();
    if (line == 0) {
        const double a = inside ? -expf(p.a_log[head]) : 0.0f;
        double total = 0.0;
        for (u32 t = 0; t < CHUNK; t++) {
            total += steps[t * 33 + lane] * a;
            sums[t * 33 + lane] = (float)total;
            rests[t * 33 + lane] = (float)(total - sums[t * 33 + lane]);
        }
    }
    __syncthreads();
    FOR_EACH(index, WARP * CHUNK, 256) {
        const u32 other = index / CHUNK, t = index % CHUNK;
        if (first + other >= p.heads) continue;
        const u64 at = steps_of(p, place, first + other) + t;
        const float step = steps[t * 33 + other], sum = sums[t * 33 + other];
        p.steps[at] = step;
        p.sums[at] = sum;
        p.rests[at] = rests[t * 33 + other];
        p.decays[at] = expf(sum);
        p.shares[at] = decay_between(sums + other, rests + other, (CHUNK - 1) * 33, t * 33) * step;
    }
}

// C B^T. Block: a chunk of a group.
KERNEL(128, ssd_products, Ssd) {
    SHARED(shared);
    const u32 group = blockIdx.x % p.groups;
    const Place place = place_of(p, blockIdx.x / p.groups);
    const float *c = p.c + (u64)group * p.state, *b = p.b + (u64)group * p.state;
    Tile<64> tile = {};
    add_product<64, ALONG_INNER, ALONG_INNER, ALL>(
        p.state, shared, tile,
        [&](u32 t, u32 n) { return t < place.count && n < p.state ? c[(place.token + t) * p.c_stride + n] : 0.0f; },
        [&](u32 t, u32 n) { return t < place.count && n < p.state ? b[(place.token + t) * p.b_stride + n] : 0.0f; });
    lay_out(tile, shared);
    float* products = p.products + (u64)blockIdx.x * CHUNK * CHUNK;
    FOR_EACH(index, CHUNK * CHUNK, 128)
        products[index] = shared[index / CHUNK * STRIDE + index % CHUNK];
}

// 64 rows of N and 64 columns of a group's states.
struct StateTile {
    u32 group, first_n, first, cols;  // the first of each; columns of a group
};

__device__ __forceinline__ StateTile state_tile(const Ssd& p, u32 index) {
    const u32 cols = p.heads / p.groups * p.width, tiles = (cols + 63) / 64;
    return {index / tiles % p.groups, blockIdx.y * 64, index % tiles * 64, cols};
}

// Tiles of the columns of all groups.
__device__ __forceinline__ u32 tiles_across(const Ssd& p) { return (p.heads / p.groups * p.width + 63) / 64 * p.groups; }

// What a chunk adds to the state: B^T (share x); or, in reverse, what its outputs add to the gradient of the
// state before it: C^T (exp(s) dy).
template <bool REVERSE, u32 BATCH>
__device__ __forceinline__ Tile<64> added_states(const Ssd& p, const Place& place, const StateTile& part, float* shared) {
    const float* keys = (REVERSE ? p.c : p.b) + (u64)part.group * p.state;
    const float* values = (REVERSE ? p.dy : p.x) + (u64)part.group * part.cols;
    const float* weights = REVERSE ? p.decays : p.shares;
    const u64 key_stride = REVERSE ? p.c_stride : p.b_stride, value_stride = REVERSE ? p.dy_stride : p.x_stride;
    Tile<64> tile = {};
    add_product<64, ALONG_ROWS, ALONG_ROWS, ALL, BATCH>(
        place.count, shared, tile,
        [&](u32 row, u32 t) {
            const u32 n = part.first_n + row;
            return t < place.count && n < p.state ? keys[(place.token + t) * key_stride + n] : 0.0f;
        },
        [&](u32 row, u32 t) {
            const u32 col = part.first + row;
            if (t >= place.count || col >= part.cols) return 0.0f;
            const u32 head = part.group * (p.heads / p.groups) + col / p.width;
            return weights[steps_of(p, place, head) + t] * values[(place.token + t) * value_stride + col];
        });
    return tile;
}

// Writes a tile that is laid out in shared memory to where the chunk's state, or its gradient, stands.
template <bool REVERSE>
__device__ __forceinline__ void write_states(const Ssd& p, const Place& place, const StateTile& part, const float* shared) {
    float* states = (REVERSE ? p.grad_states : p.states) + place.index * p.state * p.heads * p.width;
    FOR_EACH(index, 64 * 64, 128) {
        const u32 n = part.first_n + index / 64, col = part.first + index % 64;
        if (n < p.state && col < part.cols)
            states[(u64)n * p.heads * p.width + part.group * part.cols + col] = shared[index / 64 * STRIDE + index % 64];
    }
}

// What each chunk adds, in the place of the state. Grid: chunks and tiles across; tiles of N.
template <bool REVERSE>
__device__ __forceinline__ void chunk_states(const Ssd& p, float* shared) {
    const StateTile part = state_tile(p, blockIdx.x);
    const Place place = place_of(p, blockIdx.x / tiles_across(p));
    Tile<64> tile = added_states<REVERSE, 8>(p, place, part, shared);
    lay_out(tile, shared);
    write_states<REVERSE>(p, place, part, shared);
}

KERNEL(128, ssd_states, Ssd) {
    SHARED(shared);
    chunk_states<false>(p, shared);
}

KERNEL(128, ssd_grad_states, Ssd) {
    SHARED(shared);
    chunk_states<true>(p, shared);
}

// A value of a session's state, as the CPU's form keeps it.
__device__ __forceinline__ float* carried_value(const Ssd& p, u32 row, u32 n, u32 channel) {
    const u32 units = p.heads * p.width / p.unit_cols, unit = channel / p.unit_cols;
    return p.carried + (((u64)row * units + unit) * p.state + n) * p.unit_cols + channel % p.unit_cols;
}

// Puts the running state in the place of what each chunk adds to it, in order. One thread a value; four
// chunks are read before they are needed, as each waits for the one before.
template <bool REVERSE>
__device__ __forceinline__ void pass(const Ssd& p, float* states) {
    const u32 channels = p.heads * p.width;
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, values = (u64)p.state * channels;
    const u64 row = index / values, cell = index % values;
    if (row >= p.batch) return;
    const u32 channel = cell % channels, head = channel / p.width, n = cell / channels;
    float* carried = !REVERSE && p.carried ? carried_value(p, row, n, channel) : 0;
    float running = carried ? *carried : 0.0f;
    for (u32 first = 0; first < p.chunks; first += 4) {
        float added[4], decay[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            if (first + i >= p.chunks) continue;
            const u64 place = row * p.chunks + (REVERSE ? p.chunks - 1 - first - i : first + i);
            added[i] = states[place * values + cell];
            decay[i] = p.decays[(place * p.heads + head) * CHUNK + CHUNK - 1];
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            if (first + i >= p.chunks) continue;
            const u64 place = row * p.chunks + (REVERSE ? p.chunks - 1 - first - i : first + i);
            states[place * values + cell] = running;
            running = decay[i] * running + added[i];
        }
    }
    if (carried) *carried = running;
}

KERNEL(256, ssd_pass, Ssd) { pass<false>(p, p.states); }

KERNEL(256, ssd_grad_pass, Ssd) { pass<true>(p, p.grad_states); }

// Calls each(n, column of the group, where in shared memory) for those of a thread's values that there are.
template <class Each>
__device__ __forceinline__ void for_own_states(const Ssd& p, const StateTile& part, Each each) {
    for (u32 index = threadIdx.x; index < 64 * 64; index += 128) {
        const u32 n = part.first_n + index / 64, col = part.first + index % 64;
        if (n < p.state && col < part.cols) each(n, col, index / 64 * STRIDE + index % 64);
    }
}

// Both in one, which writes each state once and reads none: a block goes over its sequence's chunks in order, the
// running state in shared memory, [64, STRIDE] beside the slabs, and 64 decays. Grid: rows of the batch and tiles
// across; tiles of N. The sums are those of the two kernels, in the same order.
template <bool REVERSE>
__device__ __forceinline__ void states_in_order(const Ssd& p, float* shared) {
    float *running = shared + SLABS, *decays = running + 64 * STRIDE;
    const StateTile part = state_tile(p, blockIdx.x);
    const u32 row = blockIdx.x / tiles_across(p);
    const bool carries = !REVERSE && p.carried;
    for (u32 index = threadIdx.x; index < 64 * STRIDE; index += 128) running[index] = 0.0f;
    __syncthreads();
    if (carries)
        for_own_states(p, part, [&](u32 n, u32 col, u32 at) { running[at] = *carried_value(p, row, n, part.group * part.cols + col); });
    for (u32 step = 0; step < p.chunks; step++) {
        const Place place = place_of(p, row * p.chunks + (REVERSE ? p.chunks - 1 - step : step));
        __syncthreads();
        if (threadIdx.x < 64) {
            const u32 col = part.first + threadIdx.x, head = part.group * (p.heads / p.groups) + col / p.width;
            decays[threadIdx.x] = col < part.cols ? p.decays[steps_of(p, place, head) + CHUNK - 1] : 0.0f;
        }
        write_states<REVERSE>(p, place, part, running);
        if (step + 1 == p.chunks && !carries) break;
        // A whole slab at once, as there are few blocks to wait beside each other.
        Tile<64> added = added_states<REVERSE, 16>(p, place, part, shared);
#pragma unroll
        for (u32 i = 0; i < Tile<64>::rows; i++) {
#pragma unroll
            for (u32 j = 0; j < Tile<64>::cols; j++) {
                float* value = &running[Tile<64>::row(i) * STRIDE + Tile<64>::col(j)];
                *value = decays[Tile<64>::col(j)] * *value + added.at(i, j);
            }
        }
    }
    __syncthreads();
    if (carries)
        for_own_states(p, part, [&](u32 n, u32 col, u32 at) { *carried_value(p, row, n, part.group * part.cols + col) = running[at]; });
}

KERNEL(128, ssd_states_in_order, Ssd) {
    SHARED(shared);
    states_in_order<false>(p, shared);
}

KERNEL(128, ssd_grad_states_in_order, Ssd) {
    SHARED(shared);
    states_in_order<true>(p, shared);
}

// y. Grid: chunks and heads; tiles of a head's columns. Shared: slabs, steps and sums in two [64 each].
template <u32 COLS>
__device__ __forceinline__ void output(const Ssd& p, float* shared) {
    float *steps = shared + SLABS, *sums = steps + CHUNK, *rests = sums + CHUNK;
    const u32 head = blockIdx.x % p.heads, group = head / (p.heads / p.groups), first = blockIdx.y * COLS;
    const Place place = place_of(p, blockIdx.x / p.heads);
    const u64 channels = (u64)p.heads * p.width, column = (u64)head * p.width + first;
    const u32 cols = p.width - first;
    for (u32 t = threadIdx.x; t < CHUNK; t += 2 * COLS) {
        steps[t] = p.steps[steps_of(p, place, head) + t];
        sums[t] = p.sums[steps_of(p, place, head) + t];
        rests[t] = p.rests[steps_of(p, place, head) + t];
    }
    const float *c = p.c + (u64)group * p.state, *states = p.states + place.index * p.state * channels + column;
    Tile<COLS> tile = {};
    add_product<COLS, ALONG_INNER, ALONG_ROWS, ALL>(
        p.state, shared, tile,
        [&](u32 t, u32 n) { return t < place.count && n < p.state ? c[(place.token + t) * p.c_stride + n] : 0.0f; },
        [&](u32 col, u32 n) { return n < p.state && col < cols ? states[n * channels + col] : 0.0f; });
#pragma unroll
    for (u32 i = 0; i < Tile<COLS>::rows; i++) {
        const float decay = expf(sums[Tile<COLS>::row(i)]);
#pragma unroll
        for (u32 j = 0; j < Tile<COLS>::cols; j++) tile.at(i, j) *= decay;
    }
    const float* products = p.products + (place.index * p.groups + group) * CHUNK * CHUNK;
    add_product<COLS, ALONG_INNER, ALONG_ROWS, LOWER>(
        place.count, shared, tile,
        [&](u32 i, u32 j) {
            const bool seen = j <= i && i < place.count;
            return seen ? products[i * CHUNK + j] * decay_between(sums, rests, i, j) : 0.0f;
        },
        [&](u32 col, u32 t) {
            const bool there = t < place.count && col < cols;
            return there ? steps[t] * p.x[(place.token + t) * p.x_stride + column + col] : 0.0f;
        });
    lay_out(tile, shared);
    const float skip = p.d[head];
    // Eight rows are read before the first is written, as the compiler cannot know that y is not x.
    const u32 line = threadIdx.x / COLS, col = threadIdx.x % COLS;
    for (u32 start = line; start < place.count; start += 16) {
        float x[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            const u32 t = start + 2 * i;
            x[i] = t < place.count && col < cols ? p.x[(place.token + t) * p.x_stride + column + col] : 0.0f;
        }
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            const u32 t = start + 2 * i;
            if (t >= place.count || col >= cols) continue;
            p.y[(place.token + t) * p.y_stride + column + col] = shared[t * STRIDE + col] + skip * x[i];
        }
    }
}

KERNEL(64, ssd_output_32, Ssd) {
    SHARED(shared);
    output<32>(p, shared);
}

KERNEL(128, ssd_output_64, Ssd) {
    SHARED(shared);
    output<64>(p, shared);
}

// A feed of at most 8 tokens, as the recurrence itself. Block: 32 channels in x, 8 slices of N in y. Shared:
// [8 slices, 8 tokens, 32].
KERNEL(256, ssd_step, Ssd) {
    SHARED(sums);
    const u32 channels = p.heads * p.width, tiles = (channels + WARP - 1) / WARP;
    const u32 lane = threadIdx.x % WARP, slice = threadIdx.x / WARP;
    const u32 row = blockIdx.x / tiles, channel = blockIdx.x % tiles * WARP + lane;
    const bool inside = channel < channels;
    const u32 head = inside ? channel / p.width : 0;
    const u64 token = (u64)row * p.length, shared = (u64)(head / (p.heads / p.groups)) * p.state;
    float result[STEP_TOKENS] = {}, decay[STEP_TOKENS] = {}, share[STEP_TOKENS] = {};
    if (inside) {
        const float a = -expf(p.a_log[head]);
#pragma unroll
        for (u32 t = 0; t < STEP_TOKENS; t++) {
            if (t >= p.length) continue;
            const float step = softplus(p.dt[(token + t) * p.dt_stride + head] + p.dt_bias[head]);
            decay[t] = expf(step * a);
            share[t] = step * p.x[(token + t) * p.x_stride + channel];
        }
        // Four values are read before the first is written.
        for (u32 first = slice; first < p.state; first += 4 * SLICES) {
            float value[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 n = first + i * SLICES;
                value[i] = n < p.state ? *carried_value(p, row, n, channel) : 0.0f;
            }
#pragma unroll
            for (u32 t = 0; t < STEP_TOKENS; t++) {
                if (t >= p.length) continue;
                const float *b = &p.b[(token + t) * p.b_stride + shared], *c = &p.c[(token + t) * p.c_stride + shared];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const u32 n = first + i * SLICES;
                    value[i] = decay[t] * value[i] + share[t] * (n < p.state ? b[n] : 0.0f);
                    result[t] += value[i] * (n < p.state ? c[n] : 0.0f);
                }
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 n = first + i * SLICES;
                if (n < p.state) *carried_value(p, row, n, channel) = value[i];
            }
        }
    }
#pragma unroll
    for (u32 t = 0; t < STEP_TOKENS; t++) sums[(slice * STEP_TOKENS + t) * WARP + lane] = result[t];
    __syncthreads();
    // Slice t adds up token t.
    if (!inside || slice >= p.length) return;
    float total = p.d[head] * p.x[(token + slice) * p.x_stride + channel];
    for (u32 other = 0; other < SLICES; other++) total += sums[(other * STEP_TOKENS + slice) * WARP + lane];
    p.y[(token + slice) * p.y_stride + channel] = total;
}
