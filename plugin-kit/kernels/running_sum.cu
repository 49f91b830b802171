// Sums over positions, each as two floats whose sum they are: 48 bits, so that the difference of two sums over very
// many tokens is as exact as a float. A warp a row and channel, 32 tokens at a time, in float64; no shared memory.

// What a warp sums up.
struct Channel {
    u64 row, col;
};

__device__ inline Channel channel_of(const RunningSumValues& p) {
    const u64 index = blockIdx.x * (u64)(blockDim.x / WARP) + threadIdx.x / WARP;
    return {index / p.cols, index % p.cols};
}

// The sum of the values of this lane and those before it.
__device__ inline double sum_up_to_lane(double value) {
    const u32 lane = threadIdx.x % WARP;
    for (u32 lanes = 1; lanes < WARP; lanes *= 2) {
        const double before = __shfl_up_sync(ALL_LANES, value, lanes);
        if (lane >= lanes) value += before;
    }
    return value;
}

template <class T>
__device__ inline void put(T* place, u32 cols, double sum) {
    place[0] = (float)sum;
    place[cols] = (float)(sum - (double)place[0]);
}

KERNEL(256, running_sum_forward, RunningSumValues) {
    const Channel at = channel_of(p);
    if (at.row * p.cols + at.col >= p.count) return;
    const u32 lane = threadIdx.x % WARP;
    float* state = p.state ? p.state + at.row * 2 * p.cols + at.col : 0;
    double carried = state ? (double)state[0] + (double)state[p.cols] : 0.0;
    for (u32 from = 0; from < p.length; from += WARP) {
        const u64 token = at.row * p.length + from + lane;
        const bool any = from + lane < p.length;
        const double sum = carried + sum_up_to_lane(any ? (double)p.x[token * p.x_stride + at.col] : 0.0);
        if (any) put(p.to + token * p.to_stride + at.col, p.cols, sum);
        carried = __shfl_sync(ALL_LANES, sum, WARP - 1);
    }
    if (state && lane == 0) put(state, p.cols, carried);
}

KERNEL(256, running_sum_backward, RunningSumValues) {
    const Channel at = channel_of(p);
    if (at.row * p.cols + at.col >= p.count) return;
    const u32 lane = threadIdx.x % WARP;
    double carried = 0.0;
    for (u32 done = 0; done < p.length; done += WARP) {
        const u64 token = (at.row + 1) * p.length - 1 - done - lane;
        const bool any = done + lane < p.length;
        const double sum = carried + sum_up_to_lane(any ? (double)p.x[token * p.x_stride + at.col] : 0.0);
        if (any) {
            stored* place = p.to + token * p.to_stride + at.col;
            *place = p.accumulate ? *place + (float)sum : (float)sum;
        }
        carried = __shfl_sync(ALL_LANES, sum, WARP - 1);
    }
}
