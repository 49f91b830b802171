//! Causal convolution with filters as long as sequences, one a channel: `y[t] = sum over j of k[j] x[t - j]`
//! (arXiv 2302.10866, eq. 4). Its state is the last inputs, one fewer than the filter is long.

mod device;
mod fourier;
mod naive;

use longhaul_plugin_api::author::Result;

use super::{Carries, Ports, Real, Recurrence, Sequence};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::rows::for_pieces;
use crate::simd::{LANES, add_into};
use crate::units::{cut, for_each_unit};
use fourier::{Block, Sizes, backward_block, forward_block};

/// Most tokens of a feed that are computed tap by tap, where a transform would cost more.
const DIRECT: usize = 8;

impl Graph {
    /// A filter of each channel over x `[C]`: `filter` is a table `[taps, C]`, the first row of which meets the
    /// token itself, the second the one before. On the CPU by Fourier transforms, `(taps + T) log (taps + T)` a
    /// channel; on a card tap by tap, `taps T`.
    ///
    /// # Panics
    /// If the filter is not a whole table as wide as x.
    #[track_caller]
    pub fn long_convolution(&mut self, filter: Tensor, x: Tensor) -> Tensor {
        let Extent::Fixed(values) = self.program.buffers[filter.id] else {
            panic!("a long convolution's filter is a table");
        };
        assert!(
            filter.is_whole() && filter.cols() == x.cols() && values > 0,
            "a filter of {} channels for {} columns",
            filter.cols(),
            x.cols()
        );
        // The table as the one row that stands for every token.
        let filter = Tensor {
            cols: values,
            stride: values,
            constant: true,
            ..filter
        };
        self.record(LongConvolution { filter, x })
    }
}

struct LongConvolution {
    /// `[taps, C]` as one row.
    filter: Tensor,
    x: Tensor,
}

impl LongConvolution {
    /// Values of the state, `[taps - 1, C]`.
    fn state_values(&self) -> usize {
        self.filter.cols() - self.x.cols()
    }
}

impl Recurrence for LongConvolution {
    fn name(&self) -> &'static str {
        "long_convolution"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.filter, self.x],
            params: Vec::new(),
            cols: self.x.cols(),
            carries: Carries::State {
                values: self.state_values(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        naive::naive(given, state)
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let (cols, values) = (self.x.cols(), self.filter.cols());
        let y = graph.tensor(cols);
        let operation = Convolution {
            filter: self.filter,
            x: self.x,
            taps: values / cols,
            line: graph.saved_on_cpu(Extent::Tokens(cols)),
            grad_filter: graph.saved_on_cpu(Extent::Fixed(values)),
            state: graph.state(StateSpec::Fixed {
                values: self.state_values(),
                initial: 0.0,
            }),
            y,
        };
        graph.push(operation);
        Some(y)
    }
}

pub(super) struct Convolution {
    filter: Tensor,
    x: Tensor,
    taps: usize,
    /// Blocks of [`LANES`] channels, each `[B, T, channels]`: results, or gradients of x.
    line: Saved,
    /// Blocks of [`LANES`] channels, each `[taps, channels]`.
    grad_filter: Saved,
    /// `[taps - 1, C]` a row: the last inputs, oldest first.
    state: State,
    y: Tensor,
}

impl Convolution {
    fn sizes(&self, run: &Run<'_>, has_history: bool) -> Sizes {
        Sizes::new(
            run.rows(),
            run.length(),
            self.taps,
            if has_history { self.taps - 1 } else { 0 },
        )
    }

    /// Token by token and tap by tap: of few tokens, with a history.
    fn direct(&self, x: Rows<'_>, filter: &[f32], histories: &[Vec<f32>], y: &mut [f32]) {
        let (cols, past) = (x.cols, self.taps - 1);
        let length = y.len() / cols / histories.len().max(1);
        for (token, y) in y.chunks_exact_mut(cols).enumerate() {
            let (row, t) = (token / length, token % length);
            let history = &histories[row];
            y.fill(0.0);
            for (j, taps) in filter.chunks_exact(cols).enumerate() {
                let input = match t.checked_sub(j) {
                    Some(at) => x.row(row * length + at),
                    None => &history[(past + t - j) * cols..][..cols],
                };
                add_scaled(y, input, taps);
            }
        }
    }

