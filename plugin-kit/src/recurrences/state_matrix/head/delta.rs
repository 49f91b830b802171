//! The delta rule in a chunk (arXiv 2406.06484, section 3; with decays arXiv 2412.06464, section 3.3). What token t
//! writes for its key is beta times what is new in v,
//!
//! ```text
//! y_t = beta_t (v_t - e^{s_t} k_t S - sum over j < t of (k_t k_j) e^{s_t - s_j} y_j)
//! ```
//!
//! with S the state before the chunk: a triangular system, solved row by row. With y in the place of v all else is as
//! without removal. Here L counts writes: a token's are as tokens of which only the first decays (arXiv 2502.10297).

use super::chunk::{Block, Given, Part, Scratch, grow};
use super::gradients::{Gradients, mixing_gradients};
use crate::gemm::{Mat, gemm_serial};
use crate::simd;
use crate::simd::dot;

/// Makes room, and computes what is written.
pub(super) fn forward(
    block: Block,
    given: Given<'_>,
    beta: Part<'_>,
    state: &[f32],
    scratch: &mut Scratch,
) {
    let (length, cols) = (given.count(), block.cols());
    for (buffer, count) in [
        (&mut scratch.delta.products, length * length),
        (&mut scratch.delta.grad_products, length * length),
        (&mut scratch.delta.read, length * cols),
        (&mut scratch.delta.fresh, length * cols),
    ] {
        grow(buffer, count);
    }
    let k = given.k.mat(length, block.key);
    let products = &mut scratch.delta.products[..length * length];
    gemm_serial(products, length, k, k.t(), 1.0, 0.0);
    let before = Mat::new(state, block.key, cols, cols);
    gemm_serial(&mut scratch.delta.read, cols, k, before, 1.0, 0.0);
    for head in 0..block.heads {
        scratch.fill_key_mixing(given, head);
        solve(block, given, beta, head, scratch);
    }
}

simd! {
    /// What is new for a head, token after token.
    fn solve(block: Block, given: Given<'_>, beta: Part<'_>, head: usize, scratch: &mut Scratch) {
        let (length, cols, width) = (given.count(), block.cols(), block.value);
        let start = head * width;
        let (mixing, kept) = (&scratch.mixing, &scratch.kept[head * length..]);
        let (delta, written) = (&mut scratch.delta, &mut scratch.values);
        for t in 0..length {
            let at = t * cols + start;
            let fresh = &mut delta.fresh[at..][..width];
            let inputs = given.v.row(t, cols)[start..][..width].iter().zip(&delta.read[at..][..width]);
            for (fresh, (v, read)) in fresh.iter_mut().zip(inputs) {
                *fresh = (-kept[t]).mul_add(*read, *v);
            }
            let (earlier, own) = written.split_at_mut(t * cols);
            for (j, said) in mixing[t * length..][..t].iter().enumerate() {
                let value = &earlier[j * cols + start..][..width];
                for (fresh, value) in fresh.iter_mut().zip(value) {
                    *fresh = (-said).mul_add(*value, *fresh);
                }
            }
            let beta = beta.row(t, block.heads)[head];
            for (value, fresh) in own[start..][..width].iter_mut().zip(&*fresh) {
                *value = beta * fresh;
            }
        }
    }
}

/// From the gradients of what is written (in `grads.v`) to those of v and beta; adds to those of k and the logarithms,
/// and to `grad_state`, the gradient of the state before.
pub(super) fn backward(
    block: Block,
    given: Given<'_>,
    state: &[f32],
    grad_state: &mut [f32],
    grads: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let Some(beta) = given.beta else { return };
    let (length, cols, width) = (given.count(), block.cols(), block.value);
    let k = given.k.mat(length, block.key);
    scratch.delta.grad_products[..length * length].fill(0.0);
    for head in 0..block.heads {
        scratch.fill_key_mixing(given, head);
        solve_back(block, length, beta, head, grads, scratch);
        let grad_v = Mat::new(&grads.v[head * width..], length, width, cols);
        let values = Mat::new(&scratch.values[head * width..], length, width, cols);
        let grad_mixing = &mut scratch.grad_mixing[..length * length];
        gemm_serial(grad_mixing, length, grad_v, values.t(), -1.0, 0.0);
        for t in 0..length {
            // A write says nothing to itself.
            grad_mixing[t * length + t] = 0.0;
        }
        let (logs, grad_products) = (&mut scratch.grad_logs, &mut scratch.delta.grad_products);
        let mixed = [&scratch.grad_mixing, &scratch.decays, &scratch.mixing].map(Vec::as_slice);
        let logs = &mut logs[head * length..][..length];
        mixing_gradients([1, 1], mixed, &mut scratch.later, grad_products, logs);
    }
    let grad_products = Mat::new(&scratch.delta.grad_products, length, length, length);
    gemm_serial(grads.k, block.key, grad_products, k, 1.0, 1.0);
    gemm_serial(grads.k, block.key, grad_products.t(), k, 1.0, 1.0);
    // What the state before held was e^{s_t} k_t S, and the gradient of what is new is minus that of v.
    held_gradients(block, length, grads.v, scratch);
    let held = Mat::new(&scratch.delta.read, length, cols, cols);
    let before = Mat::new(state, block.key, cols, cols);
    gemm_serial(grads.k, block.key, held, before.t(), 1.0, 1.0);
    gemm_serial(grad_state, cols, k.t(), held, 1.0, 1.0);
}

simd! {
    /// The transposed system for a head, from the last token to the first: the gradient of v is beta times that of what
    /// is new, after what later tokens took of it.
    fn solve_back(
        block: Block,
        length: usize,
        beta: Part<'_>,
        head: usize,
        grads: &mut Gradients<'_>,
        scratch: &Scratch,
    ) {
        let (cols, width, start) = (block.cols(), block.value, head * block.value);
        for t in (0..length).rev() {
            let (earlier, own) = grads.v.split_at_mut(t * cols);
            let own = &mut own[start..][..width];
            grads.beta[t * block.heads + head] = dot(own, &scratch.delta.fresh[t * cols + start..][..width]);
            let beta = beta.row(t, block.heads)[head];
            for grad in own.iter_mut() {
                *grad *= beta;
            }
            for (j, said) in scratch.mixing[t * length..][..t].iter().enumerate() {
                let grad = &mut earlier[j * cols + start..][..width];
                for (grad, own) in grad.iter_mut().zip(&*own) {
                    *grad = (-said).mul_add(*own, *grad);
                }
            }
        }
    }
}

simd! {
    /// `delta.read` holds K S, whose part in what is new was -exp(s_t) times that. Leaves its gradient there, and adds to
    /// those of the logarithms what reaches from the state before to their token or a later one.
    fn held_gradients(block: Block, length: usize, grad_v: &[f32], scratch: &mut Scratch) {
        let (cols, width) = (block.cols(), block.value);
        for head in 0..block.heads {
            let mut reaches = 0.0;
            for t in (0..length).rev() {
                let at = t * cols + head * width;
                let factor = -scratch.kept[head * length + t];
                let (grad, values) = (&grad_v[at..][..width], &mut scratch.delta.read[at..][..width]);
                reaches += factor * dot(grad, values);
                scratch.grad_logs[head * length + t] += reaches;
                for (value, grad) in values.iter_mut().zip(grad) {
                    *value = factor * grad;
                }
            }
        }
    }
}
