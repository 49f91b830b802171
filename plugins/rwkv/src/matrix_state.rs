//! The matrix-valued recurrences of RWKV-6 and RWKV-7 as one operation: rows of the batch and heads in
//! parallel. States are kept every few tokens only and computed again for the gradients.

mod cuda;

use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, Rows, View};
use longhaul_plugin_kit::units::{cut, for_each_unit};
use longhaul_plugin_kit::{
    Buffer, Extent, Graph, Operation, Result, Run, Saved, State, StateSpec, Tensor,
};

use crate::matrix_gradients::{Gradients, backward};
use crate::matrix_scan::{CHUNK, Given, forward, padded};
use crate::part::{Part, Slot, not_for_a_device, scatter};
use crate::reference::{Matrix, rwkv6, rwkv7};

/// Inputs of the recurrence, each `[B, T, D]` with the heads side by side; see
/// [`Given`](crate::matrix_scan::Given) for what they do.
pub(crate) struct MatrixInputs {
    pub r: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    /// Before its functions.
    pub decay: Tensor,
    /// kappa and b of RWKV-7.
    pub removal: Option<[Tensor; 2]>,
}

/// Records the recurrence over heads of `head_dim`; the result is o, `[B, T, D]`.
///
/// # Panics
/// If the heads do not divide D.
pub(crate) fn matrix_state(graph: &mut Graph, inputs: MatrixInputs, head_dim: usize) -> Tensor {
    let channels = inputs.k.cols();
    assert!(channels.is_multiple_of(head_dim), "heads of {head_dim}");
    if graph.wants_reference() {
        return reference_state(graph, inputs, head_dim);
    }
    let heads = channels / head_dim;
    let slots = if inputs.removal.is_some() { 6 } else { 4 };
    let values = heads * head_dim * padded(head_dim);
    let o = graph.tensor(channels);
    let operation = MatrixState {
        heads,
        head_dim,
        slots,
        by_head: graph.saved_on_cpu(Extent::Tokens(slots * channels)),
        kept: graph.saved_on_cpu(Extent::Chunks {
            chunk: CHUNK,
            cols: values,
        }),
        running: graph.saved_on_cpu(Extent::Rows(values)),
        room: cuda::Room::new(graph, heads, head_dim),
        state: graph.state(StateSpec::Fixed {
            values: channels * head_dim,
            initial: 0.0,
        }),
        o,
        inputs,
    };
    graph.push(operation);
    o
}

/// The same by the naive functions.
fn reference_state(graph: &mut Graph, inputs: MatrixInputs, head_dim: usize) -> Tensor {
    let d_model = inputs.k.cols();
    let mut recorded = vec![inputs.r, inputs.k, inputs.v, inputs.decay];
    recorded.extend(inputs.removal.into_iter().flatten());
    graph.reference(&recorded, &[], d_model, move |given| {
        let all = &given.inputs;
        let matrix = Matrix {
            r: &all[0],
            k: &all[1],
            v: &all[2],
            decay: &all[3],
            length: given.length,
            d_model,
            head_dim,
        };
        match &all[4..] {
            [kappa, b] => rwkv7(matrix, kappa, b),
            // Its bonus is an operation of its own.
            _ => rwkv6(matrix, &vec![0.0; d_model]),
        }
    })
}

struct MatrixState {
    inputs: MatrixInputs,
    heads: usize,
    head_dim: usize,
    /// 4, or 6 with removal.
    slots: usize,
    /// `[B, H, slots, T, K]`: the result in the first, or the gradients of r, k, v, decay, kappa, b.
    by_head: Saved,
    /// `[B, H, chunks, V, W]`: the state before each chunk.
    kept: Saved,
    /// `[B, H, V, W]`: the state on its way, or its gradient.
    running: Saved,
    /// What a device needs in place of them.
    room: Option<cuda::Room>,
    /// `[H, V, K]` a row.
    state: State,
    o: Tensor,
}

/// The inputs of a run, borrowed.
struct Views<'a> {
    r: View<'a>,
    k: View<'a>,
    v: View<'a>,
    decay: View<'a>,
    removal: Option<[View<'a>; 2]>,
}

/// The inputs of a run as threads share them.
#[derive(Clone, Copy)]
struct Sources<'a> {
    r: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    decay: Rows<'a>,
    removal: Option<[Rows<'a>; 2]>,
    head_dim: usize,
}

impl<'a> Views<'a> {
    fn new(run: &Run<'a>, inputs: &MatrixInputs) -> Self {
        Self {
            r: run.value(inputs.r),
            k: run.value(inputs.k),
            v: run.value(inputs.v),
            decay: run.value(inputs.decay),
            removal: inputs.removal.map(|both| both.map(|x| run.value(x))),
        }
    }

    fn sources(&self, head_dim: usize) -> Sources<'_> {
        Sources {
            r: self.r.get(),
            k: self.k.get(),
            v: self.v.get(),
            decay: self.decay.get(),
            removal: self.removal.as_ref().map(|[a, b]| [a.get(), b.get()]),
            head_dim,
        }
    }
}

