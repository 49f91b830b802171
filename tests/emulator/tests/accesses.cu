// Kernels that touch a place from two threads with no barrier between, at the lines marked so, some that look as if they
// did, and one whose lanes are far apart.

#include "mma.cuh"

// Whatever the order.
KERNEL(64, no_barrier, Values) {
    SHARED(left);
    left[threadIdx.x] = 1.0f;                   // here
    p.x[threadIdx.x] = left[63 - threadIdx.x];  // here
}

// The next turn writes what others still read.
KERNEL(64, no_second_barrier, Values) {
    SHARED(left);
    for (u32 turn = 0; turn < 2; turn++) {
        left[threadIdx.x] = 1.0f;  // here
        __syncthreads();
        p.x[threadIdx.x] = left[63 - threadIdx.x];  // here
    }
}

// All write the same.
KERNEL(64, equal_values, Values) {
    p.x[0] = 1.0f;  // here
}

// Blocks write the same.
KERNEL(32, blocks_write, Values) {
    if (threadIdx.x == 0) p.x[7] = 1.0f;  // here
}

// A block reads what the block before it wrote.
KERNEL(32, next_block, Values) {
    const u32 block = blockIdx.x;
    float before = 0.0f;
    if (threadIdx.x == 0 && block > 0) before = p.x[block - 1];  // here
    if (threadIdx.x == 0) p.x[block] = before + 1.0f;            // here
}

// Lanes of one warp on either side of a branch.
KERNEL(32, branches, Values) {
    SHARED(left);
    const u32 i = threadIdx.x;
    if (i % 2 == 0) {
        left[i] = 1.0f;  // here
    } else {
        p.x[i] = left[i - 1];  // here
    }
}

// The warp's own barrier is enough for its lanes, and not for the other warp's.
KERNEL(64, warp_barrier, Values) {
    SHARED(left);
    left[threadIdx.x] = 1.0f;  // here
    __syncwarp();
    const u32 turned = p.other != 0 ? 32 : 1;
    p.x[threadIdx.x] = left[threadIdx.x ^ turned];  // here
}

// Another thread reads what a copy may still be writing: its thread has not waited for it before the barrier.
KERNEL(32, copy_not_waited_for, Values) {
    SHARED(left);
    if (threadIdx.x < 8) copy_async_16(left + 4 * threadIdx.x, p.x + 4 * threadIdx.x, true);  // here
    copy_async_commit();
    if (p.other == 0) copy_async_wait<0>();
    __syncthreads();
    const float value = left[31 - threadIdx.x];  // here
    __syncthreads();
    copy_async_wait<0>();
    p.x[32 + threadIdx.x] = value;
}

// Halves of a word are places of their own.
KERNEL(64, halves, Values) {
    u16* const values = (u16*)p.x;
    values[threadIdx.x ^ 1] = 1;
    __syncthreads();
    values[threadIdx.x] += 1;
}

KERNEL(64, one_half, Values) {
    u16* const values = (u16*)p.x;
    values[threadIdx.x == 5 ? 2 : threadIdx.x] = 1;  // here
}

// Every lane has a sector of its own, and every eighth a bank.
KERNEL(32, far_apart, Values) {
    SHARED(left);
    left[8 * threadIdx.x] = p.x[8 * threadIdx.x];  // there
    __syncwarp();
    p.x[threadIdx.x] = left[8 * threadIdx.x];  // and back
}
