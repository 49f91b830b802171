// Masked cross entropy of logits l over a vocabulary: with the capped logits z = c tanh(l / c), or z = l
// without a cap, nll = ln sum_j exp(z_j - max z) - (z_target - max z), and in training the logits give way
// to dl_j = loss_scale (softmax(z)_j - [j = target]) (1 - (z_j / c)^2), the last factor where there is a cap.
//
// A block takes the row of one place and goes through it once for its maximum, the first token that has it and
// the sum of exponentials together (the online softmax of arXiv 1805.02867, algorithm 3), a thread's own first
// and then the block's; in training it goes through the row once more. Blocks of 32 to 1024 threads, any
// vocabulary; shared: 64 values.

__device__ inline u32 warp_min(u32 value) {
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        const u32 other = __shfl_xor_sync(ALL_LANES, value, lanes);
        value = other < value ? other : value;
    }
    return value;
}

// The smallest over a block of whole warps, for every thread; `scratch` [32] is free again afterwards.
__device__ inline u32 block_min(u32 value, u32* scratch) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_min(value);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = warp_min(lane < warps ? scratch[lane] : 0xffffffffu);
    __syncthreads();
    return value;
}

KERNEL(1024, head_loss, HeadLoss) {
    SHARED(scratch);                             // [32] for float32 values
    u32* const tokens = (u32*)(scratch + WARP);  // [32]
    const u64 place = p.first + blockIdx.x;
    float* logits = p.logits + (u64)blockIdx.x * p.vocab;
    if (place >= p.control->wanted) {
        // An unused place has no loss and no gradient. The whole block leaves.
        if (p.training)
            for (u32 j = threadIdx.x; j < p.vocab; j += blockDim.x) logits[j] = 0.0f;
        if (threadIdx.x == 0) {
            p.nll[place] = 0.0f;
            p.best[place] = 0;
        }
        return;
    }
    const int target = p.targets[place];
    // Below every logit but not infinite, so that the difference of two of them is no NaN.
    float top = -3.402823e38f, total = 0.0f;
    u32 best = threadIdx.x < p.vocab ? threadIdx.x : 0xffffffffu;
    for (u32 j = threadIdx.x; j < p.vocab; j += blockDim.x) {
        float logit = logits[j];
        if (p.cap > 0.0f) {
            logit = p.cap * tanhf(logit / p.cap);
            logits[j] = logit;
        }
        if (logit > top) {
            total = total * expf(top - logit) + 1.0f;
            top = logit;
            best = j;
        } else {
            total += expf(logit - top);
        }
    }
    const float own_top = top;
    top = block_max(top, scratch);
    total = block_sum(total * expf(own_top - top), scratch);
    best = block_min(own_top == top ? best : 0xffffffffu, tokens);
    // After the barriers above, which also show every thread the capped logits of the others.
    if (threadIdx.x == 0) {
        float nll = 0.0f;
        // The host refuses a target past the vocabulary; should one come through, it shows.
        if (target >= 0) nll = (u32)target < p.vocab ? logf(total) - (logits[target] - top) : NOT_A_NUMBER;
        p.nll[place] = nll;
        p.best[place] = best;
    }
    if (!p.training) return;
    // The target's logit is read before it is replaced.
    __syncthreads();
    const float scale = target < 0 ? 0.0f : p.control->loss_scale, factor = scale / total;
    for (u32 j = threadIdx.x; j < p.vocab; j += blockDim.x) {
        const float logit = logits[j];
        float slope = expf(logit - top) * factor - ((int)j == target ? scale : 0.0f);
        if (p.cap > 0.0f) {
            const float t = logit / p.cap;
            slope *= 1.0f - t * t;
        }
        logits[j] = target < 0 ? 0.0f : slope;
    }
}
