// State-space duality in chunks of L = 64 tokens (arXiv 2405.21060, section 6), for H heads of width P in G
// groups that share B and C:
//
//   dt = softplus(dt + bias), s_i = sum of dt a from the chunk's start to i, a = -exp(A_log),
//   S' = exp(s_L) S + sum over j of exp(s_L - s_j) dt_j B_j x_j^T,
//   y_i = exp(s_i) C_i S + sum over j <= i of C_i B_j exp(s_i - s_j) dt_j x_j + D x_i.
//
// Forward: ssd_steps, ssd_products (C B^T), ssd_states (what each chunk adds to the state), ssd_pass (the
// states in order), ssd_output_32 or _64. A feed of at most 8 tokens is ssd_step alone, which reads and
// writes the state once. Backward: ssd_grad_states, ssd_grad_pass, ssd_grad_x_32 or _64 (x, dt and parts
// of the parameters), ssd_grad_shared (parts of B and C by blocks of heads), ssd_add_parts.
//
// Every matrix product is of tiles of 64 rows and 32 or 64 columns. A thread holds 8 x 4 values of the
// tile in registers, so a block has 64 or 128 threads; both factors come through shared memory in slabs
// of 32 of the inner size, [inner, row] and [inner, column], with rows 68 apart so that neither turned
// writes nor reads of four values collide. The tile goes out through the same room, row by row. Shared:
// 4352 values for the slabs, and what each kernel says. Any N, P, H, G and T: tiles are padded with 0.
//
// Bytes that ptxas spills at most, over the widths and cards that are compiled for:
// spills: ssd_step 16

#define CHUNK 64u
#define SLAB 32u
#define STRIDE 68u
#define STEP_TOKENS 8
#define SLICES 8

// Every value of a slab or tile, in a number of turns that the compiler knows: the reads of several turns then
// go out together.
#define FOR_EACH(index, count, threads) \
    _Pragma("unroll 8") for (u32 turn = 0, index = threadIdx.x; turn < (count) / (threads); turn++, index += (threads))

struct Ssd {
    const float* x;                        // [B, T, H P]
    const float *b, *c;                    // [B, T, G N]
    const float* dt;                       // [B, T, H], before bias and softplus
    const float *a_log, *d, *dt_bias;      // [H]
    float* y;                              // [B, T, H P]
    float *steps, *sums;                   // [B, chunks, H, 64]: dt after softplus, s; 0 and s_L past the end
    float *decays, *shares;                // [B, chunks, H, 64]: exp(s), exp(s_L - s) dt
    float* products;                       // [B, chunks, G, 64, 64]: C B^T
    float* states;                         // [B, chunks, N, H P]: the state before each chunk
    float* carried;                        // [B, units, N, unit_cols]: a session's state, null in training
    const float* dy;                       // [B, T, H P]
    float* grad_states;                    // [B, chunks, N, H P]: gradient of the state after each chunk
    float *dx, *ddt;                       // like x, dt
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

struct Tile {
    float v[8][4];
};

struct alignas(16) Quad {
    float v[4];
};

// The first row and column of a thread's part of a tile.
template <u32 COLS>
__device__ __forceinline__ u32 first_row() { return threadIdx.x / (COLS / 4) * 8; }

template <u32 COLS>
__device__ __forceinline__ u32 first_col() { return threadIdx.x % (COLS / 4) * 4; }

// tile += a^T b over a slab.
template <u32 COLS>
__device__ __forceinline__ void multiply(const float* a, const float* b, Tile& tile) {
    a += first_row<COLS>();
    b += first_col<COLS>();
#pragma unroll 4
    for (u32 k = 0; k < SLAB; k++) {
        const Quad low = *(const Quad*)(a + k * STRIDE), high = *(const Quad*)(a + k * STRIDE + 4);
        const Quad right = *(const Quad*)(b + k * STRIDE);
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                tile.v[i][j] += low.v[i] * right.v[j];
                tile.v[i + 4][j] += high.v[i] * right.v[j];
            }
        }
    }
}

