//! Matrix products on float32, by the `gemm` crate. This is the one place that hands it pointers;
//! every call checks its sizes first. Large products are cut into fixed panels, so that the result
//! does not depend on the number of threads.

use rayon::prelude::*;

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

    fn row_range(self, start: usize, rows: usize) -> Self {
        Self {
            data: &self.data[start * self.row_stride..],
            rows,
            ..self
        }
    }
}

/// Multiplications in a panel: large enough to make packing and dispatch negligible.
const PANEL_MULTIPLICATIONS: usize = 1 << 22;

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
    let panel = (PANEL_MULTIPLICATIONS / (n * k).max(1))
        .clamp(32, 4096)
        .next_multiple_of(32);
    if m <= panel + panel / 2 {
        single(c, stride, a, b, alpha, beta);
        return;
    }
    c.par_chunks_mut(panel * stride)
        .enumerate()
        .for_each(|(index, c)| {
            let start = index * panel;
            if start < m {
                let rows = panel.min(m - start);
                single(c, stride, a.row_range(start, rows), b, alpha, beta);
            }
        });
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
        single(c, stride, a, b, alpha, beta);
    }
}

/// One product on the calling thread; neither side of it is empty.
fn single(c: &mut [f32], stride: usize, a: Mat<'_>, b: Mat<'_>, alpha: f32, beta: f32) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(
        (m - 1) * stride + n <= c.len(),
        "the product does not fit its place"
    );
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
