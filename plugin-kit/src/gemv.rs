//! Products with one row or one column, as single steps need them. They are bound by reading the matrix
//! once, so they pack nothing.

use crate::precision::Precision;
use crate::simd::{LANES, dot, fold, sum2};

/// A matrix in a slice: line i is `length` contiguous values from `i * stride` on.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub data: &'a [f32],
    pub length: usize,
    pub stride: usize,
}

impl<'a> Lines<'a> {
    #[inline(always)]
    fn line(self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.length]
    }
}

crate::simd! {
    /// `c[i] = beta c[i] + alpha x line(i)`. With `beta` 0 the old content of c is not read.
    pub(crate) fn dots(lines: Lines<'_>, x: &[f32], alpha: f32, beta: f32, c: &mut [f32]) {
        for (index, c) in c.iter_mut().enumerate() {
            *c = mix(*c, beta, alpha * wide_dot(lines.line(index), x));
        }
    }
}

crate::simd! {
    /// [`dots`] of factors rounded to bfloat16, which takes longer than to add their products.
    pub(crate) fn bf16_dots(lines: Lines<'_>, x: &[f32], alpha: f32, beta: f32, c: &mut [f32]) {
        let factor = |value| Precision::Bf16.round(value);
        for (index, c) in c.iter_mut().enumerate() {
            let sum = sum2(lines.line(index), x, |a, b| factor(a) * factor(b));
            *c = mix(*c, beta, alpha * sum);
        }
    }
}

/// [`dot`] with four sums in flight.
#[inline(always)]
fn wide_dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<{ 4 * LANES }>();
    let (b_blocks, b_rest) = b.as_chunks::<{ 4 * LANES }>();
    // Four variables, not an array of four, so that they stay in registers.
    let (mut first, mut second) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (mut third, mut fourth) = ([0.0f32; LANES], [0.0f32; LANES]);
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            first[lane] += a[lane] * b[lane];
            second[lane] += a[LANES + lane] * b[LANES + lane];
            third[lane] += a[2 * LANES + lane] * b[2 * LANES + lane];
            fourth[lane] += a[3 * LANES + lane] * b[3 * LANES + lane];
        }
    }
    for lane in 0..LANES {
        first[lane] = (first[lane] + second[lane]) + (third[lane] + fourth[lane]);
    }
    fold(first) + dot(a_rest, b_rest)
}

crate::simd! {
    /// `c = beta c + alpha sum over i of x[i] line(i)`. With `beta` 0 the old content of c is not read.
    pub(crate) fn combine(lines: Lines<'_>, x: &[f32], alpha: f32, beta: f32, c: &mut [f32]) {
        let mut column = 0;
        while column + 2 * LANES <= c.len() {
            let (mut low, mut high) = ([0.0f32; LANES], [0.0f32; LANES]);
            for (i, &x) in x.iter().enumerate() {
                let line = &lines.data[i * lines.stride + column..][..2 * LANES];
                for lane in 0..LANES {
                    low[lane] += x * line[lane];
                    high[lane] += x * line[LANES + lane];
                }
            }
            let c = &mut c[column..column + 2 * LANES];
            for lane in 0..LANES {
                c[lane] = mix(c[lane], beta, alpha * low[lane]);
                c[LANES + lane] = mix(c[LANES + lane], beta, alpha * high[lane]);
            }
            column += 2 * LANES;
        }
        for (column, c) in c.iter_mut().enumerate().skip(column) {
            let terms = x.iter().enumerate();
            let sum: f32 = terms.map(|(i, x)| x * lines.data[i * lines.stride + column]).sum();
            *c = mix(*c, beta, alpha * sum);
        }
    }
}

crate::simd! {
    /// `c = beta c + alpha x yᵀ`, c being lines of y's length, `stride` apart; x is `x_stride` apart. With
    /// `beta` 0 the old content of c is not read.
    pub(crate) fn outer(
        x: &[f32],
        x_stride: usize,
        y: &[f32],
        alpha: f32,
        beta: f32,
        c: &mut [f32],
        stride: usize,
    ) {
        for (i, c) in c.chunks_mut(stride).enumerate() {
            let factor = alpha * x[i * x_stride];
            for (c, y) in c[..y.len()].iter_mut().zip(y) {
                *c = mix(*c, beta, factor * y);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn mix(old: f32, beta: f32, new: f32) -> f32 {
    if beta == 0.0 { new } else { beta * old + new }
}
