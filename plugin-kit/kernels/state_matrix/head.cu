// A state matrix of heads that decay as a whole or not at all, in chunks of L = 64 tokens (arXiv 2405.21060, section 6),
// for H heads of values of width V in G groups that share queries and keys of width N:
//
//   s_i = sum of the decays' logarithms from the chunk's start to i,
//   S' = exp(s_L) S + sum over j of exp(s_L - s_j) c_j k_j v_j^T,
//   o_i = exp(s_i) q_i S + sum over j <= i of q_i k_j exp(s_i - s_j) c_j v_j + d v_i,
//
// with a scale c of what each token writes, and a skip d, where there are such; else c = 1 and d = 0.
//
// Sums s are made in float64 and kept as two float32 values: where a head forgets fast they grow to thousands while
// s_i - s_j may be small, and would have their rounding.
//
// Forward: head_sums, head_products (Q K^T), head_states (what each chunk adds to the state) and head_pass (the
// states in order) or, where the batch alone fills a card, head_states_in_order, head_output_32 or _64. A feed of
// at most 8 tokens is head_step alone, which reads and writes the state once. Backward: head_grad_states and
// head_grad_pass or head_grad_states_in_order, head_grad_shared (parts of q and k by blocks of heads),
// head_grad_values_32 or _64 (v and the logarithms), head_add_parts.
//
// LEVELS is 1 where the past has levels (log-linear attention): levels.cu then stands behind, and says what differs.
//
// Matrix products are of tiles, see tile.cuh, which stands in front of this file. Shared: two slabs
// (SLABS), and what each kernel says. Any N, V, H, G and T: tiles are padded with 0.

#define CHUNK 64u
#define SLABS (2 * SLAB_VALUES)
#define STEP_TOKENS 8
#define SLICES 8

#ifndef LEVELS
#define LEVELS 0
#endif

// Levels inside of a chunk.
#define WITHIN 7u

#if LEVELS
typedef LevelParams InChunks;
#else
typedef HeadParams InChunks;
#endif

// A chunk of a sequence.
struct Place {
    u64 index;  // over [B, chunks]
    u64 token;  // its first, over [B, T]
    u32 chunk, count;
};

__device__ __forceinline__ Place place_of(const InChunks& p, u32 index) {
    const u32 chunk = index % p.chunks, start = chunk * CHUNK, left = p.length - start;
    return {index, (u64)(index / p.chunks) * p.length + start, chunk, left < CHUNK ? left : CHUNK};
}

// A chunk's tokens, each the columns from `data` on.
template <class T>
__device__ __forceinline__ Lines<T> tokens_of(const Place& place, const T* data, u64 stride, u32 cols) {
    return lines_of(data + place.token * stride, stride, place.count, cols);
}

// Where the 64 sums of a head begin.
__device__ __forceinline__ u64 sums_of(const InChunks& p, const Place& place, u32 head) {
    return (place.index * p.heads + head) * CHUNK;
}

// exp(s_i - s_j).
__device__ __forceinline__ float decay_between(const float* sums, const float* rests, u32 i, u32 j) {
    return expf((sums[i] - sums[j]) + (rests[i] - rests[j]));
}

#if LEVELS
__device__ __forceinline__ float factor_within(const InChunks& p, const Place& place, u32 head, u32 i, u32 j);

template <u32 COLS>
__device__ __forceinline__ void read_ranges(const InChunks& p, const Place& place, u32 head, u32 first, float* shared, Tile<COLS>& tile);
#else
__device__ __forceinline__ float factor_within(const InChunks&, const Place&, u32, u32, u32) { return 1.0f; }
#endif

// What j <= i is to i, both of a chunk, but for their query and key.
__device__ __forceinline__ float weight_between(const InChunks& p, const Place& place, u32 head, const float* sums, const float* rests, u32 i, u32 j) {
    return decay_between(sums, rests, i, j) * factor_within(p, place, head, i, j);
}

// What tokens of a chunk are to each other, where the one of the column is not later: products times weights.
struct ToEachOther {
    const InChunks& p;
    const Place& place;
    u32 head;
    const float *sums, *rests, *products;
    static const bool whole = true;

    template <bool WHOLE>
    __device__ __forceinline__ Quad read(u32 i, u32 first) const {
        Quad quad = *(const Quad*)(products + i * CHUNK + first);
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            const bool seen = first + n <= i && i < place.count;
            quad.v[n] = seen ? quad.v[n] * weight_between(p, place, head, sums, rests, i, first + n) : 0.0f;
        }
        return quad;
    }
};

// The logarithm of a head's decay at a token, not so low that sums of it were no numbers.
__device__ __forceinline__ float log_of(const InChunks& p, u64 token, u32 head) {
    return fmaxf(p.logs ? p.logs[token * p.logs_stride + head] : p.constant[head], -1e30f);
}

