// The end of a training step, after the gradients: loss sums, the gradients' norm, and AdamW with decoupled
// decay (arXiv 1711.05101, algorithm 2) and global clipping. Nothing of it needs the host: how many updates
// there were is kept here, and what changes from step to step is read from memory.
//
//   loss_parts   sums of 4096 places a block
//   squares      sums of squares of `part` gradients a block
//   finish_step  one block: adds the parts up in order, decides, and leaves what adamw needs in a Step
//   adamw        one thread a parameter
//
// Sums over parts are in float64. All blocks are of 256 threads.

#define PLACES 4096
#define NO_STEP 0xffffffffffffffffull

// The sum over a block of whole warps, for every thread, in an order that is always the same; `scratch` [32]
// is free again when the call returns.
template <class T>
__device__ inline T ordered_sum(T value, T* scratch) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(ALL_LANES, value, lanes);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = lane < warps ? scratch[lane] : 0;
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(ALL_LANES, value, lanes);
    __syncthreads();
    return value;
}

// Shared: 64 values.
KERNEL(256, loss_parts, LossParts) {
    SHARED(scratch);
    const u64 first = blockIdx.x * (u64)PLACES, wanted = p.control->wanted;
    double nll = 0.0;
    u64 correct = 0;
    for (u64 place = first + threadIdx.x; place < first + PLACES && place < wanted; place += blockDim.x) {
        nll += (double)p.nll[place];
        correct += p.best[place] == (u32)p.targets[place];
    }
    nll = ordered_sum(nll, (double*)scratch);
    correct = ordered_sum(correct, (u64*)scratch);
    if (threadIdx.x == 0) p.parts[blockIdx.x] = {nll, correct};
}

// Shared: 32 values.
KERNEL(256, squares, Squares) {
    SHARED(scratch);
    const u64 first = blockIdx.x * p.part;
    float sum = 0.0f;
    for (u64 index = first + threadIdx.x; index < first + p.part && index < p.total; index += blockDim.x)
        sum += p.grads[index] * p.grads[index];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) p.parts[blockIdx.x] = sum;
}

__device__ inline bool is_finite(double value) { return fabs(value) <= 1.7976931348623157e308; }

// One block. Shared: 64 values.
KERNEL(256, finish_step, FinishStep) {
    SHARED(scratch);
    double nll = 0.0, sum = 0.0;
    u64 correct = 0;
    for (u32 part = threadIdx.x; part < p.loss_count; part += blockDim.x) {
        nll += p.losses[part].nll;
        correct += p.losses[part].correct;
    }
    for (u32 part = threadIdx.x; part < p.square_count; part += blockDim.x) sum += (double)p.squares[part];
    nll = ordered_sum(nll, (double*)scratch);
    sum = ordered_sum(sum, (double*)scratch);
    correct = ordered_sum(correct, (u64*)scratch);
    if (threadIdx.x != 0) return;
    Step* const step = p.step;
    const double loss = nll / p.control->wanted, norm = sqrt(sum);
    step->loss = loss;
    step->norm = norm;
    step->correct = correct;
    if (!p.training) return;
    if (!(is_finite(loss) && is_finite(norm)) && step->bad_step == NO_STEP) {
        step->bad_step = p.schedule->step;
        step->bad_loss = loss;
        step->bad_norm = norm;
    }
    // A norm that is not finite updates nothing, and does not count in the corrections of the bias.
    step->update = is_finite(norm);
    if (!step->update) return;
    const double updates = (double)++step->updates, rate = p.schedule->rate;
    step->factor = (float)(p.clip > 0.0 && norm > p.clip ? p.clip / norm : 1.0);
    step->step_size = (float)(rate / (1.0 - pow(p.beta1, updates)));
    step->second_correction = (float)(1.0 / sqrt(1.0 - pow(p.beta2, updates)));
    step->decay = (float)(1.0 - rate * p.weight_decay);
}

// A parameter begins at a multiple of 64 values, so a warp never sees two parameters' decay.
KERNEL(256, adamw, AdamW) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const Step* const step = p.step;
    if (index >= p.total || !step->update) return;
    const float g = p.grads[index] * step->factor;
    const float m = p.beta1 * p.first[index] + (1.0f - p.beta1) * g;
    const float v = p.beta2 * p.second[index] + (1.0f - p.beta2) * g * g;
    p.first[index] = m;
    p.second[index] = v;
    const float decay = p.decays[index / 64] > 0.0f ? step->decay : 1.0f;
    const float denominator = sqrtf(v) * step->second_correction + p.epsilon;
    p.values[index] = p.values[index] * decay - step->step_size * m / denominator;
}
