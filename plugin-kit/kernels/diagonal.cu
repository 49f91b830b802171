// The diagonal scan h = a h + b, channel by channel, with a given as it is, as its logarithm, or complex: real parts
// in the first half of a row and imaginary parts in the second. A constant a has a stride of 0.
//
// Tokens are cut in chunks so that few rows of few channels still fill a card: _chunks finds what a chunk makes of a
// state 0 and how much of another state it keeps, _carry takes states from chunk to chunk, _forward goes through the
// tokens again from the right state and writes h. Where one chunk is enough only the last runs. Backward is the same
// from the last token to the first, with the gradient of the state in the state's place.
//
// Grid: one thread a row, chunk and channel (a row and channel in the carries), 256 a block, neighbouring threads on
// neighbouring channels. No shared memory; any width, any length.

// Tokens, or chunks in the carries, whose values are read together, so that the reads overlap.
#define STAGE 4u

struct Complex {
    float re, im;
};

// What a channel's numbers are made of: rows have this many values for each.
template <class N> struct Values;
template <> struct Values<float> { enum { COUNT = 1 }; };
template <> struct Values<Complex> { enum { COUNT = 2 }; };

template <class T>
__device__ inline float get(const T* row, u32, float) { return *row; }
template <class T>
__device__ inline Complex get(const T* row, u32 channels, Complex) { return {row[0], row[channels]}; }

// The number of a channel, `row` being the place of its (real) value.
template <class N, class T>
__device__ inline N get(const T* row, u32 channels) { return get(row, channels, N()); }

template <class T>
__device__ inline void put(T* row, u32, float value, u32 add) { leave(row, value, add); }
template <class T>
__device__ inline void put(T* row, u32 channels, Complex value, u32 add) {
    leave(row, value.re, add);
    leave(row + channels, value.im, add);
}

// x y + z
__device__ inline float multiply_add(float x, float y, float z) { return fmaf(x, y, z); }
__device__ inline Complex multiply_add(Complex x, Complex y, Complex z) {
    return {fmaf(x.re, y.re, fmaf(-x.im, y.im, z.re)), fmaf(x.re, y.im, fmaf(x.im, y.re, z.im))};
}

__device__ inline float sum(float x, float y) { return x + y; }
__device__ inline Complex sum(Complex x, Complex y) { return {x.re + y.re, x.im + y.im}; }

__device__ inline float conjugate(float x) { return x; }
__device__ inline Complex conjugate(Complex x) { return {x.re, -x.im}; }

__device__ inline void set(float* x, float value) { *x = value; }
__device__ inline void set(Complex* x, float value) { *x = {value, 0.0f}; }

// a from what is given of it, and the factor from its gradient to that of what is given.
__device__ inline float transition(float a, u32 log) { return log ? expf(a) : a; }
__device__ inline Complex transition(Complex a, u32) { return a; }
__device__ inline float slope(float a, u32 log) { return log ? a : 1.0f; }
__device__ inline Complex slope(Complex, u32) { return {1.0f, 0.0f}; }

// A thread's row, chunk and channel.
struct Place {
    u64 row;
    u32 chunk, channel;
};

__device__ inline Place place_of(u32 channels, u32 chunks) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    return {index / channels / chunks, (u32)(index / channels % chunks), (u32)(index % channels)};
}

// The recurrence over a chunk from a state; writes h where it is wanted and returns the last state. The product of
// its a goes to `decay`.
template <class N>
__device__ inline N run_chunk(const DiagonalForward& p, Place at, N state, stored* h, N* decay) {
    const u32 begin = at.chunk * p.tokens, end = min(p.length, begin + p.tokens);
    const u64 width = (u64)Values<N>::COUNT * p.channels;
    N zero;
    set(&zero, 0.0f);
    set(decay, 1.0f);
    for (u32 from = begin; from < end; from += STAGE) {
        N a[STAGE], b[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 token = at.row * p.length + min(from + k, end - 1);
            a[k] = get<N>(p.a + token * p.a_stride + at.channel, p.channels);
            b[k] = get<N>(p.b + token * p.b_stride + at.channel, p.channels);
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (from + k < end) {
                const N factor = transition(a[k], p.log);
                state = multiply_add(factor, state, b[k]);
                *decay = multiply_add(factor, *decay, zero);
                if (h) put(h + (at.row * p.length + from + k) * width + at.channel, p.channels, state, 0);
            }
        }
    }
    return state;
}

