// The gradients of path.cu, which stands in front of this file. With s_ij a logit, p_ij = exp(s_ij - L_i) and
// ds_ij = scale p_ij (dy_i . v_j - delta_i).

// A query head's block against a block of keys: products in `logits`, an area, become probabilities, and `slopes`, an
// area, ds. seen(i, j).
template <class Seen>
__device__ __forceinline__ void differentiate(const PathParams& p, const At& query, const At& key, u32 head, float* shared, float* logits, float* slopes, Seen seen) {
    const Given<stored> dy = query_rows(p, query, head, p.dy, p.dy_stride), v = rows_of(p, key, p.v, p.v_stride);
    const u64 place = head_place(p, query, head);
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return dy.at(i, c); }, [&](u32 j, u32 c) { return v.at(j, c); },
        [&](u32 i, u32 j, float value) {
            float* logit = &logits[i * STRIDE + j];
            const bool is_seen = i < query.count && j < key.count && seen(i, j);
            if (is_seen) *logit = expf(p.scale * *logit + bias_between(p, head, bias_of(p, head, key.token + j), query.token + i) - p.log_sums[place + i]);
            else *logit = 0.0f;
            slopes[i * STRIDE + j] = is_seen ? *logit * (value - p.delta[place + i]) * p.scale : 0.0f;
        });
}

// What queries of a block say of a block of keys: adds to the gradients of v and of the keys' biases.
__device__ __forceinline__ void add_values(const PathParams& p, const At& query, const At& key, u32 head, float* shared, const float* weights, const float* slopes) {
    const Given<stored> dy = query_rows(p, query, head, p.dy, p.dy_stride);
    product<ALONG_ROWS, ALONG_ROWS>(
        BLOCK, p.width, shared, [&](u32 j, u32 i) { return weights[i * STRIDE + j]; }, [&](u32 c, u32 i) { return dy.at(i, c); },
        [&](u32 j, u32 c, float value) {
            if (j < key.count) p.sum_v[(key.place + j) * p.width + c] += value;
        });
    if (p.bias && threadIdx.x < key.count) {
        float sum = 0.0f;
        for (u32 i = 0; i < BLOCK; i++) sum += slopes[i * STRIDE + threadIdx.x];
        p.sum_bias[head_place(p, key, head) + threadIdx.x] += sum / p.scale;
    }
}

// to += sign left^T x over 64 rows of an area and of x.
template <class T>
__device__ __forceinline__ void add_turned(const PathParams& p, const At& at, const float* area, const Given<T>& x, float sign, float* shared, float* to) {
    product<ALONG_ROWS, ALONG_ROWS>(
        BLOCK, p.width, shared, [&](u32 j, u32 i) { return area[i * STRIDE + j]; }, [&](u32 c, u32 i) { return x.at(i, c); },
        [&](u32 j, u32 c, float value) {
            if (j < at.count) to[(at.place + j) * p.width + c] += sign * value;
        });
}

// Where a block of queries, of those that are looked at together, has its values of each block before it.
__device__ __forceinline__ u64 chain_of(const PathParams& p, u32 row, u32 head, u32 query, u32 block) {
    return ((((u64)row * p.heads + head) * BATCH + (query - p.first)) * p.blocks + block) * BLOCK * p.width;
}

// Queries of a block as they look at each block before, and the gradients of that from the first on. Grid: heads, rows and
// the blocks that are looked at together. Shared: slabs, two matrices.
KERNEL(128, path_walk, PathParams) {
    SHARED(shared);
    float *logits = shared + SLABS, *slopes = logits + AREA;
    const u32 head = blockIdx.x % p.heads, row = blockIdx.x / p.heads % p.rows, block = p.first + blockIdx.x / p.heads / p.rows;
    const u32 kv = head / (p.heads / p.kv_heads);
    if (block >= p.blocks || block == 0) return;
    const At at = at_block(p, row, kv, block);
    const auto link = [&](const float* chain, u32 other) { return Given<float>{chain + chain_of(p, row, head, block, other), p.width, at.count, p.width}; };
    pass_block(
        p, query_rows(p, at, head, p.q, p.q_stride), rows_of(p, at, p.w, p.w_stride), kept_rows(p, at, p.pulled), true, logits, shared,
        p.chain + chain_of(p, row, head, block, block - 1));
    for (u32 other = block - 1; other > 0; other--) {
        const At key = at_block(p, row, kv, other);
        pass_block(p, link(p.chain, other), rows_of(p, key, p.w, p.w_stride), kept_rows(p, key, p.pulled), false, logits, shared, p.chain + chain_of(p, row, head, block, other - 1));
    }
    for (u32 other = 0; other < block; other++) {
        const At key = at_block(p, row, kv, other);
        const Given<float> k = kept_rows(p, key, p.turned);
        const Given<stored> w = rows_of(p, key, p.w, p.w_stride);
        const Given<float> f = kept_rows(p, key, p.pulled);
        ask(p, link(p.chain, other), k, shared, logits);
        differentiate(p, at, key, head, shared, logits, slopes, [](u32, u32) { return true; });
        float* to = p.backs + chain_of(p, row, head, block, other);
        product(
            BLOCK, p.width, shared, [&](u32 i, u32 j) { return slopes[i * STRIDE + j]; }, [&](u32 c, u32 j) { return k.at(j, c); },
            [&](u32 i, u32 c, float value) {
                if (i < at.count) to[(u64)i * p.width + c] = value;
            });
        if (other == 0) continue;
        // What was carried on from here: x - (x W^T) F.
        const Given<float> back = link(p.backs, other - 1);
        ask(p, back, f, shared, logits);
        product(
            BLOCK, p.width, shared, [&](u32 i, u32 j) { return logits[i * STRIDE + j]; }, [&](u32 c, u32 j) { return w.at(j, c); },
            [&](u32 i, u32 c, float value) {
                if (i < at.count) to[(u64)i * p.width + c] += back.at(i, c) - value;
            });
    }
    for (u32 index = threadIdx.x; index < at.count * p.width; index += 128)
        p.back[head_place(p, at, head) * p.width + index] = p.backs[chain_of(p, row, head, block, block - 1) + index];
}

