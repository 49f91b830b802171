//! A factor for all columns of a head, and its counterpart, the product of two heads' columns.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Stored};
use crate::cuda::rows::ROWS;
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run};
use crate::engine::tensor::{Buffer, Extent, Saved, Tensor};
use crate::kernel_params;
use crate::ops::constant::{sum_on_device, sum_over_rows};
use crate::rows::for_pieces;
use crate::simd::dot;

impl Graph {
    /// Each head's columns of x `[heads * width]` times the head's factor, `[heads]`, which may be a
    /// [constant](Graph::constant).
    ///
    /// # Panics
    /// If there are not as many columns of x for every factor, or x alone is a constant.
    #[track_caller]
    pub fn by_head(&mut self, factor: Tensor, x: Tensor) -> Tensor {
        assert!(
            factor.cols() > 0 && x.cols().is_multiple_of(factor.cols()),
            "{} columns in {} heads",
            x.cols(),
            factor.cols()
        );
        assert!(
            factor.is_constant() || !x.is_constant(),
            "a constant with factors that are none"
        );
        let y = self.tensor_like(x, x.cols());
        let parts = self.sums_of_constant(factor, x);
        let shares = parts.map(|parts| (self.saved(Extent::Tokens(factor.cols())), parts));
        self.push(ByHead {
            factor,
            x,
            shares,
            y,
        });
        y
    }

    /// The scalar product of a and b within each of `heads` equal parts of their columns: `[heads]`.
    ///
    /// # Panics
    /// If they are not equally wide, or the heads do not divide their columns.
    #[track_caller]
    pub fn head_dots(&mut self, a: Tensor, b: Tensor, heads: usize) -> Tensor {
        assert!(
            a.cols() == b.cols() && heads > 0 && a.cols().is_multiple_of(heads),
            "products of {} and {} columns in {heads} heads",
            a.cols(),
            b.cols()
        );
        let y = self.tensor_like(a, heads);
        self.push(HeadDots { a, b, y });
        y
    }
}

static BY_HEAD: KernelSource = KernelSource {
    file: "by_head.cu",
    text: include_str!("../../kernels/by_head.cu"),
    params: &[ByHeadValues::CPP],
};

kernel_params! {
    struct ByHeadValues {
        factor: *const Stored, // [rows, heads]; for sums the gradient of the product, [rows, cols]
        x: *const Stored,      // [rows, cols]
        y: *mut Stored,        // [rows, cols]; for sums the gradient of the factor, [rows, heads]
        factor_stride: u64, x_stride: u64, y_stride: u64, rows: u64,
        cols: u32, heads: u32, accumulate: u32, unused: u32,
    }
}

struct ByHead {
    factor: Tensor,
    x: Tensor,
    /// On a device, where the factor is a constant: every position's share of its gradient, and room for their sums.
    shares: Option<(Saved, Saved)>,
    y: Tensor,
}

/// `y = factor x` of heads, or `y += factor x`; for `by_head_sums` factor and x are what is multiplied.
fn launch(
    run: &CudaRun<'_>,
    kernel: &'static str,
    [factor, x, y]: [DeviceRows; 3],
    heads: usize,
    accumulate: bool,
) -> Result<()> {
    let params = ByHeadValues {
        factor: factor.data,
        x: x.data,
        y: y.data,
        factor_stride: factor.stride as u64,
        x_stride: x.stride as u64,
        y_stride: y.stride as u64,
        rows: y.rows as u64,
        cols: x.cols as u32,
        heads: heads as u32,
        accumulate: accumulate.into(),
        unused: 0,
    };
    run.launch(&BY_HEAD, kernel, Launch::for_each(y.rows * y.cols), &params)
}

