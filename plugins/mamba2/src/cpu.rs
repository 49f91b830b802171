//! The state-space operation on the CPU: rows of the batch and blocks of heads in parallel, chunks in
//! order. States are kept at chunk boundaries only and everything inside a chunk is computed again
//! for the gradients.

use std::cell::RefCell;

use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, Rows, ViewMut};
use longhaul_plugin_kit::simd::{add_into, negative_exp};
use longhaul_plugin_kit::units::{cut, for_each_unit};
use longhaul_plugin_kit::{
    Buffer, Extent, Graph, Operation, Param, Result, Run, Saved, State, StateSpec, Tensor,
};

use crate::chunk::{Block, Given, Part, Scratch, forward};
use crate::cuda::{self, DeviceBuffers};
use crate::gradients::{Gradients, backward};

/// Most channels of a block of heads: enough for the matrix products, few enough that one row of a
/// feed keeps several threads busy.
const BLOCK_COLS: usize = 128;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Inputs of the operation.
#[doc(hidden)]
pub struct SsdInputs {
    /// `[B, T, H V]`.
    pub x: Tensor,
    /// `[B, T, G N]`.
    pub b: Tensor,
    /// `[B, T, G N]`.
    pub c: Tensor,
    /// `[B, T, H]`.
    pub dt: Tensor,
    /// `[H]`.
    pub a_log: Param,
    /// `[H]`.
    pub d: Param,
    /// `[H]`.
    pub dt_bias: Param,
}

/// Records the operation; the result is y, `[B, T, H V]`.
#[doc(hidden)]
pub fn ssd(graph: &mut Graph, inputs: SsdInputs, groups: usize, chunk: usize) -> Tensor {
    let d_inner = inputs.x.cols();
    let heads = inputs.dt.cols();
    let (state, head_dim) = (inputs.b.cols() / groups, d_inner / heads);
    if graph.wants_reference() {
        let SsdInputs {
            x,
            b,
            c,
            dt,
            a_log,
            d,
            dt_bias,
        } = inputs;
        let params = [a_log, d, dt_bias];
        return graph.reference(&[x, b, c, dt], &params, d_inner, move |given| {
            let sizes = crate::reference::Sizes {
                rows: given.rows,
                length: given.length,
                heads,
                head_dim,
                groups,
                state,
            };
            let ([x, b, c, dt], [a, d, bias]) = (&given.inputs[..], &given.params[..]) else {
                unreachable!("four inputs and three parameters are recorded")
            };
            crate::reference::recurrence(x, b, c, dt, a, d, bias, sizes)
        });
    }
    let in_group = heads / groups;
    let most = (BLOCK_COLS / head_dim).max(1);
    let block_heads = (1..=in_group.min(most))
        .rev()
        .find(|n| in_group.is_multiple_of(*n));
    let block = Block {
        heads: block_heads.unwrap_or(1),
        head_dim,
        state,
    };
    let y = graph.tensor(d_inner);
    let operation = Ssd::new(graph, inputs, y, block, groups, chunk);
    graph.push(operation);
    y
}

pub(crate) struct Ssd {
    pub inputs: SsdInputs,
    pub block: Block,
    /// Blocks of heads of a row.
    pub units: usize,
    pub groups: usize,
    chunk: usize,
    /// `[B, units, T, cols]`: the result by block.
    by_unit: Saved,
    /// `[B, units, chunks, N, cols]`: the state before each chunk; `[B, chunks, N, H V]` on a device.
    pub before: Saved,
    /// `[B, units, N, cols]`: the state on its way, or its gradient.
    running: Saved,
    /// `[B, units, T, cols]`.
    grad_x: Saved,
    /// `[B, units, T, N]`; `[B, T, parts, N]` on a device, with no more parts than units.
    pub grad_b: Saved,
    /// Like `grad_b`.
    pub grad_c: Saved,
    /// `[B, units, T, heads]`.
    grad_dt: Saved,
    /// `[B, units, 3, heads]`: of A, D and dt_bias.
    grad_params: Saved,
    /// `[H]`: A = -exp(A_log).
    decay: Saved,
    /// `[units, N, cols]` a row.
    pub state: State,
    pub y: Tensor,
    pub device: Option<DeviceBuffers>,
}

/// The inputs of a run.
#[derive(Clone, Copy)]
struct Sources<'a> {
    x: Rows<'a>,
    b: Rows<'a>,
    c: Rows<'a>,
    dt: Rows<'a>,
    a: &'a [f32],
    d: &'a [f32],
    dt_bias: &'a [f32],
}

