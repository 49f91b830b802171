//! Short causal convolution over time, one filter a channel, with its activation: the local part of
//! state-space blocks (arXiv 2212.14052, section 3; width 4 with SiLU in Mamba).

use crate::units::{cut, for_each_unit};
use longhaul_plugin_api::author::Result;

use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run};
use crate::engine::params::Init;
use crate::engine::tensor::{Buffer, Extent, Param, Saved, State, StateSpec, Tensor};
use crate::ops::convolution_cuda::{self, PARTS};
use crate::ops::elementwise::{Activation, gate_gradient, gate_row};
use crate::rows::{column_sums, rows_of_piece};
use crate::simd::LANES;

impl Graph {
    /// `y[t, c] = f(b[c] + sum_j w[c, j] x[t - width + 1 + j, c])` with w `[cols, width]` under
    /// `name.weight` and b `[cols]` under `name.bias` where `bias` is set. Its state is the last
    /// `width - 1` inputs.
    #[track_caller]
    pub fn short_convolution(
        &mut self,
        name: &str,
        x: Tensor,
        width: usize,
        bias: bool,
        activation: Activation,
    ) -> Tensor {
        let weight = Init::within(1.0 / (width as f32).sqrt());
        let bias = bias.then_some(Init::Zeros);
        self.short_convolution_with(name, x, width, weight, bias, activation)
    }

    /// [`Graph::short_convolution`] with other starts for w and for b, which is there where it has one.
    #[track_caller]
    pub fn short_convolution_with(
        &mut self,
        name: &str,
        x: Tensor,
        width: usize,
        weight: Init,
        bias: Option<Init>,
        activation: Activation,
    ) -> Tensor {
        let cols = x.cols();
        let weight = self.param_without_decay(&format!("{name}.weight"), &[cols, width], weight);
        let bias = bias.map(|start| self.param(&format!("{name}.bias"), &[cols], start));
        let y = self.tensor(cols);
        let operation = ShortConvolution {
            x,
            weight,
            bias,
            width,
            activation,
            taps: self.saved_on_cpu(Extent::Fixed(width * cols)),
            grad_taps: self.saved_on_cpu(Extent::Fixed(width * cols)),
            before: self.saved(Extent::Tokens(cols)),
            grad_before: self.saved_on_cpu(Extent::Tokens(cols)),
            parts: self
                .wants_device()
                .then(|| self.saved(Extent::Fixed(PARTS * (width + 1) * cols))),
            state: self.state(StateSpec::Fixed {
                values: (width - 1) * cols,
                initial: 0.0,
            }),
            y,
        };
        self.push(operation);
        y
    }
}

pub(super) struct ShortConvolution {
    pub(super) x: Tensor,
    pub(super) weight: Param,
    pub(super) bias: Option<Param>,
    pub(super) width: usize,
    pub(super) activation: Activation,
    /// `[width, cols]`: the weight with channels contiguous.
    taps: Saved,
    /// `[width, cols]`.
    grad_taps: Saved,
    /// `[B, T, cols]`: before the activation.
    pub(super) before: Saved,
    /// `[B, T, cols]`.
    grad_before: Saved,
    /// `[PARTS, width + 1, cols]`: sums of the gradients of the taps and the bias, on a device.
    parts: Option<Saved>,
    /// `[width - 1, cols]` a row: the last inputs, oldest first.
    pub(super) state: State,
    pub(super) y: Tensor,
}

