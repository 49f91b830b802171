//! The diagonal scan `h_t = a_t h_{t-1} + b_t`, channel by channel: what linear recurrent units (arXiv 2303.06349),
//! gated ones (arXiv 2311.04823, 2402.19427, 2410.01201) and diagonal state spaces (arXiv 2206.11893, 2208.04933) are
//! made of. Gates, and what makes a and b of parameters, are operations in front of it.

mod device;
mod discretise;
pub mod naive;
mod product;
mod recurrent;
mod systems;
mod systems_device;
mod systems_scan;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::real::Real;
use super::{Carries, Ports, Recurrence, Sequence};
use crate::cuda::rows::ROWS;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run, StateRows, ViewMut};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::simd::add_into;
use crate::units::{cut, for_each_unit};
use device::Chunks;
pub use discretise::Discretisation;
use recurrent::{Before, Given, advance, retreat, transition_gradient};

/// Multiply-adds a token and channel, roughly.
const WORK: usize = 8;

/// What the state is multiplied by at each token: `[B, T, W]`, or a [constant](Graph::constant) of W columns.
#[derive(Debug, Clone, Copy)]
pub enum Transition {
    /// a = e^x, so that it is positive; a decay where x is at most 0.
    Log(Tensor),
    /// a itself, of either sign.
    Signed(Tensor),
    /// Complex numbers, real parts in the first half of the columns and imaginary parts in the second, as in b and
    /// h; [`Graph::polar`] makes them of moduli and angles, [`Graph::discretise`] of continuous systems.
    Complex(Tensor),
}

impl Transition {
    fn parts(self) -> (Kind, Tensor) {
        match self {
            Self::Log(a) => (Kind::Log, a),
            Self::Signed(a) => (Kind::Signed, a),
            Self::Complex(a) => (Kind::Complex, a),
        }
    }
}

/// [`Transition`] without its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Logarithms of positive numbers.
    Log,
    /// Real numbers.
    Signed,
    /// Complex numbers in two halves.
    Complex,
}

impl Graph {
    /// `h = a h + b` over positions, channel by channel, from a state 0: b and the result are `[B, T, W]`, the state
    /// has W values.
    ///
    /// # Panics
    /// If a and b are not equally wide, or an odd number of columns is to be complex.
    #[track_caller]
    pub fn diagonal_scan(&mut self, transition: Transition, b: Tensor) -> Tensor {
        let (kind, a) = transition.parts();
        let width = b.cols();
        assert_eq!(a.cols(), width, "a and b of a scan are of unequal widths");
        assert!(
            kind != Kind::Complex || width.is_multiple_of(2),
            "{width} columns are no real and imaginary parts"
        );
        self.record(Recorded { kind, a, b })
    }
}

/// The scan as a recurrence.
struct Recorded {
    kind: Kind,
    a: Tensor,
    b: Tensor,
}

