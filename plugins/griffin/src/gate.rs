//! The gates of the real-gated linear recurrent unit as one operation, which gives the logarithm of the decay and the
//! input of the kit's diagonal scan.

use longhaul_plugin_kit::cuda::rows::{ROWS, parts};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, Rows};
use longhaul_plugin_kit::recurrences::diagonal::Transition;
use longhaul_plugin_kit::simd::{add_into, exp, sigmoid, softplus};
use longhaul_plugin_kit::units::{cut, for_each_unit};
use longhaul_plugin_kit::{
    Buffer, Carries, Extent, Graph, Operation, Param, PluginError, Ports, Real, Recurrence, Result,
    Run, Saved, Sequence, Tensor, simd,
};

use crate::cuda;

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
    graph.record(RgLru { x, r, i, lambda })
}

struct RgLru {
    x: Tensor,
    r: Tensor,
    i: Tensor,
    lambda: Param,
}

impl Recurrence for RgLru {
    fn name(&self) -> &'static str {
        "rg_lru"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.x, self.r, self.i],
            params: vec![self.lambda],
            cols: self.x.cols(),
            carries: Carries::State {
                values: self.x.cols(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let inputs = [0, 1, 2].map(|input| &given.inputs[input][..]);
        crate::reference::recurrence(inputs, &given.params[0], given.position, state)
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let &Self { x, r, i, lambda } = self;
        let width = x.cols();
        let (log_a, b) = (graph.tensor(width), graph.tensor(width));
        let gate = Gate {
            x,
            r,
            i,
            lambda,
            rates: graph.saved_on_cpu(Extent::Fixed(width)),
            grads: graph.saved_on_cpu(Extent::Tokens(3 * width)),
            grad_rates: graph.saved_on_cpu(Extent::Rows(width)),
            sums: graph.wants_device().then(|| Sums {
                shares: graph.saved(Extent::Tokens(width)),
                parts: parts(graph, width),
            }),
            log_a,
            b,
        };
        graph.push(gate);
        Some(graph.diagonal_scan(Transition::Log(log_a), b))
    }
}

pub(crate) struct Gate {
    pub(crate) x: Tensor,
    pub(crate) r: Tensor,
    pub(crate) i: Tensor,
    pub(crate) lambda: Param,
    /// `[W]`: -c softplus(lambda).
    rates: Saved,
    /// `[B, T, 3 W]`: gradients of x, r and i.
    grads: Saved,
    /// `[B, W]`: of the rates.
    grad_rates: Saved,
    /// What only a device needs.
    sums: Option<Sums>,
    pub(crate) log_a: Tensor,
    pub(crate) b: Tensor,
}

/// Room for lambda's gradient on a device.
pub(crate) struct Sums {
    /// `[B, T, W]`: each token's share.
    pub(crate) shares: Saved,
    pub(crate) parts: Saved,
}

/// What a sequence's tokens are computed from.
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

impl<'a> Given<'a> {
    fn starting_at(self, row: usize) -> Self {
        Self {
            x: self.x.from_row(row),
            r: self.r.from_row(row),
            i: self.i.from_row(row),
            ..self
        }
    }

    #[inline(always)]
    fn token(self, t: usize) -> (&'a [f32], &'a [f32], &'a [f32]) {
        let width = self.rates.len();
        (
            &self.x.row(t)[..width],
            &self.r.row(t)[..width],
            &self.i.row(t)[..width],
        )
    }
}

