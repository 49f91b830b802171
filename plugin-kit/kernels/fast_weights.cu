// Weights that learn while they read, a mini-batch of at most C tokens at a time (arXiv 2407.04620, section 2.5 and
// arXiv 2501.00663, section 3.2), for H heads with W [R, V], R being K, and one more for b whose input is 1:
//
//   g_j = gradient of the loss by z_j = k_j W,  W the mini-batch's first
//   y_i = q_i (a_i M + b_i S - sum over j <= i of p_ij k_j^T g_j)
//
// and M and S after the last token likewise, see mixture.rs for a, b, p and loss.rs for the loss. With plain descent M
// is W and S the sum of the mini-batch's steps, which is 0 before its first token.
//
// Block: a head of a sequence, mini-batch after mini-batch. All that is between stands in a block's own part of global
// memory, so that any K, V and C are taken. Shared: fast_weights_backward 32 values.

#define INPUTS 6

enum { QUERY, KEY, TARGET, RATE, KEEP, MOMENTUM };

// Loops around loops are not unrolled, which keeps machine code small and soon made.
#define EACH(index, count) _Pragma("unroll 1") for (u32 index = threadIdx.x; index < (count); index += blockDim.x)

// A block's head, the tokens it is at, and its part of `work`.
struct Head {
    u64 first;        // the first token, over [B, T]
    u32 head, count;  // tokens
    u32 place;        // of the first in its mini-batch
    float *rate, *keep, *momentum, *a, *b, *left, *inverses, *grad_a, *grad_b, *grad_left, *grad_shares;  // [C]
    float *steps, *speed, *qk, *mixed, *grad_mixed, *grad_steps, *grad_speed;                             // [C, C]
    float *g, *normal, *grad_g;                                                                           // [C, V]
    float *grad_q, *grad_k;                                                                               // [C, R]
    float* product;                                                                                       // [C, max(R, V)]
    float* grad_carried;                                                                                  // [2, R, V]
    float* grad_norm;                                                                                     // [2, V]
};

__device__ __forceinline__ Head head_of(const FastWeightsParams& p, u32 unit) {
    Head h;
    h.first = (u64)(unit / p.heads) * p.length;
    h.head = unit % p.heads;
    h.count = h.place = 0;
    float* next = p.work + unit * p.room;
    const u64 c = p.mini_batch;
    const auto take = [&](u64 count) { return (next += count) - count; };
    h.rate = take(c), h.keep = take(c), h.momentum = take(c), h.a = take(c), h.b = take(c), h.left = take(c);
    h.inverses = take(c), h.grad_a = take(c), h.grad_b = take(c), h.grad_left = take(c), h.grad_shares = take(c);
    h.steps = take(c * c), h.speed = take(c * c), h.qk = take(c * c), h.mixed = take(c * c);
    h.grad_mixed = take(c * c), h.grad_steps = take(c * c), h.grad_speed = take(c * c);
    h.g = take(c * p.value), h.normal = take(c * p.value), h.grad_g = take(c * p.value);
    h.grad_q = take(c * p.rows), h.grad_k = take(c * p.rows);
    h.product = take(c * (p.rows > p.value ? p.rows : p.value));
    h.grad_carried = take(2 * (u64)p.rows * p.value);
    h.grad_norm = take(2 * p.value);
    return h;
}

// A value of a token's input; rows of queries and keys end with b's 1.
__device__ __forceinline__ float read(const FastWeightsParams& p, const Head& h, u32 input, u32 t, u32 column) {
    const u32 width = input < TARGET ? p.key : input == TARGET ? p.value : 1;
    if (input < TARGET && column >= width) return 1.0f;
    return p.given[input][(h.first + t) * p.strides[input] + (u64)h.head * width + column];
}

__device__ __forceinline__ float read_dy(const FastWeightsParams& p, const Head& h, u32 t, u32 column) {
    return p.dy[(h.first + t) * p.dy_stride + (u64)h.head * p.value + column];
}

