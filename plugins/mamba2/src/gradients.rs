//! The gradients of one chunk of one block of heads, of which `chunk.rs` has the forward pass.
//!
//! With U_j the gradient of dt_j x_j, that of x_j is dt_j U_j and that of dt_j is x_j U_j: nothing is
//! divided out. The gradient of dt_t a, the logarithm of a decay, is the sum of all that reaches across
//! token t: from an earlier token or the state before to t or a later one or the state after. It is
//! summed as that, not as sums over all tokens of which most would cancel: where a head forgets fast,
//! the rounding of what cancels is more than all that is left.

use longhaul_plugin_kit::gemm::{Mat, gemm_serial};
use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{dot, sigmoid, sum};

use crate::chunk::{Block, Given, Part, Scratch, decay_state};

/// Places for a chunk's gradients.
pub(crate) struct Gradients<'a> {
    /// `[L, cols]`, written.
    pub x: &'a mut [f32],
    /// `[L, N]`, written.
    pub b: &'a mut [f32],
    /// `[L, N]`, written.
    pub c: &'a mut [f32],
    /// `[L, heads]`, written: of dt before bias and softplus.
    pub dt: &'a mut [f32],
    /// `[heads]`, added to: of A = -exp(A_log).
    pub a: &'a mut [f32],
    /// `[heads]`, added to.
    pub d: &'a mut [f32],
    /// `[heads]`, added to.
    pub dt_bias: &'a mut [f32],
}

/// Gradients of a chunk. `grad_state` `[N, cols]` is that of the state after it and becomes that of
/// `state`, the state before it.
pub(crate) fn backward(
    block: Block,
    given: Given<'_>,
    state: &[f32],
    grad_y: Part<'_>,
    grad_state: &mut [f32],
    grads: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let (length, cols, n) = (given.length, block.cols(), block.state);
    scratch.begin(block, given);
    let (b, c) = (given.b.mat(length, n), given.c.mat(length, n));
    let before = Mat::new(state, n, cols, cols);
    // Shares in the state after, S' = e^{s_L} S + Bᵀ scaled: their part of U is V = e^{s_L - s_j} B dS'.
    let grad_after = Mat::new(grad_state, n, cols, cols);
    gemm_serial(grads.x, cols, b, grad_after, 1.0, 0.0);
    let scaled = Mat::new(&scratch.scaled, length, cols, cols);
    gemm_serial(grads.b, n, scaled, grad_after.t(), 1.0, 0.0);
    share_gradients(block, length, state, grad_state, grads.x, scratch);
    decay_state(block, length, &scratch.kept, grad_state);
    // What the state before said: y += e^{s_i} C S.
    let read = &mut scratch.read[..length * cols];
    gemm_serial(read, cols, c, before, 1.0, 0.0);
    read_gradients(block, length, grad_y, scratch);
    let read = Mat::new(&scratch.read, length, cols, cols);
    gemm_serial(grads.c, n, read, before.t(), 1.0, 0.0);
    gemm_serial(grad_state, cols, c.t(), read, 1.0, 1.0);
    // What the chunk's own tokens said.
    scratch.grad_products[..length * length].fill(0.0);
    for head in 0..block.heads {
        head_gradients(block, length, grad_y, head, grads.x, scratch);
    }
    let grad_products = Mat::new(&scratch.grad_products, length, length, length);
    gemm_serial(grads.c, n, grad_products, b, 1.0, 1.0);
    gemm_serial(grads.b, n, grad_products.t(), c, 1.0, 1.0);
    input_gradients(block, given, grad_y, grads, scratch);
}

simd! {
    /// From B dS' (in `grad_x`) to V; begins the gradients of dt a with what reaches the state after,
    /// from the state before and from earlier tokens.
    fn share_gradients(
        block: Block,
        length: usize,
        state: &[f32],
        grad_state: &[f32],
        grad_x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (cols, width) = (block.cols(), block.head_dim);
        for head in 0..block.heads {
            let start = head * width;
            let mut reaches = 0.0;
            for (state, grad) in state.chunks_exact(cols).zip(grad_state.chunks_exact(cols)) {
                reaches += dot(&state[start..][..width], &grad[start..][..width]);
            }
            reaches *= scratch.kept[head * length + length - 1];
            for t in 0..length {
                let decay = scratch.left[head * length + t];
                let grad = &mut grad_x[t * cols + start..][..width];
                for value in grad.iter_mut() {
                    *value *= decay;
                }
                scratch.grad_steps[head * length + t] = reaches;
                reaches += dot(&scratch.inputs[t * cols + start..][..width], grad);
            }
        }
    }
}

