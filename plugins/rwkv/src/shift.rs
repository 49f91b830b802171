//! Token shift: blends of each position with the one before, several from one input. Its state is
//! the last input. The position before the first is 0.

mod cuda;

use std::array::from_fn;

use longhaul_plugin_kit::cuda::rows::{ROWS, parts};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, Rows, View};
use longhaul_plugin_kit::rows::for_pieces;
use longhaul_plugin_kit::{
    Buffer, Graph, Operation, Param, Result, Run, Saved, State, StateSpec, Tensor, simd,
};

/// Most blends of one input.
const MOST: usize = 8;

/// What a blend's weight m is the weight of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weighs {
    /// `m x[t] + (1 - m) x[t - 1]`: RWKV-4.
    Current,
    /// `(1 - m) x[t] + m x[t - 1]`: RWKV-6 and 7.
    Previous,
}

/// A blend's weights.
#[derive(Clone, Copy)]
pub(crate) enum Mix {
    /// `[D]`, the same at every position.
    Channel(Param),
    /// `[B, T, D]`.
    Token(Tensor),
}

/// The slot for the last input of width `cols`.
pub(crate) fn shift_state(graph: &mut Graph, cols: usize) -> State {
    graph.state(StateSpec::Fixed {
        values: cols,
        initial: 0.0,
    })
}

/// The last input, and whether this operation is the last of its position that reads it.
#[derive(Clone, Copy)]
pub(crate) struct Last {
    pub state: State,
    /// Whether the operation leaves the new last input there.
    pub renew: bool,
}

/// Records the blends of x `[B, T, D]`, each `[B, T, D]`.
pub(crate) fn token_shift(
    graph: &mut Graph,
    x: Tensor,
    last: Last,
    weighs: Weighs,
    mixes: &[Mix],
) -> Vec<Tensor> {
    assert!(mixes.len() <= MOST, "{} blends of one input", mixes.len());
    let outputs: Vec<(Mix, Tensor)> = mixes
        .iter()
        .map(|&mix| (mix, graph.tensor(x.cols())))
        .collect();
    let results = outputs.iter().map(|output| output.1).collect();
    let summed = mixes.iter().filter(|mix| matches!(mix, Mix::Channel(_)));
    let summed = summed.count() * x.cols();
    let parts = (summed > 0 && graph.wants_device()).then(|| parts(graph, summed));
    graph.push(TokenShift {
        x,
        outputs,
        current: weighs == Weighs::Current,
        last,
        parts,
    });
    results
}

struct TokenShift {
    x: Tensor,
    outputs: Vec<(Mix, Tensor)>,
    current: bool,
    /// `[D]` a row: the last input.
    last: Last,
    /// Sums of the gradients of weights that are parameters, on a device.
    parts: Option<Saved>,
}

/// Weights as rows.
enum Weights<'a> {
    Channel(&'a [f32]),
    Token(View<'a>),
}

impl Weights<'_> {
    fn new<'a>(mix: Mix, run: &Run<'a>) -> Weights<'a> {
        match mix {
            Mix::Channel(param) => Weights::Channel(run.param(param)),
            Mix::Token(tensor) => Weights::Token(run.value(tensor)),
        }
    }

    /// A matrix with a row a position; the same row each time where the distance is 0.
    fn rows(&self) -> Rows<'_> {
        match self {
            Weights::Channel(values) => Rows {
                data: values,
                cols: values.len(),
                stride: 0,
            },
            Weights::Token(view) => view.get(),
        }
    }
}

