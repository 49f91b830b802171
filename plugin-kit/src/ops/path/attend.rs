//! PaTH attention of one key head and its queries, block by block. Going forward all keys are turned by each block once
//! its queries have looked at them; the gradients carry the queries back instead, so that every block's keys are
//! those that [`attend`] has kept.

use std::ops::Range;

use super::block::{BLOCK, Block, BlockGrads, mat};
use crate::engine::operation::Rows;
use crate::gemm::{Mat, gemm_serial};
use crate::ops::attention::HeadSpec;
use crate::ops::attention_tile::{KEYS, KeyBiases, Place, finish, soften};
use crate::simd::add_into;

/// What a key head and its queries read, from a row's first token on.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    /// `[T, K]` of the first query head; the others follow.
    pub q: Rows<'a>,
    /// `[T, K]`.
    pub w: Rows<'a>,
    /// `[T, 1]`.
    pub beta: Rows<'a>,
    /// `[keys, K]`, of keys from before too.
    pub v: Rows<'a>,
    /// `[keys, group]` each: the parts of what is added to their logits.
    pub bias: Option<[Rows<'a>; 2]>,
    /// Query heads.
    pub group: usize,
    /// K.
    pub width: usize,
    /// Factor on the products.
    pub scale: f32,
}

/// A matrix that begins some columns later.
pub(super) fn shift(rows: Rows<'_>, columns: usize) -> Rows<'_> {
    Rows {
        data: &rows.data[columns.min(rows.data.len())..],
        ..rows
    }
}

impl<'a> Unit<'a> {
    pub fn q(&self, member: usize, start: usize, count: usize) -> Mat<'a> {
        let q = shift(self.q.from_row(start), member * self.width);
        Mat::new(q.data, count, self.width, q.stride)
    }

    pub fn v(&self, keys: &Range<usize>) -> Mat<'a> {
        let v = self.v.from_row(keys.start);
        Mat::new(v.data, keys.len(), self.width, v.stride)
    }

    pub fn read_bias(&self, to: &mut Vec<[f32; 2]>, member: usize, keys: Range<usize>) {
        let bias = self.bias.map(|parts| parts.map(|rows| shift(rows, member)));
        KeyBiases::read(to, bias, keys);
    }

    pub fn spec(&self) -> HeadSpec {
        HeadSpec {
            window: usize::MAX,
            slope: 0.0,
            scale: self.scale,
        }
    }
}

/// Room for what the gradients need of a block.
pub(super) struct Kept<'a> {
    /// `[T, K]`: keys turned to the end of their block.
    pub turned: &'a mut [f32],
    /// `[blocks, K, K]`: what blocks turn by.
    pub products: &'a mut [f32],
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub block: Block,
    pub grads: BlockGrads,
    /// `[c, c]`: `tril(Q Wᵀ)`.
    pub along: Vec<f32>,
    /// `[group, c, K]`: queries as they look at keys from before the block.
    pub carried: Vec<f32>,
    /// `[c, KEYS]`: logits, then probabilities.
    pub logits: Vec<f32>,
    /// `[c, KEYS]`: their gradient.
    pub slopes: Vec<f32>,
    /// `[group, c]`: running maxima, or each query's `grad_y . y`.
    pub tops: Vec<f32>,
    /// `[K, K]`, or `[c, keys]`.
    pub turn: Vec<f32>,
    /// `[keys, K]`.
    pub moved: Vec<f32>,
    /// `[blocks, c, K]`: a head's queries as they look at each block before.
    pub chain: Vec<f32>,
    /// `[c, K]`: gradient of the queries on their way.
    pub back: Vec<f32>,
    /// `[c, K]`.
    pub next: Vec<f32>,
    /// `[T, K]`: of the keys at the end of their blocks.
    pub grad_turned: Vec<f32>,
    /// `[blocks, K, K]`: of what blocks turn by.
    pub grad_products: Vec<f32>,
    pub own: Vec<[f32; 2]>,
    pub keys: Vec<[f32; 2]>,
}

