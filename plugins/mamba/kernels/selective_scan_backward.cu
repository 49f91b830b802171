// The selective scan's gradients, see selective_scan.cuh, which is in front of this. With g the gradient of
// h[t] and `power` exp(dt A), scale 1 or 2:
//
//     g[t] = C[t] dy[t] + decay[t+1] g[t+1],
//     dB[t] = sum_c g dt u,  dC[t] = sum_c dy h[t],  dD = sum_t dy u,
//     dA = sum_t g h[t-1] scale power dt,  du = dy D + dt sum_n g B,
//     ddelta = (u sum_n g B + sum_n g h[t-1] scale power A) sigmoid(delta).

// What each chunk but the first does by itself to the gradient of the state before it.
// Shared: 2 [8, 32] + [16, 12] + [16, 33].
KERNEL(THREADS, scan_grad_ends, ScanBackward) {
    SHARED(shared);
    const EndsRoom room = ends_room_of(shared);
    const u32 first = blockIdx.y * GROUP;
    const Place at = place_of(p, 1, 1);
    const Decay decay = decay_of(p.negative);
    float g[OWN];
#pragma unroll
    for (int k = 0; k < OWN; k++) g[k] = 0.0f;
    stage_a(room.as, p.a_log, at, first, p.states, p.channels);
    Channels<TILE / WARPS> steps(p.delta, p.delta_stride, at, p.channels), inputs(p.dy, p.dy_stride, at, p.channels);
    States<TILE * GROUP / THREADS> cs(p.c, p.c_stride, at, first, p.states);
    const u32 last = (at.count - 1) / TILE * TILE;
    steps.read(at, last), inputs.read(at, last), cs.read(at, last);
    for (u32 left = last / TILE + 1; left > 0; left--) {
        const u32 start = (left - 1) * TILE, next = start > 0 ? start - TILE : 0;
        steps.keep_steps(room.steps, at, start), inputs.keep(room.inputs, at), cs.keep(room.states, TILE_ROOM);
        steps.read(at, next), inputs.read(at, next), cs.read(at, next);
        __syncthreads();
        float step[TILE], dy[TILE];
        take_tile(step, room.steps, at.lane);
        take_tile(dy, room.inputs, at.lane);
#pragma unroll
        for (int k = 0; k < OWN; k++) {
            const u32 n = k * WARPS + at.warp;
            const float a = room.as[n * A_ROOM + at.lane];
#pragma unroll
            for (int quad = TILE - 4; quad >= 0; quad -= 4) {
                const Four c = four(room.states + n * TILE_ROOM + quad);
#pragma unroll
                for (int i = 3; i >= 0; i--)
                    g[k] = decay.by(fast_exp2(step[quad + i] * a)) * fmaf(c.of[i], dy[quad + i], g[k]);
            }
        }
        // The next tile takes the place of this one.
        __syncthreads();
    }
    float* const ends = p.ends + (at.row * at.chunks + at.chunk) * p.states * p.channels;
    store_own(ends, g, at, first, p.states, p.channels);
}

// From those to the gradient of the state after each chunk; one thread a row, state and channel.
KERNEL(256, scan_grad_carry, ScanBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 values = (u64)p.states * p.channels, row = index / values;
    if (row >= p.rows) return;
    const u32 chunks = chunks_of(p);
    float* const ends = p.ends + row * chunks * values + index % values;
    const float* const products = p.products + row * chunks * values + index % values;
    float g = 0.0f;
    for (u32 from = 0; from < chunks; from += AHEAD) {
        float end[AHEAD], product[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            // Nobody asks what comes out of the first chunk, and nothing goes into the last.
            const u32 left = chunks - min(chunks, from + i);
            end[i] = left > 1 ? ends[(left - 1) * values] : 0.0f;
            product[i] = left > 1 && left < chunks ? products[(left - 1) * values] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (from + i < chunks) ends[(chunks - 1 - from - i) * values] = g;
            g = fmaf(product[i], g, end[i]);
        }
    }
}

// A step of a sum over the warp: of the first 2 `WIDTH` values a lane keeps the half that its number asks for, with the partner's share.
template <int WIDTH>
__device__ inline void halve(float (&values)[16], u32 lane) {
    const bool upper = lane & WIDTH;
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        const float mine = upper ? values[i + WIDTH] : values[i], other = upper ? values[i] : values[i + WIDTH];
        values[i] = mine + __shfl_xor_sync(ALL_LANES, other, WIDTH);
    }
}

