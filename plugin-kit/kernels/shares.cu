// The columns of each head as shares of their sum, and the largest of them. With s the sum over a head of dy y and r
// the reciprocal of the sum, gradients are dx = y (dy - s) for a softmax and dx = r (dy - s) else.

enum { SOFTMAX, SUM };

// A warp takes a head of a row.
KERNEL(256, shares_forward, SharesValues) {
    const u64 unit = (blockIdx.x * (u64)blockDim.x + threadIdx.x) / WARP;
    if (unit >= p.rows * p.heads) return;
    const u32 lane = threadIdx.x % WARP;
    const stored* x = p.x + unit / p.heads * p.x_stride + unit % p.heads * p.width;
    stored* y = p.out + unit * p.width;
    float most = 0.0f, sum = p.epsilon;
    if (p.kind == SOFTMAX) {
        most = MINUS_INFINITY;
        for (u32 c = lane; c < p.width; c += WARP) most = fmaxf(most, x[c]);
        most = warp_max(most);
        sum = 0.0f;
    }
    float mine = 0.0f;
    for (u32 c = lane; c < p.width; c += WARP) mine += p.kind == SOFTMAX ? expf(x[c] - most) : x[c];
    sum += warp_sum(mine);
    for (u32 c = lane; c < p.width; c += WARP) y[c] = (p.kind == SOFTMAX ? expf(x[c] - most) : x[c]) / sum;
}

KERNEL(256, shares_backward, SharesValues) {
    const u64 unit = (blockIdx.x * (u64)blockDim.x + threadIdx.x) / WARP;
    if (unit >= p.rows * p.heads) return;
    const u32 lane = threadIdx.x % WARP;
    const u64 row = unit / p.heads, start = unit % p.heads * p.width;
    const stored* x = p.x + row * p.x_stride + start;
    const stored* y = p.y + unit * p.width;
    const stored* dy = p.dy + row * p.dy_stride + start;
    stored* dx = p.out + row * p.out_stride + start;
    float sum = 0.0f, share = 0.0f;
    for (u32 c = lane; c < p.width; c += WARP) {
        sum += x[c];
        share += y[c] * dy[c];
    }
    const float scale = 1.0f / (warp_sum(sum) + p.epsilon);
    share = warp_sum(share);
    for (u32 c = lane; c < p.width; c += WARP) {
        const float value = (p.kind == SOFTMAX ? y[c] : scale) * (dy[c] - share);
        leave(&dx[c], value, p.accumulate);
    }
}

// Keeps what fewer than `count` values of its head come before: larger ones, and equal ones on its left. One thread
// a value.
KERNEL(256, largest, LargestValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 cols = p.heads * p.width;
    const u64 row = index / cols;
    if (row >= p.rows) return;
    const u32 col = index % cols, place = col % p.width;
    const stored* x = p.x + row * p.x_stride + (col - place);
    const float mine = x[place];
    u32 before = 0;
    for (u32 c = 0; c < p.width; c++) before += x[c] > mine || (x[c] == mine && c < place);
    const float value = before < p.count ? p.from[row * p.from_stride + col] : 0.0f;
    leave(&p.to[row * p.to_stride + col], value, p.accumulate);
}
