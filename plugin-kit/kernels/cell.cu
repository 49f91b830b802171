// Recurrent cells whose gates see the h before, B sequences of T tokens and H cells: the input's share of the gates is
// given, and U h + u is added to it; U is block-diagonal, and cells see the h of the W cells of their block, of H where
// there is one block. A kind of cell is a struct of this file, with
//
//   GATES   G, values of a cell in U h + u
//   CARRY   C, values of a cell that are carried from token to token, h first
//   step, gradient   what a token does to one cell, and its gradients; KEPT values stand between them
//
// The product with U makes it sequential. Two forms:
//
// - _forward_R and _backward_R go through all tokens of R sequences in one block, with what is carried and U h in
//   shared memory. A thread owns a column of the product (a gate of a cell, G H in all; more than there are threads go
//   round) and reads a weight for all R sequences; neighbouring threads read neighbouring weights. Grid: B / R blocks of
//   at most 1024 threads. Shared values: (C + G) R H forward, (C + 2 G) R H backward. A block reads all of U every
//   token, so this is for weights that fit a cache.
// - _cell_forward and _cell_backward are one token of all sequences, a thread a sequence and cell, after a product of
//   the library's: for wide layers and for a few tokens. No shared memory, any H. _token_forward is product and cell of
//   up to 8 sequences in one, where reading U is all that takes time: a warp a cell, whose lanes read the rows of U that
//   are its gates', and h before. Grid: H / 8.
//
// cell_transpose turns U for the first form; cell_shift leaves every token the h of the token before, for the product
// that is U's gradient.

#define FEW_ROWS 8
#define KEPT 4  // values of a cell and token between the passes, of every kind

// Long short-term memory with forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000), gates in the order
// i, f, g, o; carries h and c, keeps the gates.
struct Lstm {
    enum { GATES = 4, CARRY = 2 };

    __device__ static void step(const float* given, const float* sums, float* kept, float* carried) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            const float sum = given[k] + sums[k];
            kept[k] = k == 2 ? tanhf(sum) : sigmoid(sum);
        }
        carried[1] = fmaf(kept[1], carried[1], kept[0] * kept[2]);
        carried[0] = kept[3] * tanhf(carried[1]);
    }

    // From the gradient of what the step left to that of what it found, without h's through U, and to that of U h + u.
    __device__ static void gradient(float* kept, const float* before, const float* after, float* carried, float* grad) {
        const float i = kept[0], f = kept[1], g = kept[2], o = kept[3], dh = carried[0];
        const float top = tanhf(after[1]), slope = fmaf(dh * o, 1.0f - top * top, carried[1]);
        grad[3] = dh * top * o * (1.0f - o);
        grad[0] = slope * g * i * (1.0f - i);
        grad[1] = slope * before[1] * f * (1.0f - f);
        grad[2] = slope * i * (1.0f - g * g);
        carried[1] = slope * f;
        carried[0] = 0.0f;
    }
};

// The gated recurrent unit (arXiv 1406.1078) with the reset gate after the product, gates in the order r, z, n; keeps
// them and its n of U h + u, in whose place the backward pass leaves the gradient of the n that was given.
struct Gru {
    enum { GATES = 3, CARRY = 1 };

    __device__ static void step(const float* given, const float* sums, float* kept, float* carried) {
        kept[0] = sigmoid(given[0] + sums[0]);
        kept[1] = sigmoid(given[1] + sums[1]);
        kept[2] = tanhf(fmaf(kept[0], sums[2], given[2]));
        kept[3] = sums[2];
        carried[0] = fmaf(kept[1], carried[0] - kept[2], kept[2]);
    }

    __device__ static void gradient(float* kept, const float* before, const float*, float* carried, float* grad) {
        const float r = kept[0], z = kept[1], n = kept[2], dh = carried[0];
        const float pre = dh * (1.0f - z) * (1.0f - n * n);
        grad[0] = pre * kept[3] * r * (1.0f - r);
        grad[1] = dh * (before[0] - n) * z * (1.0f - z);
        grad[2] = pre * r;
        kept[3] = pre;
        carried[0] = dh * z;
    }
};

