//! The operation on the CPU: rows of the batch and heads in parallel, mini-batches in order. The matrices are kept as
//! each mini-batch found them, and all inside it is computed again for the gradients.

use std::cell::RefCell;

use longhaul_plugin_api::author::Result;

use super::chunk::{Before, Given, Gradients, Scratch, backward, forward};
use super::loss::Norm;
use super::mixture::Paces;
use super::{FastWeights, Loss, Sizes, device};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run, View};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::recurrences::Recurrence;
use crate::recurrences::state_matrix::fields::{Columns, Part, Tokens};
use crate::simd::add_into;
use crate::units::{cut, for_each_unit};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Records the operation; the result is `f(q)`.
pub(super) fn record(graph: &mut Graph, what: FastWeights) -> Tensor {
    let sizes = what.sizes();
    let Sizes {
        heads, key, value, ..
    } = sizes;
    let y = graph.tensor(heads * value);
    let mut by_head = |width: usize| graph.saved_on_cpu(Extent::Tokens(heads * width));
    let mut grads = vec![by_head(key), by_head(key), by_head(value), by_head(1)];
    grads.extend(what.keep().map(|_| by_head(1)));
    grads.extend(what.momentum().map(|_| by_head(1)));
    let operation = Learning {
        grads,
        grad_norm: graph.saved_on_cpu(Extent::Rows(heads * 2 * value)),
        grad_shares: graph.saved_on_cpu(Extent::Rows(heads * what.mini_batch)),
        before: graph.saved(Extent::Chunks {
            chunk: what.mini_batch,
            cols: heads * sizes.carried(),
        }),
        running: graph.saved_on_cpu(Extent::Rows(heads * sizes.carried())),
        state: graph.state(StateSpec::Fixed {
            values: heads * sizes.carried(),
            initial: 0.0,
        }),
        work: device::work(graph, &what),
        what,
        sizes,
        y,
    };
    graph.push(operation);
    y
}

pub(super) struct Learning {
    pub what: FastWeights,
    pub sizes: Sizes,
    /// `[B, H, T, ..]`: the gradient of each input; going forward y, in the place of that of the target.
    grads: Vec<Saved>,
    /// `[B, H, 2, V]`.
    grad_norm: Saved,
    /// `[B, H, mini_batch]`.
    grad_shares: Saved,
    /// `[B, H, chunks, matrices, R, V]`: the matrices before each mini-batch; in training.
    pub before: Saved,
    /// `[B, H, matrices, R, V]`: the matrices on their way, or gradients of two.
    running: Saved,
    /// `[H, matrices, R, V]` a row.
    pub state: State,
    pub y: Tensor,
    /// What only a device needs.
    pub work: Option<Saved>,
}

/// What a run reads.
struct Sources<'a> {
    sizes: Sizes,
    /// In the order of [`FastWeights`].
    inputs: Vec<Rows<'a>>,
    start: &'a [f32],
    bias: &'a [f32],
    norm: Option<Norm<'a>>,
    shares: &'a [f32],
    /// Matrices that count from where W began.
    from_start: usize,
}

