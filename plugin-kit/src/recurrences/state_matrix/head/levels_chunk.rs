//! One chunk of one block of heads of a state matrix with levels (arXiv 2506.04761, section 3.2): what its tokens say
//! to each other is that of a state matrix with a factor more, and every slot before it is read as a state of its own.

use std::ops::Range;

use super::chunk::{Block, Given, Logs, Part, Scratch as ChunkScratch, decay_state, grow};
use super::levels::CHUNK;
use crate::gemm::{Mat, gemm_serial};
use crate::recurrences::state_matrix::log_linear::Slots;
use crate::simd;
use crate::simd::add_into;

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
    pub sums: Vec<f64>,
    /// `[K, cols]`: what is in a slot.
    pub state: Vec<f32>,
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
pub(super) fn each(held: u64) -> impl DoubleEndedIterator<Item = usize> {
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
    pub fn slots(self) -> Slots {
        Slots {
            count: self.levels - 1,
        }
    }

    /// A head's factor of a level.
    #[inline(always)]
    pub fn lambda(self, t: usize, head: usize, level: usize) -> f32 {
        self.lambda.row(t, self.block.heads * self.levels)[head * self.levels + level]
    }

    /// The level at which token t sees what was in a slot before the piece.
    #[inline(always)]
    pub fn level(self, t: usize, slot: usize) -> usize {
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
    pub(super) fn weigh(piece: Piece<'_>, head: usize, matrix: &mut [f32]) {
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
pub(super) fn columns(piece: Piece<'_>, range: Range<u64>) -> Range<usize> {
    (range.start - piece.at) as usize..(range.end - piece.at) as usize
}
