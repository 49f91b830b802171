// Causal softmax attention on tensor cores: what attention.cu computes, with bfloat16 factors and float32 sums
// (FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2). q, k, v, dy and, for the second products, weights
// and their gradients are rounded; logits, the softmax and everything that is summed stay float32.
//
// A warp owns rows of a tile with their sums in registers: 32 queries in the forward pass and for dq, 16 keys
// for dk and dv, whose products are turned (s^T = k q^T) so that weights become factors where they are
// (mma.cuh) and never pass through shared memory.
//
//   kernel                    threads   a block owns   goes over tiles of   rows of shared memory
//   attention_mma_forward       128     128 queries    64 keys              256
//   attention_mma_feed          128     128 queries    64 keys              256
//   attention_mma_grad_q        128     128 queries    32 keys, 2 buffers   384
//   attention_mma_grad_kv       256     128 keys       32 queries, 2 each   384, and 128 float32 values
//
// A row of shared memory is WIDTH bfloat16 values, WIDTH of 32, 64 or 128 by a definition in front of this text
// and attention_tiles.cuh; a head may have fewer. Pieces of eight values are stored at places that depend on
// the row, so that eight neighbouring rows of a column lie in different banks. Everything is in grid x.
//
// In training attention_pack and attention_pack_grad round the operands once, [B, heads, T, WIDTH] with zeros
// after the head's own width, and tiles come by asynchronous copies while the one before is worked on. A feed
// reads keys and values from its ring and rounds them on their way. A tile that a warp sees nothing of is
// passed over; only tiles on the edges of what it sees are masked. T and windows count up to 2^31.

#include "mma.cuh"

#ifndef WIDTH
#define WIDTH 64
#endif
#define PIECES (WIDTH / 8)
#define STEPS (WIDTH / 16)
#define QUERIES 128
#define KEYS 64
#define FEW 32
#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f
#define INFINITE __int_as_float(0x7f800000)

struct alignas(16) Words {
    u32 word[4];
};

// The eight values of a row of `head_dim` from column `col` on, zeros after its end.
__device__ __forceinline__ void load_piece(float (&values)[8], const stored* row, u32 col, u32 head_dim) {
    if (col + 8 <= head_dim && holds_four(row + col)) {
        const Float4 low = load4(row + col), high = load4(row + col + 4);
        values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
        values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
    } else {
#pragma unroll
        for (u32 n = 0; n < 8; n++) values[n] = col + n < head_dim ? row[col + n] : 0.0f;
    }
}

__device__ __forceinline__ Words pack_piece(const float (&v)[8]) {
    return {{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])}};
}

// Rounds q, k and v, a piece of eight values a thread.
KERNEL(256, attention_pack, AttentionPack) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= p.count) return;
    const u32 all = p.heads + 2 * p.kv_heads;
    const u64 at = index / PIECES, t = at % p.length, row = at / p.length / all;
    u32 head = at / p.length % all;
    const stored* from = p.q;
    u64 stride = p.q_stride;
    if (head >= p.heads) {
        head -= p.heads;
        from = head < p.kv_heads ? p.k : p.v;
        stride = head < p.kv_heads ? p.k_stride : p.v_stride;
        if (head >= p.kv_heads) head -= p.kv_heads;
    }
    float values[8];
    load_piece(values, from + (row * p.length + t) * stride + head * (u64)p.head_dim, index % PIECES * 8, p.head_dim);
    ((Words*)p.to)[index] = pack_piece(values);
}

// Rounds dy, and makes delta = dy . y of what was rounded: it is taken from dy . v of the same values, and what
// cancels there should. The PIECES threads of a row are neighbours in a warp.
KERNEL(256, attention_pack_grad, AttentionPackGrad) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    float sum = 0.0f;
    const u64 at = index / PIECES;
    if (index < p.count) {
        const u64 t = at % p.length, head = at / p.length % p.heads, row = at / p.length / p.heads;
        const u32 col = index % PIECES * 8;
        float y[8], dy[8];
        load_piece(y, p.y + (row * p.length + t) * p.y_stride + head * p.head_dim, col, p.head_dim);
        load_piece(dy, p.dy + (row * p.length + t) * p.dy_stride + head * p.head_dim, col, p.head_dim);
        const Words words = pack_piece(dy);
        ((Words*)p.to)[index] = words;
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            sum += y[2 * n] * __uint_as_float(words.word[n] << 16);
            sum += y[2 * n + 1] * __uint_as_float(words.word[n] & 0xffff0000);
        }
    }
    for (u32 lanes = PIECES / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    if (index < p.count && index % PIECES == 0) p.delta[at] = sum;
}

