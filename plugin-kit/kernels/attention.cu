// Causal softmax attention without a [T, T] matrix: FlashAttention-2 (arXiv 2307.08691), algorithm 1 for the
// result and algorithm 2 for the gradients, with grouped heads, windows, linear position biases and biases of keys.
//
//   s_ij = scale q_i.k_j - slope (i - j) + b_j - b_i (which changes no p_ij, and keeps the biases' size out of it),
//   p_ij = exp(s_ij - L_i),  y_i = sum_j p_ij v_j,  L_i = ln sum_j exp(s_ij)
//   ds_ij = scale p_ij (dy_i.v_j - delta_i) with delta_i = dy_i.y_i
//   dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij dy_i,  db_j = sum_i ds_ij / scale
//
// A block of 256 threads, 16 x 16, takes a tile of 64 queries (16 in a feed of few tokens) of one head, or a
// tile of 64 keys for one query head, and goes over the tiles of the other kind that it can see; no other
// tile is read. Operands pass through shared memory 32 columns at a time, so a head may be of any width up to
// 256 and tiles stay square for all of them; what a block sums up stays in registers. That fixes the number
// of 32-column chunks when it is compiled: the host puts a definition of WIDTH, 32, 64, 128 or 256, in front
// of this text and attention_tiles.cuh, and takes the narrowest that a head fits. KEY_BIAS is 1 where keys
// have biases, so that the others pay nothing for them. Those come in two parts, each taken from its like before
// they are added up: sums over very many tokens keep their small differences.
// Everything is in grid x. Shared memory: two chunks and one tile of weights, 8960 values.
//
// Keys and values come from rows (training) or from a ring of `capacity` tokens (a feed): the token at
// position p is at place p modulo the capacity. In training the capacity is T.
//
// A feed of few tokens after many has few tiles of queries. Its keys are cut into `parts`, each with a result
// of its own, and attention_parts (attention_rows.cu) adds those up by their sums of exponentials.

#ifndef WIDTH
#define WIDTH 64
#endif
#ifndef KEY_BIAS
#define KEY_BIAS 0
#endif
#define CHUNKS (WIDTH / 32)
#define SIDE 16
#define KEYS 64
#define CHUNK 32
#define THREADS 256
// Rows of shared memory are four values longer than they need to be: 16 bytes of neighbouring rows then
// lie in different banks.
#define CHUNK_STRIDE 36
#define WEIGHT_STRIDE 68

// Two neighbouring values, read from shared memory at once.
struct alignas(8) Pair {
    float x, y;
};

// Biases of a head's keys, `stride` values apart, the second parts `second` values after the first.
struct KeyBias {
    const stored* data;
    u64 stride;
    u32 second;

    __device__ __forceinline__ Pair at(u64 place, bool wanted) const {
        if (!KEY_BIAS || !wanted) return {0.0f, 0.0f};
        return {data[place * stride], data[place * stride + second]};
    }

    // The key's at a place less a query's own.
    __device__ __forceinline__ float between(u64 place, bool wanted, Pair own) const {
        if (!KEY_BIAS || !wanted) return 0.0f;
        const Pair key = at(place, true);
        return (key.x - own.x) + (key.y - own.y);
    }
};

// Rows of one head: row r is at place `place + r`, around the end of a ring.
struct HeadRows {
    const stored* data;
    u64 stride, place, capacity;
    u32 count;  // rows after these count as zeros
};

__device__ __forceinline__ HeadRows plain_rows(const stored* data, u64 stride, u32 count) {
    return {data, stride, 0, ~0ull, count};
}

