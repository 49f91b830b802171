// RMSNorm (arXiv 1910.07467, eq. 4) and LayerNorm (arXiv 1607.06450, eq. 3) within groups of columns:
// n = (x - mean) s with s = 1 / sqrt(mean((x - mean)^2) + epsilon), y = n w + b. RMSNorm has mean = 0 and
// no b. With g = dy w the gradients are dx = s (g - mean(g) - n mean(g n)), without mean(g) for RMSNorm,
// dw = sum over rows of dy n and db = sum over rows of dy.
//
// norm_forward and norm_backward: a team of threads takes one group of one row, and reads it again from the
// nearest cache for each sum. A team is a warp, eight to a block, or for wide groups a block of 256; shared:
// 32 values. norm_weight_backward: a block takes 32 columns of one part of the rows, 8 rows at a time;
// shared: 512 values.

// The sum over a team: a warp, or a whole block.
__device__ inline float team_sum(float value, u32 team, float* scratch) {
    return team == WARP ? warp_sum(value) : block_sum(value, scratch);
}

KERNEL(256, norm_forward, NormForward) {
    SHARED(scratch);  // [32]
    const u64 unit = (blockIdx.x * (u64)blockDim.x + threadIdx.x) / p.team;
    // Whole warps leave, and only where teams are warps, which have no barrier of the block before them.
    if (unit >= p.rows * p.groups) return;
    const u32 lane = threadIdx.x % p.team;
    const u64 row = unit / p.groups;
    const u32 start = (u32)(unit % p.groups) * p.width;
    const stored* x = p.x + row * p.x_stride + start;
    float mean = 0.0f;
    if (p.centred) {
        for (u32 c = lane; c < p.width; c += p.team) mean += x[c];
        mean = team_sum(mean, p.team, scratch) / (float)p.width;
    }
    // The squares of differences, not of values: a large mean would cancel the digits of the variance.
    float squares = 0.0f;
    for (u32 c = lane; c < p.width; c += p.team) squares += (x[c] - mean) * (x[c] - mean);
    squares = team_sum(squares, p.team, scratch);
    const float scale = 1.0f / sqrtf(squares / (float)p.width + p.epsilon);
    const float* weight = p.weight ? p.weight + start % p.weights : nullptr;
    stored* y = p.y + unit * p.width;
    for (u32 c = lane; c < p.width; c += p.team) {
        const float value = (x[c] - mean) * scale * (weight ? weight[c] : p.constant);
        y[c] = p.bias ? value + p.bias[start + c] : value;
    }
    if (lane == 0) {
        p.statistics[2 * unit] = mean;
        p.statistics[2 * unit + 1] = scale;
    }
}

KERNEL(256, norm_backward, NormBackward) {
    SHARED(scratch);  // [32]
    const u64 unit = (blockIdx.x * (u64)blockDim.x + threadIdx.x) / p.team;
    // As in norm_forward: no barrier of the block is ahead of who leaves here.
    if (unit >= p.rows * p.groups) return;
    const u32 lane = threadIdx.x % p.team;
    const u64 row = unit / p.groups;
    const u32 start = (u32)(unit % p.groups) * p.width;
    const stored* x = p.x + row * p.x_stride + start;
    const stored* dy = p.dy + row * p.dy_stride + start;
    const float* weight = p.weight ? p.weight + start % p.weights : nullptr;
    stored* dx = p.dx + row * p.dx_stride + start;
    const float mean = p.statistics[2 * unit], scale = p.statistics[2 * unit + 1];
    float mean_g = 0.0f, mean_gn = 0.0f;
    for (u32 c = lane; c < p.width; c += p.team) {
        const float g = dy[c] * (weight ? weight[c] : p.constant);
        mean_g += g;
        mean_gn += g * (x[c] - mean);
    }
    mean_g = p.centred ? team_sum(mean_g, p.team, scratch) / (float)p.width : 0.0f;
    mean_gn = team_sum(mean_gn, p.team, scratch) * scale / (float)p.width;
    for (u32 c = lane; c < p.width; c += p.team) {
        const float normal = (x[c] - mean) * scale;
        const float value = scale * (dy[c] * (weight ? weight[c] : p.constant) - mean_g - normal * mean_gn);
        dx[c] = p.accumulate ? dx[c] + value : value;
    }
}

KERNEL(256, norm_weight_backward, NormWeightBackward) {
    SHARED(sums);  // [2, 8, 32]
    const u32 lane = threadIdx.x % 32, line = threadIdx.x / 32;
    const u32 col = blockIdx.x * 32 + lane, part = blockIdx.y;
    const u64 groups = p.cols / p.width;
    float weight = 0.0f, bias = 0.0f;
    if (col < p.cols)
        for (u64 row = part * 8 + line; row < p.rows; row += p.part_count * 8) {
            const float* pair = p.statistics + 2 * (row * groups + col / p.width);
            const float dy = p.dy[row * p.dy_stride + col];
            weight += dy * (p.x[row * p.x_stride + col] - pair[0]) * pair[1];
            bias += dy;
        }
    sums[threadIdx.x] = weight;
    sums[256 + threadIdx.x] = bias;
    __syncthreads();
    if (line == 0 && col < p.cols) {
        for (u32 other = 1; other < 8; other++) {
            weight += sums[other * 32 + lane];
            bias += sums[256 + other * 32 + lane];
        }
        p.weight_parts[(u64)part * p.cols + col] = weight;
        if (p.bias_parts) p.bias_parts[(u64)part * p.cols + col] = bias;
    }
}