// Where piece `piece` of a row of shared memory stands, in values from the tile's beginning.
__device__ __forceinline__ u32 place_of(u32 row, u32 piece) {
    const u32 turn = WIDTH == 32 ? row / 2 % 4 : row % 8;
    return row * WIDTH + 8 * (piece ^ turn);
}

// Begins to copy ROWS rows of packed values, zeros from row `count` on: what shared memory held before must not
// reach a product.
template <u32 ROWS, u32 THREADS>
__device__ __forceinline__ void fetch(u16* to, const u16* from, u32 count) {
#pragma unroll
    for (u32 n = 0; n < (ROWS * PIECES + THREADS - 1) / THREADS; n++) {
        const u32 i = n * THREADS + threadIdx.x, row = i / PIECES, piece = i % PIECES;
        if (ROWS * PIECES % THREADS != 0 && i >= ROWS * PIECES) continue;
        copy_async_16(to + place_of(row, piece), from + row * WIDTH + 8 * piece, row < count);
    }
}

// Rows of one head in a feed: row r is at place `place + r`, around the end of a ring.
struct HeadRows {
    const stored* data;
    u64 stride, place, capacity;
};

// Rounds ROWS such rows on their way to shared memory, zeros from row `count` on.
template <u32 ROWS, u32 THREADS>
__device__ __forceinline__ void convert(u16* to, const HeadRows& from, u32 count, u32 head_dim) {
#pragma unroll 4
    for (u32 i = threadIdx.x; i < ROWS * WIDTH / 2; i += THREADS) {
        const u32 row = i / (WIDTH / 2), col = i % (WIDTH / 2) * 2;
        u64 place = from.place + row;
        if (place >= from.capacity) place -= from.capacity;
        const stored* values = from.data + place * from.stride + col;
        const float low = row < count && col < head_dim ? values[0] : 0.0f;
        const float high = row < count && col + 1 < head_dim ? values[1] : 0.0f;
        *(u32*)(to + place_of(row, col / 8) + col % 8) = pack_bf16(low, high);
    }
}

// d += a b^T of 16 R rows of a, from row `first` on, and N rows of b, over the head's width.
template <u32 R, u32 N>
__device__ __forceinline__ void multiply(const u16* a, u32 first, const u16* b, float (&d)[R][N / 8][4]) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
        u32 left[R][4];
#pragma unroll
        for (u32 m = 0; m < R; m++)
            load_matrices(left[m][0], left[m][1], left[m][2], left[m][3],
                          a + place_of(first + 16 * m + lane % 16, 2 * step + lane / 16));
#pragma unroll
        for (u32 n = 0; n < N / 16; n++) {
            u32 right[2][2];
            load_matrices(right[0][0], right[0][1], right[1][0], right[1][1],
                          b + place_of(16 * n + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
#pragma unroll
            for (u32 m = 0; m < R; m++) {
                mma_16x8x16(d[m][2 * n], left[m], right[0]);
                mma_16x8x16(d[m][2 * n + 1], left[m], right[1]);
            }
        }
    }
}

// d += w b of weights as they are summed up, [16 R, K], and K rows of b.
template <u32 R, u32 K>
__device__ __forceinline__ void add_weighted(const float (&w)[R][K / 8][4], const u16* b, float (&d)[R][PIECES][4]) {
    const u32 lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 step = 0; step < K / 16; step++) {
        u32 left[R][4];
#pragma unroll
        for (u32 m = 0; m < R; m++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const float(&pair)[4] = w[m][2 * step + i / 2];
                left[m][i] = pack_bf16(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            }
#pragma unroll
        for (u32 n = 0; n < STEPS; n++) {
            u32 right[2][2];
            load_turned(right[0][0], right[0][1], right[1][0], right[1][1],
                        b + place_of(16 * step + lane % 16, 2 * n + lane / 16));
#pragma unroll
            for (u32 m = 0; m < R; m++) {
                mma_16x8x16(d[m][2 * n], left[m], right[0]);
                mma_16x8x16(d[m][2 * n + 1], left[m], right[1]);
            }
        }
    }
}

template <u32 R, u32 N>
__device__ __forceinline__ void clear(float (&d)[R][N][4]) {
#pragma unroll
    for (u32 m = 0; m < R; m++)
#pragma unroll
        for (u32 n = 0; n < N; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) d[m][n][i] = 0.0f;
}

