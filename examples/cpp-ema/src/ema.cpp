// Gated exponential averages: forward, hand-written backward, AdamW. One thread, float32, no allocation,
// no exception; every buffer is the caller's. src/native.rs declares the same functions and checks sizes.
//
// A block, for a row of tokens t and channels c (the undamped average that arXiv 2209.10655 starts from):
//
//     v = W_in x,   g = W_gate x,   a = sigmoid(decay)
//     s_t = a s_{t-1} + (1 - a) v_t
//     x  <- x + W_out (silu(g) s)
//
// Parameters, one after the other: embedding [V, D]; for each block decay [D], W_in [D, D], W_gate [D, D],
// W_out [D, D]; head [V, D].
//
// Trace, for each block: input x [T, D], g [T, D], v [T, D], s [T, D], silu(g) s [T, D], and the state
// before the first token [D]; then the last block's output [T, D].

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace {

constexpr std::size_t lanes = 16;

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// Sum of products in 16 interleaved sums: wide for the compiler, and the same order at any length.
float dot(const float *a, const float *b, std::size_t count) {
    float sums[lanes] = {};
    std::size_t at = 0;
    for (; at + lanes <= count; at += lanes)
        for (std::size_t lane = 0; lane < lanes; ++lane)
            sums[lane] += a[at + lane] * b[at + lane];
    for (std::size_t lane = 0; at < count; ++at, ++lane)
        sums[lane] += a[at] * b[at];
    for (std::size_t width = lanes / 2; width > 0; width /= 2)
        for (std::size_t lane = 0; lane < width; ++lane)
            sums[lane] += sums[lane + width];
    return sums[0];
}

void add_scaled(float *to, const float *from, float factor, std::size_t count) {
    for (std::size_t at = 0; at < count; ++at)
        to[at] += factor * from[at];
}

// y = W x with W [rows, count].
void multiply(const float *w, const float *x, float *y, std::size_t rows, std::size_t count) {
    for (std::size_t row = 0; row < rows; ++row)
        y[row] = dot(w + row * count, x, count);
}

// grad_x += W^T grad_y and grad_w += grad_y x^T.
void multiply_backward(const float *w, const float *x, const float *grad_y, float *grad_x,
                       float *grad_w, std::size_t rows, std::size_t count) {
    for (std::size_t row = 0; row < rows; ++row) {
        add_scaled(grad_x, w + row * count, grad_y[row], count);
        add_scaled(grad_w + row * count, x, grad_y[row], count);
    }
}

} // namespace

extern "C" {

struct EmaSizes {
    std::size_t vocab;   // V
    std::size_t d_model; // D
    std::size_t layers;
};

} // extern "C"

namespace {

// A block's parameters, or their gradients: `Value` is `const float` or `float`.
template <typename Value> struct Block {
    Value *decay, *in, *gate, *out;

    Block(EmaSizes sizes, Value *values, std::size_t layer) {
        const std::size_t d = sizes.d_model;
        decay = values + sizes.vocab * d + layer * (d + 3 * d * d);
        in = decay + d;
        gate = in + d * d;
        out = gate + d * d;
    }
};

// Values before the head.
std::size_t before_head(EmaSizes sizes) {
    const std::size_t d = sizes.d_model;
    return sizes.vocab * d + sizes.layers * (d + 3 * d * d);
}

template <typename Value> Value *head(EmaSizes sizes, Value *values) { return values + before_head(sizes); }

// Where a block's trace lies.
struct Trace {
    float *x, *g, *v, *s, *mixed, *before, *next;

    Trace(EmaSizes sizes, float *trace, std::size_t length, std::size_t layer) {
        const std::size_t plane = length * sizes.d_model;
        x = trace + layer * (5 * plane + sizes.d_model);
        g = x + plane;
        v = g + plane;
        s = v + plane;
        mixed = s + plane;
        before = mixed + plane;
        next = before + sizes.d_model; // the next block's x, or the output
    }
};

} // namespace

