//! The gradients of one chunk of a state matrix with levels, of which `levels_chunk` has the forward pass.

use super::chunk::{Part, Scratch as ChunkScratch, decay_state, grow};
use super::gradients::{mixing_gradients, passed, share_gradients};
use super::levels::CHUNK;
use super::levels_chunk::{Piece, Scratch, columns, each, held_after, weigh};
use crate::gemm::{Mat, gemm_serial};
use crate::simd;
use crate::simd::dot;

/// What the slots before a chunk are made of.
#[derive(Clone, Copy)]
pub(super) struct Kept<'a> {
    /// `[chunks, K, cols]`: the newest range after each chunk.
    pub ranges: &'a [f32],
    /// Whether nothing follows the chunk.
    pub is_last: bool,
}

/// Places for a chunk's gradients.
pub(super) struct Gradients<'a> {
    /// `[T, K]`.
    pub q: &'a mut [f32],
    /// `[T, K]`.
    pub k: &'a mut [f32],
    /// `[T, cols]`.
    pub v: &'a mut [f32],
    /// `[T, heads]`: of the logarithms of decays.
    pub logs: &'a mut [f32],
    /// `[T, heads L]`.
    pub lambda: &'a mut [f32],
}

/// Gradients of a chunk. In `grad_slots` are those of the slots after it, and then those before it.
pub(super) fn backward(
    piece: Piece<'_>,
    before: Kept<'_>,
    grad_o: Part<'_>,
    mut grads: Gradients<'_>,
    scratch: &mut Scratch,
) {
    let Piece { given, block, .. } = piece;
    let (length, cols, key) = (given.length, block.cols(), block.key);
    scratch.chunk.begin(block, given, &[]);
    grow(&mut scratch.state, block.state_values());
    grads.lambda.fill(0.0);
    // All slots before the chunk have something, as sequences start from nothing.
    let held = held_after(piece.slots(), 0, 0, piece.at);
    through_slots(piece, before, held, &mut grads, scratch);
    let (q, k) = (given.q.mat(length, key), given.k.mat(length, key));
    grads.q.fill(0.0);
    for slot in each(held) {
        fill_state(piece, before, slot, scratch);
        let state = Mat::new(&scratch.state, key, cols, cols);
        let read = &mut scratch.chunk.read[..length * cols];
        gemm_serial(read, cols, q, state, 1.0, 0.0);
        read_gradients(piece, slot, grad_o, grads.lambda, &mut scratch.chunk);
        let read = Mat::new(&scratch.chunk.read, length, cols, cols);
        gemm_serial(grads.q, key, read, state.t(), 1.0, 1.0);
        let grad = &mut scratch.grad_slots[slot * block.state_values()..];
        gemm_serial(grad, cols, q.t(), read, 1.0, 1.0);
    }
    let scratch = &mut scratch.chunk;
    scratch.grad_products[..length * length].fill(0.0);
    for head in 0..block.heads {
        head_gradients(piece, grad_o, head, &mut grads, scratch);
    }
    let grad_products = Mat::new(&scratch.grad_products, length, length, length);
    gemm_serial(grads.q, key, grad_products, k, 1.0, 1.0);
    gemm_serial(grads.k, key, grad_products.t(), q, 1.0, 1.0);
    for (t, logs) in grads.logs.chunks_exact_mut(block.heads).enumerate() {
        for (head, log) in logs.iter_mut().enumerate() {
            *log = scratch.grad_logs[head * length + t];
        }
    }
}

/// Fills `state` with what is in a slot before the chunk: the range that was new after an earlier one, decayed since.
fn fill_state(piece: Piece<'_>, before: Kept<'_>, slot: usize, scratch: &mut Scratch) {
    let (block, chunk) = (piece.block, piece.at as usize / CHUNK);
    // The last slot is new after every chunk whose tokens are as many as it has at least.
    let size = (1usize << slot).max(CHUNK);
    let made = piece.at as usize / size * size / CHUNK;
    let state = &mut scratch.state[..block.state_values()];
    state.copy_from_slice(
        &before.ranges[(made - 1) * block.state_values()..][..block.state_values()],
    );
    for head in 0..block.heads {
        let sums = scratch.sums[made * block.heads..chunk * block.heads].iter();
        let sum: f64 = sums.skip(head).step_by(block.heads).sum();
        let factor = sum.exp() as f32;
        for row in state.chunks_exact_mut(block.cols()) {
            for value in &mut row[head * block.value..][..block.value] {
                *value *= factor;
            }
        }
    }
}

