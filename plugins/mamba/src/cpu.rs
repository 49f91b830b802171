//! The selective scan on the CPU as one operation: rows of the batch and blocks of channels in
//! parallel. States are kept every few tokens only and computed again for the gradients, so nothing of
//! size `[B, T, d_inner, N]` exists.

use std::cell::RefCell;

use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, Rows, ViewMut};
use longhaul_plugin_kit::simd::{add_into, negative_exp};
use longhaul_plugin_kit::units::{cut, for_each_unit};
use longhaul_plugin_kit::{
    Buffer, Extent, Graph, Operation, Param, Result, Run, Saved, State, StateSpec, Tensor,
};

use crate::cuda::{self, DeviceBuffers};
use crate::scan::{BLOCK, CHUNK, Given, Gradients, Part, Scratch, backward, forward};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// The scan with its inputs.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct ScanInputs {
    /// `[B, T, d_inner]`.
    pub u: Tensor,
    /// `[B, T, d_inner]`, before softplus.
    pub delta: Tensor,
    /// `[B, T, N]`.
    pub b: Tensor,
    /// `[B, T, N]`.
    pub c: Tensor,
    /// `[d_inner, N]`.
    pub a_log: Param,
    /// `[d_inner]`.
    pub d: Param,
    /// Whether transitions are `2 exp(dt A) - 1`.
    pub negative: bool,
}

/// Records the operation; its result is y, `[B, T, d_inner]`.
pub(crate) fn selective_scan(graph: &mut Graph, inputs: ScanInputs) -> Tensor {
    let (channels, states) = (inputs.u.cols(), inputs.b.cols());
    let units = channels.div_ceil(BLOCK);
    let padded = units * BLOCK;
    let y = graph.tensor(channels);
    let operation = SelectiveScan {
        channels,
        states,
        units,
        a: graph.saved_on_cpu(Extent::Fixed(states * padded)),
        d: graph.saved_on_cpu(Extent::Fixed(padded)),
        by_unit: graph.saved_on_cpu(Extent::Tokens(padded)),
        kept: graph.saved(Extent::Chunks {
            chunk: CHUNK,
            cols: states * padded,
        }),
        running: graph.saved_on_cpu(Extent::Rows(states * padded)),
        grad_delta: graph.saved_on_cpu(Extent::Tokens(padded)),
        grad_b: graph.saved(Extent::Tokens(units * states)),
        grad_c: graph.saved(Extent::Tokens(units * states)),
        grad_a: graph.saved_on_cpu(Extent::Rows(states * padded)),
        grad_d: graph.saved_on_cpu(Extent::Rows(padded)),
        device: graph
            .wants_device()
            .then(|| DeviceBuffers::new(graph, channels, states)),
        state: graph.state(StateSpec::Fixed {
            values: states * channels,
            initial: 0.0,
        }),
        y,
        inputs,
    };
    graph.push(operation);
    y
}

pub(crate) struct SelectiveScan {
    pub(crate) inputs: ScanInputs,
    pub(crate) channels: usize,
    pub(crate) states: usize,
    /// Blocks of channels; the last may be padded.
    pub(crate) units: usize,
    /// `[units, N, BLOCK]`: A = -exp(A_log); 0 where padded.
    a: Saved,
    /// `[units, BLOCK]`: D.
    d: Saved,
    /// `[B, units, T, BLOCK]`: the result by block, or the gradient of u.
    by_unit: Saved,
    /// `[B, units, chunks, N, BLOCK]`: the state before each chunk;
    /// `[B, chunks, N, d_inner]` on a device.
    pub(crate) kept: Saved,
    /// `[B, units, N, BLOCK]`: the state on its way, or its gradient.
    running: Saved,
    /// `[B, units, T, BLOCK]`.
    grad_delta: Saved,
    /// `[B, units, T, N]`; `[units, B, T, N]` on a device.
    pub(crate) grad_b: Saved,
    /// As `grad_b`.
    pub(crate) grad_c: Saved,
    /// `[B, units, N, BLOCK]`.
    grad_a: Saved,
    /// `[B, units, BLOCK]`.
    grad_d: Saved,
    device: Option<DeviceBuffers>,
    /// `[N, d_inner]` a row.
    pub(crate) state: State,
    pub(crate) y: Tensor,
}

/// The inputs of a run.
#[derive(Clone, Copy)]
struct Sources<'a> {
    u: Rows<'a>,
    delta: Rows<'a>,
    b: Rows<'a>,
    c: Rows<'a>,
    a: &'a [f32],
    d: &'a [f32],
}

