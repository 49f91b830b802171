// Long short-term memory with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000), B sequences
// of T tokens and H cells; the input's share W x + b of the gates is given, in the order i, f, g, o:
//
//   i, f, o = sigmoid(W x + b + U h + u)    g = tanh(W x + b + U h + u)    c = f c + i g    h = o tanh(c)
//
// The product with U makes it sequential. Two forms:
//
// - lstm_forward_R and lstm_backward_R go through all tokens of R sequences in one block, with h, c and the
//   gates in shared memory. A thread owns a column of the product (a gate of a cell, 4 H in all; more than
//   there are threads go round) and reads a weight for all R sequences; neighbouring threads read
//   neighbouring weights. Grid: B / R blocks of at most 1024 threads. Shared values: 6 R H forward, 9 R H
//   backward. A block reads all of U every token, so this is for weights that fit a cache.
// - lstm_cell_forward and lstm_cell_backward are one token of all sequences, a thread a sequence and cell,
//   after a product of the library's: for wide layers and for a few tokens. No shared memory, any H.
//   lstm_token_forward is product and cell of up to 8 sequences in one, where reading U is all that takes
//   time: a warp a cell, whose lanes read the four rows of U that are its gates', and h before. Grid: H / 8.
//
// lstm_transpose turns U for the first form; lstm_shift leaves every token the h of the token before, for
// the product that is U's gradient.

#define FEW_ROWS 8

// A cell's gates after their activations, and what comes of them.
struct Cell {
    float i, f, g, o;
    float c, h;
};

__device__ inline Cell cell_of(float i, float f, float g, float o, float before) {
    Cell cell = {i, f, g, o, fmaf(f, before, i * g), 0.0f};
    cell.h = o * tanhf(cell.c);
    return cell;
}

// Gradients of a cell's gates before their activations, and of the c before.
struct CellGrad {
    float i, f, g, o, c;
};

__device__ inline CellGrad cell_gradient(float i, float f, float g, float o, float c, float before, float dh, float dc) {
    const float top = tanhf(c), slope = fmaf(dh * o, 1.0f - top * top, dc);
    CellGrad grad;
    grad.o = dh * top * o * (1.0f - o);
    grad.i = slope * g * i * (1.0f - i);
    grad.f = slope * before * f * (1.0f - f);
    grad.g = slope * i * (1.0f - g * g);
    grad.c = slope * f;
    return grad;
}

// A value of each of a block's sequences, read at once.
template <u32 R>
struct alignas(4 * R) Values {
    float of[R];
};

struct LstmForward {
    const float* gates;       // [B, T, 4 H]
    const float* transposed;  // [H, 4 H]
    const float* bias;        // [4 H]
    float* activated;         // [B, T, 4 H], or null in a feed
    float* cells;             // [B, T, H], or null in a feed
    float* h;                 // [B, T, H]
    float* state;             // [B, 2, H], h then c; null in training
    u64 gates_stride;
    u32 rows, length, hidden, unused;
};

template <u32 R>
__device__ inline void lstm_forward(const LstmForward& p) {
    SHARED(shared);
    const u32 hidden = p.hidden, columns = 4 * hidden;
    // [H, R], [R, H], [4 H, R]
    float *const h = shared, *const c = h + R * hidden, *const gates = c + R * hidden;
    const u64 first = (u64)blockIdx.x * R;
    const u32 count = (u32)min((u64)R, p.rows - first);
    for (u32 at = threadIdx.x; at < R * hidden; at += blockDim.x) {
        const u32 r = at / hidden, n = at % hidden;
        const float* state = p.state && r < count ? p.state + (first + r) * 2 * hidden : 0;
        h[n * R + r] = state ? state[n] : 0.0f;
        c[at] = state ? state[hidden + n] : 0.0f;
    }
    for (u32 t = 0; t < p.length; t++) {
        __syncthreads();
        for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
            float given[R], sums[R];
#pragma unroll
            for (u32 r = 0; r < R; r++) {
                given[r] = r < count ? p.gates[((first + r) * p.length + t) * p.gates_stride + column] : 0.0f;
                sums[r] = p.bias[column];
            }
#pragma unroll 8
            for (u32 k = 0; k < hidden; k++) {
                const float weight = p.transposed[(u64)k * columns + column];
                const Values<R> before = *(const Values<R>*)(h + k * R);
#pragma unroll
                for (u32 r = 0; r < R; r++) sums[r] = fmaf(weight, before.of[r], sums[r]);
            }
#pragma unroll
            for (u32 r = 0; r < R; r++) {
                const float sum = given[r] + sums[r];
                const float gate = column / hidden == 2 ? tanhf(sum) : sigmoid(sum);
                gates[column * R + r] = gate;
                if (p.activated && r < count) p.activated[((first + r) * p.length + t) * columns + column] = gate;
            }
        }
        __syncthreads();
        for (u32 at = threadIdx.x; at < count * hidden; at += blockDim.x) {
            const u32 r = at / hidden, n = at % hidden;
            const float* gate = gates + n * R + r;
            const Cell cell = cell_of(gate[0], gate[hidden * R], gate[2 * hidden * R], gate[3 * hidden * R], c[at]);
            const u64 place = ((first + r) * p.length + t) * hidden + n;
            c[at] = cell.c;
            h[n * R + r] = cell.h;
            p.h[place] = cell.h;
            if (p.cells) p.cells[place] = cell.c;
        }
    }
    if (!p.state) return;
    // Every thread leaves the cells that it has stepped itself.
    for (u32 at = threadIdx.x; at < count * hidden; at += blockDim.x) {
        const u32 r = at / hidden, n = at % hidden;
        float* state = p.state + (first + r) * 2 * hidden;
        state[n] = h[n * R + r];
        state[hidden + n] = c[at];
    }
}