// Sums 16 values over the warp, in 16 shuffles: lane l gets the sum of value l % 16. The widths are constants, so that
// no value is looked up by a number that is known late.
__device__ inline float sum_of_sixteen(float (&values)[16], u32 lane) {
    halve<8>(values, lane);
    halve<4>(values, lane);
    halve<2>(values, lane);
    halve<1>(values, lane);
    return values[0] + __shfl_xor_sync(ALL_LANES, values[0], 16);
}

// From a token's parts to the next one's, which lanes write at the same time: another bank for each.
#define PARTS_ROOM (GROUP + 1)

// One tile of one state, backwards: h is the state before its tokens, g the gradient of the state after them
// and then of the one before. Adds to the gradients of A and over the states; leaves the tile's gradients of
// B (first) and C at `parts`, PARTS_ROOM values from token to token.
__device__ inline void tile_gradients(
    float h, float a, const float* bs, const float* cs, Decay decay,
    const float (&step)[TILE], const float (&u)[TILE], const float (&dy)[TILE],
    float& g, float& grad_a, float (&grad_step)[TILE], float (&grad_input)[TILE], float* parts, u32 lane) {
    float before[TILE + 1], power[TILE], shares[2 * TILE];
    before[0] = h;
#pragma unroll
    for (int quad = 0; quad < TILE; quad += 4) {
        const Four b = four(bs + quad);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int i = quad + j;
            power[i] = fast_exp2(step[i] * a);
            before[i + 1] = fmaf(decay.by(power[i]), before[i], step[i] * u[i] * b.of[j]);
        }
    }
#pragma unroll
    for (int quad = TILE - 4; quad >= 0; quad -= 4) {
        const Four b = four(bs + quad), c = four(cs + quad);
#pragma unroll
        for (int j = 3; j >= 0; j--) {
            const int i = quad + j;
            g = fmaf(c.of[j], dy[i], g);
            shares[i] = g * step[i] * u[i];
            shares[TILE + i] = dy[i] * before[i + 1];
            const float slope = g * before[i] * decay.scale * power[i];
            grad_a = fmaf(slope, step[i], grad_a);
            grad_step[i] = fmaf(slope, a, grad_step[i]);
            grad_input[i] = fmaf(g, b.of[j], grad_input[i]);
            g *= decay.by(power[i]);
        }
    }
    const float sum = sum_of_sixteen(shares, lane);
    if (lane < 2 * TILE) parts[lane * PARTS_ROOM] = sum;
}

// Places of `scan_gradients` in shared memory.
struct Room {
    float* steps;   // [32, 32]
    float* us;      // [32, 32]
    float* dys;     // [32, 32]
    float* bs;      // [GROUP, PIECE_ROOM]
    float* cs;      // [GROUP, PIECE_ROOM]
    float* as;      // [GROUP, A_ROOM]
    float* starts;  // [4, GROUP, 32]: the state before each tile
    float* sums;    // [2, WARPS, TILE, 32]: of a warp's states, over dt and over dt u
    float* parts;   // [2, TILE, PARTS_ROOM]: of B and C
};

__device__ inline Room room_of(float* shared) {
    Room room;
    room.steps = shared;
    room.us = room.steps + PIECE * WARP;
    room.dys = room.us + PIECE * WARP;
    room.bs = room.dys + PIECE * WARP;
    room.cs = room.bs + GROUP * PIECE_ROOM;
    room.as = room.cs + GROUP * PIECE_ROOM;
    room.starts = room.as + GROUP * A_ROOM;
    room.sums = room.starts + PIECE / TILE * GROUP * WARP;
    room.parts = room.sums + 2 * WARPS * TILE * WARP;
    return room;
}

