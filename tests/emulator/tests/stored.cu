// Kernels that read and write stored values, two of them as no kernel may.

KERNEL(32, store, Store) { p.y[threadIdx.x] = p.x[threadIdx.x]; }

// By fours, which every fourth thread reads.
KERNEL(32, read, Read) {
    if (threadIdx.x % 4 > 0) return;
    const Float4 four = load4(p.x + threadIdx.x);
    p.y[threadIdx.x] = four.x;
    p.y[threadIdx.x + 1] = four.y;
    p.y[threadIdx.x + 2] = four.z;
    p.y[threadIdx.x + 3] = four.w;
}

KERNEL(32, add, Store) {
    leave(&p.y[threadIdx.x], p.x[threadIdx.x], 1);
    p.y[threadIdx.x] += 0.5f * p.x[threadIdx.x];
}

// Takes stored values for float32.
KERNEL(32, mistakes_the_type, Read) { p.y[threadIdx.x] = ((const float*)p.x)[threadIdx.x / 2]; }