fn part(rows: Rows<'_>, row: usize, column: usize) -> Part<'_> {
    let rows = rows.from_row(row);
    Part {
        data: &rows.data[column.min(rows.data.len())..],
        stride: rows.stride,
    }
}

impl Ssd {
    fn new(
        graph: &mut Graph,
        inputs: SsdInputs,
        y: Tensor,
        block: Block,
        groups: usize,
        chunk: usize,
    ) -> Self {
        let (d_inner, heads, state) = (inputs.x.cols(), inputs.dt.cols(), block.state);
        let units = heads / block.heads;
        let on_device = graph.wants_device();
        let chunk = if on_device { cuda::CHUNK } else { chunk };
        Self {
            block,
            units,
            groups,
            chunk,
            by_unit: graph.saved_on_cpu(Extent::Tokens(d_inner)),
            before: graph.saved(Extent::Chunks {
                chunk,
                cols: state * d_inner,
            }),
            running: graph.saved_on_cpu(Extent::Rows(state * d_inner)),
            grad_x: graph.saved_on_cpu(Extent::Tokens(d_inner)),
            grad_b: graph.saved(Extent::Tokens(units * state)),
            grad_c: graph.saved(Extent::Tokens(units * state)),
            grad_dt: graph.saved_on_cpu(Extent::Tokens(heads)),
            grad_params: graph.saved_on_cpu(Extent::Rows(3 * heads)),
            decay: graph.saved_on_cpu(Extent::Fixed(heads)),
            state: graph.state(StateSpec::Fixed {
                values: state * d_inner,
                initial: 0.0,
            }),
            device: on_device.then(|| DeviceBuffers::new(graph, heads, groups, state * d_inner)),
            y,
            inputs,
        }
    }

    /// What chunk tokens `start..start + length` of a unit read; `start` counts over all rows.
    fn given<'a>(
        &self,
        sources: Sources<'a>,
        unit: usize,
        start: usize,
        length: usize,
    ) -> Given<'a> {
        let Block { heads, state, .. } = self.block;
        let first = unit * heads;
        let group = unit * self.groups / self.units;
        Given {
            x: part(sources.x, start, unit * self.block.cols()),
            b: part(sources.b, start, group * state),
            c: part(sources.c, start, group * state),
            dt: part(sources.dt, start, first),
            a: &sources.a[first..first + heads],
            d: &sources.d[first..first + heads],
            dt_bias: &sources.dt_bias[first..first + heads],
            length,
        }
    }

    /// Copies `[B, units, T, width]` into rows `[B, T, ..]`; units of one group are added up where
    /// they share columns.
    fn scatter(&self, by_unit: &[f32], length: usize, width: usize, mut rows: ViewMut<'_>) {
        let sharing = self.units * width / rows.cols();
        let accumulate = rows.accumulate();
        for (index, values) in by_unit.chunks_exact(width).enumerate() {
            let (t, unit, row) = (
                index % length,
                index / length % self.units,
                index / length / self.units,
            );
            let column = unit / sharing * width;
            let place = &mut rows.row_mut(row * length + t)[column..column + width];
            if accumulate || !unit.is_multiple_of(sharing) {
                add_into(place, values);
            } else {
                place.copy_from_slice(values);
            }
        }
    }

    fn fill_decay(&self, run: &Run<'_>) {
        let mut decay = run.saved_mut(self.decay);
        decay.copy_from_slice(run.param(self.inputs.a_log));
        negative_exp(&mut decay);
    }
}

