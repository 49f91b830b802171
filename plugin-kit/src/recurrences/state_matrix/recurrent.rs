//! Token by token on the CPU, where a query reads once: rows of the batch and heads in parallel. States are kept every few tokens only and
//! computed again for the gradients.

use super::fields::{Columns, Part, Tokens, Views};
use super::scan::{forward, padded, tokens_kept};
use super::scan_back::{Gradients, backward};
use super::{Heads, StateMatrix, device};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::units::{cut, for_each_unit};
use longhaul_plugin_api::author::Result;

/// Records the operation; the result is o, `[B, T, H V]`.
pub(super) fn record(graph: &mut Graph, what: StateMatrix) -> Tensor {
    let Heads {
        heads,
        key,
        value,
        writes,
        ..
    } = what.heads;
    let columns = Columns::of(&what);
    let o = graph.tensor(what.reads() * heads * value);
    let by_head = columns
        .iter()
        .map(|input| graph.saved_on_cpu(Extent::Tokens(heads * input.values())))
        .collect();
    let values = heads * value * padded(key);
    let operation = Recurrent {
        columns,
        by_head,
        kept: graph.saved_on_cpu(Extent::Chunks {
            chunk: tokens_kept(writes),
            cols: values,
        }),
        running: graph.saved_on_cpu(Extent::Rows(values)),
        room: device::Room::new(graph, &what),
        state: graph.state(StateSpec::Fixed {
            values: heads * value * key,
            initial: 0.0,
        }),
        o,
        what,
    };
    graph.push(operation);
    o
}

pub(super) struct Recurrent {
    pub what: StateMatrix,
    /// Of each input.
    pub columns: Vec<Columns>,
    /// `[B, H, T, ..]`: the gradient of each input; going forward o, in the place of that of v.
    by_head: Vec<Saved>,
    /// `[B, H, chunks, V, W]`: the state before each few tokens.
    kept: Saved,
    /// `[B, H, V, W]`: the state on its way, or its gradient.
    running: Saved,
    /// What a device needs in place of them.
    pub room: Option<device::Room>,
    /// `[H, V, K]` a row.
    pub state: State,
    pub o: Tensor,
}

/// Where v stands among the inputs.
const VALUES: usize = 2;

impl Recurrent {
    /// Values of a head's state as computed with.
    fn values(&self) -> usize {
        self.what.heads.value * padded(self.what.heads.key)
    }

    /// Copies a row's state `[H, V, K]` into `[H, V, W]`, or back.
    fn exchange(&self, state: &mut [f32], wide: &mut [f32], into_wide: bool) {
        let key = self.what.heads.key;
        let rows = state.chunks_exact_mut(key);
        for (outside, inside) in rows.zip(wide.chunks_exact_mut(padded(key))) {
            let inside = &mut inside[..key];
            if into_wide {
                inside.copy_from_slice(outside);
            } else {
                outside.copy_from_slice(inside);
            }
        }
    }
}

impl Operation for Recurrent {
    fn name(&self) -> &'static str {
        "state_matrix"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, values) = (run.length(), self.values());
        let Heads {
            heads,
            value,
            writes,
            ..
        } = self.what.heads;
        let views = Views::new(run, &self.what);
        let sources = views.sources(&self.what);
        let mut running = run.saved_mut(self.running);
        let mut by_head = run.saved_mut(self.by_head[VALUES]);
        let mut kept = run.saved_mut(self.kept);
        let mut state = run.state(self.state);
        running.fill(0.0);
        if let Some(state) = &mut state {
            let rows = running.chunks_exact_mut(heads * values);
            for (wide, state) in rows.zip(state.iter_mut()) {
                self.exchange(state, wide, true);
            }
        }
        let training = run.is_training();
        let chunks = length.div_ceil(tokens_kept(writes));
        let cuts = (
            cut(&mut running, values),
            cut(&mut by_head, length * value),
            cut(&mut kept, chunks * values),
        );
        let cost = length * writes * values;
        for_each_unit(cost, cuts, |index, (state, o, kept)| {
            let given = sources.given(index % heads, index / heads * length, length);
            forward(given, state, o, if training { kept } else { &mut [] });
        });
        if let Some(state) = &mut state {
            let rows = running.chunks_exact_mut(heads * values);
            for (wide, state) in rows.zip(state.iter_mut()) {
                self.exchange(state, wide, false);
            }
        }
        let o = Columns {
            heads,
            blocks: heads,
            width: value,
            writes: 1,
        };
        let by_head = &by_head[..run.rows() * heads * length * value];
        o.scatter(by_head, length, run.value_mut(self.o));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let tensors = self.what.inputs().into_iter().chain([self.o]);
        let saved = [self.running, self.by_head[VALUES], self.kept];
        let saved = saved.into_iter().map(Buffer::from);
        Some(tensors.map(Buffer::from).chain(saved).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, values) = (run.length(), self.values());
        let Heads {
            heads,
            value,
            writes,
            ..
        } = self.what.heads;
        let views = Views::new(run, &self.what);
        let sources = views.sources(&self.what);
        let grad_o = run.grad(self.o);
        let grad_o = grad_o.get();
        let kept = run.saved(self.kept);
        let kept: &[f32] = &kept;
        let mut running = run.saved_mut(self.running);
        running.fill(0.0);
        let mut by_head: Vec<_> = self
            .by_head
            .iter()
            .map(|&saved| run.saved_mut(saved))
            .collect();
        // Gradients of inputs that there are not have no room.
        let mut inputs = by_head.iter_mut().zip(&self.columns);
        let mut next = || match inputs.next() {
            Some((buffer, columns)) => cut(buffer, length * columns.values()),
            None => cut(&mut [], 0),
        };
        let (q, k, v) = (next(), next(), next());
        let decay = match self.what.decay.given() {
            Some(_) => next(),
            None => cut(&mut [], 0),
        };
        let (removal, b) = (next(), next());
        let tokens = tokens_kept(writes);
        let chunks = length.div_ceil(tokens);
        let cuts = (cut(&mut running, values), q, k, v, decay, removal, b);
        let cost = length * writes * values;
        for_each_unit(
            cost,
            cuts,
            |index, (grad_state, q, k, v, decay, removal, b)| {
                let (row, head) = (index / heads, index % heads);
                let kept = &kept[index * chunks * values..][..chunks * values];
                for (chunk, state) in kept.chunks_exact(values).enumerate().rev() {
                    let start = chunk * tokens;
                    let count = tokens.min(length - start);
                    let some = Tokens {
                        start,
                        count,
                        of: length,
                    };
                    let mut grads = Gradients {
                        q: some.of(q),
                        k: some.of(k),
                        v: some.of(v),
                        decay: some.of(decay),
                        removal: some.of(removal),
                        b: some.of(b),
                    };
                    let start = row * length + start;
                    let given = sources.given(head, start, count);
                    let grad_o = Part::new(grad_o, start, head * value, value);
                    backward(given, state, grad_o, grad_state, &mut grads);
                }
            },
        );
        drop(views);
        let inputs = self.what.inputs().into_iter().zip(&self.columns);
        for ((input, columns), by_head) in inputs.zip(&by_head) {
            columns.scatter(by_head, length, run.grad_mut(input));
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        device::kernels(&self.what)
    }

    fn check_device(&self) -> Result<()> {
        device::check(&self.what)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}
