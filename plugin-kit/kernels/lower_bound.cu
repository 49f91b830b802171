// Lower bounds of forget gates from a softmax over layers, column by column: the bound of a layer is the sum of the
// shares of the second layer to this one. One thread a column, 256 a block; no shared memory.

// The largest of a column, and the sum of the powers of what the others are below it.
struct Scale {
    float most, sum;
};

__device__ inline Scale scale_of(const LowerBoundParams& p, u32 col) {
    Scale scale = {MINUS_INFINITY, 0.0f};
    for (u32 layer = 0; layer < p.layers; layer++) scale.most = fmaxf(scale.most, p.bounds[(u64)layer * p.cols + col]);
    for (u32 layer = 0; layer < p.layers; layer++) scale.sum += expf(p.bounds[(u64)layer * p.cols + col] - scale.most);
    return scale;
}

__device__ inline float share_of(const LowerBoundParams& p, Scale scale, u32 layer, u32 col) {
    return expf(p.bounds[(u64)layer * p.cols + col] - scale.most) / scale.sum;
}

__device__ inline bool counts(const LowerBoundParams& p, u32 layer) { return layer >= 1 && layer <= p.layer; }

KERNEL(256, lower_bound_forward, LowerBoundParams) {
    const u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= p.cols) return;
    const Scale scale = scale_of(p, col);
    float bound = 0.0f, room = 0.0f;
    for (u32 layer = 0; layer < p.layers; layer++) {
        const float share = share_of(p, scale, layer, col);
        if (counts(p, layer))
            bound += share;
        else
            room += share;
    }
    p.y[col] = bound;
    p.y[p.cols + col] = room;
}

KERNEL(256, lower_bound_backward, LowerBoundParams) {
    const u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= p.cols) return;
    const Scale scale = scale_of(p, col);
    const float of_bound = p.y[col], of_room = p.y[p.cols + col];
    float mean = 0.0f;
    for (u32 layer = 0; layer < p.layers; layer++)
        mean += share_of(p, scale, layer, col) * (counts(p, layer) ? of_bound : of_room);
    for (u32 layer = 0; layer < p.layers; layer++)
        p.grad[(u64)layer * p.cols + col] += share_of(p, scale, layer, col) * ((counts(p, layer) ? of_bound : of_room) - mean);
}
