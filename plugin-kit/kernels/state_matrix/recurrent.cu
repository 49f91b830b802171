// A state matrix a head, a write after another, with S [V, K] (the transpose of how it is said elsewhere):
//
//   S = S diag(w) - (S a) b^T + v k^T,  o = S q with the S after a token's last write, or before its first
//
// w = exp(decay) of a token's first write, 1 at its others. The delta rule (arXiv 2102.11174, eq. 24) is a = w k, with
// beta k for both b and k. Any number of writes a token, groups of heads that share q and k, V that is not K. Where nothing
// is removed rows of S may decay by themselves instead, S = diag(w) S. Past a token's first query each takes a step of its
// own that writes nothing.
//
// One block takes at most W rows of a head's S through all tokens of a sequence. Four neighbouring threads share a row
// and hold it in registers, each the columns 16 j + 4 lane .. + 3: so a row's sums take two shuffles. There is a kernel
// for K up to 16, 32, 64 and 128 (W), with 4 threads a row rounded up to whole warps; what is past K is 0.
//
// Going back by dividing by decays is not stable, so training keeps S every `chunk` writes, at most 64. The way back
// goes through such a chunk once more and leaves S every 4 writes (2 where W = 128) in global scratch, from where
// their states fit the registers. A write's gradients over K are sums over the rows of S: over the eight rows of a warp
// by shuffles that halve what each lane holds, over the warps in shared memory, over tiles of rows by one block that
// takes them in turn and adds.
//
// Shared values: forward TILE (vectors W + 2 rows); backward SUB (vectors W + 2 rows) + 2 rows + warps vectors W, at most
// 12288; without removal a write has a decay for each row too.

#define MOST_CHUNK 64
#define TILE 8

// Inputs; what is removed is beta, or a and b.
enum { QUERY, KEY, VALUE, DECAY, REMOVED, PUT, MOST };

// Vectors of a write over K, and their sums; the last two where something is removed.
enum { Q, K, W_, A, B_ };

enum { DECAY_NONE, DECAY_CONSTANT, DECAY_HEAD, DECAY_KEY, DECAY_VALUE };

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

// A sequence and head, and rows of its state.
struct Place {
    u64 begin;  // the sequence's first token, over [B, T]
    u32 head, group, first, rows;
};

template <class Params>
__device__ __forceinline__ Place place_of(const Params& p, u64 pair, u32 tile, u32 rows) {
    const u32 head = pair % p.heads, first = tile * rows;
    return {pair / p.heads * p.length, head, head / (p.heads / p.groups), first, min(rows, p.value - first)};
}

// A write of a token, or past the last a query without one.
struct Write {
    u64 token;
    u32 n;
};

template <class Params>
__device__ __forceinline__ u32 steps_of(const Params& p) { return p.writes + p.reads - 1; }

// The query of a write's token that reads there, where one does.
template <class Params>
__device__ __forceinline__ u32 query_of(const Params& p, u32 n) { return n < p.writes ? 0 : n - p.writes + 1; }

template <class Params>
__device__ __forceinline__ Write write_of(const Params& p, const Place& place, u32 index) {
    const u32 steps = steps_of(p);
    return {place.begin + index / steps, index % steps};
}

// Where an input's values of a write begin.
template <class Params>
__device__ __forceinline__ u64 at(const Params& p, const Place& place, const Write& write, u32 input) {
    const u64 row = write.token * p.strides[input];
    switch (input) {
        case QUERY: return row + (query_of(p, write.n) * p.groups + place.group) * p.key;
        case KEY: return row + (write.n * p.groups + place.group) * p.key;
        case VALUE: return row + (write.n * p.heads + place.head) * p.value;
        case DECAY: return row + place.head * (p.decay == DECAY_KEY ? p.key : p.decay == DECAY_VALUE ? p.value : 1);
        case REMOVED: return row + (p.has_beta ? write.n * p.heads + place.head : place.head * p.key);
        default: return row + place.head * p.key;
    }
}

