//! Sums over positions that stay exact over very many of them: each is two floats.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, State, StateSpec, Tensor};
use crate::kernel_params;
use crate::recurrences::real::Real;
use crate::recurrences::{Carries, Ports, Recurrence, Sequence};
use crate::units::{cut, for_each_unit};

impl Graph {
    /// The sum of x `[B, T, W]` over the positions up to each: `[B, T, 2 W]`, the sums rounded to float32 and then
    /// what the rounding left. The two together have 48 bits, so that the difference of two sums, first parts from
    /// each other and then second ones, is as exact as a float32 however long the sums are. Its state is the last.
    #[track_caller]
    pub fn running_sum(&mut self, x: Tensor) -> Tensor {
        self.record(RunningSum { x })
    }
}

/// The sum as a recurrence.
struct RunningSum {
    x: Tensor,
}

impl Recurrence for RunningSum {
    fn name(&self) -> &'static str {
        "running_sum"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.x],
            params: Vec::new(),
            cols: 2 * self.x.cols(),
            carries: Carries::State {
                values: 2 * self.x.cols(),
                initial: 0.0,
            },
        }
    }

    /// Exact numbers need no second part: it is what it was, 0 at first.
    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let mut sums = Vec::with_capacity(2 * given.inputs[0].len());
        for t in 0..given.length {
            for (sum, &x) in state.iter_mut().zip(given.token(0, t)) {
                *sum += x;
            }
            sums.extend_from_slice(state);
        }
        sums
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let cols = self.x.cols();
        let sums = graph.tensor(2 * cols);
        let state = graph.state(StateSpec::Fixed {
            values: 2 * cols,
            initial: 0.0,
        });
        graph.push(Summing {
            x: self.x,
            state,
            sums,
        });
        Some(sums)
    }
}

static SOURCE: KernelSource = KernelSource {
    file: "running_sum.cu",
    text: include_str!("../../kernels/running_sum.cu"),
    params: &[RunningSumValues::CPP],
};

kernel_params! {
    struct RunningSumValues {
        x: *const Stored, // [B, T, W], in the backward pass the gradient of the first W columns of the sums
        to: *mut Stored,                           // [B, T, 2 W]; in the backward pass [B, T, W], the gradient of x
        state: *mut f32,                           // [B, 2 W], or null in training
        x_stride: u64, to_stride: u64, count: u64, // count: B W
        length: u32, cols: u32, accumulate: u32, unused: u32,
    }
}

struct Summing {
    x: Tensor,
    /// A row's last sums, first parts then second ones.
    state: State,
    sums: Tensor,
}

/// Writes a sum in two parts, `width` places from each other.
fn put(sum: f64, place: &mut [f32], width: usize) {
    place[0] = sum as f32;
    place[width] = (sum - f64::from(place[0])) as f32;
}

impl Operation for Summing {
    fn name(&self) -> &'static str {
        "running_sum"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let (x, length, width) = (x.get(), run.length(), self.x.cols());
        let mut state = run.state(self.state);
        let starts: Vec<Vec<f64>> = (0..run.rows())
            .map(|row| match &state {
                None => vec![0.0; width],
                Some(state) => {
                    let (first, second) = state[row].split_at(width);
                    let parts = first.iter().zip(second);
                    parts.map(|(&a, &b)| f64::from(a) + f64::from(b)).collect()
                }
            })
            .collect();
        let mut sums = run.value_mut(self.sums);
        let tokens = 2 * length * width;
        for_each_unit(tokens, cut(sums.data_mut(), tokens), |row, sums| {
            let mut totals = starts[row].clone();
            for (t, sums) in sums.chunks_exact_mut(2 * width).enumerate() {
                for (c, (total, x)) in totals.iter_mut().zip(x.row(row * length + t)).enumerate() {
                    *total += f64::from(*x);
                    put(*total, &mut sums[c..], width);
                }
            }
        });
        if let (Some(state), true) = (&mut state, length > 0) {
            let rows = sums.data_mut().chunks_exact(tokens);
            for (state, sums) in state.iter_mut().zip(rows) {
                state.copy_from_slice(&sums[tokens - 2 * width..]);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some([self.x, self.sums].map(Buffer::from).to_vec())
    }

    /// The gradient of the first parts is that of the sums: second parts only round them.
    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad = run.grad(self.sums);
        let (grad, length) = (grad.get(), run.length());
        let mut place = run.grad_mut(self.x);
        let (add, stride, width) = (place.accumulate(), place.stride(), place.cols());
        let cuts = cut(place.data_mut(), length * stride);
        for_each_unit(length * width, cuts, |row, piece| {
            let mut totals = vec![0.0; width];
            for (t, to) in piece.chunks_mut(stride).enumerate().rev() {
                let grad = grad.row(row * length + t);
                for ((to, total), &grad) in to.iter_mut().zip(&mut totals).zip(grad) {
                    *total += f64::from(grad);
                    *to = *total as f32 + if add { *to } else { 0.0 };
                }
            }
        });
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, sums) = (run.value(self.x), run.value(self.sums));
        let state = run.state(self.state);
        let state = state.map_or(Ptr::default(), |state| state.data);
        self.launch(run, "running_sum_forward", x, sums, state, false)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (grad, accumulate) = run.grad_mut(self.x)?;
        let sums = run.grad(self.sums)?;
        let none = Ptr::default();
        self.launch(run, "running_sum_backward", sums, grad, none, accumulate)
    }
}

impl Summing {
    fn launch(
        &self,
        run: &CudaRun<'_>,
        name: &'static str,
        x: DeviceRows,
        to: DeviceRows,
        state: Ptr,
        accumulate: bool,
    ) -> Result<()> {
        let count = run.rows() * self.x.cols();
        let params = RunningSumValues {
            x: x.data,
            to: to.data,
            state,
            x_stride: x.stride as u64,
            to_stride: to.stride as u64,
            count: count as u64,
            length: run.length() as u32,
            cols: self.x.cols() as u32,
            accumulate: accumulate.into(),
            unused: 0,
        };
        // A warp for each.
        run.launch(&SOURCE, name, Launch::for_each(32 * count), &params)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use crate::testing::fed;

    /// Over 2^20 tokens, read in pieces of 1,000, differences of neighbouring sums and of sums 1,000 tokens apart are
    /// those of float64: a float32 sum that long is a hundredth off, in every difference.
    #[test]
    fn sums_over_a_million_tokens_keep_their_small_differences() {
        let length = 1 << 20;
        let x: Vec<f32> = (0..length).map(|t| 0.7 + (t as f32).sin() * 0.5).collect();
        let sums = fed(&|graph, x| graph.running_sum(x[0]), length, &[1, 1000], &x);
        let sum = |t: usize| f64::from(sums[2 * t]) + f64::from(sums[2 * t + 1]);
        let mut exact = vec![0.0; length];
        let mut total = 0.0;
        for (exact, &x) in exact.iter_mut().zip(&x) {
            total += f64::from(x);
            *exact = total;
        }
        for t in 1000..length {
            for before in [t - 1, t - 1000] {
                let off = (sum(t) - sum(before)) - (exact[t] - exact[before]);
                assert!(off.abs() < 1e-6, "{off} off from {before} to {t}");
            }
        }
        let off = sum(length - 1) - total;
        assert!(off.abs() < 1e-5, "{off} off after {length} tokens");
    }
}
