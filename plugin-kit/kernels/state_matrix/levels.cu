// Where the past of a state matrix has levels (log-linear attention, arXiv 2506.04761), with head.cu and head_backward.cu in
// front of this file, LEVELS being 1 there: the level of an earlier token is the number of the highest bit in which
// both positions differ, from 1, at most L - 1; a token is at level 0 itself. A level has a factor a head and token.
//
// Of a chunk of 64 tokens the levels 0 .. 6 are its own. Level 7 + m is a range of 2^m whole chunks: where bit m of a
// chunk's number is set it reads the state that the 2^m chunks before (number >> m) << m leave at their end. So
// states of ranges are made from chunks up, each from two of the level below, and their gradients go back down.
// At the level with number depth - 1 a state is of all ranges before too, as that level has all that is older.
//
// Forward: head_sums, head_products, head_states, levels_ends, levels_left, levels_up, head_output_32 or _64. A feed is
// levels_feed alone, token by token. Backward: levels_grad_ranges, levels_down, head_grad_shared, head_grad_values_32 or
// _64, head_add_parts, levels_across, levels_grad_lambda.

// A factor of a head at a token.
__device__ __forceinline__ float factor_of(const InChunks& p, u64 token, u32 head, u32 level) {
    return p.lambda[token * p.lambda_stride + (u64)head * p.levels + min(level, p.levels - 1)];
}

// That of j <= i, both of a chunk.
__device__ __forceinline__ float factor_within(const InChunks& p, const Place& place, u32 head, u32 i, u32 j) {
    u32 level = 0;
    for (u32 differ = i ^ j; differ > 0; differ >>= 1) level++;
    return factor_of(p, place.token + i, head, level);
}

// Whether a chunk reads a range of 2^level chunks.
__device__ __forceinline__ bool is_read(const InChunks& p, u32 chunk, u32 level) {
    const u32 before = chunk >> level;
    return level + 1 < p.depth ? before & 1 : before > 0;
}

// The logarithm of what is left after chunks from .. to of a sequence, from being 1 or more.
__device__ __forceinline__ float log_left(const InChunks& p, u64 row, u32 head, u32 from, u32 to) {
    if (from >= to) return 0.0f;
    const u64 first = row * p.chunks * p.heads + head, a = first + (u64)(from - 1) * p.heads, b = first + (u64)(to - 1) * p.heads;
    return (p.ends[b] - p.ends[a]) + (p.end_rests[b] - p.end_rests[a]);
}

__device__ __forceinline__ u64 left_of(const InChunks& p, const Place& place, u32 head, u32 level) {
    return ((place.index * p.heads + head) * p.depth + level) * CHUNK;
}

__device__ __forceinline__ u64 heard_of(const InChunks& p, const Place& place, u32 head, u32 level) {
    return ((place.index * p.heads + head) * (WITHIN + p.depth) + level) * CHUNK;
}

// Where range i of 2^level chunks has its values: those of chunks for themselves, behind each other those of more.
__device__ __forceinline__ float* node_of(const InChunks& p, float* chunks, float* ranges, u64 row, u32 level, u32 i) {
    const u64 values = (u64)p.key * p.heads * p.value;
    float* to = (level == 0 ? chunks : ranges) + (row * p.chunks + i) * values;
    for (u32 lower = 1; lower < level; lower++) to += (p.chunks >> lower) * values;
    return to;
}

// The state of the range that a chunk reads.
__device__ __forceinline__ const float* range_read(const InChunks& p, const Place& place, u32 level) {
    return node_of(p, p.states, p.ranges, place.index / p.chunks, level, (place.chunk >> level) - 1);
}

// Sums of logarithms up to the end of each chunk. One thread a head of a sequence.
KERNEL(256, levels_ends, InChunks) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.heads, head = index % p.heads;
    if (row >= p.batch) return;
    double total = 0.0;
    for (u32 chunk = 0; chunk < p.chunks; chunk++) {
        const u64 at = (row * p.chunks + chunk) * p.heads + head, last = at * CHUNK + CHUNK - 1;
        total += (double)p.sums[last] + (double)p.rests[last];
        p.ends[at] = (float)total;
        p.end_rests[at] = (float)(total - p.ends[at]);
    }
}

