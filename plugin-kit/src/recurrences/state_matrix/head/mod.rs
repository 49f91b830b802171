//! The form by matrix products where a head decays as a whole, or not at all (arXiv 2405.21060, section 6), with the
//! delta rule and several writes on a CPU: rows of the batch and blocks of heads in parallel, chunks in order. States are kept at chunk boundaries
//! only and everything inside a chunk is computed again for the gradients.

mod chunk;
mod delta;
mod device;
mod gradients;
pub(super) mod levels;
mod levels_chunk;
mod levels_device;
mod levels_gradients;

use std::cell::RefCell;

use super::fields::{Columns, Tokens};
use super::{Decay, Heads, Removal, StateMatrix};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run, View};
use crate::engine::tensor::{Buffer, Extent, Param, Saved, State, StateSpec, Tensor};
use crate::rows::column_sums;
use crate::units::{cut, for_each_unit};
use chunk::{Block, Given, Logs, Part, Scratch, forward, grow};
use device::DeviceBuffers;
use gradients::{Gradients, backward};
use longhaul_plugin_api::author::Result;

/// Most channels of a block of heads: enough for the matrix products, few enough that one row of a
/// feed keeps several threads busy.
const BLOCK_COLS: usize = 128;

thread_local! {
    static SCRATCH: RefCell<(Scratch, Apart)> = RefCell::default();
}

/// Room of one thread for q, k, v, beta and the gradient of o with a row for each query or write.
type Apart = [Vec<f32>; 5];

/// What goes with a state matrix in chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct With {
    /// `[B, T, H]`: what is written is v times this.
    pub scale: Option<Tensor>,
    /// `[H]`: of v past the state.
    pub skip: Option<Param>,
    /// Tokens of a chunk; a device has its own.
    pub chunk: usize,
}

/// Records the operation; the result is o, `[B, T, H V]`.
pub(super) fn record(graph: &mut Graph, what: StateMatrix, with: With) -> Tensor {
    let Heads { heads, value, .. } = what.heads;
    let block = block_of(what.heads);
    let o = graph.tensor(what.reads() * heads * value);
    let state = graph.state(StateSpec::Fixed {
        values: heads / block.heads * block.state_values(),
        initial: 0.0,
    });
    let operation = InChunks::new(graph, what, with, o, block, state);
    graph.push(operation);
    o
}

/// Heads that share queries and keys, as many as make a block.
fn block_of(heads: Heads) -> Block {
    let in_group = heads.heads / heads.groups;
    let most = (BLOCK_COLS / heads.value).max(1);
    let block_heads = (1..=in_group.min(most))
        .rev()
        .find(|n| in_group.is_multiple_of(*n));
    Block {
        heads: block_heads.unwrap_or(1),
        key: heads.key,
        value: heads.value,
    }
}

/// Where each input stands in [`StateMatrix::inputs`].
const QUERIES: usize = 0;
const KEYS: usize = 1;
const VALUES: usize = 2;
const LOGS: usize = 3;

struct InChunks {
    what: StateMatrix,
    with: With,
    /// `[H]`: logarithms of decays that are the same for all tokens.
    constant: Vec<f64>,
    block: Block,
    /// Blocks of heads of a row.
    units: usize,
    /// `[B, H]`: gradients of the skip.
    grad_skip: Option<Saved>,
    /// How units and groups share the columns of each input.
    columns: Vec<Columns>,
    /// `[B, units, T, ..]`: the gradient of each input, `[B, T, parts, K]` of q and k on a device, with no more parts
    /// than units; going forward o, in the place of that of v.
    by_unit: Vec<Saved>,
    /// `[B, units, chunks, K, cols]`: the state before each chunk; `[B, chunks, K, H V]` on a device.
    before: Saved,
    /// `[B, units, K, cols]`: the state on its way, or its gradient.
    running: Saved,
    /// `[units, K, cols]` a row.
    state: State,
    o: Tensor,
    device: Option<DeviceBuffers>,
}

