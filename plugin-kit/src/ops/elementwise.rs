//! Sums, products and activations, position by position.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::cuda::rows::{ROWS, add_rows, copy_rows};
use crate::cuda::run::DeviceRows;
use crate::cuda::sums::Sum;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run, View};
use crate::engine::tensor::{Buffer, Saved, Tensor};
use crate::kernel_params;
use crate::ops::constant::{sum_on_device, sum_over_rows};
use crate::rows::for_pieces;
use crate::simd::{add_into, cos, exp, ln, sigmoid, silu, sin, softplus, tanh};

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x).
    Silu,
    /// The tanh form of GELU (arXiv 1606.08415, section 2).
    Gelu,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// ln(1 + e^x).
    Softplus,
    /// -e^x, at least -e^80: a decay's logarithm from that of its rate.
    NegativeExp,
    /// x itself.
    Identity,
    /// e^x.
    Exp,
    /// x + 1/2 from 0 on, the logistic function below: positive everywhere (arXiv 2410.01201, appendix B.3).
    Positive,
    /// x + 1 from 0 on, e^x below (arXiv 2006.16236, eq. 7).
    EluPlusOne,
    /// ln sigmoid(x).
    LogSigmoid,
    /// 1 - e^x: what a decay of logarithm x lets in.
    OneMinusExp,
    /// ln(1 - x) for x up to 1, and ln 2^-25 there: the logarithm of a decay that lets in x.
    LogOneMinus,
    /// 1 / x.
    Reciprocal,
    /// sin x, exact up to some thousands.
    Sine,
}

/// sqrt(2 / pi), of GELU's tanh form.
const GELU_SCALE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// Half of what 1 and the float32 before it differ by: 2^-25.
const SMALLEST_REST: f32 = 2.980_232_2e-8;

impl Activation {
    /// The function's value.
    #[inline(always)]
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Silu => silu(x),
            Self::Gelu => 0.5 * x * (1.0 + tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x))),
            Self::Relu => x.max(0.0),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => tanh(x),
            Self::Softplus => softplus(x),
            Self::NegativeExp => -exp(x.min(80.0)),
            Self::Identity => x,
            Self::Exp => exp(x),
            Self::Positive => x.max(0.0) + sigmoid(x.min(0.0)),
            Self::EluPlusOne => x.max(0.0) + exp(x.min(0.0)),
            Self::LogSigmoid => -softplus(-x),
            Self::OneMinusExp => {
                // e^x - 1 = 2 t / (1 - t) keeps its digits near 0.
                let t = tanh(0.5 * x);
                -2.0 * t / (1.0 - t)
            }
            Self::LogOneMinus => {
                let rest = (1.0 - x).max(SMALLEST_REST);
                // What rounding 1 - x lost comes back as a first-order correction.
                let lost = if rest > SMALLEST_REST {
                    (1.0 - rest) - x
                } else {
                    0.0
                };
                ln(rest) + lost / rest
            }
            Self::Reciprocal => 1.0 / x,
            Self::Sine => sin(x),
        }
    }

    /// The function's slope at x.
    #[inline(always)]
    pub fn slope(self, x: f32) -> f32 {
        match self {
            Self::Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::Gelu => {
                let t = tanh(GELU_SCALE * (x + GELU_CUBIC * x * x * x));
                let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
            }
            Self::Relu => f32::from(x > 0.0),
            Self::Sigmoid => {
                let s = sigmoid(x);
                s * (1.0 - s)
            }
            Self::Tanh => {
                let t = tanh(x);
                1.0 - t * t
            }
            Self::Softplus => sigmoid(x),
            Self::NegativeExp => -exp(x.min(80.0)),
            Self::Identity => 1.0,
            Self::Exp => exp(x),
            Self::Positive => {
                let s = sigmoid(x);
                if x >= 0.0 { 1.0 } else { s * (1.0 - s) }
            }
            Self::EluPlusOne => exp(x.min(0.0)),
            Self::LogSigmoid => sigmoid(-x),
            Self::OneMinusExp => -exp(x),
            Self::LogOneMinus => -1.0 / (1.0 - x).max(SMALLEST_REST),
            Self::Reciprocal => -1.0 / (x * x),
            Self::Sine => cos(x),
        }
    }
}