// Rows `first + 16 m` .. of a warp's sums times `factors[m]`, of its rows g and g + 8, to rows of a head; `count`
// are there.
template <u32 R>
__device__ __forceinline__ void store_rows(const float (&d)[R][PIECES][4], const float (&factors)[R][2], u32 first, stored* to,
                                           u64 stride, u32 count, u32 head_dim, u32 accumulate) {
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (u32 m = 0; m < R; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 row = first + 16 * m + 8 * half + g;
            if (row >= count) continue;
            stored* place = to + row * stride;
#pragma unroll
            for (u32 n = 0; n < PIECES; n++)
#pragma unroll
                for (u32 i = 0; i < 2; i++) {
                    const u32 col = 8 * n + 2 * t + i;
                    const float value = factors[m][half] * d[m][n][2 * half + i];
                    if (col < head_dim) place[col] = accumulate ? place[col] + value : value;
                }
        }
}

// What the four threads that share a row have together.
__device__ __forceinline__ float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}

__device__ __forceinline__ float row_sum(float value) {
    value += __shfl_xor_sync(ALL_LANES, value, 1);
    return value + __shfl_xor_sync(ALL_LANES, value, 2);
}

// How a head weighs: logits are in powers of 2.
struct HeadScale {
    float scale, slope;
    u32 window;  // at most 2^31 - 1, so that one comparison of a distance as u32 is enough
};

__device__ __forceinline__ HeadScale scale_of(const AttentionTiles& p, u32 head) {
    return {p.scale * LOG2_E, slope_of(p, head) * LOG2_E, min(window_of(p, head), 0x7fffffffu)};
}

// Rows of `queries` against columns of `keys`, the first of one `distance` after the first of the other: whether
// any query sees any key, and whether all see all.
__device__ __forceinline__ bool any_seen(int distance, int queries, int keys, u32 window) {
    return distance + queries > 0 && distance - keys + 1 < (int)window;
}

__device__ __forceinline__ bool all_seen(int distance, int queries, int keys, u32 window) {
    return distance - keys + 1 >= 0 && (u32)(distance + queries) <= window;
}

// Logits from products of queries and keys, [16, N], the query of row 0 `distance` after the key of column 0; with
// TURNED rows are keys and columns queries. What no query may see is minus infinity. `all` is all_seen.
template <bool TURNED, u32 N>
__device__ __forceinline__ void weigh(float (&products)[N][4], const HeadScale& h, int distance, bool all) {
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) products[n][i] *= h.scale;
    if (all && h.slope == 0.0f) return;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const int start = TURNED ? distance - (int)(8 * half + g) + (int)(2 * t) : distance + (int)(8 * half + g) - (int)(2 * t);
        const float bias = -h.slope * (float)start;
#pragma unroll
        for (u32 n = 0; n < N; n++)
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                const int more = TURNED ? (int)(8 * n + i) : -(int)(8 * n + i);
                const float logit = products[n][2 * half + i] + (bias - h.slope * (float)more);
                products[n][2 * half + i] = (u32)(start + more) < h.window ? logit : MINUS_INFINITY;
            }
    }
}