// What those queries say of a block: adds to the gradients of its turned keys, values, F and W. Grid: blocks, key heads and
// rows. Shared: slabs, two matrices.
KERNEL(128, path_keys, PathParams) {
    SHARED(shared);
    float *logits = shared + SLABS, *slopes = logits + AREA;
    const u32 block = blockIdx.x % p.blocks, kv = blockIdx.x / p.blocks % p.kv_heads, row = blockIdx.x / p.blocks / p.kv_heads;
    const At key = at_block(p, row, kv, block);
    const Given<stored> w = rows_of(p, key, p.w, p.w_stride);
    const Given<float> f = kept_rows(p, key, p.pulled);
    const u32 group = p.heads / p.kv_heads, begin = max(p.first, block + 1), end = min(p.first + BATCH, p.blocks);
    for (u32 query = begin; query < end; query++) {
        const At at = at_block(p, row, kv, query);
        for (u32 head = kv * group; head < (kv + 1) * group; head++) {
            const Given<float> q = {p.chain + chain_of(p, row, head, query, block), p.width, at.count, p.width};
            ask(p, q, kept_rows(p, key, p.turned), shared, logits);
            differentiate(p, at, key, head, shared, logits, slopes, [](u32, u32) { return true; });
            add_values(p, at, key, head, shared, logits, slopes);
            add_turned(p, key, slopes, q, 1.0f, shared, p.sum_turned);
            if (block == 0) continue;
            const Given<float> back = {p.backs + chain_of(p, row, head, query, block - 1), p.width, at.count, p.width};
            ask(p, q, w, shared, logits);
            ask(p, back, f, shared, slopes);
            add_turned(p, key, logits, back, -1.0f, shared, p.sum_pulled);
            add_turned(p, key, slopes, q, -1.0f, shared, p.sum_w);
        }
    }
}