// Columns 32 chunk .. of ROWS rows, zeros outside: what shared memory held before must not reach a product. By fours where
// load4 may read these.
template <u32 ROWS>
__device__ __forceinline__ void load_chunk(float* to, const HeadRows& from, u32 chunk, u32 head_dim) {
    const auto at = [&](u32 row, u32 col) {
        u64 place = from.place + row;
        if (place >= from.capacity) place -= from.capacity;
        return from.data + place * from.stride + col;
    };
    if (((u64)from.data / sizeof(stored) | from.stride | head_dim) % 4 == 0) {
        const u32 own = threadIdx.x % 8 * 4, col = chunk * CHUNK + own;
        Float4 fours[(ROWS + 31) / 32];
#pragma unroll
        for (u32 n = 0; n < (ROWS + 31) / 32; n++) {
            const u32 row = threadIdx.x / 8 + 32 * n;
            fours[n] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (row < from.count && col < head_dim) fours[n] = load4(at(row, col));
        }
#pragma unroll
        for (u32 n = 0; n < (ROWS + 31) / 32; n++) {
            const u32 row = threadIdx.x / 8 + 32 * n;
            if (row < ROWS) *(Float4*)(to + row * CHUNK_STRIDE + own) = fours[n];
        }
        return;
    }
    const u32 lane = threadIdx.x % WARP, col = chunk * CHUNK + lane;
#pragma unroll 1
    for (u32 row = threadIdx.x / WARP; row < ROWS; row += THREADS / WARP)
        to[row * CHUNK_STRIDE + lane] = row < from.count && col < head_dim ? *at(row, col) : 0.0f;
}

__device__ __forceinline__ Pair pair_at(const float* place) { return *(const Pair*)place; }

// products[i][j] = a_row . b_row for rows R ty + i of a and tx + 16 j of b. Like the two functions after it, it
// puts a barrier before it writes a chunk and none after it has read the last one.
template <u32 R>
__device__ __forceinline__ void multiply(const HeadRows& a, const HeadRows& b, u32 head_dim, float* a_chunk, float* b_chunk,
                                         float (&products)[R][4]) {
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    for (u32 i = 0; i < R; i++)
        for (u32 j = 0; j < 4; j++) products[i][j] = 0.0f;
    for (u32 chunk = 0; chunk * CHUNK < head_dim; chunk++) {
        __syncthreads();
        load_chunk<SIDE * R>(a_chunk, a, chunk, head_dim);
        load_chunk<KEYS>(b_chunk, b, chunk, head_dim);
        __syncthreads();
#pragma unroll 2
        for (u32 n = 0; n < CHUNK; n += 4) {
            Float4 left[R], right[4];
#pragma unroll
            for (u32 i = 0; i < R; i++) left[i] = load4(&a_chunk[(R * ty + i) * CHUNK_STRIDE + n]);
#pragma unroll
            for (u32 j = 0; j < 4; j++) right[j] = load4(&b_chunk[(tx + SIDE * j) * CHUNK_STRIDE + n]);
#pragma unroll
            for (u32 i = 0; i < R; i++)
#pragma unroll
                for (u32 j = 0; j < 4; j++)
                    products[i][j] = fmaf(left[i].w, right[j].w, fmaf(left[i].z, right[j].z, fmaf(left[i].y, right[j].y, fmaf(left[i].x, right[j].x, products[i][j]))));
        }
    }
}

