//! Products with one row or one column, as single steps need them. They are bound by reading the matrix
//! once, so they pack nothing.

use crate::simd::{LANES, dot, fold};

/// A matrix in a slice: line i is `length` contiguous values from `i * stride` on.
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    pub data: &'a [f32],
    pub length: usize,
    pub stride: usize,
}

impl<'a> Lines<'a> {
    /// The matrix from a line on.
    #[inline(always)]
    pub(crate) fn skip(self, lines: usize) -> Self {
        Self {
            data: &self.data[(lines * self.stride).min(self.data.len())..],
            ..self
        }
    }

    #[inline(always)]
    fn line(self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.length]
    }
}

crate::simd! {
    /// `c[i] = beta c[i] + alpha x line(i)`. With `beta` 0 the old content of c is not read.
    pub(crate) fn dots(lines: Lines<'_>, x: &[f32], alpha: f32, beta: f32, c: &mut [f32]) {
        let (groups, rest) = c.as_chunks_mut::<4>();
        let mut ahead = lines;
        for c in groups {
            let sums = four_dots(ahead, x);
            for i in 0..4 {
                let old = if beta == 0.0 { 0.0 } else { beta * c[i] };
                c[i] = alpha.mul_add(sums[i], old);
            }
            ahead = ahead.skip(4);
        }
        for (index, c) in rest.iter_mut().enumerate() {
            let old = if beta == 0.0 { 0.0 } else { beta * *c };
            *c = alpha.mul_add(dot(ahead.line(index), x), old);
        }
    }
}

/// Products of the first four lines with x.
#[inline(always)]
fn four_dots(lines: Lines<'_>, x: &[f32]) -> [f32; 4] {
    let (a, a_rest) = lines.line(0).as_chunks::<LANES>();
    let (b, b_rest) = lines.line(1).as_chunks::<LANES>();
    let (c, c_rest) = lines.line(2).as_chunks::<LANES>();
    let (d, d_rest) = lines.line(3).as_chunks::<LANES>();
    let (x, x_rest) = x.as_chunks::<LANES>();
    // Four variables, not an array of four, so that they stay in registers.
    let (mut a_sums, mut b_sums) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (mut c_sums, mut d_sums) = ([0.0f32; LANES], [0.0f32; LANES]);
    for ((((x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
        for lane in 0..LANES {
            a_sums[lane] += a[lane] * x[lane];
            b_sums[lane] += b[lane] * x[lane];
            c_sums[lane] += c[lane] * x[lane];
            d_sums[lane] += d[lane] * x[lane];
        }
    }
    let mut sums = [fold(a_sums), fold(b_sums), fold(c_sums), fold(d_sums)];
    for (index, x) in x_rest.iter().enumerate() {
        sums[0] += a_rest[index] * x;
        sums[1] += b_rest[index] * x;
        sums[2] += c_rest[index] * x;
        sums[3] += d_rest[index] * x;
    }
    sums
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
fn mix(old: f32, beta: f32, new: f32) -> f32 {
    if beta == 0.0 { new } else { beta * old + new }
}
