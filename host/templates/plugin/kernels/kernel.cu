// A gated linear recurrence, channel by channel:
//
//   a = sigmoid(gate)        h = a h + (1 - a) x
//
// Grid: one thread a row and channel, 256 a block, which goes through the tokens; neighbouring threads
// read neighbouring channels. No shared memory; any width, any length. `common.cuh` of the kit is in front
// of this file: KERNEL, u32, u64, sigmoid, leave and more are from there.
//
// A kernel's one parameter is a plain struct, `p` in its body. src/cuda.rs declares it, by kernel_params!: fields of
// eight bytes first, then an even number of four-byte ones. Its declaration in C++ is put in front of this file.
// Activations and their gradients are `Stored` there: what they are stored in is read as a float and assigned one.
//
// With few rows of few channels most of a card idles; kernels/diagonal.cu of the kit shows how
// chunks of tokens run beside each other.

KERNEL(256, {{crate}}_forward, RecurrenceForward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.width, channel = index % p.width;
    if (row >= p.rows) return;
    float h = p.state ? p.state[index] : 0.0f;
#pragma unroll 4
    for (u32 t = 0; t < p.length; t++) {
        const u64 token = row * p.length + t;
        const float a = sigmoid(p.gate[token * p.gate_stride + channel]);
        const float x = p.x[token * p.x_stride + channel];
        h = fmaf(a, h - x, x);
        p.h[token * p.width + channel] = h;
    }
    if (p.state) p.state[index] = h;
}

// The last token first; `carried` is the gradient of the state that comes from the tokens after.
KERNEL(256, {{crate}}_backward, RecurrenceBackward) {
    const u64 index = blockIdx.x * (u64)blockDim.x + threadIdx.x;
    const u64 row = index / p.width, channel = index % p.width;
    if (row >= p.rows) return;
    float carried = 0.0f;
    for (u32 t = p.length; t-- > 0;) {
        const u64 token = row * p.length + t;
        const float a = sigmoid(p.gate[token * p.gate_stride + channel]);
        const float x = p.x[token * p.x_stride + channel];
        const float before = t > 0 ? p.h[(token - 1) * p.width + channel] : 0.0f;
        const float g = p.grad_h[token * p.width + channel] + carried;
        carried = g * a;
        leave(&p.grad_x[token * p.grad_x_stride + channel], g * (1.0f - a), p.add_x);
        leave(&p.grad_gate[token * p.grad_gate_stride + channel], g * (before - x) * a * (1.0f - a), p.add_gate);
    }
}