KERNEL(1024, lstm_forward_1, LstmForward) { lstm_forward<1>(p); }
KERNEL(1024, lstm_forward_2, LstmForward) { lstm_forward<2>(p); }
KERNEL(1024, lstm_forward_4, LstmForward) { lstm_forward<4>(p); }

struct LstmBackward {
    const float* weight;     // [4 H, H]
    const float* activated;  // [B, T, 4 H]
    const float* cells;      // [B, T, H]
    const float* dh;         // [B, T, H]
    float* grad_gates;       // [B, T, 4 H], before their activations
    u32 rows, length, hidden, unused;
};

template <u32 R>
__device__ inline void lstm_backward(const LstmBackward& p) {
    SHARED(shared);
    const u32 hidden = p.hidden, columns = 4 * hidden;
    // [R, H]: of c; [4 H, R]: of the gates; [4 H, R]: of h, the share of each gate's part of U.
    float *const dc = shared, *const grads = dc + R * hidden, *const shares = grads + R * columns;
    const u64 first = (u64)blockIdx.x * R;
    const u32 count = (u32)min((u64)R, p.rows - first);
    for (u32 at = threadIdx.x; at < 9 * R * hidden; at += blockDim.x) shared[at] = 0.0f;
    for (u32 t = p.length; t-- > 0;) {
        __syncthreads();
        for (u32 at = threadIdx.x; at < count * hidden; at += blockDim.x) {
            const u32 r = at / hidden, n = at % hidden, step = hidden * R;
            const u64 token = (first + r) * p.length + t;
            const float* gate = p.activated + token * columns + n;
            const float* c = p.cells + token * hidden + n;
            const float before = t > 0 ? *(c - hidden) : 0.0f;
            const float* share = shares + n * R + r;
            const float dh = p.dh[token * hidden + n] + ((share[0] + share[step]) + (share[2 * step] + share[3 * step]));
            const CellGrad grad =
                cell_gradient(gate[0], gate[hidden], gate[2 * hidden], gate[3 * hidden], *c, before, dh, dc[at]);
            const float values[4] = {grad.i, grad.f, grad.g, grad.o};
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                grads[(k * hidden + n) * R + r] = values[k];
                p.grad_gates[token * columns + k * hidden + n] = values[k];
            }
            dc[at] = grad.c;
        }
        __syncthreads();
        for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
            // The gate's own rows of U, its column n.
            const u32 begin = column / hidden * hidden, n = column - begin;
            float sums[R] = {};
#pragma unroll 8
            for (u32 k = begin; k < begin + hidden; k++) {
                const float weight = p.weight[(u64)k * hidden + n];
                const Values<R> grad = *(const Values<R>*)(grads + k * R);
#pragma unroll
                for (u32 r = 0; r < R; r++) sums[r] = fmaf(weight, grad.of[r], sums[r]);
            }
#pragma unroll
            for (u32 r = 0; r < R; r++) shares[column * R + r] = sums[r];
        }
    }
}

KERNEL(1024, lstm_backward_1, LstmBackward) { lstm_backward<1>(p); }
KERNEL(1024, lstm_backward_2, LstmBackward) { lstm_backward<2>(p); }
KERNEL(1024, lstm_backward_4, LstmBackward) { lstm_backward<4>(p); }

struct LstmCellForward {
    const float* gates;     // [B, 4 H] of this token, gates_step apart
    const float* bias;      // [4 H]
    const float* weight;    // [4 H, H]
    const float* h_before;  // [B, H], before_step apart: h of the token before; null where it is 0
    const float* before;    // the same of c
    float* activated;     // [B, 4 H], T 4 H apart; U h before where it was computed
    float *cells, *h;     // [B, H], T H apart
    float* state;         // [B, 2, H], or null where nobody goes on from this token
    u64 gates_step, before_step;
    u32 rows, length, hidden, summed;
};

// A cell of a sequence, given its share of U h.
__device__ inline void step_cell(const LstmCellForward& p, u64 row, u64 n, const float (&sums)[4]) {
    float* activated = p.activated + row * p.length * 4 * p.hidden + n;
    float gates[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++) {
        const u64 column = (u64)k * p.hidden;
        const float sum = p.gates[row * p.gates_step + column + n] + p.bias[column + n] + sums[k];
        gates[k] = k == 2 ? tanhf(sum) : sigmoid(sum);
        activated[column] = gates[k];
    }
    const float before = p.before ? p.before[row * p.before_step + n] : 0.0f;
    const Cell cell = cell_of(gates[0], gates[1], gates[2], gates[3], before);
    const u64 place = row * p.length * p.hidden + n;
    p.cells[place] = cell.c;
    p.h[place] = cell.h;
    if (p.state) {
        p.state[row * 2 * p.hidden + n] = cell.h;
        p.state[row * 2 * p.hidden + p.hidden + n] = cell.c;
    }
}

