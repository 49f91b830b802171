// What the kernels over tiles of attention are given, in float32 (attention.cu) and on tensor cores
// (attention_mma.cu); the host puts it in front of both.

// A head's own window and slope.
__device__ __forceinline__ u32 window_of(const AttentionTiles& p, u32 head) {
    return head < p.narrow_heads ? min(p.window, head + 1) : p.window;
}

__device__ __forceinline__ float slope_of(const AttentionTiles& p, u32 head) {
    return p.alibi ? exp2f(-8.0f * (float)(head + 1) / (float)p.heads) : 0.0f;
}

// Position of the first key that the query at a position sees.
__device__ __forceinline__ u64 first_seen(u64 position, u32 window) {
    return position + 1 > window ? position + 1 - window : 0;
}