impl<'a> Sources<'a> {
    /// A head's inputs from a token of `[B, T]` on.
    fn given(self, head: usize, start: usize, length: usize) -> Given<'a> {
        let part = |rows| Part::new(rows, start, head * self.head_dim, self.head_dim);
        Given {
            r: part(self.r),
            k: part(self.k),
            v: part(self.v),
            decay: part(self.decay),
            removal: self.removal.map(|both| both.map(part)),
            length,
        }
    }
}

impl MatrixState {
    /// Values of a head's state as computed with.
    fn values(&self) -> usize {
        self.head_dim * padded(self.head_dim)
    }

    /// Copies a row's state `[H, V, K]` into `[H, V, W]`, or back.
    fn exchange(&self, state: &mut [f32], wide: &mut [f32], into_wide: bool) {
        let rows = state.chunks_exact_mut(self.head_dim);
        for (outside, inside) in rows.zip(wide.chunks_exact_mut(padded(self.head_dim))) {
            let inside = &mut inside[..self.head_dim];
            if into_wide {
                inside.copy_from_slice(outside);
            } else {
                outside.copy_from_slice(inside);
            }
        }
    }
}

impl Operation for MatrixState {
    fn name(&self) -> &'static str {
        "matrix_state"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, heads, values) = (run.length(), self.heads, self.values());
        let views = Views::new(run, &self.inputs);
        let sources = views.sources(self.head_dim);
        let mut running = run.saved_mut(self.running);
        let mut by_head = run.saved_mut(self.by_head);
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
        let chunks = length.div_ceil(CHUNK);
        let cuts = (
            cut(&mut running, values),
            cut(&mut by_head, self.slots * length * self.head_dim),
            cut(&mut kept, chunks * values),
        );
        for_each_unit(length * values, cuts, |index, (state, o, kept)| {
            let (row, head) = (index / heads, index % heads);
            let given = sources.given(head, row * length, length);
            let kept = if training { kept } else { &mut [] };
            forward(given, state, &mut o[..length * self.head_dim], kept);
        });
        if let Some(state) = &mut state {
            let rows = running.chunks_exact_mut(heads * values);
            for (wide, state) in rows.zip(state.iter_mut()) {
                self.exchange(state, wide, false);
            }
        }
        let slot = Slot {
            index: 0,
            count: self.slots,
        };
        scatter(&by_head, slot, length, self.head_dim, run.value_mut(self.o));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let MatrixInputs {
            r,
            k,
            v,
            decay,
            removal,
        } = &self.inputs;
        let tensors = [*r, *k, *v, *decay, self.o]
            .into_iter()
            .chain(removal.iter().flatten().copied());
        let saved = [self.running, self.by_head, self.kept];
        Some(
            tensors
                .map(Buffer::from)
                .chain(saved.map(Buffer::from))
                .collect(),
        )
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, heads, values) = (run.length(), self.heads, self.values());
        let head_dim = self.head_dim;
        let views = Views::new(run, &self.inputs);
        let sources = views.sources(head_dim);
        let grad_o = run.grad(self.o);
        let grad_o = grad_o.get();
        let kept = run.saved(self.kept);
        let kept: &[f32] = &kept;
        let mut running = run.saved_mut(self.running);
        let mut by_head = run.saved_mut(self.by_head);
        running.fill(0.0);
        let chunks = length.div_ceil(CHUNK);
        let cuts = (
            cut(&mut running, values),
            cut(&mut by_head, self.slots * length * head_dim),
        );
        for_each_unit(length * values, cuts, |index, (grad_state, grads)| {
            let kept = &kept[index * chunks * values..][..chunks * values];
            let (row, head) = (index / heads, index % heads);
            for (chunk, state) in kept.chunks_exact(values).enumerate().rev() {
                let start = chunk * CHUNK;
                let count = CHUNK.min(length - start);
                let place = start * head_dim..(start + count) * head_dim;
                let mut slots = grads
                    .chunks_exact_mut(length * head_dim)
                    .map(|slot| &mut slot[place.clone()]);
                let mut next = || slots.next().unwrap_or_default();
                let mut grads = Gradients {
                    r: next(),
                    k: next(),
                    v: next(),
                    decay: next(),
                    kappa: next(),
                    b: next(),
                };
                let start = row * length + start;
                let given = sources.given(head, start, count);
                let grad_o = Part::new(grad_o, start, head * head_dim, head_dim);
                backward(given, state, grad_o, grad_state, &mut grads);
            }
        });
        drop(views);
        let MatrixInputs {
            r,
            k,
            v,
            decay,
            removal,
        } = self.inputs;
        let inputs = [r, k, v, decay].into_iter();
        for (index, input) in inputs.chain(removal.into_iter().flatten()).enumerate() {
            let slot = Slot {
                index,
                count: self.slots,
            };
            scatter(&by_head, slot, length, head_dim, run.grad_mut(input));
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::MATRIX_STATE]
    }

    fn check_device(&self) -> Result<()> {
        self.check_width()
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let room = self.room.as_ref().ok_or_else(not_for_a_device)?;
        self.forward_on(run, room)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let room = self.room.as_ref().ok_or_else(not_for_a_device)?;
        self.backward_on(run, room)
    }
}
