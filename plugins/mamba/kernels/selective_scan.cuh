// The selective scan of Mamba (arXiv 2312.00752, eq. 2 and algorithm 2, with the Euler step for B as in the
// official code) and its gradients. Per channel c and state n, with A = -exp(a_log) and
// dt = softplus(delta):
//
//     h[t] = decay[t] h[t-1] + dt[t] u[t, c] B[t, n],  decay = exp(dt A), or 2 exp(dt A) - 1 (arXiv 2411.12537),
//     y[t, c] = sum_n C[t, n] h[t] + D[c] u[t, c].
//
// The recurrence is affine in h, so a sequence is cut into chunks: `scan_ends` finds the state that each chunk
// reaches from 0 and the product of its decays, `scan_carry` goes over the chunks and leaves the state that each
// starts from, and `scan_outputs` goes through the chunks again from there. One chunk needs `scan_outputs` only:
// where rows and channels alone keep a card busy, the whole sequence is one. In training the state before every
// 32 tokens is kept. Backward is the same in reverse, `scan_grad_ends` and `scan_grad_carry`, and then
// `scan_gradients` finds the states inside 32 tokens again from the kept ones. Nothing of size [B, T, d, N] is
// ever in memory.
//
// Blocks are 4 warps over one chunk of 32 channels. Lanes are neighbouring channels, so that activations are
// read in whole lines; warps share the states, 4 of 16 at a time each, which stay in registers; tokens go by
// in tiles of 8, also in registers. B and C of a tile are in shared memory, transposed, and read four tokens
// at a time. More than 16 states take turns, their sums meeting in y or the gradients; the ends of chunks have
// them beside each other in grid y. Tokens past the end have dt = 0, u = 0 and dy = 0, which leave h and its
// gradient as they are. Sums over channels are butterflies in a warp, parts of 32 channels each, which
// `scan_sum_units` adds up in order. Shared values: at most 9120, which is 36 KiB, for any number of states and
// channels; fours in it are aligned because it begins at 16 bytes.

#define WARPS 4
#define THREADS (WARPS * WARP)
#define PIECE 32
#define TILE 8
#define GROUP 16
#define OWN (GROUP / WARPS)
// Chunks whose ends are read together, since each store may be to what the next read is of.
#define AHEAD 8
// Values from a state's tokens to the next state's: some banks further, and still whole fours.
#define TILE_ROOM (TILE + 4)
#define PIECE_ROOM (PIECE + 4)
#define A_ROOM (WARP + 1)
#define LOG2_E 1.44269504f
#define LN_2 0.69314718f

struct alignas(16) Four {
    float of[4];
};

__device__ inline Four four(const float* from) { return *reinterpret_cast<const Four*>(from); }

// Chunks of a sequence.
template <class Params>
__device__ inline u32 chunks_of(const Params& p) { return (p.length + p.chunk - 1) / p.chunk; }

// What a block works on. Its channels are unit * 32 and on, its tokens chunk * p.chunk and on.
struct Place {
    u64 row, base;  // base: the chunk's first token in [B, T]
    u32 unit, chunk, chunks, units, count, lane, warp, channel;
};

// Blocks take all chunks but `left_out`, from `first_chunk` on.
template <class Params>
__device__ inline Place place_of(const Params& p, u32 first_chunk, u32 left_out) {
    Place at;
    at.units = (p.channels + WARP - 1) / WARP;
    at.chunks = chunks_of(p);
    at.unit = blockIdx.x % at.units;
    at.chunk = first_chunk + blockIdx.x / at.units % (at.chunks - left_out);
    at.row = blockIdx.x / at.units / (at.chunks - left_out);
    at.base = at.row * p.length + (u64)at.chunk * p.chunk;
    at.count = min(p.length - at.chunk * p.chunk, p.chunk);
    at.lane = threadIdx.x % WARP;
    at.warp = threadIdx.x / WARP;
    at.channel = at.unit * WARP + at.lane;
    return at;
}

// What is left of a state after a token: exp(dt A), or 2 exp(dt A) - 1.
struct Decay {
    float scale, shift;
    __device__ float by(float power) const { return fmaf(power, scale, shift); }
};

__device__ inline Decay decay_of(u32 negative) {
    if (negative) return {2.0f, -1.0f};
    return {1.0f, 0.0f};
}