// xLSTM's scalar memory (arXiv 2405.04517, equations 8 to 18), gates in the order i, f, z, o; carries h, c, n, m, keeps
// exp(i - m), f, tanh(z), sigmoid(o). m cancels from h, so its gradient is 0. Where n is 0 there was no token before.
struct Slstm {
    enum { GATES = 4, CARRY = 4 };

    __device__ static float kept_share(float f, const float* before, float m) {
        return before[2] == 0.0f ? 0.0f : expf(before[3] - softplus(-f) - m);
    }

    __device__ static void step(const float* given, const float* sums, float* kept, float* carried) {
        const float i = given[0] + sums[0], f = given[1] + sums[1];
        const float m = carried[2] == 0.0f ? i : fmaxf(carried[3] - softplus(-f), i);
        const float keep = kept_share(f, carried, m);
        kept[0] = expf(i - m);
        kept[1] = f;
        kept[2] = tanhf(given[2] + sums[2]);
        kept[3] = sigmoid(given[3] + sums[3]);
        carried[1] = fmaf(keep, carried[1], kept[0] * kept[2]);
        carried[2] = fmaf(keep, carried[2], kept[0]);
        carried[3] = m;
        carried[0] = kept[3] * carried[1] / carried[2];
    }

    __device__ static void gradient(float* kept, const float* before, const float* after, float* carried, float* grad) {
        const float take = kept[0], f = kept[1], z = kept[2], o = kept[3], dh = carried[0];
        const float inverse = 1.0f / after[2], mean = after[1] * inverse, slope = dh * o * inverse;
        const float by_c = carried[1] + slope, by_sum = carried[2] - slope * mean;
        const float keep = kept_share(f, before, after[3]);
        grad[0] = fmaf(by_c, z, by_sum) * take;
        grad[1] = fmaf(by_c, before[1], by_sum * before[2]) * keep * sigmoid(-f);
        grad[2] = by_c * take * (1.0f - z * z);
        grad[3] = dh * mean * o * (1.0f - o);
        carried[0] = 0.0f;
        carried[1] = by_c * keep;
        carried[2] = by_sum * keep;
        carried[3] = 0.0f;
    }
};

// A value of each of a block's sequences, read at once.
template <u32 R>
struct alignas(4 * R) Values {
    float of[R];
};

template <class Cell, u32 R>
__device__ inline void forward(const CellForward& p) {
    SHARED(shared);
    const u32 hidden = p.hidden, columns = Cell::GATES * hidden, beside = (Cell::CARRY - 1) * hidden;
    // [H, R]; [C - 1, R, H]; [G H, R]
    float *const h = shared, *const rest = h + R * hidden, *const sums = rest + (Cell::CARRY - 1) * R * hidden;
    const u64 first = (u64)blockIdx.x * R;
    const u32 count = (u32)min((u64)R, p.rows - first);
    for (u32 at = threadIdx.x; at < R * hidden; at += blockDim.x) {
        const u32 r = at / hidden, n = at % hidden;
        const float* state = p.state && r < count ? p.state + (first + r) * Cell::CARRY * hidden : 0;
        h[n * R + r] = state ? state[n] : 0.0f;
#pragma unroll
        for (u32 k = 1; k < Cell::CARRY; k++) rest[(k - 1) * R * hidden + at] = state ? state[k * hidden + n] : 0.0f;
    }
    for (u32 t = 0; t < p.length; t++) {
        __syncthreads();
        for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
            const float* seen = h + column % hidden / p.width * p.width * R;
            float own[R];
#pragma unroll
            for (u32 r = 0; r < R; r++) own[r] = p.bias[column];
#pragma unroll 8
            for (u32 k = 0; k < p.width; k++) {
                const float weight = p.transposed[(u64)k * columns + column];
                const Values<R> before = *(const Values<R>*)(seen + k * R);
#pragma unroll
                for (u32 r = 0; r < R; r++) own[r] = fmaf(weight, before.of[r], own[r]);
            }
#pragma unroll
            for (u32 r = 0; r < R; r++) sums[column * R + r] = own[r];
        }
        __syncthreads();
        for (u32 at = threadIdx.x; at < count * hidden; at += blockDim.x) {
            const u32 r = at / hidden, n = at % hidden;
            const u64 token = (first + r) * p.length + t;
            float given[Cell::GATES], own[Cell::GATES], carried[Cell::CARRY], kept[KEPT];
#pragma unroll
            for (u32 k = 0; k < Cell::GATES; k++) {
                given[k] = p.gates[token * p.gates_stride + k * hidden + n];
                own[k] = sums[(k * hidden + n) * R + r];
            }
            carried[0] = h[n * R + r];
#pragma unroll
            for (u32 k = 1; k < Cell::CARRY; k++) carried[k] = rest[(k - 1) * R * hidden + at];
            Cell::step(given, own, kept, carried);
            h[n * R + r] = carried[0];
            p.h[token * hidden + n] = carried[0];
#pragma unroll
            for (u32 k = 1; k < Cell::CARRY; k++) {
                rest[(k - 1) * R * hidden + at] = carried[k];
                if (p.memory) p.memory[token * beside + (k - 1) * hidden + n] = carried[k];
            }
            if (p.kept) {
#pragma unroll
                for (u32 k = 0; k < KEPT; k++) p.kept[(token * KEPT + k) * hidden + n] = kept[k];
            }
        }
    }
    if (!p.state) return;
    // Every thread leaves the cells that it has stepped itself.
    for (u32 at = threadIdx.x; at < count * hidden; at += blockDim.x) {
        const u32 r = at / hidden, n = at % hidden;
        float* state = p.state + (first + r) * Cell::CARRY * hidden;
        state[n] = h[n * R + r];
#pragma unroll
        for (u32 k = 1; k < Cell::CARRY; k++) state[k * hidden + n] = rest[(k - 1) * R * hidden + at];
    }
}