// sums[i] += sum over k of weights[R ty + i][k] b[k], columns 32 chunk + 2 tx and the next of each chunk.
template <u32 R>
__device__ __forceinline__ void add_weighted(const float* weights, const HeadRows& b, u32 head_dim, float* b_chunk,
                                             float (&sums)[R][2 * CHUNKS]) {
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (u32 chunk = 0; chunk < CHUNKS; chunk++) {
        if (chunk * CHUNK >= head_dim) continue;
        __syncthreads();
        load_chunk<KEYS>(b_chunk, b, chunk, head_dim);
        __syncthreads();
#pragma unroll 2
        for (u32 k = 0; k < KEYS; k += 4) {
            Pair values[4];
#pragma unroll
            for (u32 n = 0; n < 4; n++) values[n] = pair_at(&b_chunk[(k + n) * CHUNK_STRIDE + 2 * tx]);
#pragma unroll
            for (u32 i = 0; i < R; i++) {
                const Float4 w = load4(&weights[(R * ty + i) * WEIGHT_STRIDE + k]);
                const float weight[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
                for (u32 n = 0; n < 4; n++) {
                    sums[i][2 * chunk] = fmaf(weight[n], values[n].x, sums[i][2 * chunk]);
                    sums[i][2 * chunk + 1] = fmaf(weight[n], values[n].y, sums[i][2 * chunk + 1]);
                }
            }
        }
    }
}

// sums[i] += sum over q of weights[q][4 ty + i] b[q]: the same with the weights turned.
__device__ __forceinline__ void add_turned(const float* weights, const HeadRows& b, u32 head_dim, float* b_chunk,
                                           float (&sums)[4][2 * CHUNKS]) {
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (u32 chunk = 0; chunk < CHUNKS; chunk++) {
        if (chunk * CHUNK >= head_dim) continue;
        __syncthreads();
        load_chunk<KEYS>(b_chunk, b, chunk, head_dim);
        __syncthreads();
#pragma unroll 4
        for (u32 q = 0; q < KEYS; q++) {
            const Pair value = pair_at(&b_chunk[q * CHUNK_STRIDE + 2 * tx]);
            const Float4 w = load4(&weights[q * WEIGHT_STRIDE + 4 * ty]);
            sums[0][2 * chunk] += w.x * value.x;
            sums[0][2 * chunk + 1] += w.x * value.y;
            sums[1][2 * chunk] += w.y * value.x;
            sums[1][2 * chunk + 1] += w.y * value.y;
            sums[2][2 * chunk] += w.z * value.x;
            sums[2][2 * chunk + 1] += w.z * value.y;
            sums[3][2 * chunk] += w.w * value.x;
            sums[3][2 * chunk + 1] += w.w * value.y;
        }
    }
}

// Row R ty + i of the first `count` rows becomes `factors[i] values[i]`, or grows by it.
template <u32 R>
__device__ __forceinline__ void store_rows(const float (&values)[R][2 * CHUNKS], const float (&factors)[R], stored* to, u64 stride,
                                           u32 count, u32 head_dim, u32 accumulate) {
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (u32 i = 0; i < R; i++) {
        const u32 row = R * ty + i;
        if (row >= count) continue;
#pragma unroll
        for (u32 n = 0; n < 2 * CHUNKS; n++) {
            const u32 col = n / 2 * CHUNK + 2 * tx + n % 2;
            if (col >= head_dim) continue;
            leave(&to[row * stride + col], factors[i] * values[i][n], accumulate);
        }
    }
}

// The sum and the largest value of the 16 threads that share a query's row.
__device__ __forceinline__ float side_sum(float value) {
    for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(ALL_LANES, value, lanes);
    return value;
}

__device__ __forceinline__ float side_max(float value) {
    for (int lanes = SIDE / 2; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, lanes));
    return value;
}

