// Kernels with a mistake each, that the emulated card must tell.

// Half of a warp waits for the block and half for the warp.
KERNEL(32, some_reach_a_barrier, Values) {
    if (threadIdx.x < 16) {
        __syncthreads();
    } else {
        __syncwarp();
    }
    p.x[threadIdx.x] = 1.0f;
}

// Threads wait at one barrier and others at another.
KERNEL(64, different_barriers, Values) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        p.x[threadIdx.x] = 1.0f;
        __syncthreads();
    }
}

// Lanes meet at different shuffles.
KERNEL(32, different_shuffles, Values) {
    float value = threadIdx.x;
    if (threadIdx.x < 16) {
        value = __shfl_xor_sync(ALL_LANES, value, 1);
    } else {
        value = __shfl_xor_sync(ALL_LANES, value, 2);
    }
    p.x[threadIdx.x] = value;
}

// A lane has ended when the others shuffle.
KERNEL(32, partial_shuffle, Values) {
    if (threadIdx.x == 31) return;
    p.x[threadIdx.x] = __shfl_xor_sync(ALL_LANES, (float)threadIdx.x, 1);
}

// Whole warps may end: this is right.
KERNEL(64, whole_warps_end, Values) {
    if (threadIdx.x >= 32) return;
    p.x[threadIdx.x] = __shfl_xor_sync(ALL_LANES, (float)threadIdx.x, 1);
    __syncthreads();
}

// A block reads what the block before it wrote.
KERNEL(32, blocks_in_turn, Values) {
    const u32 block = blockIdx.x;
    if (threadIdx.x == 0) p.x[block] = block == 0 ? 1.0f : p.x[block - 1] + 1.0f;
}

// A thread reads what the thread before it wrote, without a barrier.
KERNEL(32, threads_in_turn, Values) {
    const u32 i = threadIdx.x;
    p.x[i] = i == 0 ? 1.0f : p.x[i - 1] + 1.0f;
}

// How many of 33 blocks ran before the one in the middle: from either end, as many.
KERNEL(32, blocks_to_the_middle, Values) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 16) p.x[1] = p.x[0];
    p.x[0] += 1.0f;
}

// The same of 32 threads, of which two are in the middle.
KERNEL(32, threads_to_the_middle, Values) {
    const u32 i = threadIdx.x;
    if (i == 15 || i == 16) p.x[1] = max(p.x[1], p.x[0]);
    p.x[0] += 1.0f;
}
