// Products on tensor cores, and what brings their factors: a source that has the line #include "mma.cuh" gets
// this text after common.cuh. Each instruction stands behind one function, and each function has a plain form
// for the emulator (EMULATED). All need compute capability 8.0. Where a function is a warp's, all 32 lanes
// call it together.
//
// A product is d += a b of a [16, K] and b [K, 8], float32 sums d [16, 8]. Its values lie in the registers of a
// warp (PTX ISA, "Matrix Fragments for mma"), with g = lane / 4 and t = lane % 4:
//
//   d  (g, 2 t) (g, 2 t + 1) (g + 8, 2 t) (g + 8, 2 t + 1)
//   bfloat16, K = 16, two neighbouring values of k a register, the first in its low half:
//   a  (g, 2 t ..) (g + 8, 2 t ..) (g, 2 t + 8 ..) (g + 8, 2 t + 8 ..)    row, k
//   b  (2 t .., g) (2 t + 8 .., g)                                        k, column
//   TF32, K = 8, a value a register:
//   a  (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4)
//   b  (t, g) (t + 4, g)
//
// So d of two products side by side, packed in pairs, is a of the next one: a row of sums need not leave its
// lanes to become a factor. Products of factors are exact in float32. In which order a card adds them, and how
// it rounds in between, is not documented; the plain forms add in the order of k.

// Two values as bfloat16, to nearest, ties to even; a NaN stays one.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
#ifdef EMULATED
    return to_bf16(low) | (u32)to_bf16(high) << 16;
#else
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#endif
}

// A value as TF32, to nearest, ties away from zero; a NaN stays one.
__device__ __forceinline__ u32 to_tf32(float value) {
#ifdef EMULATED
    return value != value ? 0x7fffe000 : (__float_as_uint(value) + 0x1000) & ~0x1fffu;
#else
    u32 rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
    return rounded;
#endif
}

// d += a b of bfloat16 factors. A warp's.
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    struct Factors {
        u32 a[4], b[2];
    };
    const Factors* lanes = emulation::exchange(Factors{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    for (u32 i = 0; i < 4; i++) {
        const u32 high = i / 2, column = 2 * t + i % 2;
        for (u32 pair = 0; pair < 8; pair++) {
            const u32 left = lanes[4 * g + pair % 4].a[high + 2 * (pair / 4)];
            const u32 right = lanes[4 * column + pair % 4].b[pair / 4];
            d[i] += __uint_as_float(left << 16) * __uint_as_float(right << 16);
            d[i] += __uint_as_float(left & 0xffff0000) * __uint_as_float(right & 0xffff0000);
        }
    }
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += a b of TF32 factors, as to_tf32 makes them: the lowest 13 bits are not looked at. A warp's.
__device__ __forceinline__ void mma_16x8x8_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    struct Factors {
        u32 a[4], b[2];
    };
    const Factors* lanes = emulation::exchange(Factors{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    for (u32 i = 0; i < 4; i++) {
        const u32 high = i / 2, column = 2 * t + i % 2;
        for (u32 k = 0; k < 8; k++) {
            const u32 left = lanes[4 * g + k % 4].a[high + 2 * (k / 4)], right = lanes[4 * column + k % 4].b[k / 4];
            d[i] += __uint_as_float(left & ~0x1fffu) * __uint_as_float(right & ~0x1fffu);
        }
    }
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

#ifndef EMULATED
__device__ __forceinline__ u32 shared_address(const void* place) { return (u32)__cvta_generic_to_shared(place); }
#endif

// Four 8 x 8 matrices of 16-bit values from shared memory. Lane l says where row l % 8 of matrix l / 8 begins:
// eight values, at a multiple of 16 bytes. A lane gets of each matrix values (g, 2 t) and (g, 2 t + 1), so four
// that are quarters of [16, 16] give a as it is wanted, and rows of columns give b. A warp's.
__device__ __forceinline__ void load_matrices(u32& m0, u32& m1, u32& m2, u32& m3, const void* row) {
#ifdef EMULATED
    emulation::want_aligned(row);
    const void* const* rows = emulation::exchange(row);
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    m0 = ((const u32*)rows[g])[t];
    m1 = ((const u32*)rows[8 + g])[t];
    m2 = ((const u32*)rows[16 + g])[t];
    m3 = ((const u32*)rows[24 + g])[t];
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m0), "=r"(m1), "=r"(m2), "=r"(m3)
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// The same of the matrices turned: a lane gets values (2 t, g) and (2 t + 1, g) of each. A warp's.
__device__ __forceinline__ void load_turned(u32& m0, u32& m1, u32& m2, u32& m3, const void* row) {
#ifdef EMULATED
    emulation::want_aligned(row);
    const void* const* rows = emulation::exchange(row);
    const u32 g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    u32* const to[4] = {&m0, &m1, &m2, &m3};
    for (u32 n = 0; n < 4; n++) {
        const u16 *first = (const u16*)rows[8 * n + 2 * t], *second = (const u16*)rows[8 * n + 2 * t + 1];
        *to[n] = first[g] | (u32)second[g] << 16;
    }
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m0), "=r"(m1), "=r"(m2), "=r"(m3)
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// 16 bytes to shared memory without waiting for them, zeros where they are not `there`; both addresses are
// multiples of 16. The plain form copies when it is waited for.
__device__ __forceinline__ void copy_async_16(void* to, const void* from, bool there) {
#ifdef EMULATED
    emulation::copy_later(to, from, there);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
                 : "memory");
#endif
}

// Ends a group of the thread's copies.
__device__ __forceinline__ void copy_async_commit() {
#ifdef EMULATED
    emulation::end_copies();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the last N groups of this thread are there. Other threads see them after a barrier.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
#ifdef EMULATED
    emulation::wait_for_copies(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}