// What is carried of a cell after a token.
template <class Cell>
__device__ inline void read_carried(const stored* h, const float* memory, u64 token, u32 hidden, u32 n, float* carried) {
    carried[0] = h[token * hidden + n];
#pragma unroll
    for (u32 k = 1; k < Cell::CARRY; k++) carried[k] = memory[(token * (Cell::CARRY - 1) + k - 1) * hidden + n];
}

template <class Cell, u32 R>
__device__ inline void backward(const CellBackward& p) {
    SHARED(shared);
    const u32 hidden = p.hidden, columns = Cell::GATES * hidden;
    // [C, R, H]: of what is carried; [G H, R]: of U h + u; [G H, R]: of h, the share of each gate's part of U.
    float *const back = shared, *const grads = back + Cell::CARRY * R * hidden, *const shares = grads + R * columns;
    const u64 first = (u64)blockIdx.x * R;
    const u32 count = (u32)min((u64)R, p.rows - first);
    for (u32 at = threadIdx.x; at < (Cell::CARRY + 2 * Cell::GATES) * R * hidden; at += blockDim.x) shared[at] = 0.0f;
    for (u32 t = p.length; t-- > 0;) {
        __syncthreads();
        for (u32 at = threadIdx.x; at < count * hidden; at += blockDim.x) {
            const u32 r = at / hidden, n = at % hidden;
            const u64 token = (first + r) * p.length + t;
            float kept[KEPT], before[Cell::CARRY] = {}, after[Cell::CARRY], carried[Cell::CARRY], grad[Cell::GATES];
#pragma unroll
            for (u32 k = 0; k < KEPT; k++) kept[k] = p.kept[(token * KEPT + k) * hidden + n];
            if (t > 0) read_carried<Cell>(p.h, p.memory, token - 1, hidden, n, before);
            read_carried<Cell>(p.h, p.memory, token, hidden, n, after);
#pragma unroll
            for (u32 k = 0; k < Cell::CARRY; k++) carried[k] = back[k * R * hidden + at];
            carried[0] += p.dh[token * hidden + n];
#pragma unroll
            for (u32 k = 0; k < Cell::GATES; k++) carried[0] += shares[(k * hidden + n) * R + r];
            Cell::gradient(kept, before, after, carried, grad);
#pragma unroll
            for (u32 k = 0; k < Cell::CARRY; k++) back[k * R * hidden + at] = carried[k];
#pragma unroll
            for (u32 k = 0; k < Cell::GATES; k++) {
                grads[(k * hidden + n) * R + r] = grad[k];
                p.grad[token * columns + k * hidden + n] = grad[k];
            }
            p.kept[(token * KEPT + KEPT - 1) * hidden + n] = kept[KEPT - 1];
        }
        __syncthreads();
        for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
            // The gate's own rows of U in the cell's block, the cell's column of it.
            const u32 begin = column / p.width * p.width, n = column - begin;
            float own[R] = {};
#pragma unroll 8
            for (u32 k = begin; k < begin + p.width; k++) {
                const float weight = p.weight[(u64)k * p.width + n];
                const Values<R> grad = *(const Values<R>*)(grads + k * R);
#pragma unroll
                for (u32 r = 0; r < R; r++) own[r] = fmaf(weight, grad.of[r], own[r]);
            }
#pragma unroll
            for (u32 r = 0; r < R; r++) shares[column * R + r] = own[r];
        }
    }
}

