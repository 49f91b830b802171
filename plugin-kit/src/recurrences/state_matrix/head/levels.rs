//! The operation of a state matrix with levels, on a CPU: rows of the batch and blocks of heads in parallel, chunks in
//! order. A chunk ends where its number of tokens divides the position, so that inside it ranges are what they are
//! in any other; of the state after each one range is new, and is kept for the gradients.

use std::cell::RefCell;

use super::chunk::{Block, Given, Logs, grow};
use super::levels_chunk::{Piece, Scratch, forward, held_after};
use super::levels_device::OnDevice;
use super::levels_gradients::{Gradients, Kept, backward};
use super::{KEYS, LOGS, QUERIES, VALUES, block_of, part};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run, View};
use crate::engine::tensor::{Buffer, Extent, Saved, State, StateSpec, Tensor};
use crate::recurrences::state_matrix::fields::{Columns, Tokens};
use crate::recurrences::state_matrix::log_linear::LogLinear;
use crate::units::{cut, for_each_unit};
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

/// Where the factors stand behind the inputs of a state matrix.
const LAMBDA: usize = 4;

/// Tokens of a chunk, a power of two.
pub(super) const CHUNK: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Records the operation; the result is o, `[B, T, H V]`.
pub(in crate::recurrences::state_matrix) fn record(graph: &mut Graph, what: &LogLinear) -> Tensor {
    let block = block_of(what.matrix.heads);
    let units = what.matrix.heads.heads / block.heads;
    let groups = what.matrix.heads.groups;
    let of = |blocks, width| Columns {
        heads: units,
        blocks,
        width,
        writes: 1,
    };
    let columns = vec![
        of(groups, block.key),
        of(groups, block.key),
        of(units, block.cols()),
        of(units, block.heads),
        of(units, block.heads * what.levels),
    ];
    let by_unit = columns.iter().map(|input| {
        let extent = Extent::Tokens(units * input.width);
        graph.saved_on_cpu(extent)
    });
    let by_unit = by_unit.collect();
    let o = graph.tensor(what.matrix.v.cols());
    let state = graph.state(StateSpec::Fixed {
        values: what.state_values(),
        initial: 0.0,
    });
    let operation = Levels {
        by_unit,
        kept: graph.saved_on_cpu(Extent::Chunks {
            chunk: CHUNK,
            cols: units * block.state_values(),
        }),
        state,
        o,
        device: graph
            .wants_device()
            .then(|| OnDevice::new(graph, what, o, block, state)),
        what: what.clone(),
        block,
        units,
        columns,
    };
    graph.push(operation);
    o
}

struct Levels {
    what: LogLinear,
    block: Block,
    /// Blocks of heads of a row.
    units: usize,
    /// How units and groups share the columns of each input.
    columns: Vec<Columns>,
    /// `[B, units, T, ..]`: the gradient of each input; going forward o, in the place of that of v.
    by_unit: Vec<Saved>,
    /// `[B, units, chunks, K, cols]`: the newest range after each chunk.
    kept: Saved,
    /// `[units, slots, K, cols]` a row, and whether there is anything in each slot; a device has `[slots, K, H V]`.
    state: State,
    o: Tensor,
    device: Option<OnDevice>,
}

/// What of a run a block of heads reads.
#[derive(Clone, Copy)]
struct Of {
    row: usize,
    unit: usize,
    /// Tokens before.
    position: u64,
    /// T.
    length: usize,
}

impl Levels {
    fn piece<'a>(
        &self,
        inputs: &[Rows<'a>],
        unit: usize,
        start: usize,
        at: u64,
        length: usize,
    ) -> Piece<'a> {
        let Block { heads, key, .. } = self.block;
        let group = unit * self.what.matrix.heads.groups / self.units;
        let columns = heads * self.what.levels;
        Piece {
            given: Given {
                q: part(inputs[QUERIES], start, group * key),
                k: part(inputs[KEYS], start, group * key),
                v: part(inputs[VALUES], start, unit * self.block.cols()),
                logs: Logs::Given(part(inputs[LOGS], start, unit * heads)),
                beta: None,
                scale: None,
                skip: &[],
                length,
                writes: 1,
                reads: 1,
            },
            lambda: part(inputs[LAMBDA], start, unit * columns),
            levels: self.what.levels,
            block: self.block,
            at,
        }
    }

    /// Reads the tokens of a block of heads, and brings the slots from before them to after them. Where the newest ranges
    /// are kept nothing follows, and the slots stay as they are before the last chunk; the slots with anything.
    fn read(
        &self,
        inputs: &[Rows<'_>],
        of: Of,
        mut held: u64,
        slots: &mut [f32],
        o: &mut [f32],
        mut kept: Option<&mut [f32]>,
    ) -> u64 {
        let values = self.block.state_values();
        let mut start = 0;
        SCRATCH.with_borrow_mut(|scratch| {
            while start < of.length {
                let at = of.position + start as u64;
                let count = (CHUNK - at as usize % CHUNK).min(of.length - start);
                let piece = self.piece(inputs, of.unit, of.row * of.length + start, at, count);
                let o = &mut o[start * self.block.cols()..];
                forward(piece, slots, held, o, &mut scratch.chunk);
                start += count;
                if kept.is_some() && start == of.length {
                    break;
                }
                let newest = piece.advance(slots, &mut held, &mut scratch.chunk);
                if let Some(kept) = &mut kept {
                    let place = &mut kept[(start / CHUNK - 1) * values..][..values];
                    place.copy_from_slice(&slots[newest * values..][..values]);
                }
            }
        });
        held
    }

    fn on_device(&self) -> Result<&OnDevice> {
        self.device.as_ref().ok_or_else(|| {
            PluginError::internal("levels were recorded without the buffers of their kernels")
        })
    }

    fn views<'a>(&self, run: &Run<'a>) -> Vec<View<'a>> {
        let inputs = self.what.inputs().into_iter();
        inputs.map(|input| run.value(input)).collect()
    }
}

