// PaTH attention (arXiv 2505.16381) for H query heads and G key heads of width K, in blocks of 64 tokens. With W and beta
// of a block's tokens, N = (1 + lower(beta W W^T))^-1, M = N beta, F = M W and E = M lower(W K^T), `lower` being what lies
// below the diagonal (the UT transform of arXiv 2406.06484):
//
//   the block's keys, turned to its end, are K - E^T W; those before it are turned by it to K - (K F^T) W;
//   queries look at the block's own keys by tril(Q K^T) - tril(Q W^T) E, at those before it as Q - tril(Q W^T) F,
//   and past an earlier block, its keys looked at, as Q - (Q W^T) F.
//
// Forward: path_prepare (N, E, F, turned keys), path_forward_64 or _128 (a block of queries goes back from block to block,
// its softmax on the way). A feed does the same with its own tokens, goes on over the keys of its state, which are turned
// up to it, and has those turned on: path_turn, or path_turn_few token by token. Its keys are cut into `parts`, whose
// results attention_parts (attention_rows.cu) adds up.
//
// Backward: BATCH blocks of queries at a time, path_walk leaves how their queries look at each block and the gradients of
// that, and path_keys goes from each block over them; then path_finish, from all that to the gradients of inputs.
// Sums are in the order of blocks and heads.
//
// Products are of tiles, see state_matrix/tile.cuh, which stands in front of this file, by 128 threads. Shared: two slabs
// (SLABS), matrices [64, STRIDE] (AREA), and what each kernel says. Any T; K up to 128.

#define BLOCK 64u
#define BATCH 4u
#define SLABS (2 * SLAB_VALUES)
#define AREA (BLOCK * STRIDE)
#define SQUARE (BLOCK * BLOCK)

// Rows of a head, 0 past what there is: of an input, or of what was made of inputs.
template <class T>
struct Given {
    const T* data;
    u64 stride;
    u32 rows, cols;

    __device__ __forceinline__ float at(u32 i, u32 n) const { return i < rows && n < cols ? data[i * stride + n] : 0.0f; }
};

// A block of tokens of a key head.
struct At {
    u32 row, kv, block, count;
    u64 token;  // its first, over [B, T]
    u64 index;  // over [B, G, blocks]
    u64 place;  // of its first token over [B, G, T]
};

__device__ __forceinline__ At at_block(const PathParams& p, u32 row, u32 kv, u32 block) {
    const u32 start = block * BLOCK;
    const u64 unit = (u64)row * p.kv_heads + kv;
    return {row, kv, block, min(BLOCK, p.length - start), (u64)row * p.length + start, unit * p.blocks + block, unit * p.length + start};
}

__device__ __forceinline__ Given<stored> rows_of(const PathParams& p, const At& at, const stored* data, u64 stride) {
    return {data + at.token * stride + (u64)at.kv * p.width, stride, at.count, p.width};
}

// The same of a query head.
__device__ __forceinline__ Given<stored> query_rows(const PathParams& p, const At& at, u32 head, const stored* data, u64 stride) {
    return {data + at.token * stride + (u64)head * p.width, stride, at.count, p.width};
}

// Rows of a buffer [B, G, T, K].
__device__ __forceinline__ Given<float> kept_rows(const PathParams& p, const At& at, const float* data) {
    return {data + at.place * p.width, p.width, at.count, p.width};
}

// A block of tokens of a query head in a buffer [B, H, T, ..].
__device__ __forceinline__ u64 head_place(const PathParams& p, const At& at, u32 head) {
    return ((u64)at.row * p.heads + head) * p.length + at.block * BLOCK;
}

// put(i, j, sum over inner of left(i, .) right(j, .)) for 64 rows and `cols` columns; a barrier stands behind.
template <Along A = ALONG_INNER, Along B = ALONG_ROWS, class Left, class Right, class Put>
__device__ __forceinline__ void product(u32 inner, u32 cols, float* shared, Left left, Right right, Put put) {
#pragma unroll 1
    for (u32 first = 0; first < cols; first += BLOCK) {
        Tile<64> tile = {};
        add_product<64, A, B, ALL>(
            inner, shared, tile, each<A>(left), each<B>([&](u32 col, u32 k) { return first + col < cols ? right(first + col, k) : 0.0f; }));
        lay_out(tile, shared);
        FOR_EACH(index, SQUARE, 128) {
            const u32 i = index / BLOCK, j = index % BLOCK;
            if (first + j < cols) put(i, first + j, shared[i * STRIDE + j]);
        }
        __syncthreads();
    }
}