impl<'a> Sources<'a> {
    fn new(operation: &Learning, views: &'a [View<'a>], run: &Run<'a>) -> Self {
        let what = operation.what;
        Self {
            sizes: operation.sizes,
            inputs: views.iter().map(View::get).collect(),
            start: run.param(what.start),
            bias: what.bias.map_or(&[], |bias| run.param(bias)),
            norm: match what.loss {
                Loss::Squares => None,
                Loss::Normal {
                    weight,
                    bias,
                    epsilon,
                } => Some(Norm {
                    weight: run.param(weight),
                    bias: run.param(bias),
                    epsilon,
                }),
            },
            shares: what.shares().map_or(&[], |shares| run.param(shares)),
            from_start: if what.update.descends() { 1 } else { 2 },
        }
    }

    /// W and b of a head before the first token are added to the matrices that count from there, or taken away.
    fn shift(&self, head: usize, carried: &mut [f32], sign: f32) {
        let Sizes { key, value, .. } = self.sizes;
        let weights = &self.start[head * key * value..][..key * value];
        let bias = self.bias.chunks_exact(value).nth(head).unwrap_or_default();
        for matrix in carried
            .chunks_exact_mut(self.sizes.matrix())
            .take(self.from_start)
        {
            for (to, start) in matrix.iter_mut().zip(weights.iter().chain(bias)) {
                *to += sign * start;
            }
        }
    }

    /// What `count` tokens from `first` on read, counted over all rows.
    fn given(&self, head: usize, first: usize, count: usize) -> Given<'a> {
        let Sizes { key, value, .. } = self.sizes;
        let part =
            |input: usize, width: usize| Part::new(self.inputs[input], first, head * width, width);
        let columns = head * value..(head + 1) * value;
        Given {
            sizes: self.sizes,
            q: part(0, key),
            k: part(1, key),
            target: part(TARGET, value),
            norm: self.norm.map(|norm| Norm {
                weight: &norm.weight[columns.clone()],
                bias: &norm.bias[columns],
                ..norm
            }),
            length: count,
        }
    }
}

/// Where the target stands among the inputs.
const TARGET: usize = 2;

/// Tokens of one mini-batch in a piece.
#[derive(Clone, Copy)]
struct Piece {
    /// First token.
    start: usize,
    count: usize,
    /// Of the first in its mini-batch.
    place: usize,
}

impl Learning {
    /// The piece's mini-batches, and what is left of one at both ends.
    fn pieces(&self, run: &Run<'_>) -> Vec<Piece> {
        let size = self.what.mini_batch;
        let (mut start, mut all) = (0, Vec::new());
        while start < run.length() {
            let place = ((run.position() + start as u64) % size as u64) as usize;
            let count = (size - place).min(run.length() - start);
            all.push(Piece {
                start,
                count,
                place,
            });
            start += count;
        }
        all
    }

    /// Fills the paces of a head's tokens from `first` on.
    fn pace(
        &self,
        sources: &Sources<'_>,
        head: usize,
        first: usize,
        piece: Piece,
        paces: &mut Paces,
    ) {
        paces.clear(piece.count);
        paces.descends = self.what.update.descends();
        let read = |input: Rows<'_>, to: &mut [f32]| {
            for (t, to) in to.iter_mut().enumerate() {
                *to = input.row(first + t)[head];
            }
        };
        read(sources.inputs[TARGET + 1], &mut paces.rate);
        let mut rest = sources.inputs[TARGET + 2..].iter();
        for (is_given, to) in [
            (self.what.keep().is_some(), &mut paces.keep),
            (self.what.momentum().is_some(), &mut paces.momentum),
        ] {
            if let Some(input) = is_given.then(|| rest.next()).flatten() {
                read(*input, to);
            }
        }
        if paces.descends {
            for (t, share) in paces.keep.iter_mut().enumerate() {
                *share = share_of(sources.shares, piece.place + t).max(0.0);
            }
        } else if self.what.keep().is_none() {
            paces.keep.fill(1.0);
        }
    }

    fn views<'a>(&self, run: &Run<'a>) -> Vec<View<'a>> {
        let inputs = self.what.ports().inputs;
        inputs.into_iter().map(|input| run.value(input)).collect()
    }

    /// How heads share an input's columns.
    fn columns(&self, input: usize) -> Columns {
        let Sizes {
            heads, key, value, ..
        } = self.sizes;
        Columns {
            heads,
            blocks: heads,
            width: [key, key, value].get(input).copied().unwrap_or(1),
            writes: 1,
        }
    }

    /// Whether what b counts for can be anything but 0 before a piece: in a mini-batch that did not begin with it, or in
    /// a run that began with any state.
    fn has_second(&self, piece: usize, started: bool) -> bool {
        !self.what.update.descends() || piece == 0 && started
    }

    /// Adds the gradients by head to those of the parameters.
    fn parameter_gradients(&self, run: &Run<'_>, running: &[f32]) {
        let Sizes {
            heads, key, value, ..
        } = self.sizes;
        let by_unit = running.chunks_exact(self.sizes.carried()).enumerate();
        let mut start = run.param_grad(self.what.start);
        let mut bias = self.what.bias.map(|bias| run.param_grad(bias));
        for (unit, grads) in by_unit {
            let head = unit % heads;
            let (weights, rest) = grads[..self.sizes.matrix()].split_at(key * value);
            add_into(&mut start[head * key * value..][..key * value], weights);
            if let Some(bias) = &mut bias {
                add_into(&mut bias[head * value..][..value], rest);
            }
        }
        if let Some(norm) = self.what.norm() {
            let grads = run.saved(self.grad_norm);
            for (index, param) in norm.into_iter().enumerate() {
                let mut sums = run.param_grad(param);
                for (unit, grads) in grads.chunks_exact(2 * value).enumerate() {
                    let to = &mut sums[unit % heads * value..][..value];
                    add_into(to, &grads[index * value..][..value]);
                }
            }
        }
        if let Some(shares) = self.what.shares() {
            let grads = run.saved(self.grad_shares);
            crate::rows::column_sums(&grads, &mut run.param_grad(shares));
        }
    }
}