/// The inputs of a run.
#[derive(Clone, Copy)]
struct Sources<'a> {
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    logs: Option<Rows<'a>>,
    beta: Option<Rows<'a>>,
    scale: Option<Rows<'a>>,
    skip: &'a [f32],
}

impl<'a> Sources<'a> {
    fn new(views: &'a [View<'a>], operation: &InChunks, run: &Run<'a>) -> Self {
        let mut rest = views[LOGS..].iter().map(View::get);
        let mut next = |is_given: bool| is_given.then(|| rest.next()).flatten();
        Self {
            q: views[QUERIES].get(),
            k: views[KEYS].get(),
            v: views[VALUES].get(),
            logs: next(operation.what.decay.given().is_some()),
            beta: next(operation.what.removal != Removal::None),
            scale: next(operation.with.scale.is_some()),
            skip: operation.with.skip.map_or(&[], |skip| run.param(skip)),
        }
    }
}

fn part(rows: Rows<'_>, row: usize, column: usize) -> Part<'_> {
    let rows = rows.from_row(row);
    Part {
        data: &rows.data[column.min(rows.data.len())..],
        stride: rows.stride,
    }
}

/// How queries or writes lie in the rows of an input.
#[derive(Clone, Copy)]
struct Several {
    /// Of a token.
    count: usize,
    /// Tokens.
    length: usize,
}

impl Several {
    /// A row for each, `[length * count, cols]`, of those that lie `step` values apart; where they are several they are copied.
    fn apart<'a>(
        self,
        rows: Part<'a>,
        [step, cols]: [usize; 2],
        room: &'a mut Vec<f32>,
    ) -> Part<'a> {
        if self.count == 1 {
            return rows;
        }
        let all = self.length * self.count;
        grow(room, all * cols);
        for (index, row) in room.chunks_exact_mut(cols).take(all).enumerate() {
            let start = index / self.count * rows.stride + index % self.count * step;
            row.copy_from_slice(&rows.data[start..][..cols]);
        }
        Part {
            data: room,
            stride: cols,
        }
    }
}

impl InChunks {
    fn new(
        graph: &mut Graph,
        what: StateMatrix,
        with: With,
        o: Tensor,
        block: Block,
        state: State,
    ) -> Self {
        let Heads { heads, groups, .. } = what.heads;
        let units = heads / block.heads;
        let (reads, writes) = (what.reads(), what.heads.writes);
        let chunk = match graph.wants_device() {
            true => device::CHUNK,
            false => (with.chunk / writes.max(reads).next_power_of_two()).max(1),
        };
        let with = With { chunk, ..with };
        let columns = |blocks, width, writes| Columns {
            heads: units,
            blocks,
            width,
            writes,
        };
        let mut all = vec![
            columns(groups, block.key, reads),
            columns(groups, block.key, writes),
            columns(units, block.cols(), writes),
        ];
        let by_head = |writes| columns(units, block.heads, writes);
        all.extend(what.decay.given().map(|_| by_head(1)));
        all.extend((what.removal != Removal::None).then(|| by_head(writes)));
        all.extend(with.scale.map(|_| by_head(1)));
        let by_unit = all.iter().enumerate().map(|(index, input)| {
            // Going forward o is in the place of v.
            let each = if index == VALUES {
                reads.max(writes)
            } else {
                input.writes
            };
            let extent = Extent::Tokens(units * input.width * each);
            match index {
                QUERIES | KEYS => graph.saved(extent),
                _ => graph.saved_on_cpu(extent),
            }
        });
        let by_unit = by_unit.collect();
        let values = units * block.state_values();
        Self {
            constant: match &what.decay {
                Decay::Constant(logs) => logs.clone(),
                _ => vec![0.0; heads],
            },
            block,
            units,
            grad_skip: with.skip.map(|_| graph.saved_on_cpu(Extent::Rows(heads))),
            columns: all,
            by_unit,
            before: graph.saved(Extent::Chunks {
                chunk,
                cols: values,
            }),
            running: graph.saved_on_cpu(Extent::Rows(values)),
            state,
            device: graph
                .wants_device()
                .then(|| DeviceBuffers::new(graph, what.heads, with, values)),
            o,
            what,
            with,
        }
    }