impl Recurrence for Recorded {
    fn name(&self) -> &'static str {
        "diagonal_scan"
    }

    fn ports(&self) -> Ports {
        let width = self.b.cols();
        Ports {
            inputs: vec![self.a, self.b],
            params: Vec::new(),
            cols: width,
            carries: Carries::State {
                values: width,
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        naive::naive(self.kind, &given.inputs[0], &given.inputs[1], state)
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let &Self { kind, a, b } = self;
        let width = b.cols();
        let h = graph.tensor(width);
        let of_constant = if a.is_constant() { width } else { 0 };
        let scan = Scan {
            kind,
            a,
            b,
            running: graph.saved_on_cpu(Extent::Rows(width)),
            grad: graph.saved_on_cpu(Extent::Tokens(width)),
            sums: graph.saved_on_cpu(Extent::Rows(of_constant)),
            chunks: graph
                .wants_device()
                .then(|| Chunks::new(graph, width, a.is_constant())),
            state: graph.state(StateSpec::Fixed {
                values: width,
                initial: 0.0,
            }),
            h,
        };
        graph.push(scan);
        Some(h)
    }
}

struct Scan {
    kind: Kind,
    a: Tensor,
    b: Tensor,
    /// `[B, W]`: the state on its way, or its gradient.
    running: Saved,
    /// `[B, T, W]`: the gradient of every state.
    grad: Saved,
    /// `[B, W]`: each sequence's share of the gradient of a constant.
    sums: Saved,
    /// What only a device needs.
    chunks: Option<Chunks>,
    /// W values a row: h.
    state: State,
    h: Tensor,
}

impl Operation for Scan {
    fn name(&self) -> &'static str {
        "diagonal_scan"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        let (a, b) = (run.value(self.a), run.value(self.b));
        let (a, b) = (a.get(), b.get());
        let width = b.cols;
        let mut running = run.saved_mut(self.running);
        let mut state = run.state(self.state);
        begin(&mut running, state.as_deref(), width);
        let mut h = run.value_mut(self.h);
        let tokens = length * width;
        let cuts = (cut(h.data_mut(), tokens), cut(&mut running, width));
        for_each_unit(tokens * WORK, cuts, |row, (h, running)| {
            let given = Given {
                kind: self.kind,
                a: a.from_row(row * length),
                b: b.from_row(row * length),
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
            self.a.into(),
            self.b.into(),
            self.running.into(),
            self.h.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        self.state_gradients(run);
        let grad = run.saved(self.grad);
        let grad = &grad[..];
        self.transition_gradients(run, grad);
        let mut place = run.grad_mut(self.b);
        let width = self.b.cols();
        for_each_token_row(&mut place, run.length(), |token, add, to| {
            let grad = &grad[token * width..][..width];
            if add {
                add_into(to, grad);
            } else {
                to.copy_from_slice(grad);
            }
        });
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&device::DIAGONAL, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        device::forward(self, self.chunks()?, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        device::backward(self, self.chunks()?, run)
    }
}

impl Scan {
    /// Fills the gradient of every state.
    fn state_gradients(&self, run: &Run<'_>) {
        let length = run.length();
        let (a, dh) = (run.value(self.a), run.grad(self.h));
        let (a, dh) = (a.get(), dh.get());
        let width = dh.cols;
        let (mut grad, mut running) = (run.saved_mut(self.grad), run.saved_mut(self.running));
        running.fill(0.0);
        let tokens = length * width;
        let cuts = (cut(&mut grad, tokens), cut(&mut running, width));
        for_each_unit(tokens * WORK, cuts, |row, (grad, carried)| {
            let given = Given {
                kind: self.kind,
                a: a.from_row(row * length),
                b: dh.from_row(row * length),
            };
            retreat(given, carried, grad);
        });
    }

    /// Adds the gradient of a, from those of every state.
    fn transition_gradients(&self, run: &Run<'_>, grad: &[f32]) {
        let length = run.length();
        let (a, h) = (run.value(self.a), run.value(self.h));
        let (a, h) = (a.get(), h.get());
        let width = h.cols;
        let started = run.started_from(self.state);
        let share = |row: usize, t: usize, add: bool, to: &mut [f32]| {
            let given = Given {
                kind: self.kind,
                a: a.from_row(row * length),
                b: h,
            };
            let before = Before {
                start: started.map_or(&[][..], |rows| rows[row].as_slice()),
                h: h.from_row(row * length),
            };
            let grad = &grad[(row * length + t) * width..][..width];
            transition_gradient(given, before, t, grad, add, to);
        };
        let mut place = run.grad_mut(self.a);
        if !self.a.is_constant() {
            for_each_token_row(&mut place, length, |token, add, to| {
                share(token / length, token % length, add, to);
            });
            return;
        }
        let mut sums = run.saved_mut(self.sums);
        for_each_unit(length * width, cut(&mut sums, width), |row, sums| {
            sums.fill(0.0);
            (0..length).for_each(|t| share(row, t, true, sums));
        });
        if !place.accumulate() {
            place.row_mut(0).fill(0.0);
        }
        for sums in sums.chunks_exact(width) {
            add_into(place.row_mut(0), sums);
        }
    }

    fn chunks(&self) -> Result<&Chunks> {
        self.chunks.as_ref().ok_or_else(|| {
            PluginError::internal("the scan was recorded for the CPU and runs on a device")
        })
    }
}

/// Fills the states `[B, W]` that sequences start from: those given, or 0.
fn begin(running: &mut [f32], state: Option<&StateRows>, width: usize) {
    match state {
        None => running.fill(0.0),
        Some(state) => {
            for (running, state) in running.chunks_exact_mut(width).zip(state.iter()) {
                running.copy_from_slice(state);
            }
        }
    }
}

/// Calls `work(token, add, columns)` for the row of every token, sequences beside each other.
fn for_each_token_row(
    place: &mut ViewMut<'_>,
    length: usize,
    work: impl Fn(usize, bool, &mut [f32]) + Sync,
) {
    let (add, stride, cols) = (place.accumulate(), place.stride(), place.cols());
    let cuts = cut(place.data_mut(), length * stride);
    for_each_unit(length * cols, cuts, |row, piece| {
        for (t, to) in piece.chunks_mut(stride).enumerate() {
            work(row * length + t, add, &mut to[..cols]);
        }
    });
}
