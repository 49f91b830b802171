//! Linear layers: `y = x Wᵀ + b` with W `[out, in]`, as checkpoints store them.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{DeviceMat, Epilogue, Product};
use crate::cuda::rows::{self as device_rows, ROWS, copy_rows};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::params::Init;
use crate::engine::tensor::{Buffer, Param, Tensor};
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
        let (weight, bias) = self.linear_params(name, x, out, bias, init);
        self.linear_by(x, weight, bias)
    }

    /// Several [`Graph::linear_with`] of one input, by name and number of outputs. On a device they are one product:
    /// their parameters lie side by side in its memory, under their own names.
    #[track_caller]
    pub fn linears_with(
        &mut self,
        layers: &[(&str, usize)],
        x: Tensor,
        bias: bool,
        init: &Init,
    ) -> Vec<Tensor> {
        let layers = layers.iter();
        if !self.wants_device() {
            let one = |&(name, out)| self.linear_with(name, x, out, bias, init.clone());
            return layers.map(one).collect();
        }
        let params = layers.clone();
        let params =
            params.map(|&(name, out)| self.linear_params(name, x, out, bias, init.clone()));
        let params: Vec<(Param, Option<Param>)> = params.collect();
        let (weights, biases): (Vec<Param>, Vec<Option<Param>>) = params.iter().copied().unzip();
        let biases: Option<Vec<Param>> = biases.into_iter().collect();
        if !self.params.lay_side_by_side(&weights)
            || !self
                .params
                .lay_side_by_side(biases.as_deref().unwrap_or_default())
        {
            let one = |(weight, bias)| self.linear_by(x, weight, bias);
            return params.into_iter().map(one).collect();
        }
        let out = layers.clone().map(|layer| layer.1).sum();
        let first = biases.map(|biases| biases[0]);
        let all = self.linear_of(x, out, weights[0], first);
        let mut start = 0;
        let columns = layers.map(|&(_, out)| {
            start += out;
            all.columns(start - out, out)
        });
        columns.collect()
    }

    #[track_caller]
    fn linear_params(
        &mut self,
        name: &str,
        x: Tensor,
        out: usize,
        bias: bool,
        init: Init,
    ) -> (Param, Option<Param>) {
        let weight = self.param(&format!("{name}.weight"), &[out, x.cols()], init);
        let bias = bias.then(|| self.param(&format!("{name}.bias"), &[out], Init::Zeros));
        (weight, bias)
    }

    /// `x Wᵀ + b` with parameters at hand: W `[out, x.cols]`, b `[out]`.
    #[track_caller]
    pub fn linear_by(&mut self, x: Tensor, weight: Param, bias: Option<Param>) -> Tensor {
        let out = self.param_shape(weight)[0];
        self.linear_of(x, out, weight, bias)
    }

    /// The same of `out` rows: on a device those of several parameters that lie side by side, of which these are the first.
    #[track_caller]
    fn linear_of(&mut self, x: Tensor, out: usize, weight: Param, bias: Option<Param>) -> Tensor {
        let y = self.tensor_like(x, out);
        self.push(Linear { x, weight, bias, y });
        y
    }
}

struct Linear {
    x: Tensor,
    weight: Param,
    bias: Option<Param>,
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

    fn adds(&self) -> Option<Tensor> {
        Some(self.y)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let x = run.value(self.x);
        let (added, y) = match run.sum(self.y) {
            Some((added, sum)) => (Some(added), sum),
            None => (None, run.value(self.y)),
        };
        let weight = DeviceMat::new(run.param(self.weight), y.cols, x.cols, x.cols);
        let product = Product::one(x.mat(), weight.t(), y.mat(), 1.0, 0.0);
        let product = match added {
            Some(added) => product.plus(added.mat()),
            None => product,
        };
        let Some(bias) = self.bias else {
            return run.product(product);
        };
        let at_once = Product {
            epilogue: Epilogue::AddRow(run.param(bias)),
            ..product
        };
        if run.takes(&at_once)? {
            return run.product(at_once);
        }
        // In steps: what the product is added to is made first.
        device_rows::broadcast(run, run.param(bias), y)?;
        if let Some(added) = added {
            copy_rows(run, added, y, 1.0, true)?;
        }
        run.product(Product::one(x.mat(), weight.t(), y.mat(), 1.0, 1.0))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, dy) = (run.value(self.x), run.grad(self.y)?);
        let (dx, accumulate) = run.grad_mut(self.x)?;
        let beta = |adds: bool| if adds { 1.0 } else { 0.0 };
        let shaped = |data| DeviceMat::new(data, dy.cols, x.cols, x.cols);
        let weight = shaped(run.param(self.weight));
        let product = Product::one(dy.mat(), weight, dx.mat(), 1.0, beta(accumulate));
        run.product(product)?;
        // Where there is nothing to add to, and no rows, the sums stay zeros.
        let rows = dy.rows > 0;
        let grad_of = |param| match run.param_grad_or_first(param) {
            (to, first) if rows => (to, !first),
            (to, _) => (to, true),
        };
        let (to, adds) = grad_of(self.weight);
        let product = Product::one(dy.mat().t(), x.mat(), shaped(to), 1.0, beta(adds));
        let Some(bias) = self.bias else {
            return run.product(product);
        };
        let (sums, adds) = grad_of(bias);
        let at_once = Product {
            epilogue: Epilogue::RowSums(sums),
            ..product
        };
        // An epilogue overwrites.
        if !adds && run.takes(&at_once)? {
            return run.product(at_once);
        }
        run.product(product)?;
        device_rows::column_sums_at_once(run, dy, sums)
    }
}