// Lays the tile out in shared memory, [64, 68], over the slabs or elsewhere.
template <u32 COLS>
__device__ __forceinline__ void lay_out(const Tile& tile, float* shared) {
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) shared[(first_row<COLS>() + i) * STRIDE + first_col<COLS>() + j] = tile.v[i][j];
    }
    __syncthreads();
}

// An element of a slab whose source is contiguous along the inner size: a warp takes four rows of eight
// values, whole sectors of memory that go to 32 different banks.
struct Turned {
    u32 row, inner, at;
};

__device__ __forceinline__ Turned turned(u32 index) {
    const u32 lane = index % WARP, rest = index / WARP;
    const u32 row = lane / 8 + rest / 4 * 4, inner = lane % 8 + rest % 4 * 8;
    return {row, inner, inner * STRIDE + row};
}

// dt after softplus and its running sums. Block: one chunk, 32 heads. Shared: [2, 64, 33].
KERNEL(256, ssd_steps, Ssd) {
    SHARED(steps);
    float* sums = steps + CHUNK * 33;
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
        const float a = inside ? -expf(p.a_log[head]) : 0.0f;
        float total = 0.0f;
        for (u32 t = 0; t < CHUNK; t++) {
            total += steps[t * 33 + lane] * a;
            sums[t * 33 + lane] = total;
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
        p.decays[at] = expf(sum);
        p.shares[at] = expf(sums[(CHUNK - 1) * 33 + other] - sum) * step;
    }
}

// C B^T. Block: a chunk of a group.
KERNEL(128, ssd_products, Ssd) {
    SHARED(a);
    float* b = a + SLAB * STRIDE;
    const u32 group = blockIdx.x % p.groups;
    const Place place = place_of(p, blockIdx.x / p.groups);
    Tile tile = {};
    for (u32 first = 0; first < p.state; first += SLAB) {
        __syncthreads();
        FOR_EACH(index, SLAB * CHUNK, 128) {
            const Turned e = turned(index);
            const bool there = e.row < place.count && first + e.inner < p.state;
            const u64 token = place.token + e.row, col = (u64)group * p.state + first + e.inner;
            a[e.at] = there ? p.c[token * p.c_stride + col] : 0.0f;
            b[e.at] = there ? p.b[token * p.b_stride + col] : 0.0f;
        }
        __syncthreads();
        multiply<64>(a, b, tile);
    }
    lay_out<64>(tile, a);
    float* products = p.products + (u64)blockIdx.x * CHUNK * CHUNK;
    FOR_EACH(index, CHUNK * CHUNK, 128)
        products[index] = a[index / CHUNK * STRIDE + index % CHUNK];
}

// What a chunk adds to the state: B^T (share x); or, in reverse, what its outputs add to the gradient of the
// state before it: C^T (exp(s) dy). Grid: chunks, groups and 64 columns of a group; 64 rows of N.
template <bool REVERSE>
__device__ __forceinline__ void chunk_states(const Ssd& p, float* a) {
    float* b = a + SLAB * STRIDE;
    const u32 in_group = p.heads / p.groups, cols = in_group * p.width, tiles = (cols + 63) / 64;
    const u32 first = blockIdx.x % tiles * 64, group = blockIdx.x / tiles % p.groups, first_n = blockIdx.y * 64;
    const Place place = place_of(p, blockIdx.x / tiles / p.groups);
    const float* keys = (REVERSE ? p.c : p.b) + (u64)group * p.state;
    const float* values = (REVERSE ? p.dy : p.x) + (u64)group * cols;
    const u64 key_stride = REVERSE ? p.c_stride : p.b_stride, value_stride = REVERSE ? p.dy_stride : p.x_stride;
    Tile tile = {};
    for (u32 start = 0; start < place.count; start += SLAB) {
        __syncthreads();
        FOR_EACH(index, SLAB * 64, 128) {
            const u32 t = start + index / 64, n = first_n + index % 64, col = first + index % 64;
            const u32 at = index / 64 * STRIDE + index % 64;
            float value = 0.0f;
            if (t < place.count && col < cols) {
                const u64 head = steps_of(p, place, group * in_group + col / p.width);
                const float weight = (REVERSE ? p.decays : p.shares)[head + t];
                value = weight * values[(place.token + t) * value_stride + col];
            }
            a[at] = t < place.count && n < p.state ? keys[(place.token + t) * key_stride + n] : 0.0f;
            b[at] = value;
        }
        __syncthreads();
        multiply<64>(a, b, tile);
    }
    lay_out<64>(tile, a);
    float* states = REVERSE ? p.grad_states : p.states;
    FOR_EACH(index, 64 * 64, 128) {
        const u32 n = first_n + index / 64, col = first + index % 64;
        if (n < p.state && col < cols)
            states[(place.index * p.state + n) * p.heads * p.width + group * cols + col] = a[index / 64 * STRIDE + index % 64];
    }
}