// The scale of what a head writes at a token.
__device__ __forceinline__ float scale_of(const InChunks& p, u64 token, u32 head) {
    return p.scale ? p.scale[token * p.scale_stride + head] : 1.0f;
}

// Running sums of logarithms. Block: one chunk, 32 heads. Shared: [2, 64, 33].
KERNEL(256, head_sums, InChunks) {
    SHARED(sums);
    float* rests = sums + CHUNK * 33;
    const Place place = place_of(p, blockIdx.x);
    const u32 lane = threadIdx.x % WARP, line = threadIdx.x / WARP, first = blockIdx.y * WARP, head = first + lane;
    const bool inside = head < p.heads;
#pragma unroll
    for (u32 turn = 0; turn < CHUNK / 8; turn++) {
        const u32 t = turn * 8 + line;
        sums[t * 33 + lane] = inside && t < place.count ? log_of(p, place.token + t, head) : 0.0f;
    }
    __syncthreads();
    if (line == 0) {
        double total = 0.0;
        for (u32 t = 0; t < CHUNK; t++) {
            total += sums[t * 33 + lane];
            sums[t * 33 + lane] = (float)total;
            rests[t * 33 + lane] = (float)(total - sums[t * 33 + lane]);
        }
    }
    __syncthreads();
    FOR_EACH(index, WARP * CHUNK, 256) {
        const u32 other = index / CHUNK, t = index % CHUNK;
        if (first + other >= p.heads) continue;
        const u64 at = sums_of(p, place, first + other) + t;
        p.sums[at] = sums[t * 33 + other];
        p.rests[at] = rests[t * 33 + other];
        p.decays[at] = expf(sums[t * 33 + other]);
        const float share = decay_between(sums + other, rests + other, (CHUNK - 1) * 33, t * 33);
        p.shares[at] = t < place.count ? share * scale_of(p, place.token + t, first + other) : 0.0f;
    }
}

// Q K^T. Block: a chunk of a group.
KERNEL(128, head_products, InChunks) {
    SHARED(shared);
    const u32 group = blockIdx.x % p.groups;
    const Place place = place_of(p, blockIdx.x / p.groups);
    const stored *q = p.q + (u64)group * p.key, *k = p.k + (u64)group * p.key;
    Tile<64> tile = {};
    add_product<64, ALONG_INNER, ALONG_INNER, ALL>(
        p.key, shared, tile, tokens_of(place, q, p.q_stride, p.key), tokens_of(place, k, p.k_stride, p.key));
    lay_out(tile, shared);
    write_lines<128>(shared, p.products + (u64)blockIdx.x * CHUNK * CHUNK, CHUNK, CHUNK, CHUNK);
}

// 64 rows of N and 64 columns of a group's states.
struct StateTile {
    u32 group, first_n, first, cols;  // the first of each; columns of a group
};

__device__ __forceinline__ StateTile state_tile(const InChunks& p, u32 index) {
    const u32 cols = p.heads / p.groups * p.value, tiles = (cols + 63) / 64;
    return {index / tiles % p.groups, blockIdx.y * 64, index % tiles * 64, cols};
}

// Tiles of the columns of all groups.
__device__ __forceinline__ u32 tiles_across(const InChunks& p) { return (p.heads / p.groups * p.value + 63) / 64 * p.groups; }

// What a chunk adds to the state: B^T (share v); or, in reverse, what its outputs add to the gradient of the
// state before it: Q^T (exp(s) grad_o).
template <bool REVERSE, u32 BATCH>
__device__ __forceinline__ Tile<64> added_states(const InChunks& p, const Place& place, const StateTile& part, float* shared) {
    const stored* keys = (REVERSE ? p.q : p.k) + (u64)part.group * p.key + part.first_n;
    const stored* values = (REVERSE ? p.grad_o : p.v) + (u64)part.group * part.cols + part.first;
    const float* weights = REVERSE ? p.decays : p.shares;
    const u64 key_stride = REVERSE ? p.q_stride : p.k_stride, value_stride = REVERSE ? p.grad_o_stride : p.v_stride;
    Tile<64> tile = {};
    auto of_heads = weighted(tokens_of(place, values, value_stride, part.cols - part.first), [&](u32 t, u32 col) {
        const u32 head = part.group * (p.heads / p.groups) + (part.first + col) / p.value;
        return weights[sums_of(p, place, head) + t];
    });
    // Fours of a head alone.
    of_heads.whole = of_heads.whole && p.value % 4 == 0;
    add_product<64, ALONG_ROWS, ALONG_ROWS, ALL, BATCH>(
        place.count, shared, tile, tokens_of(place, keys, key_stride, p.key - part.first_n), of_heads);
    return tile;
}