    /// Those of the state matrix, and the scale.
    fn inputs(&self) -> impl Iterator<Item = Tensor> {
        self.what.inputs().into_iter().chain(self.with.scale)
    }

    fn views<'a>(&self, run: &Run<'a>) -> Vec<View<'a>> {
        self.inputs().map(|input| run.value(input)).collect()
    }

    /// What chunk tokens `start..start + length` of a unit read; `start` counts over all rows.
    fn given<'a>(
        &'a self,
        sources: Sources<'a>,
        unit: usize,
        start: usize,
        length: usize,
        [q, k, v, beta]: [&'a mut Vec<f32>; 4],
    ) -> Given<'a> {
        let (Block { heads, key, .. }, cols) = (self.block, self.block.cols());
        let (first, all) = (unit * heads, self.what.heads);
        let column = unit * all.groups / self.units * key;
        let reads = self.what.reads();
        let [of_token, writes] = [reads, all.writes].map(|count| Several { count, length });
        let of_q = part(sources.q, start, column);
        let of_k = part(sources.k, start, column);
        let of_v = part(sources.v, start, unit * cols);
        let of_beta = sources.beta.map(|beta| part(beta, start, first));
        Given {
            q: of_token.apart(of_q, [all.groups * key, key], q),
            k: writes.apart(of_k, [all.groups * key, key], k),
            v: writes.apart(of_v, [all.heads * all.value, cols], v),
            logs: match sources.logs {
                Some(logs) => Logs::Given(part(logs, start, first)),
                None => Logs::Constant(&self.constant[first..first + heads]),
            },
            beta: of_beta.map(|of_beta| writes.apart(of_beta, [all.heads, heads], beta)),
            scale: sources.scale.map(|scale| part(scale, start, first)),
            skip: match sources.skip {
                [] => &[],
                skip => &skip[first..first + heads],
            },
            length,
            writes: all.writes,
            reads,
        }
    }
}

