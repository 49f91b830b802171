// The matrix-valued recurrences of RWKV-6 (arXiv 2404.05892, eq. 18 and 19, without u) and RWKV-7 (arXiv
// 2503.14456, eq. 16 and 17) with a state S [V, K] a head, V = K:
//
//   RWKV-6:  o = S r, then S = S diag(w) + v k                      w = exp(-exp(decay))
//   RWKV-7:  S = S (diag(w) - kappa b) + v k, then o = S r          w = exp(-e^-1/2 sigmoid(decay))
//
// One block a head of a row, tokens in order. Four neighbouring threads share a row of S and hold it in
// registers, each the columns 16 j + 4 lane .. + 3: so a row's sums take two shuffles. There is a kernel for
// K up to 16, 32, 64 and 128 (W), with 4 K threads rounded up to whole warps; what is past K is 0.
//
// Going back by dividing by decays is not stable, so training keeps S every 64 tokens. The way back goes
// through such a chunk once more and leaves S every 4 tokens (2 where W = 128) in global scratch, from where
// those tokens' states fit the registers. A token's gradients over K are sums over the rows of S: over the
// eight rows of a warp by shuffles that halve what each lane holds, over the warps in shared memory.
//
// Shared values: forward TILE (slots + 1) W; backward SUB (slots + 1) W + warps sums W + W, at most 12160.
//
// Bytes that ptxas spills at most, over the widths and cards that are compiled for:
// spills: rwkv6_backward_128 756
// spills: rwkv7_backward_128 2320
// spills: rwkv7_backward_32 48

#define CHUNK 64
#define TILE 8
#define FASTEST 0.60653066f  // e^-1/2

// Slots of a token; the last two exist with removal only.
enum { RECEPTANCE, KEY, VALUE, DECAY, KAPPA, RATED, MOST };

struct MatrixForward {
    const float* given[MOST];  // r, k, v, decay, kappa, b: [B, T, D]
    float* o;                  // [B, T, D], contiguous
    float* state;              // [B, H, V, K], null in training
    float* kept;               // [B, H, chunks, W / 4, threads]: S before each chunk, null in a feed
    u64 strides[MOST];
    u32 length, heads, head_dim, chunks;
};

struct MatrixBackward {
    const float* given[MOST];  // as above
    const float* grad_o;       // [B, T, D], contiguous
    const float* kept;         // [B, H, chunks, W / 4, threads]
    float* scratch;            // [B, H, CHUNK / SUB, W / 4, threads]
    float* grads[MOST];        // [B, T, D]
    u64 strides[MOST], grad_strides[MOST];
    u32 accumulate[MOST];      // whether those gradients are sums
    u32 length, heads, head_dim, chunks;
};

struct alignas(16) Four {
    float x[4];
};

// This thread's columns of a row in shared memory.
template <int N>
__device__ __forceinline__ void take(const float* row, float (&x)[N]) {
#pragma unroll
    for (int j = 0; j < N / 4; j++) {
        const Four four = *reinterpret_cast<const Four*>(row + 16 * j + 4 * (threadIdx.x % 4));
#pragma unroll
        for (int i = 0; i < 4; i++) x[4 * j + i] = four.x[i];
    }
}

// The column of value i of a thread.
__device__ __forceinline__ u32 column_of(u32 i) { return i / 4 * 16 + threadIdx.x % 4 * 4 + i % 4; }

template <int N>
__device__ __forceinline__ float dot(const float (&a)[N], const float (&b)[N]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) sum += a[i] * b[i];
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    return sum + __shfl_xor_sync(ALL_LANES, sum, 2);
}

// Tokens first .. first + count of [B, T] into shared memory, [count, step, W], with w in place of decay.
template <int N, bool DELTA, class Params>
__device__ __forceinline__ void load_tokens(const Params& p, u64 first, u32 count, u32 step, float* tokens) {
    const u32 from = blockIdx.x % p.heads * p.head_dim;
    for (u32 index = threadIdx.x; index < count * 4 * N; index += blockDim.x) {
        const u32 t = index / (4 * N), c = index % (4 * N);
#pragma unroll
        for (u32 slot = 0; slot < (DELTA ? MOST : KAPPA); slot++) {
            float x = 0.0f;
            if (c < p.head_dim) {
                x = p.given[slot][(first + t) * p.strides[slot] + from + c];
                if (slot == DECAY) x = expf(DELTA ? -FASTEST * sigmoid(x) : -expf(x));
            }
            tokens[(t * step + slot) * 4 * N + c] = x;
        }
    }
}