impl Operation for Gate {
    fn name(&self) -> &'static str {
        "rg_lru_gate"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        {
            let mut rates = run.saved_mut(self.rates);
            for (rate, &lambda) in rates.iter_mut().zip(run.param(self.lambda)) {
                *rate = -C * softplus(lambda);
            }
        }
        let (x, r, i) = (run.value(self.x), run.value(self.r), run.value(self.i));
        let rates = run.saved(self.rates);
        let given = Given {
            x: x.get(),
            r: r.get(),
            i: i.get(),
            rates: &rates,
            fresh: run.position() == 0,
        };
        let (mut log_a, mut b) = (run.value_mut(self.log_a), run.value_mut(self.b));
        let tokens = length * rates.len();
        let cuts = (cut(log_a.data_mut(), tokens), cut(b.data_mut(), tokens));
        for_each_unit(tokens * WORK, cuts, |row, (log_a, b)| {
            open(given.starting_at(row * length), log_a, b);
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.x.into(),
            self.r.into(),
            self.i.into(),
            self.rates.into(),
            self.log_a.into(),
            self.b.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        let (x, r, i) = (run.value(self.x), run.value(self.r), run.value(self.i));
        let (grad_a, grad_b) = (run.grad(self.log_a), run.grad(self.b));
        let (grad_a, grad_b) = (grad_a.get(), grad_b.get());
        let rates = run.saved(self.rates);
        let given = Given {
            x: x.get(),
            r: r.get(),
            i: i.get(),
            rates: &rates,
            fresh: true,
        };
        let width = rates.len();
        let (mut grads, mut grad_rates) =
            (run.saved_mut(self.grads), run.saved_mut(self.grad_rates));
        grad_rates.fill(0.0);
        let tokens = length * width;
        let cuts = (cut(&mut grads, 3 * tokens), cut(&mut grad_rates, width));
        for_each_unit(tokens * WORK, cuts, |row, (grads, rates)| {
            let first = row * length;
            let (grad_a, grad_b) = (grad_a.from_row(first), grad_b.from_row(first));
            close(
                given.starting_at(first),
                grad_a.data,
                grad_b.data,
                grads,
                rates,
            );
        });
        for (place, tensor) in [self.x, self.r, self.i].into_iter().enumerate() {
            let mut grad = run.grad_mut(tensor);
            let accumulate = grad.accumulate();
            for (row, values) in grads.chunks_exact(3 * width).enumerate() {
                let values = &values[place * width..][..width];
                if accumulate {
                    add_into(grad.row_mut(row), values);
                } else {
                    grad.row_mut(row).copy_from_slice(values);
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

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::RG_LRU_GATE, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        cuda::forward(self, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let sums = self.sums.as_ref().ok_or_else(|| {
            PluginError::internal("the gates were recorded for the CPU and run on a device")
        })?;
        cuda::backward(self, sums, run)
    }
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
    /// Writes log a and b, `[T, W]` each.
    fn open(given: Given<'_>, log_a: &mut [f32], b: &mut [f32]) {
        let width = given.rates.len();
        let rates = &given.rates[..width];
        for (t, (log_a, b)) in log_a.chunks_exact_mut(width).zip(b.chunks_exact_mut(width)).enumerate() {
            let (x, r, i) = given.token(t);
            let first = given.fresh && t == 0;
            for c in 0..width {
                log_a[c] = rates[c] * sigmoid(r[c]);
                let scale = if first { 1.0 } else { one_minus_exp(2.0 * log_a[c]).sqrt() };
                b[c] = scale * sigmoid(i[c]) * x[c];
            }
        }
    }
}

simd! {
    /// From the gradients of log a and b `[T, W]` to those of x, r and i `[T, 3, W]`, which are written, and of the
    /// rates `[W]`, which are added to.
    fn close(given: Given<'_>, grad_a: &[f32], grad_b: &[f32], grads: &mut [f32], grad_rates: &mut [f32]) {
        let width = grad_rates.len();
        let rates = &given.rates[..width];
        for (t, grads) in grads.chunks_exact_mut(3 * width).enumerate() {
            let (x, r, i) = given.token(t);
            let (grad_a, grad_b) = (&grad_a[t * width..][..width], &grad_b[t * width..][..width]);
            let (grad_x, rest) = grads.split_at_mut(width);
            let (grad_r, grad_i) = rest.split_at_mut(width);
            let grad_i = &mut grad_i[..width];
            // The first token's input is not scaled.
            let first = given.fresh && t == 0;
            let scaled = if first { 0.0 } else { 1.0 };
            for c in 0..width {
                let (gate_r, gate_i) = (sigmoid(r[c]), sigmoid(i[c]));
                let room = one_minus_exp(2.0 * rates[c] * gate_r);
                let scale = if first { 1.0 } else { room.sqrt() };
                grad_x[c] = grad_b[c] * scale * gate_i;
                grad_i[c] = grad_x[c] * x[c] * (1.0 - gate_i);
                // d sqrt(1 - a^2) / d log a = -a^2 / sqrt(1 - a^2), its slope bounded.
                let root_slope = 1.0 / (4.0 * room).max(1.0 / (STEEPEST * STEEPEST)).sqrt();
                let by_scale = scaled * (grad_b[c] * gate_i * x[c] * root_slope * (-2.0 * (1.0 - room)));
                let grad_log_a = grad_a[c] + by_scale;
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
