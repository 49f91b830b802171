// Positions in the order of their tokens and, where tokens are equal, of themselves: a stable sort by digits
// of 8 bits, the lowest first. Positions are dealt to blocks in tiles and to a block's warps in parts, so that
// a place is the number of places before it by digit, tile, part and position in turn. Sums are of integers
// and in a fixed order: the same tokens give the same order, whatever the threads do.
//
// One block sorts few positions by all digits in one launch. For more there are two launches a digit:
// token_digits counts each tile's digits, token_order puts the tile's positions where they belong.
// Grid: tiles; 256 threads. Shared: token_digits 2048 values, token_order 2056.

#define DIGITS 256
#define PARTS 8

// Goes through a warp's part of its tile in order. `next` [256] of the warp grows by the digits that are
// there; where `to` is given, each position is put at its digit's next place.
__device__ inline void through_part(const TokenOrderParams& p, const u32* from, u32 shift, u32* next, u32* to) {
    const u32 lane = threadIdx.x % WARP;
    const u64 part = p.tile / PARTS;
    const u64 first = blockIdx.x * p.tile + threadIdx.x / WARP * part;
    const u64 last = first + part < p.count ? first + part : p.count;
    for (u64 start = first; start < last; start += WARP) {
        const u64 place = start + lane;
        // Lanes past the end have a digit of their own, which counts nowhere.
        u32 position = 0, digit = DIGITS;
        if (place < last) {
            position = shift == 0 ? (u32)place : from[place];
            digit = p.tokens[position] >> shift & (DIGITS - 1);
        }
        const u32 equal = __match_any_sync(ALL_LANES, digit);
        const u32 before = __popc(equal & ((1u << lane) - 1));
        if (place < last && to) to[next[digit] + before] = position;
        __syncwarp();
        if (place < last && before == 0) next[digit] += __popc(equal);
        __syncwarp();
    }
}

// Counts the digits of every part of the tile into `next` [parts, 256].
__device__ inline void count_parts(const TokenOrderParams& p, const u32* from, u32 shift, u32* next) {
    for (u32 part = 0; part < PARTS; part++) next[part * DIGITS + threadIdx.x] = 0;
    __syncthreads();
    through_part(p, from, shift, next + threadIdx.x / WARP * DIGITS, nullptr);
    __syncthreads();
}

// The sum of `value` over the threads before this one; `sums` [8] is shared.
__device__ inline u32 sum_before(u32 value, u32* sums) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 through = value;
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        const u32 other = __shfl_up_sync(ALL_LANES, through, lanes);
        if (lane >= lanes) through += other;
    }
    if (lane == WARP - 1) sums[warp] = through;
    __syncthreads();
    u32 before = through - value;
    for (u32 other = 0; other < warp; other++) before += sums[other];
    __syncthreads();
    return before;
}

KERNEL(256, token_digits, TokenOrderParams) {
    SHARED(shared);
    u32* const next = (u32*)shared;  // [parts, 256]
    count_parts(p, p.from, p.shift, next);
    u32 sum = 0;
    for (u32 part = 0; part < PARTS; part++) sum += next[part * DIGITS + threadIdx.x];
    p.counts[blockIdx.x * DIGITS + threadIdx.x] = sum;
}

KERNEL(256, token_order, TokenOrderParams) {
    SHARED(shared);
    u32* const next = (u32*)shared;           // [parts, 256]
    u32* const sums = next + PARTS * DIGITS;  // [8]
    const u32 digit = threadIdx.x;
    u32 *from = p.from, *to = p.to, *spare = p.spare;
    for (u32 shift = p.shift; shift < p.end; shift += 8) {
        count_parts(p, from, shift, next);
        u32 all = 0, before = 0;
        if (gridDim.x == 1) {
            for (u32 part = 0; part < PARTS; part++) all += next[part * DIGITS + digit];
        } else {
            for (u32 tile = 0; tile < gridDim.x; tile++) {
                const u32 count = p.counts[tile * DIGITS + digit];
                if (tile < blockIdx.x) before += count;
                all += count;
            }
        }
        u32 place = sum_before(all, sums) + before;
        for (u32 part = 0; part < PARTS; part++) {
            const u32 count = next[part * DIGITS + digit];
            next[part * DIGITS + digit] = place;
            place += count;
        }
        __syncthreads();
        through_part(p, from, shift, next + threadIdx.x / WARP * DIGITS, to);
        __syncthreads();
        from = to;
        to = spare;
        spare = from;
    }
}
