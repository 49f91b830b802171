// MesaNet's solver (arXiv 2506.05233), x_t = A_t^-1 q_t with A_t = H_t + diag(lambda) and H_t = a H_{t-1} + beta k k^T, for H
// heads of width K, by conjugate gradients; gradients by a second solution instead of the steps of the first: with
// A u = dx, dq = u and dH_t = -(u x^T + x u^T) / 2, and with D_t the gradient of H_t that later tokens bring too,
//
//   dk = 2 beta D k,  dbeta = k D k,  dlambda = -u x,  and of ln a_t:  g_t = <D_t, H_t> - beta k D k,
//   where <D_t, H_t> = g_{t+1} - u_t H_t x_t, as D_t is a_{t+1} D_{t+1} and dH_t.
//
// The matrices before each chunk of 64 tokens are kept (mesa_matrices), so that chunks solve beside each other
// (mesa_solve); and likewise back: mesa_solve for u, which leaves u H x, mesa_carry for a D after each chunk,
// mesa_gradients. Inside of a chunk a block goes from token to token with the matrix in shared memory, K rows of K + 4
// values, four neighbouring threads to a row, and at most 256 in all. K up to 128.

#define CHUNK 64u

// A value of all heads' matrices.
struct Cell {
    u64 unit, token;  // over [B, H], the first over [B, T]
    u32 head, i, j;
};

__device__ __forceinline__ Cell own_cell(const Mesa& p) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x, size = (u64)p.key * p.key, unit = index / size;
    return {unit, unit / p.heads * p.length, (u32)(unit % p.heads), (u32)(index % size / p.key), (u32)(index % p.key)};
}

// H before each chunk. One thread a value.
KERNEL(256, mesa_matrices, Mesa) {
    const Cell c = own_cell(p);
    if (c.unit >= (u64)p.rows * p.heads) return;
    const u64 size = (u64)p.key * p.key, cell = (u64)c.i * p.key + c.j;
    float value = p.state ? p.state[c.unit * size + cell] : 0.0f;
    for (u32 t = 0; t < p.length; t++) {
        if (t % CHUNK == 0) p.before[(c.unit * p.chunks + t / CHUNK) * size + cell] = value;
        const u64 token = c.token + t;
        const stored* k = p.k + token * p.k_stride + (u64)c.head * p.key;
        value = expf(p.decay[token * p.decay_stride + c.head]) * value + p.beta[token * p.beta_stride + c.head] * k[c.i] * k[c.j];
    }
    if (p.state) p.state[c.unit * size + cell] = value;
}

// The gradient of H after each chunk by the tokens behind it. One thread a value.
KERNEL(256, mesa_carry, Mesa) {
    const Cell c = own_cell(p);
    if (c.unit >= (u64)p.rows * p.heads) return;
    const u64 size = (u64)p.key * p.key, cell = (u64)c.i * p.key + c.j;
    float value = 0.0f;
    for (u32 t = p.length; t-- > 0;) {
        if (t % CHUNK == CHUNK - 1 || t + 1 == p.length) p.after[(c.unit * p.chunks + t / CHUNK) * size + cell] = value;
        const u64 token = c.token + t;
        const stored* x = p.x + token * p.x_stride + (u64)c.head * p.key;
        const float* u = p.u + (token * p.heads + c.head) * p.key;
        value -= 0.5f * (u[c.i] * x[c.j] + x[c.i] * u[c.j]);
        value *= expf(p.decay[token * p.decay_stride + c.head]);
    }
}

// A chunk of a head.
struct Place {
    u64 token, matrix;  // its first, over [B, T]; where its matrices begin
    u32 head, count, chunk;
};

__device__ __forceinline__ Place place_of(const Mesa& p) {
    const u32 chunk = blockIdx.x % p.chunks, start = chunk * CHUNK;
    const u64 unit = blockIdx.x / p.chunks;
    return {unit / p.heads * p.length + start, (unit * p.chunks + chunk) * p.key * p.key, (u32)(unit % p.heads), min(CHUNK, p.length - start), chunk};
}