template <class Params>
__device__ __forceinline__ float decay_of(const Params& p, const Place& place, const Write& write, u32 c) {
    if (write.n > 0) return 1.0f;
    switch (p.decay) {
        case DECAY_NONE:
        case DECAY_VALUE: return 1.0f;
        case DECAY_CONSTANT: return expf(p.logs[place.head]);
        case DECAY_HEAD: return expf(p.given[DECAY][at(p, place, write, DECAY)]);
        default: return expf(p.given[DECAY][at(p, place, write, DECAY) + c]);
    }
}

// Values of a write's vectors in shared memory: those over K, and decays of rows where nothing is removed.
template <int N, bool REMOVES>
__device__ __forceinline__ u32 write_values(u32 rows) { return REMOVES ? 5 * 4 * N : 3 * 4 * N + rows; }

// Writes first .. first + count of a sequence into shared memory, `step` values apart: vectors [W] over K, decays of rows
// where nothing is removed, then v.
template <int N, bool REMOVES, class Params>
__device__ __forceinline__ void load_writes(const Params& p, const Place& place, u32 first, u32 count, u32 step, float* writes) {
    const u32 W = 4 * N, vectors = REMOVES ? 5 : 3, values = write_values<N, REMOVES>(blockDim.x / 4);
    for (u32 index = threadIdx.x; index < count * W; index += blockDim.x) {
        const u32 c = index % W;
        const Write write = write_of(p, place, first + index / W);
        float x[5] = {};
        if (c < p.key) {
            x[Q] = p.given[QUERY][at(p, place, write, QUERY) + c];
            x[W_] = decay_of(p, place, write, c);
            const bool writes_any = write.n < p.writes;
            if (writes_any) x[K] = p.given[KEY][at(p, place, write, KEY) + c];
            if (REMOVES && p.has_beta && writes_any) {
                x[A] = x[W_] * x[K];
                x[B_] = x[K] *= p.given[REMOVED][at(p, place, write, REMOVED)];
            } else if (REMOVES && !p.has_beta && write.n == 0) {
                x[A] = p.given[REMOVED][at(p, place, write, REMOVED) + c];
                x[B_] = p.given[PUT][at(p, place, write, PUT) + c];
            }
        }
#pragma unroll
        for (u32 i = 0; i < vectors; i++) writes[index / W * step + i * W + c] = x[i];
    }
    for (u32 index = threadIdx.x; index < count * place.rows; index += blockDim.x) {
        const u32 row = index % place.rows;
        const Write write = write_of(p, place, first + index / place.rows);
        float* to = writes + index / place.rows * step + row;
        to[values] = write.n < p.writes ? p.given[VALUE][at(p, place, write, VALUE) + place.first + row] : 0.0f;
        if (REMOVES) continue;
        const bool decays = p.decay == DECAY_VALUE && write.n == 0;
        to[vectors * W] = decays ? expf(p.given[DECAY][at(p, place, write, DECAY) + place.first + row]) : 1.0f;
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

// -S a of this thread's row, 0 where nothing is removed.
template <int N, bool REMOVES>
__device__ __forceinline__ float removal(const float (&s)[N], const float* write) {
    if (!REMOVES) return 0.0f;
    float a[N];
    take(write + A * 4 * N, a);
    return -dot(s, a);
}

// The decay of this thread's own row; threads past the last row have 1.
template <int N, bool REMOVES>
__device__ __forceinline__ float row_decay(const Place& place, const float* write) {
    return !REMOVES && threadIdx.x / 4 < place.rows ? write[3 * 4 * N + threadIdx.x / 4] : 1.0f;
}

template <int N, bool REMOVES>
__device__ __forceinline__ void step(float (&s)[N], const Place& place, const float* write, float v, float removed) {
    const float own = row_decay<N, REMOVES>(place, write);
    float k[N], w[N];
    take(write + K * 4 * N, k);
    take(write + W_ * 4 * N, w);
#pragma unroll
    for (int i = 0; i < N; i++) s[i] = s[i] * (own * w[i]) + v * k[i];
    if (!REMOVES) return;
    float b[N];
    take(write + B_ * 4 * N, b);
#pragma unroll
    for (int i = 0; i < N; i++) s[i] += removed * b[i];
}

// Whether a write's token is read there.
template <class Params>
__device__ __forceinline__ bool reads(const Params& p, u32 n) { return p.reads_after ? n + 1 >= p.writes : n == 0; }

// The value of this thread's row; threads past the last row have 0.
__device__ __forceinline__ float own(const Place& place, const float* values) {
    return threadIdx.x / 4 < place.rows ? values[threadIdx.x / 4] : 0.0f;
}

template <int N, bool REMOVES>
__device__ __forceinline__ void forward(const RecurrentForward& p, float* shared) {
    const u32 W = 4 * N, rows = blockDim.x / 4, stride = write_values<N, REMOVES>(rows) + rows;
    float* writes = shared;              // [TILE, stride]
    float* out = shared + TILE * stride; // [TILE, rows]
    const u32 lane = threadIdx.x % 4, row = threadIdx.x / 4, tiles = (p.value + rows - 1) / rows, total = p.length * steps_of(p);
    const u64 pair = blockIdx.x / tiles;
    const Place place = place_of(p, pair, blockIdx.x % tiles, rows);
    float* state = p.state && row < place.rows ? p.state + (pair * p.value + place.first + row) * p.key : nullptr;
    float s[N];
#pragma unroll
    for (int i = 0; i < N; i++) s[i] = state && column_of(i) < p.key ? state[column_of(i)] : 0.0f;
    for (u32 first = 0; first < total; first += TILE) {
        const u32 count = min(total - first, (u32)TILE);
        load_writes<N, REMOVES>(p, place, first, count, stride, writes);
        __syncthreads();
        for (u32 i = 0; i < count; i++) {
            const u32 index = first + i;
            if (p.kept && index % p.chunk == 0) store_state(s, p.kept + (blockIdx.x * (u64)p.chunks + index / p.chunk) * N * blockDim.x);
            const float* write = writes + i * stride;
            const float v = own(place, write + stride - rows);
            float q[N], seen = 0.0f;
            take(write + Q * W, q);
            if (!p.reads_after) seen = dot(s, q);
            step<N, REMOVES>(s, place, write, v, removal<N, REMOVES>(s, write));
            if (p.reads_after) seen = dot(s, q);
            if (lane == 0) out[i * rows + row] = seen;
        }
        __syncthreads();
        // The next writes may come while this is read: only past another barrier is it written again.
        for (u32 index = threadIdx.x; index < count * place.rows; index += blockDim.x) {
            const u32 i = index / place.rows, c = index % place.rows;
            const Write write = write_of(p, place, first + i);
            if (reads(p, write.n)) p.o[((write.token * p.reads + query_of(p, write.n)) * p.heads + place.head) * p.value + place.first + c] = out[i * rows + c];
        }
    }
    if (!state) return;
#pragma unroll
    for (int i = 0; i < N; i++)
        if (column_of(i) < p.key) state[column_of(i)] = s[i];
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

// One write back: `grad`, the gradient of S after it, becomes that of S before it, which is `s`. `grad_o` is that of
// what is read there, else 0. `sums` [warps, vectors, W] and `grad_v` [2, rows], of v and of the logarithms of the rows'
// own decays, are what this leaves for finish_write.
template <int N, bool REMOVES>
__device__ __forceinline__ void write_back(const float (&s)[N], float (&grad)[N], const Place& place, float removed, bool reads_after, float v, float grad_o, const float* write, float* sums, float* grad_v) {
    const u32 W = 4 * N, vectors = REMOVES ? 5 : 3;
    sums += threadIdx.x / WARP * vectors * W;
    float x[N], a[N], w[N];
    float grad_removed = 0.0f;
    take(write + Q * W, a);
    if (reads_after) {
#pragma unroll
        for (int i = 0; i < N; i++) grad[i] += grad_o * a[i];
    }
    if (REMOVES) {
        take(write + B_ * W, a);
        grad_removed = dot(grad, a);
    }
    take(write + K * W, a);
    const float of_v = dot(grad, a);
    if (threadIdx.x % 4 == 0) grad_v[threadIdx.x / 4] = of_v;
    const float own = row_decay<N, REMOVES>(place, write);
    if (!REMOVES) {
        const float of_decay = own * dot(grad, s);
        if (threadIdx.x % 4 == 0) grad_v[blockDim.x / 4 + threadIdx.x / 4] = of_decay;
    }
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = s[i];
    if (reads_after) step<N, REMOVES>(x, place, write, v, removed);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] *= grad_o;
    sum_rows(x, sums + Q * W);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = v * grad[i];
    sum_rows(x, sums + K * W);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = grad[i] * s[i];
    sum_rows(x, sums + W_ * W);
    if (REMOVES) {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = -grad_removed * s[i];
        sum_rows(x, sums + A * W);
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = removed * grad[i];
        sum_rows(x, sums + B_ * W);
    }
    take(write + W_ * W, w);
#pragma unroll
    for (int i = 0; i < N; i++) grad[i] *= own * w[i];
    if (REMOVES) {
        take(write + A * W, a);
#pragma unroll
        for (int i = 0; i < N; i++) grad[i] -= grad_removed * a[i];
    }
    if (!reads_after) {
        take(write + Q * W, a);
#pragma unroll
        for (int i = 0; i < N; i++) grad[i] += grad_o * a[i];
    }
}

__device__ __forceinline__ void put(const RecurrentBackward& p, const Place& place, u32 input, u64 at, float value) {
    stored* to = &p.grads[input][at];
    const bool by_row = input == VALUE || (input == DECAY && p.decay == DECAY_VALUE);
    *to = p.accumulate[input] || (place.first > 0 && !by_row) ? *to + value : value;
}

// Writes a write's gradients. Tiles of rows past the first add to what the first wrote.
template <int N, bool REMOVES>
__device__ __forceinline__ void finish_write(const RecurrentBackward& p, const Place& place, const Write& write, const float* loaded, float* sums, const float* grad_v) {
    const u32 W = 4 * N, vectors = REMOVES ? 5 : 3, warps = blockDim.x / WARP;
    for (u32 index = threadIdx.x; index < vectors * W; index += blockDim.x) {
        float sum = 0.0f;
        for (u32 warp = 0; warp < warps; warp++) sum += sums[warp * vectors * W + index];
        sums[index] = sum;
    }
    __syncthreads();
    const bool writes_any = write.n < p.writes;
    for (u32 c = threadIdx.x; c < place.rows && writes_any; c += blockDim.x) {
        const u64 row = place.head * p.value + place.first + c;
        put(p, place, VALUE, write.token * p.grad_strides[VALUE] + write.n * p.heads * p.value + row, grad_v[c]);
        if (!REMOVES && p.decay == DECAY_VALUE && write.n == 0)
            put(p, place, DECAY, write.token * p.grad_strides[DECAY] + row, grad_v[blockDim.x / 4 + c]);
    }
    const u64 channel = place.head * p.key;
    for (u32 c = threadIdx.x; c < W; c += blockDim.x) {
        float of_k = sums[K * W + c], of_w = sums[W_ * W + c], of_beta = 0.0f;
        if (c < p.key) {
            if (REMOVES && p.has_beta && writes_any) {
                // Back from a = w k, and beta k as both b and k.
                const float k = p.given[KEY][at(p, place, write, KEY) + c], beta = p.given[REMOVED][at(p, place, write, REMOVED)];
                const float both = sums[B_ * W + c] + of_k, of_a = sums[A * W + c];
                of_k = beta * both + loaded[W_ * W + c] * of_a;
                of_w += k * of_a;
                of_beta = k * both;
            } else if (REMOVES && !p.has_beta && write.n == 0) {
                put(p, place, REMOVED, write.token * p.grad_strides[REMOVED] + channel + c, sums[A * W + c]);
                put(p, place, PUT, write.token * p.grad_strides[PUT] + channel + c, sums[B_ * W + c]);
            }
            if (writes_any) put(p, place, KEY, write.token * p.grad_strides[KEY] + (write.n * (u64)p.heads + place.head) * p.key + c, of_k);
            if (reads(p, write.n)) put(p, place, QUERY, write.token * p.grad_strides[QUERY] + query_of(p, write.n) * (u64)p.heads * p.key + channel + c, sums[Q * W + c]);
            if (p.decay == DECAY_KEY && write.n == 0)
                put(p, place, DECAY, write.token * p.grad_strides[DECAY] + channel + c, of_w * loaded[W_ * W + c]);
        }
        // In the place of what only this thread reads.
        sums[W_ * W + c] = c < p.key ? of_w * loaded[W_ * W + c] : 0.0f;
        if (REMOVES) sums[B_ * W + c] = of_beta;
    }
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    float of_decay = 0.0f, of_beta = 0.0f;
    for (u32 c = threadIdx.x; c < W; c += WARP) {
        of_decay += sums[W_ * W + c];
        if (REMOVES) of_beta += sums[B_ * W + c];
    }
    of_decay = warp_sum(of_decay);
    of_beta = warp_sum(of_beta);
    if (threadIdx.x != 0) return;
    if (p.decay == DECAY_HEAD && write.n == 0) put(p, place, DECAY, write.token * p.grad_strides[DECAY] + place.head, of_decay);
    if (REMOVES && p.has_beta && writes_any)
        put(p, place, REMOVED, write.token * p.grad_strides[REMOVED] + write.n * p.heads + place.head, of_beta);
}

// Writes whose states are in registers together.
template <int N>
struct Sub {
    enum { WRITES = N > 16 ? 2 : 4 };
};

// The gradients of `count` writes, at most SUB, from write `first` on, `from` being S before them.
template <int N, bool REMOVES>
__device__ __forceinline__ void some_back(const RecurrentBackward& p, const Place& place, u32 first, u32 count, const float* from, float (&grad)[N], float* shared) {
    constexpr u32 SUB = Sub<N>::WRITES;
    const u32 rows = blockDim.x / 4, values = write_values<N, REMOVES>(rows), stride = values + 2 * rows;
    float *writes = shared, *grad_v = writes + SUB * stride, *sums = grad_v + 2 * rows;
    __syncthreads();
    load_writes<N, REMOVES>(p, place, first, count, stride, writes);
    for (u32 index = threadIdx.x; index < count * place.rows; index += blockDim.x) {
        const u32 i = index / place.rows, c = index % place.rows;
        const Write write = write_of(p, place, first + i);
        const u64 at = write.token * p.grad_o_stride + (query_of(p, write.n) * p.heads + place.head) * p.value + place.first + c;
        writes[i * stride + values + rows + c] = reads(p, write.n) ? p.grad_o[at] : 0.0f;
    }
    __syncthreads();
    float states[SUB][N], removed[SUB];
    load_state(from, states[0]);
#pragma unroll
    for (u32 i = 0; i < SUB; i++)
        if (i < count) {
            const float* write = writes + i * stride;
            removed[i] = removal<N, REMOVES>(states[i], write);
            if (i + 1 < SUB) {
#pragma unroll
                for (int c = 0; c < N; c++) states[(i + 1) % SUB][c] = states[i][c];
                step<N, REMOVES>(states[(i + 1) % SUB], place, write, own(place, write + values), removed[i]);
            }
        }
#pragma unroll
    for (u32 done = 0; done < SUB; done++) {
        const u32 i = SUB - 1 - done;
        if (i < count) {
            const float* write = writes + i * stride;
            const float v = own(place, write + values), grad_o = own(place, write + values + rows);
            write_back<N, REMOVES>(states[i], grad, place, removed[i], p.reads_after, v, grad_o, write, sums, grad_v);
            __syncthreads();
            finish_write<N, REMOVES>(p, place, write_of(p, place, first + i), write, sums, grad_v);
            __syncthreads();
        }
    }
}

template <int N, bool REMOVES>
__device__ __forceinline__ void tile_back(const RecurrentBackward& p, u32 tile, u32 tiles, float* shared) {
    constexpr u32 SUB = Sub<N>::WRITES;
    const u32 rows = blockDim.x / 4, values = write_values<N, REMOVES>(rows), total = p.length * steps_of(p);
    const u64 pair = blockIdx.x, size = N * blockDim.x;
    const Place place = place_of(p, pair, tile, rows);
    float* scratch = p.scratch + pair * (MOST_CHUNK / SUB) * size;
    float grad[N];
#pragma unroll
    for (int i = 0; i < N; i++) grad[i] = 0.0f;
    for (u32 left = p.chunks; left > 0; left--) {
        const u32 start = (left - 1) * p.chunk, count = min(total - start, p.chunk);
        float s[N];
        load_state(p.kept + ((pair * tiles + tile) * p.chunks + left - 1) * size, s);
        store_state(s, scratch);
        for (u32 first = 0; first + SUB < count; first += SUB) {
            __syncthreads();
            load_writes<N, REMOVES>(p, place, start + first, SUB, values + rows, shared);
            __syncthreads();
            for (u32 i = 0; i < SUB; i++) {
                const float* write = shared + i * (values + rows);
                step<N, REMOVES>(s, place, write, own(place, write + values), removal<N, REMOVES>(s, write));
            }
            store_state(s, scratch + (first / SUB + 1) * size);
        }
        for (u32 some = (count + SUB - 1) / SUB; some > 0; some--) {
            const u32 first = (some - 1) * SUB;
            some_back<N, REMOVES>(p, place, start + first, min(count - first, SUB), scratch + (some - 1) * size, grad, shared);
        }
    }
}

template <int N, bool REMOVES>
__device__ __forceinline__ void backward(const RecurrentBackward& p, float* shared) {
    const u32 rows = blockDim.x / 4, tiles = (p.value + rows - 1) / rows;
    for (u32 tile = 0; tile < tiles; tile++) tile_back<N, REMOVES>(p, tile, tiles, shared);
}

#define KERNELS(width)                                                     \
    KERNEL(4 * width, writes_forward_##width, RecurrentForward) {          \
        SHARED(shared);                                                    \
        forward<width / 4, false>(p, shared);                              \
    }                                                                      \
    KERNEL(4 * width, removes_forward_##width, RecurrentForward) {         \
        SHARED(shared);                                                    \
        forward<width / 4, true>(p, shared);                               \
    }                                                                      \
    KERNEL(4 * width, writes_backward_##width, RecurrentBackward) {        \
        SHARED(shared);                                                    \
        backward<width / 4, false>(p, shared);                             \
    }                                                                      \
    KERNEL(4 * width, removes_backward_##width, RecurrentBackward) {       \
        SHARED(shared);                                                    \
        backward<width / 4, true>(p, shared);                              \
    }

KERNELS(16)
KERNELS(32)
KERNELS(64)
KERNELS(128)

// Adds up what heads of a group share, in order.
KERNEL(256, state_matrix_add_heads, AddHeads) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, cols = (u64)p.writes * p.groups * p.key;
    if (index >= p.tokens * cols) return;
    const u64 token = index / cols, col = index % cols, block = col / p.key, write = block / p.groups, group = block % p.groups;
    const u32 sharing = p.heads / p.groups;
    const stored* from = p.from + ((token * p.writes + write) * p.heads + group * sharing) * p.key + col % p.key;
    stored* to = &p.to[token * p.to_stride + col];
    float sum = p.accumulate ? *to : 0.0f;
    for (u32 head = 0; head < sharing; head++) sum += from[head * (u64)p.key];
    *to = sum;
}