template <int N>
__device__ __forceinline__ void load_state(const float* from, float (&s)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) s[i] = from[i * blockDim.x + threadIdx.x];
}

template <int N>
__device__ __forceinline__ void store_state(const float (&s)[N], float* to) {
#pragma unroll
    for (int i = 0; i < N; i++) to[i * blockDim.x + threadIdx.x] = s[i];
}

// -S kappa of this thread's row, 0 without removal.
template <int N, bool DELTA>
__device__ __forceinline__ float removal(const float (&s)[N], const float* token) {
    if (!DELTA) return 0.0f;
    float kappa[N];
    take(token + KAPPA * 4 * N, kappa);
    return -dot(s, kappa);
}

template <int N, bool DELTA>
__device__ __forceinline__ void step(float (&s)[N], const float* token, float v, float removed) {
    float k[N], w[N];
    take(token + KEY * 4 * N, k);
    take(token + DECAY * 4 * N, w);
#pragma unroll
    for (int i = 0; i < N; i++) s[i] = s[i] * w[i] + v * k[i];
    if (!DELTA) return;
    float b[N];
    take(token + RATED * 4 * N, b);
#pragma unroll
    for (int i = 0; i < N; i++) s[i] += removed * b[i];
}

template <int N, bool DELTA>
__device__ __forceinline__ void forward(const MatrixForward& p, float* shared) {
    const u32 W = 4 * N, slots = DELTA ? MOST : KAPPA;
    float* tokens = shared;                  // [TILE, slots, W]
    float* out = shared + TILE * slots * W;  // [TILE, W]
    const u32 lane = threadIdx.x % 4, row = threadIdx.x / 4;
    const u64 pair = blockIdx.x, begin = pair / p.heads * p.length;
    float* state = p.state && row < p.head_dim ? p.state + (pair * p.head_dim + row) * p.head_dim : nullptr;
    float s[N];
#pragma unroll
    for (int i = 0; i < N; i++) s[i] = state && column_of(i) < p.head_dim ? state[column_of(i)] : 0.0f;
    for (u32 first = 0; first < p.length; first += TILE) {
        const u32 count = min(p.length - first, (u32)TILE);
        load_tokens<N, DELTA>(p, begin + first, count, slots, tokens);
        __syncthreads();
        if (p.kept && first % CHUNK == 0) store_state(s, p.kept + (pair * p.chunks + first / CHUNK) * N * blockDim.x);
        for (u32 t = 0; t < count; t++) {
            const float* token = tokens + t * slots * W;
            const float v = token[VALUE * W + row];
            float r[N];
            take(token + RECEPTANCE * W, r);
            float seen;
            if (DELTA) {
                step<N, DELTA>(s, token, v, removal<N, DELTA>(s, token));
                seen = dot(s, r);
            } else {
                seen = dot(s, r);
                step<N, DELTA>(s, token, v, 0.0f);
            }
            if (lane == 0) out[t * W + row] = seen;
        }
        __syncthreads();
        // The next tokens may come while this is read: only past another barrier is it written again.
        for (u32 index = threadIdx.x; index < count * p.head_dim; index += blockDim.x) {
            const u32 t = index / p.head_dim, c = index % p.head_dim;
            p.o[((begin + first + t) * p.heads + pair % p.heads) * p.head_dim + c] = out[t * W + c];
        }
    }
    if (!state) return;
#pragma unroll
    for (int i = 0; i < N; i++)
        if (column_of(i) < p.head_dim) state[column_of(i)] = s[i];
}

// Lanes whose numbers differ by `mask` share 2 HALF values each: each keeps the sums of one half.
template <int HALF, int N>
__device__ __forceinline__ void halve(float (&x)[N], u32 mask) {
    const bool upper = threadIdx.x & mask;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        const float other = upper ? x[i] : x[i + HALF], own = upper ? x[i + HALF] : x[i];
        x[i] = own + __shfl_xor_sync(ALL_LANES, other, mask);
    }
}

