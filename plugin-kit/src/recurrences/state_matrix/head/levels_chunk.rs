//! One chunk of one block of heads of a state matrix with levels (arXiv 2506.04761, section 3.2): what its tokens say
//! to each other is that of a state matrix with a factor more, and every slot before it is read as a state of its own.

use std::ops::Range;

use super::chunk::{Block, Given, Logs, Part, Scratch as ChunkScratch, decay_state, grow};
use super::gradients::{mixing_gradients, passed, share_gradients};
use super::levels::CHUNK;
use crate::gemm::{Mat, gemm_serial};
use crate::recurrences::state_matrix::log_linear::Slots;
use crate::simd;
use crate::simd::{add_into, dot};

/// Tokens of a sequence that lie in one chunk, or a part of it.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub given: Given<'a>,
    /// `[T, heads L]`.
    pub lambda: Part<'a>,
    /// L.
    pub levels: usize,
    pub block: Block,
    /// Tokens of the sequence before these.
    pub at: u64,
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub chunk: ChunkScratch,
    /// `[slots, K, cols]`, all 0 while nothing runs.
    slots: Vec<f32>,
    /// `[slots, K, cols]`: gradients of what is in the slots.
    pub grad_slots: Vec<f32>,
    /// `[chunks, heads]`: sums of the logarithms of decays.
    sums: Vec<f64>,
    /// `[K, cols]`: what is in a slot.
    state: Vec<f32>,
}

impl Scratch {
    /// Slots with nothing in them.
    pub fn take_slots(&mut self, values: usize) -> Vec<f32> {
        let mut slots = std::mem::take(&mut self.slots);
        grow(&mut slots, values);
        slots
    }

    /// Gives them back; `held` have something in them.
    pub fn give_slots(&mut self, mut slots: Vec<f32>, held: u64, values: usize) {
        for slot in each(held) {
            slots[slot * values..][..values].fill(0.0);
        }
        self.slots = slots;
    }

    /// Sums the logarithms of decays of each chunk of a sequence.
    pub fn sum_logs(&mut self, all: Piece<'_>) {
        let heads = all.block.heads;
        self.sums.clear();
        let Logs::Given(logs) = all.given.logs else {
            return;
        };
        for start in (0..all.given.length).step_by(CHUNK) {
            let tokens = start..(start + CHUNK).min(all.given.length);
            let sum = |head: usize| {
                tokens
                    .clone()
                    .map(|t| f64::from(logs.row(t, heads)[head]))
                    .sum::<f64>()
            };
            self.sums.extend((0..heads).map(sum));
        }
    }
}

/// The slots of a set.
fn each(held: u64) -> impl DoubleEndedIterator<Item = usize> {
    (0..u64::BITS as usize).filter(move |slot| held >> slot & 1 == 1)
}

/// The slots that have anything once tokens `from..to` are read.
pub(super) fn held_after(slots: Slots, held: u64, from: u64, to: u64) -> u64 {
    let target = slots.taking_up(from, to);
    let lower = (1 << target) - 1;
    let moved = if held & lower == 0 { 0 } else { 1 << target };
    let new = slots
        .ranges(from, to)
        .fold(0, |new, (slot, _)| new | 1 << slot);
    held & !lower | moved | new
}

/// Writes o `[T, cols]` of tokens that see what is in the slots `[slots, K, cols]`; `held` are those with anything.
pub(super) fn forward(
    piece: Piece<'_>,
    slots: &[f32],
    held: u64,
    o: &mut [f32],
    scratch: &mut ChunkScratch,
) {
    let Piece { given, block, .. } = piece;
    let (length, cols, key) = (given.length, block.cols(), block.key);
    scratch.begin(block, given, &[]);
    let q = given.q.mat(length, key);
    let o = &mut o[..length * cols];
    o.fill(0.0);
    for slot in each(held) {
        let state = &slots[slot * block.state_values()..][..block.state_values()];
        let read = &mut scratch.read[..length * cols];
        gemm_serial(read, cols, q, Mat::new(state, key, cols, cols), 1.0, 0.0);
        add_read(piece, slot, &scratch.kept, read, o);
    }
    for head in 0..block.heads {
        scratch.fill_mixing(given, head);
        weigh(piece, head, &mut scratch.mixing);
        let start = head * block.value;
        let mixing = Mat::new(&scratch.mixing, length, length, length);
        let v = Mat::new(&given.v.data[start..], length, block.value, given.v.stride);
        gemm_serial(&mut o[start..], cols, mixing, v, 1.0, 1.0);
    }
}

