//! The recurrence on the CPU: at each step one small product with the recurrent weights for all rows
//! together, then the cell, fused. Sequential in time; rows are what it is wide in.

use longhaul_plugin_kit::cuda::rows::{ROWS, parts};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::gemm::{Mat, gemm};
use longhaul_plugin_kit::rows::column_sums;
use longhaul_plugin_kit::simd::{add_into, dot, sigmoid, tanh};
use longhaul_plugin_kit::{
    Buffer, Extent, Graph, Operation, Param, PluginError, Result, Run, Saved, State, StateSpec,
    Tensor, simd,
};

use crate::cuda;
use crate::recurrence::Cells;

/// Records the operation; its result is h, `[B, T, H]`.
pub(crate) fn lstm(graph: &mut Graph, cells: Cells) -> Tensor {
    let Cells {
        gates,
        weight_hh,
        bias_hh,
    } = cells;
    let hidden = gates.cols() / 4;
    let h = graph.tensor(hidden);
    let transposed = Extent::Fixed(4 * hidden * hidden);
    let operation = Lstm {
        gates,
        weight_hh,
        bias_hh,
        hidden,
        activated: graph.saved(Extent::Tokens(4 * hidden)),
        cells: graph.saved(Extent::Tokens(hidden)),
        grad_gates: graph.saved(Extent::Tokens(4 * hidden)),
        carry: graph.saved(Extent::Rows(2 * hidden)),
        transposed: if cuda::is_wide(hidden) {
            graph.saved_on_cpu(transposed)
        } else {
            graph.saved(transposed)
        },
        none: graph.saved_on_cpu(Extent::Fixed(hidden)),
        parts: graph.wants_device().then(|| parts(graph, 4 * hidden)),
        state: graph.state(StateSpec::Fixed {
            values: 2 * hidden,
            initial: 0.0,
        }),
        h,
    };
    graph.push(operation);
    h
}

pub(crate) struct Lstm {
    pub(crate) gates: Tensor,
    pub(crate) weight_hh: Param,
    pub(crate) bias_hh: Param,
    pub(crate) hidden: usize,
    /// `[B, T, 4H]`: the gates after their activations.
    pub(crate) activated: Saved,
    /// `[B, T, H]`: c.
    pub(crate) cells: Saved,
    /// `[B, T, 4H]`: gradient of the gates before their activations.
    pub(crate) grad_gates: Saved,
    /// `[B, 2, H]`: h and c of the step before, or their gradients in the backward pass.
    pub(crate) carry: Saved,
    /// `[H, 4H]`: the recurrent weights, transposed for the steps; empty for a wide layer on a device.
    pub(crate) transposed: Saved,
    /// `[H]`: zeros, the cell before the first step.
    none: Saved,
    /// Sums of the bias's gradient, on a device.
    parts: Option<Saved>,
    /// Per row h, then c.
    pub(crate) state: State,
    pub(crate) h: Tensor,
}

/// Steps times rows from which transposing the weights once pays.
const TRANSPOSE_FROM: usize = 32;