impl Graph {
    /// `a + b`; one of them may be a [constant](Graph::constant).
    ///
    /// # Panics
    /// If they are not equally wide.
    #[track_caller]
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Tensor {
        let (most, other) = by_rows(a, b);
        let y = self.tensor_like(most, a.cols());
        assert_eq!(a.cols(), b.cols(), "a sum of tensors of unequal widths");
        let parts = self.sums_of_constant(other, most);
        if self.wants_device() {
            let operation = self.program.operations.len();
            self.program.sums.push(Sum { operation, a, b, y });
        }
        self.push(Add { a, b, parts, y });
        y
    }

    /// `factor * x`; x itself where the factor is 1.
    #[track_caller]
    pub fn scale(&mut self, x: Tensor, factor: f32) -> Tensor {
        if factor == 1.0 {
            return x;
        }
        let y = self.tensor_like(x, x.cols());
        self.push(Scale { x, factor, y });
        y
    }

    /// `f(x)`.
    #[track_caller]
    pub fn activation(&mut self, x: Tensor, activation: Activation) -> Tensor {
        let y = self.tensor_like(x, x.cols());
        self.push(Gate {
            gate: x,
            x: None,
            activation,
            shares: None,
            y,
        });
        y
    }

    /// `f(gate) * x`: a gated unit (arXiv 2002.05202 for SwiGLU) or a plain product with
    /// [`Activation::Identity`]. Gate and x may be columns of one tensor; one of them may be a
    /// [constant](Graph::constant).
    ///
    /// # Panics
    /// If they are not equally wide.
    #[track_caller]
    pub fn gate(&mut self, gate: Tensor, x: Tensor, activation: Activation) -> Tensor {
        let (most, other) = by_rows(gate, x);
        let y = self.tensor_like(most, x.cols());
        assert_eq!(
            gate.cols(),
            x.cols(),
            "a gate and what it gates are of unequal widths"
        );
        let extent = self.program.buffers[y.id];
        let parts = self.sums_of_constant(other, most);
        let shares = parts.map(|parts| (self.saved(extent), parts));
        self.push(Gate {
            gate,
            x: Some(x),
            activation,
            shares,
            y,
        });
        y
    }
}

/// The one of two tensors that has a row for every position, where one has, and the other.
fn by_rows(a: Tensor, b: Tensor) -> (Tensor, Tensor) {
    if a.is_constant() { (b, a) } else { (a, b) }
}

struct Add {
    a: Tensor,
    b: Tensor,
    /// Sums of a constant's gradient, on a device.
    parts: Option<Saved>,
    y: Tensor,
}

