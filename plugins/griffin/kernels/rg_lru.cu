// The real-gated linear recurrent unit (arXiv 2402.19427, section 2.4, eq. 1 to 4), channel by channel:
//
//   log a = -8 softplus(lambda) sigmoid(r)        h = a h + sqrt(1 - a^2) sigmoid(i) x
//
// and h = sigmoid(i) x at position 0. Tokens are cut in chunks so that few rows of few channels still fill
// a card: rg_lru_chunks finds what a chunk makes of a state 0 and how much of another state it keeps,
// rg_lru_carry takes states from chunk to chunk, rg_lru_forward goes through the tokens again from the
// right state and writes h. Where one chunk is enough only the last runs. Backward is the same from the
// last token to the first, with the gradient of the state in the state's place.
//
// Grid: one thread a row, chunk and channel (a row and channel in the carries), 256 a block, neighbouring
// threads on neighbouring channels. No shared memory; any width, any length.

#define EXPONENT 8.0f     // c of the gate, eq. 3
#define STEEPEST 1000.0f  // bound of the square root's slope, as in the official code

// Tokens, or chunks in the carries, whose values are read together, so that the reads overlap.
#define STAGE 4u

// What a token does to the state.
struct Gates {
    float r, i;   // after their sigmoids
    float log_a, a;
    float room;   // 1 - a^2
    float scale;  // of the input: the square root of the room, or 1 at position 0
};

__device__ inline Gates gates_of(float rate, float r, float i, bool first) {
    Gates gates;
    gates.r = sigmoid(r);
    gates.i = sigmoid(i);
    gates.log_a = rate * gates.r;
    gates.a = expf(gates.log_a);
    gates.room = -expm1f(2.0f * gates.log_a);
    gates.scale = first ? 1.0f : sqrtf(gates.room);
    return gates;
}

struct RgLruForward {
    const float *x, *r, *i;        // [B, T, W]
    const float* lambda;           // [W]
    float *decay, *carry;          // [B, chunks, W]: the product of a chunk's a; its end, then its start state
    float* state;                  // [B, W], or null in training
    float* h;                      // [B, T, W], contiguous
    const Control* control;
    u64 x_stride, r_stride, i_stride, rows;
    u32 length, width, tokens, chunks;  // tokens: of a chunk, the last may have fewer
};

// The recurrence over a chunk from a state; writes h where it is wanted and returns the last state. The
// logarithm of the decay over the chunk goes to `log_decay`.
__device__ inline float run_chunk(
    const RgLruForward& p, u64 row, u32 chunk, u32 channel, float state, float* h, float* log_decay) {
    const u32 begin = chunk * p.tokens, end = min(p.length, begin + p.tokens);
    const bool fresh = begin == 0 && (!p.state || p.control->position == 0);
    const float rate = -EXPONENT * softplus(p.lambda[channel]);
    float sum = 0.0f;
    for (u32 from = begin; from < end; from += STAGE) {
        float x[STAGE], r[STAGE], i[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 at = row * p.length + min(from + k, end - 1);
            x[k] = p.x[at * p.x_stride + channel];
            r[k] = p.r[at * p.r_stride + channel];
            i[k] = p.i[at * p.i_stride + channel];
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (from + k < end) {
                const Gates gates = gates_of(rate, r[k], i[k], fresh && from + k == 0);
                state = fmaf(gates.a, state, gates.scale * gates.i * x[k]);
                sum += gates.log_a;
                if (h) h[(row * p.length + from + k) * p.width + channel] = state;
            }
        }
    }
    *log_decay = sum;
    return state;
}

KERNEL(256, rg_lru_chunks, RgLruForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 channel = index % p.width, chunk = index / p.width % p.chunks;
    const u64 row = index / p.width / p.chunks;
    if (row >= p.rows) return;
    float log_decay;
    p.carry[index] = run_chunk(p, row, chunk, channel, 0.0f, 0, &log_decay);
    p.decay[index] = expf(log_decay);
}

KERNEL(256, rg_lru_carry, RgLruForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.width, channel = index % p.width;
    if (row >= p.rows) return;
    const u64 base = row * p.chunks * p.width + channel;
    float state = p.state ? p.state[index] : 0.0f;
    for (u32 from = 0; from < p.chunks; from += STAGE) {
        float decay[STAGE], ends[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 at = base + (u64)min(from + k, p.chunks - 1) * p.width;
            decay[k] = p.decay[at];
            ends[k] = p.carry[at];
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (from + k < p.chunks) {
                p.carry[base + (u64)(from + k) * p.width] = state;
                state = fmaf(decay[k], state, ends[k]);
            }
        }
    }
}

KERNEL(256, rg_lru_forward, RgLruForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 channel = index % p.width, chunk = index / p.width % p.chunks;
    const u64 row = index / p.width / p.chunks;
    if (row >= p.rows) return;
    float* place = p.state ? &p.state[row * p.width + channel] : 0;
    float state = p.chunks > 1 ? p.carry[index] : place ? *place : 0.0f;
    float log_decay;
    state = run_chunk(p, row, chunk, channel, state, p.h, &log_decay);
    // Where there are more chunks than this one, `carry` has their starts: nobody else reads the old state.
    if (place && chunk == p.chunks - 1) *place = state;
}

