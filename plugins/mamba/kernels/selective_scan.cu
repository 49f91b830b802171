// The selective scan's outputs, see selective_scan.cuh, which is in front of this.

// Where each chunk but the last ends from a state of 0. Shared: 2 [8, 32] + [16, 12] + [16, 33].
KERNEL(THREADS, scan_ends, ScanForward) {
    SHARED(shared);
    const EndsRoom room = ends_room_of(shared);
    const u32 first = blockIdx.y * GROUP;
    const Place at = place_of(p, 0, 1);
    const Decay decay = decay_of(p.negative);
    float h[OWN], product[OWN];
#pragma unroll
    for (int k = 0; k < OWN; k++) h[k] = 0.0f, product[k] = 1.0f;
    stage_a(room.as, p.a_log, at, first, p.states, p.channels);
    Channels<TILE / WARPS> steps(p.delta, p.delta_stride, at, p.channels), inputs(p.u, p.u_stride, at, p.channels);
    States<TILE * GROUP / THREADS> bs(p.b, p.b_stride, at, first, p.states);
    steps.read(at, 0), inputs.read(at, 0), bs.read(at, 0);
    for (u32 start = 0; start < at.count; start += TILE) {
        steps.keep_steps(room.steps, at, start), inputs.keep(room.inputs, at), bs.keep(room.states, TILE_ROOM);
        steps.read(at, start + TILE), inputs.read(at, start + TILE), bs.read(at, start + TILE);
        __syncthreads();
        float step[TILE], input[TILE];
        take_tile(step, room.steps, at.lane);
        take_tile(input, room.inputs, at.lane);
#pragma unroll
        for (int i = 0; i < TILE; i++) input[i] *= step[i];
#pragma unroll
        for (int k = 0; k < OWN; k++) {
            const u32 n = k * WARPS + at.warp;
            const float a = room.as[n * A_ROOM + at.lane];
#pragma unroll
            for (int quad = 0; quad < TILE; quad += 4) {
                const Four b = four(room.states + n * TILE_ROOM + quad);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float left = decay.by(fast_exp2(step[quad + i] * a));
                    h[k] = fmaf(left, h[k], input[quad + i] * b.of[i]);
                    product[k] *= left;
                }
            }
        }
        // The next tile takes the place of this one.
        __syncthreads();
    }
    const u64 place = (at.row * at.chunks + at.chunk) * p.states * p.channels;
    store_own(p.ends + place, h, at, first, p.states, p.channels);
    store_own(p.products + place, product, at, first, p.states, p.channels);
}

// From where chunks end to where they start; one thread a row, state and channel.
KERNEL(256, scan_carry, ScanForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 values = (u64)p.states * p.channels, row = index / values;
    if (row >= p.rows) return;
    const u32 chunks = chunks_of(p);
    float* const ends = p.ends + row * chunks * values + index % values;
    const float* const products = p.products + row * chunks * values + index % values;
    float h = p.state ? p.state[index] : 0.0f;
    for (u32 from = 0; from < chunks; from += AHEAD) {
        float end[AHEAD], product[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            // The last chunk's end is not asked for.
            const bool there = from + i + 1 < chunks;
            end[i] = there ? ends[(from + i) * values] : 0.0f;
            product[i] = there ? products[(from + i) * values] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (from + i < chunks) ends[(from + i) * values] = h;
            h = fmaf(product[i], h, end[i]);
        }
    }
}

// One tile of one state: h goes to its last token, and the state's share of the outputs to y.
__device__ inline void tile_outputs(
    float a, const float* bs, const float* cs, u32 left, Decay decay,
    const float (&step)[TILE], const float (&input)[TILE], float& h, float (&y)[TILE]) {
#pragma unroll
    for (int quad = 0; quad < TILE; quad += 4) {
        // A feed of single tokens does half of a tile.
        if ((u32)quad >= left) break;
        const Four b = four(bs + quad), c = four(cs + quad);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            h = fmaf(decay.by(fast_exp2(step[quad + i] * a)), h, input[quad + i] * b.of[i]);
            y[quad + i] = fmaf(c.of[i], h, y[quad + i]);
        }
    }
}