// Writes the sums over the eight rows of a warp to `sums` [W].
template <int N>
__device__ __forceinline__ void sum_rows(float (&x)[N], float* sums) {
    halve<N / 2>(x, 16);
    halve<N / 4>(x, 8);
    u32 first = (threadIdx.x & 16 ? N / 2 : 0) + (threadIdx.x & 8 ? N / 4 : 0);
    if constexpr (N > 4) {
        halve<N / 8>(x, 4);
        first += threadIdx.x & 4 ? N / 8 : 0;
#pragma unroll
        for (u32 i = 0; i < N / 8; i++) sums[column_of(first + i)] = x[i];
    } else {
        x[0] += __shfl_xor_sync(ALL_LANES, x[0], 4);
        if (!(threadIdx.x & 4)) sums[column_of(first)] = x[0];
    }
}

// Sums of a token over the rows of S, by slot.
enum { SUM_R, SUM_K, SUM_W, SUM_KAPPA, SUM_B };

// One token back: `grad`, the gradient of S after it, becomes that of S before it, which is `s`. `sums`
// [warps, counted, W] and `grad_v` [W] are what this leaves for finish_token.
template <int N, bool DELTA>
__device__ __forceinline__ void token_back(const float (&s)[N], float (&grad)[N], float removed, const float* token, float* sums, float* grad_v) {
    const u32 W = 4 * N, row = threadIdx.x / 4, counted = DELTA ? 5 : 3;
    const float v = token[VALUE * W + row], grad_o = token[(DELTA ? MOST : KAPPA) * W + row];
    sums += threadIdx.x / WARP * counted * W;
    float x[N], a[N], w[N];
    float grad_removed = 0.0f;
    if (DELTA) {
        take(token + RECEPTANCE * W, a);
#pragma unroll
        for (int i = 0; i < N; i++) grad[i] += grad_o * a[i];
        take(token + RATED * W, a);
        grad_removed = dot(grad, a);
    }
    take(token + KEY * W, a);
    const float own = dot(grad, a);
    if (threadIdx.x % 4 == 0) grad_v[row] = own;
    if (DELTA) {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = s[i];
        step<N, DELTA>(x, token, v, removed);
    }
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = grad_o * (DELTA ? x[i] : s[i]);
    sum_rows(x, sums + SUM_R * W);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = v * grad[i];
    sum_rows(x, sums + SUM_K * W);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = grad[i] * s[i];
    sum_rows(x, sums + SUM_W * W);
    if (DELTA) {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = -grad_removed * s[i];
        sum_rows(x, sums + SUM_KAPPA * W);
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = removed * grad[i];
        sum_rows(x, sums + SUM_B * W);
    }
    take(token + (DELTA ? KAPPA : RECEPTANCE) * W, a);
    take(token + DECAY * W, w);
#pragma unroll
    for (int i = 0; i < N; i++) grad[i] = grad[i] * w[i] + (DELTA ? -grad_removed : grad_o) * a[i];
}

// Writes a token's gradients, `at` being its index in [B, T].
template <int N, bool DELTA>
__device__ __forceinline__ void finish_token(const MatrixBackward& p, u64 at, const float* token, const float* sums, const float* grad_v) {
    const u32 W = 4 * N, counted = DELTA ? 5 : 3, from = blockIdx.x % p.heads * p.head_dim;
    for (u32 index = threadIdx.x; index < (counted + 1) * p.head_dim; index += blockDim.x) {
        const u32 what = index / p.head_dim, c = index % p.head_dim;
        float sum = 0.0f;
        u32 slot = VALUE;
        if (what == counted) {
            sum = grad_v[c];
        } else {
            slot = what < SUM_W ? what : what + 1;
            for (u32 warp = 0; warp < blockDim.x / WARP; warp++) sum += sums[(warp * counted + what) * W + c];
        }
        if (slot == DECAY) {
            const float raw = p.given[DECAY][at * p.strides[DECAY] + from + c], w = token[DECAY * W + c];
            const float share = sigmoid(raw);
            // Where w is 0 so is its slope, though e^raw may be infinite.
            sum = w > 0.0f ? sum * w * (DELTA ? -FASTEST * share * (1.0f - share) : -expf(raw)) : 0.0f;
        }
        float* place = &p.grads[slot][at * p.grad_strides[slot] + from + c];
        *place = p.accumulate[slot] ? *place + sum : sum;
    }
}

// Tokens whose states are in registers together.
template <int N>
struct Sub {
    enum { TOKENS = N > 16 ? 2 : 4 };
};