simd! {
    /// `read` holds C S, whose part in y was exp(s_i) times that. Leaves its gradient there, and adds
    /// to those of dt a what reaches from the state before to their token or a later one.
    fn read_gradients(block: Block, length: usize, grad_y: Part<'_>, scratch: &mut Scratch) {
        let (cols, width) = (block.cols(), block.head_dim);
        for head in 0..block.heads {
            let mut reaches = 0.0;
            for t in (0..length).rev() {
                let grad = &grad_y.row(t, cols)[head * width..][..width];
                let factor = scratch.kept[head * length + t];
                let values = &mut scratch.read[t * cols + head * width..][..width];
                reaches += factor * dot(grad, values);
                scratch.grad_steps[head * length + t] += reaches;
                for (value, grad) in values.iter_mut().zip(grad) {
                    *value = factor * grad;
                }
            }
        }
    }
}

/// One head's gradients inside the chunk.
fn head_gradients(
    block: Block,
    length: usize,
    grad_y: Part<'_>,
    head: usize,
    grad_x: &mut [f32],
    scratch: &mut Scratch,
) {
    let (width, cols, start) = (block.head_dim, block.cols(), head * block.head_dim);
    scratch.fill_decays(head, length);
    scratch.fill_mixing(length);
    let inputs = Mat::new(&scratch.inputs[start..], length, width, cols);
    let dy = Mat::new(&grad_y.data[start..], length, width, grad_y.stride);
    let grad_mixing = &mut scratch.grad_mixing[..length * length];
    gemm_serial(grad_mixing, length, dy, inputs.t(), 1.0, 0.0);
    let mixing = Mat::new(&scratch.mixing, length, length, length);
    gemm_serial(&mut grad_x[start..], cols, mixing.t(), dy, 1.0, 1.0);
    mixing_gradients(head, length, scratch);
}

simd! {
    /// From the gradient of one head's `mixing = products decays` to those of products and of dt a.
    fn mixing_gradients(head: usize, length: usize, scratch: &mut Scratch) {
        let later = &mut scratch.later[..length];
        later.fill(0.0);
        for i in (0..length).rev() {
            let row = i * length..i * length + i + 1;
            let grad = &scratch.grad_mixing[row.clone()];
            let (decays, mixing) = (&scratch.decays[row.clone()], &scratch.mixing[row.clone()]);
            for ((product, grad), decay) in scratch.grad_products[row].iter_mut().zip(grad).zip(decays) {
                *product = grad.mul_add(*decay, *product);
            }
            // By earlier token, what it says to token i and later ones.
            let later = &mut later[..i];
            for ((sum, grad), mixing) in later.iter_mut().zip(grad).zip(mixing) {
                *sum = grad.mul_add(*mixing, *sum);
            }
            scratch.grad_steps[head * length + i] += sum(later);
        }
    }
}

simd! {
    /// From U (in `grads.x`) and the gradients of dt a to those of x, D, A, and dt before bias and
    /// softplus.
    fn input_gradients(
        block: Block,
        given: Given<'_>,
        grad_y: Part<'_>,
        grads: &mut Gradients<'_>,
        scratch: &Scratch,
    ) {
        let (length, heads, cols, width) = (given.length, block.heads, block.cols(), block.head_dim);
        // The slope of softplus, in the place of what it is a factor of.
        for (t, slopes) in grads.dt.chunks_exact_mut(heads).enumerate() {
            let raw = given.dt.row(t, heads);
            for head in 0..heads {
                slopes[head] = raw[head] + given.dt_bias[head];
            }
        }
        for slope in grads.dt.iter_mut() {
            *slope = sigmoid(*slope);
        }
        for t in 0..length {
            for head in 0..heads {
                let place = head * width..(head + 1) * width;
                let x = &given.x.row(t, cols)[place.clone()];
                let dy = &grad_y.row(t, cols)[place.clone()];
                let u = &mut grads.x[t * cols..][..cols][place];
                let (step, skip) = (scratch.dt[head * length + t], given.d[head]);
                let grad_step = scratch.grad_steps[head * length + t];
                let grad = (dot(x, u) + grad_step * given.a[head]) * grads.dt[t * heads + head];
                grads.dt[t * heads + head] = grad;
                grads.dt_bias[head] += grad;
                grads.a[head] += grad_step * step;
                grads.d[head] += dot(x, dy);
                for (u, dy) in u.iter_mut().zip(dy) {
                    *u = dy.mul_add(skip, step * *u);
                }
            }
        }
    }
}