// Writes a tile that is laid out in shared memory to where the chunk's state, or its gradient, stands.
template <bool REVERSE>
__device__ __forceinline__ void write_states(const InChunks& p, const Place& place, const StateTile& part, const float* shared) {
    const u64 channels = (u64)p.heads * p.value;
    float* states = (REVERSE ? p.grad_states : p.states) + (place.index * p.key + part.first_n) * channels;
    write_lines<128>(shared, states + part.group * part.cols + part.first, channels, p.key - part.first_n, part.cols - part.first);
}

// What each chunk adds, in the place of the state. Grid: chunks and tiles across; tiles of N.
template <bool REVERSE>
__device__ __forceinline__ void chunk_states(const InChunks& p, float* shared) {
    const StateTile part = state_tile(p, blockIdx.x);
    const Place place = place_of(p, blockIdx.x / tiles_across(p));
    Tile<64> tile = added_states<REVERSE, 8>(p, place, part, shared);
    lay_out(tile, shared);
    write_states<REVERSE>(p, place, part, shared);
}

KERNEL(128, head_states, InChunks) {
    SHARED(shared);
    chunk_states<false>(p, shared);
}

KERNEL(128, head_grad_states, InChunks) {
    SHARED(shared);
    chunk_states<true>(p, shared);
}

// A value of a session's state, as the CPU's form keeps it.
__device__ __forceinline__ float* carried_value(const InChunks& p, u32 row, u32 n, u32 channel) {
    const u32 units = p.heads * p.value / p.unit_cols, unit = channel / p.unit_cols;
    return p.carried + (((u64)row * units + unit) * p.key + n) * p.unit_cols + channel % p.unit_cols;
}

