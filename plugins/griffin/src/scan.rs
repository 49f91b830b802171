//! The real-gated linear recurrent unit as one operation: gates, decay and recurrence in one pass over
//! the tokens, channels in vectors, rows of the batch in parallel. The result is the state, so nothing
//! is kept for the gradients.

use longhaul_plugin_kit::cuda::rows::ROWS;
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, Rows};
use longhaul_plugin_kit::simd::{add_into, exp, sigmoid, softplus};
use longhaul_plugin_kit::units::{cut, for_each_unit};
use longhaul_plugin_kit::{
    Buffer, Extent, Graph, Operation, Param, PluginError, Result, Run, Saved, State, StateSpec,
    Tensor, simd,
};

use crate::cuda::{self, Chunks};

/// Exponent c of the gate (arXiv 2402.19427, eq. 3).
const C: f32 = 8.0;

/// Bound of the square root's slope, as in the official code, where 1 - a^2 is nearly 0.
const STEEPEST: f32 = 1000.0;

/// Multiply-adds a token and channel, roughly.
const WORK: usize = 32;

/// Records the recurrence; the result is h, `[B, T, W]`. `r` and `i` are the gates before their
/// sigmoids, `[B, T, W]`; `lambda` is `[W]`.
#[doc(hidden)]
pub fn rg_lru(graph: &mut Graph, x: Tensor, r: Tensor, i: Tensor, lambda: Param) -> Tensor {
    let width = x.cols();
    if graph.wants_reference() {
        return graph.reference(&[x, r, i], &[lambda], width, |given| {
            let [x, r, i] = &given.inputs[..] else {
                unreachable!("three inputs are recorded")
            };
            crate::reference::recurrence(x, r, i, &given.params[0], given.length)
        });
    }
    let h = graph.tensor(width);
    let operation = RgLru {
        x,
        r,
        i,
        lambda,
        rates: graph.saved_on_cpu(Extent::Fixed(width)),
        grad_x: graph.saved_on_cpu(Extent::Tokens(width)),
        grad_r: graph.saved_on_cpu(Extent::Tokens(width)),
        grad_i: graph.saved_on_cpu(Extent::Tokens(width)),
        grad_rates: graph.saved_on_cpu(Extent::Rows(width)),
        running: graph.saved_on_cpu(Extent::Rows(width)),
        chunks: graph.wants_device().then(|| Chunks::new(graph, width)),
        state: graph.state(StateSpec::Fixed {
            values: width,
            initial: 0.0,
        }),
        h,
    };
    graph.push(operation);
    h
}

pub(crate) struct RgLru {
    pub(crate) x: Tensor,
    pub(crate) r: Tensor,
    pub(crate) i: Tensor,
    pub(crate) lambda: Param,
    /// `[W]`: -c softplus(lambda).
    rates: Saved,
    /// `[B, T, W]` each.
    grad_x: Saved,
    grad_r: Saved,
    grad_i: Saved,
    /// `[B, W]`: of the rates.
    grad_rates: Saved,
    /// `[B, W]`: the state on its way, or its gradient.
    running: Saved,
    /// What only a device needs.
    chunks: Option<Chunks>,
    /// `[W]` a row: h.
    pub(crate) state: State,
    pub(crate) h: Tensor,
}

/// What a row's tokens are computed from.
#[derive(Clone, Copy)]
struct Given<'a> {
    x: Rows<'a>,
    r: Rows<'a>,
    i: Rows<'a>,
    /// `[W]`.
    rates: &'a [f32],
    /// Whether the first token is position 0, where the input is not scaled.
    fresh: bool,
}

impl RgLru {
    fn fill_rates(&self, run: &Run<'_>) {
        let mut rates = run.saved_mut(self.rates);
        for (rate, &lambda) in rates.iter_mut().zip(run.param(self.lambda)) {
            *rate = -C * softplus(lambda);
        }
    }
}

