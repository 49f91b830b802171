// Causal convolution with filters as long as sequences (arXiv 2302.10866, eq. 4), tap by tap:
// y[t, c] = sum_j k[j, c] x[t - j, c], and its gradients. Work grows with taps times tokens: no transform here.
//
// A block of 256 threads has 32 columns and 64 results of each, 8 in the registers of a thread, and goes through 32
// weights at a time: these and the 96 rows that they meet are in 16 KiB of shared memory. Lanes are neighbouring
// columns. The filter's gradient has its taps as results and tokens as weights, all sequences one after the other, so
// that every sum has one order. Any sizes.

#define COLS 32u
#define TILE 64u
#define WEIGHTS 32u
#define LINES 8u
#define EACH 8u

// The filter's taps from `first` on, 0 past its end.
__device__ inline void stage_weights(float* weights, const LongConvolution& p, u32 first, u32 c) {
    const u32 lane = threadIdx.x % COLS;
    for (u32 r = threadIdx.x / COLS; r < WEIGHTS; r += LINES)
        weights[r * COLS + lane] = c < p.cols && first + r < p.taps ? p.filter[(u64)(first + r) * p.cols + c] : 0.0f;
}

KERNEL(256, long_convolution_forward, LongConvolution) {
    SHARED(shared);
    float* const weights = shared;                   // [32, 32]
    float* const inputs = weights + WEIGHTS * COLS;  // [96, 32]
    const u32 lane = threadIdx.x % COLS, line = threadIdx.x / COLS, c = blockIdx.y * COLS + lane;
    const u32 tiles = (p.length + TILE - 1) / TILE, start = blockIdx.x % tiles * TILE;
    const u64 row = blockIdx.x / tiles;
    const u32 past = p.taps - 1, limit = p.state ? p.taps : min(p.taps, start + TILE);
    float sums[EACH];
#pragma unroll
    for (u32 i = 0; i < EACH; i++) sums[i] = 0.0f;
    for (u32 first = 0; first < limit; first += WEIGHTS) {
        stage_weights(weights, p, first, c);
        // Row r is time start - first - 31 + r.
        for (u32 r = line; r < TILE + WEIGHTS; r += LINES) {
            const long long time = (long long)start - first - (WEIGHTS - 1) + r;
            float value = 0.0f;
            if (c < p.cols && time >= 0 && time < p.length)
                value = p.x[(row * p.length + time) * p.x_stride + c];
            else if (c < p.cols && time < 0 && p.state && time + past >= 0)
                value = p.state[(row * past + time + past) * p.cols + c];
            inputs[r * COLS + lane] = value;
        }
        __syncthreads();
        for (u32 j = 0; j < WEIGHTS; j++) {
            const float weight = weights[j * COLS + lane];
#pragma unroll
            for (u32 i = 0; i < EACH; i++)
                sums[i] = fmaf(weight, inputs[(line * EACH + i + WEIGHTS - 1 - j) * COLS + lane], sums[i]);
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 t = start + line * EACH + i;
        if (c < p.cols && t < p.length) p.y[(row * p.length + t) * p.y_stride + c] = sums[i];
    }
}

// The last inputs of those before and those of this run; one thread a sequence and column, oldest place first, so that
// nothing is overwritten before it has moved.
KERNEL(256, long_convolution_state, LongConvolution) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, row = index / p.cols;
    const u32 c = index % p.cols, past = p.taps - 1;
    if (row >= p.rows) return;
    float* const state = p.state + row * past * p.cols + c;
    for (u32 place = 0; place < past; place += EACH) {
        float values[EACH];
#pragma unroll
        for (u32 i = 0; i < EACH; i++) {
            const u64 from = (u64)place + i + p.length;
            values[i] = 0.0f;
            if (place + i < past)
                values[i] = from < past ? state[from * p.cols] : p.x[(row * p.length + from - past) * p.x_stride + c];
        }
#pragma unroll
        for (u32 i = 0; i < EACH; i++)
            if (place + i < past) state[(u64)(place + i) * p.cols] = values[i];
    }
}

