// AdamW with decoupled decay (arXiv 1711.05101, algorithm 2) and global clipping, over all parameters in
// one launch. A parameter begins at a multiple of 64 values, so a warp never sees two parameters' decay.
// The gradient's norm is summed in a fixed order: parts of 4096 values by a block each, then the parts.

#define PART 4096

struct Squares {
    const float* grads;  // [total]
    float* parts;        // [parts]
    u64 total;
};

// 256 threads, 32 shared values.
KERNEL(256, squares, Squares) {
    SHARED(scratch);
    const u64 first = blockIdx.x * (u64)PART;
    float sum = 0.0f;
    for (u64 index = first + threadIdx.x; index < first + PART && index < p.total; index += blockDim.x)
        sum += p.grads[index] * p.grads[index];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) p.parts[blockIdx.x] = sum;
}

// What changes from step to step.
struct Schedule {
    float rate, step_size, second_correction, unused;
};

struct AdamW {
    float* values;             // [total]
    const float* grads;        // [total]
    float* first;              // [total]
    float* second;             // [total]
    const float* parts;        // [part_count]: sums of squares
    const float* decays;       // [total / 64]: 1 where weight decay applies, else 0
    const Schedule* schedule;
    float* norm;               // [1]
    u64 total;
    u32 part_count;
    float clip, beta1, beta2, epsilon, weight_decay;
};

// 256 threads, 32 shared values.
KERNEL(256, adamw, AdamW) {
    SHARED(scratch);
    float sum = 0.0f;
    for (u32 part = threadIdx.x; part < p.part_count; part += blockDim.x) sum += p.parts[part];
    const float norm = sqrtf(block_sum(sum, scratch));
    if (blockIdx.x == 0 && threadIdx.x == 0) *p.norm = norm;
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    // A norm that is not finite updates nothing.
    if (index >= p.total || !(norm < 3.0e38f)) return;
    const float factor = p.clip > 0.0f && norm > p.clip ? p.clip / norm : 1.0f;
    const float g = p.grads[index] * factor;
    const float m = p.beta1 * p.first[index] + (1.0f - p.beta1) * g;
    const float v = p.beta2 * p.second[index] + (1.0f - p.beta2) * g * g;
    p.first[index] = m;
    p.second[index] = v;
    const float decay = 1.0f - p.schedule->rate * p.weight_decay * p.decays[index / 64];
    const float denominator = sqrtf(v) * p.schedule->second_correction + p.epsilon;
    p.values[index] = p.values[index] * decay - p.schedule->step_size * m / denominator;
}
