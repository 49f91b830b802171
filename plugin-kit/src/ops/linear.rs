//! Linear layers: `y = x Wᵀ + b` with W `[out, in]`, as checkpoints store them.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{DeviceMat, Product};
use crate::cuda::rows::{self as device_rows, ROWS, parts};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::params::Init;
use crate::engine::tensor::{Buffer, Param, Saved, Tensor};
use crate::gemm::{Mat, gemm};
use crate::rows::{self, column_sums};

impl Graph {
    /// `x Wᵀ` with W `[out, x.cols]` under `name.weight`, and `+ b` with b `[out]` under
    /// `name.bias` where `bias` is set. W starts with gain 1, b at 0.
    #[track_caller]
    pub fn linear(&mut self, name: &str, x: Tensor, out: usize, bias: bool) -> Tensor {
        self.linear_with(name, x, out, bias, Init::Linear { gain: 1.0 })
    }

    /// [`Graph::linear`] with another start for W.
    #[track_caller]
    pub fn linear_with(
        &mut self,
        name: &str,
        x: Tensor,
        out: usize,
        bias: bool,
        init: Init,
    ) -> Tensor {
        let weight = self.param(&format!("{name}.weight"), &[out, x.cols()], init);
        let bias = bias.then(|| self.param(&format!("{name}.bias"), &[out], Init::Zeros));
        self.linear_by(x, weight, bias)
    }

    /// `x Wᵀ + b` with parameters at hand: W `[out, x.cols]`, b `[out]`.
    #[track_caller]
    pub fn linear_by(&mut self, x: Tensor, weight: Param, bias: Option<Param>) -> Tensor {
        let out = self.param_shape(weight)[0];
        let y = self.tensor_like(x, out);
        let parts = (bias.is_some() && self.wants_device()).then(|| parts(self, out));
        self.push(Linear {
            x,
            weight,
            bias,
            parts,
            y,
        });
        y
    }
}

struct Linear {
    x: Tensor,
    weight: Param,
    bias: Option<Param>,
    /// Sums of the bias's gradient, on a device.
    parts: Option<Saved>,
    y: Tensor,
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let mut y = run.value_mut(self.y);
        let (rows, x) = (x.rows(), x.get());
        let (inputs, outputs) = (x.cols, y.cols());
        let beta = match self.bias {
            Some(bias) => {
                rows::broadcast(y.data_mut(), run.param(bias));
                1.0
            }
            None => 0.0,
        };
        let a = Mat::new(x.data, rows, inputs, x.stride);
        let b = Mat::new(run.param(self.weight), outputs, inputs, inputs).t();
        gemm(y.data_mut(), outputs, a, b, 1.0, beta);
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let grad_y = run.grad(self.y);
        let (rows, x, grad_y) = (x.rows(), x.get(), grad_y.get());
        let (inputs, outputs) = (x.cols, grad_y.cols);
        if rows == 0 {
            return Ok(());
        }
        let dy = Mat::new(grad_y.data, rows, outputs, outputs);
        {
            let mut grad_x = run.grad_mut(self.x);
            let beta = if grad_x.accumulate() { 1.0 } else { 0.0 };
            let weight = Mat::new(run.param(self.weight), outputs, inputs, inputs);
            let stride = grad_x.stride();
            gemm(grad_x.data_mut(), stride, dy, weight, 1.0, beta);
        }
        let mut grad_weight = run.param_grad(self.weight);
        let a = Mat::new(x.data, rows, inputs, x.stride);
        gemm(&mut grad_weight, inputs, dy.t(), a, 1.0, 1.0);
        if let Some(bias) = self.bias {
            column_sums(grad_y.data, &mut run.param_grad(bias));
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
        let weight = DeviceMat::new(run.param(self.weight), y.cols, x.cols, x.cols);
        run.product(Product::one(x.mat(), weight.t(), y.mat(), 1.0, beta))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, dy) = (run.value(self.x), run.grad(self.y)?);
        let (dx, accumulate) = run.grad_mut(self.x)?;
        let beta = if accumulate { 1.0 } else { 0.0 };
        let shaped = |data| DeviceMat::new(data, dy.cols, x.cols, x.cols);
        let weight = shaped(run.param(self.weight));
        run.product(Product::one(dy.mat(), weight, dx.mat(), 1.0, beta))?;
        let grad_weight = shaped(run.param_grad(self.weight));
        run.product(Product::one(dy.mat().t(), x.mat(), grad_weight, 1.0, 1.0))?;
        match (self.bias, self.parts) {
            (Some(bias), Some(parts)) => {
                device_rows::column_sums(run, dy, parts, run.param_grad(bias))
            }
            _ => Ok(()),
        }
    }
}