/// c of the token at a place in its mini-batch, before it is kept from falling below 0.
fn share_of(shares: &[f32], place: usize) -> f32 {
    shares[place] + 1.0 / (place + 1) as f32
}

impl Operation for Learning {
    fn name(&self) -> &'static str {
        "fast_weights"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, heads) = (run.length(), self.sizes.heads);
        let (value, carried) = (self.sizes.value, self.sizes.carried());
        let views = self.views(run);
        let sources = Sources::new(self, &views, run);
        let mut running = run.saved_mut(self.running);
        let mut y = run.saved_mut(self.grads[TARGET]);
        let mut before = run.saved_mut(self.before);
        let mut state = run.state(self.state);
        running.fill(0.0);
        if let Some(state) = &state {
            for (running, state) in running.chunks_exact_mut(heads * carried).zip(state.iter()) {
                running.copy_from_slice(state);
            }
        }
        let (pieces, training) = (self.pieces(run), run.is_training());
        let chunks = length.div_ceil(self.what.mini_batch);
        let started = state.is_some();
        let cuts = (
            cut(&mut running, carried),
            cut(&mut y, length * value),
            cut(&mut before, chunks * carried),
        );
        for_each_unit(length * carried, cuts, |unit, (running, y, before)| {
            let (row, head) = (unit / heads, unit % heads);
            sources.shift(head, running, 1.0);
            SCRATCH.with_borrow_mut(|scratch| {
                for (index, &piece) in pieces.iter().enumerate() {
                    if training {
                        before[index * carried..][..carried].copy_from_slice(running);
                    }
                    let first = row * length + piece.start;
                    self.pace(&sources, head, first, piece, &mut scratch.paces);
                    let given = sources.given(head, first, piece.count);
                    let completes = piece.place + piece.count == self.what.mini_batch;
                    let has_second = self.has_second(index, started);
                    let y = &mut y[piece.start * value..][..piece.count * value];
                    forward(given, running, completes, has_second, y, scratch);
                }
            });
            sources.shift(head, running, -1.0);
        });
        if let Some(state) = &mut state {
            for (running, state) in running.chunks_exact(heads * carried).zip(state.iter_mut()) {
                state.copy_from_slice(running);
            }
        }
        self.columns(TARGET)
            .scatter(&y, length, run.value_mut(self.y));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let tensors = self.what.ports().inputs.into_iter().chain([self.y]);
        let saved = [self.running, self.grads[TARGET], self.before];
        let saved = saved.into_iter().map(Buffer::from);
        Some(tensors.map(Buffer::from).chain(saved).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, heads) = (run.length(), self.sizes.heads);
        let (size, carried) = (self.sizes.matrix(), self.sizes.carried());
        let Sizes { key, value, .. } = self.sizes;
        let views = self.views(run);
        let sources = Sources::new(self, &views, run);
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        let before = run.saved(self.before);
        let before: &[f32] = &before;
        let mut running = run.saved_mut(self.running);
        let mut grad_norm = run.saved_mut(self.grad_norm);
        let mut grad_shares = run.saved_mut(self.grad_shares);
        for sums in [&mut running, &mut grad_norm, &mut grad_shares] {
            sums.fill(0.0);
        }
        let (pieces, started) = (self.pieces(run), run.started_from(self.state).is_some());
        let descends = self.what.update.descends();
        let mut grads: Vec<_> = self
            .grads
            .iter()
            .map(|&saved| run.saved_mut(saved))
            .collect();
        let mut all = grads.iter_mut();
        // Inputs that there are not have no gradients.
        let mut next = |width: usize| match all.next() {
            Some(buffer) => cut(buffer, length * width),
            None => cut(&mut [], 0),
        };
        let (q, k, target) = (next(key), next(key), next(value));
        let (rate, pace, other) = (next(1), next(1), next(1));
        let cuts = (
            cut(&mut running, carried),
            q,
            k,
            target,
            rate,
            if descends {
                cut(&mut grad_shares, self.what.mini_batch)
            } else {
                pace
            },
            other,
            cut(&mut grad_norm, 2 * value),
        );
        let work = |unit, (running, q, k, target, rate, pace, other, norm): Unit<'_>| {
            let (row, head) = (unit / heads, unit % heads);
            let chunks = pieces.len() * carried;
            let before = before[unit * chunks..][..chunks].chunks_exact(carried);
            SCRATCH.with_borrow_mut(|scratch| {
                for (index, (&piece, before)) in pieces.iter().zip(before).enumerate().rev() {
                    let first = row * length + piece.start;
                    self.pace(&sources, head, first, piece, &mut scratch.paces);
                    let given = sources.given(head, first, piece.count);
                    let mut before = Before::of(before, size, descends);
                    if !self.has_second(index, started) {
                        before.second = &[];
                    }
                    let some = Tokens {
                        start: piece.start,
                        count: piece.count,
                        of: length,
                    };
                    let mut grads = Gradients {
                        q: some.of(q),
                        k: some.of(k),
                        target: some.of(target),
                        norm: &mut *norm,
                    };
                    let grad_y = Part::new(grad_y, first, head * value, value);
                    let is_last = index + 1 == pieces.len();
                    backward(
                        given,
                        before,
                        grad_y,
                        &mut running[..2 * size],
                        is_last,
                        &mut grads,
                        scratch,
                    );
                    let from = &scratch.grad_paces;
                    some.of(rate).copy_from_slice(&from.rate);
                    if descends {
                        for (t, (to, grad)) in
                            pace[piece.place..].iter_mut().zip(&from.keep).enumerate()
                        {
                            let falls_short = share_of(sources.shares, piece.place + t) < 0.0;
                            *to += if falls_short { 0.0 } else { *grad };
                        }
                        continue;
                    }
                    let given = [
                        (self.what.keep(), &from.keep),
                        (self.what.momentum(), &from.momentum),
                    ];
                    let given = given.into_iter().filter(|(input, _)| input.is_some());
                    for ((_, from), to) in given.zip([&mut *pace, &mut *other]) {
                        some.of(to).copy_from_slice(from);
                    }
                }
            });
        };
        for_each_unit(length * carried, cuts, work);
        drop((grad_norm, grad_shares));
        self.parameter_gradients(run, &running);
        for (index, (input, grads)) in self.what.ports().inputs.into_iter().zip(&grads).enumerate()
        {
            self.columns(index)
                .scatter(grads, length, run.grad_mut(input));
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&device::SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}

/// A head's buffers of the backward pass.
type Unit<'a> = (
    &'a mut [f32],
    &'a mut [f32],
    &'a mut [f32],
    &'a mut [f32],
    &'a mut [f32],
    &'a mut [f32],
    &'a mut [f32],
    &'a mut [f32],
);