/// From the gradients of the slots after a chunk to those before it, and to their part of those of what was written;
/// begins the gradients of the logarithms.
fn through_slots(
    piece: Piece<'_>,
    before: Kept<'_>,
    held: u64,
    grads: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let Piece { given, block, .. } = piece;
    let (length, cols, key) = (given.length, block.cols(), block.key);
    let values = block.state_values();
    if before.is_last {
        for slot in each(held) {
            scratch.grad_slots[slot * values..][..values].fill(0.0);
        }
        scratch.chunk.grad_logs[..block.heads * length].fill(0.0);
        grads.k.fill(0.0);
        grads.v.fill(0.0);
        return;
    }
    let target = piece.slots().taking_up(piece.at, piece.at + length as u64);
    for slot in each(held) {
        fill_state(piece, before, slot, scratch);
        let (lower, rest) = scratch.grad_slots.split_at_mut(slot.max(target) * values);
        let grad = &rest[..values];
        passed(block, length, &scratch.state, grad, &mut scratch.chunk);
        if slot < target {
            lower[slot * values..][..values].copy_from_slice(grad);
        }
    }
    let after = &scratch.grad_slots[target * values..][..values];
    let grad_after = Mat::new(after, key, cols, cols);
    gemm_serial(
        grads.v,
        cols,
        given.k.mat(length, key),
        grad_after,
        1.0,
        0.0,
    );
    let scaled = Mat::new(&scratch.chunk.scaled, length, cols, cols);
    gemm_serial(grads.k, key, scaled, grad_after.t(), 1.0, 0.0);
    share_gradients(block, given, grads.v, &mut scratch.chunk);
    for slot in each(held) {
        let grad = &mut scratch.grad_slots[slot * values..][..values];
        decay_state(block, length, &scratch.chunk.kept, grad);
    }
}

simd! {
    /// `read` holds Q S of a slot. Leaves its gradient there, and adds to those of the factors and to those of the
    /// logarithms.
    fn read_gradients(
        piece: Piece<'_>,
        slot: usize,
        grad_o: Part<'_>,
        grad_lambda: &mut [f32],
        scratch: &mut ChunkScratch,
    ) {
        let (length, cols, width) = (piece.given.length, piece.block.cols(), piece.block.value);
        let columns = piece.block.heads * piece.levels;
        for head in 0..piece.block.heads {
            let mut reaches = 0.0;
            for t in (0..length).rev() {
                let level = piece.level(t, slot);
                let grad = &grad_o.row(t, cols)[head * width..][..width];
                let (kept, lambda) = (scratch.kept[head * length + t], piece.lambda(t, head, level));
                let values = &mut scratch.read[t * cols + head * width..][..width];
                let said = kept * dot(grad, values);
                grad_lambda[t * columns + head * piece.levels + level] += said;
                reaches += lambda * said;
                scratch.grad_logs[head * length + t] += reaches;
                for (value, grad) in values.iter_mut().zip(grad) {
                    *value = kept * lambda * grad;
                }
            }
        }
    }
}

/// One head's gradients inside the chunk.
fn head_gradients(
    piece: Piece<'_>,
    grad_o: Part<'_>,
    head: usize,
    grads: &mut Gradients<'_>,
    scratch: &mut ChunkScratch,
) {
    let Piece { given, block, .. } = piece;
    let (length, width, cols) = (given.length, block.value, block.cols());
    let start = head * width;
    scratch.fill_mixing(given, head);
    let v = Mat::new(&given.v.data[start..], length, width, given.v.stride);
    let grad_o = Mat::new(&grad_o.data[start..], length, width, grad_o.stride);
    let grad_mixing = &mut scratch.grad_mixing[..length * length];
    gemm_serial(grad_mixing, length, grad_o, v.t(), 1.0, 0.0);
    lambda_gradients(
        piece,
        head,
        &scratch.grad_mixing,
        &scratch.mixing,
        grads.lambda,
    );
    weigh(piece, head, &mut scratch.decays);
    weigh(piece, head, &mut scratch.mixing);
    let mixing = Mat::new(&scratch.mixing, length, length, length);
    gemm_serial(&mut grads.v[start..], cols, mixing.t(), grad_o, 1.0, 1.0);
    let mixed = [&scratch.grad_mixing, &scratch.decays, &scratch.mixing].map(Vec::as_slice);
    let logs = &mut scratch.grad_logs[head * length..][..length];
    let products = &mut scratch.grad_products;
    mixing_gradients([1, 1], mixed, &mut scratch.later, products, logs);
}

simd! {
    /// Adds the gradients of one head's factors: `mixing` `[T, T]` is without them.
    fn lambda_gradients(
        piece: Piece<'_>,
        head: usize,
        grad_mixing: &[f32],
        mixing: &[f32],
        grad_lambda: &mut [f32],
    ) {
        let (length, levels) = (piece.given.length, piece.levels);
        for t in 0..length {
            let row = t * length..(t + 1) * length;
            let (grad, mixing) = (&grad_mixing[row.clone()], &mixing[row]);
            let sums = &mut grad_lambda[(t * piece.block.heads + head) * levels..][..levels];
            sums[0] += grad[t] * mixing[t];
            let mut end = piece.at + t as u64;
            while let Some((slot, range)) = piece.slots().next(piece.at, &mut end) {
                let range = columns(piece, range);
                sums[slot + 1] += dot(&grad[range.clone()], &mixing[range]);
            }
        }
    }
}