impl Operation for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (a, b) = (run.value(self.a), run.value(self.b));
        let (a, b) = (a.get(), b.get());
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for_pieces(y.data_mut(), cols, |first, piece| {
            for (offset, y) in piece.chunks_exact_mut(cols).enumerate() {
                sum_rows(a.row(first + offset), b.row(first + offset), y);
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
        for input in [self.a, self.b] {
            let mut grad = run.grad_mut(input);
            if input.is_constant() && !self.y.is_constant() {
                let rows = grad_y.data.len() / grad_y.stride;
                sum_over_rows(&mut grad, rows, |row, accumulate, grad| {
                    scale_row(grad_y.row(row), 1.0, accumulate, grad);
                });
                continue;
            }
            let (accumulate, stride, cols) = (grad.accumulate(), grad.stride(), grad.cols());
            for_pieces(grad.data_mut(), stride, |first, piece| {
                for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                    let dy = grad_y.row(first + offset);
                    if accumulate {
                        add_into(&mut grad[..cols], dy);
                    } else {
                        grad[..cols].copy_from_slice(dy);
                    }
                }
            });
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (a, b) = (self.a, self.b);
        if run.sum(a).is_some() || run.sum(b).is_some() {
            // Whoever made that one has made the sum.
            return Ok(());
        }
        add_rows(run, [run.value(a), run.value(b)], run.value(self.y))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        for input in [self.a, self.b] {
            if run.shares_gradient(input, self.y) {
                continue;
            }
            let (grad, accumulate) = run.grad_mut(input)?;
            match self.parts {
                Some(parts) if input.is_constant() => {
                    sum_on_device(run, dy, parts, (grad, accumulate))?;
                }
                _ => copy_rows(run, dy, grad, 1.0, accumulate)?,
            }
        }
        Ok(())
    }
}

crate::simd! {
    fn sum_rows(a: &[f32], b: &[f32], y: &mut [f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

struct Scale {
    x: Tensor,
    factor: f32,
    y: Tensor,
}

impl Operation for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let x = x.get();
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for (row, y) in y.data_mut().chunks_exact_mut(cols).enumerate() {
            scale_row(x.row(row), self.factor, false, y);
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        let mut grad = run.grad_mut(self.x);
        let accumulate = grad.accumulate();
        for row in 0..grad.rows() {
            scale_row(grad_y.row(row), self.factor, accumulate, grad.row_mut(row));
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        copy_rows(
            run,
            run.value(self.x),
            run.value(self.y),
            self.factor,
            false,
        )
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        let (grad, accumulate) = run.grad_mut(self.x)?;
        copy_rows(run, dy, grad, self.factor, accumulate)
    }
}

crate::simd! {
    fn scale_row(x: &[f32], factor: f32, accumulate: bool, y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = if accumulate { *y } else { 0.0 } + factor * x;
        }
    }
}

static GATE: KernelSource = KernelSource {
    file: "gate.cu",
    text: include_str!("../../kernels/gate.cu"),
    params: &[GateForward::CPP, GateBackward::CPP],
};

kernel_params! {
    struct GateForward {
        gate: *const Stored, x: *const Stored, // [rows, cols]; x may be null
        y: *mut Stored,                        // [rows, cols], contiguous
        gate_stride: u64, x_stride: u64, rows: u64,
        cols: u32, activation: u32,
    }
}

kernel_params! {
    struct GateBackward {
        gate: *const Stored, x: *const Stored, dy: *const Stored, // [rows, cols]; x may be null
        grad_gate: *mut Stored, grad_x: *mut Stored,              // [rows, cols]; one may be null
        gate_stride: u64, x_stride: u64, dy_stride: u64, grad_gate_stride: u64, grad_x_stride: u64, rows: u64,
        cols: u32, activation: u32, adds_gate: u32, adds_x: u32,
    }
}

struct Gate {
    gate: Tensor,
    x: Option<Tensor>,
    activation: Activation,
    /// On a device, every position's share of a constant's gradient, and their sums.
    shares: Option<(Saved, Saved)>,
    y: Tensor,
}

impl Gate {
    /// Whether the gradient of an input is a sum over positions.
    fn sums(&self, input: Tensor) -> bool {
        input.is_constant() && !self.y.is_constant()
    }
}

impl Operation for Gate {
    fn name(&self) -> &'static str {
        if self.x.is_some() {
            "gate"
        } else {
            "activation"
        }
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let gate = run.value(self.gate);
        let x = self.x.map(|x| run.value(x));
        let (gate, x) = (gate.get(), x.as_ref().map(View::get));
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for_pieces(y.data_mut(), cols, |first, piece| {
            for (offset, y) in piece.chunks_exact_mut(cols).enumerate() {
                let row = first + offset;
                gate_row(gate.row(row), row_of(x, row), self.activation, y);
            }
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(
            [Some(self.gate), self.x, Some(self.y)]
                .into_iter()
                .flatten()
                .map(Buffer::from)
                .collect(),
        )
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let gate = run.value(self.gate);
        let x_view = self.x.map(|x| run.value(x));
        let grad_y = run.grad(self.y);
        let (gate, x) = (gate.get(), x_view.as_ref().map(View::get));
        let grad_y = grad_y.get();
        let rows = grad_y.data.len() / self.y.stride;
        let mut grad_gate = run.grad_mut(self.gate);
        let (accumulate, stride, cols) =
            (grad_gate.accumulate(), grad_gate.stride(), grad_gate.cols());
        if self.sums(self.gate) {
            sum_over_rows(&mut grad_gate, rows, |row, accumulate, grad| {
                let (gate, x, dy) = (gate.row(row), row_of(x, row), grad_y.row(row));
                gate_gradient(gate, x, dy, self.activation, accumulate, grad);
            });
        } else {
            for_pieces(grad_gate.data_mut(), stride, |first, piece| {
                for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                    let row = first + offset;
                    let (dy, x) = (grad_y.row(row), row_of(x, row));
                    gate_gradient(
                        gate.row(row),
                        x,
                        dy,
                        self.activation,
                        accumulate,
                        &mut grad[..cols],
                    );
                }
            });
        }
        drop(grad_gate);
        let Some(x) = self.x else { return Ok(()) };
        let mut grad_x = run.grad_mut(x);
        if self.sums(x) {
            sum_over_rows(&mut grad_x, rows, |row, accumulate, grad| {
                gated_gradient(
                    gate.row(row),
                    grad_y.row(row),
                    self.activation,
                    accumulate,
                    grad,
                );
            });
            return Ok(());
        }
        let (accumulate, stride) = (grad_x.accumulate(), grad_x.stride());
        for_pieces(grad_x.data_mut(), stride, |first, piece| {
            for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                let row = first + offset;
                let (gate, dy) = (gate.row(row), grad_y.row(row));
                gated_gradient(gate, dy, self.activation, accumulate, &mut grad[..cols]);
            }
        });
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&GATE, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (gate, y) = (run.value(self.gate), run.value(self.y));
        let x = self.x.map(|x| run.value(x));
        let params = GateForward {
            gate: gate.data,
            x: x.map_or(Ptr::default(), |x| x.data),
            y: y.data,
            gate_stride: gate.stride as u64,
            x_stride: x.map_or(0, |x| x.stride as u64),
            rows: y.rows as u64,
            cols: y.cols as u32,
            activation: self.activation as u32,
        };
        run.launch(
            &GATE,
            "gate_forward",
            Launch::for_each(y.rows * y.cols),
            &params,
        )
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (gate, dy) = (run.value(self.gate), run.grad(self.y)?);
        let x = self.x.map(|x| run.value(x));
        let params = GateBackward {
            gate: gate.data,
            x: x.map_or(Ptr::default(), |x| x.data),
            dy: dy.data,
            grad_gate: Ptr::default(),
            grad_x: Ptr::default(),
            gate_stride: gate.stride as u64,
            x_stride: x.map_or(0, |x| x.stride as u64),
            dy_stride: dy.stride as u64,
            grad_gate_stride: 0,
            grad_x_stride: 0,
            rows: dy.rows as u64,
            cols: dy.cols as u32,
            activation: self.activation as u32,
            adds_gate: 0,
            adds_x: 0,
        };
        let Some(x) = self.x else {
            return self.gradients(run, params, [Some(self.gate), None]);
        };
        // At once, but for columns of both, to which one adds after the other, and for shares of a sum, of which there
        // is room for one.
        let apart = self.gate.overlaps(x) || self.sums(self.gate) || self.sums(x);
        if !apart {
            return self.gradients(run, params, [Some(self.gate), Some(x)]);
        }
        self.gradients(run, params, [Some(self.gate), None])?;
        self.gradients(run, params, [None, Some(x)])
    }
}

impl Gate {
    /// The gradients of these of gate and x.
    fn gradients(
        &self,
        run: &CudaRun<'_>,
        mut params: GateBackward,
        of: [Option<Tensor>; 2],
    ) -> Result<()> {
        let mut sums = None;
        for (index, input) in of.into_iter().enumerate() {
            let Some(input) = input else { continue };
            let (grad, accumulate) = run.grad_mut(input)?;
            let (to, adds) = match self.shares.filter(|_| self.sums(input)) {
                // The shares of all positions first, where the gradient is their sum.
                Some((shares, parts)) => {
                    let shares = DeviceRows {
                        data: run.saved(shares),
                        ..run.value(self.y)
                    };
                    sums = Some((shares, parts, (grad, accumulate)));
                    (shares, false)
                }
                None => (grad, accumulate),
            };
            let (place, stride, add) = match index {
                0 => (
                    &mut params.grad_gate,
                    &mut params.grad_gate_stride,
                    &mut params.adds_gate,
                ),
                _ => (
                    &mut params.grad_x,
                    &mut params.grad_x_stride,
                    &mut params.adds_x,
                ),
            };
            (*place, *stride, *add) = (to.data, to.stride as u64, adds.into());
        }
        let launch = Launch::for_each((params.rows * u64::from(params.cols)) as usize);
        run.launch(&GATE, "gate_backward", launch, &params)?;
        match sums {
            Some((shares, parts, place)) => sum_on_device(run, shares, parts, place),
            None => Ok(()),
        }
    }
}

fn row_of(x: Option<Rows<'_>>, row: usize) -> &[f32] {
    x.map_or(&[], |x| x.row(row))
}

/// The activation as a constant of the loop, so that the loop has no branch.
macro_rules! for_activation {
    ($activation:expr, $f:ident => $body:expr) => {
        match $activation {
            Activation::Silu => {
                const $f: Activation = Activation::Silu;
                $body
            }
            Activation::Gelu => {
                const $f: Activation = Activation::Gelu;
                $body
            }
            Activation::Relu => {
                const $f: Activation = Activation::Relu;
                $body
            }
            Activation::Sigmoid => {
                const $f: Activation = Activation::Sigmoid;
                $body
            }
            Activation::Tanh => {
                const $f: Activation = Activation::Tanh;
                $body
            }
            Activation::Softplus => {
                const $f: Activation = Activation::Softplus;
                $body
            }
            Activation::NegativeExp => {
                const $f: Activation = Activation::NegativeExp;
                $body
            }
            Activation::Identity => {
                const $f: Activation = Activation::Identity;
                $body
            }
            Activation::Exp => {
                const $f: Activation = Activation::Exp;
                $body
            }
            Activation::Positive => {
                const $f: Activation = Activation::Positive;
                $body
            }
            Activation::EluPlusOne => {
                const $f: Activation = Activation::EluPlusOne;
                $body
            }
            Activation::LogSigmoid => {
                const $f: Activation = Activation::LogSigmoid;
                $body
            }
            Activation::OneMinusExp => {
                const $f: Activation = Activation::OneMinusExp;
                $body
            }
            Activation::LogOneMinus => {
                const $f: Activation = Activation::LogOneMinus;
                $body
            }
            Activation::Reciprocal => {
                const $f: Activation = Activation::Reciprocal;
                $body
            }
            Activation::Sine => {
                const $f: Activation = Activation::Sine;
                $body
            }
        }
    };
}

crate::simd! {
    /// y = f(gate) x, or f(gate) where x is empty.
    pub(crate) fn gate_row(gate: &[f32], x: &[f32], activation: Activation, y: &mut [f32]) {
        for_activation!(activation, F => {
            if x.is_empty() {
                for (y, gate) in y.iter_mut().zip(gate) {
                    *y = F.value(*gate);
                }
            } else {
                for ((y, gate), x) in y.iter_mut().zip(gate).zip(x) {
                    *y = F.value(*gate) * x;
                }
            }
        });
    }
}

crate::simd! {
    /// dgate = dy x f'(gate).
    pub(crate) fn gate_gradient(
        gate: &[f32],
        x: &[f32],
        dy: &[f32],
        activation: Activation,
        accumulate: bool,
        grad: &mut [f32],
    ) {
        for_activation!(activation, F => {
            if x.is_empty() {
                for ((grad, gate), dy) in grad.iter_mut().zip(gate).zip(dy) {
                    let old = if accumulate { *grad } else { 0.0 };
                    *grad = old + dy * F.slope(*gate);
                }
            } else {
                for (((grad, gate), dy), x) in grad.iter_mut().zip(gate).zip(dy).zip(x) {
                    let old = if accumulate { *grad } else { 0.0 };
                    *grad = old + dy * x * F.slope(*gate);
                }
            }
        });
    }
}

crate::simd! {
    /// dx = dy f(gate).
    fn gated_gradient(
        gate: &[f32],
        dy: &[f32],
        activation: Activation,
        accumulate: bool,
        grad: &mut [f32],
    ) {
        for_activation!(activation, F => {
            for ((grad, gate), dy) in grad.iter_mut().zip(gate).zip(dy) {
                let old = if accumulate { *grad } else { 0.0 };
                *grad = old + dy * F.value(*gate);
            }
        });
    }
}
