//! A running sum of angles as cosines and sines: the rotation that has come together since the first token, where
//! every token turns by its own angle (arXiv 2603.15569, section 3.2). Sums are integers, a turn being 2^32, so they are
//! exact modulo a turn after any number of tokens, and the same however tokens are cut into pieces.

use longhaul_plugin_api::author::Result;

use super::real::Real;
use super::{Carries, Ports, Recurrence, Sequence};
use crate::cuda::device::{Launch, Ptr, Stored};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::kernel_params;
use crate::simd;

static SOURCE: KernelSource = KernelSource {
    file: "turns.cu",
    text: include_str!("../../kernels/turns.cu"),
    params: &[TurnsParams::CPP],
};

kernel_params! {
    struct TurnsParams {
        rate: *const Stored, step: *const Stored, // [B, T, n], [B, T, H]
        y: *mut Stored,                           // [B, T, 2, H n], contiguous: cosines, then sines
        dy: *const Stored,                        // [B, T, 2, H n]
        state: *mut f32, // [B, 2, H n] or null: high and low sixteen bits of the sums, as fractions of a turn
        grads: *mut f32,                                // [B, T, H n]: gradients of the angles
        grad_rate: *mut Stored, grad_step: *mut Stored, // [B, T, n], [B, T, H]
        rate_stride: u64, step_stride: u64, dy_stride: u64, grad_rate_stride: u64, grad_step_stride: u64, rows: u64,
        length: u64,
        heads: u32, angles: u32, adds_rate: u32, adds_step: u32,
    }
}

impl Graph {
    /// Cosines, then sines, `[2 heads * n]`, of `2 pi` times the sum of `rate * step` over all tokens up to this one:
    /// rate `[n]` in turns a unit of step, step `[heads]`. Its state is the sums, modulo 1.
    ///
    /// # Panics
    /// If rate or step is a constant.
    #[track_caller]
    pub fn running_turns(&mut self, rate: Tensor, step: Tensor) -> Tensor {
        assert!(
            !rate.is_constant() && !step.is_constant(),
            "the angles of a running sum must have a row for every position"
        );
        self.record(Turns { rate, step })
    }
}

struct Turns {
    rate: Tensor,
    step: Tensor,
}

impl Turns {
    /// Sums that run beside each other.
    fn sums(&self) -> usize {
        self.rate.cols() * self.step.cols()
    }
}

/// What the high one of two parts of a sum counts: sixteen bits of a turn.
const HIGH: f64 = 65536.0;

impl Recurrence for Turns {
    fn name(&self) -> &'static str {
        "running_turns"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.rate, self.step],
            params: Vec::new(),
            cols: 2 * self.sums(),
            carries: Carries::State {
                values: 2 * self.sums(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let sums = self.sums();
        let (high, low) = state.split_at_mut(sums);
        let mut y = Vec::with_capacity(2 * sums * given.length);
        for t in 0..given.length {
            let (rates, steps) = (given.token(0, t), given.token(1, t));
            let turns = steps
                .iter()
                .flat_map(|&step| rates.iter().map(move |&rate| rate * step));
            for ((turn, high), low) in turns.zip(&mut *high).zip(&mut *low) {
                let sum = *high + *low + turn;
                let sum = sum - sum.value().floor();
                *high = N::from((sum.value() * HIGH).floor() / HIGH);
                *low = sum - *high;
            }
            let all = || high.iter().zip(low.iter());
            let angle = |(&high, &low): (&N, &N)| (high + low) * std::f64::consts::TAU;
            y.extend(all().map(|sum| angle(sum).cos()));
            y.extend(all().map(|sum| angle(sum).sin()));
        }
        y
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let sums = self.sums();
        let y = graph.tensor(2 * sums);
        let operation = RunningTurns {
            rate: self.rate,
            step: self.step,
            running: graph.saved_on_cpu(Extent::Rows(sums)),
            grads: graph
                .wants_device()
                .then(|| graph.saved(Extent::Tokens(sums))),
            state: graph.state(StateSpec::Fixed {
                values: 2 * sums,
                initial: 0.0,
            }),
            y,
        };
        graph.push(operation);
        Some(y)
    }
}

struct RunningTurns {
    rate: Tensor,
    step: Tensor,
    /// `[B, heads * n]`: sums as the bits of integers; their gradients on the way back.
    running: Saved,
    /// `[B, T, heads * n]`: gradients of the angles, on a device.
    grads: Option<Saved>,
    /// `[2, heads * n]` a row: the high sixteen bits of each sum, then the low ones, as fractions of a turn.
    state: State,
    y: Tensor,
}