template <u32 R>
__device__ __forceinline__ void forward_tile(const AttentionTiles& p, float* shared) {
    float *a_chunk = shared, *b_chunk = shared + SIDE * R * CHUNK_STRIDE;  // [16 R, 36], [64, 36]
    float* weights = b_chunk + KEYS * CHUNK_STRIDE;                        // [16 R, 68]
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE, queries = SIDE * R;
    // The last tiles see the most keys and go first.
    const u32 head = blockIdx.x % p.heads, row = blockIdx.x / p.heads % p.rows, rest = blockIdx.x / p.heads / p.rows;
    const u32 part = rest % p.parts, tile = (p.length + queries - 1) / queries - 1 - rest / p.parts;
    const u32 first = tile * queries, count = min(queries, p.length - first), window = window_of(p, head);
    const u64 at = (p.control ? p.control->position : 0) + first, start = first_seen(at, window);
    const u64 tiles = (at + count - start + KEYS - 1) / KEYS, share = (tiles + p.parts - 1) / p.parts * KEYS;
    const u64 end = min(at + count, start + (part + 1) * share);
    const float slope = slope_of(p, head);
    const u64 first_row = (u64)row * p.length + first, kv_start = head / p.group * (u64)p.head_dim;
    const HeadRows q = plain_rows(p.q + first_row * p.q_stride + head * (u64)p.head_dim, p.q_stride, count);
    HeadRows k = {p.k + row * p.capacity * p.k_stride + kv_start, p.k_stride, 0, p.capacity, 0};
    HeadRows v = {p.v + row * p.capacity * p.v_stride + kv_start, p.v_stride, 0, p.capacity, 0};
    const KeyBias bias = {KEY_BIAS ? p.key_bias + row * p.capacity * p.key_bias_stride + head : nullptr, p.key_bias_stride, p.heads};
    float sums[R][2 * CHUNKS], tops[R], totals[R];
#pragma unroll
    for (u32 i = 0; i < R; i++) {
        tops[i] = MINUS_INFINITY;
        totals[i] = 0.0f;
#pragma unroll
        for (u32 n = 0; n < 2 * CHUNKS; n++) sums[i][n] = 0.0f;
    }
    for (u64 key = start + part * share; key < end; key += KEYS) {
        k.place = v.place = key % p.capacity;
        k.count = v.count = (u32)min((u64)KEYS, end - key);
        float logits[R][4];
        multiply<R>(q, k, p.head_dim, a_chunk, b_chunk, logits);
#pragma unroll
        for (u32 i = 0; i < R; i++) {
            const u32 query = R * ty + i;
            const Pair own = bias.at((at + query) % p.capacity, query < count);
            float top = tops[i];
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 col = tx + SIDE * j;
                const int distance = (int)(at - key) + (int)query - (int)col;
                const bool seen = query < count && col < k.count && distance >= 0 && (u32)distance < window;
                const float of_key = bias.between((key + col) % p.capacity, seen, own);
                logits[i][j] = seen ? p.scale * logits[i][j] - slope * (float)distance + of_key : MINUS_INFINITY;
                top = fmaxf(top, logits[i][j]);
            }
            top = side_max(top);
            // A query that has seen no key yet has nothing to bring to the new maximum.
            const float factor = tops[i] == MINUS_INFINITY ? 0.0f : expf(tops[i] - top);
            totals[i] *= factor;
#pragma unroll
            for (u32 n = 0; n < 2 * CHUNKS; n++) sums[i][n] *= factor;
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const float weight = logits[i][j] == MINUS_INFINITY ? 0.0f : expf(logits[i][j] - top);
                weights[query * WEIGHT_STRIDE + tx + SIDE * j] = weight;
                totals[i] += weight;
            }
            tops[i] = top;
        }
        add_weighted<R>(weights, v, p.head_dim, b_chunk, sums);
    }
    const u64 slice = (u64)row * p.parts + part;
    float factors[R];
#pragma unroll
    for (u32 i = 0; i < R; i++) {
        const float total = side_sum(totals[i]);
        // A part without keys counts as zeros of weight 0.
        factors[i] = total == 0.0f ? 0.0f : 1.0f / total;
        const u32 query = R * ty + i;
        if (tx == 0 && query < count) p.log_sums[(slice * p.heads + head) * p.length + first + query] = tops[i] + logf(total);
    }
    stored* y = p.y + (slice * p.length + first) * p.y_stride + head * (u64)p.head_dim;
    store_rows<R>(sums, factors, y, p.y_stride, count, p.head_dim, 0);
}

// A tile of queries against a tile of keys in the backward pass: probabilities, and the gradient of
// the products q.k. The query of row 0 is `offset` positions after the key of column 0.
struct TilePair {
    HeadRows q, dy, k, v;
    const float *log_sums, *delta;  // [64], of the tile's queries
    KeyBias own, bias;              // [64], of the tile's queries and keys
    int offset;
    u32 window;
    float slope, scale;
};