impl Operation for TokenShift {
    fn name(&self) -> &'static str {
        "token_shift"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        let x = run.value(self.x);
        let x = x.get();
        let cols = x.cols;
        let mut state = run.state(self.last.state);
        let history = state.as_deref().map(Vec::as_slice);
        for &(mix, y) in &self.outputs {
            let weights = Weights::new(mix, run);
            let weights = weights.rows();
            for_pieces(run.value_mut(y).data_mut(), cols, |first, piece| {
                for (offset, y) in piece.chunks_exact_mut(cols).enumerate() {
                    let at = first + offset;
                    let previous = if at % length > 0 {
                        x.row(at - 1)
                    } else {
                        history.map_or(&[][..], |rows| rows[at / length].as_slice())
                    };
                    blend(x.row(at), previous, weights.row(at), self.current, y);
                }
            });
        }
        if let Some(state) = state.as_mut().filter(|_| self.last.renew) {
            for (row, last) in state.iter_mut().enumerate() {
                last.copy_from_slice(x.row((row + 1) * length - 1));
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let outputs = self.outputs.iter().flat_map(|&(mix, y)| match mix {
            Mix::Token(weights) => vec![weights.into(), y.into()],
            Mix::Channel(_) => vec![y.into()],
        });
        Some(outputs.chain([self.x.into()]).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let length = run.length();
        let gradients: [Option<(View<'_>, Weights<'_>)>; MOST] = from_fn(|index| {
            let &(mix, y) = self.outputs.get(index)?;
            Some((run.grad(y), Weights::new(mix, run)))
        });
        let outputs: [Option<(Rows<'_>, Rows<'_>)>; MOST] = from_fn(|index| {
            let (grad, weights) = gradients[index].as_ref()?;
            Some((grad.get(), weights.rows()))
        });
        {
            let mut grad_x = run.grad_mut(self.x);
            let (accumulate, stride, cols) = (grad_x.accumulate(), grad_x.stride(), grad_x.cols());
            for_pieces(grad_x.data_mut(), stride, |first, piece| {
                for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                    let at = first + offset;
                    let grad = &mut grad[..cols];
                    if !accumulate {
                        grad.fill(0.0);
                    }
                    for (dy, weights) in outputs.iter().flatten() {
                        add_current(dy.row(at), weights.row(at), self.current, grad);
                        if (at + 1) % length > 0 {
                            add_previous(dy.row(at + 1), weights.row(at + 1), self.current, grad);
                        }
                    }
                }
            });
        }
        let x = run.value(self.x);
        let x = x.get();
        let started = run.started_from(self.last.state);
        for (&(mix, _), (dy, _)) in self.outputs.iter().zip(outputs.iter().flatten()) {
            let previous = |at: usize| match at % length {
                0 => started.map_or(&[][..], |rows| rows[at / length].as_slice()),
                _ => x.row(at - 1),
            };
            let count = run.rows() * length;
            match mix {
                Mix::Channel(param) => {
                    let mut grad = run.param_grad(param);
                    for at in 0..count {
                        weight_gradient(
                            x.row(at),
                            previous(at),
                            dy.row(at),
                            self.current,
                            true,
                            &mut grad,
                        );
                    }
                }
                Mix::Token(tensor) => {
                    let mut grad = run.grad_mut(tensor);
                    let (accumulate, stride, cols) =
                        (grad.accumulate(), grad.stride(), grad.cols());
                    for_pieces(grad.data_mut(), stride, |first, piece| {
                        for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                            let at = first + offset;
                            weight_gradient(
                                x.row(at),
                                previous(at),
                                dy.row(at),
                                self.current,
                                accumulate,
                                &mut grad[..cols],
                            );
                        }
                    });
                }
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::SHIFT, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}

/// The previous position's share.
#[inline(always)]
fn share(weight: f32, current: bool) -> f32 {
    if current { 1.0 - weight } else { weight }
}

simd! {
    /// `y = x + (previous - x) share`; an empty `previous` is 0.
    fn blend(x: &[f32], previous: &[f32], weights: &[f32], current: bool, y: &mut [f32]) {
        let cols = y.len();
        let (x, weights) = (&x[..cols], &weights[..cols]);
        if previous.is_empty() {
            for c in 0..cols {
                y[c] = x[c] - x[c] * share(weights[c], current);
            }
        } else {
            let previous = &previous[..cols];
            for c in 0..cols {
                y[c] = (previous[c] - x[c]).mul_add(share(weights[c], current), x[c]);
            }
        }
    }
}

simd! {
    /// `grad += dy (1 - share)`.
    fn add_current(dy: &[f32], weights: &[f32], current: bool, grad: &mut [f32]) {
        let cols = grad.len();
        let (dy, weights) = (&dy[..cols], &weights[..cols]);
        for c in 0..cols {
            grad[c] = dy[c].mul_add(share(weights[c], !current), grad[c]);
        }
    }
}

simd! {
    /// `grad += dy share`.
    fn add_previous(dy: &[f32], weights: &[f32], current: bool, grad: &mut [f32]) {
        let cols = grad.len();
        let (dy, weights) = (&dy[..cols], &weights[..cols]);
        for c in 0..cols {
            grad[c] = dy[c].mul_add(share(weights[c], current), grad[c]);
        }
    }
}

simd! {
    /// Gradient of the weights: `dy (previous - x)`, with the other sign where they weigh x.
    fn weight_gradient(
        x: &[f32],
        previous: &[f32],
        dy: &[f32],
        current: bool,
        accumulate: bool,
        grad: &mut [f32],
    ) {
        let cols = grad.len();
        let (x, dy) = (&x[..cols], &dy[..cols]);
        let sign = if current { -1.0 } else { 1.0 };
        for c in 0..cols {
            let before = if previous.is_empty() { 0.0 } else { previous[c] };
            let old = if accumulate { grad[c] } else { 0.0 };
            grad[c] = (sign * dy[c]).mul_add(before - x[c], old);
        }
    }
}