// put(i, j, sum over l of a(i, l) b(l, j)).
template <class A, class B, class Put>
__device__ __forceinline__ void multiply(u32 rows, u32 cols, u32 inner, A a, B b, Put put) {
    EACH(index, rows * cols) {
        const u32 i = index / cols, j = index % cols;
        float sum = 0.0f;
        for (u32 l = 0; l < inner; l++) sum += a(i, l) * b(l, j);
        put(i, j, sum);
    }
}

// put(i, sum over j of f(i, j)), a warp a row.
template <class F, class Put>
__device__ __forceinline__ void row_sums(u32 rows, u32 cols, F f, Put put) {
#pragma unroll 1
    for (u32 i = threadIdx.x / WARP; i < rows; i += blockDim.x / WARP) {
        float sum = 0.0f;
        for (u32 j = threadIdx.x % WARP; j < cols; j += WARP) sum += f(i, j);
        sum = warp_sum(sum);
        if (threadIdx.x % WARP == 0) put(i, sum);
    }
}

__device__ __forceinline__ bool descends(const FastWeightsParams& p) { return p.shares != nullptr; }

// c of a token, before it is kept from falling below 0.
__device__ __forceinline__ float share_of(const FastWeightsParams& p, u32 place) {
    return p.shares[place] + 1.0f / (float)(place + 1);
}

// a, b, p and what is left of S, for the tokens at hand.
__device__ __forceinline__ void mix(const FastWeightsParams& p, const Head& h) {
    const u32 n = h.count, c = p.mini_batch;
    EACH(t, n) {
        h.rate[t] = read(p, h, RATE, t, 0);
        h.keep[t] = descends(p) ? fmaxf(share_of(p, h.place + t), 0.0f) : p.given[KEEP] ? read(p, h, KEEP, t, 0) : 1.0f;
        h.momentum[t] = p.given[MOMENTUM] ? read(p, h, MOMENTUM, t, 0) : 0.0f;
    }
    __syncthreads();
    EACH(j, n) {
        float speed = h.rate[j], step = speed;
        for (u32 i = 0; i < n; i++) {
            if (descends(p)) {
                step = h.keep[i] * h.rate[j];
                speed = -h.rate[j];
            } else if (i > j) {
                speed *= h.momentum[i];
                step = h.keep[i] * step + speed;
            }
            h.steps[i * c + j] = i < j ? 0.0f : step;
            h.speed[i * c + j] = i < j ? 0.0f : speed;
        }
    }
    if (threadIdx.x == 0) {
        float a = 1.0f, b = 0.0f, left = 1.0f;
        for (u32 i = 0; i < n; i++) {
            if (descends(p)) {
                b = -h.keep[i];
            } else {
                left *= h.momentum[i];
                a *= h.keep[i];
                b = h.keep[i] * b + left;
            }
            h.a[i] = a, h.b[i] = b, h.left[i] = left;
        }
    }
}

// The gradient of the loss in the place of z; a warp a row.
__device__ __forceinline__ void differentiate(const FastWeightsParams& p, const Head& h) {
    const u32 lane = threadIdx.x % WARP, width = p.value;
    const u64 column = (u64)h.head * width;
    const float *weight = p.weight ? p.weight + column : nullptr, *bias = p.weight ? p.norm_bias + column : nullptr;
#pragma unroll 1
    for (u32 t = threadIdx.x / WARP; t < h.count; t += blockDim.x / WARP) {
        float *g = h.g + (u64)t * width, *normal = h.normal + (u64)t * width;
        if (!weight) {
            for (u32 j = lane; j < width; j += WARP) g[j] -= read(p, h, TARGET, t, j);
            continue;
        }
        float sum = 0.0f, squares = 0.0f, along = 0.0f;
        for (u32 j = lane; j < width; j += WARP) sum += g[j];
        const float mean = warp_sum(sum) / width;
        for (u32 j = lane; j < width; j += WARP) squares += (g[j] - mean) * (g[j] - mean);
        const float inverse = 1.0f / sqrtf(warp_sum(squares) / width + p.epsilon);
        sum = 0.0f;
        for (u32 j = lane; j < width; j += WARP) {
            normal[j] = (g[j] - mean) * inverse;
            g[j] = (normal[j] * weight[j] + bias[j] - read(p, h, TARGET, t, j)) * weight[j];
            sum += g[j];
            along += g[j] * normal[j];
        }
        sum = warp_sum(sum) / width;
        along = warp_sum(along) / width;
        for (u32 j = lane; j < width; j += WARP) g[j] = inverse * (g[j] - sum - normal[j] * along);
        if (lane == 0) h.inverses[t] = inverse;
    }
}