// N, E, F and turned keys of a block. Grid: blocks, key heads and rows. Shared: slabs, two matrices, beta [64].
KERNEL(128, path_prepare, PathParams) {
    SHARED(shared);
    float *a = shared + SLABS, *n = a + AREA, *beta = n + AREA;
    const At at = at_block(p, blockIdx.x / p.blocks / p.kv_heads, blockIdx.x / p.blocks % p.kv_heads, blockIdx.x % p.blocks);
    const Given<stored> w = rows_of(p, at, p.w, p.w_stride), k = rows_of(p, at, p.k, p.k_stride);
    if (threadIdx.x < BLOCK) beta[threadIdx.x] = threadIdx.x < at.count ? p.beta[(at.token + threadIdx.x) * p.beta_stride + at.kv] : 0.0f;
    const auto to_area = [&](u32 i, u32 j, float value) { a[i * STRIDE + j] = value; };
    product<ALONG_INNER, ALONG_INNER>(p.width, BLOCK, shared, [&](u32 i, u32 c) { return w.at(i, c); }, [&](u32 j, u32 c) { return w.at(j, c); }, to_area);
    // Each column of N for itself, from its diagonal down.
    if (threadIdx.x < BLOCK) {
        const u32 c = threadIdx.x;
        for (u32 i = 0; i < BLOCK; i++) {
            float sum = 0.0f;
            for (u32 r = c; r < i; r++) sum += a[i * STRIDE + r] * n[r * STRIDE + c];
            n[i * STRIDE + c] = i == c ? 1.0f : i > c ? -beta[i] * sum : 0.0f;
        }
    }
    __syncthreads();
    FOR_EACH(index, SQUARE, 128) p.solved[at.index * SQUARE + index] = n[index / BLOCK * STRIDE + index % BLOCK];
    const auto m = [&](u32 i, u32 j) { return n[i * STRIDE + j] * beta[j]; };
    product(BLOCK, p.width, shared, m, [&](u32 c, u32 j) { return w.at(j, c); }, [&](u32 i, u32 c, float value) {
        if (i < at.count) p.pulled[(at.place + i) * p.width + c] = value;
    });
    product<ALONG_INNER, ALONG_INNER>(p.width, BLOCK, shared, [&](u32 i, u32 c) { return w.at(i, c); }, [&](u32 j, u32 c) { return k.at(j, c); }, to_area);
    float* mixed = p.mixed + at.index * SQUARE;
    product(BLOCK, BLOCK, shared, m, [&](u32 j, u32 r) { return j < r ? a[r * STRIDE + j] : 0.0f; }, [&](u32 i, u32 j, float value) { mixed[i * BLOCK + j] = value; });
    product<ALONG_ROWS, ALONG_ROWS>(
        BLOCK, p.width, shared, [&](u32 j, u32 i) { return mixed[i * BLOCK + j]; }, [&](u32 c, u32 i) { return w.at(i, c); },
        [&](u32 j, u32 c, float value) {
            if (j < at.count) p.turned[(at.place + j) * p.width + c] = k.at(j, c) - value;
        });
}

// What is added to the logit of a key of this run, for a query of it: the key's bias less the query's own, part by part.
template <class T>
__device__ __forceinline__ float bias_between(const PathParams& p, u32 head, const T* key, u64 query) {
    if (!p.bias) return 0.0f;
    const stored* own = p.bias + query * p.bias_stride + head;
    return (key[0] - own[0]) + (key[p.heads] - own[p.heads]);
}

// The biases of a key of this run.
__device__ __forceinline__ const stored* bias_of(const PathParams& p, u32 head, u64 token) {
    return p.bias ? p.bias + token * p.bias_stride + head : nullptr;
}

// Where a block's softmax is.
struct Softmax {
    float *logits, *tops, *totals, *factors;  // shared: [64, STRIDE], [64] each
};