simd! {
    /// Adds a token's angles to the sums, integers as their bits, and writes cosines and sines.
    fn advance(rate: &[f32], step: &[f32], sums: &mut [f32], y: &mut [f32]) {
        let (cosines, sines) = y.split_at_mut(sums.len());
        let n = rate.len();
        let heads = step.iter().zip(sums.chunks_exact_mut(n));
        let places = cosines.chunks_exact_mut(n).zip(sines.chunks_exact_mut(n));
        for ((step, sums), (cosines, sines)) in heads.zip(places) {
            for (((rate, sum), cosine), sine) in rate.iter().zip(sums).zip(cosines).zip(sines) {
                let total = sum.to_bits().wrapping_add(fixed(rate * step));
                *sum = f32::from_bits(total);
                (*cosine, *sine) = rotation(total);
            }
        }
    }
}

/// A number of turns modulo 1, as an integer.
#[inline(always)]
fn fixed(turns: f32) -> u32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let rest = turns - ((turns + MAGIC) - MAGIC);
    (rest * 4_294_967_296.0) as i32 as u32
}

/// Cosine and sine of an angle: quarters of a turn by symmetry, and Taylor's series up to an eighth.
#[inline(always)]
fn rotation(turns: u32) -> (f32, f32) {
    let quarter = turns.wrapping_add(1 << 29) >> 30;
    let rest = turns.wrapping_sub(quarter << 30) as i32;
    let x = rest as f32 * (std::f32::consts::TAU / 4_294_967_296.0);
    let square = x * x;
    let sine = (2.755_731_9e-6_f32)
        .mul_add(square, -1.984_127e-4)
        .mul_add(square, 8.333_333e-3)
        .mul_add(square, -0.166_666_67)
        .mul_add(square * x, x);
    let cosine = (-2.755_732e-7_f32)
        .mul_add(square, 2.480_158_7e-5)
        .mul_add(square, -1.388_888_9e-3)
        .mul_add(square, 4.166_666_8e-2)
        .mul_add(square, -0.5)
        .mul_add(square, 1.0);
    let (a, b) = if quarter & 1 == 0 {
        (cosine, sine)
    } else {
        (sine, cosine)
    };
    let flip = |value: f32, flips: bool| if flips { -value } else { value };
    (flip(a, (quarter + 1) & 2 != 0), flip(b, quarter & 2 != 0))
}

simd! {
    /// Adds to the gradients of the sums what a token's cosines and sines add, and gives those of its rate and step.
    fn retreat(
        turned: [&[f32]; 2],
        rate: &[f32],
        step: &[f32],
        sums: &mut [f32],
        grad_rate: &mut [f32],
        grad_step: &mut [f32],
    ) {
        let ([y, dy], n, all) = (turned, rate.len(), sums.len());
        for (head, sums) in sums.chunks_exact_mut(n).enumerate() {
            let (at, also) = (head * n..(head + 1) * n, all + head * n..all + (head + 1) * n);
            let (cosines, sines) = (&y[at.clone()], &y[also.clone()]);
            let (grad_cosines, grad_sines) = (&dy[at], &dy[also]);
            for i in 0..n {
                let grad = cosines[i] * grad_sines[i] - sines[i] * grad_cosines[i];
                sums[i] = grad.mul_add(std::f32::consts::TAU, sums[i]);
                grad_rate[i] = sums[i].mul_add(step[head], grad_rate[i]);
            }
            grad_step[head] += simd::dot(sums, rate);
        }
    }
}