// All that both passes need of the tokens at hand.
__device__ __forceinline__ void begin(const FastWeightsParams& p, const Head& h, const float* point) {
    const u32 n = h.count, c = p.mini_batch, value = p.value;
    mix(p, h);
    multiply(n, value, p.rows, [&](u32 t, u32 r) { return read(p, h, KEY, t, r); },
             [&](u32 r, u32 j) { return point[(u64)r * value + j]; },
             [&](u32 t, u32 j, float sum) { h.g[(u64)t * value + j] = sum; });
    multiply(n, n, p.rows, [&](u32 i, u32 r) { return read(p, h, QUERY, i, r); },
             [&](u32 r, u32 j) { return read(p, h, KEY, j, r); },
             [&](u32 i, u32 j, float sum) { h.qk[i * c + j] = sum; });
    __syncthreads();
    differentiate(p, h);
    EACH(index, n * n) {
        const u32 at = index / n * c + index % n;
        h.mixed[at] = h.qk[at] * h.steps[at];
    }
    __syncthreads();
}

// Adds where W and M began, or takes it away.
__device__ __forceinline__ void shift(const FastWeightsParams& p, const Head& h, float* carried, float sign) {
    const u32 size = p.rows * p.value, weights = p.key * p.value;
    EACH(index, size) {
        const float start = index < weights ? p.start[(u64)h.head * weights + index] : p.bias[(u64)h.head * p.value + index - weights];
        carried[index] += sign * start;
        if (!descends(p)) carried[size + index] += sign * start;
    }
    __syncthreads();
}

// The matrices after the last token, from `from` to `to`, which may be the same.
__device__ __forceinline__ void step(const FastWeightsParams& p, const Head& h, const float* from, float* to, bool completes, bool has_second) {
    const u32 n = h.count, last = (n - 1) * p.mini_batch, size = p.rows * p.value;
    EACH(index, size) {
        const u32 r = index / p.value, j = index % p.value;
        float steps = 0.0f, speeds = 0.0f;
        for (u32 t = 0; t < n; t++) {
            const float product = read(p, h, KEY, t, r) * h.g[(u64)t * p.value + j];
            steps += h.steps[last + t] * product;
            speeds += h.speed[last + t] * product;
        }
        const float first = from[(descends(p) ? 0 : size) + index];
        const u32 at = (descends(p) ? size : 2 * size) + index;
        const bool carries = descends(p) || p.matrices > 2;
        const float second = carries && has_second ? from[at] : 0.0f;
        const float now = h.a[n - 1] * first + h.b[n - 1] * second - steps;
        const float speed = descends(p) && completes ? 0.0f : h.left[n - 1] * second - speeds;
        to[index] = completes ? now : from[index];
        if (!descends(p)) to[size + index] = now;
        if (carries) to[at] = speed;
    }
    __syncthreads();
}