impl Operation for Levels {
    fn name(&self) -> &'static str {
        "log_linear"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, units, block) = (run.length(), self.units, self.block);
        let views = self.views(run);
        let inputs: Vec<Rows<'_>> = views.iter().map(View::get).collect();
        let mut by_unit = run.saved_mut(self.by_unit[VALUES]);
        let mut kept = run.saved_mut(self.kept);
        let mut state = run.state(self.state);
        let (values, slots) = (block.state_values(), self.what.slots().count);
        let (position, chunks) = (run.position(), length.div_ceil(CHUNK));
        let of = |index: usize| Of {
            row: index / units,
            unit: index % units,
            position,
            length,
        };
        let cost = length * values;
        let each = length * block.cols();
        match &mut state {
            Some(rows) => {
                for (row, (state, o)) in rows
                    .iter_mut()
                    .zip(by_unit.chunks_mut(units * each))
                    .enumerate()
                {
                    let (state, filled) = state.split_at_mut(units * slots * values);
                    let held = (0..slots).filter(|&slot| filled[slot] != 0.0);
                    let held = held.fold(0, |held, slot| held | 1 << slot);
                    let cuts = (cut(state, slots * values), cut(o, each));
                    for_each_unit(cost, cuts, |unit, (state, o)| {
                        self.read(&inputs, of(row * units + unit), held, state, o, None);
                    });
                    let after =
                        held_after(self.what.slots(), held, position, position + length as u64);
                    for (slot, filled) in filled.iter_mut().enumerate() {
                        *filled = (after >> slot & 1) as f32;
                    }
                }
            }
            None => {
                let cuts = (cut(&mut by_unit, each), cut(&mut kept, chunks * values));
                for_each_unit(cost, cuts, |index, (o, kept)| {
                    let mut room =
                        SCRATCH.with_borrow_mut(|scratch| scratch.take_slots(slots * values));
                    let held = self.read(&inputs, of(index), 0, &mut room, o, Some(kept));
                    SCRATCH.with_borrow_mut(|scratch| scratch.give_slots(room, held, values));
                });
            }
        }
        self.columns[VALUES].scatter(&by_unit, length, run.value_mut(self.o));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let tensors = self.what.inputs().into_iter().chain([self.o]);
        let saved = [self.by_unit[VALUES], self.kept].map(Buffer::from);
        Some(tensors.map(Buffer::from).chain(saved).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, units, block) = (run.length(), self.units, self.block);
        let views = self.views(run);
        let inputs: Vec<Rows<'_>> = views.iter().map(View::get).collect();
        let grad_o = run.grad(self.o);
        let grad_o = grad_o.get();
        let (values, chunks) = (block.state_values(), length.div_ceil(CHUNK));
        let kept = run.saved(self.kept);
        let kept: &[f32] = &kept;
        let by_unit = self.by_unit.iter();
        let mut by_unit: Vec<_> = by_unit.map(|&saved| run.saved_mut(saved)).collect();
        let mut buffers = by_unit.iter_mut().zip(&self.columns);
        let mut next = || match buffers.next() {
            Some((buffer, columns)) => cut(buffer, length * columns.width),
            None => cut(&mut [], 0),
        };
        let cuts = (next(), next(), next(), next(), next());
        let slots = self.what.slots().count;
        for_each_unit(length * values, cuts, |index, (q, k, v, logs, lambda)| {
            let (row, unit) = (index / units, index % units);
            let all = self.piece(&inputs, unit, row * length, 0, length);
            SCRATCH.with_borrow_mut(|scratch| {
                grow(&mut scratch.grad_slots, slots * values);
                scratch.sum_logs(all);
                for chunk in (0..chunks).rev() {
                    let start = chunk * CHUNK;
                    let some = Tokens {
                        start,
                        count: CHUNK.min(length - start),
                        of: length,
                    };
                    let first = row * length + start;
                    let piece = self.piece(&inputs, unit, first, start as u64, some.count);
                    let grads = Gradients {
                        q: some.of(q),
                        k: some.of(k),
                        v: some.of(v),
                        logs: some.of(logs),
                        lambda: some.of(lambda),
                    };
                    let kept = Kept {
                        ranges: &kept[index * chunks * values..][..chunks * values],
                        is_last: chunk + 1 == chunks,
                    };
                    let grad_o = part(grad_o, first, unit * block.cols());
                    backward(piece, kept, grad_o, grads, scratch);
                }
            });
        });
        for ((input, columns), by_unit) in self
            .what
            .inputs()
            .into_iter()
            .zip(&self.columns)
            .zip(&by_unit)
        {
            columns.scatter(by_unit, length, run.grad_mut(input));
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![OnDevice::source()]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.on_device()?.forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.on_device()?.backward(run)
    }
}