impl Operation for ByHead {
    fn name(&self) -> &'static str {
        "by_head"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (factor, x) = (run.value(self.factor), run.value(self.x));
        let (factor, x) = (factor.get(), x.get());
        let mut y = run.value_mut(self.y);
        let stride = y.cols();
        for_pieces(y.data_mut(), stride, |first, piece| {
            multiply(factor, x, first, false, stride, piece);
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.factor.into(), self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (factor, x) = (run.value(self.factor), run.value(self.x));
        let (factor, x) = (factor.get(), x.get());
        let grad_y = run.grad(self.y);
        let (rows, grad_y) = (grad_y.rows(), grad_y.get());
        {
            let mut grad = run.grad_mut(self.x);
            let (accumulate, stride) = (grad.accumulate(), grad.stride());
            for_pieces(grad.data_mut(), stride, |first, piece| {
                multiply(factor, grad_y, first, accumulate, stride, piece);
            });
        }
        let mut grad = run.grad_mut(self.factor);
        if self.factor.is_constant() {
            sum_over_rows(&mut grad, rows, |row, accumulate, grad| {
                products(x.row(row), grad_y.row(row), accumulate, grad);
            });
            return Ok(());
        }
        let accumulate = grad.accumulate();
        for row in 0..grad.rows() {
            products(x.row(row), grad_y.row(row), accumulate, grad.row_mut(row));
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&BY_HEAD, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let heads = self.factor.cols();
        let each = [self.factor, self.x, self.y].map(|tensor| run.value(tensor));
        launch(run, "by_head", each, heads, false)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let heads = self.factor.cols();
        let (factor, x, dy) = (run.value(self.factor), run.value(self.x), run.grad(self.y)?);
        let (dx, accumulate) = run.grad_mut(self.x)?;
        launch(run, "by_head", [factor, dy, dx], heads, accumulate)?;
        let (dfactor, accumulate) = run.grad_mut(self.factor)?;
        let Some((shares, parts)) = self.shares else {
            return launch(run, "by_head_sums", [dy, x, dfactor], heads, accumulate);
        };
        let shares = DeviceRows {
            data: run.saved(shares),
            stored: true,
            rows: x.rows,
            cols: dfactor.cols,
            stride: dfactor.cols,
        };
        launch(run, "by_head_sums", [dy, x, shares], heads, false)?;
        sum_on_device(run, shares, parts, (dfactor, accumulate))
    }
}

crate::simd! {
    /// Rows of y, `stride` apart, from row `first` on: each head's values of x times its factor.
    fn multiply(factor: Rows<'_>, x: Rows<'_>, first: usize, accumulate: bool, stride: usize, y: &mut [f32]) {
        let width = x.cols / factor.cols;
        for (offset, y) in y.chunks_mut(stride).enumerate() {
            let (factor, x) = (factor.row(first + offset), x.row(first + offset));
            for ((factor, x), y) in factor.iter().zip(x.chunks_exact(width)).zip(y.chunks_exact_mut(width)) {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = if accumulate { *y } else { 0.0 } + factor * x;
                }
            }
        }
    }
}

/// The scalar product of each head's columns of a row.
fn products(a: &[f32], b: &[f32], accumulate: bool, y: &mut [f32]) {
    let width = a.len() / y.len();
    let heads = a.chunks_exact(width).zip(b.chunks_exact(width));
    for (y, (a, b)) in y.iter_mut().zip(heads) {
        *y = if accumulate { *y } else { 0.0 } + dot(a, b);
    }
}

struct HeadDots {
    a: Tensor,
    b: Tensor,
    y: Tensor,
}

impl Operation for HeadDots {
    fn name(&self) -> &'static str {
        "head_dots"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (a, b) = (run.value(self.a), run.value(self.b));
        let (a, b) = (a.get(), b.get());
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for_pieces(y.data_mut(), cols, |first, piece| {
            for (row, y) in (first..).zip(piece.chunks_exact_mut(cols)) {
                products(a.row(row), b.row(row), false, y);
            }
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.a.into(), self.b.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        for (input, other) in [(self.a, self.b), (self.b, self.a)] {
            let other = run.value(other);
            let other = other.get();
            let mut grad = run.grad_mut(input);
            let (accumulate, stride) = (grad.accumulate(), grad.stride());
            for_pieces(grad.data_mut(), stride, |first, piece| {
                multiply(grad_y, other, first, accumulate, stride, piece);
            });
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&BY_HEAD]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let each = [self.a, self.b, self.y].map(|tensor| run.value(tensor));
        launch(run, "by_head_sums", each, self.y.cols(), false)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        for (input, other) in [(self.a, self.b), (self.b, self.a)] {
            let (grad, accumulate) = run.grad_mut(input)?;
            let each = [dy, run.value(other), grad];
            launch(run, "by_head", each, self.y.cols(), accumulate)?;
        }
        Ok(())
    }
}