// Puts the running state in the place of what each chunk adds to it, in order. One thread a value; four
// chunks are read before they are needed, as each waits for the one before.
template <bool REVERSE>
__device__ __forceinline__ void pass(const InChunks& p, float* states) {
    const u32 channels = p.heads * p.value;
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, values = (u64)p.key * channels;
    const u64 row = index / values, cell = index % values;
    if (row >= p.batch) return;
    const u32 channel = cell % channels, head = channel / p.value, n = cell / channels;
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

KERNEL(256, head_pass, InChunks) { pass<false>(p, p.states); }

KERNEL(256, head_grad_pass, InChunks) { pass<true>(p, p.grad_states); }

// Calls each(n, column of the group, where in shared memory) for those of a thread's values that there are.
template <class Each>
__device__ __forceinline__ void for_own_states(const InChunks& p, const StateTile& part, Each each) {
    for (u32 index = threadIdx.x; index < 64 * 64; index += 128) {
        const u32 n = part.first_n + index / 64, col = part.first + index % 64;
        if (n < p.key && col < part.cols) each(n, col, index / 64 * STRIDE + index % 64);
    }
}

// Both in one, which writes each state once and reads none: a block goes over its sequence's chunks in order, the
// running state in shared memory, [64, STRIDE] beside the slabs, and 64 decays. Grid: rows of the batch and tiles
// across; tiles of N. The sums are those of the two kernels, in the same order.
template <bool REVERSE>
__device__ __forceinline__ void states_in_order(const InChunks& p, float* shared) {
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
            const u32 col = part.first + threadIdx.x, head = part.group * (p.heads / p.groups) + col / p.value;
            decays[threadIdx.x] = col < part.cols ? p.decays[sums_of(p, place, head) + CHUNK - 1] : 0.0f;
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

KERNEL(128, head_states_in_order, InChunks) {
    SHARED(shared);
    states_in_order<false>(p, shared);
}

KERNEL(128, head_grad_states_in_order, InChunks) {
    SHARED(shared);
    states_in_order<true>(p, shared);
}

// o. Grid: chunks and heads; tiles of a head's columns. Shared: slabs, sums in two and scales [64 each].
template <u32 COLS>
__device__ __forceinline__ void output(const InChunks& p, float* shared) {
    float *sums = shared + SLABS, *rests = sums + CHUNK, *scales = rests + CHUNK;
    const u32 head = blockIdx.x % p.heads, group = head / (p.heads / p.groups), first = blockIdx.y * COLS;
    const Place place = place_of(p, blockIdx.x / p.heads);
    const u64 column = (u64)head * p.value + first;
    const u32 cols = p.value - first;
    for (u32 t = threadIdx.x; t < CHUNK; t += 2 * COLS) {
        sums[t] = p.sums[sums_of(p, place, head) + t];
        rests[t] = p.rests[sums_of(p, place, head) + t];
        scales[t] = t < place.count ? scale_of(p, place.token + t, head) : 0.0f;
    }
    Tile<COLS> tile = {};
#if LEVELS
    read_ranges(p, place, head, first, shared, tile);
#else
    const u64 channels = (u64)p.heads * p.value;
    const stored* q = p.q + (u64)group * p.key;
    const float* states = p.states + place.index * p.key * channels + column;
    add_product<COLS, ALONG_INNER, ALONG_ROWS, ALL>(
        p.key, shared, tile, tokens_of(place, q, p.q_stride, p.key), lines_of(states, channels, p.key, cols));
#pragma unroll
    for (u32 i = 0; i < Tile<COLS>::rows; i++) {
        const float decay = expf(sums[Tile<COLS>::row(i)]);
#pragma unroll
        for (u32 j = 0; j < Tile<COLS>::cols; j++) tile.at(i, j) *= decay;
    }
#endif
    const ToEachOther products = {p, place, head, sums, rests, p.products + (place.index * p.groups + group) * CHUNK * CHUNK};
    add_product<COLS, ALONG_INNER, ALONG_ROWS, LOWER>(
        place.count, shared, tile, products,
        weighted(tokens_of(place, p.v + column, p.v_stride, cols), [&](u32 t, u32) { return scales[t]; }));
    lay_out(tile, shared);
    const float skip = p.skip ? p.skip[head] : 0.0f;
    // Eight rows are read before the first is written, as the compiler cannot know that o is not v.
    const u32 line = threadIdx.x / COLS, col = threadIdx.x % COLS;
    for (u32 start = line; start < place.count; start += 16) {
        float v[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            const u32 t = start + 2 * i;
            v[i] = p.skip && t < place.count && col < cols ? p.v[(place.token + t) * p.v_stride + column + col] : 0.0f;
        }
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            const u32 t = start + 2 * i;
            if (t >= place.count || col >= cols) continue;
            p.o[(place.token + t) * p.o_stride + column + col] = shared[t * STRIDE + col] + skip * v[i];
        }
    }
}

KERNEL(64, head_output_32, InChunks) {
    SHARED(shared);
    output<32>(p, shared);
}

KERNEL(128, head_output_64, InChunks) {
    SHARED(shared);
    output<64>(p, shared);
}

// A feed of at most 8 tokens, as the recurrence itself. Block: 32 channels in v, 8 slices of N in o. Shared:
// [8 slices, 8 tokens, 32].
KERNEL(256, head_step, InChunks) {
    SHARED(sums);
    const u32 channels = p.heads * p.value, tiles = (channels + WARP - 1) / WARP;
    const u32 lane = threadIdx.x % WARP, slice = threadIdx.x / WARP;
    const u32 row = blockIdx.x / tiles, channel = blockIdx.x % tiles * WARP + lane;
    const bool inside = channel < channels;
    const u32 head = inside ? channel / p.value : 0;
    const u64 token = (u64)row * p.length, shared = (u64)(head / (p.heads / p.groups)) * p.key;
    float result[STEP_TOKENS] = {}, decay[STEP_TOKENS] = {}, share[STEP_TOKENS] = {};
    if (inside) {
#pragma unroll
        for (u32 t = 0; t < STEP_TOKENS; t++) {
            if (t >= p.length) continue;
            decay[t] = expf(log_of(p, token + t, head));
            share[t] = scale_of(p, token + t, head) * p.v[(token + t) * p.v_stride + channel];
        }
        // Four values are read before the first is written.
        for (u32 first = slice; first < p.key; first += 4 * SLICES) {
            float value[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 n = first + i * SLICES;
                value[i] = n < p.key ? *carried_value(p, row, n, channel) : 0.0f;
            }
#pragma unroll
            for (u32 t = 0; t < STEP_TOKENS; t++) {
                if (t >= p.length) continue;
                const stored *k = &p.k[(token + t) * p.k_stride + shared], *q = &p.q[(token + t) * p.q_stride + shared];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const u32 n = first + i * SLICES;
                    value[i] = decay[t] * value[i] + share[t] * (n < p.key ? k[n] : 0.0f);
                    result[t] += value[i] * (n < p.key ? q[n] : 0.0f);
                }
            }
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 n = first + i * SLICES;
                if (n < p.key) *carried_value(p, row, n, channel) = value[i];
            }
        }
    }
#pragma unroll
    for (u32 t = 0; t < STEP_TOKENS; t++) sums[(slice * STEP_TOKENS + t) * WARP + lane] = result[t];
    __syncthreads();
    // Slice t adds up token t.
    if (!inside || slice >= p.length) return;
    float total = p.skip ? p.skip[head] * p.v[(token + slice) * p.v_stride + channel] : 0.0f;
    for (u32 other = 0; other < SLICES; other++) total += sums[(other * STEP_TOKENS + slice) * WARP + lane];
    p.o[(token + slice) * p.o_stride + channel] = total;
}