// Of a block's own queries: their gradients, and what they say of its keys, values, E, F and W. `areas` are three.
__device__ __forceinline__ void finish_head(const PathParams& p, const At& at, u32 head, float* shared, float* areas) {
    float *along = areas, *slopes = along + AREA, *weights = slopes + AREA;
    const Given<stored> q = query_rows(p, at, head, p.q, p.q_stride), k = rows_of(p, at, p.k, p.k_stride), w = rows_of(p, at, p.w, p.w_stride);
    const Given<float> f = kept_rows(p, at, p.pulled), back = {p.back + head_place(p, at, head) * p.width, p.width, at.block > 0 ? at.count : 0, p.width};
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return q.at(i, c); }, [&](u32 j, u32 c) { return w.at(j, c); },
        [&](u32 i, u32 j, float value) { along[i * STRIDE + j] = j > i ? 0.0f : value; });
    ask(p, q, k, shared, weights);
    less_mixed(p, at, along, shared, weights);
    differentiate(p, at, at, head, shared, weights, slopes, [](u32 i, u32 j) { return j <= i; });
    add_values(p, at, at, head, shared, weights, slopes);
    add_turned(p, at, slopes, q, 1.0f, shared, p.sum_k);
    add_turned(p, at, along, back, -1.0f, shared, p.sum_pulled);
    float* sum_mixed = p.sum_mixed + at.index * SQUARE;
    product<ALONG_ROWS, ALONG_ROWS>(
        BLOCK, BLOCK, shared, [&](u32 r, u32 i) { return along[i * STRIDE + r]; }, [&](u32 j, u32 i) { return slopes[i * STRIDE + j]; },
        [&](u32 r, u32 j, float value) { sum_mixed[r * BLOCK + j] -= value; });
    // The gradient of `along`, in the place of the weights.
    const float* mixed = p.mixed + at.index * SQUARE;
    product<ALONG_INNER, ALONG_INNER>(
        BLOCK, BLOCK, shared, [&](u32 i, u32 j) { return slopes[i * STRIDE + j]; }, [&](u32 r, u32 j) { return mixed[r * BLOCK + j]; },
        [&](u32 i, u32 r, float value) { weights[i * STRIDE + r] = r > i ? 0.0f : -value; });
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return back.at(i, c); }, [&](u32 r, u32 c) { return f.at(r, c); },
        [&](u32 i, u32 r, float value) {
            if (r <= i) weights[i * STRIDE + r] -= value;
        });
    add_turned(p, at, weights, q, 1.0f, shared, p.sum_w);
    stored* grad = p.grad_q + at.token * p.grad_q_stride + (u64)head * p.width;
    product(
        BLOCK, p.width, shared, [&](u32 i, u32 j) { return slopes[i * STRIDE + j]; }, [&](u32 c, u32 j) { return k.at(j, c); },
        [&](u32 i, u32 c, float value) {
            stored* to = &grad[i * p.grad_q_stride + c];
            if (i < at.count) *to = (p.q_accumulate ? *to : 0.0f) + value + back.at(i, c);
        });
    product(
        BLOCK, p.width, shared, [&](u32 i, u32 r) { return weights[i * STRIDE + r]; }, [&](u32 c, u32 r) { return w.at(r, c); },
        [&](u32 i, u32 c, float value) {
            if (i < at.count) grad[i * p.grad_q_stride + c] += value;
        });
}

// From the gradients of turned keys, E and F to those of W, K and beta, these in shared memory. `areas` are three.
__device__ __forceinline__ void finish_block(const PathParams& p, const At& at, float* shared, float* areas, const float* beta, float* grad_beta) {
    float *x = areas, *y = x + AREA, *z = y + AREA;
    const Given<stored> k = rows_of(p, at, p.k, p.k_stride), w = rows_of(p, at, p.w, p.w_stride);
    const Given<float> turned = kept_rows(p, at, p.sum_turned), pulled = kept_rows(p, at, p.sum_pulled);
    const float *mixed = p.mixed + at.index * SQUARE, *n = p.solved + at.index * SQUARE, *sum_mixed = p.sum_mixed + at.index * SQUARE;
    float *sum_w = p.sum_w + at.place * p.width, *sum_k = p.sum_k + at.place * p.width;
    const auto m = [&](u32 c, u32 i) { return n[i * BLOCK + c] * beta[c]; };  // M^T
    const auto of_w = [&](u32 c, u32 i) { return w.at(i, c); };
    const auto add_w = [&](u32 i, u32 c, float value) {
        if (i < at.count) sum_w[(u64)i * p.width + c] += value;
    };
    // K - E^T W: x is the gradient of E.
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return w.at(i, c); }, [&](u32 j, u32 c) { return turned.at(j, c); },
        [&](u32 i, u32 j, float value) { x[i * STRIDE + j] = sum_mixed[i * BLOCK + j] - value; });
    product(BLOCK, p.width, shared, [&](u32 i, u32 j) { return -mixed[i * BLOCK + j]; }, [&](u32 c, u32 j) { return turned.at(j, c); }, add_w);
    // E = M B with B = lower(W K^T), and F = M W: z is the gradient of M, then y that of B.
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return w.at(i, c); }, [&](u32 j, u32 c) { return k.at(j, c); },
        [&](u32 i, u32 j, float value) { y[i * STRIDE + j] = j < i ? value : 0.0f; });
    product<ALONG_INNER, ALONG_INNER>(
        BLOCK, BLOCK, shared, [&](u32 i, u32 j) { return x[i * STRIDE + j]; }, [&](u32 c, u32 j) { return y[c * STRIDE + j]; },
        [&](u32 i, u32 c, float value) { z[i * STRIDE + c] = c <= i ? value : 0.0f; });
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return pulled.at(i, c); }, [&](u32 r, u32 c) { return w.at(r, c); },
        [&](u32 i, u32 r, float value) {
            if (r <= i) z[i * STRIDE + r] += value;
        });
    product<ALONG_ROWS, ALONG_ROWS>(BLOCK, BLOCK, shared, m, [&](u32 j, u32 i) { return x[i * STRIDE + j]; }, [&](u32 c, u32 j, float value) { y[c * STRIDE + j] = j < c ? value : 0.0f; });
    product<ALONG_ROWS, ALONG_ROWS>(BLOCK, p.width, shared, m, [&](u32 c, u32 i) { return pulled.at(i, c); }, add_w);
    product(BLOCK, p.width, shared, [&](u32 i, u32 j) { return y[i * STRIDE + j]; }, [&](u32 c, u32 j) { return k.at(j, c); }, add_w);
    product<ALONG_ROWS, ALONG_ROWS>(BLOCK, p.width, shared, [&](u32 j, u32 i) { return y[i * STRIDE + j]; }, of_w, [&](u32 j, u32 c, float value) {
        if (j < at.count) sum_k[(u64)j * p.width + c] += value + turned.at(j, c);
    });
    // M = N beta, and N = (1 + A)^-1 with A = lower(beta W W^T): y becomes the gradient of A, x W W^T.
    if (threadIdx.x < BLOCK) {
        float sum = 0.0f;
        for (u32 i = threadIdx.x; i < BLOCK; i++) sum += z[i * STRIDE + threadIdx.x] * n[i * BLOCK + threadIdx.x];
        grad_beta[threadIdx.x] = sum;
    }
    product<ALONG_INNER, ALONG_INNER>(
        BLOCK, BLOCK, shared, [&](u32 i, u32 c) { return z[i * STRIDE + c] * beta[c]; }, [&](u32 j, u32 c) { return n[j * BLOCK + c]; },
        [&](u32 i, u32 j, float value) { x[i * STRIDE + j] = value; });
    product<ALONG_ROWS, ALONG_ROWS>(
        BLOCK, BLOCK, shared, [&](u32 r, u32 i) { return n[i * BLOCK + r]; }, [&](u32 j, u32 i) { return x[i * STRIDE + j]; },
        [&](u32 r, u32 j, float value) { y[r * STRIDE + j] = j < r ? -value : 0.0f; });
    product<ALONG_INNER, ALONG_INNER>(
        p.width, BLOCK, shared, [&](u32 i, u32 c) { return w.at(i, c); }, [&](u32 j, u32 c) { return w.at(j, c); },
        [&](u32 i, u32 j, float value) { x[i * STRIDE + j] = value; });
    if (threadIdx.x < BLOCK) {
        float sum = 0.0f;
        for (u32 j = 0; j < threadIdx.x; j++) sum += y[threadIdx.x * STRIDE + j] * x[threadIdx.x * STRIDE + j];
        grad_beta[threadIdx.x] += sum;
    }
    product(BLOCK, p.width, shared, [&](u32 i, u32 j) { return beta[i] * y[i * STRIDE + j] + beta[j] * y[j * STRIDE + i]; }, of_w, add_w);
}