template <class N>
__device__ inline void chunks(const DiagonalForward& p) {
    const Place at = place_of(p.channels, p.chunks);
    if (at.row >= p.rows) return;
    const u64 place = (at.row * p.chunks + at.chunk) * Values<N>::COUNT * p.channels + at.channel;
    N decay, state;
    set(&state, 0.0f);
    put(p.carry + place, p.channels, run_chunk<N>(p, at, state, 0, &decay), 0);
    put(p.decay + place, p.channels, decay, 0);
}

template <class N>
__device__ inline void carry(const DiagonalForward& p) {
    const Place at = place_of(p.channels, 1);
    if (at.row >= p.rows) return;
    const u64 width = (u64)Values<N>::COUNT * p.channels, base = at.row * p.chunks * width + at.channel;
    N state;
    set(&state, 0.0f);
    if (p.state) state = get<N>(p.state + at.row * width + at.channel, p.channels);
    for (u32 from = 0; from < p.chunks; from += STAGE) {
        N decay[STAGE], ends[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 place = base + (u64)min(from + k, p.chunks - 1) * width;
            decay[k] = get<N>(p.decay + place, p.channels);
            ends[k] = get<N>(p.carry + place, p.channels);
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (from + k < p.chunks) {
                put(p.carry + base + (u64)(from + k) * width, p.channels, state, 0);
                state = multiply_add(decay[k], state, ends[k]);
            }
        }
    }
}

template <class N>
__device__ inline void forward(const DiagonalForward& p) {
    const Place at = place_of(p.channels, p.chunks);
    if (at.row >= p.rows) return;
    const u64 width = (u64)Values<N>::COUNT * p.channels;
    float* place = p.state ? p.state + at.row * width + at.channel : 0;
    N state, decay;
    set(&state, 0.0f);
    if (p.chunks > 1)
        state = get<N>(p.carry + (at.row * p.chunks + at.chunk) * width + at.channel, p.channels);
    else if (place)
        state = get<N>(place, p.channels);
    state = run_chunk<N>(p, at, state, p.h, &decay);
    // Where there are more chunks than this one, `carry` has their starts: nobody else reads the old state.
    if (place && at.chunk == p.chunks - 1) put(place, p.channels, state, 0);
}

KERNEL(256, diagonal_real_chunks, DiagonalForward) { chunks<float>(p); }
KERNEL(256, diagonal_real_carry, DiagonalForward) { carry<float>(p); }
KERNEL(256, diagonal_real_forward, DiagonalForward) { forward<float>(p); }
KERNEL(256, diagonal_complex_chunks, DiagonalForward) { chunks<Complex>(p); }
KERNEL(256, diagonal_complex_carry, DiagonalForward) { carry<Complex>(p); }
KERNEL(256, diagonal_complex_forward, DiagonalForward) { forward<Complex>(p); }

// The gradient of the state before a chunk, were that of the state after it 0.
template <class N>
__device__ inline void backward_chunks(const DiagonalBackward& p) {
    const Place at = place_of(p.channels, p.chunks);
    if (at.row >= p.rows) return;
    const u32 begin = at.chunk * p.tokens, end = min(p.length, begin + p.tokens);
    const u64 width = (u64)Values<N>::COUNT * p.channels;
    N carried, zero;
    set(&carried, 0.0f);
    set(&zero, 0.0f);
    for (u32 to = end; to > begin; to -= min(to - begin, STAGE)) {
        N a[STAGE], dh[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 token = at.row * p.length + max(to, begin + k + 1) - k - 1;
            a[k] = get<N>(p.a + token * p.a_stride + at.channel, p.channels);
            dh[k] = get<N>(p.dh + token * width + at.channel, p.channels);
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (k < to - begin) carried = multiply_add(conjugate(transition(a[k], p.log)), sum(dh[k], carried), zero);
        }
    }
    put(p.carry + (at.row * p.chunks + at.chunk) * width + at.channel, p.channels, carried, 0);
}