// The state of each of the warp's channels before each tile of a piece, from the kept one before the first.
__device__ inline void find_starts(const ScanBackward& p, Room room, Place at, u32 piece, u32 first, u32 tiles) {
    const Decay decay = decay_of(p.negative);
    const u64 pieces = (p.length + PIECE - 1) / PIECE;
    const u64 kept = at.row * pieces + at.chunk * (p.chunk / PIECE) + piece;
    float h[OWN];
    load_own(h, p.kept + kept * p.states * p.channels, at, first, p.states, p.channels);
    for (u32 tile = 0; tile < tiles; tile++) {
#pragma unroll
        for (int k = 0; k < OWN; k++) room.starts[(tile * GROUP + k * WARPS + at.warp) * WARP + at.lane] = h[k];
        if (tile + 1 == tiles) break;
        float step[TILE], input[TILE];
        take_tile(step, room.steps + tile * TILE * WARP, at.lane);
        take_tile(input, room.us + tile * TILE * WARP, at.lane);
#pragma unroll
        for (int i = 0; i < TILE; i++) input[i] *= step[i];
#pragma unroll
        for (int k = 0; k < OWN; k++) {
            const u32 n = k * WARPS + at.warp;
            const float a = room.as[n * A_ROOM + at.lane];
#pragma unroll
            for (int quad = 0; quad < TILE; quad += 4) {
                const Four b = four(room.bs + n * PIECE_ROOM + tile * TILE + quad);
#pragma unroll
                for (int i = 0; i < 4; i++) h[k] = fmaf(decay.by(fast_exp2(step[quad + i] * a)), h[k], input[quad + i] * b.of[i]);
            }
        }
    }
}

// Writes a tile's gradients, whose parts by warp are in shared memory; its first token is `start` of the piece
// and that is `base` of the chunk. Gives the sum of dy u over the thread's tokens.
__device__ inline float write_tile(const ScanBackward& p, Room room, Place at, u32 base, u32 start, u32 first, float skip) {
    float grad_skip = 0.0f;
    for (u32 i = at.warp; i < TILE; i += WARPS) {
        const u32 t = start + i;
        if (base + t >= at.count || at.channel >= p.channels) continue;
        float over_step = 0.0f, over_input = 0.0f;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) {
            over_step += room.sums[(warp * TILE + i) * WARP + at.lane];
            over_input += room.sums[((WARPS + warp) * TILE + i) * WARP + at.lane];
        }
        const float step = room.steps[t * WARP + at.lane], u = room.us[t * WARP + at.lane];
        const float dy = room.dys[t * WARP + at.lane];
        const u64 row = at.base + base + t;
        stored* const grad_u = &p.grad_u[row * p.grad_u_stride + at.channel];
        // What one group of states leaves, the next adds to.
        const float old_u = p.accumulate_u || first > 0 ? *grad_u : 0.0f;
        *grad_u = old_u + fmaf(over_input, step, first == 0 ? dy * skip : 0.0f);
        stored* const grad_delta = &p.grad_delta[row * p.grad_delta_stride + at.channel];
        const float old_delta = p.accumulate_delta || first > 0 ? *grad_delta : 0.0f;
        // sigmoid(delta) = 1 - exp(-softplus(delta)); `over_step` was summed with log2(e) A.
        *grad_delta = fmaf(fmaf(over_input, u, LN_2 * over_step), -expm1f(-step), old_delta);
        grad_skip = fmaf(dy, u, grad_skip);
    }
    const u64 tokens = (u64)p.rows * p.length;
    for (u32 i = threadIdx.x; i < 2 * TILE * GROUP; i += THREADS) {
        const u32 n = first + i % GROUP, t = base + start + i / GROUP % TILE;
        if (t >= at.count || n >= p.states) continue;
        float* const to = i < TILE * GROUP ? p.parts_b : p.parts_c;
        to[(at.unit * tokens + at.base + t) * p.states + n] = room.parts[i / GROUP * PARTS_ROOM + i % GROUP];
    }
    return grad_skip;
}