    /// The last inputs, of those before and those of this run.
    fn keep(&self, x: Rows<'_>, length: usize, row: usize, history: &mut [f32]) {
        let (cols, past) = (x.cols, self.taps - 1);
        let kept = past.saturating_sub(length);
        history.copy_within((past - kept) * cols.., 0);
        for place in kept..past {
            let t = length - (past - place);
            history[place * cols..][..cols].copy_from_slice(x.row(row * length + t));
        }
    }
}

impl Operation for Convolution {
    fn name(&self) -> &'static str {
        "long_convolution"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (filter, x) = (run.value(self.filter), run.value(self.x));
        let (filter, x) = (filter.get().row(0), x.get());
        let mut state = run.state(self.state);
        let mut y = run.value_mut(self.y);
        let (length, cols) = (run.length(), x.cols);
        match &state {
            Some(histories) if length <= DIRECT => self.direct(x, filter, histories, y.data_mut()),
            _ => {
                let sizes = self.sizes(run, state.is_some());
                let given = Block {
                    filter,
                    x,
                    histories: state.as_deref().map_or(&[], Vec::as_slice),
                };
                let mut line = run.saved_mut(self.line);
                let unit = LANES * sizes.rows * length;
                for_each_unit(sizes.cost(), cut(&mut line, unit), |block, line| {
                    forward_block(given, sizes, block * LANES, line);
                });
                let line = &*line;
                for_pieces(y.data_mut(), cols, |first, piece| {
                    for (offset, y) in piece.chunks_exact_mut(cols).enumerate() {
                        for_each_part(line, unit, first + offset, y, <[f32]>::copy_from_slice);
                    }
                });
            }
        }
        if let Some(state) = &mut state {
            for (row, history) in state.iter_mut().enumerate() {
                self.keep(x, length, row, history);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.filter.into(),
            self.x.into(),
            self.line.into(),
            self.y.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (cols, length) = (self.x.cols(), run.length());
        let mut line = run.saved_mut(self.line);
        let mut grad_filter = run.saved_mut(self.grad_filter);
        let started = run.started_from(self.state);
        let sizes = self.sizes(run, started.is_some());
        let unit = LANES * sizes.rows * length;
        {
            let (filter, x) = (run.value(self.filter), run.value(self.x));
            let grad_y = run.grad(self.y);
            let grad_y = grad_y.get();
            let given = Block {
                filter: filter.get().row(0),
                x: x.get(),
                histories: started.unwrap_or(&[]),
            };
            let cuts = (
                cut(&mut line, unit),
                cut(&mut grad_filter, LANES * self.taps),
            );
            for_each_unit(2 * sizes.cost(), cuts, |block, (line, grad_filter)| {
                backward_block(given, grad_y, sizes, block * LANES, line, grad_filter);
            });
        }
        {
            let mut place = run.grad_mut(self.filter);
            let accumulate = place.accumulate();
            let place = place.row_mut(0).chunks_exact_mut(cols);
            for (tap, place) in place.enumerate() {
                if !accumulate {
                    place.fill(0.0);
                }
                for_each_part(&grad_filter, LANES * self.taps, tap, place, add_into);
            }
        }
        let mut place = run.grad_mut(self.x);
        let (accumulate, stride, line) = (place.accumulate(), place.stride(), &*line);
        for_pieces(place.data_mut(), stride, |first, piece| {
            for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                let grad = &mut grad[..cols];
                if !accumulate {
                    grad.fill(0.0);
                }
                for_each_part(line, unit, first + offset, grad, add_into);
            }
        });
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&device::LONG_CONVOLUTION]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        device::forward(self, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        device::backward(self, run)
    }
}

/// Gives every part of a row with what stands for it in blocks of [`LANES`] channels, `unit` values each.
fn for_each_part(
    blocks: &[f32],
    unit: usize,
    row: usize,
    to: &mut [f32],
    work: impl Fn(&mut [f32], &[f32]),
) {
    for (part, block) in to.chunks_mut(LANES).zip(blocks.chunks(unit)) {
        let from = &block[row * part.len()..][..part.len()];
        work(part, from);
    }
}

crate::simd! {
    fn add_scaled(to: &mut [f32], a: &[f32], b: &[f32]) {
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            *to = a.mul_add(*b, *to);
        }
    }
}
