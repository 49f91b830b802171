// RWKV-4's weighted mean a channel (arXiv 2305.13048, eq. 16) as the mean a of all values so far and the
// logarithm L of their total weight, in which nothing can overflow; a = num / den and L = ln(den) + max of
// the form with a running maximum:
//
//   y  = sigmoid(r) (a + s (v - a))   s = sigmoid(u + k - L)
//   a' = a + z (v - a)                z = sigmoid(k - L - w)    L' = ln(e^(L + w) + e^k)    w = -exp(time_decay)
//
// Tokens go in chunks of 32. wkv4_chunks finds what each chunk adds to an empty state, wkv4_states joins
// them to the state before each chunk, wkv4_outputs goes through every chunk from there. On the way back
// the gradient (da, dL) of the state before a token is an affine function of that after it,
//
//   da = P da' + e    dL = P dL' - Q da' + f,
//
// and so it is for a chunk: wkv4_slopes composes P, Q, e and f over each chunk, wkv4_state_gradients applies
// them from the last chunk to the first, wkv4_gradients goes through every chunk back from there.
//
// One thread a channel of a chunk of a row, neighbours being neighbouring channels; the passes over chunks
// have one a channel of a row. wkv4_gradients keeps a and L of its chunk in shared memory, [2, 32, threads].

#define CHUNK 32
#define AHEAD 8  // chunks whose values the passes over chunks read at a time
#define EMPTY -1e30f  // logarithm of the weight of nothing at all

// Where a thread is: a channel of a chunk of a row.
struct Place {
    u32 row, chunk, channel;
    u32 count;  // tokens of the chunk; 0 where there is no such place
    u64 first;  // index of the first token in [B, T]
    u64 block;  // index of the chunk in [B, chunks]
};

__device__ inline Place place_of(u32 rows, u32 length, u32 channels, u32 chunks) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    Place at;
    at.channel = index % channels;
    at.block = index / channels;
    at.row = at.block / chunks;
    at.chunk = at.block % chunks;
    at.first = (u64)at.row * length + at.chunk * CHUNK;
    at.count = at.row < rows ? min(length - at.chunk * CHUNK, (u32)CHUNK) : 0u;
    return at;
}

// The share of weight e^k in e^k + e^level; level becomes the logarithm of the sum.
__device__ inline float join(float& level, float k) {
    const float e = expf(-fabsf(k - level));
    const float larger = fast_reciprocal(1.0f + e);
    const float share = k >= level ? larger : e * larger;
    level = fmaxf(level, k) + log1pf(e);
    return share;
}

KERNEL(128, wkv4_chunks, Wkv4Forward) {
    const Place at = place_of(p.rows, p.length, p.channels, p.chunks);
    if (at.count == 0) return;
    const float w = -expf(p.time_decay[at.channel]);
    const stored* __restrict__ k = p.k + at.first * p.k_stride + at.channel;
    const stored* __restrict__ v = p.v + at.first * p.v_stride + at.channel;
    float a = 0.0f, level = EMPTY;
#pragma unroll 4
    for (u32 t = 0; t < at.count; t++) {
        level += w;
        const float z = join(level, k[t * p.k_stride]);
        a += z * (v[t * p.v_stride] - a);
    }
    float* state = p.states + at.block * 2 * p.channels + at.channel;
    state[0] = a;
    state[p.channels] = level;
}

KERNEL(128, wkv4_states, Wkv4Forward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.channels, channel = index % p.channels;
    if (row >= p.rows) return;
    const float w = -expf(p.time_decay[channel]);
    float a = p.mean ? p.mean[index] : 0.0f, level = p.mean ? p.level[index] : EMPTY;
    float* states = p.states + row * p.chunks * 2 * p.channels + channel;
    // What some chunks add is on its way together before the first of them is joined.
    for (u32 first = 0; first < p.chunks; first += AHEAD) {
        float own[AHEAD], own_level[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++)
            if (first + i < p.chunks) {
                const float* state = states + (first + i) * 2ull * p.channels;
                own[i] = state[0];
                own_level[i] = state[p.channels];
            }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++)
            if (first + i < p.chunks) {
                float* state = states + (first + i) * 2ull * p.channels;
                state[0] = a;
                state[p.channels] = level;
                level += w * min(p.length - (first + i) * CHUNK, (u32)CHUNK);
                a += join(level, own_level[i]) * (own[i] - a);
            }
    }
    if (p.mean) {
        p.mean[index] = a;
        p.level[index] = level;
    }
}

KERNEL(128, wkv4_outputs, Wkv4Forward) {
    const Place at = place_of(p.rows, p.length, p.channels, p.chunks);
    if (at.count == 0) return;
    const float w = -expf(p.time_decay[at.channel]), u = p.time_first[at.channel];
    const stored* __restrict__ k = p.k + at.first * p.k_stride + at.channel;
    const stored* __restrict__ v = p.v + at.first * p.v_stride + at.channel;
    const stored* __restrict__ r = p.r + at.first * p.r_stride + at.channel;
    stored* __restrict__ y = p.y + at.first * p.channels + at.channel;
    const float* state = p.states + at.block * 2 * p.channels + at.channel;
    float a = state[0], level = state[p.channels];
#pragma unroll 4
    for (u32 t = 0; t < at.count; t++) {
        const float key = k[t * p.k_stride], ahead = v[t * p.v_stride] - a;
        y[t * (u64)p.channels] = sigmoid(r[t * p.r_stride]) * (a + sigmoid(u + key - level) * ahead);
        level += w;
        a += join(level, key) * ahead;
    }
}