// dx[t] = sum_j k[j] dy[t + j]
KERNEL(256, long_convolution_backward, LongConvolution) {
    SHARED(shared);
    float* const weights = shared;
    float* const grads = weights + WEIGHTS * COLS;
    const u32 lane = threadIdx.x % COLS, line = threadIdx.x / COLS, c = blockIdx.y * COLS + lane;
    const u32 tiles = (p.length + TILE - 1) / TILE, start = blockIdx.x % tiles * TILE;
    const u64 row = blockIdx.x / tiles;
    const u32 limit = min(p.taps, p.length - start);
    float sums[EACH];
#pragma unroll
    for (u32 i = 0; i < EACH; i++) sums[i] = 0.0f;
    for (u32 first = 0; first < limit; first += WEIGHTS) {
        stage_weights(weights, p, first, c);
        for (u32 r = line; r < TILE + WEIGHTS; r += LINES) {
            const u64 time = (u64)start + first + r;
            grads[r * COLS + lane] = c < p.cols && time < p.length ? p.x[(row * p.length + time) * p.x_stride + c] : 0.0f;
        }
        __syncthreads();
        for (u32 j = 0; j < WEIGHTS; j++) {
            const float weight = weights[j * COLS + lane];
#pragma unroll
            for (u32 i = 0; i < EACH; i++) sums[i] = fmaf(weight, grads[(line * EACH + i + j) * COLS + lane], sums[i]);
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 t = start + line * EACH + i;
        if (c < p.cols && t < p.length) {
            leave(&p.y[(row * p.length + t) * p.y_stride + c], sums[i], p.accumulate);
        }
    }
}

// dk[j] = sum over sequences and t of dy[t] x[t - j]
KERNEL(256, long_convolution_filter, LongConvolutionFilter) {
    SHARED(shared);
    float* const weights = shared;                   // [32, 32]: gradients of y
    float* const inputs = weights + WEIGHTS * COLS;  // [96, 32]
    const u32 lane = threadIdx.x % COLS, line = threadIdx.x / COLS, c = blockIdx.y * COLS + lane;
    const u32 tap = blockIdx.x * TILE;
    float sums[EACH];
#pragma unroll
    for (u32 i = 0; i < EACH; i++) sums[i] = 0.0f;
    for (u64 row = 0; row < p.rows; row++) {
        // Before the tap's own lag it meets nothing.
        for (u32 start = tap; start < p.length; start += WEIGHTS) {
            for (u32 r = line; r < WEIGHTS; r += LINES) {
                const u32 t = start + r;
                weights[r * COLS + lane] = c < p.cols && t < p.length ? p.dy[(row * p.length + t) * p.dy_stride + c] : 0.0f;
            }
            // Row r is time start - tap - 63 + r.
            for (u32 r = line; r < TILE + WEIGHTS; r += LINES) {
                const long long time = (long long)start - tap - (TILE - 1) + r;
                const bool own = c < p.cols && time >= 0 && time < p.length;
                inputs[r * COLS + lane] = own ? p.x[(row * p.length + time) * p.x_stride + c] : 0.0f;
            }
            __syncthreads();
            for (u32 s = 0; s < WEIGHTS; s++) {
                const float weight = weights[s * COLS + lane];
#pragma unroll
                for (u32 i = 0; i < EACH; i++)
                    sums[i] = fmaf(weight, inputs[(s + TILE - 1 - line * EACH - i) * COLS + lane], sums[i]);
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (u32 i = 0; i < EACH; i++) {
        const u32 j = tap + line * EACH + i;
        if (c < p.cols && j < p.taps) {
            leave(&p.grad_filter[(u64)j * p.cols + c], sums[i], p.accumulate);
        }
    }
}