// What is left at each token of the ranges that its chunk reads. One thread a value.
KERNEL(256, levels_left, InChunks) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, rest = index / CHUNK / p.depth;
    const u32 t = index % CHUNK, level = index / CHUNK % p.depth, head = rest % p.heads;
    const u64 place = rest / p.heads, row = place / p.chunks;
    if (row >= p.batch) return;
    const u32 chunk = place % p.chunks;
    if (!is_read(p, chunk, level)) return;
    const u64 at = (place * p.heads + head) * CHUNK + t;
    p.left[index] = expf(log_left(p, row, head, chunk >> level << level, chunk) + p.sums[at]);
}

// Which value of a state a thread has.
struct Cell {
    u64 row, cell;  // cell: over [N, H V]
    u32 head;
};

__device__ __forceinline__ Cell own_cell(const InChunks& p) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, channels = (u64)p.heads * p.value, values = p.key * channels;
    const u64 cell = index % values;
    return {index / values, cell, (u32)(cell % channels / p.value)};
}

// States of ranges from those of chunks. One thread a value.
KERNEL(256, levels_up, InChunks) {
    const Cell c = own_cell(p);
    if (c.row >= p.batch) return;
    const u32 top = p.depth - 1;
    for (u32 level = 1; level <= top; level++) {
        for (u32 i = 0; i < p.chunks >> level; i++) {
            const u32 middle = (2 * i + 1) << (level - 1), end = (i + 1) << level;
            const float* lower = node_of(p, p.states, p.ranges, c.row, level - 1, 2 * i) + c.cell;
            const float left = expf(log_left(p, c.row, c.head, middle, end));
            const u64 values = (u64)p.key * p.heads * p.value;
            node_of(p, p.states, p.ranges, c.row, level, i)[c.cell] = left * lower[0] + lower[values];
        }
    }
    float running = 0.0f;
    for (u32 i = 0; i < p.chunks >> top; i++) {
        float* own = node_of(p, p.states, p.ranges, c.row, top, i) + c.cell;
        running = i == 0 ? *own : expf(log_left(p, c.row, c.head, i << top, (i + 1) << top)) * running + *own;
        *own = running;
    }
}

// Their gradients, from ranges down to chunks: to what each has from its readers comes what it has from the range that it
// is half of. One thread a value.
KERNEL(256, levels_down, InChunks) {
    const Cell c = own_cell(p);
    if (c.row >= p.batch) return;
    const u32 top = p.depth - 1;
    float running = 0.0f;
    for (u32 left = p.chunks >> top; left > 0; left--) {
        const u32 i = left - 1;
        float* own = node_of(p, p.grad_states, p.grad_ranges, c.row, top, i) + c.cell;
        // What range i + 1 has of this one.
        const bool is_last = left == p.chunks >> top;
        running = is_last ? *own : expf(log_left(p, c.row, c.head, left << top, (left + 1) << top)) * running + *own;
        *own = running;
    }
    for (u32 level = top; level > 0; level--) {
        for (u32 i = 0; i < p.chunks >> level; i++) {
            const u32 middle = (2 * i + 1) << (level - 1), end = (i + 1) << level;
            const float grad = node_of(p, p.grad_states, p.grad_ranges, c.row, level, i)[c.cell];
            float* lower = node_of(p, p.grad_states, p.grad_ranges, c.row, level - 1, 2 * i) + c.cell;
            lower[0] += expf(log_left(p, c.row, c.head, middle, end)) * grad;
            lower[(u64)p.key * p.heads * p.value] = grad;
        }
    }
}

// tile += what a chunk reads of ranges, times what is left of it and its factor.
template <u32 COLS>
__device__ __forceinline__ void read_ranges(const InChunks& p, const Place& place, u32 head, u32 first, float* shared, Tile<COLS>& tile) {
    const u64 channels = (u64)p.heads * p.value;
    const stored* q = p.q + (u64)(head / (p.heads / p.groups)) * p.key;
    const u32 cols = p.value - first;
    for (u32 level = 0; level < p.depth; level++) {
        if (!is_read(p, place.chunk, level)) continue;
        const float *left = p.left + left_of(p, place, head, level), *state = range_read(p, place, level) + (u64)head * p.value + first;
        const auto weight = [&](u32 t, u32) { return left[t] * factor_of(p, place.token + t, head, WITHIN + level); };
        add_product<COLS, ALONG_INNER, ALONG_ROWS, ALL>(
            p.key, shared, tile, weighted(tokens_of(place, q, p.q_stride, p.key), weight), lines_of(state, channels, p.key, cols));
    }
}

