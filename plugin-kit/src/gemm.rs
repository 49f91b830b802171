//! Matrix products on float32, by the `gemm` crate, and of factors rounded to bfloat16 where the thread holds
//! that [`Precision`]. This is the one place that hands the crate pointers; every call checks its sizes first.
//! Large products are cut into fixed panels, so that the result does not depend on the number of threads.

use crate::gemv::{Lines, bf16_dots, combine, dots, outer};
use crate::precision::Precision;
use crate::units::{cut, for_each_unit};

mod bf16;
mod tile;

pub use bf16::{Form, forms};

/// A matrix in a slice: element (i, j) is at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Rows of `cols` contiguous values, `stride` apart.
    ///
    /// # Panics
    /// If the slice is too short.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len(),
            "a matrix of {rows} rows of {cols}, {stride} apart, needs more than {} values",
            data.len()
        );
        Self {
            data,
            rows,
            cols,
            row_stride: stride,
            col_stride: 1,
        }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    fn columns(self, start: usize, cols: usize) -> Self {
        Self {
            data: &self.data[start * self.col_stride..],
            cols,
            ..self
        }
    }

    fn row_range(self, start: usize, rows: usize) -> Self {
        Self {
            data: &self.data[start * self.row_stride..],
            rows,
            ..self
        }
    }
}

/// Multiplications in a panel: large enough to make dispatch negligible.
const PANEL_MULTIPLICATIONS: usize = 1 << 22;

/// Rows of a panel from which on packing b, which every panel does anew, is negligible.
const PANEL_ROWS: usize = 256;

/// Panels that a product has at least, where its rows allow, for threads to share.
const PANELS: usize = 4;

/// Outputs of one row that a thread computes at a time at least, where the product has one row only.
const OUTPUTS: usize = 64;

/// Pieces that the outputs of one row are cut into at most.
const PIECES: usize = 16;

/// `c = beta c + alpha a b`, c being `[a.rows, b.cols]` with rows `stride` apart. With `beta` 0 the
/// old content of c is not read.
///
/// # Panics
/// If the sizes do not fit.
pub fn gemm(c: &mut [f32], stride: usize, a: Mat<'_>, b: Mat<'_>, alpha: f32, beta: f32) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "inner sizes differ");
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        stride >= n && (m - 1) * stride + n <= c.len(),
        "the product does not fit its place"
    );
    let precision = Precision::held();
    if m == 1 && b.row_stride == 1 && n >= 2 * OUTPUTS {
        let outputs = n.div_ceil(PIECES).max(OUTPUTS).next_multiple_of(16);
        for_each_unit(outputs * k, cut(&mut c[..n], outputs), |index, c| {
            let start = index * outputs;
            let b = b.columns(start, c.len());
            single(c, c.len(), a, b, alpha, beta, precision);
        });
        return;
    }
    let panel = panel_rows(m, n * k);
    if m <= panel + panel / 2 {
        single(c, stride, a, b, alpha, beta, precision);
        return;
    }
    if precision == Precision::Bf16 {
        return bf16::product(c, stride, a, b, alpha, beta, panel);
    }
    let cost = panel * n * k;
    for_each_unit(cost, cut(c, panel * stride), |index, c| {
        let start = index * panel;
        if start < m {
            let rows = panel.min(m - start);
            let a = a.row_range(start, rows);
            single(c, stride, a, b, alpha, beta, precision);
        }
    });
}

/// Rows of a panel of a product of `m` rows, each of `cost` multiplications. Panels do not depend on the
/// number of threads, so results do not either.
fn panel_rows(m: usize, cost: usize) -> usize {
    let dispatched = (PANEL_MULTIPLICATIONS / cost.max(1)).clamp(32, 4096);
    let packed = m.div_ceil(PANELS).min(PANEL_ROWS);
    dispatched.max(packed).next_multiple_of(32)
}

