// Short causal convolution over time, one filter a channel, with its activation (arXiv 2212.14052,
// section 3): y[t, c] = f(b[c] + sum_j w[c, j] x[t - width + 1 + j, c]), and its gradients.
//
// A block of 256 threads takes 32 columns and 64 tokens at a time: lanes are neighbouring columns, so that
// reads are whole lines, and each of the 8 warps takes eight tokens behind each other. What a tile needs of x, and in
// the backward pass of the gradient before the activation, is in shared memory once and read by every tap
// there. Forward: one tile a block, (63 + 64) 32 + 32 width values at most. Backward: `part_count` parts of
// the tiles beside each other, each in a fixed order, so that the sums over tokens are the same in every
// run; 2 (63 + width) 32 + 32 width + 32 (width + 1) values, which fit 48 KiB up to width 64.
//
// The host puts a definition of TAPS in front: the width, so that a thread reads what its eight tokens share once and
// keeps the taps' gradients in registers, or 0 for any width.

#define COLS 32
#define TOKENS 64
#define LINES 8
#define OWN (TOKENS / LINES)

template <class Params>
__device__ inline u32 width_of(const Params& p) { return TAPS ? TAPS : p.width; }

// The taps of 32 columns, [width, 32]; 0 past the last column.
__device__ inline void stage_taps(float* taps, const float* weight, u32 first, u32 cols, u32 width) {
    for (u32 i = threadIdx.x; i < COLS * width; i += blockDim.x) {
        const u32 c = i / width, j = i % width;
        taps[j * COLS + c] = first + c < cols ? weight[(u64)first * width + i] : 0.0f;
    }
}

KERNEL(256, convolution_forward, ConvolutionForward) {
    SHARED(shared);
    const u32 blocks = (p.cols + COLS - 1) / COLS, width = width_of(p), past = width - 1;
    const u32 lane = threadIdx.x % COLS, line = threadIdx.x / COLS;
    const u32 first = blockIdx.x % blocks * COLS, c = first + lane;
    const u32 tile = blockIdx.x / blocks % p.tiles, row = blockIdx.x / blocks / p.tiles;
    const u64 start = (u64)tile * TOKENS;
    const u32 count = (u32)min(p.length - start, (u64)TOKENS);
    float* const taps = shared;                  // [width, 32]
    float* const tokens = taps + width * COLS;   // [past + 64, 32], the first is token start - past
    stage_taps(taps, p.weight, first, p.cols, width);
    for (u32 r = line; r < past + count; r += LINES) {
        float value = 0.0f;
        // Tokens before this run are in the state; without one they are 0.
        if (c < p.cols && start + r >= past)
            value = p.x[(row * p.length + start + r - past) * p.x_stride + c];
        else if (c < p.cols && p.state)
            value = p.state[((u64)row * past + start + r) * p.cols + c];
        tokens[r * COLS + lane] = value;
    }
    __syncthreads();
    if (c >= p.cols) return;
    const float bias = p.bias ? p.bias[c] : 0.0f;
    const u32 own = line * OWN;
    const float* const seen = tokens + own * COLS + lane;
    float sums[OWN];
#pragma unroll
    for (u32 i = 0; i < OWN; i++) sums[i] = bias;
#pragma unroll TAPS ? TAPS : 1
    for (u32 j = 0; j < width; j++) {
        const float tap = taps[j * COLS + lane];
#pragma unroll
        for (u32 i = 0; i < OWN; i++) sums[i] = fmaf(own + i < count ? seen[(i + j) * COLS] : 0.0f, tap, sums[i]);
    }
    u64 place = (row * p.length + start + own) * p.cols + c;
    // Once for all activations, which are long: what is next moves up to the first place.
#pragma unroll 1
    for (u32 i = own; i < min(own + OWN, count); i++, place += p.cols) {
        if (p.before) p.before[place] = sums[0];
        p.y[place] = activate(p.activation, sums[0]);
#pragma unroll
        for (u32 n = 0; n + 1 < OWN; n++) sums[n] = sums[n + 1];
    }
    // With one tile nobody else reads this row's state; with more, `convolution_state` follows.
    if (p.state && p.tiles == 1)
        for (u32 r = line; r < past; r += LINES)
            p.state[((u64)row * past + r) * p.cols + c] = tokens[(count + r) * COLS + lane];
}

// The state after at least width - 1 tokens: one thread a value, nothing of the old state is kept.
KERNEL(256, convolution_state, ConvolutionForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 past = width_of(p) - 1;
    const u64 c = index % p.cols, place = index / p.cols % past, row = index / p.cols / past;
    if (row >= p.rows) return;
    p.state[index] = p.x[(row * p.length + p.length - past + place) * p.x_stride + c];
}