impl Operation for InChunks {
    fn name(&self) -> &'static str {
        "state_matrix"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, units, block) = (run.length(), self.units, self.block);
        let views = self.views(run);
        let sources = Sources::new(&views, self, run);
        let mut running = run.saved_mut(self.running);
        let mut by_unit = run.saved_mut(self.by_unit[VALUES]);
        let mut before = run.saved_mut(self.before);
        let mut state = run.state(self.state);
        let values = block.state_values();
        match &state {
            Some(state) => {
                for (running, state) in running.chunks_exact_mut(units * values).zip(state.iter()) {
                    running.copy_from_slice(state);
                }
            }
            None => running.fill(0.0),
        }
        let of_o = Columns {
            writes: self.what.reads(),
            ..self.columns[VALUES]
        };
        let chunks = length.div_ceil(self.with.chunk);
        let training = run.is_training();
        let cuts = (
            cut(&mut running, values),
            cut(&mut by_unit, length * of_o.values()),
            cut(&mut before, chunks * values),
        );
        for_each_unit(length * values, cuts, |index, (running, o, before)| {
            let (row, unit) = (index / units, index % units);
            SCRATCH.with_borrow_mut(|(scratch, apart)| {
                for (chunk, start) in (0..length).step_by(self.with.chunk).enumerate() {
                    let count = self.with.chunk.min(length - start);
                    if training {
                        before[chunk * values..][..values].copy_from_slice(running);
                    }
                    let [q, k, v, beta, _] = &mut *apart;
                    let first = row * length + start;
                    let given = self.given(sources, unit, first, count, [q, k, v, beta]);
                    let o = &mut o[start * of_o.values()..];
                    forward(block, given, running, o, scratch);
                }
            });
        });
        if let Some(state) = &mut state {
            for (running, state) in running.chunks_exact(units * values).zip(state.iter_mut()) {
                state.copy_from_slice(running);
            }
        }
        let by_unit = &by_unit[..run.rows() * units * length * of_o.values()];
        of_o.scatter(by_unit, length, run.value_mut(self.o));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let tensors = self.inputs().chain([self.o]);
        let saved = [self.running, self.by_unit[VALUES], self.before];
        let saved = saved.into_iter().map(Buffer::from);
        Some(tensors.map(Buffer::from).chain(saved).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, units, block) = (run.length(), self.units, self.block);
        let views = self.views(run);
        let sources = Sources::new(&views, self, run);
        let grad_o = run.grad(self.o);
        let grad_o = grad_o.get();
        let before = run.saved(self.before);
        let before: &[f32] = &before;
        let mut running = run.saved_mut(self.running);
        running.fill(0.0);
        let by_unit = self.by_unit.iter();
        let mut by_unit: Vec<_> = by_unit.map(|&saved| run.saved_mut(saved)).collect();
        let (values, chunks) = (block.state_values(), length.div_ceil(self.with.chunk));
        let mut grad_skip = self.grad_skip.map(|saved| run.saved_mut(saved));
        if let Some(grads) = &mut grad_skip {
            grads.fill(0.0);
        }
        let mut inputs = by_unit.iter_mut().zip(&self.columns);
        // Inputs that there are not have no gradients.
        let mut next = |is_given: bool| match is_given.then(|| inputs.next()).flatten() {
            Some((buffer, columns)) => cut(buffer, length * columns.values()),
            None => cut(&mut [], 0),
        };
        let (q, k, v) = (next(true), next(true), next(true));
        let logs = next(self.what.decay.given().is_some());
        let beta = next(self.what.removal != Removal::None);
        let scale = next(self.with.scale.is_some());
        let skip = cut(grad_skip.as_deref_mut().unwrap_or_default(), block.heads);
        let cuts = (cut(&mut running, values), q, k, v, logs, beta, scale, skip);
        for_each_unit(
            length * values,
            cuts,
            |index, (running, q, k, v, logs, beta, scale, skip)| {
                let (row, unit) = (index / units, index % units);
                SCRATCH.with_borrow_mut(|(scratch, apart)| {
                    for chunk in (0..chunks).rev() {
                        let start = chunk * self.with.chunk;
                        let some = Tokens {
                            start,
                            count: self.with.chunk.min(length - start),
                            of: length,
                        };
                        let start = row * length + start;
                        let [of_q, of_k, of_v, of_beta, of_o] = &mut *apart;
                        let room = [of_q, of_k, of_v, of_beta];
                        let given = self.given(sources, unit, start, some.count, room);
                        let state = &before[(index * chunks + chunk) * values..][..values];
                        let several = Several {
                            count: given.reads,
                            length: some.count,
                        };
                        let (cols, grad_o) =
                            (block.cols(), part(grad_o, start, unit * block.cols()));
                        let grad_o = several.apart(grad_o, [units * cols, cols], of_o);
                        let mut grads = Gradients {
                            q: some.of(q),
                            k: some.of(k),
                            v: some.of(v),
                            logs: some.of(logs),
                            beta: some.of(beta),
                            scale: some.of(scale),
                            skip: &mut *skip,
                        };
                        backward(block, given, state, grad_o, running, &mut grads, scratch);
                    }
                });
            },
        );
        let inputs = self.inputs().zip(&self.columns);
        for ((input, columns), by_unit) in inputs.zip(&by_unit) {
            let by_unit = &by_unit[..run.rows() * units * length * columns.values()];
            columns.scatter(by_unit, length, run.grad_mut(input));
        }
        if let (Some(skip), Some(grads)) = (self.with.skip, grad_skip) {
            column_sums(&grads, &mut run.param_grad(skip));
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        self.device_kernels()
    }

    fn check_device(&self) -> Result<()> {
        super::device::check_constant(&self.what)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_backward(run)
    }
}
