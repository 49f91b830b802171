//! The gradients of PaTH attention of one key head and its queries: these are carried back from block to block, and
//! look at the keys of each as they are at its end.

use std::ops::Range;

use super::attend::{Scratch, Unit, shift};
use super::block::{BLOCK, clear, keep_lower, mat};
use crate::engine::operation::Rows;
use crate::gemm::{Mat, gemm_serial};
use crate::ops::attention_tile::{self as tile, Place, add_columns, row_products};
use crate::simd::add_into;

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

/// Gradients of [`attend`](super::attend::attend) from nothing before: `k` `[T, K]` are the keys as they come, `kept` what it has kept, `result`
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
        keep_lower(&mut grad_along, count, false);
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