KERNEL(256, fast_weights_forward, FastWeightsParams) {
    const u32 unit = blockIdx.x, size = p.rows * p.value;
    const u64 carried = (u64)p.matrices * size;
    Head h = head_of(p, unit);
    const u64 position = p.control ? p.control->position : 0, row = h.first;
    float* now = p.state ? p.state + unit * carried : p.before + (u64)unit * p.chunks * carried;
    if (!p.state) {
        EACH(index, (u32)carried) now[index] = 0.0f;
        __syncthreads();
    }
    shift(p, h, now, 1.0f);
    for (u32 at = 0; at < p.length; at += h.count) {
        h.first = row + at;
        h.place = (u32)((position + at) % p.mini_batch);
        h.count = min(p.mini_batch - h.place, p.length - at);
        begin(p, h, now);
        const bool has_second = descends(p) ? p.state && at == 0 : p.matrices > 2;
        const float *first = now + (descends(p) ? 0 : size), *second = now + (descends(p) ? size : 2 * size);
        EACH(index, h.count * p.value) {
            const u32 i = index / p.value, j = index % p.value;
            float by_first = 0.0f, by_second = 0.0f, by_steps = 0.0f;
            for (u32 r = 0; r < p.rows; r++) {
                const float q = read(p, h, QUERY, i, r);
                by_first += q * first[r * p.value + j];
                if (has_second) by_second += q * second[r * p.value + j];
            }
            for (u32 l = 0; l <= i; l++) by_steps += h.mixed[i * p.mini_batch + l] * h.g[(u64)l * p.value + j];
            p.y[(h.first + i) * p.y_stride + (u64)h.head * p.value + j] = h.a[i] * by_first + h.b[i] * by_second - by_steps;
        }
        __syncthreads();
        const bool ends = at + h.count >= p.length;
        if (p.state || !ends) {
            float* next = p.state ? now : now + carried;
            step(p, h, now, next, h.place + h.count == p.mini_batch, has_second);
            now = next;
        }
    }
    if (p.state) shift(p, h, now, -1.0f);
}

// Writes or adds the gradient of a token's input.
__device__ __forceinline__ void put(const FastWeightsParams& p, const Head& h, u32 input, u32 width, u32 t, u32 column, float grad) {
    leave(p.grads[input] + (h.first + t) * p.grad_strides[input] + (u64)h.head * width + column, grad, p.accumulate[input]);
}

// The gradients from those of the matrices after the last token, which become those before as far as they are carried.
__device__ __forceinline__ void step_back(const FastWeightsParams& p, const Head& h, const float* first, const float* second, float* scratch) {
    const u32 n = h.count, last = (n - 1) * p.mini_batch, value = p.value, size = p.rows * value;
#pragma unroll 1
    for (u32 which = 0; which < (second ? 2u : 1u); which++) {
        const float *grad = h.grad_carried + which * size, *numbers = (which ? h.speed : h.steps) + last;
        float* to = (which ? h.grad_speed : h.grad_steps) + last;
        multiply(n, value, p.rows, [&](u32 t, u32 r) { return read(p, h, KEY, t, r); },
                 [&](u32 r, u32 j) { return grad[r * value + j]; },
                 [&](u32 t, u32 j, float sum) {
                     h.product[(u64)t * value + j] = -sum;
                     h.grad_g[(u64)t * value + j] -= numbers[t] * sum;
                 });
        multiply(n, p.rows, value, [&](u32 t, u32 j) { return h.g[(u64)t * value + j]; },
                 [&](u32 j, u32 r) { return grad[r * value + j]; },
                 [&](u32 t, u32 r, float sum) { h.grad_k[t * p.rows + r] -= numbers[t] * sum; });
        __syncthreads();
        row_sums(n, value, [&](u32 t, u32 j) { return h.g[(u64)t * value + j] * h.product[(u64)t * value + j]; },
                 [&](u32 t, float sum) { to[t] += sum; });
        __syncthreads();
    }
    float a = 0.0f, b = 0.0f, left = 0.0f;
    EACH(index, size) {
        const float grad = h.grad_carried[index], grad_second = h.grad_carried[size + index];
        a += grad * first[index];
        if (second) {
            b += grad * second[index];
            left += grad_second * second[index];
            h.grad_carried[size + index] = h.left[n - 1] * grad_second + h.b[n - 1] * grad;
        }
        h.grad_carried[index] = h.a[n - 1] * grad;
    }
    a = block_sum(a, scratch);
    b = block_sum(b, scratch);
    left = block_sum(left, scratch);
    if (threadIdx.x == 0) h.grad_a[n - 1] += a, h.grad_b[n - 1] += b, h.grad_left[n - 1] += left;
    __syncthreads();
}