extern "C" {

// Values of all parameters.
std::size_t ema_parameters(EmaSizes sizes) { return before_head(sizes) + sizes.vocab * sizes.d_model; }

// Values of a trace of T tokens.
std::size_t ema_trace(EmaSizes sizes, std::size_t length) {
    return sizes.layers * (5 * length * sizes.d_model + sizes.d_model) + length * sizes.d_model;
}

// Reads a row's tokens [T]. `state` [layers, D] is where it starts and, after, where it ended; the last
// T * D values of `trace` are what the head sees.
void ema_forward(EmaSizes sizes, const float *params, const std::uint32_t *tokens, std::size_t length,
                 float *state, float *trace) {
    const std::size_t d = sizes.d_model;
    float *first = sizes.layers > 0 ? Trace(sizes, trace, length, 0).x : trace;
    for (std::size_t t = 0; t < length; ++t)
        for (std::size_t c = 0; c < d; ++c)
            first[t * d + c] = params[tokens[t] * d + c];
    for (std::size_t layer = 0; layer < sizes.layers; ++layer) {
        const Block<const float> block(sizes, params, layer);
        const Trace kept(sizes, trace, length, layer);
        float *s = state + layer * d;
        for (std::size_t c = 0; c < d; ++c)
            kept.before[c] = s[c];
        for (std::size_t t = 0; t < length; ++t) {
            const std::size_t at = t * d;
            multiply(block.in, kept.x + at, kept.v + at, d, d);
            multiply(block.gate, kept.x + at, kept.g + at, d, d);
            for (std::size_t c = 0; c < d; ++c) {
                const float a = sigmoid(block.decay[c]);
                const float g = kept.g[at + c];
                s[c] = a * s[c] + (1.0f - a) * kept.v[at + c];
                kept.s[at + c] = s[c];
                kept.mixed[at + c] = g * sigmoid(g) * s[c];
            }
            multiply(block.out, kept.mixed + at, kept.next + at, d, d);
            for (std::size_t c = 0; c < d; ++c)
                kept.next[at + c] += kept.x[at + c];
        }
    }
}

// Logits [V] of one position's output [D].
void ema_logits(EmaSizes sizes, const float *params, const float *output, float *logits) {
    multiply(head(sizes, params), output, logits, sizes.vocab, sizes.d_model);
}

// Negative log likelihood of `target` in nats; `best` becomes the most likely token.
float ema_score(EmaSizes sizes, const float *logits, std::uint32_t target, std::uint32_t *best) {
    *best = 0;
    for (std::size_t token = 1; token < sizes.vocab; ++token)
        if (logits[token] > logits[*best])
            *best = static_cast<std::uint32_t>(token);
    float total = 0.0f;
    for (std::size_t token = 0; token < sizes.vocab; ++token)
        total += std::exp(logits[token] - logits[*best]);
    return std::log(total) + logits[*best] - logits[target];
}

// Adds the gradient of `weight` times the negative log likelihood: to `grad_output` [D] and to the head's
// in `grads`. The logits are used up.
void ema_score_backward(EmaSizes sizes, const float *params, const float *output, float *logits,
                        std::uint32_t target, float weight, float *grad_output, float *grads) {
    std::uint32_t best = 0;
    const float nll = ema_score(sizes, logits, target, &best);
    const float log_total = nll + logits[target];
    for (std::size_t token = 0; token < sizes.vocab; ++token)
        logits[token] = weight * std::exp(logits[token] - log_total);
    logits[target] -= weight;
    multiply_backward(head(sizes, params), output, logits, grad_output, head(sizes, grads), sizes.vocab,
                      sizes.d_model);
}

// Adds a row's gradients to `grads`. `trace` is what `ema_forward` left for the same tokens; `grad` [T, D]
// is the gradient of the last block's output and is used up; `scratch` is [4, D].
void ema_backward(EmaSizes sizes, const float *params, const std::uint32_t *tokens, std::size_t length,
                  float *trace, float *grad, float *scratch, float *grads) {
    const std::size_t d = sizes.d_model;
    float *grad_mixed = scratch, *grad_v = scratch + d, *grad_g = scratch + 2 * d, *carried = scratch + 3 * d;
    for (std::size_t layer = sizes.layers; layer-- > 0;) {
        const Block<const float> block(sizes, params, layer);
        const Block<float> grad_block(sizes, grads, layer);
        const Trace kept(sizes, trace, length, layer);
        for (std::size_t c = 0; c < d; ++c)
            carried[c] = 0.0f;
        for (std::size_t t = length; t-- > 0;) {
            const std::size_t at = t * d;
            const float *before = t > 0 ? kept.s + at - d : kept.before;
            for (std::size_t c = 0; c < d; ++c)
                grad_mixed[c] = 0.0f;
            multiply_backward(block.out, kept.mixed + at, grad + at, grad_mixed, grad_block.out, d, d);
            for (std::size_t c = 0; c < d; ++c) {
                const float a = sigmoid(block.decay[c]);
                const float g = kept.g[at + c], open = sigmoid(g);
                const float grad_s = grad_mixed[c] * g * open + carried[c];
                grad_g[c] = grad_mixed[c] * kept.s[at + c] * open * (1.0f + g * (1.0f - open));
                grad_v[c] = (1.0f - a) * grad_s;
                grad_block.decay[c] += grad_s * (before[c] - kept.v[at + c]) * a * (1.0f - a);
                carried[c] = a * grad_s;
            }
            // The residual's share of x is in `grad` already.
            multiply_backward(block.in, kept.x + at, grad_v, grad + at, grad_block.in, d, d);
            multiply_backward(block.gate, kept.x + at, grad_g, grad + at, grad_block.gate, d, d);
        }
    }
    for (std::size_t t = 0; t < length; ++t)
        add_scaled(grads + tokens[t] * d, grad + t * d, 1.0f, d);
}

struct EmaAdamW {
    float rate, beta1, beta2, epsilon;
    float decay;                    // decoupled; 0 for what is not a matrix
    float clip;                     // factor on the gradients
    float correction1, correction2; // 1 - beta^step
};

// One AdamW step (arXiv 1711.05101, algorithm 2) over `count` values with their moments.
void ema_adamw(EmaAdamW settings, float *values, const float *grads, float *first, float *second,
               std::size_t count) {
    for (std::size_t at = 0; at < count; ++at) {
        const float grad = settings.clip * grads[at];
        first[at] = settings.beta1 * first[at] + (1.0f - settings.beta1) * grad;
        second[at] = settings.beta2 * second[at] + (1.0f - settings.beta2) * grad * grad;
        const float root = std::sqrt(second[at] / settings.correction2) + settings.epsilon;
        const float step = first[at] / settings.correction1 / root;
        values[at] -= settings.rate * (step + settings.decay * values[at]);
    }
}

} // extern "C"