// The gradients of `count` tokens, at most SUB, from token `at` of [B, T] on, `s` being S before them.
template <int N, bool DELTA>
__device__ __forceinline__ void some_back(const MatrixBackward& p, u64 at, u32 count, const float* from, float (&grad)[N], float* shared) {
    constexpr u32 W = 4 * N, slots = DELTA ? MOST : KAPPA, SUB = Sub<N>::TOKENS;
    float *tokens = shared, *grad_v = tokens + SUB * (slots + 1) * W, *sums = grad_v + W;
    __syncthreads();
    load_tokens<N, DELTA>(p, at, count, slots + 1, tokens);
    for (u32 index = threadIdx.x; index < count * W; index += blockDim.x) {
        const u32 t = index / W, c = index % W;
        const u64 place = ((at + t) * p.heads + blockIdx.x % p.heads) * p.head_dim + c;
        tokens[(t * (slots + 1) + slots) * W + c] = c < p.head_dim ? p.grad_o[place] : 0.0f;
    }
    __syncthreads();
    float states[SUB][N], removed[SUB];
    load_state(from, states[0]);
#pragma unroll
    for (u32 t = 0; t < SUB; t++)
        if (t < count) {
            const float* token = tokens + t * (slots + 1) * W;
            removed[t] = removal<N, DELTA>(states[t], token);
            if (t + 1 < SUB) {
#pragma unroll
                for (int i = 0; i < N; i++) states[(t + 1) % SUB][i] = states[t][i];
                step<N, DELTA>(states[(t + 1) % SUB], token, token[VALUE * W + threadIdx.x / 4], removed[t]);
            }
        }
#pragma unroll
    for (u32 done = 0; done < SUB; done++) {
        const u32 t = SUB - 1 - done;
        if (t < count) {
            const float* token = tokens + t * (slots + 1) * W;
            token_back<N, DELTA>(states[t], grad, removed[t], token, sums, grad_v);
            __syncthreads();
            finish_token<N, DELTA>(p, at + t, token, sums, grad_v);
            __syncthreads();
        }
    }
}

template <int N, bool DELTA>
__device__ __forceinline__ void backward(const MatrixBackward& p, float* shared) {
    constexpr u32 W = 4 * N, slots = DELTA ? MOST : KAPPA, SUB = Sub<N>::TOKENS;
    const u64 pair = blockIdx.x, size = N * blockDim.x;
    float* scratch = p.scratch + pair * (CHUNK / SUB) * size;
    float grad[N];
#pragma unroll
    for (int i = 0; i < N; i++) grad[i] = 0.0f;
    for (u32 left = p.chunks; left > 0; left--) {
        const u32 start = (left - 1) * CHUNK, count = min(p.length - start, (u32)CHUNK);
        const u64 at = pair / p.heads * p.length + start;
        float s[N];
        load_state(p.kept + (pair * p.chunks + left - 1) * size, s);
        store_state(s, scratch);
        for (u32 first = 0; first + SUB < count; first += SUB) {
            __syncthreads();
            load_tokens<N, DELTA>(p, at + first, SUB, slots, shared);
            __syncthreads();
            for (u32 t = 0; t < SUB; t++) {
                const float* token = shared + t * slots * W;
                step<N, DELTA>(s, token, token[VALUE * W + threadIdx.x / 4], removal<N, DELTA>(s, token));
            }
            store_state(s, scratch + (first / SUB + 1) * size);
        }
        for (u32 some = (count + SUB - 1) / SUB; some > 0; some--) {
            const u32 first = (some - 1) * SUB;
            some_back<N, DELTA>(p, at + first, min(count - first, SUB), scratch + (some - 1) * size, grad, shared);
        }
    }
}

#define KERNELS(width)                                                  \
    KERNEL(4 * width, rwkv6_forward_##width, MatrixForward) {           \
        SHARED(shared);                                                 \
        forward<width / 4, false>(p, shared);                           \
    }                                                                   \
    KERNEL(4 * width, rwkv7_forward_##width, MatrixForward) {           \
        SHARED(shared);                                                 \
        forward<width / 4, true>(p, shared);                            \
    }                                                                   \
    KERNEL(4 * width, rwkv6_backward_##width, MatrixBackward) {         \
        SHARED(shared);                                                 \
        backward<width / 4, false>(p, shared);                          \
    }                                                                   \
    KERNEL(4 * width, rwkv7_backward_##width, MatrixBackward) {         \
        SHARED(shared);                                                 \
        backward<width / 4, true>(p, shared);                           \
    }

KERNELS(16)
KERNELS(32)
KERNELS(64)
KERNELS(128)