KERNEL(128, ssd_states, Ssd) {
    SHARED(slabs);
    chunk_states<false>(p, slabs);
}

KERNEL(128, ssd_grad_states, Ssd) {
    SHARED(slabs);
    chunk_states<true>(p, slabs);
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

// y. Grid: chunks and heads; tiles of a head's columns. Shared: slabs, steps and sums [64 each].
template <u32 COLS>
__device__ __forceinline__ void output(const Ssd& p, float* a) {
    float *b = a + SLAB * STRIDE, *steps = b + SLAB * STRIDE, *sums = steps + CHUNK;
    const u32 head = blockIdx.x % p.heads, group = head / (p.heads / p.groups), first = blockIdx.y * COLS;
    const Place place = place_of(p, blockIdx.x / p.heads);
    const u64 channels = (u64)p.heads * p.width, column = (u64)head * p.width + first;
    for (u32 t = threadIdx.x; t < CHUNK; t += 2 * COLS) {
        steps[t] = p.steps[steps_of(p, place, head) + t];
        sums[t] = p.sums[steps_of(p, place, head) + t];
    }
    const u32 row = first_row<COLS>(), cols = p.width - first;
    Tile tile = {};
    for (u32 start = 0; start < p.state; start += SLAB) {
        __syncthreads();
        FOR_EACH(index, SLAB * CHUNK, 2 * COLS) {
            const Turned e = turned(index);
            const bool there = e.row < place.count && start + e.inner < p.state;
            a[e.at] = there ? p.c[(place.token + e.row) * p.c_stride + (u64)group * p.state + start + e.inner] : 0.0f;
        }
        FOR_EACH(index, SLAB * COLS, 2 * COLS) {
            const u32 n = start + index / COLS, col = index % COLS;
            const bool there = n < p.state && col < cols;
            b[index / COLS * STRIDE + col] = there ? p.states[(place.index * p.state + n) * channels + column + col] : 0.0f;
        }
        __syncthreads();
        multiply<COLS>(a, b, tile);
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
        const float decay = expf(sums[row + i]);
#pragma unroll
        for (u32 j = 0; j < 4; j++) tile.v[i][j] *= decay;
    }
    const float* products = p.products + (place.index * p.groups + group) * CHUNK * CHUNK;
    for (u32 start = 0; start < place.count; start += SLAB) {
        __syncthreads();
        FOR_EACH(index, SLAB * CHUNK, 2 * COLS) {
            const Turned e = turned(index);
            const u32 j = start + e.inner;
            const bool seen = j <= e.row && e.row < place.count;
            a[e.at] = seen ? products[e.row * CHUNK + j] * expf(sums[e.row] - sums[j]) * steps[j] : 0.0f;
        }
        FOR_EACH(index, SLAB * COLS, 2 * COLS) {
            const u32 t = start + index / COLS, col = index % COLS;
            const bool there = t < place.count && col < cols;
            b[index / COLS * STRIDE + col] = there ? p.x[(place.token + t) * p.x_stride + column + col] : 0.0f;
        }
        __syncthreads();
        // Rows before the slab's first token see none of it.
        if (row + 7 >= start) multiply<COLS>(a, b, tile);
    }
    lay_out<COLS>(tile, a);
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
            p.y[(place.token + t) * p.y_stride + column + col] = a[t * STRIDE + col] + skip * x[i];
        }
    }
}

KERNEL(64, ssd_output_32, Ssd) {
    SHARED(slabs);
    output<32>(p, slabs);
}

KERNEL(128, ssd_output_64, Ssd) {
    SHARED(slabs);
    output<64>(p, slabs);
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
