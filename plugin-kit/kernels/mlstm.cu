// What stands around the state matrix of an mLSTM (arXiv 2405.04517, equations 19 to 27): gates relative to a running
// maximum m of their logarithms, whose past decays, and values with one more column a head that becomes what is read of
// n. Gradients take m as given, since it cancels from what is read of a state, but for what epsilon makes of it.

#define STAGE 16u  // tokens that a thread asks for at once

// A thread goes through a head of a sequence.
KERNEL(256, mlstm_gates, MlstmGates) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= (u64)p.rows * p.heads) return;
    const u64 first = index / p.heads * p.length;
    const u32 head = index % p.heads;
    float m = p.state ? p.state[index] : 0.0f;
    for (u32 from = 0; from < p.length; from += STAGE) {
        float input[STAGE], forget[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 token = first + min(from + k, p.length - 1);
            input[k] = p.input[token * p.input_stride + head];
            forget[k] = p.forget[token * p.forget_stride + head];
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (from + k < p.length) {
                const u64 place = (first + from + k) * p.heads + head;
                const float before = m;
                m = fmaxf(forget[k] + before, input[k]);
                // In float64, so that the roundings of m cancel too.
                p.decay[place] = (float)((double)forget[k] + (double)before - (double)m);
                p.write[place] = (float)((double)input[k] - (double)m);
                p.m[place] = m;
            }
        }
    }
    if (p.state) p.state[index] = m;
}

KERNEL(256, mlstm_gates_backward, MlstmGatesBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= (u64)p.rows * p.heads) return;
    const u64 first = index / p.heads * p.length;
    const u32 head = index % p.heads;
    float carried = 0.0f;
    for (u32 to = p.length; to > 0; to -= min(to, STAGE)) {
        float write[STAGE], grad_m[STAGE];
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            const u64 place = (first + max(to, k + 1) - k - 1) * p.heads + head;
            write[k] = p.write[place];
            grad_m[k] = p.grad_m[place];
        }
#pragma unroll
        for (u32 k = 0; k < STAGE; k++) {
            if (k < to) {
                const u64 token = first + to - k - 1, place = token * p.heads + head;
                const float whole = carried + grad_m[k];
                // m is the input gate where what is written is not made smaller.
                const bool from_input = write[k] == 0.0f;
                carried = from_input ? 0.0f : whole;
                const float by_input = p.grad_write[place] + (from_input ? whole : 0.0f);
                const float by_forget = p.grad_decay[place] + (from_input ? 0.0f : whole);
                // The input gate before the forget gate, as their places were asked for.
                leave(p.grad_input + token * p.grad_input_stride + head, by_input, p.add_input);
                leave(p.grad_forget + token * p.grad_forget_stride + head, by_forget, p.add_forget);
            }
        }
    }
}

// y = exp(log) [v, 1]. One thread a value.
KERNEL(256, mlstm_widen, MlstmValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 width = p.value + 1, cols = p.heads * width;
    const u64 row = index / cols;
    if (row >= p.rows) return;
    const u32 head = index % cols / width, c = index % width;
    const float factor = expf(p.logs[row * p.heads + head]);
    p.out[index] = c < p.value ? factor * p.given[row * p.given_stride + head * p.value + c] : factor;
}

__device__ inline float divisor(float last, float m) { return fmaxf(fabsf(last), expf(-m)); }

// One thread a value.
KERNEL(256, mlstm_normalise, MlstmValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u32 cols = p.heads * p.value;
    const u64 row = index / cols;
    if (row >= p.rows) return;
    const u32 head = index % cols / p.value, c = index % p.value;
    const stored* read = p.given + row * p.given_stride + head * (p.value + 1);
    p.out[index] = read[c] / (divisor(read[p.value], p.logs[row * p.heads + head]) + p.epsilon);
}


// A warp takes a head of a row.
KERNEL(256, mlstm_widen_backward, MlstmValues) {
    const u64 unit = (blockIdx.x * (u64)blockDim.x + threadIdx.x) / WARP;
    if (unit >= p.rows * p.heads) return;
    const u32 lane = threadIdx.x % WARP, head = unit % p.heads;
    const u64 row = unit / p.heads;
    const stored* v = p.given + row * p.given_stride + head * p.value;
    const stored* dy = p.dy + unit * (p.value + 1);
    stored* grad = p.out + row * p.out_stride + head * p.value;
    const float factor = expf(p.logs[unit]);
    float sum = 0.0f;
    for (u32 c = lane; c < p.value; c += WARP) {
        sum = fmaf(v[c], dy[c], sum);
        leave(grad + c, factor * dy[c], p.accumulate);
    }
    sum = warp_sum(sum);
    if (lane == 0) leave(p.grad_logs + unit, factor * (sum + dy[p.value]), p.add_logs);
}

KERNEL(256, mlstm_normalise_backward, MlstmValues) {
    const u64 unit = (blockIdx.x * (u64)blockDim.x + threadIdx.x) / WARP;
    if (unit >= p.rows * p.heads) return;
    const u32 lane = threadIdx.x % WARP, head = unit % p.heads;
    const u64 row = unit / p.heads;
    const stored* read = p.given + row * p.given_stride + head * (p.value + 1);
    const stored* dy = p.dy + unit * p.value;
    stored* grad = p.out + row * p.out_stride + head * (p.value + 1);
    const float m = p.logs[unit], last = read[p.value], inverse = 1.0f / (divisor(last, m) + p.epsilon);
    float sum = 0.0f;
    for (u32 c = lane; c < p.value; c += WARP) {
        sum = fmaf(read[c], dy[c], sum);
        leave(grad + c, inverse * dy[c], p.accumulate);
    }
    // dy h.
    sum = warp_sum(sum) * inverse;
    if (lane > 0) return;
    const bool reads = fabsf(last) >= expf(-m);
    leave(grad + p.value, reads ? -sum * inverse * copysignf(1.0f, last) : 0.0f, p.accumulate);
    // All but epsilon scales with what is read.
    leave(p.grad_logs + unit, -p.epsilon * inverse * sum, p.add_logs);
}
