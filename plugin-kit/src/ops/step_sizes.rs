//! Step sizes of state spaces, and the decays that they make.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::cuda::rows::{ROWS, column_sums, parts};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Param, Saved, Tensor};
use crate::kernel_params;
use crate::simd::{exp, sigmoid, softplus};

static STEP_SIZES: KernelSource = KernelSource {
    file: "step_sizes.cu",
    text: include_str!("../../kernels/step_sizes.cu"),
    params: &[StepSizesValues::CPP],
};

impl Graph {
    /// Step sizes `dt = softplus(x + bias)` and the logarithms of decays `-e^a_log dt` (arXiv 2405.21060, section 7), in
    /// this order, each as wide as x; bias and a_log `[x.cols]`.
    ///
    /// # Panics
    /// If they are not equally wide.
    #[track_caller]
    pub fn step_sizes(&mut self, x: Tensor, bias: Param, a_log: Param) -> [Tensor; 2] {
        for param in [bias, a_log] {
            let shape = self.param_shape(param);
            assert_eq!(shape, [x.cols()], "a parameter of step sizes");
        }
        let outputs = [self.tensor(x.cols()), self.tensor(x.cols())];
        let shares = self.wants_device().then(|| {
            let shares = self.saved(Extent::Tokens(2 * x.cols()));
            (shares, parts(self, x.cols()))
        });
        self.push(StepSizes {
            x,
            bias,
            a_log,
            shares,
            outputs,
        });
        outputs
    }
}

kernel_params! {
    struct StepSizesValues {
        x: *const Stored,                                 // [rows, cols]
        bias: *const f32, a_log: *const f32,              // [cols]
        dt: *mut Stored, logs: *mut Stored,               // [rows, cols], contiguous
        grad_dt: *const Stored, grad_logs: *const Stored, // like dt
        grad_x: *mut Stored,                              // like x
        shares: *mut f32, // [rows, 2, cols]: each position's part of the gradients of bias and a_log
        x_stride: u64, grad_stride: u64, rows: u64,
        cols: u32, accumulate: u32,
    }
}

struct StepSizes {
    x: Tensor,
    bias: Param,
    a_log: Param,
    /// On a device, `[B, T, 2, H]`: every position's share of the gradients of bias and a_log; and room for their sums.
    shares: Option<(Saved, Saved)>,
    /// dt and logarithms.
    outputs: [Tensor; 2],
}

impl Operation for StepSizes {
    fn name(&self) -> &'static str {
        "step_sizes"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let x = x.get();
        let (bias, a_log) = (run.param(self.bias), run.param(self.a_log));
        let [mut dt, mut logs] = self.outputs.map(|output| run.value_mut(output));
        let places = dt.data_mut().chunks_exact_mut(x.cols);
        for (row, (dt, logs)) in places
            .zip(logs.data_mut().chunks_exact_mut(x.cols))
            .enumerate()
        {
            steps(x.row(row), bias, a_log, dt, logs);
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let [dt, logs] = self.outputs;
        Some([self.x, dt, logs].map(Buffer::from).to_vec())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, logs) = (run.value(self.x), run.value(self.outputs[1]));
        let [grad_dt, grad_logs] = self.outputs.map(|output| run.grad(output));
        let (a_log, bias) = (run.param(self.a_log), run.param(self.bias));
        let mut grad_x = run.grad_mut(self.x);
        let mut grad_bias = run.param_grad(self.bias);
        let mut grad_a_log = run.param_grad(self.a_log);
        let accumulate = grad_x.accumulate();
        for row in 0..grad_x.rows() {
            let grad_logs = grad_logs.get().row(row);
            let grad_x = grad_x.row_mut(row);
            if !accumulate {
                grad_x.fill(0.0);
            }
            let (x, grad_dt) = (x.get().row(row), grad_dt.get().row(row));
            steps_back(x, bias, a_log, grad_dt, grad_logs, grad_x, &mut grad_bias);
            let each = grad_a_log
                .iter_mut()
                .zip(grad_logs.iter().zip(logs.get().row(row)));
            each.for_each(|(grad, (grad_log, log))| *grad += grad_log * log);
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&STEP_SIZES, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let params = self.params(run);
        let each = Launch::for_each((params.rows as usize) * self.x.cols());
        run.launch(&STEP_SIZES, "step_sizes_forward", each, &params)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let [grad_dt, grad_logs] = self.outputs.map(|output| run.grad(output));
        let (grad_x, accumulate) = run.grad_mut(self.x)?;
        let shares = self.shares.expect("recorded for a device");
        let params = StepSizesValues {
            grad_dt: grad_dt?.data,
            grad_logs: grad_logs?.data,
            grad_x: grad_x.data,
            shares: run.saved(shares.0),
            grad_stride: grad_x.stride as u64,
            accumulate: accumulate.into(),
            ..self.params(run)
        };
        let each = Launch::for_each(grad_x.rows * grad_x.cols);
        run.launch(&STEP_SIZES, "step_sizes_backward", each, &params)?;
        for (index, param) in [self.bias, self.a_log].into_iter().enumerate() {
            let rows = DeviceRows {
                data: params.shares.value(index * grad_x.cols),
                stored: false,
                rows: grad_x.rows,
                cols: grad_x.cols,
                stride: 2 * grad_x.cols,
            };
            column_sums(run, rows, shares.1, run.param_grad(param))?;
        }
        Ok(())
    }
}

impl StepSizes {
    fn params(&self, run: &CudaRun<'_>) -> StepSizesValues {
        let x = run.value(self.x);
        let [dt, logs] = self.outputs.map(|output| run.value(output).data);
        StepSizesValues {
            x: x.data,
            bias: run.param(self.bias),
            a_log: run.param(self.a_log),
            dt,
            logs,
            grad_dt: Ptr::default(),
            grad_logs: Ptr::default(),
            grad_x: Ptr::default(),
            shares: Ptr::default(),
            x_stride: x.stride as u64,
            grad_stride: 0,
            rows: x.rows as u64,
            cols: x.cols as u32,
            accumulate: 0,
        }
    }
}

crate::simd! {
    fn steps(x: &[f32], bias: &[f32], a_log: &[f32], dt: &mut [f32], logs: &mut [f32]) {
        for (((dt, log), x), (bias, a_log)) in dt.iter_mut().zip(logs).zip(x).zip(bias.iter().zip(a_log)) {
            *dt = softplus(x + bias);
            *log = -exp(*a_log) * *dt;
        }
    }
}

crate::simd! {
    /// Adds to the gradients of x and bias.
    fn steps_back(
        x: &[f32],
        bias: &[f32],
        a_log: &[f32],
        grad_dt: &[f32],
        grad_logs: &[f32],
        grad_x: &mut [f32],
        grad_bias: &mut [f32],
    ) {
        for c in 0..x.len() {
            let grad = (-exp(a_log[c])).mul_add(grad_logs[c], grad_dt[c]) * sigmoid(x[c] + bias[c]);
            grad_x[c] += grad;
            grad_bias[c] += grad;
        }
    }
}