// With g the gradient before the activation: dx[t] = sum_j w[j] g[t + width - 1 - j],
// dw[j] = sum_t g[t] x[t - width + 1 + j], db = sum_t g[t].
KERNEL(256, convolution_backward, ConvolutionBackward) {
    SHARED(shared);
    const u32 width = width_of(p), past = width - 1, room = TOKENS + past;
    const u32 lane = threadIdx.x % COLS, line = threadIdx.x / COLS, own = line * OWN;
    const u32 first = blockIdx.x * COLS, c = first + lane;
    float* const taps = shared;                 // [width, 32]
    float* const sums = taps + width * COLS;    // [width + 1, 32]
    float* const tokens = sums + (width + 1) * COLS;  // [past + 64, 32], the first is token start - past
    float* const grads = tokens + room * COLS;  // [64 + past, 32], the first is token start
    stage_taps(taps, p.weight, first, p.cols, width);
#if TAPS
    float own_sums[TAPS + 1] = {};
#else
    // A line's own rows.
    for (u32 j = line; j <= width; j += LINES) sums[j * COLS + lane] = 0.0f;
#endif
    for (u64 tile = blockIdx.y; tile < (u64)p.rows * p.tiles; tile += p.part_count) {
        const u64 start = tile % p.tiles * TOKENS, base = tile / p.tiles * p.length;
        const u32 count = (u32)min(p.length - start, (u64)TOKENS);
        for (u32 r = line; r < room; r += LINES) {
            float x = 0.0f, g = 0.0f;
            if (c < p.cols && start + r >= past && start + r - past < p.length)
                x = p.x[(base + start + r - past) * p.x_stride + c];
            if (c < p.cols && start + r < p.length) {
                const u64 at = base + start + r;
                g = p.dy[at * p.dy_stride + c] * activation_slope(p.activation, p.before[at * p.cols + c]);
            }
            tokens[r * COLS + lane] = x;
            grads[r * COLS + lane] = g;
        }
        __syncthreads();
        float values[OWN] = {};
        const float* const later = grads + own * COLS + lane;
#pragma unroll TAPS ? TAPS : 1
        for (u32 s = 0; s < width; s++) {
            const float tap = taps[(past - s) * COLS + lane];
#pragma unroll
            for (u32 i = 0; i < OWN; i++) values[i] = fmaf(later[(i + s) * COLS], tap, values[i]);
        }
        stored* const place = p.grad_x + (base + start + own) * p.grad_stride + c;
        const u32 there = c < p.cols ? count : 0;
        if (p.accumulate) {
#pragma unroll
            for (u32 i = 0; i < OWN; i++) values[i] += own + i < there ? place[i * p.grad_stride] : 0.0f;
        }
#pragma unroll
        for (u32 i = 0; i < OWN; i++)
            if (own + i < there) place[i * p.grad_stride] = values[i];
#if TAPS
        // Past the last token of a row gradients are 0.
        const float* const seen = tokens + own * COLS + lane;
#pragma unroll
        for (u32 i = 0; i < OWN; i++) {
            const float grad = later[i * COLS];
#pragma unroll
            for (u32 j = 0; j < TAPS; j++) own_sums[j] = fmaf(grad, seen[(i + j) * COLS], own_sums[j]);
            own_sums[TAPS] += grad;
        }
#else
        for (u32 j = line; j <= width; j += LINES) {
            float sum = sums[j * COLS + lane];
            for (u32 i = 0; i < count; i++) {
                const float x = j < width ? tokens[(i + j) * COLS + lane] : 1.0f;
                sum = fmaf(grads[i * COLS + lane], x, sum);
            }
            sums[j * COLS + lane] = sum;
        }
#endif
        // The next tile takes the place of this one.
        __syncthreads();
    }
#if TAPS
    // The lines' sums, in the place of the last tile, in order.
#pragma unroll
    for (u32 j = 0; j <= TAPS; j++) tokens[(line * (TAPS + 1) + j) * COLS + lane] = own_sums[j];
    __syncthreads();
    for (u32 j = line; j <= TAPS; j += LINES) {
        float sum = 0.0f;
        for (u32 other = 0; other < LINES; other++) sum += tokens[(other * (TAPS + 1) + j) * COLS + lane];
        sums[j * COLS + lane] = sum;
    }
#endif
    for (u32 j = line; j <= width && c < p.cols; j += LINES)
        p.parts[((u64)blockIdx.y * (width + 1) + j) * p.cols + c] = sums[j * COLS + lane];
}

// Adds the parts to the parameters' gradients, in order; one thread a value.
KERNEL(256, convolution_sums, ConvolutionSums) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    const u32 c = index % p.cols, j = index / p.cols;
    if (j > p.width || (j == p.width && !p.grad_bias)) return;
    float* const place = j < p.width ? &p.grad_weight[(u64)c * p.width + j] : &p.grad_bias[c];
    float sum = *place;
    for (u32 part = 0; part < p.part_count; part++) sum += p.parts[((u64)part * (p.width + 1) + j) * p.cols + c];
    *place = sum;
}