impl Operation for ShortConvolution {
    fn name(&self) -> &'static str {
        "short_convolution"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, width) = (run.length(), self.width);
        let x = run.value(self.x);
        let x = x.get();
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        let mut taps = run.saved_mut(self.taps);
        let weight = run.param(self.weight);
        for c in 0..cols {
            for j in 0..width {
                taps[j * cols + c] = weight[c * width + j];
            }
        }
        let taps = &*taps;
        let bias = self.bias.map(|bias| run.param(bias));
        let mut before = run.saved_mut(self.before);
        let mut state = run.state(self.state);
        let history = state.as_deref().map(Vec::as_slice);
        // Pieces of tokens, so that one long row keeps several threads busy.
        let piece = rows_of_piece(cols) * cols;
        let cuts = (cut(y.data_mut(), piece), cut(&mut before, piece));
        for_each_unit(piece * width, cuts, |index, (y, before)| {
            let first = index * rows_of_piece(cols);
            for (token, out) in (first..).zip(before.chunks_exact_mut(cols)) {
                let (row, t) = (token / length, token % length);
                let history = history.map_or(&[][..], |rows| rows[row].as_slice());
                convolve(x.from_row(row * length), t, taps, bias, history, out);
            }
            gate_row(before, &[], self.activation, y);
        });
        if let Some(state) = &mut state {
            for (row, history) in state.iter_mut().enumerate() {
                // The last width - 1 of what was there and what came.
                let kept = (width - 1).saturating_sub(length);
                history.copy_within((width - 1 - kept) * cols.., 0);
                for place in kept..width - 1 {
                    let t = length - (width - 1 - place);
                    history[place * cols..][..cols].copy_from_slice(x.row(row * length + t));
                }
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.x.into(),
            self.taps.into(),
            self.before.into(),
            self.y.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (rows, length, width) = (run.rows(), run.length(), self.width);
        let x = run.value(self.x);
        let grad_y = run.grad(self.y);
        let (x, grad_y) = (x.get(), grad_y.get());
        let cols = x.cols;
        let before = run.saved(self.before);
        let mut grad_before = run.saved_mut(self.grad_before);
        gate_gradient(
            &before,
            &[],
            grad_y.data,
            self.activation,
            false,
            &mut grad_before,
        );
        let taps = run.saved(self.taps);
        let mut grad_taps = run.saved_mut(self.grad_taps);
        grad_taps.fill(0.0);
        let started = run.started_from(self.state);
        for row in 0..rows {
            let grad = &grad_before[row * length * cols..][..length * cols];
            let history = started.map_or(&[][..], |rows| rows[row].as_slice());
            weigh(
                x.from_row(row * length),
                history,
                grad,
                length,
                &mut grad_taps,
            );
        }
        {
            let mut grad_weight = run.param_grad(self.weight);
            for c in 0..cols {
                for j in 0..width {
                    grad_weight[c * width + j] += grad_taps[j * cols + c];
                }
            }
        }
        if let Some(bias) = self.bias {
            column_sums(&grad_before, &mut run.param_grad(bias));
        }
        let mut grad_x = run.grad_mut(self.x);
        let accumulate = grad_x.accumulate();
        for row in 0..rows {
            let grad = &grad_before[row * length * cols..][..length * cols];
            for t in 0..length {
                let place = grad_x.row_mut(row * length + t);
                if !accumulate {
                    place.fill(0.0);
                }
                // Input t meets tap j at output t + width - 1 - j.
                let later = (length - t).min(width);
                for step in 0..later {
                    let tap = &taps[(width - 1 - step) * cols..][..cols];
                    add_scaled(place, &grad[(t + step) * cols..][..cols], tap);
                }
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![convolution_cuda::source(self.width)]
    }

    fn check_device(&self) -> Result<()> {
        convolution_cuda::check(self.width)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        convolution_cuda::forward(self, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let parts = self.parts.expect("recorded for a device");
        convolution_cuda::backward(self, parts, run)
    }
}

crate::simd! {
    fn add_scaled(to: &mut [f32], a: &[f32], b: &[f32]) {
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            *to = a.mul_add(*b, *to);
        }
    }
}

/// The output at token t before the activation; x begins at the row's first token, `history` is
/// `[width - 1, cols]` or empty for zeros.
fn convolve(
    x: Rows<'_>,
    t: usize,
    taps: &[f32],
    bias: Option<&[f32]>,
    history: &[f32],
    out: &mut [f32],
) {
    let cols = x.cols;
    let past = taps.len() / cols - 1;
    match bias {
        Some(bias) => out.copy_from_slice(bias),
        None => out.fill(0.0),
    }
    if t >= past {
        add_taps(x.from_row(t - past).data, x.stride, taps, out);
        return;
    }
    for (at, tap) in (t..).zip(taps.chunks_exact(cols)) {
        if at >= past {
            add_scaled(out, x.row(at - past), tap);
        } else if !history.is_empty() {
            add_scaled(out, &history[at * cols..][..cols], tap);
        }
    }
}

crate::simd! {
    /// `out += sum over j of row j of x times tap j`, tap by tap, in one pass over the columns.
    fn add_taps(x: &[f32], stride: usize, taps: &[f32], out: &mut [f32]) {
        let cols = out.len();
        let (blocks, rest) = out.as_chunks_mut::<LANES>();
        let whole = blocks.len() * LANES;
        for (index, out) in blocks.iter_mut().enumerate() {
            let mut sums = *out;
            for (j, tap) in taps.chunks_exact(cols).enumerate() {
                let at = index * LANES;
                let (x, tap) = (&x[j * stride + at..][..LANES], &tap[at..][..LANES]);
                for lane in 0..LANES {
                    sums[lane] = x[lane].mul_add(tap[lane], sums[lane]);
                }
            }
            *out = sums;
        }
        for (j, tap) in taps.chunks_exact(cols).enumerate() {
            for ((out, x), tap) in rest.iter_mut().zip(&x[j * stride + whole..]).zip(&tap[whole..]) {
                *out = x.mul_add(*tap, *out);
            }
        }
    }
}

/// Adds one row's share to the gradient of the taps; `history` is as for [`convolve`].
fn weigh(x: Rows<'_>, history: &[f32], grad: &[f32], length: usize, grad_taps: &mut [f32]) {
    let cols = x.cols;
    let width = grad_taps.len() / cols;
    for (j, grad_tap) in grad_taps.chunks_exact_mut(cols).enumerate() {
        let lag = width - 1 - j;
        // Before the row's first token, tap j met row t + j of the history.
        if !history.is_empty() {
            for t in 0..lag.min(length) {
                let before = &history[(t + j) * cols..][..cols];
                add_scaled(grad_tap, &grad[t * cols..][..cols], before);
            }
        }
        for t in lag..length {
            add_scaled(grad_tap, &grad[t * cols..][..cols], x.row(t - lag));
        }
    }
}
