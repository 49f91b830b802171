// The ends of a program that are indexed: rows of a table by token, rows of a table by position, rows of x
// that are wanted. One thread a value, except where said. What indexes (tokens, position, wanted positions)
// is read from device memory, so that a recording serves every batch of its shape.

KERNEL(256, embedding_forward, EmbeddingForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const u32 token = p.tokens[row];
    // The host refuses such tokens; should one come through, it shows and reads nothing.
    p.y[index] = token < p.vocab ? p.table[(u64)token * p.cols + col] : NOT_A_NUMBER;
}

// Places of a piece of the order. A token that fills the batch has as many pieces as there are, and each is
// added up by a warp of its own.
#define PIECE 64
// Rows that a warp has on their way at a time.
#define AHEAD 8

__device__ inline u32 token_at(const EmbeddingBackward& p, u64 place) {
    return p.tokens[p.order[place]];
}

__device__ inline bool has_gradient(const EmbeddingBackward& p, u32 token) {
    return token != p.padding && token < p.vocab;
}

// A warp for a piece and 32 columns; it adds up the rows of each token there. Of a token that stands in this
// piece alone the sum is the gradient. Else it is a part: 0 of a token that stood in the piece before, 1 of one
// that begins here and goes on. Sums depend on the tokens only.
KERNEL(256, embedding_backward, EmbeddingBackward) {
    const u32 col = blockIdx.y * 32 + threadIdx.x % 32;
    const u64 piece = blockIdx.x * 8 + threadIdx.x / 32;
    const u64 first = piece * PIECE;
    if (first >= p.count) return;
    const u64 end = first + PIECE < p.count ? first + PIECE : p.count;
    const bool inside = col < p.cols;
    u32 token = token_at(p, first);
    bool begins = first == 0 || token_at(p, first - 1) != token;
    float sum = 0.0f;
    for (u64 start = first; start < end; start += AHEAD) {
        u32 tokens[AHEAD];
        float values[AHEAD];
#pragma unroll
        for (u32 ahead = 0; ahead < AHEAD; ahead++) {
            const u64 row = start + ahead < end ? p.order[start + ahead] : 0;
            tokens[ahead] = p.tokens[row];
            values[ahead] = inside ? p.dy[row * p.dy_stride + col] : 0.0f;
        }
#pragma unroll
        for (u32 ahead = 0; ahead < AHEAD; ahead++) {
            if (start + ahead >= end) break;
            if (tokens[ahead] != token) {
                if (inside && !begins) p.parts[piece * 2 * p.cols + col] = sum;
                if (inside && begins && has_gradient(p, token)) p.grad[(u64)token * p.cols + col] += sum;
                token = tokens[ahead];
                begins = true;
                sum = 0.0f;
            }
            sum += values[ahead];
        }
    }
    if (!inside) return;
    const bool goes_on = end < p.count && token_at(p, end) == token;
    if (goes_on || !begins) {
        p.parts[(piece * 2 + begins) * p.cols + col] = sum;
    } else if (has_gradient(p, token)) {
        p.grad[(u64)token * p.cols + col] += sum;
    }
}

// A block for a piece and 32 columns: the parts of the token that begins there and goes on, 8 at a time.
// Shared: 256 values.
KERNEL(256, embedding_parts, EmbeddingBackward) {
    SHARED(sums);  // [8, 32]
    const u64 piece = blockIdx.x, first = piece * PIECE, end = first + PIECE;
    if (end >= p.count) return;
    const u32 token = token_at(p, end);
    const bool begins = token_at(p, first) != token || first == 0 || token_at(p, first - 1) != token;
    // The whole block leaves, so nobody waits at the barrier below.
    if (token_at(p, end - 1) != token || !begins || !has_gradient(p, token)) return;
    // The first piece that does not begin with the token, after this one: those that do stand together.
    u64 low = piece + 1, high = (p.count + PIECE - 1) / PIECE;
    while (low + 1 < high) {
        const u64 middle = (low + high) / 2;
        if (token_at(p, middle * PIECE) == token) low = middle;
        else high = middle;
    }
    const u32 lane = threadIdx.x % 32, line = threadIdx.x / 32;
    const u32 col = blockIdx.y * 32 + lane;
    float sum = 0.0f;
    if (col < p.cols) {
        if (line == 0) sum = p.parts[(piece * 2 + 1) * p.cols + col];
        for (u64 other = piece + 1 + line; other <= low; other += 8) sum += p.parts[other * 2 * p.cols + col];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (line == 0 && col < p.cols) {
        for (u32 other = 1; other < 8; other++) sum += sums[other * 32 + lane];
        p.grad[(u64)token * p.cols + col] += sum;
    }
}

KERNEL(256, positions_forward, PositionsForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const u64 position = p.control->position + row % p.length;
    // The position is known here only, where nothing can be refused. A model without a row for it has no
    // answer, and NaN says so; the last row again would be an answer, and a wrong one.
    const float learned = position < p.positions ? p.table[position * p.cols + col] : NOT_A_NUMBER;
    p.y[index] = p.x[row * p.x_stride + col] + learned;
}

// One thread a position and column; it adds up the sequences in order.
KERNEL(256, positions_backward, PositionsBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 position = index / p.cols, col = index % p.cols;
    if (position >= p.length) return;
    float sum = 0.0f;
    for (u64 sequence = 0; sequence < p.batch; sequence++) sum += p.dy[(sequence * p.length + position) * p.dy_stride + col];
    p.grad[index] += sum;
}

KERNEL(256, select_forward, SelectForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 place = index / p.cols, col = index % p.cols;
    if (place >= p.places) return;
    p.y[index] = place < p.control->wanted ? p.x[p.wanted[place] * p.x_stride + col] : 0.0f;
}

// A row is wanted once at most, so no two threads add to one value.
KERNEL(256, select_backward, SelectBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 place = index / p.cols, col = index % p.cols;
    if (place >= p.places || place >= p.control->wanted) return;
    p.grad[p.wanted[place] * p.grad_stride + col] += p.dy[place * p.dy_stride + col];
}