// A thread's values of an activation: of `COUNT` tokens, every LINES-th. All are read before the first is kept, so that
// their ways through memory overlap; what a block reads next is on its way while it computes.
template <int COUNT, u32 LINES>
struct Ahead {
    const stored* from;  // of the first token of this thread, in its column
    u64 step;            // from token to token
    u32 line;            // that token
    bool alive;          // whether there is such a column
    float of[COUNT] = {};

    // Tokens start.. of the chunk; 0 past the last.
    __device__ inline void read(Place at, u32 start) {
        const stored* place = from + start * step;
#pragma unroll
        for (int i = 0; i < COUNT; i++) of[i] = alive && start + line + i * LINES < at.count ? place[i * LINES * step] : 0.0f;
    }
};

// Of the block's channels, which lie [tokens, 32] in shared memory. A thread writes what it alone reads in loops over
// `warp, warp + WARPS, ..`.
template <int COUNT>
struct Channels : Ahead<COUNT, WARPS> {
    __device__ inline Channels(const stored* x, u64 stride, Place at, u32 channels)
        : Ahead<COUNT, WARPS>{x + (at.base + at.warp) * stride + at.channel, stride, at.warp, at.channel < channels} {}

    __device__ inline void keep(float* to, Place at) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) to[(at.warp + i * WARPS) * WARP + at.lane] = this->of[i];
    }

    // Of delta, as steps; that of a token which is not there is 0.
    __device__ inline void keep_steps(float* to, Place at, u32 start) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const bool there = this->alive && start + this->line + i * WARPS < at.count;
            to[(at.warp + i * WARPS) * WARP + at.lane] = there ? softplus(this->of[i]) : 0.0f;
        }
    }
};

// Of a group's columns of B or C, which lie turned, [GROUP, room].
template <int COUNT>
struct States : Ahead<COUNT, THREADS / GROUP> {
    __device__ inline States(const stored* x, u64 stride, Place at, u32 first, u32 states)
        : Ahead<COUNT, THREADS / GROUP>{x + (at.base + threadIdx.x / GROUP) * stride + first + threadIdx.x % GROUP, stride,
                                        threadIdx.x / GROUP, first + threadIdx.x % GROUP < states} {}

    __device__ inline void keep(float* to, u32 room) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) to[threadIdx.x % GROUP * room + threadIdx.x / GROUP + i * (THREADS / GROUP)] = this->of[i];
    }
};

// A tile of what is kept of channels, in registers.
__device__ inline void take_tile(float (&to)[TILE], const float* from, u32 lane) {
#pragma unroll
    for (int i = 0; i < TILE; i++) to[i] = from[i * WARP + lane];
}

// log2(e) A of a group and the block's channels, [GROUP, A_ROOM], so that exp(dt A) is one exp2.
__device__ inline void stage_a(float* to, const float* a_log, Place at, u32 first, u32 states, u32 channels) {
    for (u32 i = threadIdx.x; i < WARP * GROUP; i += THREADS) {
        const u32 c = i / GROUP, n = i % GROUP, channel = at.unit * WARP + c;
        const bool there = channel < channels && first + n < states;
        to[n * A_ROOM + c] = there ? -LOG2_E * expf(a_log[(u64)channel * states + first + n]) : 0.0f;
    }
}

// A thread's values of a group of states, from or to [N, d]; 0 where there is no such state or channel, or
// nothing to read from.
__device__ inline void load_own(float (&own)[OWN], const float* from, Place at, u32 first, u32 states, u32 channels) {
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        const u32 n = first + k * WARPS + at.warp;
        own[k] = from && n < states && at.channel < channels ? from[(u64)n * channels + at.channel] : 0.0f;
    }
}

__device__ inline void store_own(float* to, const float (&own)[OWN], Place at, u32 first, u32 states, u32 channels) {
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        const u32 n = first + k * WARPS + at.warp;
        if (n < states && at.channel < channels) to[(u64)n * channels + at.channel] = own[k];
    }
}

// What the passes to the ends of chunks have in shared memory: A of a group of states and a tile of the steps,
// of u or dy, and of B or C.
struct EndsRoom {
    float* steps;   // [TILE, 32]
    float* inputs;  // [TILE, 32]
    float* states;  // [GROUP, TILE_ROOM]
    float* as;      // [GROUP, A_ROOM]
};

__device__ inline EndsRoom ends_room_of(float* shared) {
    EndsRoom room;
    room.steps = shared;
    room.inputs = room.steps + TILE * WARP;
    room.states = room.inputs + TILE * WARP;
    room.as = room.states + GROUP * TILE_ROOM;
    return room;
}
