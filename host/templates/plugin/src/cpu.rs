//! The recurrence on the CPU: one pass over the tokens, channels in vectors, rows of the batch in
//! parallel. Its result is the state, so nothing more is kept for the gradients.

use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, Rows};
use longhaul_plugin_kit::simd::{add_into, sigmoid};
use longhaul_plugin_kit::{Buffer, 
    Extent, Graph, Operation, Result, Run, Saved, State, StateSpec, Tensor, simd,
};
use rayon::prelude::*;

use crate::cuda;
use crate::recurrence::Average;

/// Records the operation; its result is h, `[B, T, W]`.
pub(crate) fn record(graph: &mut Graph, inputs: Average) -> Tensor {
    let Average { x, gate } = inputs;
    let width = x.cols();
    let h = graph.tensor(width);
    let operation = Fast {
        x,
        gate,
        grad_x: graph.saved_on_cpu(Extent::Tokens(width)),
        grad_gate: graph.saved_on_cpu(Extent::Tokens(width)),
        running: graph.saved_on_cpu(Extent::Rows(width)),
        state: graph.state(StateSpec::Fixed {
            values: width,
            initial: 0.0,
        }),
        h,
    };
    graph.push(operation);
    h
}

pub(crate) struct Fast {
    pub(crate) x: Tensor,
    pub(crate) gate: Tensor,
    /// `[B, T, W]` each.
    grad_x: Saved,
    grad_gate: Saved,
    /// `[B, W]`: the state on its way, or its gradient.
    running: Saved,
    /// `[W]` a row: h. A session goes on from it; training starts from 0.
    pub(crate) state: State,
    pub(crate) h: Tensor,
}

impl Operation for Fast {
    fn name(&self) -> &'static str {
        "{{crate}}"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (x, gate) = (run.value(self.x), run.value(self.gate));
        let (x, gate) = (x.get(), gate.get());
        let (length, width) = (run.length(), x.cols);
        let mut running = run.saved_mut(self.running);
        let mut state = run.state(self.state);
        running.fill(0.0);
        if let Some(state) = &state {
            for (running, state) in running.chunks_exact_mut(width).zip(state.iter()) {
                running.copy_from_slice(state);
            }
        }
        let mut h = run.value_mut(self.h);
        h.data_mut()
            .par_chunks_mut(length * width)
            .zip(running.par_chunks_mut(width))
            .enumerate()
            .for_each(|(row, (h, running))| {
                let start = row * length;
                advance(x.from_row(start), gate.from_row(start), running, h);
            });
        if let Some(state) = &mut state {
            for (running, state) in running.chunks_exact(width).zip(state.iter_mut()) {
                state.copy_from_slice(running);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.gate.into(), self.running.into(), self.h.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, gate) = (run.value(self.x), run.value(self.gate));
        let (h, grad_h) = (run.value(self.h), run.grad(self.h));
        let (x, gate, h, grad_h) = (x.get(), gate.get(), h.get(), grad_h.get());
        let (length, width) = (run.length(), x.cols);
        let (mut grad_x, mut grad_gate) =
            (run.saved_mut(self.grad_x), run.saved_mut(self.grad_gate));
        let mut running = run.saved_mut(self.running);
        running.fill(0.0);
        grad_x
            .par_chunks_mut(length * width)
            .zip(grad_gate.par_chunks_mut(length * width))
            .zip(running.par_chunks_mut(width))
            .enumerate()
            .for_each(|(row, ((grad_x, grad_gate), carried))| {
                let start = row * length;
                retreat(
                    x.from_row(start),
                    gate.from_row(start),
                    h.from_row(start),
                    grad_h.from_row(start),
                    carried,
                    grad_x,
                    grad_gate,
                );
            });
        // Inputs may be columns of a wider tensor, and may have other uses: write or add row by row.
        for (tensor, values) in [(self.x, &grad_x), (self.gate, &grad_gate)] {
            let mut place = run.grad_mut(tensor);
            let accumulate = place.accumulate();
            for (row, values) in values.chunks_exact(width).enumerate() {
                if accumulate {
                    add_into(place.row_mut(row), values);
                } else {
                    place.row_mut(row).copy_from_slice(values);
                }
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::KERNELS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        cuda::forward(self, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        cuda::backward(self, run)
    }
}

simd! {
    /// Writes h `[T, W]` and leaves the last state in `state`.
    fn advance(x: Rows<'_>, gate: Rows<'_>, state: &mut [f32], h: &mut [f32]) {
        let width = state.len();
        for (t, h) in h.chunks_exact_mut(width).enumerate() {
            let (x, gate) = (&x.row(t)[..width], &gate.row(t)[..width]);
            for c in 0..width {
                let a = sigmoid(gate[c]);
                state[c] = a.mul_add(state[c] - x[c], x[c]);
                h[c] = state[c];
            }
        }
    }
}

simd! {
    /// Gradients of one row, the last token first; `carried` is the gradient of the state.
    fn retreat(
        x: Rows<'_>,
        gate: Rows<'_>,
        h: Rows<'_>,
        grad_h: Rows<'_>,
        carried: &mut [f32],
        grad_x: &mut [f32],
        grad_gate: &mut [f32],
    ) {
        let width = carried.len();
        for t in (0..grad_x.len() / width).rev() {
            let (x, gate) = (&x.row(t)[..width], &gate.row(t)[..width]);
            let dy = &grad_h.row(t)[..width];
            let (before, keep) = if t == 0 { (h.row(0), 0.0) } else { (h.row(t - 1), 1.0) };
            let before = &before[..width];
            let grad_x = &mut grad_x[t * width..][..width];
            let grad_gate = &mut grad_gate[t * width..][..width];
            for c in 0..width {
                let a = sigmoid(gate[c]);
                let g = dy[c] + carried[c];
                carried[c] = g * a;
                grad_x[c] = g * (1.0 - a);
                grad_gate[c] = g * (keep * before[c] - x[c]) * a * (1.0 - a);
            }
        }
    }
}