impl Operation for Ssd {
    fn name(&self) -> &'static str {
        "ssd"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        self.fill_decay(run);
        let (length, units, block) = (run.length(), self.units, self.block);
        let (x, b) = (run.value(self.inputs.x), run.value(self.inputs.b));
        let (c, dt) = (run.value(self.inputs.c), run.value(self.inputs.dt));
        let decay = run.saved(self.decay);
        let sources = Sources {
            x: x.get(),
            b: b.get(),
            c: c.get(),
            dt: dt.get(),
            a: &decay,
            d: run.param(self.inputs.d),
            dt_bias: run.param(self.inputs.dt_bias),
        };
        let mut running = run.saved_mut(self.running);
        let mut by_unit = run.saved_mut(self.by_unit);
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
        let chunks = length.div_ceil(self.chunk);
        let training = run.is_training();
        let cuts = (
            cut(&mut running, values),
            cut(&mut by_unit, length * block.cols()),
            cut(&mut before, chunks * values),
        );
        for_each_unit(length * values, cuts, |index, (running, y, before)| {
            let (row, unit) = (index / units, index % units);
            SCRATCH.with_borrow_mut(|scratch| {
                for (chunk, start) in (0..length).step_by(self.chunk).enumerate() {
                    let count = self.chunk.min(length - start);
                    if training {
                        before[chunk * values..][..values].copy_from_slice(running);
                    }
                    let given = self.given(sources, unit, row * length + start, count);
                    let y = &mut y[start * block.cols()..];
                    forward(block, given, running, y, scratch);
                }
            });
        });
        if let Some(state) = &mut state {
            for (running, state) in running.chunks_exact(units * values).zip(state.iter_mut()) {
                state.copy_from_slice(running);
            }
        }
        self.scatter(&by_unit, length, block.cols(), run.value_mut(self.y));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.inputs.x.into(),
            self.inputs.b.into(),
            self.inputs.c.into(),
            self.inputs.dt.into(),
            self.decay.into(),
            self.running.into(),
            self.by_unit.into(),
            self.before.into(),
            self.y.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, units, block) = (run.length(), self.units, self.block);
        let (x, b) = (run.value(self.inputs.x), run.value(self.inputs.b));
        let (c, dt) = (run.value(self.inputs.c), run.value(self.inputs.dt));
        let decay = run.saved(self.decay);
        let sources = Sources {
            x: x.get(),
            b: b.get(),
            c: c.get(),
            dt: dt.get(),
            a: &decay,
            d: run.param(self.inputs.d),
            dt_bias: run.param(self.inputs.dt_bias),
        };
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        let before = run.saved(self.before);
        let before: &[f32] = &before;
        let mut running = run.saved_mut(self.running);
        running.fill(0.0);
        let (mut grad_x, mut grad_dt) = (run.saved_mut(self.grad_x), run.saved_mut(self.grad_dt));
        let (mut grad_b, mut grad_c) = (run.saved_mut(self.grad_b), run.saved_mut(self.grad_c));
        let mut grad_params = run.saved_mut(self.grad_params);
        grad_params.fill(0.0);
        let (cols, values, heads, n) =
            (block.cols(), block.state_values(), block.heads, block.state);
        let chunks = length.div_ceil(self.chunk);
        let cuts = (
            cut(&mut running, values),
            cut(&mut grad_x, length * cols),
            cut(&mut grad_b, length * n),
            cut(&mut grad_c, length * n),
            cut(&mut grad_dt, length * heads),
            cut(&mut grad_params, 3 * heads),
        );
        for_each_unit(
            length * values,
            cuts,
            |index, (running, x, b, c, dt, params)| {
                let (row, unit) = (index / units, index % units);
                let (a, rest) = params.split_at_mut(heads);
                let (d, dt_bias) = rest.split_at_mut(heads);
                SCRATCH.with_borrow_mut(|scratch| {
                    for chunk in (0..chunks).rev() {
                        let start = chunk * self.chunk;
                        let count = self.chunk.min(length - start);
                        let given = self.given(sources, unit, row * length + start, count);
                        let state = &before[(index * chunks + chunk) * values..][..values];
                        let dy = part(grad_y, row * length + start, unit * cols);
                        let mut grads = Gradients {
                            x: &mut x[start * cols..][..count * cols],
                            b: &mut b[start * n..][..count * n],
                            c: &mut c[start * n..][..count * n],
                            dt: &mut dt[start * heads..][..count * heads],
                            a: &mut *a,
                            d: &mut *d,
                            dt_bias: &mut *dt_bias,
                        };
                        backward(block, given, state, dy, running, &mut grads, scratch);
                    }
                });
            },
        );
        self.scatter(&grad_x, length, cols, run.grad_mut(self.inputs.x));
        self.scatter(&grad_b, length, n, run.grad_mut(self.inputs.b));
        self.scatter(&grad_c, length, n, run.grad_mut(self.inputs.c));
        self.scatter(&grad_dt, length, heads, run.grad_mut(self.inputs.dt));
        self.add_param_gradients(run, &grad_params, &decay);
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        self.device_kernels()
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_backward(run)
    }
}

impl Ssd {
    fn add_param_gradients(&self, run: &Run<'_>, grads: &[f32], decay: &[f32]) {
        let heads = self.block.heads;
        let mut a_log = run.param_grad(self.inputs.a_log);
        let mut d = run.param_grad(self.inputs.d);
        let mut dt_bias = run.param_grad(self.inputs.dt_bias);
        for (index, grads) in grads.chunks_exact(3 * heads).enumerate() {
            let first = index % self.units * heads;
            for head in 0..heads {
                // A = -exp(A_log), so dA / dA_log = A.
                a_log[first + head] += grads[head] * decay[first + head];
                d[first + head] += grads[heads + head];
                dt_bias[first + head] += grads[2 * heads + head];
            }
        }
    }
}