impl Operation for RgLru {
    fn name(&self) -> &'static str {
        "rg_lru"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        self.fill_rates(run);
        let length = run.length();
        let (x, r, i) = (run.value(self.x), run.value(self.r), run.value(self.i));
        let rates = run.saved(self.rates);
        let given = Given {
            x: x.get(),
            r: r.get(),
            i: i.get(),
            rates: &rates,
            fresh: run.position() == 0,
        };
        let width = rates.len();
        let mut running = run.saved_mut(self.running);
        let mut state = run.state(self.state);
        match &state {
            None => running.fill(0.0),
            Some(state) => {
                for (running, state) in running.chunks_exact_mut(width).zip(state.iter()) {
                    running.copy_from_slice(state);
                }
            }
        }
        let mut h = run.value_mut(self.h);
        let tokens = length * width;
        let cuts = (cut(h.data_mut(), tokens), cut(&mut running, width));
        for_each_unit(tokens * WORK, cuts, |row, (h, running)| {
            let given = Given {
                x: given.x.from_row(row * length),
                r: given.r.from_row(row * length),
                i: given.i.from_row(row * length),
                ..given
            };
            advance(given, running, h);
        });
        if let Some(state) = &mut state {
            for (running, state) in running.chunks_exact(width).zip(state.iter_mut()) {
                state.copy_from_slice(running);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.x.into(),
            self.r.into(),
            self.i.into(),
            self.rates.into(),
            self.running.into(),
            self.h.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        let (x, r, i) = (run.value(self.x), run.value(self.r), run.value(self.i));
        let (h, grad_h) = (run.value(self.h), run.grad(self.h));
        let (h, grad_h) = (h.get(), grad_h.get());
        let rates = run.saved(self.rates);
        let given = Given {
            x: x.get(),
            r: r.get(),
            i: i.get(),
            rates: &rates,
            fresh: true,
        };
        let width = rates.len();
        let (mut grad_x, mut grad_r) = (run.saved_mut(self.grad_x), run.saved_mut(self.grad_r));
        let (mut grad_i, mut running) = (run.saved_mut(self.grad_i), run.saved_mut(self.running));
        let mut grad_rates = run.saved_mut(self.grad_rates);
        running.fill(0.0);
        grad_rates.fill(0.0);
        let started = run.started_from(self.state);
        let tokens = length * width;
        let cuts = (
            cut(&mut grad_x, tokens),
            cut(&mut grad_r, tokens),
            cut(&mut grad_i, tokens),
            cut(&mut running, width),
            cut(&mut grad_rates, width),
        );
        for_each_unit(tokens * WORK, cuts, |row, (x, r, i, running, rates)| {
            let given = Given {
                x: given.x.from_row(row * length),
                r: given.r.from_row(row * length),
                i: given.i.from_row(row * length),
                ..given
            };
            let (h, grad_h) = (h.from_row(row * length), grad_h.from_row(row * length));
            let before = started.map_or(&[][..], |rows| rows[row].as_slice());
            retreat(given, before, h, grad_h, running, x, r, i, rates);
        });
        for (tensor, values) in [(self.x, &grad_x), (self.r, &grad_r), (self.i, &grad_i)] {
            let mut place = run.grad_mut(tensor);
            let accumulate = place.accumulate();
            for (row, values) in values.chunks_exact(width).enumerate() {
                if accumulate {
                    add_into(place.row_mut(row), values);
                } else {
                    place.row_mut(row).copy_from_slice(values);
                }
            }
        }
        let mut grad_lambda = run.param_grad(self.lambda);
        let lambda = run.param(self.lambda);
        for grad_rates in grad_rates.chunks_exact(width) {
            for channel in 0..width {
                grad_lambda[channel] += -C * sigmoid(lambda[channel]) * grad_rates[channel];
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::RG_LRU, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let chunks = self.chunks.as_ref().ok_or_else(not_for_a_device)?;
        cuda::forward(self, chunks, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let chunks = self.chunks.as_ref().ok_or_else(not_for_a_device)?;
        cuda::backward(self, chunks, run)
    }
}

fn not_for_a_device() -> PluginError {
    PluginError::internal("the recurrence was recorded for the CPU and runs on a device")
}

/// 1 - e^x for x at most 0, exact to float32 also near 0.
#[inline(always)]
fn one_minus_exp(x: f32) -> f32 {
    // Taylor's series to the sixth power; its remainder is below rounding for |x| < 0.3.
    let series = 1.0 / 720.0;
    let series = f32::mul_add(series, x, 1.0 / 120.0);
    let series = f32::mul_add(series, x, 1.0 / 24.0);
    let series = f32::mul_add(series, x, 1.0 / 6.0);
    let series = f32::mul_add(series, x, 0.5);
    let series = f32::mul_add(series, x, 1.0);
    if x > -0.3 { -x * series } else { 1.0 - exp(x) }
}

simd! {
    /// Writes h `[T, W]` and leaves the last state in `state`.
    fn advance(given: Given<'_>, state: &mut [f32], h: &mut [f32]) {
        let width = state.len();
        let rates = &given.rates[..width];
        for (t, h) in h.chunks_exact_mut(width).enumerate() {
            let (x, r, i) = (given.x.row(t), given.r.row(t), given.i.row(t));
            let (x, r, i) = (&x[..width], &r[..width], &i[..width]);
            let first = given.fresh && t == 0;
            for c in 0..width {
                let log_a = rates[c] * sigmoid(r[c]);
                let scale = if first { 1.0 } else { one_minus_exp(2.0 * log_a).sqrt() };
                let input = scale * sigmoid(i[c]) * x[c];
                state[c] = exp(log_a).mul_add(state[c], input);
                h[c] = state[c];
            }
        }
    }
}

simd! {
    /// Gradients of a row that began with the state `start`, or with 0 where that is empty, last token first.
    /// `carried` is the gradient of the state after the tokens,
    /// here 0; gradients of the inputs are written, that of the rates is added to.
    fn retreat(
        given: Given<'_>,
        start: &[f32],
        h: Rows<'_>,
        grad_h: Rows<'_>,
        carried: &mut [f32],
        grad_x: &mut [f32],
        grad_r: &mut [f32],
        grad_i: &mut [f32],
        grad_rates: &mut [f32],
    ) {
        let width = carried.len();
        let rates = &given.rates[..width];
        let grad_rates = &mut grad_rates[..width];
        for t in (0..grad_x.len() / width).rev() {
            let (x, r, i) = (given.x.row(t), given.r.row(t), given.i.row(t));
            let (x, r, i) = (&x[..width], &r[..width], &i[..width]);
            let dy = &grad_h.row(t)[..width];
            let first = t == 0;
            let afresh = first && start.is_empty();
            let before = if first && !afresh { start } else { h.row(if first { 0 } else { t - 1 }) };
            let before = &before[..width];
            let keep = if afresh { 0.0 } else { 1.0 };
            // The first token's input is not scaled.
            let scaled = if first { 0.0 } else { 1.0 };
            let grad_x = &mut grad_x[t * width..][..width];
            let grad_r = &mut grad_r[t * width..][..width];
            let grad_i = &mut grad_i[t * width..][..width];
            for c in 0..width {
                let (gate_r, gate_i) = (sigmoid(r[c]), sigmoid(i[c]));
                let log_a = rates[c] * gate_r;
                let a = exp(log_a);
                let room = one_minus_exp(2.0 * log_a);
                let scale = if first { 1.0 } else { room.sqrt() };
                let g = dy[c] + carried[c];
                carried[c] = g * a;
                grad_x[c] = g * scale * gate_i;
                grad_i[c] = g * scale * x[c] * gate_i * (1.0 - gate_i);
                // d sqrt(1 - a^2) / d log a = -a^2 / sqrt(1 - a^2), its slope bounded.
                let root_slope = 1.0 / (4.0 * room).max(1.0 / (STEEPEST * STEEPEST)).sqrt();
                let by_scale = scaled * (g * gate_i * x[c] * root_slope * (-2.0 * a * a));
                let grad_log_a = (keep * g * before[c]).mul_add(a, by_scale);
                grad_rates[c] = grad_log_a.mul_add(gate_r, grad_rates[c]);
                grad_r[c] = grad_log_a * rates[c] * gate_r * (1.0 - gate_r);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::one_minus_exp;

    #[test]
    fn one_minus_exp_is_exact_near_zero_and_where_the_forms_meet() {
        for x in [-1e-8f32, -1e-4, -0.1, -0.299, -0.301, -1.0, -16.0, 0.0] {
            let exact = -f64::from(x).exp_m1();
            let error = (f64::from(one_minus_exp(x)) - exact).abs();
            assert!(error <= 3e-7 * exact, "{x}: {error}");
        }
    }
}