__device__ __forceinline__ void differentiate(const TilePair& t, u32 head_dim, float* a_chunk, float* b_chunk,
                                              float (&probabilities)[4][4], float (&slopes)[4][4]) {
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    multiply<4>(t.q, t.k, head_dim, a_chunk, b_chunk, probabilities);
    multiply<4>(t.dy, t.v, head_dim, a_chunk, b_chunk, slopes);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 query = 4 * ty + i;
        const bool any = query < t.q.count;
        const float log_sum = any ? t.log_sums[query] : 0.0f, delta = any ? t.delta[query] : 0.0f;
        const Pair own = t.own.at(query, any);
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 col = tx + SIDE * j;
            const int distance = t.offset + (int)query - (int)col;
            const bool seen = any && col < t.k.count && distance >= 0 && (u32)distance < t.window;
            const float of_key = t.bias.between(col, seen, own);
            const float logit = t.scale * probabilities[i][j] - t.slope * (float)distance + of_key;
            const float probability = seen ? expf(logit - log_sum) : 0.0f;
            probabilities[i][j] = probability;
            slopes[i][j] = seen ? probability * (slopes[i][j] - delta) * t.scale : 0.0f;
        }
    }
}

// Leaves a tile of weights in shared memory for the other threads; a barrier must follow.
__device__ __forceinline__ void share_weights(const float (&values)[4][4], float* weights) {
    const u32 tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 j = 0; j < 4; j++) weights[(4 * ty + i) * WEIGHT_STRIDE + tx + SIDE * j] = values[i][j];
}

// What both backward kernels read of a head; the tiles' own rows are still to be set.
__device__ __forceinline__ TilePair pair_of(const AttentionTiles& p, u32 row, u32 head, u32 query, u32 key) {
    TilePair t;
    const u64 first = (u64)row * p.length, start = head * (u64)p.head_dim, kv_start = head / p.group * (u64)p.head_dim;
    const u64 sums = ((u64)row * p.heads + head) * p.length + query;
    const u32 queries = min((u32)KEYS, p.length - query), keys = min((u32)KEYS, p.length - key);
    t.q = plain_rows(p.q + (first + query) * p.q_stride + start, p.q_stride, queries);
    t.dy = plain_rows(p.dy + (first + query) * p.dy_stride + start, p.dy_stride, queries);
    t.k = plain_rows(p.k + (first + key) * p.k_stride + kv_start, p.k_stride, keys);
    t.v = plain_rows(p.v + (first + key) * p.v_stride + kv_start, p.v_stride, keys);
    t.log_sums = p.log_sums + sums;
    t.delta = p.delta + sums;
    t.own = {KEY_BIAS ? p.key_bias + (first + query) * p.key_bias_stride + head : nullptr, p.key_bias_stride, p.heads};
    t.bias = {KEY_BIAS ? p.key_bias + (first + key) * p.key_bias_stride + head : nullptr, p.key_bias_stride, p.heads};
    t.offset = (int)query - (int)key;
    t.window = window_of(p, head);
    t.slope = slope_of(p, head);
    t.scale = p.scale;
    return t;
}