template <class N>
__device__ inline void backward_carry(const DiagonalBackward& p) {
    const Place at = place_of(p.channels, 1);
    if (at.row >= p.rows) return;
    const u64 width = (u64)Values<N>::COUNT * p.channels, base = at.row * p.chunks * width + at.channel;
    N carried;
    set(&carried, 0.0f);
    for (u32 to = p.chunks; to > 0; to -= min(to, STAGE)) {
        N decay[STAGE], begins[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 place = base + (u64)(max(to, k + 1) - k - 1) * width;
            decay[k] = get<N>(p.decay + place, p.channels);
            begins[k] = get<N>(p.carry + place, p.channels);
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (k < to) {
                put(p.carry + base + (u64)(to - k - 1) * width, p.channels, carried, 0);
                carried = multiply_add(conjugate(decay[k]), carried, begins[k]);
            }
        }
    }
}

template <class N>
__device__ inline void backward(const DiagonalBackward& p) {
    const Place at = place_of(p.channels, p.chunks);
    if (at.row >= p.rows) return;
    const u32 begin = at.chunk * p.tokens, end = min(p.length, begin + p.tokens);
    const u64 width = (u64)Values<N>::COUNT * p.channels;
    float* shared = p.carry + (at.row * p.chunks + at.chunk) * width + at.channel;
    N carried, zero, share;
    set(&carried, 0.0f);
    set(&zero, 0.0f);
    set(&share, 0.0f);
    if (p.chunks > 1) carried = get<N>(shared, p.channels);
    for (u32 to = end; to > begin; to -= min(to - begin, STAGE)) {
        N a[STAGE], dh[STAGE], before[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u32 t = max(to, begin + k + 1) - k - 1;
            const u64 token = at.row * p.length + t;
            a[k] = get<N>(p.a + token * p.a_stride + at.channel, p.channels);
            dh[k] = get<N>(p.dh + token * width + at.channel, p.channels);
            before[k] = t > 0 ? get<N>(p.h + (token - 1) * width + at.channel, p.channels) : zero;
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (k < to - begin) {
                const u64 token = at.row * p.length + to - k - 1;
                const N factor = transition(a[k], p.log), grad = sum(dh[k], carried);
                carried = multiply_add(conjugate(factor), grad, zero);
                const N by_state = multiply_add(conjugate(before[k]), grad, zero);
                const N own = multiply_add(slope(factor, p.log), by_state, zero);
                // a before b, as their places were asked for: the two may be one tensor.
                if (p.constant)
                    share = sum(share, own);
                else
                    put(p.da + token * p.da_stride + at.channel, p.channels, own, p.add_a);
                put(p.db + token * p.db_stride + at.channel, p.channels, grad, p.add_b);
            }
        }
    }
    // The place of the gradient that came in; sums over rows and chunks follow in a fixed order.
    if (p.constant) put(shared, p.channels, share, 0);
}

KERNEL(256, diagonal_real_backward_chunks, DiagonalBackward) { backward_chunks<float>(p); }
KERNEL(256, diagonal_real_backward_carry, DiagonalBackward) { backward_carry<float>(p); }
KERNEL(256, diagonal_real_backward, DiagonalBackward) { backward<float>(p); }
KERNEL(256, diagonal_complex_backward_chunks, DiagonalBackward) { backward_chunks<Complex>(p); }
KERNEL(256, diagonal_complex_backward_carry, DiagonalBackward) { backward_carry<Complex>(p); }
KERNEL(256, diagonal_complex_backward, DiagonalBackward) { backward<Complex>(p); }
