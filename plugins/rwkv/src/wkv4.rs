//! RWKV-4's recurrence as one operation: rows of the batch and blocks of channels in parallel. States
//! are kept every few tokens only and computed again for the gradients.

mod cuda;

use longhaul_plugin_kit::cuda::rows::ROWS;
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::simd::negative_exp;
use longhaul_plugin_kit::units::{cut, for_each_unit};
use longhaul_plugin_kit::{
    Buffer, Carries, Extent, Graph, Operation, Param, Ports, Real, Recurrence, Result, Run, Saved,
    Sequence, State, StateSpec, Tensor,
};

use crate::part::{ONLY, Part, not_for_a_device, scatter};
use crate::wkv4_scan::{BLOCK, CHUNK, EMPTY, Given, Gradients, STATE, backward, forward};

/// Multiply-adds a token and channel, roughly.
const WORK: usize = 32;

/// The recurrence with its inputs; H is its number of channels.
#[derive(Clone, Copy)]
pub(crate) struct Wkv4Inputs {
    /// `[B, T, H]`, before its sigmoid.
    pub r: Tensor,
    /// `[B, T, H]`.
    pub k: Tensor,
    /// `[B, T, H]`.
    pub v: Tensor,
    /// `[H]`: w = -exp(time_decay).
    pub time_decay: Param,
    /// `[H]`: u.
    pub time_first: Param,
}

/// Its result is `sigmoid(r) wkv`, `[B, T, H]`.
impl Recurrence for Wkv4Inputs {
    fn name(&self) -> &'static str {
        "wkv4"
    }

    fn ports(&self) -> Ports {
        let channels = self.k.cols();
        Ports {
            inputs: vec![self.r, self.k, self.v],
            params: vec![self.time_decay, self.time_first],
            cols: channels,
            carries: Carries::State {
                values: 2 * channels,
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let ([r, k, v], [decay, first]) = (&given.inputs[..], &given.params[..]) else {
            unreachable!("three inputs and two parameters are recorded")
        };
        let wkv = crate::reference::wkv4([k, v], [decay, first], state);
        r.iter()
            .zip(wkv)
            .map(|(r, wkv)| r.sigmoid() * wkv)
            .collect()
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(record(graph, *self))
    }
}

/// Records the operation.
fn record(graph: &mut Graph, inputs: Wkv4Inputs) -> Tensor {
    let channels = inputs.k.cols();
    let units = channels.div_ceil(BLOCK);
    let padded = units * BLOCK;
    let y = graph.tensor(channels);
    let operation = Wkv4 {
        channels,
        units,
        params: graph.saved_on_cpu(Extent::Fixed(2 * padded)),
        by_unit: graph.saved_on_cpu(Extent::Tokens(padded)),
        kept: graph.saved(Extent::Chunks {
            chunk: CHUNK,
            cols: 2 * padded,
        }),
        running: graph.saved_on_cpu(Extent::Rows(2 * padded)),
        grad_k: graph.saved_on_cpu(Extent::Tokens(padded)),
        grad_v: graph.saved_on_cpu(Extent::Tokens(padded)),
        grad_params: graph.saved_on_cpu(Extent::Rows(2 * padded)),
        mean: graph.state(StateSpec::Fixed {
            values: channels,
            initial: 0.0,
        }),
        level: graph.state(StateSpec::Fixed {
            values: channels,
            initial: EMPTY,
        }),
        room: cuda::Room::new(graph, channels),
        y,
        inputs,
    };
    graph.push(operation);
    y
}

struct Wkv4 {
    inputs: Wkv4Inputs,
    channels: usize,
    /// Blocks of channels; the last may be padded.
    units: usize,
    /// `[units, 2, BLOCK]`: w, then u; 0 where padded.
    params: Saved,
    /// `[B, units, T, BLOCK]`: the result by block, or the gradient of r.
    by_unit: Saved,
    /// `[B, units, chunks, 2, BLOCK]`: the state before each chunk.
    kept: Saved,
    /// `[B, units, 2, BLOCK]`: the state on its way, or its gradient.
    running: Saved,
    /// `[B, units, T, BLOCK]`.
    grad_k: Saved,
    /// `[B, units, T, BLOCK]`.
    grad_v: Saved,
    /// `[B, units, 2, BLOCK]`: of w, then of u.
    grad_params: Saved,
    /// `[H]` a row: a.
    mean: State,
    /// `[H]` a row: L.
    level: State,
    /// What a device needs beside them.
    room: Option<cuda::Room>,
    y: Tensor,
}

/// The inputs of a unit over a whole run.
#[derive(Clone, Copy)]
struct Source<'a> {
    r: Part<'a>,
    k: Part<'a>,
    v: Part<'a>,
    params: &'a [f32],
}