template <bool RING>
__device__ __forceinline__ void forward_tile(const AttentionPacked& given, u16* shared) {
    constexpr u32 THREADS = 128, R = 2;
    const AttentionTiles& p = given.tiles;
    u16 *q = shared, *k = q + QUERIES * WIDTH, *v = k + KEYS * WIDTH;
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4, own = threadIdx.x / WARP * 16 * R;
    // The last tiles see the most keys and go first.
    const u32 head = blockIdx.x % p.heads, row = blockIdx.x / p.heads % p.rows, kv_heads = p.heads / p.group;
    const u32 tile = (p.length + QUERIES - 1) / QUERIES - 1 - blockIdx.x / p.heads / p.rows;
    const u32 first = tile * QUERIES, count = min((u32)QUERIES, p.length - first);
    const HeadScale h = scale_of(p, head);
    // Keys count from the first one that the tile sees.
    const u64 at = (p.control ? p.control->position : 0) + first, start = first_seen(at, window_of(p, head));
    const int distance = (int)(at - start);
    const u32 end = (u32)distance + count;
    const u64 kv_start = head / p.group * (u64)p.head_dim;
    const u16* const rows = given.packed + (u64)row * (p.heads + 2 * kv_heads) * p.length * WIDTH;
    const u16* const packed_k = rows + ((p.heads + head / p.group) * (u64)p.length + start) * WIDTH;
    const u64 kv_size = kv_heads * (u64)p.length * WIDTH;
    const u64 ring_start = RING ? start % p.capacity : 0, ring_row = row * p.capacity;
    const auto fetch_keys = [&](u32 key, bool values) {
        const u32 keys = min((u32)KEYS, end - key);
        if (RING) {
            const u64 place = ring_start + key < p.capacity ? ring_start + key : ring_start + key - p.capacity;
            const u64 stride = values ? p.v_stride : p.k_stride;
            const stored* const from = (values ? p.v : p.k) + ring_row * stride + kv_start;
            convert<KEYS, THREADS>(values ? v : k, {from, stride, place, p.capacity}, keys, p.head_dim);
        } else {
            fetch<KEYS, THREADS>(values ? v : k, packed_k + (values ? kv_size : 0) + key * WIDTH, keys);
        }
        copy_async_commit();
    };
    if (RING) {
        const stored* from = p.q + ((u64)row * p.length + first) * p.q_stride + head * (u64)p.head_dim;
        convert<QUERIES, THREADS>(q, {from, p.q_stride, 0, ~0ull}, count, p.head_dim);
    } else {
        fetch<QUERIES, THREADS>(q, rows + (head * (u64)p.length + first) * WIDTH, count);
    }
    fetch_keys(0, false);
    float sums[R][PIECES][4], tops[R][2], totals[R][2];
    clear(sums);
#pragma unroll
    for (u32 m = 0; m < R; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            tops[m][half] = MINUS_INFINITY;
            totals[m][half] = 0.0f;
        }
    for (u32 key = 0; key < end; key += KEYS) {
        const int ahead = distance + (int)own - (int)key;
        const bool any = any_seen(ahead, 16 * R, KEYS, h.window), all = all_seen(ahead, 16 * R, KEYS, h.window);
        float weights[R][KEYS / 8][4];
        // The keys are there, and everyone has read the last values.
        copy_async_wait<0>();
        __syncthreads();
        fetch_keys(key, true);
        if (any) {
            clear(weights);
            multiply<R, KEYS>(q, own, k, weights);
        }
        // The values are there, and everyone has read the keys.
        copy_async_wait<0>();
        __syncthreads();
        if (key + KEYS < end) fetch_keys(key + KEYS, false);
        if (!any) continue;
#pragma unroll
        for (u32 m = 0; m < R; m++) {
            weigh<false>(weights[m], h, ahead + (int)(16 * m), all);
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                float top = tops[m][half];
#pragma unroll
                for (u32 n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(weights[m][n][2 * half], weights[m][n][2 * half + 1]));
                top = row_max(top);
                // A query that has seen no key yet has no largest logit.
                const float base = top == MINUS_INFINITY ? 0.0f : top, factor = fast_exp2(tops[m][half] - base);
                tops[m][half] = top;
                float total = factor * totals[m][half];
#pragma unroll
                for (u32 n = 0; n < PIECES; n++) {
                    sums[m][n][2 * half] *= factor;
                    sums[m][n][2 * half + 1] *= factor;
                }
#pragma unroll
                for (u32 n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (u32 i = 0; i < 2; i++) {
                        float& weight = weights[m][n][2 * half + i];
                        weight = fast_exp2(weight - base);
                        total += weight;
                    }
                totals[m][half] = total;
            }
        }
        add_weighted<R, KEYS>(weights, v, sums);
    }
    float factors[R][2];
#pragma unroll
    for (u32 m = 0; m < R; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const float total = row_sum(totals[m][half]);
            const u32 query = own + 16 * m + 8 * half + g;
            factors[m][half] = 1.0f / total;
            if (t == 0 && query < count)
                p.log_sums[((u64)row * p.heads + head) * p.length + first + query] = LN_2 * tops[m][half] + logf(total);
        }
    stored* y = p.y + ((u64)row * p.length + first) * p.y_stride + head * (u64)p.head_dim;
    store_rows<R>(sums, factors, own, y, p.y_stride, count, p.head_dim, 0);
}

KERNEL(128, attention_mma_forward, AttentionPacked) {
    SHARED(shared);
    forward_tile<false>(p, (u16*)shared);
}

// The same for a feed, whose keys and values are in a ring of float32.
KERNEL(128, attention_mma_feed, AttentionPacked) {
    SHARED(shared);
    forward_tile<true>(p, (u16*)shared);
}