impl Piece<'_> {
    fn slots(self) -> Slots {
        Slots {
            count: self.levels - 1,
        }
    }

    /// A head's factor of a level.
    #[inline(always)]
    fn lambda(self, t: usize, head: usize, level: usize) -> f32 {
        self.lambda.row(t, self.block.heads * self.levels)[head * self.levels + level]
    }

    /// The level at which token t sees what was in a slot before the piece.
    #[inline(always)]
    fn level(self, t: usize, slot: usize) -> usize {
        slot.max(self.slots().taking_up(self.at, self.at + t as u64)) + 1
    }

    /// Brings the slots from before these tokens to after them, once [`forward`] has run; the slot of the latest.
    pub fn advance(self, slots: &mut [f32], held: &mut u64, scratch: &mut ChunkScratch) -> usize {
        let (block, length) = (self.block, self.given.length);
        let (values, cols, key) = (block.state_values(), block.cols(), block.key);
        let to = self.at + length as u64;
        let target = self.slots().taking_up(self.at, to);
        for slot in each(*held) {
            decay_state(
                block,
                length,
                &scratch.kept,
                &mut slots[slot * values..][..values],
            );
        }
        let (lower, rest) = slots.split_at_mut(target * values);
        for slot in each(*held).filter(|&slot| slot < target) {
            let moved = &mut lower[slot * values..][..values];
            add_into(&mut rest[..values], moved);
            moved.fill(0.0);
        }
        let mut newest = None;
        for (slot, range) in self.slots().ranges(self.at, to) {
            newest = newest.or(Some(slot));
            let start = (range.start - self.at) as usize;
            let count = (range.end - range.start) as usize;
            let k = Mat::new(
                &self.given.k.data[start * self.given.k.stride..],
                count,
                key,
                self.given.k.stride,
            );
            let scaled = Mat::new(&scratch.scaled[start * cols..], count, cols, cols);
            gemm_serial(
                &mut slots[slot * values..][..values],
                cols,
                k.t(),
                scaled,
                1.0,
                1.0,
            );
        }
        *held = held_after(self.slots(), *held, self.at, to);
        newest.unwrap_or(target)
    }
}

simd! {
    /// Adds what a slot says, Q S in `read`, decayed and times its factor.
    fn add_read(piece: Piece<'_>, slot: usize, kept: &[f32], read: &[f32], o: &mut [f32]) {
        let (length, cols, width) = (piece.given.length, piece.block.cols(), piece.block.value);
        for (t, (o, read)) in o.chunks_exact_mut(cols).zip(read.chunks_exact(cols)).enumerate() {
            let level = piece.level(t, slot);
            let heads = o.chunks_exact_mut(width).zip(read.chunks_exact(width));
            for (head, (o, read)) in heads.enumerate() {
                let factor = kept[head * length + t] * piece.lambda(t, head, level);
                for (o, read) in o.iter_mut().zip(read) {
                    *o = read.mul_add(factor, *o);
                }
            }
        }
    }
}

simd! {
    /// Multiplies what token s is to token t, `[T, T]`, by the factors.
    fn weigh(piece: Piece<'_>, head: usize, matrix: &mut [f32]) {
        let length = piece.given.length;
        for (t, row) in matrix.chunks_exact_mut(length).take(length).enumerate() {
            row[t] *= piece.lambda(t, head, 0);
            let mut end = piece.at + t as u64;
            while let Some((slot, range)) = piece.slots().next(piece.at, &mut end) {
                let factor = piece.lambda(t, head, slot + 1);
                for value in &mut row[columns(piece, range)] {
                    *value *= factor;
                }
            }
        }
    }
}

#[inline(always)]
fn columns(piece: Piece<'_>, range: Range<u64>) -> Range<usize> {
    (range.start - piece.at) as usize..(range.end - piece.at) as usize
}

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