// The gradients of what a matrix of those before is read with.
__device__ __forceinline__ void matrix_back(const FastWeightsParams& p, const Head& h, const float* matrix, const float* numbers, float* grads, float* to) {
    const u32 n = h.count, value = p.value, rows = p.rows;
    multiply(n, rows, value, [&](u32 i, u32 j) { return read_dy(p, h, i, j); },
             [&](u32 j, u32 r) { return matrix[r * value + j]; },
             [&](u32 i, u32 r, float sum) {
                 h.product[i * rows + r] = sum;
                 h.grad_q[i * rows + r] += numbers[i] * sum;
             });
    multiply(rows, value, n, [&](u32 r, u32 i) { return numbers[i] * read(p, h, QUERY, i, r); },
             [&](u32 i, u32 j) { return read_dy(p, h, i, j); },
             [&](u32 r, u32 j, float sum) { to[r * value + j] += sum; });
    __syncthreads();
    row_sums(n, rows, [&](u32 i, u32 r) { return read(p, h, QUERY, i, r) * h.product[i * rows + r]; },
             [&](u32 i, float sum) { grads[i] += sum; });
    __syncthreads();
}

// The gradient of z in the place of that of g, that of the target, and of the LayerNorm; a warp a row.
__device__ __forceinline__ void differentiate_back(const FastWeightsParams& p, const Head& h) {
    const u32 lane = threadIdx.x % WARP, width = p.value;
    const u64 column = (u64)h.head * width;
    const float *weight = p.weight ? p.weight + column : nullptr, *bias = p.weight ? p.norm_bias + column : nullptr;
#pragma unroll 1
    for (u32 t = threadIdx.x / WARP; t < h.count; t += blockDim.x / WARP) {
        float *dg = h.grad_g + (u64)t * width, *slopes = h.product + (u64)t * width;
        if (!weight) {
            for (u32 j = lane; j < width; j += WARP) put(p, h, TARGET, width, t, j, -dg[j]);
            continue;
        }
        const float *n = h.normal + (u64)t * width, inverse = h.inverses[t];
        const auto loss = [&](u32 j) { return n[j] * weight[j] + bias[j] - read(p, h, TARGET, t, j); };
        float sums[5] = {};  // of u, u n, dg, dg n and dg u, u being the loss's slope by n
        for (u32 j = lane; j < width; j += WARP) {
            const float u = loss(j) * weight[j];
            sums[0] += u, sums[1] += u * n[j], sums[2] += dg[j], sums[3] += dg[j] * n[j], sums[4] += dg[j] * u;
        }
        for (float& sum : sums) sum = warp_sum(sum) / width;
        const float of_deviation = -(sums[4] - sums[0] * sums[2] - sums[1] * sums[3]) * inverse * inverse;
        float mean = 0.0f, along = 0.0f;
        for (u32 j = lane; j < width; j += WARP) {
            const float u = loss(j) * weight[j], du = inverse * (dg[j] - sums[2] - n[j] * sums[3]);
            const float dn = du * weight[j] * weight[j] - inverse * (sums[1] * dg[j] + sums[3] * u);
            put(p, h, TARGET, width, t, j, -du * weight[j]);
            slopes[j] = du, dg[j] = dn;
            mean += dn, along += dn * n[j];
        }
        mean = warp_sum(mean) / width;
        along = warp_sum(along) / width;
        for (u32 j = lane; j < width; j += WARP) dg[j] = inverse * (dg[j] - mean - n[j] * along) + of_deviation * n[j];
    }
    __syncthreads();
    if (!weight) return;
    EACH(j, width) {
        for (u32 t = 0; t < h.count; t++) {
            const float du = h.product[(u64)t * width + j], scaled = h.normal[(u64)t * width + j] * weight[j];
            h.grad_norm[j] += du * (2.0f * scaled + bias[j] - read(p, h, TARGET, t, j));
            h.grad_norm[width + j] += du * weight[j];
        }
    }
}