fn part(rows: Rows<'_>, row: usize, column: usize, count: usize) -> Part<'_> {
    let rows = rows.from_row(row);
    Part {
        data: &rows.data[column.min(rows.data.len())..],
        stride: rows.stride,
        count,
    }
}

impl SelectiveScan {
    fn device_buffers(&self) -> &DeviceBuffers {
        self.device.as_ref().expect("recorded for a device")
    }

    /// Channels of a unit.
    fn count(&self, unit: usize) -> usize {
        BLOCK.min(self.channels - unit * BLOCK)
    }

    fn given<'a>(&self, from: Sources<'a>, unit: usize, start: usize, length: usize) -> Given<'a> {
        let (column, count) = (unit * BLOCK, self.count(unit));
        let values = self.states * BLOCK;
        Given {
            u: part(from.u, start, column, count),
            delta: part(from.delta, start, column, count),
            b: part(from.b, start, 0, self.states),
            c: part(from.c, start, 0, self.states),
            a: &from.a[unit * values..][..values],
            d: &from.d[column..][..BLOCK],
            length,
            negative: self.inputs.negative,
        }
    }

    /// Puts A and D into blocks.
    fn fill_blocks(&self, run: &Run<'_>) {
        let (mut a, mut d) = (run.saved_mut(self.a), run.saved_mut(self.d));
        let a_log = run.param(self.inputs.a_log);
        a.fill(f32::NEG_INFINITY);
        d.fill(0.0);
        d[..self.channels].copy_from_slice(run.param(self.inputs.d));
        for channel in 0..self.channels {
            for n in 0..self.states {
                let place = (channel / BLOCK * self.states + n) * BLOCK + channel % BLOCK;
                a[place] = a_log[channel * self.states + n];
            }
        }
        negative_exp(&mut a);
    }

    /// Copies `[B, units, T, BLOCK]` into rows `[B, T, d_inner]`.
    fn scatter(&self, by_unit: &[f32], length: usize, mut rows: ViewMut<'_>) {
        let accumulate = rows.accumulate();
        for (index, values) in by_unit.chunks_exact(BLOCK).enumerate() {
            let (t, unit, row) = (
                index % length,
                index / length % self.units,
                index / length / self.units,
            );
            let count = self.count(unit);
            let place = &mut rows.row_mut(row * length + t)[unit * BLOCK..][..count];
            if accumulate {
                add_into(place, &values[..count]);
            } else {
                place.copy_from_slice(&values[..count]);
            }
        }
    }

    /// Adds up `[B, units, T, N]` over the units into rows `[B, T, N]`.
    fn gather(&self, by_unit: &[f32], length: usize, mut rows: ViewMut<'_>) {
        let accumulate = rows.accumulate();
        for (index, values) in by_unit.chunks_exact(self.states).enumerate() {
            let (t, unit, row) = (
                index % length,
                index / length % self.units,
                index / length / self.units,
            );
            let place = rows.row_mut(row * length + t);
            if accumulate || unit > 0 {
                add_into(place, values);
            } else {
                place.copy_from_slice(values);
            }
        }
    }

    fn add_param_gradients(&self, run: &Run<'_>, grad_a: &[f32], grad_d: &[f32], a: &[f32]) {
        let mut grad_a_log = run.param_grad(self.inputs.a_log);
        let mut grad_skip = run.param_grad(self.inputs.d);
        let padded = self.units * BLOCK;
        for (grad_a, grad_d) in grad_a
            .chunks_exact(self.states * padded)
            .zip(grad_d.chunks_exact(padded))
        {
            for channel in 0..self.channels {
                grad_skip[channel] += grad_d[channel];
                for n in 0..self.states {
                    let place = (channel / BLOCK * self.states + n) * BLOCK + channel % BLOCK;
                    // A = -exp(A_log), so dA / dA_log = A.
                    grad_a_log[channel * self.states + n] += grad_a[place] * a[place];
                }
            }
        }
    }

    /// Copies a row's state `[N, d_inner]` into blocks, or back.
    fn exchange(&self, state: &mut [f32], blocks: &mut [f32], into_blocks: bool) {
        for n in 0..self.states {
            for unit in 0..self.units {
                let count = self.count(unit);
                let outside = &mut state[n * self.channels + unit * BLOCK..][..count];
                let inside = &mut blocks[(unit * self.states + n) * BLOCK..][..count];
                if into_blocks {
                    inside.copy_from_slice(outside);
                } else {
                    outside.copy_from_slice(inside);
                }
            }
        }
    }
}

