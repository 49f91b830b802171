// Diagonal systems of one input and one output each, N complex states a channel: x = a x + u, y = Re sum c x. Arrays of
// complex numbers are [2, N, H], real parts before imaginary ones.
//
// Grid: a warp a sequence and channel, 4 warps a block; a lane has a state, more than 32 go round, one group of 32
// after the other through all tokens. Sequential in time. The states that chunks of 16 tokens begin with are kept;
// backward computes those between again, in registers. No shared memory; any N, any length.

#define CHUNK 16u

struct Number {
    float re, im;
};

template <class T>
__device__ inline Number number_at(const T* values, u64 half, u64 place) { return {values[place], values[half + place]}; }

__device__ inline void put_number(float* values, u64 half, u64 place, Number number) {
    values[place] = number.re;
    values[half + place] = number.im;
}

// a x + u
__device__ inline Number next(Number a, Number x, float u) {
    return {fmaf(a.re, x.re, fmaf(-a.im, x.im, u)), fmaf(a.re, x.im, a.im * x.re)};
}

KERNEL(128, diagonal_systems_forward, SystemsForward) {
    const u64 warp = blockIdx.x * (u64)(blockDim.x / WARP) + threadIdx.x / WARP, row = warp / p.channels;
    const u32 channel = warp % p.channels, lane = threadIdx.x % WARP;
    // Whole warps leave.
    if (row >= p.rows) return;
    const u64 half = (u64)p.states * p.channels, chunks = (p.length + CHUNK - 1) / CHUNK;
    for (u32 first = 0; first < p.states; first += WARP) {
        const bool own = first + lane < p.states;
        const u64 place = (u64)(first + lane) * p.channels + channel;
        Number a = {0.0f, 0.0f}, c = {0.0f, 0.0f}, x = {0.0f, 0.0f};
        if (own) {
            a = number_at(p.a, half, place);
            c = number_at(p.c, half, place);
            if (p.state) x = number_at(p.state + row * 2 * half, half, place);
        }
        for (u32 t = 0; t < p.length; t++) {
            const u64 token = row * p.length + t;
            if (p.kept && own && t % CHUNK == 0) put_number(p.kept + (row * chunks + t / CHUNK) * 2 * half, half, place, x);
            x = next(a, x, own ? p.u[token * p.u_stride + channel] : 0.0f);
            const float y = warp_sum(fmaf(c.re, x.re, -(c.im * x.im)));
            if (lane == 0) leave(&p.y[token * p.channels + channel], y, first);
        }
        if (p.state && own) put_number(p.state + row * 2 * half, half, place, x);
    }
}

KERNEL(128, diagonal_systems_backward, SystemsBackward) {
    const u64 warp = blockIdx.x * (u64)(blockDim.x / WARP) + threadIdx.x / WARP, row = warp / p.channels;
    const u32 channel = warp % p.channels, lane = threadIdx.x % WARP;
    if (row >= p.rows) return;
    const u64 half = (u64)p.states * p.channels;
    const u32 chunks = (p.length + CHUNK - 1) / CHUNK;
    for (u32 first = 0; first < p.states; first += WARP) {
        const bool own = first + lane < p.states;
        const u64 place = (u64)(first + lane) * p.channels + channel;
        Number a = {0.0f, 0.0f}, c = a, carried = a, share_a = a, share_c = a;
        if (own) {
            a = number_at(p.a, half, place);
            c = number_at(p.c, half, place);
        }
        for (u32 chunk = chunks; chunk-- > 0;) {
            const u32 begin = chunk * CHUNK;
            // The states before each token and after the last.
            Number states[CHUNK + 1];
            states[0] = {0.0f, 0.0f};
            if (own) states[0] = number_at(p.kept + (row * chunks + chunk) * 2 * half, half, place);
#pragma unroll
            for (u32 k = 0; k < CHUNK; k++) {
                const u32 t = min(begin + k, p.length - 1);
                states[k + 1] = next(a, states[k], own ? p.u[(row * p.length + t) * p.u_stride + channel] : 0.0f);
            }
#pragma unroll
            for (u32 back = 0; back < CHUNK; back++) {
                const u32 k = CHUNK - 1 - back;
                if (begin + k < p.length) {
                    const u64 token = row * p.length + begin + k;
                    const float dy = p.dy[token * p.channels + channel];
                    share_c.re = fmaf(dy, states[k + 1].re, share_c.re);
                    share_c.im = fmaf(-dy, states[k + 1].im, share_c.im);
                    const Number g = {fmaf(dy, c.re, carried.re), fmaf(-dy, c.im, carried.im)};
                    share_a.re = fmaf(g.re, states[k].re, fmaf(g.im, states[k].im, share_a.re));
                    share_a.im = fmaf(g.im, states[k].re, fmaf(-g.re, states[k].im, share_a.im));
                    carried = {fmaf(a.re, g.re, a.im * g.im), fmaf(a.re, g.im, -(a.im * g.re))};
                    const float du = warp_sum(own ? g.re : 0.0f);
                    if (lane == 0) leave(&p.du[token * p.du_stride + channel], du, first || p.add);
                }
            }
        }
        if (own) {
            put_number(p.share_a + row * 2 * half, half, place, share_a);
            put_number(p.share_c + row * 2 * half, half, place, share_c);
        }
    }
}