// Outputs of a chunk from the state that it starts from, and the state after the last one.
// Shared: 2 [8, 32] + 2 [16, 12] + [16, 33] + [4, 8, 32].
KERNEL(THREADS, scan_outputs, ScanForward) {
    SHARED(shared);
    float* const steps = shared;
    float* const us = steps + TILE * WARP;
    float* const bs = us + TILE * WARP;
    float* const cs = bs + GROUP * TILE_ROOM;
    float* const as = cs + GROUP * TILE_ROOM;
    float* const sums = as + GROUP * A_ROOM;
    const Place at = place_of(p, 0, 0);
    const u32 chunks = at.chunks;
    const Decay decay = decay_of(p.negative);
    const bool alive = at.channel < p.channels;
    const float skip = alive ? p.d[at.channel] : 0.0f;
    const u64 values = (u64)p.states * p.channels, pieces = (p.length + PIECE - 1) / PIECE;
    // With one chunk it starts from the given state itself.
    const float* const starts = chunks > 1 ? p.ends + (at.row * chunks + at.chunk) * values
                                : p.state  ? p.state + at.row * values
                                           : nullptr;
    for (u32 first = 0; first < p.states; first += GROUP) {
        float h[OWN];
        load_own(h, starts, at, first, p.states, p.channels);
        stage_a(as, p.a_log, at, first, p.states, p.channels);
        Channels<TILE / WARPS> own_steps(p.delta, p.delta_stride, at, p.channels), own_us(p.u, p.u_stride, at, p.channels);
        States<TILE * GROUP / THREADS> own_bs(p.b, p.b_stride, at, first, p.states), own_cs(p.c, p.c_stride, at, first, p.states);
        own_steps.read(at, 0), own_us.read(at, 0), own_bs.read(at, 0), own_cs.read(at, 0);
        for (u32 start = 0; start < at.count; start += TILE) {
            const u64 piece = at.row * pieces + (at.chunk * p.chunk + start) / PIECE;
            if (p.kept && start % PIECE == 0) store_own(p.kept + piece * values, h, at, first, p.states, p.channels);
            own_steps.keep_steps(steps, at, start), own_us.keep(us, at), own_bs.keep(bs, TILE_ROOM), own_cs.keep(cs, TILE_ROOM);
            const u32 next = start + TILE;
            own_steps.read(at, next), own_us.read(at, next), own_bs.read(at, next), own_cs.read(at, next);
            __syncthreads();
            float step[TILE], input[TILE], y[TILE];
            take_tile(step, steps, at.lane);
            take_tile(input, us, at.lane);
#pragma unroll
            for (int i = 0; i < TILE; i++) {
                input[i] *= step[i];
                y[i] = 0.0f;
            }
#pragma unroll
            for (int k = 0; k < OWN; k++) {
                const u32 n = k * WARPS + at.warp;
                tile_outputs(as[n * A_ROOM + at.lane], bs + n * TILE_ROOM, cs + n * TILE_ROOM, at.count - start, decay,
                             step, input, h[k], y);
            }
#pragma unroll
            for (int i = 0; i < TILE; i++) sums[(at.warp * TILE + i) * WARP + at.lane] = y[i];
            __syncthreads();
            // What the next tile overwrites before its barrier is read here by the thread that writes it.
            for (u32 i = at.warp; i < TILE; i += WARPS) {
                if (start + i >= at.count || !alive) continue;
                stored* const place = &p.y[(at.base + start + i) * p.y_stride + at.channel];
                float sum = first == 0 ? skip * us[i * WARP + at.lane] : *place;
#pragma unroll
                for (int warp = 0; warp < WARPS; warp++) sum += sums[(warp * TILE + i) * WARP + at.lane];
                *place = sum;
            }
        }
        if (p.state && at.chunk + 1 == chunks)
            store_own(p.state + at.row * values, h, at, first, p.states, p.channels);
    }
}