KERNEL(128, wkv4_slopes, Wkv4Gradients) {
    const Place at = place_of(p.rows, p.length, p.channels, p.chunks);
    if (at.count == 0) return;
    const float w = -expf(p.time_decay[at.channel]), u = p.time_first[at.channel];
    const stored* __restrict__ k = p.k + at.first * p.k_stride + at.channel;
    const stored* __restrict__ v = p.v + at.first * p.v_stride + at.channel;
    const stored* __restrict__ r = p.r + at.first * p.r_stride + at.channel;
    const stored* __restrict__ dy = p.dy + at.first * p.channels + at.channel;
    const float* state = p.states + at.block * 2 * p.channels + at.channel;
    float a = state[0], level = state[p.channels];
    // The functions of the tokens so far, the first applied last.
    float P = 1.0f, Q = 0.0f, e = 0.0f, f = 0.0f;
#pragma unroll 4
    for (u32 t = 0; t < at.count; t++) {
        const float key = k[t * p.k_stride], ahead = v[t * p.v_stride] - a;
        const float s = sigmoid(u + key - level), g = dy[t * (u64)p.channels] * sigmoid(r[t * p.r_stride]);
        level += w;
        const float z = join(level, key);
        const float by_mean = g * (1.0f - s), by_level = -g * ahead * s * (1.0f - s);
        f += P * by_level - Q * by_mean;
        e += P * by_mean;
        Q = P * ahead * z * (1.0f - z) + Q * (1.0f - z);
        P *= 1.0f - z;
        a += z * ahead;
    }
    float* slopes = p.slopes + at.block * 4 * p.channels + at.channel;
    slopes[0] = P;
    slopes[p.channels] = Q;
    slopes[2 * (u64)p.channels] = e;
    slopes[3 * (u64)p.channels] = f;
}

KERNEL(128, wkv4_state_gradients, Wkv4Gradients) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.channels, channel = index % p.channels;
    if (row >= p.rows) return;
    float grad_a = 0.0f, grad_level = 0.0f;
    for (u32 done = 0; done < p.chunks; done += AHEAD) {
        float P[AHEAD], Q[AHEAD], e[AHEAD], f[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++)
            if (done + i < p.chunks) {
                const float* slopes = p.slopes + (row * p.chunks + p.chunks - 1 - done - i) * 4 * p.channels + channel;
                P[i] = slopes[0];
                Q[i] = slopes[p.channels];
                e[i] = slopes[2 * (u64)p.channels];
                f[i] = slopes[3 * (u64)p.channels];
            }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++)
            if (done + i < p.chunks) {
                float* slopes = p.slopes + (row * p.chunks + p.chunks - 1 - done - i) * 4 * p.channels + channel;
                slopes[0] = grad_a;
                slopes[p.channels] = grad_level;
                grad_level = P[i] * grad_level - Q[i] * grad_a + f[i];
                grad_a = P[i] * grad_a + e[i];
            }
    }
}

KERNEL(128, wkv4_gradients, Wkv4Gradients) {
    SHARED(kept);  // [2, CHUNK, threads]: a and L before each token
    const Place at = place_of(p.rows, p.length, p.channels, p.chunks);
    if (at.count == 0) return;
    const float w = -expf(p.time_decay[at.channel]), u = p.time_first[at.channel];
    const stored* __restrict__ k = p.k + at.first * p.k_stride + at.channel;
    const stored* __restrict__ v = p.v + at.first * p.v_stride + at.channel;
    const stored* __restrict__ r = p.r + at.first * p.r_stride + at.channel;
    const stored* __restrict__ dy = p.dy + at.first * p.channels + at.channel;
    const float* state = p.states + at.block * 2 * p.channels + at.channel;
    float *means = kept + threadIdx.x, *levels = means + CHUNK * blockDim.x;
    float a = state[0], level = state[p.channels];
    for (u32 t = 0; t < at.count; t++) {
        means[t * blockDim.x] = a;
        levels[t * blockDim.x] = level;
        level += w;
        a += join(level, k[t * p.k_stride]) * (v[t * p.v_stride] - a);
    }
    float* slopes = p.slopes + at.block * 4 * p.channels + at.channel;
    float grad_a = slopes[0], grad_level = slopes[p.channels], grad_w = 0.0f, grad_u = 0.0f;
    for (u32 left = at.count; left > 0; left--) {
        const u32 t = left - 1;
        const float mean = means[t * blockDim.x], before = levels[t * blockDim.x];
        const float key = k[t * p.k_stride], ahead = v[t * p.v_stride] - mean;
        const float gate = sigmoid(r[t * p.r_stride]), s = sigmoid(u + key - before);
        float after = before + w;
        const float z = join(after, key), out = dy[t * (u64)p.channels], g = out * gate;
        const float by_now = g * ahead * s * (1.0f - s), by_later = grad_a * ahead * z * (1.0f - z);
        const float faded = grad_level * (1.0f - z) - by_later;
        const u64 token = at.first + t;
        leave(&p.grad_r[token * p.grad_r_stride + at.channel], out * (mean + s * ahead) * gate * (1.0f - gate), p.add_r);
        leave(&p.grad_k[token * p.grad_k_stride + at.channel], grad_level * z + by_now + by_later, p.add_k);
        leave(&p.grad_v[token * p.grad_v_stride + at.channel], g * s + grad_a * z, p.add_v);
        grad_u += by_now;
        grad_w += faded;
        grad_a = g * (1.0f - s) + grad_a * (1.0f - z);
        grad_level = faded - by_now;
    }
    // w = -exp(time_decay), so dw / dtime_decay = w.
    slopes[2 * (u64)p.channels] = grad_w * w;
    slopes[3 * (u64)p.channels] = grad_u;
}
