//! The gradients of one chunk of one block of heads, of which `chunk` has the forward pass.
//!
//! The gradient of the logarithm of a decay is the sum of all that reaches across its token t: from an
//! earlier token or the state before to t or a later one or the state after. It is summed as that, not as
//! sums over all tokens of which most would cancel: where a head forgets fast, the rounding of what
//! cancels is more than all that is left.

use super::chunk::{Block, Given, Part, Scratch, decay_state};
use super::delta;
use crate::gemm::{Mat, gemm_serial};
use crate::simd;
use crate::simd::{dot, sum};

/// Places for a chunk's gradients, written but for the last.
pub(super) struct Gradients<'a> {
    /// `[M, K]`.
    pub q: &'a mut [f32],
    /// `[N, K]`.
    pub k: &'a mut [f32],
    /// `[N, cols]`.
    pub v: &'a mut [f32],
    /// `[L, heads]`: of the logarithms of decays; empty where they are not given.
    pub logs: &'a mut [f32],
    /// `[N, heads]`: of beta; empty without the delta rule.
    pub beta: &'a mut [f32],
    /// `[L, heads]`: of the scale; empty where there is none.
    pub scale: &'a mut [f32],
    /// `[heads]`, added to: of the skip; empty where there is none.
    pub skip: &'a mut [f32],
}

/// Gradients of a chunk. `grad_state` `[K, cols]` is that of the state after it and becomes that of
/// `state`, the state before it.
pub(super) fn backward(
    block: Block,
    given: Given<'_>,
    state: &[f32],
    grad_o: Part<'_>,
    grad_state: &mut [f32],
    grads: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let (queries, cols, key) = (given.queries(), block.cols(), block.key);
    let writes = given.count();
    scratch.begin(block, given, state);
    let (k, q) = (given.k.mat(writes, key), given.q.mat(queries, key));
    let before = Mat::new(state, key, cols, cols);
    // Shares in the state after, S' = e^{s_L} S + Kᵀ scaled: their part of the gradient of v is e^{s_L - s_j} K dS'.
    let grad_after = Mat::new(grad_state, key, cols, cols);
    gemm_serial(grads.v, cols, k, grad_after, 1.0, 0.0);
    let scaled = Mat::new(&scratch.scaled, writes, cols, cols);
    gemm_serial(grads.k, key, scaled, grad_after.t(), 1.0, 0.0);
    passed(block, writes, state, grad_state, scratch);
    share_gradients(block, given, grads.v, scratch);
    decay_state(block, writes, &scratch.kept, grad_state);
    // What the state before said: o += e^{s_i} Q S.
    let read = &mut scratch.read[..queries * cols];
    gemm_serial(read, cols, q, before, 1.0, 0.0);
    read_gradients(block, given, grad_o, scratch);
    let read = Mat::new(&scratch.read, queries, cols, cols);
    gemm_serial(grads.q, key, read, before.t(), 1.0, 0.0);
    gemm_serial(grad_state, cols, q.t(), read, 1.0, 1.0);
    // What the chunk's own tokens said.
    scratch.grad_products[..queries * writes].fill(0.0);
    for head in 0..block.heads {
        head_gradients(block, given, grad_o, head, grads.v, scratch);
    }
    let grad_products = Mat::new(&scratch.grad_products, queries, writes, writes);
    gemm_serial(grads.q, key, grad_products, k, 1.0, 1.0);
    gemm_serial(grads.k, key, grad_products.t(), q, 1.0, 1.0);
    delta::backward(block, given, state, grad_state, grads, scratch);
    value_gradients(block, given, grad_o, grads);
    for (t, logs) in grads.logs.chunks_exact_mut(block.heads).enumerate() {
        for (head, log) in logs.iter_mut().enumerate() {
            *log = scratch.grad_logs[head * writes + t * given.writes];
        }
    }
}

simd! {
    /// Adds to `reaches` what comes from the state before a chunk to the state after it, across all tokens.
    pub(super) fn passed(
        block: Block,
        length: usize,
        state: &[f32],
        grad_state: &[f32],
        scratch: &mut Scratch,
    ) {
        let (cols, width) = (block.cols(), block.value);
        for (head, reaches) in scratch.reaches.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (state, grad) in state.chunks_exact(cols).zip(grad_state.chunks_exact(cols)) {
                sum += dot(&state[head * width..][..width], &grad[head * width..][..width]);
            }
            *reaches += sum * scratch.kept[head * length + length - 1];
        }
    }
}

simd! {
    /// From K dS' (in `grad_v`) to its part of the gradient of v; begins the gradients of the logarithms
    /// with what reaches the state after, from the state before (in `reaches`) and from earlier tokens.
    pub(super) fn share_gradients(
        block: Block,
        given: Given<'_>,
        grad_v: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (length, cols, width) = (given.count(), block.cols(), block.value);
        for head in 0..block.heads {
            let (start, mut reaches) = (head * width, scratch.reaches[head]);
            let v = given.written(cols, &scratch.values);
            for t in 0..length {
                let decay = scratch.left[head * length + t];
                let grad = &mut grad_v[t * cols + start..][..width];
                for value in grad.iter_mut() {
                    *value *= decay;
                }
                scratch.grad_logs[head * length + t] = reaches;
                reaches += dot(&v.row(t, cols)[start..][..width], grad);
            }
        }
    }
}

