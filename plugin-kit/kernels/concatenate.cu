// One part of heads that are put together of several: each head's columns to their place among the wider ones, or
// in the backward pass from there. One thread a value.

KERNEL(256, concatenate, ConcatenateValues) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    if (index >= p.count) return;
    const u64 row = index / p.width / p.heads;
    const u32 head = index / p.width % p.heads, col = index % p.width;
    const float value = p.from[row * p.from_stride + head * (u64)p.from_head + col];
    leave(&p.to[row * p.to_stride + head * (u64)p.to_head + col], value, p.accumulate);
}
