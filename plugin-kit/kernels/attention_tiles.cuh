// What the kernels over tiles of attention are given, in float32 (attention.cu) and on tensor cores
// (attention_mma.cu); the host puts it in front of both.

struct AttentionTiles {
    const float *q, *dy;      // [B, T, H K]
    const float *k, *v;       // [B, capacity, kv_heads K]
    float* y;                 // [B, parts, T, H K]
    float* log_sums;          // [B, parts, H, T]
    float* delta;             // [B, H, T]
    float *grad_a, *grad_b;   // [B, T, H K]: of q, or of k and v
    const float* key_bias;    // [B, capacity, 2 H] in two parts, null where keys have none (tensor cores take none)
    float* grad_bias;         // [B, T, 2 H]
    const Control* control;   // null where every sequence starts at position 0
    u64 q_stride, dy_stride, k_stride, v_stride, y_stride, a_stride, b_stride;
    u64 key_bias_stride, grad_bias_stride;
    u64 capacity;
    u32 rows, length, heads, group, head_dim, parts;
    u32 window;               // keys a query sees, at most 2^32 - 1
    u32 narrow_heads;         // the first heads, which see 1, 2, 3, .. tokens
    u32 alibi;                // whether logits fall with the distance
    u32 a_accumulate, b_accumulate, bias_accumulate, unused;
    float scale;
};

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