simd! {
    /// `read` holds Q S, whose part in o was exp(s_i) times that. Leaves its gradient there, and adds
    /// to those of the logarithms what reaches from the state before to their token or a later one.
    fn read_gradients(block: Block, given: Given<'_>, grad_o: Part<'_>, scratch: &mut Scratch) {
        let (cols, width) = (block.cols(), block.value);
        for head in 0..block.heads {
            let mut reaches = 0.0;
            for index in (0..given.queries()).rev() {
                let grad = &grad_o.row(index, cols)[head * width..][..width];
                let first = head * given.count() + index / given.reads * given.writes;
                let factor = scratch.kept[first + given.writes - 1];
                let values = &mut scratch.read[index * cols + head * width..][..width];
                reaches += factor * dot(grad, values);
                if index % given.reads == 0 {
                    scratch.grad_logs[first] += reaches;
                }
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
    given: Given<'_>,
    grad_o: Part<'_>,
    head: usize,
    grad_v: &mut [f32],
    scratch: &mut Scratch,
) {
    let (queries, width, cols) = (given.queries(), block.value, block.cols());
    let (start, writes) = (head * width, given.count());
    scratch.fill_mixing(given, head);
    let v = given.written(cols, &scratch.values);
    let v = Mat::new(&v.data[start..], writes, width, v.stride);
    let grad_o = Mat::new(&grad_o.data[start..], queries, width, grad_o.stride);
    let grad_mixing = &mut scratch.grad_mixing[..queries * writes];
    gemm_serial(grad_mixing, writes, grad_o, v.t(), 1.0, 0.0);
    let mixing = Mat::new(&scratch.mixing, queries, writes, writes);
    gemm_serial(&mut grad_v[start..], cols, mixing.t(), grad_o, 1.0, 1.0);
    let mixed = [&scratch.grad_mixing, &scratch.decays, &scratch.mixing].map(Vec::as_slice);
    let logs = &mut scratch.grad_logs[head * writes..][..writes];
    mixing_gradients(
        [given.reads, given.writes],
        mixed,
        &mut scratch.later,
        &mut scratch.grad_products,
        logs,
    );
}

simd! {
    /// From the gradient of one head's `mixing = products decays`, `[N / step * rows, N]` each, to those of products and
    /// of the logarithms `[N]` of the first of every `step` writes; both are added to, `later` `[N]` is room.
    pub(super) fn mixing_gradients(
        of: [usize; 2],
        mixed: [&[f32]; 3],
        later: &mut [f32],
        grad_products: &mut [f32],
        grad_logs: &mut [f32],
    ) {
        let ([grad_mixing, decays, mixing], [rows, step]) = (mixed, of);
        let count = grad_logs.len();
        let later = &mut later[..count];
        later.fill(0.0);
        for index in (0..count / step * rows).rev() {
            let i = index / rows * step;
            let row = index * count..index * count + i + step;
            let grad = &grad_mixing[row.clone()];
            let (decays, mixing) = (&decays[row.clone()], &mixing[row.clone()]);
            for ((product, grad), decay) in grad_products[row].iter_mut().zip(grad).zip(decays) {
                *product = grad.mul_add(*decay, *product);
            }
            // By earlier write, what it says to those from i on.
            let later = &mut later[..i];
            for ((sum, grad), mixing) in later.iter_mut().zip(grad).zip(mixing) {
                *sum = grad.mul_add(*mixing, *sum);
            }
            if index % rows == 0 {
                grad_logs[i] += sum(later);
            }
        }
    }
}

simd! {
    /// From the gradients of what is written (in `grads.v`) to those of v, of its scale and of what goes past the state.
    fn value_gradients(block: Block, given: Given<'_>, grad_o: Part<'_>, grads: &mut Gradients<'_>) {
        let (heads, cols, width) = (block.heads, block.cols(), block.value);
        if given.scale.is_none() && given.skip.is_empty() {
            return;
        }
        for (t, written) in grads.v.chunks_exact_mut(cols).enumerate() {
            let inputs = given.v.row(t, cols).chunks_exact(width).zip(grad_o.row(t, cols).chunks_exact(width));
            for (head, (u, (v, grad_o))) in written.chunks_exact_mut(width).zip(inputs).enumerate() {
                if let Some(scale) = given.scale {
                    grads.scale[t * heads + head] = dot(v, u);
                    let scale = scale.row(t, heads)[head];
                    for u in u.iter_mut() {
                        *u *= scale;
                    }
                }
                if let Some(skip) = given.skip.get(head) {
                    grads.skip[head] += dot(v, grad_o);
                    for (u, grad_o) in u.iter_mut().zip(grad_o) {
                        *u = skip.mul_add(*grad_o, *u);
                    }
                }
            }
        }
    }
}
