//! The family's own MLP: token shift, a squared ReLU (arXiv 2109.08668), and up to RWKV-6 a gate.

use longhaul_plugin_kit::cuda::device::{Launch, Stored};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::rows::for_pieces;
use longhaul_plugin_kit::{
    Buffer, Graph, Init, Operation, Result, Run, Tensor, kernel_params, simd,
};

use crate::initial::{into_residual, matrix, zero_there};
use crate::shift::{Last, Mix, Weighs, shift_state, token_shift};

/// A layer's channel mix: names and starts of its blends, and sizes.
pub(crate) struct ChannelMix {
    /// Width inside.
    pub hidden: usize,
    /// The starts of the matrices.
    pub starts: Matrices,
    /// What the blends' weights weigh.
    pub weighs: Weighs,
    /// The key's blend `[D]`.
    pub key: (&'static str, Init),
    /// The gate's blend `[D]`; no gate without.
    pub receptance: Option<(&'static str, Init)>,
}

/// How its matrices start.
pub(crate) struct Matrices {
    /// `[hidden, D]`.
    pub key: Init,
    /// `[D, hidden]`.
    pub value: Init,
    /// The gate's `[D, D]`.
    pub receptance: Init,
}

impl Matrices {
    /// Beside a key of an orthogonal start by the official gain `orthogonal`.
    pub(crate) fn new(whose: InitialValues, layers: usize, orthogonal: f32) -> Self {
        Self {
            key: matrix(whose, 1.0, orthogonal),
            value: into_residual(whose, layers),
            receptance: zero_there(whose, Init::Linear { gain: 1.0 }),
        }
    }
}

impl ChannelMix {
    /// `sigmoid(Wr xr) Wv relu(Wk xk)^2` (arXiv 2305.13048, eq. 17 and 18), without the gate
    /// `Wv relu(Wk xk)^2` (arXiv 2503.14456, eq. 24): x `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn record(self, graph: &mut Graph, x: Tensor) -> Tensor {
        let d_model = x.cols();
        let mut mixes = Vec::with_capacity(2);
        for (name, init) in std::iter::once(self.key).chain(self.receptance) {
            mixes.push(Mix::Channel(graph.param(name, &[d_model], init)));
        }
        let last = Last {
            state: shift_state(graph, d_model),
            renew: true,
        };
        let blends = token_shift(graph, x, last, self.weighs, &mixes);
        let starts = self.starts;
        let key = graph.linear_with("key", blends[0], self.hidden, false, starts.key);
        let key = squared_relu(graph, key);
        let value = graph.linear_with("value", key, d_model, false, starts.value);
        let Some(&blend) = blends.get(1) else {
            return value;
        };
        let receptance = graph.linear_with("receptance", blend, d_model, false, starts.receptance);
        graph.gate(receptance, value, Activation::Sigmoid)
    }
}

/// Records `max(x, 0)^2`.
pub(crate) fn squared_relu(graph: &mut Graph, x: Tensor) -> Tensor {
    let y = graph.tensor(x.cols());
    graph.push(SquaredRelu { x, y });
    y
}

static SQUARED_RELU: KernelSource = KernelSource {
    file: "squared_relu.cu",
    text: include_str!("../kernels/squared_relu.cu"),
    params: &[SquaredReluForward::CPP, SquaredReluBackward::CPP],
};

kernel_params! {
    struct SquaredReluForward {
        x: *const Stored, // [rows, cols]
        y: *mut Stored,   // [rows, cols], contiguous
        x_stride: u64, rows: u64,
        cols: u32, unused: u32,
    }
}

kernel_params! {
    struct SquaredReluBackward {
        x: *const Stored,  // [rows, cols]
        dy: *const Stored, // [rows, cols], contiguous
        grad: *mut Stored, // [rows, cols]
        x_stride: u64, grad_stride: u64, rows: u64,
        cols: u32, accumulate: u32,
    }
}

struct SquaredRelu {
    x: Tensor,
    y: Tensor,
}

impl Operation for SquaredRelu {
    fn name(&self) -> &'static str {
        "squared_relu"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let x = x.get();
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for_pieces(y.data_mut(), cols, |first, piece| {
            for (offset, y) in piece.chunks_exact_mut(cols).enumerate() {
                square(x.row(first + offset), y);
            }
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, grad_y) = (run.value(self.x), run.grad(self.y));
        let (x, grad_y) = (x.get(), grad_y.get());
        let mut grad = run.grad_mut(self.x);
        let (accumulate, stride, cols) = (grad.accumulate(), grad.stride(), grad.cols());
        for_pieces(grad.data_mut(), stride, |first, piece| {
            for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                let at = first + offset;
                slope(x.row(at), grad_y.row(at), accumulate, &mut grad[..cols]);
            }
        });
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SQUARED_RELU]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, y) = (run.value(self.x), run.value(self.y));
        let params = SquaredReluForward {
            x: x.data,
            y: y.data,
            x_stride: x.stride as u64,
            rows: x.rows as u64,
            cols: x.cols as u32,
            unused: 0,
        };
        let launch = Launch::for_each(x.rows * x.cols);
        run.launch(&SQUARED_RELU, "squared_relu_forward", launch, &params)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, dy) = (run.value(self.x), run.grad(self.y)?);
        let (grad, accumulate) = run.grad_mut(self.x)?;
        let params = SquaredReluBackward {
            x: x.data,
            dy: dy.data,
            grad: grad.data,
            x_stride: x.stride as u64,
            grad_stride: grad.stride as u64,
            rows: x.rows as u64,
            cols: x.cols as u32,
            accumulate: accumulate.into(),
        };
        let launch = Launch::for_each(x.rows * x.cols);
        run.launch(&SQUARED_RELU, "squared_relu_backward", launch, &params)
    }
}

simd! {
    fn square(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            let positive = x.max(0.0);
            *y = positive * positive;
        }
    }
}

simd! {
    fn slope(x: &[f32], dy: &[f32], accumulate: bool, grad: &mut [f32]) {
        for ((grad, x), dy) in grad.iter_mut().zip(x).zip(dy) {
            let old = if accumulate { *grad } else { 0.0 };
            *grad = (2.0 * dy).mul_add(x.max(0.0), old);
        }
    }
}
