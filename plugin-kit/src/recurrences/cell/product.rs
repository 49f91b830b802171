//! The product of a token's step, a few rows by U: too small for the library of matrix products.

use crate::simd;
use crate::simd::dot;

/// `[outputs, hidden]` to `[hidden, outputs]`.
pub(super) fn transpose(weight: &[f32], transposed: &mut [f32], hidden: usize) {
    const BLOCK: usize = 16;
    let outputs = weight.len() / hidden;
    for first in (0..outputs).step_by(BLOCK) {
        let count = BLOCK.min(outputs - first);
        for k in 0..hidden {
            let target = &mut transposed[k * outputs + first..][..count];
            for (offset, target) in target.iter_mut().enumerate() {
                *target = weight[(first + offset) * hidden + k];
            }
        }
    }
}

simd! {
    /// `y += W h` by rows of W: for a few steps only.
    pub(super) fn add_products(weight: &[f32], h: &[f32], y: &mut [f32]) {
        for (y, weight) in y.iter_mut().zip(weight.chunks_exact(h.len())) {
            *y += dot(weight, h);
        }
    }
}

/// Sizes of a step's product, `out[r] += a[r] w` for every row r.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub rows: usize,
    /// Values of a row of a, and rows of w.
    pub inner: usize,
    /// Columns of w and values of a row of out.
    pub columns: usize,
    pub a_stride: usize,
    /// Distance from row to row of w.
    pub w_stride: usize,
    pub out_stride: usize,
}

/// Columns whose sums are in registers at the same time.
const BLOCK: usize = 32;

simd! {
    /// `out += a w` with w `[inner, columns]`: w is read once for eight rows.
    pub(super) fn add_step_product(a: &[f32], w: &[f32], out: &mut [f32], sizes: Sizes) {
        let mut row = 0;
        while row + 8 <= sizes.rows {
            add_rows::<8>(a, w, out, sizes, row);
            row += 8;
        }
        while row + 4 <= sizes.rows {
            add_rows::<4>(a, w, out, sizes, row);
            row += 4;
        }
        while row < sizes.rows {
            add_rows::<1>(a, w, out, sizes, row);
            row += 1;
        }
    }
}

#[inline(always)]
fn add_rows<const R: usize>(a: &[f32], w: &[f32], out: &mut [f32], sizes: Sizes, row: usize) {
    let Sizes {
        inner,
        columns,
        a_stride,
        w_stride,
        out_stride,
        ..
    } = sizes;
    let mut a_rows = [&a[..0]; R];
    for (r, a_row) in a_rows.iter_mut().enumerate() {
        *a_row = &a[(row + r) * a_stride..][..inner];
    }
    let whole = columns / BLOCK * BLOCK;
    for first in (0..whole).step_by(BLOCK) {
        let mut sums = [[0.0f32; BLOCK]; R];
        for k in 0..inner {
            let w: &[f32; BLOCK] = w[k * w_stride + first..][..BLOCK]
                .try_into()
                .expect("a block");
            for r in 0..R {
                let a = a_rows[r][k];
                for c in 0..BLOCK {
                    sums[r][c] = a.mul_add(w[c], sums[r][c]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut out[(row + r) * out_stride + first..][..BLOCK];
            for c in 0..BLOCK {
                out[c] += sums[c];
            }
        }
    }
    for r in 0..R {
        let out = &mut out[(row + r) * out_stride..][..columns];
        for column in whole..columns {
            let mut sum = 0.0f32;
            for (k, a) in a_rows[r].iter().enumerate() {
                sum = a.mul_add(w[k * w_stride + column], sum);
            }
            out[column] += sum;
        }
    }
}