// h before, of the token before or of the state that a feed goes on from: the one that is not null.
__device__ inline const float* either(const float* token, const float* state) { return token ? token : state; }

struct Either {
    const bf16* token;
    const float* state;

    __device__ operator bool() const { return token || state; }
    __device__ float operator[](u64 at) const { return token ? (float)token[at] : state[at]; }
};

__device__ inline Either either(const bf16* token, const float* state) { return {token, state}; }

// A cell of a sequence, given its share of U h.
template <class Cell>
__device__ inline void step_cell(const CellStepForward& p, u64 row, u64 n, float* sums) {
    const u64 hidden = p.hidden;
    float given[Cell::GATES], carried[Cell::CARRY], kept[KEPT];
#pragma unroll
    for (u32 k = 0; k < Cell::GATES; k++) {
        given[k] = p.gates[row * p.gates_step + k * hidden + n];
        sums[k] += p.bias[k * hidden + n];
    }
    const auto before = either(p.h_before, p.h_state);
    carried[0] = before ? before[row * p.before_step + n] : 0.0f;
#pragma unroll
    for (u32 k = 1; k < Cell::CARRY; k++)
        carried[k] = p.before ? p.before[row * p.rest_step + (k - 1) * hidden + n] : 0.0f;
    Cell::step(given, sums, kept, carried);
#pragma unroll
    for (u32 k = 0; k < KEPT; k++) p.kept[(row * p.length * KEPT + k) * hidden + n] = kept[k];
    p.h[row * p.length * hidden + n] = carried[0];
#pragma unroll
    for (u32 k = 1; k < Cell::CARRY; k++)
        p.memory[(row * p.length * (Cell::CARRY - 1) + k - 1) * hidden + n] = carried[k];
    if (p.state) {
#pragma unroll
        for (u32 k = 0; k < Cell::CARRY; k++) p.state[(row * Cell::CARRY + k) * hidden + n] = carried[k];
    }
}

template <class Cell>
__device__ inline void cell_forward(const CellStepForward& p) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.hidden, n = index % p.hidden;
    if (row >= p.rows) return;
    float sums[Cell::GATES];
#pragma unroll
    for (u32 k = 0; k < Cell::GATES; k++)
        sums[k] = p.sums ? p.sums[(row * p.length * KEPT + k) * p.hidden + n] : 0.0f;
    step_cell<Cell>(p, row, n, sums);
}

// Other blocks still read h before when a cell is done: it must not be where `state` is.
template <class Cell>
__device__ inline void token_forward(const CellStepForward& p) {
    const u32 lane = threadIdx.x % WARP;
    const u64 hidden = p.hidden, n = blockIdx.x * (u64)(blockDim.x / WARP) + threadIdx.x / WARP;
    // Whole warps leave.
    if (n >= hidden) return;
    float sums[FEW_ROWS][Cell::GATES] = {};
    const auto before = either(p.h_before, p.h_state);
    if (before) {
        const float* weight = p.weight + n * p.width;
        const u64 block = n / p.width * p.width;
#pragma unroll 4
        for (u32 i = lane; i < p.width; i += WARP) {
            float weights[Cell::GATES];
#pragma unroll
            for (u32 k = 0; k < Cell::GATES; k++) weights[k] = weight[k * hidden * p.width + i];
#pragma unroll
            for (u32 row = 0; row < FEW_ROWS; row++) {
                const float h = row < p.rows ? before[block + row * p.before_step + i] : 0.0f;
#pragma unroll
                for (u32 k = 0; k < Cell::GATES; k++) sums[row][k] = fmaf(weights[k], h, sums[row][k]);
            }
        }
    }
    // A lane goes on with one of the sequences.
    float own[Cell::GATES] = {};
#pragma unroll
    for (u32 row = 0; row < FEW_ROWS; row++)
#pragma unroll
        for (u32 k = 0; k < Cell::GATES; k++) {
            const float sum = warp_sum(sums[row][k]);
            if (lane == row) own[k] = sum;
        }
    if (lane < p.rows) step_cell<Cell>(p, lane, n, own);
}