__device__ __forceinline__ u32 stride_of(const Mesa& p) { return p.key + 4; }

// Every value of a matrix in shared memory: each(i, j, value).
template <class Each>
__device__ __forceinline__ void for_matrix(const Mesa& p, float* matrix, Each each) {
    for (u32 index = threadIdx.x; index < p.key * p.key; index += blockDim.x) {
        const u32 i = index / p.key, j = index % p.key;
        each(i, j, matrix[i * stride_of(p) + j]);
    }
}

// put(i, row i times a vector), by the first of the threads that share the row.
template <class Put>
__device__ __forceinline__ void times(const Mesa& p, const float* matrix, const float* vector, Put put) {
    const u32 lane = threadIdx.x % 4;
    // Every thread takes part in the shuffles.
    for (u32 first = 0; first < p.key; first += blockDim.x / 4) {
        const u32 i = first + threadIdx.x / 4;
        float sum = 0.0f;
        for (u32 j = lane; j < p.key && i < p.key; j += 4) sum += matrix[i * stride_of(p) + j] * vector[j];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        if (lane == 0 && i < p.key) put(i, sum);
    }
}

__device__ __forceinline__ float own_product(const Mesa& p, const float* a, const float* b, float* scratch) {
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) sum += a[i] * b[i];
    return block_sum(sum, scratch);
}

// x = (H + diag(ridge))^-1 of what is in `rest`, from 0 on.
__device__ __forceinline__ void conjugate_gradients(const Mesa& p, const float* h, const float* ridge, float* x, float* rest, float* direction, float* image, float* scratch) {
    for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) {
        x[i] = 0.0f;
        direction[i] = rest[i];
    }
    float left = own_product(p, rest, rest, scratch);
    // Below the smallest normal number a step is 0 over 0: gradients of what decayed long ago are that small.
    const float enough = fmaxf(left * p.solved, 1.17549435e-38f);
    for (u32 step = 0; step < p.steps && left > enough; step++) {
        times(p, h, direction, [&](u32 i, float sum) { image[i] = ridge[i] * direction[i] + sum; });
        __syncthreads();
        const float along = left / own_product(p, direction, image, scratch);
        for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) {
            x[i] += along * direction[i];
            rest[i] -= along * image[i];
        }
        __syncthreads();
        const float before = left;
        left = own_product(p, rest, rest, scratch);
        for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) direction[i] = rest[i] + left / before * direction[i];
        __syncthreads();
    }
}

// Solutions of a chunk's tokens, for q, or for their gradient and then what they meet, u H x. Grid: chunks of all heads.
// Shared: a matrix [K, K + 4], six vectors [K], scratch [32].
template <bool BACK>
__device__ __forceinline__ void solve_chunk(const Mesa& p, float* h) {
    float *ridge = h + p.key * stride_of(p), *k = ridge + p.key, *x = k + p.key, *rest = x + p.key, *direction = rest + p.key, *image = direction + p.key;
    float* scratch = image + p.key;
    const Place place = place_of(p);
    const u64 column = (u64)place.head * p.key;
    for_matrix(p, h, [&](u32 i, u32 j, float& value) { value = p.before[place.matrix + i * p.key + j]; });
    for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) ridge[i] = softplus(p.lambda[column + i]) + p.bound;
    for (u32 t = 0; t < place.count; t++) {
        const u64 token = place.token + t;
        __syncthreads();
        for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) {
            k[i] = p.k[token * p.k_stride + column + i];
            rest[i] = BACK ? p.dx[token * p.dx_stride + column + i] : p.q[token * p.q_stride + column + i];
        }
        __syncthreads();
        const float kept = expf(p.decay[token * p.decay_stride + place.head]), beta = p.beta[token * p.beta_stride + place.head];
        for_matrix(p, h, [&](u32 i, u32 j, float& value) { value = kept * value + beta * k[i] * k[j]; });
        __syncthreads();
        conjugate_gradients(p, h, ridge, x, rest, direction, image, scratch);
        if (!BACK) {
            for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) p.x[token * p.x_stride + column + i] = x[i];
            continue;
        }
        for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) {
            p.u[(token * p.heads + place.head) * p.key + i] = x[i];
            direction[i] = p.x[token * p.x_stride + column + i];
        }
        __syncthreads();
        times(p, h, direction, [&](u32 i, float sum) { image[i] = sum; });
        __syncthreads();
        const float met = own_product(p, x, image, scratch);
        if (threadIdx.x == 0) p.met[token * p.heads + place.head] = met;
    }
}