// The gradients of rates, keep and momentum from those of the numbers.
__device__ __forceinline__ void mix_back(const FastWeightsParams& p, const Head& h) {
    const u32 n = h.count, c = p.mini_batch;
    EACH(j, n) {
        float step = 0.0f, speed = 0.0f;
        for (u32 i = n; i-- > j;) {
            const u32 at = i * c + j;
            if (descends(p)) {
                speed += h.grad_steps[at] * h.keep[i];
                continue;
            }
            step = h.grad_steps[at] + (i + 1 < n ? h.keep[i + 1] * step : 0.0f);
            speed = h.grad_speed[at] + (i + 1 < n ? h.momentum[i + 1] * speed : 0.0f) + step;
            h.grad_steps[at] = step, h.grad_speed[at] = speed;
        }
        put(p, h, RATE, 1, j, 0, speed);
    }
    if (threadIdx.x == 0 && !descends(p)) {
        for (u32 i = n; i-- > 0;) {
            if (i + 1 < n) {
                h.grad_a[i] += h.keep[i + 1] * h.grad_a[i + 1];
                h.grad_b[i] += h.keep[i + 1] * h.grad_b[i + 1];
                h.grad_left[i] += h.momentum[i + 1] * h.grad_left[i + 1];
            }
            h.grad_left[i] += h.grad_b[i];
        }
    }
    __syncthreads();
    EACH(i, n) {
        float keep = 0.0f, momentum = 0.0f;
        if (descends(p)) {
            for (u32 j = 0; j <= i; j++) keep += h.grad_steps[i * c + j] * h.rate[j];
            if (share_of(p, h.place + i) >= 0.0f) h.grad_shares[h.place + i] += keep;
            continue;
        }
        keep = i ? h.grad_a[i] * h.a[i - 1] + h.grad_b[i] * h.b[i - 1] : h.grad_a[0];
        momentum = h.grad_left[i] * (i ? h.left[i - 1] : 1.0f);
        for (u32 j = 0; j < i; j++) {
            keep += h.grad_steps[i * c + j] * h.steps[(i - 1) * c + j];
            momentum += h.grad_speed[i * c + j] * h.speed[(i - 1) * c + j];
        }
        if (p.given[KEEP]) put(p, h, KEEP, 1, i, 0, keep);
        if (p.given[MOMENTUM]) put(p, h, MOMENTUM, 1, i, 0, momentum);
    }
}

// What comes past g, from the gradient of y.
__device__ __forceinline__ void read_back(const FastWeightsParams& p, const Head& h) {
    const u32 n = h.count, c = p.mini_batch, value = p.value, rows = p.rows;
    multiply(n, n, value, [&](u32 i, u32 v) { return read_dy(p, h, i, v); },
             [&](u32 v, u32 j) { return h.g[(u64)j * value + v]; },
             [&](u32 i, u32 j, float sum) { h.grad_mixed[i * c + j] = -sum; });
    multiply(n, value, n, [&](u32 j, u32 i) { return h.mixed[i * c + j]; },
             [&](u32 i, u32 v) { return read_dy(p, h, i, v); },
             [&](u32 j, u32 v, float sum) { h.grad_g[(u64)j * value + v] = -sum; });
    EACH(i, n) h.grad_a[i] = h.grad_b[i] = h.grad_left[i] = 0.0f;
    __syncthreads();
    EACH(index, n * n) {
        const u32 i = index / n, j = index % n, at = i * c + j;
        h.grad_steps[at] = j > i ? 0.0f : h.grad_mixed[at] * h.qk[at];
        h.grad_speed[at] = 0.0f;
        // In the place of p q k^T, which nothing reads any more.
        h.mixed[at] = h.grad_mixed[at] * h.steps[at];
    }
    __syncthreads();
    multiply(n, rows, n, [&](u32 i, u32 j) { return h.mixed[i * c + j]; },
             [&](u32 j, u32 r) { return read(p, h, KEY, j, r); },
             [&](u32 i, u32 r, float sum) { h.grad_q[i * rows + r] = sum; });
    multiply(n, rows, n, [&](u32 j, u32 i) { return h.mixed[i * c + j]; },
             [&](u32 i, u32 r) { return read(p, h, QUERY, i, r); },
             [&](u32 j, u32 r, float sum) { h.grad_k[j * rows + r] = sum; });
    __syncthreads();
}