// What the readers of a range make of the gradient of its state, Q^T (factor, what is left, grad_o) over their tokens;
// nothing where it has no readers of its own. Grid: ranges of all sequences and tiles across; tiles of N. Shared: slabs.
KERNEL(128, levels_grad_ranges, InChunks) {
    SHARED(shared);
    const StateTile part = state_tile(p, blockIdx.x);
    const u32 node = blockIdx.x / tiles_across(p), row = node / p.nodes;
    u32 i = node % p.nodes, level = 0;
    for (; i >= p.chunks >> level; level++) i -= p.chunks >> level;
    if (level + 1 < p.depth && i % 2 == 1) return;
    const u32 first = (i + 1) << level, begin = first * CHUNK, end = min((i + 2) << level, p.chunks) * CHUNK;
    const u32 count = first < p.chunks ? min(end, p.length) - begin : 0;
    const u64 token = (u64)row * p.length + begin, chunk = (u64)row * p.chunks + first;
    const stored *q = p.q + (u64)part.group * p.key + part.first_n, *grad_o = p.grad_o + (u64)part.group * part.cols + part.first;
    const u32 rows = p.key - part.first_n, cols = part.cols - part.first;
    Tile<64> tile = {};
    auto of_heads = weighted(lines_of(grad_o + token * p.grad_o_stride, p.grad_o_stride, count, cols), [&](u32 t, u32 col) {
        const u32 head = part.group * (p.heads / p.groups) + (part.first + col) / p.value;
        const float left = p.left[(((chunk + t / CHUNK) * p.heads + head) * p.depth + level) * CHUNK + t % CHUNK];
        return left * factor_of(p, token + t, head, WITHIN + level);
    });
    // Fours of a head alone.
    of_heads.whole = of_heads.whole && p.value % 4 == 0;
    add_product<64, ALONG_ROWS, ALONG_ROWS, ALL>(
        count, shared, tile, lines_of(q + token * p.q_stride, p.q_stride, count, rows), of_heads);
    lay_out(tile, shared);
    const u64 channels = (u64)p.heads * p.value;
    float* to = node_of(p, p.grad_states, p.grad_ranges, row, level, i) + part.first_n * channels + (u64)part.group * part.cols + part.first;
    write_lines<128>(shared, to, channels, rows, cols);
}

// Of what each token of a chunk is to each without factors, times its gradient, [i, j] in shared memory with 0 for
// j > i: writes the sums of each level, and leaves it with factors and 0 for j = i.
__device__ __forceinline__ void hear_within(const InChunks& p, const Place& place, u32 head, float* shared) {
    const u32 row = threadIdx.x / 2;
#pragma unroll 1
    for (u32 level = 0; level < WITHIN; level++) {
        // The tokens of the level lie beside each other; odd and even ones for themselves.
        const u32 count = level == 0 ? 1 : row >> (level - 1) & 1 ? 1u << (level - 1) : 0;
        const float* first = shared + row * STRIDE + (level == 0 ? row : count > 0 ? ((row >> (level - 1)) - 1) << (level - 1) : 0);
        float sum = 0.0f;
        for (u32 j = threadIdx.x % 2; j < count; j += 2) sum += first[j];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        if (threadIdx.x % 2 == 0) p.heard[heard_of(p, place, head, level) + row] = sum;
    }
    __syncthreads();
    FOR_EACH(index, CHUNK * CHUNK, 128) {
        const u32 i = index / CHUNK, j = index % CHUNK;
        float* value = shared + i * STRIDE + j;
        *value = j < i && i < place.count ? *value * factor_within(p, place, head, i, j) : 0.0f;
    }
    __syncthreads();
}

// What a token hears of chunks before its own, times its gradient.
__device__ __forceinline__ float heard_across(const InChunks& p, const Place& place, u32 head, u32 t) {
    float sum = 0.0f;
    for (u32 level = 0; level < p.depth && t < place.count; level++) {
        if (is_read(p, place.chunk, level))
            sum += factor_of(p, place.token + t, head, WITHIN + level) * p.heard[heard_of(p, place, head, WITHIN + level) + t];
    }
    return sum;
}