// grad_a = dq of a tile of queries.
KERNEL(128, attention_mma_grad_q, AttentionPacked) {
    SHARED(shared);
    constexpr u32 THREADS = 128, R = 2;
    const AttentionTiles& a = p.tiles;
    u16 *q = (u16*)shared, *dy = q + QUERIES * WIDTH, *keys = dy + QUERIES * WIDTH;  // keys: [2, k and v, 32, WIDTH]
    const u32 g = threadIdx.x % WARP / 4, own = threadIdx.x / WARP * 16 * R;
    const u32 head = blockIdx.x % a.heads, row = blockIdx.x / a.heads % a.rows, kv_heads = a.heads / a.group;
    const u32 tile = (a.length + QUERIES - 1) / QUERIES - 1 - blockIdx.x / a.heads / a.rows;
    const u32 first = tile * QUERIES, count = min((u32)QUERIES, a.length - first), end = first + count;
    const HeadScale h = scale_of(a, head);
    const u64 head_size = (u64)a.length * WIDTH, query = ((u64)row * a.heads + head) * a.length + first;
    const u16* const rows = p.packed + row * (a.heads + 2 * kv_heads) * head_size;
    const u16* const packed_k = rows + (a.heads + head / a.group) * head_size;
    const auto fetch_keys = [&](u32 key, u32 buffer) {
        u16* const to = keys + buffer * 2 * FEW * WIDTH;
        const u16* const from = packed_k + (u64)key * WIDTH;
        fetch<FEW, THREADS>(to, from, min((u32)FEW, end - key));
        fetch<FEW, THREADS>(to + FEW * WIDTH, from + kv_heads * head_size, min((u32)FEW, end - key));
        copy_async_commit();
    };
    u32 key = (u32)first_seen(first, window_of(a, head)), buffer = 0;
    fetch<QUERIES, THREADS>(q, rows + head * head_size + (u64)first * WIDTH, count);
    fetch<QUERIES, THREADS>(dy, p.packed_dy + query * WIDTH, count);
    fetch_keys(key, 0);
    float sums[R][PIECES][4], log_sums[R][2], deltas[R][2];
    clear(sums);
#pragma unroll
    for (u32 m = 0; m < R; m++)
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            const u32 at = own + 16 * m + 8 * half + g;
            // A query that is not there weighs nothing.
            log_sums[m][half] = at < count ? LOG2_E * a.log_sums[query + at] : INFINITE;
            deltas[m][half] = at < count ? a.delta[query + at] : 0.0f;
        }
    for (; key < end; key += FEW, buffer ^= 1) {
        // This tile is there, and everyone has read the last one.
        copy_async_wait<0>();
        __syncthreads();
        if (key + FEW < end) fetch_keys(key + FEW, buffer ^ 1);
        const int ahead = (int)(first + own) - (int)key;
        if (!any_seen(ahead, 16 * R, FEW, h.window)) continue;
        const bool all = all_seen(ahead, 16 * R, FEW, h.window);
        const u16* const k = keys + buffer * 2 * FEW * WIDTH;
        float weights[R][FEW / 8][4], slopes[R][FEW / 8][4];
        clear(weights);
        multiply<R, FEW>(q, own, k, weights);
        clear(slopes);
        multiply<R, FEW>(dy, own, k + FEW * WIDTH, slopes);
#pragma unroll
        for (u32 m = 0; m < R; m++) weigh<false>(weights[m], h, ahead + (int)(16 * m), all);
#pragma unroll
        for (u32 m = 0; m < R; m++)
#pragma unroll
            for (u32 n = 0; n < FEW / 8; n++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const float weight = fast_exp2(weights[m][n][i] - log_sums[m][i / 2]);
                    slopes[m][n][i] = weight * (slopes[m][n][i] - deltas[m][i / 2]) * a.scale;
                }
        add_weighted<R, FEW>(slopes, k, sums);
    }
    const float ones[R][2] = {{1.0f, 1.0f}, {1.0f, 1.0f}};
    stored* grad = a.grad_a + ((u64)row * a.length + first) * a.a_stride + head * (u64)a.head_dim;
    store_rows<R>(sums, ones, own, grad, a.a_stride, count, a.head_dim, a.a_accumulate);
}