impl Operation for Lstm {
    fn name(&self) -> &'static str {
        "lstm"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (rows, length, hidden) = (run.rows(), run.length(), self.hidden);
        let gates = run.value(self.gates);
        let gates = gates.get();
        let mut h = run.value_mut(self.h);
        let mut activated = run.saved_mut(self.activated);
        let mut cells = run.saved_mut(self.cells);
        let mut carry = run.saved_mut(self.carry);
        let mut transposed = run.saved_mut(self.transposed);
        let weight = run.param(self.weight_hh);
        let bias = run.param(self.bias_hh);
        let mut state = run.state(self.state);
        for (row, carry) in carry.chunks_exact_mut(2 * hidden).enumerate() {
            match &state {
                Some(state) => carry.copy_from_slice(&state[row]),
                None => carry.fill(0.0),
            }
        }
        let by_columns = rows * length >= TRANSPOSE_FROM;
        if by_columns {
            transpose(weight, &mut transposed, hidden);
        }
        for t in 0..length {
            for row in 0..rows {
                let pre = &mut activated[(row * length + t) * 4 * hidden..][..4 * hidden];
                sum_into(pre, gates.row(row * length + t), bias);
                if !by_columns {
                    add_products(weight, &carry[row * 2 * hidden..][..hidden], pre);
                }
            }
            if by_columns {
                let out = &mut activated[t * 4 * hidden..];
                let sizes = Sizes {
                    rows,
                    inner: hidden,
                    columns: 4 * hidden,
                    a_stride: 2 * hidden,
                    out_stride: length * 4 * hidden,
                };
                add_step_product(&carry, &transposed, out, sizes);
            }
            for row in 0..rows {
                let at = row * length + t;
                let (h_carry, c_carry) =
                    carry[row * 2 * hidden..][..2 * hidden].split_at_mut(hidden);
                let pre = &mut activated[at * 4 * hidden..][..4 * hidden];
                cell_forward(pre, c_carry, h_carry);
                cells[at * hidden..][..hidden].copy_from_slice(c_carry);
                h.row_mut(at).copy_from_slice(h_carry);
            }
        }
        if let Some(state) = &mut state {
            for (state, carry) in state.iter_mut().zip(carry.chunks_exact(2 * hidden)) {
                state.copy_from_slice(carry);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.gates.into(),
            self.h.into(),
            self.activated.into(),
            self.cells.into(),
            self.carry.into(),
            self.transposed.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (rows, length, hidden) = (run.rows(), run.length(), self.hidden);
        let h = run.value(self.h);
        let h = h.get();
        let grad_h = run.grad(self.h);
        let grad_h = grad_h.get();
        let activated = run.saved(self.activated);
        let cells = run.saved(self.cells);
        let mut grad_gates = run.saved_mut(self.grad_gates);
        let mut carry = run.saved_mut(self.carry);
        run.saved_mut(self.none).fill(0.0);
        let none = run.saved(self.none);
        let started = run.started_from(self.state);
        let weight = run.param(self.weight_hh);
        carry.fill(0.0);
        for t in (0..length).rev() {
            for row in 0..rows {
                let at = row * length + t;
                let (dh, dc) = carry[row * 2 * hidden..][..2 * hidden].split_at_mut(hidden);
                add_into(dh, grad_h.row(at));
                let before = if t > 0 {
                    &cells[(at - 1) * hidden..][..hidden]
                } else {
                    started.map_or(&none[..], |rows| &rows[row][hidden..])
                };
                let step = Step {
                    gates: &activated[at * 4 * hidden..][..4 * hidden],
                    c: &cells[at * hidden..][..hidden],
                    c_before: before,
                };
                cell_backward(
                    step,
                    dh,
                    dc,
                    &mut grad_gates[at * 4 * hidden..][..4 * hidden],
                );
                dh.fill(0.0);
            }
            let sizes = Sizes {
                rows,
                inner: 4 * hidden,
                columns: hidden,
                a_stride: length * 4 * hidden,
                out_stride: 2 * hidden,
            };
            add_step_product(&grad_gates[t * 4 * hidden..], weight, &mut carry, sizes);
        }
        {
            let mut grad = run.grad_mut(self.gates);
            let accumulate = grad.accumulate();
            for (at, from) in grad_gates.chunks_exact(4 * hidden).enumerate() {
                if accumulate {
                    add_into(grad.row_mut(at), from);
                } else {
                    grad.row_mut(at).copy_from_slice(from);
                }
            }
        }
        let mut grad_weight = run.param_grad(self.weight_hh);
        if length > 1 {
            for row in 0..rows {
                let later = &grad_gates[(row * length + 1) * 4 * hidden..];
                let later = Mat::new(later, length - 1, 4 * hidden, 4 * hidden);
                let earlier = h.from_row(row * length);
                let earlier = Mat::new(earlier.data, length - 1, hidden, earlier.stride);
                gemm(&mut grad_weight, hidden, later.t(), earlier, 1.0, 1.0);
            }
        }
        // What the first step multiplied, where that was not zeros.
        for (row, state) in started.into_iter().flatten().enumerate() {
            let first = &grad_gates[row * length * 4 * hidden..][..4 * hidden];
            let (first, state) = (
                Mat::new(first, 1, 4 * hidden, 4 * hidden),
                Mat::new(state, 1, hidden, hidden),
            );
            gemm(&mut grad_weight, hidden, first.t(), state, 1.0, 1.0);
        }
        column_sums(&grad_gates, &mut run.param_grad(self.bias_hh));
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::LSTM, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        cuda::forward(self, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let parts = self.parts.ok_or_else(|| {
            PluginError::internal("the recurrence was recorded for the CPU and runs on a device")
        })?;
        cuda::backward(self, parts, run)
    }
}

/// `[4H, H]` to `[H, 4H]`.
fn transpose(weight: &[f32], transposed: &mut [f32], hidden: usize) {
    const BLOCK: usize = 16;
    let outputs = 4 * hidden;
    for first in (0..outputs).step_by(BLOCK) {
        let count = BLOCK.min(outputs - first);
        for k in 0..hidden {
            let target = &mut transposed[k * outputs + first..][..count];
            for (offset, target) in target.iter_mut().enumerate() {
                *target = weight[(first + offset) * hidden + k];
            }
        }
    }
}

simd! {
    fn sum_into(y: &mut [f32], a: &[f32], b: &[f32]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }
}

simd! {
    /// `y += W h` by rows of W: for a few steps only.
    fn add_products(weight: &[f32], h: &[f32], y: &mut [f32]) {
        for (y, weight) in y.iter_mut().zip(weight.chunks_exact(h.len())) {
            *y += dot(weight, h);
        }
    }
}

/// Sizes of a step's product, `out[r] += a[r] w` for every row r.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    /// Values of a row of a, and rows of w.
    inner: usize,
    /// Columns of w and values of a row of out.
    columns: usize,
    a_stride: usize,
    out_stride: usize,
}

/// Columns whose sums are in registers at the same time.
const BLOCK: usize = 32;

simd! {
    /// `out += a w` with w `[inner, columns]` contiguous: w is read once for eight rows.
    fn add_step_product(a: &[f32], w: &[f32], out: &mut [f32], sizes: Sizes) {
        let mut row = 0;
        while row + 8 <= sizes.rows {
            add_rows::<8>(a, w, out, sizes, row);
            row += 8;
        }
        while row + 4 <= sizes.rows {
            add_rows::<4>(a, w, out, sizes, row);
            row += 4;
        }
        while row < sizes.rows {
            add_rows::<1>(a, w, out, sizes, row);
            row += 1;
        }
    }
}

#[inline(always)]
fn add_rows<const R: usize>(a: &[f32], w: &[f32], out: &mut [f32], sizes: Sizes, row: usize) {
    let Sizes {
        inner,
        columns,
        a_stride,
        out_stride,
        ..
    } = sizes;
    let mut a_rows = [&a[..0]; R];
    for (r, a_row) in a_rows.iter_mut().enumerate() {
        *a_row = &a[(row + r) * a_stride..][..inner];
    }
    let whole = columns / BLOCK * BLOCK;
    for first in (0..whole).step_by(BLOCK) {
        let mut sums = [[0.0f32; BLOCK]; R];
        for k in 0..inner {
            let w: &[f32; BLOCK] = w[k * columns + first..][..BLOCK]
                .try_into()
                .expect("a block");
            for r in 0..R {
                let a = a_rows[r][k];
                for c in 0..BLOCK {
                    sums[r][c] = a.mul_add(w[c], sums[r][c]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let out = &mut out[(row + r) * out_stride + first..][..BLOCK];
            for c in 0..BLOCK {
                out[c] += sums[c];
            }
        }
    }
    for r in 0..R {
        let out = &mut out[(row + r) * out_stride..][..columns];
        for column in whole..columns {
            let mut sum = 0.0f32;
            for (k, a) in a_rows[r].iter().enumerate() {
                sum = a.mul_add(w[k * columns + column], sum);
            }
            out[column] += sum;
        }
    }
}

simd! {
    /// Gates before their activations become gates after; c and h step on.
    fn cell_forward(gates: &mut [f32], c: &mut [f32], h: &mut [f32]) {
        let hidden = c.len();
        let (i, rest) = gates.split_at_mut(hidden);
        let (f, rest) = rest.split_at_mut(hidden);
        let (g, o) = rest.split_at_mut(hidden);
        let (o, h) = (&mut o[..hidden], &mut h[..hidden]);
        for n in 0..hidden {
            i[n] = sigmoid(i[n]);
            f[n] = sigmoid(f[n]);
            g[n] = tanh(g[n]);
            o[n] = sigmoid(o[n]);
            c[n] = f[n].mul_add(c[n], i[n] * g[n]);
            h[n] = o[n] * tanh(c[n]);
        }
    }
}

/// What a step's backward pass reads.
#[derive(Clone, Copy)]
struct Step<'a> {
    /// `[4H]` after their activations.
    gates: &'a [f32],
    /// `[H]`.
    c: &'a [f32],
    /// `[H]`.
    c_before: &'a [f32],
}

simd! {
    /// From dh and dc to the gates' gradients before their activations; dc becomes that of the step
    /// before.
    fn cell_backward(step: Step<'_>, dh: &[f32], dc: &mut [f32], grad: &mut [f32]) {
        let hidden = dc.len();
        let (i, rest) = step.gates.split_at(hidden);
        let (f, rest) = rest.split_at(hidden);
        let (g, o) = rest.split_at(hidden);
        let (o, c, c_before) = (&o[..hidden], &step.c[..hidden], &step.c_before[..hidden]);
        let (grad_i, rest) = grad.split_at_mut(hidden);
        let (grad_f, rest) = rest.split_at_mut(hidden);
        let (grad_g, grad_o) = rest.split_at_mut(hidden);
        let (grad_o, dh) = (&mut grad_o[..hidden], &dh[..hidden]);
        for n in 0..hidden {
            let top = tanh(c[n]);
            let slope = (dh[n] * o[n]).mul_add(1.0 - top * top, dc[n]);
            grad_o[n] = dh[n] * top * o[n] * (1.0 - o[n]);
            grad_i[n] = slope * g[n] * i[n] * (1.0 - i[n]);
            grad_f[n] = slope * c_before[n] * f[n] * (1.0 - f[n]);
            grad_g[n] = slope * i[n] * (1.0 - g[n] * g[n]);
            dc[n] = slope * f[n];
        }
    }
}