KERNEL(256, fast_weights_backward, FastWeightsParams) {
    SHARED(scratch);
    const u32 unit = blockIdx.x, value = p.value, rows = p.rows, size = rows * value;
    const u64 carried = (u64)p.matrices * size;
    Head h = head_of(p, unit);
    const u64 row = h.first;
    EACH(index, 2 * size) h.grad_carried[index] = 0.0f;
    EACH(index, 2 * value) h.grad_norm[index] = 0.0f;
    EACH(index, p.mini_batch) h.grad_shares[index] = 0.0f;
    __syncthreads();
    for (u32 chunk = p.chunks; chunk-- > 0;) {
        const u32 at = chunk * p.mini_batch;
        h.first = row + at;
        h.count = min(p.mini_batch, p.length - at);
        const float* point = p.before + ((u64)unit * p.chunks + chunk) * carried;
        const float* first = point + (descends(p) ? 0 : size);
        const float* second = !descends(p) && p.matrices > 2 ? point + 2 * size : nullptr;
        begin(p, h, point);
        read_back(p, h);
        if (chunk + 1 < p.chunks) step_back(p, h, first, second, scratch);
        matrix_back(p, h, first, h.a, h.grad_a, h.grad_carried);
        if (second) matrix_back(p, h, second, h.b, h.grad_b, h.grad_carried + size);
        differentiate_back(p, h);
        multiply(h.count, rows, value, [&](u32 t, u32 j) { return h.grad_g[(u64)t * value + j]; },
                 [&](u32 j, u32 r) { return point[r * value + j]; },
                 [&](u32 t, u32 r, float sum) {
                     if (r < p.key) {
                         put(p, h, KEY, p.key, t, r, h.grad_k[t * rows + r] + sum);
                         put(p, h, QUERY, p.key, t, r, h.grad_q[t * rows + r]);
                     }
                 });
        multiply(rows, value, h.count, [&](u32 r, u32 t) { return read(p, h, KEY, t, r); },
                 [&](u32 t, u32 j) { return h.grad_g[(u64)t * value + j]; },
                 [&](u32 r, u32 j, float sum) { h.grad_carried[r * value + j] += sum; });
        mix_back(p, h);
        __syncthreads();
    }
}

// Adds the gradients that the blocks have left to those of the parameters, in the order of the rows.
KERNEL(256, fast_weights_params, FastWeightsParams) {
    const u32 size = p.rows * p.value, weights = p.key * p.value, each = size + 2 * p.value;
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < p.heads * each) {
        const u32 head = index / each, at = index % each, column = at < size ? at - weights : (at - size) % p.value;
        float* place = at < weights ? p.grad_start + (u64)head * weights + at
                       : at < size  ? p.grad_bias + (u64)head * p.value + column
                                    : (at - size < p.value ? p.grad_weight : p.grad_norm_bias);
        if (at >= size) {
            if (!place) return;
            place += (u64)head * p.value + column;
        }
        float sum = 0.0f;
        for (u32 row = 0; row < p.batch; row++) {
            const Head h = head_of(p, row * p.heads + head);
            sum += at < size ? h.grad_carried[at] : h.grad_norm[at - size];
        }
        *place += sum;
    } else if (p.grad_shares && index - p.heads * each < p.mini_batch) {
        float sum = 0.0f;
        for (u32 unit = 0; unit < p.batch * p.heads; unit++) sum += head_of(p, unit).grad_shares[index - p.heads * each];
        p.grad_shares[index - p.heads * each] += sum;
    }
}