// Logits of a tile of keys, in shared memory, become exponentials relative to the running maxima, which are then said of
// v: sums = factors sums + exponentials v. seen(i, j), bias(i, j).
template <u32 N, class T, class Seen, class Bias>
__device__ __forceinline__ void mix(const PathParams& p, const Softmax& s, const Given<T>& v, float* shared, Tile<64> (&sums)[N], Seen seen, Bias bias) {
    const u32 row = threadIdx.x / 2;
    float* logits = s.logits + row * STRIDE;
    const float before = s.tops[row];
    float top = before, total = 0.0f;
    for (u32 j = threadIdx.x % 2; j < BLOCK; j += 2) {
        logits[j] = seen(row, j) ? p.scale * logits[j] + bias(row, j) : MINUS_INFINITY;
        top = fmaxf(top, logits[j]);
    }
    top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
    for (u32 j = threadIdx.x % 2; j < BLOCK; j += 2) {
        logits[j] = logits[j] == MINUS_INFINITY ? 0.0f : expf(logits[j] - top);
        total += logits[j];
    }
    total += __shfl_xor_sync(ALL_LANES, total, 1);
    if (threadIdx.x % 2 == 0) {
        const float grown = before == MINUS_INFINITY ? 0.0f : expf(before - top);
        s.factors[row] = grown;
        s.totals[row] = s.totals[row] * grown + total;
        s.tops[row] = top;
    }
    __syncthreads();
#pragma unroll
    for (u32 n = 0; n < N; n++) {
#pragma unroll
        for (u32 i = 0; i < Tile<64>::rows; i++) {
#pragma unroll
            for (u32 j = 0; j < Tile<64>::cols; j++) sums[n].at(i, j) *= s.factors[Tile<64>::row(i)];
        }
        add_product<64, ALONG_INNER, ALONG_ROWS, ALL>(
            v.rows, shared, sums[n], each<ALONG_INNER>([&](u32 i, u32 j) { return s.logits[i * STRIDE + j]; }),
            each<ALONG_ROWS>([&](u32 col, u32 j) { return v.at(j, n * BLOCK + col); }));
    }
    __syncthreads();
}

// Queries past a block, in place: x - (x W^T) F; with `lower` of the block's own, tril(x W^T). `along` is an area. `to` may be x.
template <class T>
__device__ __forceinline__ void pass_block(const PathParams& p, const Given<T>& x, const Given<stored>& w, const Given<float>& f, bool lower, float* along, float* shared, float* to) {
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return x.at(i, c); }, [&](u32 j, u32 c) { return w.at(j, c); },
        [&](u32 i, u32 j, float value) { along[i * STRIDE + j] = lower && j > i ? 0.0f : value; });
    product(
        BLOCK, p.width, shared, [&](u32 i, u32 j) { return along[i * STRIDE + j]; }, [&](u32 c, u32 j) { return f.at(j, c); },
        [&](u32 i, u32 c, float value) {
            if (i < x.rows) to[(u64)i * p.width + c] = x.at(i, c) - value;
        });
}

// q k^T in an area.
template <class T, class U>
__device__ __forceinline__ void ask(const PathParams& p, const Given<T>& q, const Given<U>& k, float* shared, float* logits) {
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return q.at(i, c); }, [&](u32 j, u32 c) { return k.at(j, c); },
        [&](u32 i, u32 j, float value) { logits[i * STRIDE + j] = value; });
}

// logits -= along E.
__device__ __forceinline__ void less_mixed(const PathParams& p, const At& at, const float* along, float* shared, float* logits) {
    const float* mixed = p.mixed + at.index * SQUARE;
    product(
        BLOCK, BLOCK, shared, [&](u32 i, u32 r) { return along[i * STRIDE + r]; }, [&](u32 j, u32 r) { return mixed[r * BLOCK + j]; },
        [&](u32 i, u32 j, float value) { logits[i * STRIDE + j] -= value; });
}

