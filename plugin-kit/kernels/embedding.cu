// The ends of a program that are indexed: rows of a table by token, rows of a table by position, rows of x
// that are wanted. One thread a value, except where said. What indexes (tokens, position, wanted positions)
// is read from device memory, so that a recording serves every batch of its shape.

struct EmbeddingForward {
    const u32* tokens;   // [rows]
    const float* table;  // [vocab, cols]
    float* y;            // [rows, cols], contiguous
    u64 rows;
    u32 cols, vocab;
};

KERNEL(256, embedding_forward, EmbeddingForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.cols, col = index % p.cols;
    if (row >= p.rows) return;
    const u32 token = p.tokens[row];
    // The host refuses such tokens; should one come through, it shows and reads nothing.
    p.y[index] = token < p.vocab ? p.table[(u64)token * p.cols + col] : NOT_A_NUMBER;
}

struct EmbeddingBackward {
    const u32* tokens;  // [count]
    const u32* order;   // [count], of token_order.cu
    const float* dy;    // [count, cols]
    float* grad;        // [vocab, cols], added to
    u64 dy_stride, count;
    u32 cols, vocab, padding, unused;
};

// A block for every place of the order and 32 columns; those at the first place of a token add up its rows,
// 8 at a time, in an order that depends on the tokens only. Shared: 256 values.
KERNEL(256, embedding_backward, EmbeddingBackward) {
    SHARED(sums);  // [8, 32]
    const u64 first = blockIdx.x;
    const u32 token = p.tokens[p.order[first]];
    // The whole block leaves, so nobody waits at the barrier below.
    if (token == p.padding || token >= p.vocab) return;
    if (first > 0 && p.tokens[p.order[first - 1]] == token) return;
    const u32 lane = threadIdx.x % 32, line = threadIdx.x / 32;
    const u32 col = blockIdx.y * 32 + lane;
    float sum = 0.0f;
    for (u64 place = first + line; place < p.count; place += 8) {
        const u64 row = p.order[place];
        if (p.tokens[row] != token) break;
        if (col < p.cols) sum += p.dy[row * p.dy_stride + col];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (line == 0 && col < p.cols) {
        for (u32 other = 1; other < 8; other++) sum += sums[other * 32 + lane];
        p.grad[(u64)token * p.cols + col] += sum;
    }
}

struct PositionsForward {
    const float* x;          // [B, length, cols]
    const float* table;      // [positions, cols]
    float* y;                // [B, length, cols], contiguous
    const Control* control;
    u64 x_stride, rows;
    u32 cols, length, positions, unused;
};

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

struct PositionsBackward {
    const float* dy;  // [B, length, cols]
    float* grad;      // [positions, cols], added to; a sequence begins at position 0
    u64 dy_stride;
    u32 batch, length, cols, unused;
};

// One thread a position and column; it adds up the sequences in order.
KERNEL(256, positions_backward, PositionsBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 position = index / p.cols, col = index % p.cols;
    if (position >= p.length) return;
    float sum = 0.0f;
    for (u64 sequence = 0; sequence < p.batch; sequence++) sum += p.dy[(sequence * p.length + position) * p.dy_stride + col];
    p.grad[index] += sum;
}

struct SelectForward {
    const float* x;          // [B T, cols]
    const u32* wanted;       // [places]: rows of x; arbitrary from control->wanted on
    float* y;                // [places, cols], contiguous
    const Control* control;
    u64 x_stride, places;
    u32 cols, unused;
};

KERNEL(256, select_forward, SelectForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 place = index / p.cols, col = index % p.cols;
    if (place >= p.places) return;
    p.y[index] = place < p.control->wanted ? p.x[p.wanted[place] * p.x_stride + col] : 0.0f;
}

struct SelectBackward {
    const float* dy;         // [places, cols]
    const u32* wanted;       // [places]
    float* grad;             // [B T, cols], added to
    const Control* control;
    u64 dy_stride, grad_stride, places;
    u32 cols, unused;
};

// A row is wanted once at most, so no two threads add to one value.
KERNEL(256, select_backward, SelectBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 place = index / p.cols, col = index % p.cols;
    if (place >= p.places || place >= p.control->wanted) return;
    p.grad[p.wanted[place] * p.grad_stride + col] += p.dy[place * p.dy_stride + col];
}
