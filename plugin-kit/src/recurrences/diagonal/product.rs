//! Products of complex numbers, position by position.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{KernelSource, Launch, Stored};
use crate::cuda::rows::ROWS;
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::operation::{Operation, Run};
use crate::engine::tensor::{Buffer, Saved, Tensor};
use crate::kernel_params;
use crate::ops::constant::{sum_on_device, sum_over_rows};
use crate::simd;

impl Graph {
    /// `x w` of complex numbers, real parts in the first half of the columns and imaginary parts in the second; w may be
    /// a [constant](Graph::constant).
    ///
    /// # Panics
    /// If they are not equally wide, the width is odd, or x alone is a constant.
    #[track_caller]
    pub fn complex_product(&mut self, x: Tensor, w: Tensor) -> Tensor {
        let cols = x.cols();
        assert_eq!(cols, w.cols(), "a product of tensors of unequal widths");
        assert!(
            cols.is_multiple_of(2),
            "{cols} columns are no real and imaginary parts"
        );
        assert!(
            w.is_constant() || !x.is_constant(),
            "a constant is the second factor"
        );
        let y = self.tensor_like(x, cols);
        let extent = self.program.buffers[y.id];
        let parts = self.sums_of_constant(w, x);
        let shares = parts.map(|parts| (self.saved(extent), parts));
        self.push(Product { x, w, shares, y });
        y
    }
}

struct Product {
    x: Tensor,
    w: Tensor,
    /// On a device, every position's share of a constant's gradient, and their sums.
    shares: Option<(Saved, Saved)>,
    y: Tensor,
}

static COMPLEX_PRODUCT: KernelSource = KernelSource {
    file: "complex_product.cu",
    text: include_str!("../../../kernels/complex_product.cu"),
    params: &[ComplexProduct::CPP],
};

kernel_params! {
    struct ComplexProduct {
        a: *const Stored, b: *const Stored, // [rows, 2 W]
        y: *mut Stored,                     // [rows, 2 W]
        a_stride: u64, b_stride: u64, y_stride: u64, rows: u64,
        width: u32, conjugate: u32, add: u32, unused: u32,
    }
}

/// `y = a b`, or `a` times the conjugate of `b`, written or added.
fn launch(
    run: &CudaRun<'_>,
    a: DeviceRows,
    b: DeviceRows,
    y: DeviceRows,
    conjugate: bool,
    add: bool,
) -> Result<()> {
    let width = y.cols / 2;
    let params = ComplexProduct {
        a: a.data,
        b: b.data,
        y: y.data,
        a_stride: a.stride as u64,
        b_stride: b.stride as u64,
        y_stride: y.stride as u64,
        rows: y.rows as u64,
        width: width as u32,
        conjugate: conjugate.into(),
        add: add.into(),
        unused: 0,
    };
    let launch = Launch::for_each(y.rows * width);
    run.launch(&COMPLEX_PRODUCT, "complex_product", launch, &params)
}

impl Operation for Product {
    fn name(&self) -> &'static str {
        "complex_product"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (x, w) = (run.value(self.x), run.value(self.w));
        let mut y = run.value_mut(self.y);
        for row in 0..y.rows() {
            multiply(x.get().row(row), w.get().row(row), false, y.row_mut(row));
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.w.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, w, grad) = (run.value(self.x), run.value(self.w), run.grad(self.y));
        let (x, w, grad) = (x.get(), w.get(), grad.get());
        let put = |dy: &[f32], by: &[f32], add: bool, to: &mut [f32]| match add {
            true => multiply_into(dy, by, to),
            false => multiply(dy, by, true, to),
        };
        let rows = run.value(self.y).rows();
        for (tensor, other) in [(self.x, w), (self.w, x)] {
            let mut place = run.grad_mut(tensor);
            if tensor.is_constant() {
                sum_over_rows(&mut place, rows, |row, add, to| {
                    put(grad.row(row), other.row(row), add, to);
                });
                continue;
            }
            let add = place.accumulate();
            for row in 0..rows {
                put(grad.row(row), other.row(row), add, place.row_mut(row));
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&COMPLEX_PRODUCT, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, w, y) = (run.value(self.x), run.value(self.w), run.value(self.y));
        launch(run, x, w, y, false, false)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, w, dy) = (run.value(self.x), run.value(self.w), run.grad(self.y)?);
        let (dx, add) = run.grad_mut(self.x)?;
        launch(run, dy, w, dx, true, add)?;
        let (dw, add) = run.grad_mut(self.w)?;
        let Some((shares, parts)) = self.shares else {
            return launch(run, dy, x, dw, true, add);
        };
        let shares = DeviceRows {
            data: run.saved(shares),
            ..dy
        };
        launch(run, dy, x, shares, true, false)?;
        sum_on_device(run, shares, parts, (dw, add))
    }
}

simd! {
    /// `y = a b`, or a times the conjugate of b.
    fn multiply(a: &[f32], b: &[f32], conjugate: bool, y: &mut [f32]) {
        let half = y.len() / 2;
        let ((a_re, a_im), (b_re, b_im)) = (a.split_at(half), b.split_at(half));
        let (y_re, y_im) = y.split_at_mut(half);
        let (a_im, b_im, y_im) = (&a_im[..half], &b_im[..half], &mut y_im[..half]);
        let sign = if conjugate { -1.0 } else { 1.0 };
        for c in 0..half {
            let im = sign * b_im[c];
            y_re[c] = a_re[c].mul_add(b_re[c], -(a_im[c] * im));
            y_im[c] = a_re[c].mul_add(im, a_im[c] * b_re[c]);
        }
    }
}

simd! {
    /// `y += a` times the conjugate of b.
    fn multiply_into(a: &[f32], b: &[f32], y: &mut [f32]) {
        let half = y.len() / 2;
        let ((a_re, a_im), (b_re, b_im)) = (a.split_at(half), b.split_at(half));
        let (y_re, y_im) = y.split_at_mut(half);
        let (a_im, b_im, y_im) = (&a_im[..half], &b_im[..half], &mut y_im[..half]);
        for c in 0..half {
            y_re[c] = a_re[c].mul_add(b_re[c], a_im[c].mul_add(b_im[c], y_re[c]));
            y_im[c] = a_im[c].mul_add(b_re[c], y_im[c] - a_re[c] * b_im[c]);
        }
    }
}
