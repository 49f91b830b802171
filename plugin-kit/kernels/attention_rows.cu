// What attention does value by value around its tiles (attention.cu): the cache, the parts of a feed's keys,
// delta = dy . y, and the gradients of key heads that several query heads share. One thread a value, in
// attention_delta one warp a head and position; no shared memory, no limits.

// One value of y from those of its parts, in their order.
KERNEL(256, attention_parts, AttentionParts) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= p.count) return;
    const u64 cols = p.heads * (u64)p.head_dim, at = index / cols, col = index % cols;
    const u64 row = at / p.length, t = at % p.length, head = col / p.head_dim;
    const float* log_sums = p.log_sums + (row * p.parts * p.heads + head) * p.length + t;
    const stored* values = p.values + (row * p.parts * p.length + t) * cols + col;
    float top = MINUS_INFINITY, total = 0.0f, sum = 0.0f;
    for (u32 part = 0; part < p.parts; part++) top = fmaxf(top, log_sums[part * (u64)p.heads * p.length]);
    for (u32 part = 0; part < p.parts; part++) {
        const float weight = expf(log_sums[part * (u64)p.heads * p.length] - top);
        total += weight;
        sum += weight * values[part * p.length * cols];
    }
    p.y[at * p.y_stride + col] = sum / total;
}

// Keys, values and biases of this feed to their places in the ring, a thread a value.
KERNEL(256, attention_append, AttentionAppend) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= p.count) return;
    const u64 cols = 2 * (u64)p.cols + p.biases, at = index / cols, col = index % cols;
    const u64 row = at / p.length, place = (p.control->position + at % p.length) % p.capacity;
    float value;
    if (col < p.cols) value = p.k[at * p.k_stride + col];
    else if (col < 2 * (u64)p.cols) value = p.v[at * p.v_stride + col - p.cols];
    else value = p.bias[at * p.bias_stride + col - 2 * (u64)p.cols];
    p.cache[(row * p.capacity + place) * cols + col] = value;
}

// delta = dy . y of one head of one position, a warp each.
KERNEL(256, attention_delta, AttentionDelta) {
    const u32 lane = threadIdx.x % WARP;
    const u64 index = blockIdx.x * (u64)(blockDim.x / WARP) + threadIdx.x / WARP;
    if (index >= p.count) return;
    const u64 at = index / p.heads, head = index % p.heads;
    const stored* y = p.y + at * p.y_stride + head * p.head_dim;
    const stored* dy = p.dy + at * p.dy_stride + head * p.head_dim;
    float sum = 0.0f;
    for (u32 n = lane; n < p.head_dim; n += WARP) sum += y[n] * dy[n];
    sum = warp_sum(sum);
    if (lane == 0) p.delta[(at / p.length * p.heads + head) * p.length + at % p.length] = sum;
}

// The gradient of a key or value head from those of its query heads, in their order; a thread a value.
KERNEL(256, attention_groups, AttentionGroups) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= p.count) return;
    const u64 row = index / p.cols, col = index % p.cols;
    const stored* from = p.heads + (index / p.head_dim * p.group) * p.head_dim + col % p.head_dim;
    float sum = 0.0f;
    for (u32 member = 0; member < p.group; member++) sum += from[member * (u64)p.head_dim];
    leave(&p.grad[row * p.grad_stride + col], sum, p.accumulate);
}