/// Attention of the last `length` of the tokens whose keys are given, in rows `stride` apart: those of earlier tokens
/// turned up to these, those of these as they come; they are left turned to the end. `out` is `[group, T, K]`, the
/// logarithms of the sums `[group, T]`. With `kept` no query follows.
pub(super) fn attend(
    unit: &Unit<'_>,
    (keys, stride): (&mut [f32], usize),
    length: usize,
    out: &mut [f32],
    log_sums: &mut [f32],
    mut kept: Option<Kept<'_>>,
    scratch: &mut Scratch,
) {
    let (width, group) = (unit.width, unit.group);
    let past = unit_keys(keys.len(), stride, width) - length;
    for start in (0..length).step_by(BLOCK) {
        let count = BLOCK.min(length - start);
        let first = past + start;
        let own = Rows {
            data: &keys[first * stride..],
            cols: width,
            stride,
        };
        let (w, beta) = (unit.w.from_row(start), unit.beta.from_row(start));
        scratch.block.read(w, beta, own, count);
        scratch.room(group);
        let places = out
            .chunks_exact_mut(length * width)
            .zip(log_sums.chunks_exact_mut(length));
        for (member, (out, sums)) in places.enumerate() {
            let out = &mut out[start * width..][..count * width];
            let sums = &mut sums[start..][..count];
            out.fill(0.0);
            sums.fill(0.0);
            scratch.ask(unit, member, start);
            scratch.mix(unit, member, first, first..first + count, sums, out);
        }
        let follows = kept.is_none() || start + count < length;
        scratch.prepare_turn(follows, first > 0);
        for tile in (0..first).step_by(KEYS) {
            let range = tile..(tile + KEYS).min(first);
            let tile = &mut keys[range.start * stride..];
            let places = out
                .chunks_exact_mut(length * width)
                .zip(log_sums.chunks_exact_mut(length));
            for (member, (out, sums)) in places.enumerate() {
                let out = &mut out[start * width..][..count * width];
                let carried = &scratch.carried[member * count * width..];
                let logits = &mut scratch.logits[..count * range.len()];
                let k = Mat::new(tile, range.len(), width, stride);
                gemm_serial(
                    logits,
                    range.len(),
                    mat(carried, count, width),
                    k.t(),
                    unit.scale,
                    0.0,
                );
                scratch.mix(
                    unit,
                    member,
                    first,
                    range.clone(),
                    &mut sums[start..][..count],
                    out,
                );
            }
            if follows {
                scratch.turn(tile, stride, range.len());
            }
        }
        let own = &mut keys[first * stride..];
        scratch.block.turn_own(own, stride);
        if let Some(kept) = &mut kept {
            kept.turned[start * width..][..count * width].copy_from_slice(&own[..count * width]);
            let product = &mut kept.products[start / BLOCK * width * width..];
            scratch.block.product(&mut product[..width * width]);
        }
        let places = out
            .chunks_exact_mut(length * width)
            .zip(log_sums.chunks_exact_mut(length));
        for ((out, sums), tops) in places.zip(scratch.tops.chunks_exact(count)) {
            let out = &mut out[start * width..][..count * width];
            finish(out, tops, &mut sums[start..][..count], width);
        }
    }
}

/// Keys in a buffer whose last row may be shorter than the distance of rows.
fn unit_keys(values: usize, stride: usize, width: usize) -> usize {
    (values + stride - width) / stride
}

impl Scratch {
    pub fn room(&mut self, group: usize) {
        let (count, width) = (self.block.count, self.block.width);
        for (buffer, values) in [
            (&mut self.along, count * count),
            (&mut self.carried, group * count * width),
            (&mut self.logits, count * KEYS),
            (&mut self.slopes, count * KEYS),
            (&mut self.turn, count.max(width) * KEYS.max(width)),
            (&mut self.moved, KEYS * width),
            (&mut self.back, count * width),
            (&mut self.next, count * width),
        ] {
            if buffer.len() < values {
                buffer.resize(values, 0.0);
            }
        }
        self.tops.clear();
        self.tops.resize(group * count, f32::NEG_INFINITY);
    }

    /// Queries of a head: `tril(Q Wᵀ)`, their carried form, and the logits of the block's own keys.
    pub fn ask(&mut self, unit: &Unit<'_>, member: usize, start: usize) {
        let (count, width) = (self.block.count, self.block.width);
        let carried = &mut self.carried[member * count * width..][..count * width];
        let q = shift(unit.q.from_row(start), member * width);
        for (t, place) in carried.chunks_exact_mut(width).enumerate() {
            place.copy_from_slice(q.row(t));
        }
        let along = &mut self.along[..count * count];
        let logits = &mut self.logits[..count * count];
        let q = unit.q(member, start, count);
        self.block.ask(q, unit.scale, [along, carried, logits]);
    }

    /// Softens the logits of some keys and adds what they say; the first query stands at key `first`.
    fn mix(
        &mut self,
        unit: &Unit<'_>,
        member: usize,
        first: usize,
        keys: Range<usize>,
        sums: &mut [f32],
        out: &mut [f32],
    ) {
        let (count, width) = (self.block.count, self.block.width);
        let logits = &mut self.logits[..count * keys.len()];
        unit.read_bias(&mut self.own, member, first..first + count);
        unit.read_bias(&mut self.keys, member, keys.clone());
        let place = Place {
            query: first,
            key: keys.start,
            keys: keys.len(),
        };
        let tops = &mut self.tops[member * count..][..count];
        let biases = (&self.keys[..], &self.own[..]);
        soften(
            logits,
            place,
            usize::MAX,
            0.0,
            biases,
            tops,
            sums,
            out,
            width,
        );
        let probabilities = mat(logits, count, keys.len());
        gemm_serial(out, width, probabilities, unit.v(&keys), 1.0, 1.0);
    }

    /// Whether keys are turned by one product or by two that are smaller.
    fn turns_at_once(&self) -> bool {
        2 * self.block.count >= self.block.width
    }

    fn prepare_turn(&mut self, follows: bool, has_keys: bool) {
        if follows && has_keys && self.turns_at_once() {
            let width = self.block.width;
            self.block.product(&mut self.turn[..width * width]);
        }
    }

    /// Turns keys from before the block, `K - K Gᵀ` or `K - (K Fᵀ) W`.
    fn turn(&mut self, keys: &mut [f32], stride: usize, many: usize) {
        let (count, width) = (self.block.count, self.block.width);
        let k = Mat::new(keys, many, width, stride);
        if !self.turns_at_once() {
            let along = &mut self.turn[..count * many];
            gemm_serial(along, many, self.block.f(), k.t(), 1.0, 0.0);
            let along = mat(&self.turn, count, many);
            return gemm_serial(keys, stride, along.t(), self.block.w(), -1.0, 1.0);
        }
        let moved = &mut self.moved[..many * width];
        let product = mat(&self.turn, width, width);
        gemm_serial(moved, width, k, product.t(), -1.0, 0.0);
        for (key, moved) in keys.chunks_mut(stride).zip(moved.chunks_exact(width)) {
            add_into(&mut key[..width], moved);
        }
    }
}