struct RgLruBackward {
    const float *x, *r, *i;  // [B, T, W]
    const float *h, *dh;     // [B, T, W], contiguous
    const float* lambda;     // [W]
    const float* decay;      // [B, chunks, W], of the forward pass
    float* carry;            // [B, chunks, W]: gradient of the state before, then after a chunk; at last lambda's
    float *dx, *dr, *di;     // [B, T, W]
    u64 x_stride, r_stride, i_stride, dx_stride, dr_stride, di_stride, rows;
    u32 length, width, tokens, chunks;
    u32 add_x, add_r, add_i, unused;
};

// The gradient of the state before a chunk, were that of the state after it 0.
KERNEL(256, rg_lru_backward_chunks, RgLruBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 channel = index % p.width, chunk = index / p.width % p.chunks;
    const u64 row = index / p.width / p.chunks;
    if (row >= p.rows) return;
    const u32 begin = chunk * p.tokens, end = min(p.length, begin + p.tokens);
    const float rate = -EXPONENT * softplus(p.lambda[channel]);
    float carried = 0.0f;
    for (u32 to = end; to > begin; to -= min(to - begin, STAGE)) {
        float r[STAGE], dh[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 at = row * p.length + max(to, begin + k + 1) - k - 1;
            r[k] = p.r[at * p.r_stride + channel];
            dh[k] = p.dh[at * p.width + channel];
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (k < to - begin) carried = (dh[k] + carried) * expf(rate * sigmoid(r[k]));
        }
    }
    p.carry[index] = carried;
}

KERNEL(256, rg_lru_backward_carry, RgLruBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.width, channel = index % p.width;
    if (row >= p.rows) return;
    const u64 base = row * p.chunks * p.width + channel;
    float carried = 0.0f;
    for (u32 to = p.chunks; to > 0; to -= min(to, STAGE)) {
        float decay[STAGE], begins[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 at = base + (u64)(max(to, k + 1) - k - 1) * p.width;
            decay[k] = p.decay[at];
            begins[k] = p.carry[at];
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (k < to) {
                p.carry[base + (u64)(to - k - 1) * p.width] = carried;
                carried = fmaf(decay[k], carried, begins[k]);
            }
        }
    }
}

__device__ inline void put(float* place, float value, u32 add) { *place = add ? *place + value : value; }

// What a token's backward pass reads.
struct Token {
    float x, r, i, dh;
    float before;  // the state before it
};

// The gradients of one token, of which the rate's is returned; `g` is the gradient of the state after it.
__device__ inline float token_backward(
    const RgLruBackward& p, u64 at, u32 channel, Token token, const Gates& gates, float rate, float g, bool first) {
    const float a = gates.a;
    // d sqrt(1 - a^2) / d log a = -a^2 / sqrt(1 - a^2), its slope bounded.
    const float root_slope = 1.0f / sqrtf(fmaxf(4.0f * gates.room, 1.0f / (STEEPEST * STEEPEST)));
    const float by_scale = g * gates.i * token.x * root_slope * (-2.0f * a * a);
    // Nothing of the first token's result depends on a.
    const float grad_log_a = first ? 0.0f : fmaf(g * token.before, a, by_scale);
    // One after the other: the three may be one tensor.
    put(&p.dx[at * p.dx_stride + channel], g * gates.scale * gates.i, p.add_x);
    put(&p.dr[at * p.dr_stride + channel], grad_log_a * rate * gates.r * (1.0f - gates.r), p.add_r);
    put(&p.di[at * p.di_stride + channel], g * gates.scale * token.x * gates.i * (1.0f - gates.i), p.add_i);
    return grad_log_a * gates.r;
}

KERNEL(256, rg_lru_backward, RgLruBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 channel = index % p.width, chunk = index / p.width % p.chunks;
    const u64 row = index / p.width / p.chunks;
    if (row >= p.rows) return;
    const u32 begin = chunk * p.tokens, end = min(p.length, begin + p.tokens);
    const float lambda = p.lambda[channel], rate = -EXPONENT * softplus(lambda);
    float carried = p.chunks > 1 ? p.carry[index] : 0.0f;
    float grad_rate = 0.0f;
    for (u32 to = end; to > begin; to -= min(to - begin, STAGE)) {
        Token tokens[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u32 t = max(to, begin + k + 1) - k - 1;
            const u64 at = row * p.length + t;
            tokens[k].x = p.x[at * p.x_stride + channel];
            tokens[k].r = p.r[at * p.r_stride + channel];
            tokens[k].i = p.i[at * p.i_stride + channel];
            tokens[k].dh = p.dh[at * p.width + channel];
            tokens[k].before = t > 0 ? p.h[(at - 1) * p.width + channel] : 0.0f;
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (k < to - begin) {
                const u32 t = to - k - 1;
                const Gates gates = gates_of(rate, tokens[k].r, tokens[k].i, t == 0);
                const float g = tokens[k].dh + carried;
                carried = g * gates.a;
                grad_rate += token_backward(p, row * p.length + t, channel, tokens[k], gates, rate, g, t == 0);
            }
        }
    }
    // The place of the gradient that came in; sums over rows and chunks follow in a fixed order.
    p.carry[index] = -EXPONENT * sigmoid(lambda) * grad_rate;
}