// y of a block of queries. Grid: heads, rows, parts and blocks, the last ones first, as they see the most keys. Shared:
// slabs, two matrices, maxima, totals and factors [64 each].
template <u32 N>
__device__ __forceinline__ void forward(const PathParams& p, float* shared) {
    float *logits = shared + SLABS, *along = logits + AREA, *tops = along + AREA;
    const Softmax s = {logits, tops, tops + BLOCK, tops + 2 * BLOCK};
    const u32 head = blockIdx.x % p.heads, row = blockIdx.x / p.heads % p.rows, rest = blockIdx.x / p.heads / p.rows;
    const u32 part = rest % p.parts, block = p.blocks - 1 - rest / p.parts, kv = head / (p.heads / p.kv_heads);
    const At at = at_block(p, row, kv, block);
    const Given<stored> q = query_rows(p, at, head, p.q, p.q_stride);
    const u64 slice = (u64)row * p.parts + part;
    float* place = p.carried + ((slice * p.heads + head) * p.length + block * BLOCK) * p.width;
    const Given<float> carried = {place, p.width, at.count, p.width};
    const u64 before = p.control ? p.control->position : 0;
    if (threadIdx.x < BLOCK) {
        s.tops[threadIdx.x] = MINUS_INFINITY;
        s.totals[threadIdx.x] = 0.0f;
    }
    Tile<64> sums[N] = {};
    pass_block(p, q, rows_of(p, at, p.w, p.w_stride), kept_rows(p, at, p.pulled), true, along, shared, place);
    if (part == 0) {
        ask(p, q, rows_of(p, at, p.k, p.k_stride), shared, logits);
        less_mixed(p, at, along, shared, logits);
        mix<N>(
            p, s, rows_of(p, at, p.v, p.v_stride), shared, sums, [&](u32 i, u32 j) { return i < at.count && j <= i; },
            [&](u32 i, u32 j) { return bias_between(p, head, bias_of(p, head, at.token + j), at.token + i); });
    }
#pragma unroll 1
    for (u32 other = block; other-- > 0;) {
        const At key = at_block(p, row, kv, other);
        if (part == 0) {
            ask(p, carried, kept_rows(p, key, p.turned), shared, logits);
            mix<N>(
                p, s, rows_of(p, key, p.v, p.v_stride), shared, sums, [&](u32 i, u32) { return i < at.count; },
                [&](u32 i, u32 j) { return bias_between(p, head, bias_of(p, head, key.token + j), at.token + i); });
        }
        if (other > 0 || before > 0) pass_block(p, carried, rows_of(p, key, p.w, p.w_stride), kept_rows(p, key, p.pulled), false, along, shared, place);
    }
    const u64 tiles = (before + BLOCK - 1) / BLOCK, share = (tiles + p.parts - 1) / p.parts, cols = (u64)p.kv_heads * p.width;
    const u64 end = min((part + 1) * share, tiles), values = cols + (p.bias ? 2 * p.heads : 0);
#pragma unroll 1
    for (u64 tile = part * share; tile < end; tile++) {
        const u64 first = (u64)row * p.capacity + tile * BLOCK;
        const u32 count = (u32)min((u64)BLOCK, before - tile * BLOCK);
        ask(p, carried, Given<float>{p.keys + first * cols + (u64)kv * p.width, cols, count, p.width}, shared, logits);
        mix<N>(
            p, s, Given<float>{p.values + first * values + (u64)kv * p.width, values, count, p.width}, shared, sums, [&](u32 i, u32 j) { return i < at.count && j < count; },
            [&](u32 i, u32 j) { return bias_between(p, head, p.values + (first + j) * values + cols + head, at.token + i); });
    }
    stored* y = p.y + (slice * p.length + block * BLOCK) * p.y_stride + (u64)head * p.width;
#pragma unroll
    for (u32 n = 0; n < N; n++) {
        lay_out(sums[n], shared);
        FOR_EACH(index, SQUARE, 128) {
            const u32 i = index / BLOCK, c = n * BLOCK + index % BLOCK;
            // A part without keys counts as zeros of weight 0.
            if (i < at.count && c < p.width) y[i * p.y_stride + c] = s.totals[i] == 0.0f ? 0.0f : shared[i * STRIDE + index % BLOCK] / s.totals[i];
        }
    }
    if (threadIdx.x < at.count) p.log_sums[(slice * p.heads + head) * p.length + block * BLOCK + threadIdx.x] = s.tops[threadIdx.x] + logf(s.totals[threadIdx.x]);
}

KERNEL(128, path_forward_64, PathParams) {
    SHARED(shared);
    forward<1>(p, shared);
}

KERNEL(128, path_forward_128, PathParams) {
    SHARED(shared);
    forward<2>(p, shared);
}