impl Operation for SelectiveScan {
    fn name(&self) -> &'static str {
        "selective_scan"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        self.fill_blocks(run);
        let (length, units) = (run.length(), self.units);
        let (u, delta) = (run.value(self.inputs.u), run.value(self.inputs.delta));
        let (b, c) = (run.value(self.inputs.b), run.value(self.inputs.c));
        let (a, d) = (run.saved(self.a), run.saved(self.d));
        let from = Sources {
            u: u.get(),
            delta: delta.get(),
            b: b.get(),
            c: c.get(),
            a: &a,
            d: &d,
        };
        let mut running = run.saved_mut(self.running);
        let mut by_unit = run.saved_mut(self.by_unit);
        let mut kept = run.saved_mut(self.kept);
        let mut state = run.state(self.state);
        let values = self.states * BLOCK;
        running.fill(0.0);
        if let Some(state) = &mut state {
            for (blocks, state) in running
                .chunks_exact_mut(units * values)
                .zip(state.iter_mut())
            {
                self.exchange(state, blocks, true);
            }
        }
        let training = run.is_training();
        let chunks = length.div_ceil(CHUNK);
        let cuts = (
            cut(&mut running, values),
            cut(&mut by_unit, length * BLOCK),
            cut(&mut kept, chunks * values),
        );
        for_each_unit(length * values, cuts, |index, (h, y, kept)| {
            let (row, unit) = (index / units, index % units);
            let given = self.given(from, unit, row * length, length);
            let kept = if training { kept } else { &mut [] };
            forward(given, h, y, kept);
        });
        if let Some(state) = &mut state {
            for (blocks, state) in running
                .chunks_exact_mut(units * values)
                .zip(state.iter_mut())
            {
                self.exchange(state, blocks, false);
            }
        }
        self.scatter(&by_unit, length, run.value_mut(self.y));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.inputs.u.into(),
            self.inputs.delta.into(),
            self.inputs.b.into(),
            self.inputs.c.into(),
            self.a.into(),
            self.d.into(),
            self.running.into(),
            self.by_unit.into(),
            self.kept.into(),
            self.y.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, units) = (run.length(), self.units);
        let (u, delta) = (run.value(self.inputs.u), run.value(self.inputs.delta));
        let (b, c) = (run.value(self.inputs.b), run.value(self.inputs.c));
        let (a, d) = (run.saved(self.a), run.saved(self.d));
        let from = Sources {
            u: u.get(),
            delta: delta.get(),
            b: b.get(),
            c: c.get(),
            a: &a,
            d: &d,
        };
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        let mut kept = run.saved_mut(self.kept);
        let mut running = run.saved_mut(self.running);
        let (mut grad_u, mut grad_delta) =
            (run.saved_mut(self.by_unit), run.saved_mut(self.grad_delta));
        let (mut grad_b, mut grad_c) = (run.saved_mut(self.grad_b), run.saved_mut(self.grad_c));
        let (mut grad_a, mut grad_d) = (run.saved_mut(self.grad_a), run.saved_mut(self.grad_d));
        running.fill(0.0);
        grad_a.fill(0.0);
        grad_d.fill(0.0);
        let (states, values) = (self.states, self.states * BLOCK);
        let chunks = length.div_ceil(CHUNK);
        let cuts = (
            cut(&mut running, values),
            cut(&mut kept, chunks * values),
            cut(&mut grad_u, length * BLOCK),
            cut(&mut grad_delta, length * BLOCK),
            cut(&mut grad_b, length * states),
            cut(&mut grad_c, length * states),
            cut(&mut grad_a, values),
            cut(&mut grad_d, BLOCK),
        );
        for_each_unit(
            length * values,
            cuts,
            |index, (grad_h, kept, u, delta, b, c, a, d)| {
                let (row, unit) = (index / units, index % units);
                SCRATCH.with_borrow_mut(|scratch| {
                    for chunk in (0..chunks).rev() {
                        let start = chunk * CHUNK;
                        let count = CHUNK.min(length - start);
                        let given = self.given(from, unit, row * length + start, count);
                        let h = &mut kept[chunk * values..][..values];
                        let dy = part(grad_y, row * length + start, unit * BLOCK, self.count(unit));
                        let mut grads = Gradients {
                            u: &mut u[start * BLOCK..][..count * BLOCK],
                            delta: &mut delta[start * BLOCK..][..count * BLOCK],
                            b: &mut b[start * states..][..count * states],
                            c: &mut c[start * states..][..count * states],
                            a: &mut *a,
                            d: &mut *d,
                        };
                        backward(given, h, dy, grad_h, &mut grads, scratch);
                    }
                });
            },
        );
        self.scatter(&grad_u, length, run.grad_mut(self.inputs.u));
        self.scatter(&grad_delta, length, run.grad_mut(self.inputs.delta));
        self.gather(&grad_b, length, run.grad_mut(self.inputs.b));
        self.gather(&grad_c, length, run.grad_mut(self.inputs.c));
        self.add_param_gradients(run, &grad_a, &grad_d, &a);
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        cuda::kernels()
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        cuda::forward(self, self.device_buffers(), run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        cuda::backward(self, self.device_buffers(), run)
    }
}