/// [`gemm()`] on the calling thread only: for products inside work that is already parallel, and above
/// all while a thread's scratch is borrowed, when a stolen piece of other work would want it too.
///
/// # Panics
/// If the sizes do not fit.
pub fn gemm_serial(c: &mut [f32], stride: usize, a: Mat<'_>, b: Mat<'_>, alpha: f32, beta: f32) {
    assert_eq!(a.cols, b.rows, "inner sizes differ");
    assert!(stride >= b.cols, "the product does not fit its place");
    if a.rows > 0 && b.cols > 0 {
        single(c, stride, a, b, alpha, beta, Precision::held());
    }
}

/// One product on the calling thread; neither side of it is empty.
fn single(
    c: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    alpha: f32,
    beta: f32,
    precision: Precision,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let is_bf16 = precision == Precision::Bf16;
    assert!(
        (m - 1) * stride + n <= c.len(),
        "the product does not fit its place"
    );
    if m == 1 && a.col_stride == 1 {
        let (x, c) = (&a.data[..k], &mut c[..n]);
        let lines = |length, stride| Lines {
            data: b.data,
            length,
            stride,
        };
        if b.row_stride == 1 {
            let dots = if is_bf16 { bf16_dots } else { dots };
            return dots(lines(k, b.col_stride), x, alpha, beta, c);
        }
        if b.col_stride == 1 && !is_bf16 {
            return combine(lines(n, b.row_stride), x, alpha, beta, c);
        }
    }
    if is_bf16 {
        return bf16::product(c, stride, a, b, alpha, beta, m);
    }
    if k == 1 && b.col_stride == 1 {
        let c = &mut c[..(m - 1) * stride + n];
        return outer(a.data, a.row_stride, &b.data[..n], alpha, beta, c, stride);
    }
    // SAFETY: all three matrices lie inside their slices: c by the assertion above, a and b because
    // `Mat::new` checked them and `t` and `row_range` only name elements of the same set. c is
    // borrowed exclusively, so nothing aliases it.
    unsafe {
        ::gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            beta != 0.0,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            beta,
            alpha,
            false,
            false,
            false,
            ::gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 37 + seed * 11) % 23) as f32 / 8.0 - 1.0)
            .collect()
    }

    #[test]
    fn products_of_every_form_are_the_sums_of_products() {
        let shapes = [
            (1, 5, 3),
            (1, 130, 128),
            (1, 67, 70),
            (7, 9, 1),
            (5, 1, 4),
            (1, 1, 1),
            (1, 4, 0),
            (70, 33, 20),
        ];
        for (m, n, k) in shapes {
            for (turn_a, turn_b, beta) in [
                (false, false, 0.0),
                (false, true, 1.0),
                (true, false, 2.0),
                (true, true, 0.0),
            ] {
                let (a, b) = (values(m * k, 1), values(k * n, 2));
                let a_mat = if turn_a {
                    Mat::new(&a, k, m, m).t()
                } else {
                    Mat::new(&a, m, k, k)
                };
                let b_mat = if turn_b {
                    Mat::new(&b, n, k, k).t()
                } else {
                    Mat::new(&b, k, n, n)
                };
                let stride = n + 2;
                let old = values(m * stride, 3);
                let mut c = old.clone();
                if beta == 0.0 {
                    c.fill(f32::NAN);
                }
                gemm(&mut c, stride, a_mat, b_mat, 0.5, beta);
                for i in 0..m {
                    for j in 0..n {
                        let at = |l: usize| {
                            let a = if turn_a { a[l * m + i] } else { a[i * k + l] };
                            let b = if turn_b { b[j * k + l] } else { b[l * n + j] };
                            f64::from(a) * f64::from(b)
                        };
                        let old = f64::from(old[i * stride + j]) * f64::from(beta);
                        let want = 0.5 * (0..k).map(at).sum::<f64>() + old;
                        let got = f64::from(c[i * stride + j]);
                        assert!(
                            (got - want).abs() < 1e-4,
                            "{m} x {n} x {k} at ({i}, {j}): {got}, not {want}"
                        );
                    }
                }
            }
        }
    }
}
