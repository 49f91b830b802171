//! Block-diagonal linear layers: every head has a square matrix of its own.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use crate::cuda::device::{DeviceMat, Product, Ptr};
use crate::cuda::rows::{self as device_rows, ROWS, parts};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::params::Init;
use crate::engine::tensor::{Buffer, Param, Saved, Tensor};
use crate::gemm::{Mat, gemm};
use crate::rows::{self, column_sums};

impl Graph {
    /// `y[.., h] = x[.., h] W[h] + b[h]` for every head h, with W `[heads, K, K]` (input, output) under
    /// `name.weight` and b `[heads, K]` under `name.bias`, K being the columns of x over the heads
    /// (arXiv 2402.19427, section 2.4). W starts normal with variance 1 / K, b at 0.
    ///
    /// # Panics
    /// If the heads do not divide the columns.
    #[track_caller]
    pub fn block_linear(&mut self, name: &str, x: Tensor, heads: usize) -> Tensor {
        let width = (x.cols() / heads.max(1)) as f32;
        let std = 1.0 / width.sqrt();
        self.block_linear_with(name, x, heads, true, Init::Normal { std })
    }

    /// [`Graph::block_linear`] with another start for W, and with b only where `bias` is set.
    ///
    /// # Panics
    /// As [`Graph::block_linear`].
    #[track_caller]
    pub fn block_linear_with(
        &mut self,
        name: &str,
        x: Tensor,
        heads: usize,
        bias: bool,
        init: Init,
    ) -> Tensor {
        assert!(
            heads > 0 && x.cols().is_multiple_of(heads),
            "{heads} heads in {} columns",
            x.cols()
        );
        let width = x.cols() / heads;
        let weight = self.param(&format!("{name}.weight"), &[heads, width, width], init);
        let name = format!("{name}.bias");
        let bias = bias.then(|| self.param_without_decay(&name, &[heads, width], Init::Zeros));
        let y = self.tensor_like(x, x.cols());
        let sums = bias.is_some() && self.wants_device();
        let parts = sums.then(|| parts(self, x.cols()));
        self.push(BlockLinear {
            x,
            weight,
            bias,
            width,
            parts,
            y,
        });
        y
    }
}

struct BlockLinear {
    x: Tensor,
    weight: Param,
    bias: Option<Param>,
    /// K.
    width: usize,
    /// Sums of the bias's gradient, on a device.
    parts: Option<Saved>,
    y: Tensor,
}

impl Operation for BlockLinear {
    fn name(&self) -> &'static str {
        "block_linear"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let mut y = run.value_mut(self.y);
        let (rows, x) = (x.rows(), x.get());
        let (cols, width) = (x.cols, self.width);
        if rows == 0 {
            return Ok(());
        }
        let beta = self.bias.map_or(0.0, |bias| {
            rows::broadcast(y.data_mut(), run.param(bias));
            1.0
        });
        let weights = run.param(self.weight).chunks_exact(width * width);
        for (head, weight) in weights.enumerate() {
            let a = Mat::new(&x.data[head * width..], rows, width, x.stride);
            let b = Mat::new(weight, width, width, width);
            gemm(&mut y.data_mut()[head * width..], cols, a, b, 1.0, beta);
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let grad_y = run.grad(self.y);
        let (rows, x, dy) = (x.rows(), x.get(), grad_y.get());
        let (cols, width) = (x.cols, self.width);
        if rows == 0 {
            return Ok(());
        }
        let mut grad_weight = run.param_grad(self.weight);
        let mut grad_x = run.grad_mut(self.x);
        let beta = if grad_x.accumulate() { 1.0 } else { 0.0 };
        let stride = grad_x.stride();
        let weights = run.param(self.weight).chunks_exact(width * width);
        let places = grad_weight.chunks_exact_mut(width * width);
        for (head, (weight, place)) in weights.zip(places).enumerate() {
            let start = head * width;
            let slope = Mat::new(&dy.data[start..], rows, width, cols);
            let a = Mat::new(&x.data[start..], rows, width, x.stride);
            gemm(place, width, a.t(), slope, 1.0, 1.0);
            let b = Mat::new(weight, width, width, width).t();
            gemm(&mut grad_x.data_mut()[start..], stride, slope, b, 1.0, beta);
        }
        if let Some(bias) = self.bias {
            column_sums(dy.data, &mut run.param_grad(bias));
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, y) = (run.value(self.x), run.value(self.y));
        let beta = match self.bias {
            Some(bias) => {
                device_rows::broadcast(run, run.param(bias), y)?;
                1.0
            }
            None => 0.0,
        };
        let weight = self.square(run.param(self.weight));
        run.product(Product {
            count: x.cols / self.width,
            a_step: self.width,
            b_step: self.width * self.width,
            c_step: self.width,
            ..Product::one(self.first_head(x), weight, self.first_head(y), 1.0, beta)
        })
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, dy) = (run.value(self.x), run.grad(self.y)?);
        let (dx, accumulate) = run.grad_mut(self.x)?;
        let beta = if accumulate { 1.0 } else { 0.0 };
        let (heads, values) = (x.cols / self.width, self.width * self.width);
        let slope = self.first_head(dy);
        let weight = self.square(run.param(self.weight)).t();
        run.product(Product {
            count: heads,
            a_step: self.width,
            b_step: values,
            c_step: self.width,
            ..Product::one(slope, weight, self.first_head(dx), 1.0, beta)
        })?;
        let grad_weight = self.square(run.param_grad(self.weight));
        run.product(Product {
            count: heads,
            a_step: self.width,
            b_step: self.width,
            c_step: values,
            ..Product::one(self.first_head(x).t(), slope, grad_weight, 1.0, 1.0)
        })?;
        let Some(bias) = self.bias else {
            return Ok(());
        };
        let parts = self.parts.ok_or_else(|| {
            PluginError::internal("a block-diagonal layer was recorded without Graph::want_device")
        })?;
        device_rows::column_sums(run, dy, parts, run.param_grad(bias))
    }
}

impl BlockLinear {
    /// The first head's columns.
    fn first_head(&self, rows: DeviceRows) -> DeviceMat {
        DeviceMat::new(rows.data, rows.rows, self.width, rows.stride)
    }

    /// The first head's matrix.
    fn square(&self, data: Ptr) -> DeviceMat {
        DeviceMat::new(data, self.width, self.width, self.width)
    }
}