impl Operation for RunningTurns {
    fn name(&self) -> &'static str {
        "running_turns"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (rate, step) = (run.value(self.rate), run.value(self.step));
        let (rate, step) = (rate.get(), step.get());
        let mut y = run.value_mut(self.y);
        let mut running = run.saved_mut(self.running);
        let mut state = run.state(self.state);
        let sums = rate.cols * step.cols;
        for row in 0..run.rows() {
            let totals = &mut running[row * sums..][..sums];
            totals.fill(0.0);
            if let Some(state) = &state {
                let (high, low) = state[row].split_at(sums);
                for (total, (high, low)) in totals.iter_mut().zip(high.iter().zip(low)) {
                    let high = (high * HIGH as f32) as u32;
                    *total = f32::from_bits((high << 16) | (low * 4_294_967_296.0) as u32);
                }
            }
            for at in row * run.length()..(row + 1) * run.length() {
                advance(rate.row(at), step.row(at), totals, y.row_mut(at));
            }
            if let Some(state) = &mut state {
                let (high, low) = state[row].split_at_mut(sums);
                for (total, (high, low)) in totals.iter().zip(high.iter_mut().zip(low)) {
                    let total = total.to_bits();
                    *high = (total >> 16) as f32 / HIGH as f32;
                    *low = (total & 0xffff) as f32 / 4_294_967_296.0;
                }
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let tensors = [self.rate, self.step, self.y].map(Buffer::from);
        Some([&tensors[..], &[self.running.into()]].concat())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (rate, step) = (run.value(self.rate), run.value(self.step));
        let (rate, step) = (rate.get(), step.get());
        let (y, dy) = (run.value(self.y), run.grad(self.y));
        let (y, dy) = (y.get(), dy.get());
        let mut running = run.saved_mut(self.running);
        let mut grad_rate = run.grad_mut(self.rate);
        let mut grad_step = run.grad_mut(self.step);
        let sums = &mut running[..rate.cols * step.cols];
        for row in 0..run.rows() {
            sums.fill(0.0);
            for at in (row * run.length()..(row + 1) * run.length()).rev() {
                for grad in [&mut grad_rate, &mut grad_step] {
                    if !grad.accumulate() {
                        grad.row_mut(at).fill(0.0);
                    }
                }
                let places = (grad_rate.row_mut(at), grad_step.row_mut(at));
                let turned = [y.row(at), dy.row(at)];
                retreat(turned, rate.row(at), step.row(at), sums, places.0, places.1);
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let params = self.params(run);
        let launch = Launch::for_each(run.rows() * self.y.cols() / 2);
        run.launch(&SOURCE, "turns", launch, &params)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let Some(grads) = self.grads else {
            return Ok(());
        };
        let dy = run.grad(self.y)?;
        let (rate, adds_rate) = run.grad_mut(self.rate)?;
        let (step, adds_step) = run.grad_mut(self.step)?;
        let params = TurnsParams {
            dy: dy.data,
            dy_stride: dy.stride as u64,
            grads: run.saved(grads),
            grad_rate: rate.data,
            grad_rate_stride: rate.stride as u64,
            grad_step: step.data,
            grad_step_stride: step.stride as u64,
            adds_rate: adds_rate.into(),
            adds_step: adds_step.into(),
            ..self.params(run)
        };
        let launch = Launch::for_each(run.rows() * self.y.cols() / 2);
        run.launch(&SOURCE, "turns_gradient", launch, &params)?;
        let launch = Launch::for_each(dy.rows * (rate.cols + step.cols));
        run.launch(&SOURCE, "turns_shares", launch, &params)
    }
}

impl RunningTurns {
    /// Those of the forward pass.
    fn params(&self, run: &CudaRun<'_>) -> TurnsParams {
        let (rate, step) = (run.value(self.rate), run.value(self.step));
        let nowhere = Ptr::default();
        TurnsParams {
            rate: rate.data,
            step: step.data,
            y: run.value(self.y).data,
            dy: nowhere,
            state: run.state(self.state).map_or(nowhere, |state| state.data),
            grads: nowhere,
            grad_rate: nowhere,
            grad_step: nowhere,
            rate_stride: rate.stride as u64,
            step_stride: step.stride as u64,
            dy_stride: 0,
            grad_rate_stride: 0,
            grad_step_stride: 0,
            rows: run.rows() as u64,
            length: run.length() as u64,
            heads: step.cols as u32,
            angles: rate.cols as u32,
            adds_rate: 0,
            adds_step: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{advance, rotation};

    #[test]
    fn sums_of_a_million_tokens_are_exact() {
        // In float32 these steps would be lost beside a sum of whole turns.
        let (rate, step) = ([1.0f32 / 3.0, -0.49], [0.7f32, 1.0 / 1024.0]);
        let (mut sums, mut y) = ([0.0f32; 4], [0.0f32; 8]);
        let tokens = 1 << 20;
        for _ in 0..tokens {
            advance(&rate, &step, &mut sums, &mut y);
        }
        for index in 0..4 {
            let turns = f64::from(rate[index % 2] * step[index / 2]);
            // What a token's angle loses by being rounded to 2^-32 turns.
            let rounded = (turns * 4_294_967_296.0).trunc() / 4_294_967_296.0;
            let angle = (rounded * f64::from(tokens)).fract() * std::f64::consts::TAU;
            for (got, exact) in [(y[index], angle.cos()), (y[4 + index], angle.sin())] {
                assert!(
                    (f64::from(got) - exact).abs() < 2e-7,
                    "{index}: {got} {exact}"
                );
            }
            assert!((rounded - turns).abs() * f64::from(tokens) < 2.5e-4);
        }
    }

    #[test]
    fn rotations_all_around() {
        for step in 0..4096u32 {
            let turns = step.wrapping_mul(1_048_579);
            let angle = f64::from(turns) / 4_294_967_296.0 * std::f64::consts::TAU;
            let (cosine, sine) = rotation(turns);
            assert!((f64::from(cosine) - angle.cos()).abs() < 1.5e-7, "{turns}");
            assert!((f64::from(sine) - angle.sin()).abs() < 1.5e-7, "{turns}");
        }
    }
}