// grad_a = dq of a tile of queries.
KERNEL(256, attention_grad_q, AttentionTiles) {
    SHARED(shared);
    float *a_chunk = shared, *b_chunk = shared + KEYS * CHUNK_STRIDE, *weights = b_chunk + KEYS * CHUNK_STRIDE;
    const u32 head = blockIdx.x % p.heads, row = blockIdx.x / p.heads % p.rows;
    const u32 tile = (p.length + KEYS - 1) / KEYS - 1 - blockIdx.x / p.heads / p.rows;
    const u32 query = tile * KEYS, end = min(query + KEYS, p.length);
    float sums[4][2 * CHUNKS];
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 n = 0; n < 2 * CHUNKS; n++) sums[i][n] = 0.0f;
    for (u32 key = (u32)first_seen(query, window_of(p, head)); key < end; key += KEYS) {
        const TilePair t = pair_of(p, row, head, query, key);
        float probabilities[4][4], slopes[4][4];
        differentiate(t, p.head_dim, a_chunk, b_chunk, probabilities, slopes);
        share_weights(slopes, weights);
        add_weighted<4>(weights, t.k, p.head_dim, b_chunk, sums);
    }
    const float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    stored* grad = p.grad_a + ((u64)row * p.length + query) * p.a_stride + head * (u64)p.head_dim;
    store_rows<4>(sums, ones, grad, p.a_stride, end - query, p.head_dim, p.a_accumulate);
}

// grad_a = dk and grad_b = dv of a tile of keys, as far as they come from one query head.
DENSE_KERNEL(256, WIDTH <= 64 ? 2 : 1, attention_grad_kv, AttentionTiles) {
    SHARED(shared);
    float *a_chunk = shared, *b_chunk = shared + KEYS * CHUNK_STRIDE, *weights = b_chunk + KEYS * CHUNK_STRIDE;
    const u32 head = blockIdx.x % p.heads, row = blockIdx.x / p.heads % p.rows;
    const u32 key = blockIdx.x / p.heads / p.rows * KEYS, keys = min((u32)KEYS, p.length - key);
    // The last key's last query is window - 1 positions after it.
    const u64 last = (u64)key + keys - 1 + window_of(p, head);
    const u32 end = (u32)min((u64)p.length, last);
    float sums_k[4][2 * CHUNKS], sums_v[4][2 * CHUNKS], sum_bias = 0.0f;
#pragma unroll
    for (u32 i = 0; i < 4; i++)
#pragma unroll
        for (u32 n = 0; n < 2 * CHUNKS; n++) sums_k[i][n] = sums_v[i][n] = 0.0f;
    for (u32 query = key; query < end; query += KEYS) {
        const TilePair t = pair_of(p, row, head, query, key);
        float probabilities[4][4], slopes[4][4];
        differentiate(t, p.head_dim, a_chunk, b_chunk, probabilities, slopes);
        share_weights(probabilities, weights);
        add_turned(weights, t.dy, p.head_dim, b_chunk, sums_v);
        // Everyone has read the probabilities before the slopes take their place.
        __syncthreads();
        share_weights(slopes, weights);
        add_turned(weights, t.q, p.head_dim, b_chunk, sums_k);
        // Behind the barriers of add_turned; the next tile's weights come behind more of them.
        if (KEY_BIAS && threadIdx.x < KEYS)
            for (u32 q = 0; q < KEYS; q++) sum_bias += weights[q * WEIGHT_STRIDE + threadIdx.x];
    }
    const float ones[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    const u64 first = (u64)row * p.length + key, start = head * (u64)p.head_dim;
    store_rows<4>(sums_k, ones, p.grad_a + first * p.a_stride + start, p.a_stride, keys, p.head_dim, p.a_accumulate);
    store_rows<4>(sums_v, ones, p.grad_b + first * p.b_stride + start, p.b_stride, keys, p.head_dim, p.b_accumulate);
    if (KEY_BIAS && threadIdx.x < keys) {
        stored* place = p.grad_bias + (first + threadIdx.x) * p.grad_bias_stride + head;
        for (u32 part = 0; part < 2; part++, place += p.heads)
            *place = sum_bias / p.scale + (p.bias_accumulate ? *place : 0.0f);
    }
}

DENSE_KERNEL(256, WIDTH <= 128 ? 2 : 1, attention_forward, AttentionTiles) {
    SHARED(shared);
    forward_tile<4>(p, shared);
}

// The same for tiles of 16 queries.
KERNEL(256, attention_few, AttentionTiles) {
    SHARED(shared);
    forward_tile<1>(p, shared);
}