// Adds to the gradients of a chunk's logarithms what tokens before the chunk say to those after it. Block: 64 tokens of
// a head, chunk after chunk.
KERNEL(64, levels_across, InChunks) {
    const u32 head = blockIdx.x % p.heads, row = blockIdx.x / p.heads;
    double across = 0.0;
    for (u32 chunk = 0; chunk < p.chunks; chunk++) {
        const Place place = place_of(p, row * p.chunks + chunk);
        const float* parts = p.across + (place.index * p.heads + head) * 2;
        across -= parts[0];
        if (threadIdx.x < place.count) p.grad_logs[(place.token + threadIdx.x) * p.grad_logs_stride + head] += (float)across;
        across += parts[1];
    }
}

// The gradients of factors. One thread a value.
KERNEL(256, levels_grad_lambda, InChunks) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, cols = (u64)p.heads * p.levels, token = index / cols;
    if (token >= (u64)p.batch * p.length) return;
    const u32 head = index % cols / p.levels, own = index % p.levels, t = token % p.length;
    const Place place = place_of(p, token / p.length * p.chunks + t / CHUNK);
    const u32 end = own + 1 < p.levels ? min(own + 1, WITHIN + p.depth) : WITHIN + p.depth;
    float sum = 0.0f;
    for (u32 level = own; level < end; level++) {
        if (level < WITHIN || is_read(p, place.chunk, level - WITHIN)) sum += p.heard[heard_of(p, place, head, level) + t % CHUNK];
    }
    leave(&p.grad_lambda[token * p.grad_lambda_stride + index % cols], sum, p.lambda_accumulate);
}

// A feed, as the recurrence itself: slot s of L - 1 has 2^s tokens, or none, as bit s of the position says, the last all
// that are older, and a token's slot takes up all below. Block: 32 channels, 8 slices of N. Shared: [8, 32].
// `carried` [B, (L - 1) (N H V + 1)] begins with [L - 1, N, H V].
KERNEL(256, levels_feed, InChunks) {
    SHARED(sums);
    const u32 channels = p.heads * p.value, tiles = (channels + WARP - 1) / WARP, slots = p.levels - 1;
    const u32 lane = threadIdx.x % WARP, slice = threadIdx.x / WARP;
    const u32 row = blockIdx.x / tiles, channel = blockIdx.x % tiles * WARP + lane;
    const bool inside = channel < channels;
    const u32 head = inside ? channel / p.value : 0;
    const u64 values = (u64)p.key * channels, group = head / (p.heads / p.groups);
    float* state = p.carried + row * slots * (values + 1) + channel;
    for (u32 t = 0; t < p.length; t++) {
        const u64 token = (u64)row * p.length + t, position = p.control->position + t;
        u32 target = 0;
        while (target + 1 < slots && position >> target & 1) target++;
        const stored *k = p.k + token * p.k_stride + group * p.key, *q = p.q + token * p.q_stride + group * p.key;
        const float decay = expf(log_of(p, token, head)), v = inside ? p.v[token * p.v_stride + channel] : 0.0f;
        float result = 0.0f;
        for (u32 n = slice; n < p.key && inside; n += SLICES) {
            float taken = k[n] * v, read = factor_of(p, token, head, 0) * taken;
            for (u32 slot = 0; slot < slots && position >> slot > 0; slot++) {
                if (slot + 1 < slots && !(position >> slot & 1)) continue;
                float* cell = state + slot * values + (u64)n * channels;
                const float value = decay * *cell;
                read += factor_of(p, token, head, slot + 1) * value;
                if (slot <= target) taken += value;
                else *cell = value;
            }
            state[target * values + (u64)n * channels] = taken;
            result += q[n] * read;
        }
        sums[slice * WARP + lane] = result;
        __syncthreads();
        if (slice == 0 && inside) {
            float sum = 0.0f;
            for (u32 i = 0; i < SLICES; i++) sum += sums[i * WARP + lane];
            p.o[token * p.o_stride + channel] = sum;
        }
        __syncthreads();
    }
}