KERNEL(256, mesa_solve, Mesa) {
    SHARED(shared);
    solve_chunk<false>(p, shared);
}

KERNEL(256, mesa_solve_back, Mesa) {
    SHARED(shared);
    solve_chunk<true>(p, shared);
}

// The gradients of a chunk's inputs, and its share of that of lambda. Grid and shared as above, with D for H.
KERNEL(256, mesa_gradients, Mesa) {
    SHARED(d);
    float *k = d + p.key * stride_of(p), *x = k + p.key, *u = x + p.key, *along = u + p.key, *of_lambda = along + p.key;
    float* scratch = of_lambda + 2 * p.key;
    const Place place = place_of(p);
    const u64 column = (u64)place.head * p.key, size = (u64)p.key * p.key;
    const bool is_last = place.chunk + 1 == p.chunks;
    float across = 0.0f;
    for_matrix(p, d, [&](u32 i, u32 j, float& value) {
        const u64 at = place.matrix + i * p.key + j;
        value = p.after[at];
        if (!is_last) across += value * p.before[at + size];
    });
    for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) of_lambda[i] = 0.0f;
    // <a D, H> after the chunk: what the logarithm of the next token's decay has.
    float of_decay = block_sum(across, scratch);
    for (u32 t = place.count; t-- > 0;) {
        const u64 token = place.token + t;
        __syncthreads();
        for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) {
            k[i] = p.k[token * p.k_stride + column + i];
            x[i] = p.x[token * p.x_stride + column + i];
            u[i] = p.u[(token * p.heads + place.head) * p.key + i];
            of_lambda[i] -= u[i] * x[i];
        }
        __syncthreads();
        for_matrix(p, d, [&](u32 i, u32 j, float& value) { value -= 0.5f * (u[i] * x[j] + x[i] * u[j]); });
        __syncthreads();
        times(p, d, k, [&](u32 i, float sum) { along[i] = sum; });
        __syncthreads();
        const float kept = expf(p.decay[token * p.decay_stride + place.head]), beta = p.beta[token * p.beta_stride + place.head];
        const float of_beta = own_product(p, k, along, scratch);
        of_decay -= p.met[token * p.heads + place.head] + beta * of_beta;
        for (u32 i = threadIdx.x; i < p.key; i += blockDim.x) {
            leave(&p.grad_q[token * p.grad_q_stride + column + i], u[i], p.add_q);
            leave(&p.grad_k[token * p.grad_k_stride + column + i], 2.0f * beta * along[i], p.add_k);
        }
        if (threadIdx.x == 0) {
            leave(&p.grad_decay[token * p.grad_decay_stride + place.head], of_decay, p.add_decay);
            leave(&p.grad_beta[token * p.grad_beta_stride + place.head], of_beta, p.add_beta);
        }
        for_matrix(p, d, [&](u32, u32, float& value) { value *= kept; });
    }
    const u64 row = blockIdx.x / p.chunks / p.heads;
    for (u32 i = threadIdx.x; i < p.key; i += blockDim.x)
        p.shares[(row * p.chunks + place.chunk) * p.heads * p.key + column + i] = of_lambda[i] * sigmoid(p.lambda[column + i]);
}