// The gradients of a block's inputs. Grid: blocks, key heads and rows. Shared: slabs, three matrices, beta and its gradient
// [64 each].
KERNEL(128, path_finish, PathParams) {
    SHARED(shared);
    float *areas = shared + SLABS, *beta = areas + 3 * AREA, *grad_beta = beta + BLOCK;
    const At at = at_block(p, blockIdx.x / p.blocks / p.kv_heads, blockIdx.x / p.blocks % p.kv_heads, blockIdx.x % p.blocks);
    const u32 group = p.heads / p.kv_heads;
    if (threadIdx.x < BLOCK) beta[threadIdx.x] = threadIdx.x < at.count ? p.beta[(at.token + threadIdx.x) * p.beta_stride + at.kv] : 0.0f;
#pragma unroll 1
    for (u32 head = at.kv * group; head < (at.kv + 1) * group; head++) finish_head(p, at, head, shared, areas);
    finish_block(p, at, shared, areas, beta, grad_beta);
    for (u32 index = threadIdx.x; index < at.count * p.width; index += 128) {
        const u64 token = at.token + index / p.width, col = (u64)at.kv * p.width + index % p.width, from = at.place * p.width + index;
        leave(&p.grad_k[token * p.grad_k_stride + col], p.sum_k[from], p.k_accumulate);
        leave(&p.grad_v[token * p.grad_v_stride + col], p.sum_v[from], p.v_accumulate);
        leave(&p.grad_w[token * p.grad_w_stride + col], p.sum_w[from], p.w_accumulate);
    }
    if (threadIdx.x >= at.count) return;
    leave(&p.grad_beta[(at.token + threadIdx.x) * p.grad_beta_stride + at.kv], grad_beta[threadIdx.x], p.beta_accumulate);
    for (u32 head = at.kv * group; head < (at.kv + 1) * group && p.bias; head++) {
        stored* grad = p.grad_bias + (at.token + threadIdx.x) * p.grad_bias_stride + head;
        const float sum = p.sum_bias[head_place(p, at, head) + threadIdx.x];
        leave(grad, sum, p.bias_accumulate);
        leave(grad + p.heads, sum, p.bias_accumulate);
    }
}