// grad_a = dk and grad_b = dv of a tile of keys, as far as they come from one query head. Rows of products are
// keys here, and columns queries.
KERNEL(256, attention_mma_grad_kv, AttentionPacked) {
    SHARED(shared);
    constexpr u32 THREADS = 256, OWN = 128;
    const AttentionTiles& a = p.tiles;
    u16 *k = (u16*)shared, *v = k + OWN * WIDTH, *queries = v + OWN * WIDTH;  // queries: [2, q and dy, 32, WIDTH]
    float* const facts = (float*)(queries + 4 * FEW * WIDTH);                  // [2, log sums and deltas, 32]
    const u32 t = threadIdx.x % 4, own = threadIdx.x / WARP * 16;
    const u32 head = blockIdx.x % a.heads, row = blockIdx.x / a.heads % a.rows, kv_heads = a.heads / a.group;
    const u32 key = blockIdx.x / a.heads / a.rows * OWN, count = min(OWN, a.length - key);
    const HeadScale h = scale_of(a, head);
    // The last key's last query is window - 1 positions after it.
    const u32 end = (u32)min((u64)a.length, (u64)key + count - 1 + window_of(a, head));
    const u64 head_size = (u64)a.length * WIDTH, of_head = (u64)row * a.heads + head;
    const u16* const rows = p.packed + row * (a.heads + 2 * kv_heads) * head_size;
    const u16* const packed_k = rows + (a.heads + head / a.group) * head_size + (u64)key * WIDTH;
    const auto fetch_queries = [&](u32 query, u32 buffer) {
        u16* const to = queries + buffer * 2 * FEW * WIDTH;
        const u32 there = min((u32)FEW, end - query);
        fetch<FEW, THREADS>(to, rows + head * head_size + (u64)query * WIDTH, there);
        fetch<FEW, THREADS>(to + FEW * WIDTH, p.packed_dy + of_head * head_size + (u64)query * WIDTH, there);
        copy_async_commit();
        if (threadIdx.x < FEW) {
            float* const place = facts + buffer * 2 * FEW + threadIdx.x;
            const u64 at = of_head * a.length + query + threadIdx.x;
            // A query that is not there weighs nothing.
            place[0] = threadIdx.x < there ? LOG2_E * a.log_sums[at] : INFINITE;
            place[FEW] = threadIdx.x < there ? a.delta[at] : 0.0f;
        }
    };
    fetch<OWN, THREADS>(k, packed_k, count);
    fetch<OWN, THREADS>(v, packed_k + kv_heads * head_size, count);
    fetch_queries(key, 0);
    float sums_k[1][PIECES][4], sums_v[1][PIECES][4];
    clear(sums_k);
    clear(sums_v);
    u32 buffer = 0;
    for (u32 query = key; query < end; query += FEW, buffer ^= 1) {
        // This tile is there, and everyone has read the last one.
        copy_async_wait<0>();
        __syncthreads();
        if (query + FEW < end) fetch_queries(query + FEW, buffer ^ 1);
        const int ahead = (int)query - (int)(key + own);
        if (!any_seen(ahead, FEW, 16, h.window)) continue;
        const bool all = all_seen(ahead, FEW, 16, h.window);
        const u16 *q = queries + buffer * 2 * FEW * WIDTH, *dy = q + FEW * WIDTH;
        const float *log_sums = facts + buffer * 2 * FEW, *deltas = log_sums + FEW;
        float weights[1][FEW / 8][4], slopes[1][FEW / 8][4];
        clear(weights);
        multiply<1, FEW>(k, own, q, weights);
        clear(slopes);
        multiply<1, FEW>(v, own, dy, slopes);
        weigh<true>(weights[0], h, ahead, all);
#pragma unroll
        for (u32 n = 0; n < FEW / 8; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 col = 8 * n + 2 * t + i % 2;
                const float weight = fast_exp2(weights[0][n][i] - log_sums[col]);
                weights[0][n][i] = weight;
                slopes[0][n][i] = weight * (slopes[0][n][i] - deltas[col]) * a.scale;
            }
        add_weighted<1, FEW>(weights, dy, sums_v);
        add_weighted<1, FEW>(slopes, q, sums_k);
    }
    const float ones[1][2] = {{1.0f, 1.0f}};
    const u64 place = (u64)row * a.length + key, start = head * (u64)a.head_dim;
    store_rows<1>(sums_k, ones, own, a.grad_a + place * a.a_stride + start, a.a_stride, count, a.head_dim, a.a_accumulate);
    store_rows<1>(sums_v, ones, own, a.grad_b + place * a.b_stride + start, a.b_stride, count, a.head_dim, a.b_accumulate);
}