KERNEL(256, lstm_cell_forward, LstmCellForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.hidden, n = index % p.hidden;
    if (row >= p.rows) return;
    const float* given = p.activated + row * p.length * 4 * p.hidden + n;
    float sums[4];
#pragma unroll
    for (u32 k = 0; k < 4; k++) sums[k] = p.summed ? given[(u64)k * p.hidden] : 0.0f;
    step_cell(p, row, n, sums);
}

// Other blocks still read h before when a cell is done: it must not be where `state` is.
KERNEL(256, lstm_token_forward, LstmCellForward) {
    const u32 lane = threadIdx.x % WARP;
    const u64 hidden = p.hidden, n = blockIdx.x * (u64)(blockDim.x / WARP) + threadIdx.x / WARP;
    // Whole warps leave.
    if (n >= hidden) return;
    float sums[FEW_ROWS][4] = {};
    if (p.h_before) {
        const float *weight = p.weight + n * hidden, *before = p.h_before;
#pragma unroll 4
        for (u32 i = lane; i < p.hidden; i += WARP) {
            float weights[4];
#pragma unroll
            for (u32 k = 0; k < 4; k++) weights[k] = weight[k * hidden * hidden + i];
#pragma unroll
            for (u32 row = 0; row < FEW_ROWS; row++) {
                const float h = row < p.rows ? before[row * p.before_step + i] : 0.0f;
#pragma unroll
                for (u32 k = 0; k < 4; k++) sums[row][k] = fmaf(weights[k], h, sums[row][k]);
            }
        }
    }
    // A lane goes on with one of the sequences.
    float own[4] = {};
#pragma unroll
    for (u32 row = 0; row < FEW_ROWS; row++)
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            const float sum = warp_sum(sums[row][k]);
            if (lane == row) own[k] = sum;
        }
    if (lane < p.rows) step_cell(p, lane, n, own);
}

struct LstmCellBackward {
    const float* activated;  // [B, 4 H] of this token, T 4 H apart
    const float* cells;      // [B, H], T H apart
    const float* before;     // the same of the token before; null where it is 0
    const float* dh;         // [B, H], T H apart
    float* grad_gates;       // [B, 4 H], T 4 H apart
    float* carry;            // [B, 2, H]: gradients of h and c from the tokens after
    u32 rows, length, hidden, unused;
};

KERNEL(256, lstm_cell_backward, LstmCellBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.hidden, n = index % p.hidden, hidden = p.hidden;
    if (row >= p.rows) return;
    const u64 token = row * p.length;
    const float* gate = p.activated + token * 4 * hidden + n;
    float* carry = p.carry + row * 2 * hidden + n;
    const float before = p.before ? p.before[token * hidden + n] : 0.0f;
    const CellGrad grad = cell_gradient(gate[0], gate[hidden], gate[2 * hidden], gate[3 * hidden], p.cells[token * hidden + n],
                                        before, p.dh[token * hidden + n] + carry[0], carry[hidden]);
    float* place = p.grad_gates + token * 4 * hidden + n;
    place[0] = grad.i;
    place[hidden] = grad.f;
    place[2 * hidden] = grad.g;
    place[3 * hidden] = grad.o;
    carry[hidden] = grad.c;
}

struct LstmTranspose {
    const float* weight;  // [4 H, H]
    float* transposed;    // [H, 4 H]
    u32 hidden, unused;
};

// A tile of 32 by 32 goes through shared memory [32, 33], so that both sides are read in lines.
KERNEL(256, lstm_transpose, LstmTranspose) {
    SHARED(tile);
    const u32 lane = threadIdx.x % 32, line = threadIdx.x / 32, columns = 4 * p.hidden;
    const u32 first_row = blockIdx.x * 32, first_col = blockIdx.y * 32;
    for (u32 row = line; row < 32; row += 8)
        if (first_row + row < columns && first_col + lane < p.hidden)
            tile[row * 33 + lane] = p.weight[(u64)(first_row + row) * p.hidden + first_col + lane];
    __syncthreads();
    for (u32 col = line; col < 32; col += 8)
        if (first_col + col < p.hidden && first_row + lane < columns)
            p.transposed[(u64)(first_col + col) * columns + first_row + lane] = tile[lane * 33 + col];
}

struct LstmShift {
    const float* h;  // [B, T, H]
    float* before;   // [B, T, H]
    u64 count;       // B T H
    u32 length, hidden;
};

KERNEL(256, lstm_shift, LstmShift) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index < p.count) p.before[index] = index / p.hidden % p.length > 0 ? p.h[index - p.hidden] : 0.0f;
}
