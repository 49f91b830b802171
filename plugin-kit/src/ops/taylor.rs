//! The features of Based (arXiv 2402.18668, section 3.1): their products are the second-order Taylor series of an
//! exponential.

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::kernel_params;
use crate::rows::for_pieces;
use crate::simd::dot;

impl Graph {
    /// `f(x)` of each of `heads` equal groups of columns, such that `f(q)ᵀ f(k) = 1 + s + s² / 2` with
    /// `s = scale qᵀ k`. Of K columns [`taylor_features`] are made.
    ///
    /// # Panics
    /// If the heads do not divide the columns; with a scale that is not over 0.
    #[track_caller]
    pub fn taylor(&mut self, x: Tensor, heads: usize, scale: f32) -> Tensor {
        assert!(
            heads > 0 && x.cols().is_multiple_of(heads),
            "{heads} heads in {} columns",
            x.cols()
        );
        assert!(scale > 0.0, "the scale of a Taylor series is {scale}");
        let width = x.cols() / heads;
        let y = self.tensor_like(x, heads * taylor_features(width));
        self.push(Taylor { x, width, scale, y });
        y
    }
}

/// Features that [`Graph::taylor`] makes of K columns: `1 + K + K (K + 1) / 2`, as a product of two columns is made
/// once.
pub const fn taylor_features(width: usize) -> usize {
    1 + width + width * (width + 1) / 2
}

static SOURCE: KernelSource = KernelSource {
    file: "taylor.cu",
    text: include_str!("../../kernels/taylor.cu"),
    params: &[TaylorValues::CPP],
};

kernel_params! {
    struct TaylorValues {
        x: *const Stored,  // [rows, heads, width]
        dy: *const Stored, // [rows, heads, features], of the way back only
        out: *mut Stored,  // [rows, heads, features], or the gradient of x
        x_stride: u64, dy_stride: u64, out_stride: u64, rows: u64,
        heads: u32, width: u32, accumulate: u32,
        scale: f32,
    }
}

struct Taylor {
    x: Tensor,
    /// K.
    width: usize,
    scale: f32,
    y: Tensor,
}

impl Taylor {
    fn launch(
        &self,
        run: &CudaRun<'_>,
        kernel: &'static str,
        dy: Option<DeviceRows>,
        (out, accumulate): (DeviceRows, bool),
    ) -> Result<()> {
        let x = run.value(self.x);
        let params = TaylorValues {
            x: x.data,
            dy: dy.map_or(Ptr::default(), |dy| dy.data),
            out: out.data,
            x_stride: x.stride as u64,
            dy_stride: dy.map_or(0, |dy| dy.stride as u64),
            out_stride: out.stride as u64,
            rows: x.rows as u64,
            heads: (x.cols / self.width) as u32,
            width: self.width as u32,
            accumulate: accumulate.into(),
            scale: self.scale,
        };
        run.launch(&SOURCE, kernel, Launch::for_each(x.rows * x.cols), &params)
    }
}

impl Operation for Taylor {
    fn name(&self) -> &'static str {
        "taylor"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let x = x.get();
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for_pieces(y.data_mut(), cols, |first, piece| {
            forward(x.from_row(first), self.width, self.scale, cols, piece);
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, dy) = (run.value(self.x), run.grad(self.y));
        let (x, dy) = (x.get(), dy.get());
        let mut grad = run.grad_mut(self.x);
        let (accumulate, stride) = (grad.accumulate(), grad.stride());
        for_pieces(grad.data_mut(), stride, |first, piece| {
            if !accumulate {
                piece.fill(0.0);
            }
            let (x, dy) = (x.from_row(first), dy.from_row(first));
            add_gradient(x, dy, self.width, self.scale, stride, piece);
        });
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.launch(run, "taylor_forward", None, (run.value(self.y), false))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        self.launch(run, "taylor_backward", Some(dy), run.grad_mut(self.x)?)
    }
}

crate::simd! {
    fn forward(x: Rows<'_>, width: usize, scale: f32, cols: usize, y: &mut [f32]) {
        let features = taylor_features(width);
        for (row, y) in y.chunks_exact_mut(cols).enumerate() {
            for (x, y) in x.row(row).chunks_exact(width).zip(y.chunks_exact_mut(features)) {
                let (first, mut products) = y.split_at_mut(1 + width);
                first[0] = 1.0;
                for (y, x) in first[1..].iter_mut().zip(x) {
                    *y = scale.sqrt() * x;
                }
                for i in 0..width {
                    let (of_i, rest) = products.split_at_mut(width - i);
                    for (y, other) in of_i.iter_mut().zip(&x[i..]) {
                        *y = scale * x[i] * other;
                    }
                    of_i[0] *= FRAC_1_SQRT_2;
                    products = rest;
                }
            }
        }
    }
}

crate::simd! {
    fn add_gradient(x: Rows<'_>, dy: Rows<'_>, width: usize, scale: f32, stride: usize, dx: &mut [f32]) {
        let features = taylor_features(width);
        for (row, dx) in dx.chunks_mut(stride).enumerate() {
            let heads = x.row(row).chunks_exact(width).zip(dy.row(row).chunks_exact(features));
            for ((x, dy), dx) in heads.zip(dx.chunks_exact_mut(width)) {
                for (dx, dy) in dx.iter_mut().zip(&dy[1..]) {
                    *dx += scale.sqrt() * dy;
                }
                let mut products = &dy[1 + width..];
                for i in 0..width {
                    let (of_i, rest) = products.split_at(width - i);
                    // x_i² / sqrt(2), then the products with those after it, which hold for both.
                    dx[i] += scale * (SQRT_2 * x[i] * of_i[0] + dot(&x[i + 1..], &of_i[1..]));
                    for (dx, dy) in dx[i + 1..].iter_mut().zip(&of_i[1..]) {
                        *dx += scale * x[i] * dy;
                    }
                    products = rest;
                }
            }
        }
    }
}