// Values and biases of this feed to their places in the state. One thread a value.
KERNEL(256, path_append, PathParams) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, cols = (u64)p.kv_heads * p.width;
    const u64 values = cols + (p.bias ? 2 * p.heads : 0), token = index / values, col = index % values;
    if (token >= (u64)p.rows * p.length) return;
    const u64 place = token / p.length * p.capacity + p.control->position + token % p.length;
    p.values[place * values + col] = col < cols ? p.v[token * p.v_stride + col] : p.bias[token * p.bias_stride + col - cols];
}

// Turns the keys of the state, and those of this feed, to its end. Grid: tiles of keys from before and blocks of new
// ones, key heads and rows. Shared: slabs, a matrix.
KERNEL(128, path_turn, PathParams) {
    SHARED(shared);
    float* along = shared + SLABS;
    const u32 tiles = (u32)((p.capacity + BLOCK - 1) / BLOCK) + p.blocks, tile = blockIdx.x % tiles, unit = blockIdx.x / tiles;
    const u32 row = unit / p.kv_heads, kv = unit % p.kv_heads, old = tiles - p.blocks;
    const u64 before = p.control->position, stride = (u64)p.kv_heads * p.width;
    if (tile < old && (u64)tile * BLOCK >= before) return;
    const u64 first = tile < old ? (u64)tile * BLOCK : before + (tile - old) * BLOCK;
    float* keys = p.keys + ((u64)row * p.capacity + first) * stride + (u64)kv * p.width;
    const u32 count = tile < old ? (u32)min((u64)BLOCK, before - first) : at_block(p, row, kv, tile - old).count;
    if (tile >= old) {
        const Given<float> turned = kept_rows(p, at_block(p, row, kv, tile - old), p.turned);
        for (u32 index = threadIdx.x; index < count * p.width; index += 128) keys[index / p.width * stride + index % p.width] = turned.at(index / p.width, index % p.width);
        __syncthreads();
    }
    const Given<float> k = {keys, stride, count, p.width};
    for (u32 block = tile < old ? 0 : tile - old + 1; block < p.blocks; block++) {
        const At at = at_block(p, row, kv, block);
        const Given<stored> w = rows_of(p, at, p.w, p.w_stride);
        const Given<float> f = kept_rows(p, at, p.pulled);
        ask(p, k, f, shared, along);
        product(
            BLOCK, p.width, shared, [&](u32 i, u32 j) { return along[i * STRIDE + j]; }, [&](u32 c, u32 j) { return w.at(j, c); },
            [&](u32 i, u32 c, float value) {
                if (i < count) keys[i * stride + c] -= value;
            });
    }
}

// The same for few tokens, one after another, k -= beta w (w . k). A warp a key of the state, new ones included.
KERNEL(256, path_turn_few, PathParams) {
    const u32 lane = threadIdx.x % WARP;
    const u64 index = blockIdx.x * (u64)(blockDim.x / WARP) + threadIdx.x / WARP, stride = (u64)p.kv_heads * p.width;
    const u64 place = index / p.kv_heads % p.capacity, row = index / p.kv_heads / p.capacity, kv = index % p.kv_heads, before = p.control->position;
    if (row >= p.rows || place >= before + p.length) return;
    float* key = p.keys + (row * p.capacity + place) * stride + kv * p.width;
    const u64 token = row * p.length;
    // A new key is turned by the tokens after its own.
    const u32 own = place < before ? 0 : (u32)(place - before), begin = place < before ? 0 : own + 1;
    float values[4];
#pragma unroll
    for (u32 n = 0; n < 4; n++) {
        const u32 c = n * WARP + lane;
        values[n] = c >= p.width ? 0.0f : place < before ? key[c] : p.k[(token + own) * p.k_stride + kv * p.width + c];
    }
    for (u32 t = begin; t < p.length; t++) {
        const stored* w = p.w + (token + t) * p.w_stride + kv * p.width;
        float sum = 0.0f, direction[4];
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            direction[n] = n * WARP + lane < p.width ? w[n * WARP + lane] : 0.0f;
            sum += direction[n] * values[n];
        }
        sum = p.beta[(token + t) * p.beta_stride + kv] * warp_sum(sum);
#pragma unroll
        for (u32 n = 0; n < 4; n++) values[n] -= sum * direction[n];
    }
#pragma unroll
    for (u32 n = 0; n < 4; n++)
        if (n * WARP + lane < p.width) key[n * WARP + lane] = values[n];
}
