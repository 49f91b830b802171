// Every function of mma.cuh on data that a test gives, a warp a block, and reads back.

#include "mma.cuh"

// Fragments straight from the documented places, and back.
__device__ __forceinline__ void load_sums(float (&d)[4], const float* c) {
    const u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    for (u32 i = 0; i < 4; i++) d[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
}

__device__ __forceinline__ void store_sums(const float (&d)[4], float* to) {
    const u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    for (u32 i = 0; i < 4; i++) to[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

// d = c + a b with factors rounded to bfloat16.
KERNEL(32, multiply_bf16, Matrices) {
    const u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    u32 a[4], b[2];
    for (u32 i = 0; i < 4; i++) {
        const float* place = p.a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        a[i] = pack_bf16(place[0], place[1]);
    }
    for (u32 i = 0; i < 2; i++) {
        const float* place = p.b + (2 * t + i * 8) * 8 + g;
        b[i] = pack_bf16(place[0], place[8]);
    }
    float d[4];
    load_sums(d, p.c);
    mma_16x8x16(d, a, b);
    store_sums(d, p.d);
}

// The same with the factors through shared memory: a [16, 16] as it is, b [16, 8] turned, by whole matrices.
KERNEL(32, multiply_shared, Matrices) {
    SHARED(shared);
    u32* const a_rows = (u32*)shared;     // [16, 8] pairs, rows 12 words apart
    u32* const b_rows = a_rows + 16 * 12; // [16, 4] pairs, rows 4 words apart, each twice for the four matrices
    for (u32 i = threadIdx.x; i < 16 * 8; i += WARP) a_rows[i / 8 * 12 + i % 8] = pack_bf16(p.a[2 * i], p.a[2 * i + 1]);
    for (u32 i = threadIdx.x; i < 16 * 4; i += WARP) b_rows[i] = pack_bf16(p.b[2 * i], p.b[2 * i + 1]);
    __syncwarp();
    const u32 lane = threadIdx.x;
    u32 a[4], b[2], again[2];
    load_matrices(a[0], a[1], a[2], a[3], a_rows + lane % 16 * 12 + lane / 16 * 4);
    load_turned(b[0], b[1], again[0], again[1], b_rows + lane % 16 * 4);
    float d[4];
    load_sums(d, p.c);
    if (again[0] != b[0] || again[1] != b[1]) d[0] = NOT_A_NUMBER;
    mma_16x8x16(d, a, b);
    store_sums(d, p.d);
}

// d = c + a b with factors rounded to TF32; a [16, 8], b [8, 8].
KERNEL(32, multiply_tf32, Matrices) {
    const u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    u32 a[4], b[2];
    for (u32 i = 0; i < 4; i++) a[i] = to_tf32(p.a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
    for (u32 i = 0; i < 2; i++) b[i] = to_tf32(p.b[(t + i * 4) * 8 + g]);
    float d[4];
    load_sums(d, p.c);
    mma_16x8x8_tf32(d, a, b);
    store_sums(d, p.d);
}

// y is x rounded to bfloat16, z is x rounded to TF32.
KERNEL(32, round_values, Values) {
    for (u32 n = 0; n < 4; n += 2) {
        const u32 i = 4 * threadIdx.x + n, packed = pack_bf16(p.x[i], p.x[i + 1]);
        p.y[i] = __uint_as_float(packed << 16);
        p.y[i + 1] = __uint_as_float(packed & 0xffff0000);
        for (u32 m = i; m < i + 2; m++) p.z[m] = __uint_as_float(to_tf32(p.x[m]));
    }
}

// y is x of the neighbouring thread, by an asynchronous copy, zeros from `there` on; z is 2^x.
KERNEL(32, copy_values, Values) {
    SHARED(shared);
    const u32 lane = threadIdx.x, other = lane ^ 1;
    copy_async_16(shared + 4 * lane, p.x + 4 * lane, 4 * lane < p.there);
    copy_async_commit();
    copy_async_commit();
    copy_async_wait<1>();
    __syncwarp();
    for (u32 n = 0; n < 4; n++) {
        p.y[4 * lane + n] = shared[4 * other + n];
        p.z[4 * lane + n] = fast_exp2(p.x[4 * lane + n]);
    }
}

// What lacks a wait reads what was there before; what is not aligned is refused.
KERNEL(32, copy_too_early, Values) {
    SHARED(shared);
    const u32 lane = threadIdx.x;
    if (p.there == 0) copy_async_16(shared + 1, p.x, true);
    copy_async_16(shared + 4 * lane, p.x + 4 * lane, true);
    copy_async_wait<0>();
    __syncwarp();
    for (u32 n = 0; n < 4; n++) p.y[4 * lane + n] = p.z[4 * lane + n] = shared[4 * lane + n];
}
