//! PaTH attention of one key head and its queries, block by block. Going forward all keys are turned by each block once
//! its queries have looked at them; the gradients carry the queries back instead, so that every block's keys are
//! those that [`attend`] has kept.

use std::ops::Range;

use super::attention::HeadSpec;
use super::attention_tile::{
    self as tile, KEYS, KeyBiases, Place, add_columns, finish, row_products, soften,
};
use super::path_block::{BLOCK, Block, BlockGrads, clear, mat};
use crate::engine::operation::Rows;
use crate::gemm::{Mat, gemm_serial};
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
fn shift(rows: Rows<'_>, columns: usize) -> Rows<'_> {
    Rows {
        data: &rows.data[columns.min(rows.data.len())..],
        ..rows
    }
}

impl<'a> Unit<'a> {
    fn q(&self, member: usize, start: usize, count: usize) -> Mat<'a> {
        let q = shift(self.q.from_row(start), member * self.width);
        Mat::new(q.data, count, self.width, q.stride)
    }

    fn v(&self, keys: &Range<usize>) -> Mat<'a> {
        let v = self.v.from_row(keys.start);
        Mat::new(v.data, keys.len(), self.width, v.stride)
    }

    fn read_bias(&self, to: &mut Vec<[f32; 2]>, member: usize, keys: Range<usize>) {
        let bias = self.bias.map(|parts| parts.map(|rows| shift(rows, member)));
        KeyBiases::read(to, bias, keys);
    }

    fn spec(&self) -> HeadSpec {
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
    block: Block,
    grads: BlockGrads,
    /// `[c, c]`: `tril(Q Wᵀ)`.
    along: Vec<f32>,
    /// `[group, c, K]`: queries as they look at keys from before the block.
    carried: Vec<f32>,
    /// `[c, KEYS]`: logits, then probabilities.
    logits: Vec<f32>,
    /// `[c, KEYS]`: their gradient.
    slopes: Vec<f32>,
    /// `[group, c]`: running maxima, or each query's `grad_y . y`.
    tops: Vec<f32>,
    /// `[K, K]`, or `[c, keys]`.
    turn: Vec<f32>,
    /// `[keys, K]`.
    moved: Vec<f32>,
    /// `[blocks, c, K]`: a head's queries as they look at each block before.
    chain: Vec<f32>,
    /// `[c, K]`: gradient of the queries on their way.
    back: Vec<f32>,
    /// `[c, K]`.
    next: Vec<f32>,
    /// `[T, K]`: of the keys at the end of their blocks.
    grad_turned: Vec<f32>,
    /// `[blocks, K, K]`: of what blocks turn by.
    grad_products: Vec<f32>,
    own: Vec<[f32; 2]>,
    keys: Vec<[f32; 2]>,
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
    fn room(&mut self, group: usize) {
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
    fn ask(&mut self, unit: &Unit<'_>, member: usize, start: usize) {
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

/// Places for the gradients of a key head and its queries, `q` and `bias` `[group, T, ..]`.
pub(super) struct Grads<'a> {
    /// `[group, T, K]`.
    pub q: &'a mut [f32],
    /// `[T, K]`.
    pub k: &'a mut [f32],
    /// `[T, K]`.
    pub v: &'a mut [f32],
    /// `[T, K]`.
    pub w: &'a mut [f32],
    /// `[T]`.
    pub beta: &'a mut [f32],
    /// `[group, T]`, or empty.
    pub bias: &'a mut [f32],
}

/// Gradients of [`attend`] from nothing before: `k` `[T, K]` are the keys as they come, `kept` what it has kept, `result`
/// y and its gradient, `[T, K]` of the first query head.
pub(super) fn differentiate(
    unit: &Unit<'_>,
    k: Rows<'_>,
    kept: [&[f32]; 2],
    result: [Rows<'_>; 2],
    log_sums: &[f32],
    mut grads: Grads<'_>,
    scratch: &mut Scratch,
) {
    let (width, length) = (unit.width, grads.beta.len());
    clear(&mut scratch.grad_turned, kept[0].len());
    clear(&mut scratch.grad_products, kept[1].len());
    grads.v.fill(0.0);
    grads.bias.fill(0.0);
    for start in (0..length).step_by(BLOCK).rev() {
        let count = BLOCK.min(length - start);
        let (w, beta) = (unit.w.from_row(start), unit.beta.from_row(start));
        scratch.block.read(w, beta, k.from_row(start), count);
        scratch.room(unit.group);
        scratch.block.start(&mut scratch.grads);
        for member in 0..unit.group {
            let result = result.map(|rows| shift(rows.from_row(start), member * width));
            let sums = &log_sums[member * length + start..][..count];
            scratch.head(unit, member, start, kept, result, sums, &mut grads);
        }
        let turned = &scratch.grad_turned[start * width..][..count * width];
        let product = &scratch.grad_products[start / BLOCK * width * width..][..width * width];
        add_into(&mut scratch.grads.k, turned);
        scratch.block.finish(turned, product, &mut scratch.grads);
        grads.k[start * width..][..count * width].copy_from_slice(&scratch.grads.k);
        grads.w[start * width..][..count * width].copy_from_slice(&scratch.grads.w);
        grads.beta[start..][..count].copy_from_slice(&scratch.grads.beta);
    }
}

impl Scratch {
    /// The gradients of a block of one head's queries.
    #[allow(clippy::too_many_arguments)] // plain matrices and sizes of one inner call
    fn head(
        &mut self,
        unit: &Unit<'_>,
        member: usize,
        start: usize,
        kept: [&[f32]; 2],
        [y, grad_y]: [Rows<'_>; 2],
        log_sums: &[f32],
        grads: &mut Grads<'_>,
    ) {
        let (count, width) = (self.block.count, unit.width);
        let size = count * width;
        self.ask(unit, member, start);
        row_products(grad_y, y, &mut self.tops[member * count..][..count]);
        let grad_y = Mat::new(grad_y.data, count, width, grad_y.stride);
        // The block's own keys: logits `tril(Q Kᵀ) - along E`.
        self.slope(
            unit,
            member,
            start,
            start..start + count,
            grad_y,
            log_sums,
            grads,
        );
        let slopes = mat(&self.slopes, count, count);
        let q = unit.q(member, start, count);
        let grad_q = &mut grads.q[(member * grads.beta.len() + start) * width..][..size];
        gemm_serial(grad_q, width, slopes, self.block.k(), 1.0, 0.0);
        gemm_serial(&mut self.grads.k, width, slopes.t(), q, 1.0, 1.0);
        let along = mat(&self.along, count, count);
        gemm_serial(&mut self.grads.e, count, along.t(), slopes, -1.0, 1.0);
        let mut grad_along = std::mem::take(&mut self.turn);
        gemm_serial(
            &mut grad_along,
            count,
            slopes,
            self.block.e().t(),
            -1.0,
            0.0,
        );
        // Earlier keys: the queries `Q - along F`.
        if start > 0 {
            self.walk(unit, member, start, kept, grad_y, log_sums, grads);
            let back = mat(&self.back, count, width);
            let grad_q = &mut grads.q[(member * grads.beta.len() + start) * width..][..size];
            add_into(grad_q, &self.back[..size]);
            gemm_serial(&mut grad_along, count, back, self.block.f().t(), -1.0, 1.0);
            let along = mat(&self.along, count, count);
            gemm_serial(&mut self.grads.f, width, along.t(), back, -1.0, 1.0);
        }
        super::path_block::keep_lower(&mut grad_along, count, false);
        let grad_q = &mut grads.q[(member * grads.beta.len() + start) * width..][..size];
        let lower = mat(&grad_along, count, count);
        gemm_serial(grad_q, width, lower, self.block.w(), 1.0, 1.0);
        gemm_serial(&mut self.grads.w, width, lower.t(), q, 1.0, 1.0);
        self.turn = grad_along;
    }

    /// Logits of some keys become probabilities, and `slopes` the gradient of the products before scaling; adds to those
    /// of values and biases.
    #[allow(clippy::too_many_arguments)] // plain matrices and sizes of one inner call
    fn slope(
        &mut self,
        unit: &Unit<'_>,
        member: usize,
        first: usize,
        keys: Range<usize>,
        grad_y: Mat<'_>,
        log_sums: &[f32],
        grads: &mut Grads<'_>,
    ) {
        let (count, width, many) = (self.block.count, unit.width, keys.len());
        let logits = &mut self.logits[..count * many];
        let slopes = &mut self.slopes[..count * many];
        gemm_serial(slopes, many, grad_y, unit.v(&keys).t(), 1.0, 0.0);
        unit.read_bias(&mut self.own, member, first..first + count);
        unit.read_bias(&mut self.keys, member, keys.clone());
        let place = Place {
            query: first,
            key: keys.start,
            keys: many,
        };
        let inner = &self.tops[member * count..][..count];
        let biases = (&self.keys[..], &self.own[..]);
        tile::differentiate(logits, slopes, place, unit.spec(), biases, log_sums, inner);
        if !grads.bias.is_empty() {
            let sums = &mut grads.bias[member * grads.beta.len()..][keys.clone()];
            add_columns(slopes, 1.0 / unit.scale, sums);
        }
        let grad_v = &mut grads.v[keys.start * width..][..many * width];
        gemm_serial(
            grad_v,
            width,
            mat(logits, count, many).t(),
            grad_y,
            1.0,
            1.0,
        );
    }

    /// Earlier blocks, to which the queries are carried one by one; leaves the gradient of the queries at the first
    /// of them in `back`.
    #[allow(clippy::too_many_arguments)] // plain matrices and sizes of one inner call
    fn walk(
        &mut self,
        unit: &Unit<'_>,
        member: usize,
        start: usize,
        [turned, products]: [&[f32]; 2],
        grad_y: Mat<'_>,
        log_sums: &[f32],
        grads: &mut Grads<'_>,
    ) {
        let (count, width) = (self.block.count, unit.width);
        let (size, square, blocks) = (count * width, width * width, start / BLOCK);
        clear(&mut self.chain, blocks * size);
        let carried = &self.carried[member * size..][..size];
        self.chain[(blocks - 1) * size..].copy_from_slice(carried);
        for block in (1..blocks).rev() {
            let (earlier, later) = self.chain.split_at_mut(block * size);
            let (to, from) = (&mut earlier[(block - 1) * size..], &later[..size]);
            to.copy_from_slice(from);
            let product = mat(&products[block * square..], width, width);
            gemm_serial(to, width, mat(from, count, width), product, -1.0, 1.0);
        }
        let chain = std::mem::take(&mut self.chain);
        for block in 0..blocks {
            let keys = block * BLOCK..(block + 1) * BLOCK;
            let q = mat(&chain[block * size..], count, width);
            let k = mat(&turned[keys.start * width..], BLOCK, width);
            let logits = &mut self.logits[..count * BLOCK];
            gemm_serial(logits, BLOCK, q, k.t(), unit.scale, 0.0);
            self.slope(unit, member, start, keys.clone(), grad_y, log_sums, grads);
            let slopes = mat(&self.slopes, count, BLOCK);
            let grad_turned = &mut self.grad_turned[keys.start * width..][..BLOCK * width];
            gemm_serial(grad_turned, width, slopes.t(), q, 1.0, 1.0);
            let next = &mut self.next[..size];
            gemm_serial(next, width, slopes, k, 1.0, 0.0);
            if block > 0 {
                // What was carried on from here: `q - q G`.
                let back = mat(&self.back, count, width);
                let product = mat(&products[block * square..], width, width);
                gemm_serial(next, width, back, product.t(), -1.0, 1.0);
                add_into(next, &self.back[..size]);
                let grad = &mut self.grad_products[block * square..][..square];
                gemm_serial(grad, width, q.t(), back, -1.0, 1.0);
            }
            std::mem::swap(&mut self.back, &mut self.next);
        }
        self.chain = chain;
    }
}