impl<'a> Source<'a> {
    fn given(self, start: usize, length: usize) -> Given<'a> {
        let (w, u) = self.params.split_at(BLOCK);
        Given {
            r: self.r.skip_rows(start),
            k: self.k.skip_rows(start),
            v: self.v.skip_rows(start),
            w: w.try_into().expect("a block"),
            u: u.try_into().expect("a block"),
            length,
        }
    }
}

impl Wkv4 {
    /// Channels of a unit.
    fn count(&self, unit: usize) -> usize {
        BLOCK.min(self.channels - unit * BLOCK)
    }

    /// Puts w and u into blocks.
    fn fill_params(&self, run: &Run<'_>) {
        let mut params = run.saved_mut(self.params);
        let decay = run.param(self.inputs.time_decay);
        let first = run.param(self.inputs.time_first);
        params.fill(0.0);
        for (unit, params) in params.chunks_exact_mut(STATE).enumerate() {
            for i in 0..self.count(unit) {
                params[i] = decay[unit * BLOCK + i];
                params[BLOCK + i] = first[unit * BLOCK + i];
            }
            negative_exp(&mut params[..self.count(unit)]);
        }
    }

    /// The state before the run, in blocks.
    fn begin(&self, run: &Run<'_>, running: &mut [f32]) {
        let (mean, level) = (run.state(self.mean), run.state(self.level));
        let states = mean.as_ref().zip(level.as_ref());
        for (index, block) in running.chunks_exact_mut(STATE).enumerate() {
            let (row, unit) = (index / self.units, index % self.units);
            let (a, l) = block.split_at_mut(BLOCK);
            a.fill(0.0);
            l.fill(EMPTY);
            if let Some((mean, level)) = states {
                let (start, count) = (unit * BLOCK, self.count(unit));
                a[..count].copy_from_slice(&mean[row][start..][..count]);
                l[..count].copy_from_slice(&level[row][start..][..count]);
            }
        }
    }

    /// Leaves the state after the run in its slots.
    fn end(&self, run: &Run<'_>, running: &[f32]) {
        let (Some(mut mean), Some(mut level)) = (run.state(self.mean), run.state(self.level))
        else {
            return;
        };
        for (index, block) in running.chunks_exact(STATE).enumerate() {
            let (row, unit) = (index / self.units, index % self.units);
            let (start, count) = (unit * BLOCK, self.count(unit));
            mean[row][start..][..count].copy_from_slice(&block[..count]);
            level[row][start..][..count].copy_from_slice(&block[BLOCK..][..count]);
        }
    }
}

