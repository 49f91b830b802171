// What every kernel of Longhaul starts from. A kernel has one parameter, a plain struct, declared by kernel_params! in
// Rust where it is launched, in front of its source where it is compiled. Shared memory is dynamic: SHARED(name) names it.
//
// Activations and their gradients are `stored` values. Their type, float32 or bf16, is the argument STORED of a source.
//
// KERNEL(threads, name, Params) { .. uses p .. } defines a kernel launched with at most that many threads.

#ifndef KERNEL
#define KERNEL(threads, name, Params) extern "C" __global__ void __launch_bounds__(threads) name(const Params p)
#define SHARED(name) extern __shared__ __align__(16) float name[]
#endif

// The same where an SM is to hold at least so many blocks at a time, for which the compiler has to find registers.
#ifdef EMULATED
#define DENSE_KERNEL(threads, blocks, name, Params) KERNEL(threads, name, Params)
#else
#define DENSE_KERNEL(threads, blocks, name, Params) extern "C" __global__ void __launch_bounds__(threads, blocks) name(const Params p)
#endif

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define WARP 32
#define ALL_LANES 0xffffffffu
#define NOT_A_NUMBER __int_as_float(0x7fffffff)
#define MINUS_INFINITY __int_as_float(0xff800000)

// The bits of a bfloat16, which are the upper half of a float32: to nearest, ties to even; a NaN stays one.
__device__ __forceinline__ u16 to_bf16(float value) {
#ifdef EMULATED
    const u32 bits = __float_as_uint(value);
    return (u16)(value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#else
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#endif
}

// A bfloat16 in memory, which is read as a float and assigned one.
struct bf16 {
    u16 bits;

    __device__ operator float() const { return __uint_as_float((u32)bits << 16); }
    __device__ bf16& operator=(float value) {
        bits = to_bf16(value);
        return *this;
    }
    __device__ bf16& operator+=(float value) { return *this = *this + value; }
};

// A value of an activation or of an activation's gradient in device memory; which buffers have such values is said where
// parameters are declared. Code is the same for both types: what is computed is float, what is pointed to is stored.
#ifndef STORED
#define STORED float
#endif
typedef STORED stored;

// Four neighbouring values at once. The first one's index is a multiple of four, counted from an aligned buffer's start.
struct alignas(16) Float4 {
    float x, y, z, w;
};

__device__ __forceinline__ Float4 load4(const float* from) { return *(const Float4*)from; }

struct alignas(8) Pairs {
    u32 low, high;
};

__device__ __forceinline__ Float4 load4(const bf16* from) {
    const Pairs pairs = *(const Pairs*)from;
    return {__uint_as_float(pairs.low << 16), __uint_as_float(pairs.low & 0xffff0000u), __uint_as_float(pairs.high << 16),
            __uint_as_float(pairs.high & 0xffff0000u)};
}

// Whether an address may be given to load4.
template <class T>
__device__ __forceinline__ bool holds_four(const T* from) {
    return (u64)from % (4 * sizeof(T)) == 0;
}

// Writes a value, or adds it to what is there.
template <class T>
__device__ __forceinline__ void leave(T* place, float value, u32 add) {
    *place = add ? *place + value : value;
}

// The value that every lane of the warp has together.
__device__ inline float warp_sum(float value) {
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(ALL_LANES, value, lanes);
    return value;
}

__device__ inline float warp_max(float value) {
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, lanes));
    return value;
}

// The sum over a block of whole warps, for every thread; `scratch` [32] is shared and free again when
// the call returns.
__device__ inline float block_sum(float value, float* scratch) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_sum(value);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = warp_sum(lane < warps ? scratch[lane] : 0.0f);
    __syncthreads();
    return value;
}

__device__ inline float block_max(float value, float* scratch) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_max(value);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = warp_max(lane < warps ? scratch[lane] : MINUS_INFINITY);
    __syncthreads();
    return value;
}

// 2^x to about 2 units in the last place; what would be subnormal is 0.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef EMULATED
    return x < -126.0f ? 0.0f : exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// 1 / x to about 1 unit in the last place; what would be subnormal is 0.
__device__ __forceinline__ float fast_reciprocal(float x) {
#ifdef EMULATED
    return 1.0f / x;
#else
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

__device__ inline float sigmoid(float x) { return fast_reciprocal(1.0f + expf(-x)); }

__device__ inline float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

// Activations by the number of the Rust enum's variant.
enum { SILU, GELU, RELU, SIGMOID, TANH, SOFTPLUS, NEGATIVE_EXP, IDENTITY, EXP, POSITIVE, ELU_PLUS_ONE, LOG_SIGMOID, ONE_MINUS_EXP, LOG_ONE_MINUS, RECIPROCAL, SINE };

__device__ inline float activate(u32 kind, float x) {
    switch (kind) {
        case SILU: return x * sigmoid(x);
        case GELU: return 0.5f * x * (1.0f + tanhf(0.7978846f * (x + 0.044715f * x * x * x)));
        case RELU: return fmaxf(x, 0.0f);
        case SIGMOID: return sigmoid(x);
        case TANH: return tanhf(x);
        case SOFTPLUS: return softplus(x);
        case NEGATIVE_EXP: return -expf(fminf(x, 80.0f));
        case EXP: return expf(x);
        case POSITIVE: return fmaxf(x, 0.0f) + sigmoid(fminf(x, 0.0f));
        case ELU_PLUS_ONE: return fmaxf(x, 0.0f) + expf(fminf(x, 0.0f));
        case LOG_SIGMOID: return -softplus(-x);
        case ONE_MINUS_EXP: return -expm1f(x);
        case LOG_ONE_MINUS: return x < 1.0f ? log1pf(-x) : -17.328680f;
        case RECIPROCAL: return 1.0f / x;
        case SINE: return sinf(x);
        default: return x;
    }
}

__device__ inline float activation_slope(u32 kind, float x) {
    switch (kind) {
        case SILU: {
            const float s = sigmoid(x);
            return s * (1.0f + x * (1.0f - s));
        }
        case GELU: {
            const float t = tanhf(0.7978846f * (x + 0.044715f * x * x * x));
            return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978846f * (1.0f + 0.134145f * x * x);
        }
        case RELU: return x > 0.0f ? 1.0f : 0.0f;
        case SIGMOID: {
            const float s = sigmoid(x);
            return s * (1.0f - s);
        }
        case TANH: {
            const float t = tanhf(x);
            return 1.0f - t * t;
        }
        case SOFTPLUS: return sigmoid(x);
        case NEGATIVE_EXP: return -expf(fminf(x, 80.0f));
        case EXP: return expf(x);
        case POSITIVE: {
            const float s = sigmoid(x);
            return x >= 0.0f ? 1.0f : s * (1.0f - s);
        }
        case ELU_PLUS_ONE: return expf(fminf(x, 0.0f));
        case LOG_SIGMOID: return sigmoid(-x);
        case ONE_MINUS_EXP: return -expf(x);
        case LOG_ONE_MINUS: return -1.0f / fmaxf(1.0f - x, 2.9802322e-8f);
        case RECIPROCAL: return -1.0f / (x * x);
        case SINE: return cosf(x);
        default: return 1.0f;
    }
}