template <class Cell>
__device__ inline void cell_backward(const CellStepBackward& p) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.hidden, hidden = p.hidden;
    const u32 n = index % p.hidden;
    if (row >= p.rows) return;
    const u64 token = row * p.length;
    float kept[KEPT], before[Cell::CARRY] = {}, after[Cell::CARRY], carried[Cell::CARRY], grad[Cell::GATES];
#pragma unroll
    for (u32 k = 0; k < KEPT; k++) kept[k] = p.kept[(token * KEPT + k) * hidden + n];
    // The places are those of this token: one before is that of the token before.
    if (!p.first) read_carried<Cell>(p.h - hidden, p.memory - (Cell::CARRY - 1) * hidden, token, hidden, n, before);
    read_carried<Cell>(p.h, p.memory, token, hidden, n, after);
#pragma unroll
    for (u32 k = 0; k < Cell::CARRY; k++) carried[k] = p.carry[(row * Cell::CARRY + k) * hidden + n];
    carried[0] += p.dh[token * hidden + n];
    Cell::gradient(kept, before, after, carried, grad);
#pragma unroll
    for (u32 k = 0; k < Cell::GATES; k++) p.grad[(token * Cell::GATES + k) * hidden + n] = grad[k];
#pragma unroll
    for (u32 k = 0; k < Cell::CARRY; k++) p.carry[(row * Cell::CARRY + k) * hidden + n] = carried[k];
    p.kept[(token * KEPT + KEPT - 1) * hidden + n] = kept[KEPT - 1];
}

#define CELL_KERNELS(name, Cell)                                                    \
    KERNEL(1024, name##_forward_1, CellForward) { forward<Cell, 1>(p); }            \
    KERNEL(1024, name##_forward_2, CellForward) { forward<Cell, 2>(p); }            \
    KERNEL(1024, name##_forward_4, CellForward) { forward<Cell, 4>(p); }            \
    KERNEL(1024, name##_backward_1, CellBackward) { backward<Cell, 1>(p); }         \
    KERNEL(1024, name##_backward_2, CellBackward) { backward<Cell, 2>(p); }         \
    KERNEL(1024, name##_backward_4, CellBackward) { backward<Cell, 4>(p); }         \
    KERNEL(256, name##_cell_forward, CellStepForward) { cell_forward<Cell>(p); }    \
    KERNEL(256, name##_token_forward, CellStepForward) { token_forward<Cell>(p); }  \
    KERNEL(256, name##_cell_backward, CellStepBackward) { cell_backward<Cell>(p); }

CELL_KERNELS(lstm, Lstm)
CELL_KERNELS(gru, Gru)
CELL_KERNELS(slstm, Slstm)

// A tile of 32 by 32 goes through shared memory [32, 33], so that both sides are read in lines.
KERNEL(256, cell_transpose, CellTranspose) {
    SHARED(tile);
    const u32 lane = threadIdx.x % 32, line = threadIdx.x / 32, columns = p.outputs;
    const u32 first_row = blockIdx.x * 32, first_col = blockIdx.y * 32;
    for (u32 row = line; row < 32; row += 8)
        if (first_row + row < columns && first_col + lane < p.width)
            tile[row * 33 + lane] = p.weight[(u64)(first_row + row) * p.width + first_col + lane];
    __syncthreads();
    for (u32 col = line; col < 32; col += 8)
        if (first_col + col < p.width && first_row + lane < columns)
            p.transposed[(u64)(first_col + col) * columns + first_row + lane] = tile[lane * 33 + col];
}

KERNEL(256, cell_shift, CellShift) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index < p.count) p.before[index] = index / p.hidden % p.length > 0 ? p.h[index - p.hidden] : 0.0f;
}