// All gradients of a chunk, given that of the state after it; those of A, B, C and D in parts.
// Shared: 3 [32, 32] + 2 [16, 36] + [16, 33] + [4, 16, 32] + [2, 4, 8, 32] + [2, 8, 17].
KERNEL(THREADS, scan_gradients, ScanBackward) {
    SHARED(shared);
    const Room room = room_of(shared);
    const Place at = place_of(p, 0, 0);
    const u32 chunks = at.chunks;
    const Decay decay = decay_of(p.negative);
    const bool alive = at.channel < p.channels;
    const float skip = alive ? p.d[at.channel] : 0.0f;
    float grad_skip = 0.0f;
    float* const ends = p.ends + (at.row * chunks + at.chunk) * p.states * p.channels;
    for (u32 first = 0; first < p.states; first += GROUP) {
        float g[OWN], grad_a[OWN] = {};
        // Nothing follows the last chunk.
        load_own(g, at.chunk + 1 < chunks ? ends : nullptr, at, first, p.states, p.channels);
        stage_a(room.as, p.a_log, at, first, p.states, p.channels);
        Channels<PIECE / WARPS> steps(p.delta, p.delta_stride, at, p.channels), us(p.u, p.u_stride, at, p.channels);
        Channels<PIECE / WARPS> dys(p.dy, p.dy_stride, at, p.channels);
        States<PIECE * GROUP / THREADS> bs(p.b, p.b_stride, at, first, p.states), cs(p.c, p.c_stride, at, first, p.states);
        for (u32 piece = (at.count + PIECE - 1) / PIECE; piece-- > 0;) {
            const u32 base = piece * PIECE, tiles = (min(at.count - base, (u32)PIECE) + TILE - 1) / TILE;
            steps.read(at, base), us.read(at, base), dys.read(at, base), bs.read(at, base), cs.read(at, base);
            steps.keep_steps(room.steps, at, base), us.keep(room.us, at), dys.keep(room.dys, at);
            bs.keep(room.bs, PIECE_ROOM), cs.keep(room.cs, PIECE_ROOM);
            __syncthreads();
            find_starts(p, room, at, piece, first, tiles);
            for (u32 tile = tiles; tile-- > 0;) {
                const u32 start = tile * TILE;
                float step[TILE], u[TILE], dy[TILE], grad_step[TILE], grad_input[TILE];
                take_tile(step, room.steps + start * WARP, at.lane);
                take_tile(u, room.us + start * WARP, at.lane);
                take_tile(dy, room.dys + start * WARP, at.lane);
#pragma unroll
                for (int i = 0; i < TILE; i++) grad_step[i] = grad_input[i] = 0.0f;
#pragma unroll
                for (int k = 0; k < OWN; k++) {
                    const u32 n = k * WARPS + at.warp;
                    // The same for all lanes, as the shuffles want it.
                    if (first + n >= p.states) continue;
                    tile_gradients(room.starts[(tile * GROUP + n) * WARP + at.lane], room.as[n * A_ROOM + at.lane],
                                   room.bs + n * PIECE_ROOM + start, room.cs + n * PIECE_ROOM + start, decay,
                                   step, u, dy, g[k], grad_a[k], grad_step, grad_input, room.parts + n, at.lane);
                }
#pragma unroll
                for (int i = 0; i < TILE; i++) {
                    room.sums[(at.warp * TILE + i) * WARP + at.lane] = grad_step[i];
                    room.sums[((WARPS + at.warp) * TILE + i) * WARP + at.lane] = grad_input[i];
                }
                __syncthreads();
                const float share = write_tile(p, room, at, base, start, first, skip);
                if (first == 0) grad_skip += share;
                // The next tile's sums take the place of these.
                __syncthreads();
            }
        }
        // The thread's own gradients of the state stood here, and are no longer needed.
        store_own(ends, grad_a, at, first, p.states, p.channels);
    }
    room.sums[at.warp * WARP + at.lane] = grad_skip;
    __syncthreads();
    if (at.warp > 0 || !alive) return;
    for (int warp = 1; warp < WARPS; warp++) grad_skip += room.sums[warp * WARP + at.lane];
    p.parts_d[(at.row * chunks + at.chunk) * p.channels + at.channel] = grad_skip;
}

// The gradient of B or C from its parts, in order; one thread a value.
KERNEL(256, scan_sum_units, SumUnits) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, values = p.rows * p.cols;
    if (row >= p.rows) return;
    stored* const place = &p.grad[row * p.stride + index % p.cols];
    float sum = p.accumulate ? *place : 0.0f;
    for (u32 unit = 0; unit < p.units; unit++) sum += p.parts[unit * values + index];
    *place = sum;
}

// Adds to the gradient of a_log from parts of A's, in order: A = -exp(a_log), so dA / da_log = A.
// One thread a value.
KERNEL(256, scan_sum_decays, SumDecays) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 n = index / p.channels, channel = index % p.channels, values = (u64)p.states * p.channels;
    if (n >= p.states) return;
    float sum = 0.0f;
    for (u32 part = 0; part < p.part_count; part++) sum += p.parts[part * values + index];
    const u64 place = channel * p.states + n;
    p.grad[place] = fmaf(-expf(p.a_log[place]), sum, p.grad[place]);
}