impl Operation for Wkv4 {
    fn name(&self) -> &'static str {
        "wkv4"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        self.fill_params(run);
        let (length, units) = (run.length(), self.units);
        let (r, k) = (run.value(self.inputs.r), run.value(self.inputs.k));
        let v = run.value(self.inputs.v);
        let (r, k, v) = (r.get(), k.get(), v.get());
        let params = run.saved(self.params);
        let params = &*params;
        let mut running = run.saved_mut(self.running);
        let mut by_unit = run.saved_mut(self.by_unit);
        let mut kept = run.saved_mut(self.kept);
        self.begin(run, &mut running);
        let training = run.is_training();
        let chunks = length.div_ceil(CHUNK);
        let cuts = (
            cut(&mut running, STATE),
            cut(&mut by_unit, length * BLOCK),
            cut(&mut kept, chunks * STATE),
        );
        for_each_unit(length * BLOCK * WORK, cuts, |index, (state, y, kept)| {
            let (row, unit) = (index / units, index % units);
            let part = |rows| Part::new(rows, row * length, unit * BLOCK, self.count(unit));
            let source = Source {
                r: part(r),
                k: part(k),
                v: part(v),
                params: &params[unit * STATE..][..STATE],
            };
            let kept = if training { kept } else { &mut [] };
            forward(source.given(0, length), state, y, kept);
        });
        self.end(run, &running);
        scatter(&by_unit, ONLY, length, BLOCK, run.value_mut(self.y));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.inputs.r.into(),
            self.inputs.k.into(),
            self.inputs.v.into(),
            self.params.into(),
            self.running.into(),
            self.by_unit.into(),
            self.kept.into(),
            self.y.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, units) = (run.length(), self.units);
        let (r, k) = (run.value(self.inputs.r), run.value(self.inputs.k));
        let (v, grad_y) = (run.value(self.inputs.v), run.grad(self.y));
        let (r, k, v, grad_y) = (r.get(), k.get(), v.get(), grad_y.get());
        let params = run.saved(self.params);
        let params = &*params;
        let mut kept = run.saved_mut(self.kept);
        let mut running = run.saved_mut(self.running);
        let (mut grad_r, mut grad_k) = (run.saved_mut(self.by_unit), run.saved_mut(self.grad_k));
        let (mut grad_v, mut grads) = (run.saved_mut(self.grad_v), run.saved_mut(self.grad_params));
        running.fill(0.0);
        grads.fill(0.0);
        let chunks = length.div_ceil(CHUNK);
        let cuts = (
            cut(&mut running, STATE),
            cut(&mut kept, chunks * STATE),
            cut(&mut grad_r, length * BLOCK),
            cut(&mut grad_k, length * BLOCK),
            cut(&mut grad_v, length * BLOCK),
            cut(&mut grads, STATE),
        );
        for_each_unit(
            length * BLOCK * WORK,
            cuts,
            |index, (grad_state, kept, r_to, k_to, v_to, to)| {
                let (row, unit) = (index / units, index % units);
                let part = |rows| Part::new(rows, row * length, unit * BLOCK, self.count(unit));
                let source = Source {
                    r: part(r),
                    k: part(k),
                    v: part(v),
                    params: &params[unit * STATE..][..STATE],
                };
                for (chunk, state) in kept.chunks_exact_mut(STATE).enumerate().rev() {
                    let start = chunk * CHUNK;
                    let count = CHUNK.min(length - start);
                    let place = start * BLOCK..(start + count) * BLOCK;
                    let mut grads = Gradients {
                        r: &mut r_to[place.clone()],
                        k: &mut k_to[place.clone()],
                        v: &mut v_to[place],
                        params: &mut *to,
                    };
                    let dy = part(grad_y).skip_rows(start);
                    backward(
                        source.given(start, count),
                        state,
                        dy,
                        grad_state,
                        &mut grads,
                    );
                }
            },
        );
        scatter(&grad_r, ONLY, length, BLOCK, run.grad_mut(self.inputs.r));
        scatter(&grad_k, ONLY, length, BLOCK, run.grad_mut(self.inputs.k));
        scatter(&grad_v, ONLY, length, BLOCK, run.grad_mut(self.inputs.v));
        let mut grad_decay = run.param_grad(self.inputs.time_decay);
        let mut grad_first = run.param_grad(self.inputs.time_first);
        for (index, grads) in grads.chunks_exact(STATE).enumerate() {
            let unit = index % units;
            for i in 0..self.count(unit) {
                // w = -exp(time_decay), so dw / dtime_decay = w.
                grad_decay[unit * BLOCK + i] += grads[i] * params[unit * STATE + i];
                grad_first[unit * BLOCK + i] += grads[BLOCK + i];
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::WKV4, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let room = self.room.as_ref().ok_or_else(not_for_a_device)?;
        self.backward_on(run, room)
    }
}
