//! Cells on the CPU: at each token one small product with U for all rows together, then the cells, fused.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::product::{Sizes, add_products, add_step_product, transpose};
use super::steps::{self, Step, StepBack};
use super::{Kind, Layer, device};
use crate::cuda::rows::ROWS;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Param, Saved, State, StateSpec, Tensor};
use crate::gemm::{Mat, gemm};
use crate::rows::{broadcast, column_sums};
use crate::simd::add_into;

/// Steps times rows from which transposing the weights once pays.
const TRANSPOSE_FROM: usize = 32;

/// Records the operation; the result is h.
pub(super) fn record(layer: &Layer, graph: &mut Graph) -> Tensor {
    let (kind, hidden) = (layer.kind, layer.hidden());
    let (columns, carried) = (kind.gates() * hidden, kind.carried() * hidden);
    let transposed = Extent::Fixed(columns * layer.width);
    let h = graph.tensor(hidden);
    let cells = Cells {
        kind,
        gates: layer.gates,
        weight: layer.weight,
        bias: layer.bias,
        width: layer.width,
        hidden,
        kept: graph.saved(Extent::Tokens(kind.kept() * hidden)),
        memory: graph.saved(Extent::Tokens(carried - hidden)),
        sums: graph.saved_on_cpu(Extent::Rows(columns)),
        grad: graph.saved(Extent::Tokens(columns)),
        carry: graph.saved(Extent::Rows(carried)),
        transposed: match device::is_wide(hidden) {
            true => graph.saved_on_cpu(transposed),
            false => graph.saved(transposed),
        },
        none: graph.saved_on_cpu(Extent::Fixed(carried)),
        on_device: graph
            .wants_device()
            .then(|| device::Buffers::new(graph, columns, hidden)),
        state: graph.state(StateSpec::Fixed {
            values: carried,
            initial: 0.0,
        }),
        h,
    };
    graph.push(cells);
    h
}

pub(super) struct Cells {
    pub kind: Kind,
    pub gates: Tensor,
    pub weight: Param,
    pub bias: Param,
    /// W.
    pub width: usize,
    pub hidden: usize,
    /// What every token's step kept, see [`Kind`].
    pub kept: Saved,
    /// `[B, T, C - 1, H]`: what is carried beside h.
    pub memory: Saved,
    /// `[B, G, H]`: U h + u of a token.
    pub sums: Saved,
    /// `[B, T, G, H]`: the gradient of U h + u.
    pub grad: Saved,
    /// `[B, C, H]`: what the token before left, or its gradient in the backward pass.
    pub carry: Saved,
    /// `[W, G H]`: U transposed for the steps; empty for a wide layer on a device.
    pub transposed: Saved,
    /// `[C, H]`: zeros, what there is before the first token.
    none: Saved,
    /// What only a device needs.
    on_device: Option<device::Buffers>,
    /// C H values a row.
    pub state: State,
    pub h: Tensor,
}

/// A matrix in U.
struct Part {
    /// Its first row.
    row: usize,
    rows: usize,
    /// The first cell whose h it is multiplied with.
    seen: usize,
}

impl Cells {
    /// G H.
    pub(super) fn columns(&self) -> usize {
        self.kind.gates() * self.hidden
    }

    /// C H.
    pub(super) fn carried(&self) -> usize {
        self.kind.carried() * self.hidden
    }

    /// The whole matrices in U: all of a dense one, of a block-diagonal one each gate's of each block.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let (hidden, width) = (self.hidden, self.width);
        let (count, rows) = match width == hidden {
            true => (1, self.columns()),
            false => (self.columns() / width, width),
        };
        (0..count).map(move |part| Part {
            row: part * rows,
            rows,
            seen: part * width % hidden,
        })
    }

    /// Fills U h + u of all rows from what the token before left.
    fn sum(&self, run: &Run<'_>, carry: &[f32], transposed: &[f32], sums: &mut [f32]) {
        let (weight, carried) = (run.param(self.weight), self.carried());
        broadcast(sums, run.param(self.bias));
        if transposed.is_empty() {
            let rows = sums.chunks_exact_mut(self.columns());
            for (sums, carry) in rows.zip(carry.chunks_exact(carried)) {
                for Part { row, rows, seen } in self.parts() {
                    let weight = &weight[row * self.width..][..rows * self.width];
                    let h = &carry[seen..seen + self.width];
                    add_products(weight, h, &mut sums[row..row + rows]);
                }
            }
            return;
        }
        for Part { row, rows, seen } in self.parts() {
            let sizes = Sizes {
                rows: run.rows(),
                inner: self.width,
                columns: rows,
                a_stride: carried,
                w_stride: self.columns(),
                out_stride: self.columns(),
            };
            let (h, weight) = (&carry[seen..], &transposed[row..]);
            add_step_product(h, weight, &mut sums[row..], sizes);
        }
    }

    /// The gradients of U and u, from that of U h + u at every token.
    fn weight_gradients(&self, run: &Run<'_>, grad: &[f32]) {
        let (rows, length, hidden) = (run.rows(), run.length(), self.hidden);
        let (columns, width) = (self.columns(), self.width);
        let h = run.value(self.h);
        let h = h.get();
        let mut grad_weight = run.param_grad(self.weight);
        let mut add = |grad: &[f32], h: &[f32], stride: usize, count: usize| {
            for Part { row, rows, seen } in self.parts() {
                let grad = Mat::new(&grad[row..], count, rows, columns);
                let h = Mat::new(&h[seen..], count, width, stride);
                let place = &mut grad_weight[row * width..][..rows * width];
                gemm(place, width, grad.t(), h, 1.0, 1.0);
            }
        };
        for row in (0..rows).filter(|_| length > 1) {
            let later = &grad[(row * length + 1) * columns..];
            let earlier = h.from_row(row * length);
            add(later, earlier.data, earlier.stride, length - 1);
        }
        // What the first token's step multiplied, where that was not zeros.
        let started = run.started_from(self.state);
        for (row, state) in started.into_iter().flatten().enumerate() {
            add(&grad[row * length * columns..], state, hidden, 1);
        }
        column_sums(grad, &mut run.param_grad(self.bias));
    }

    /// Adds the gradient of the input's share of the gates.
    fn input_gradient(&self, run: &Run<'_>, grad: &[f32], kept: &[f32]) {
        let mut place = run.grad_mut(self.gates);
        let accumulate = place.accumulate();
        let (hidden, columns) = (self.hidden, self.columns());
        let kept = kept.chunks_exact(self.kind.kept() * hidden);
        for (token, (grad, kept)) in grad.chunks_exact(columns).zip(kept).enumerate() {
            // That of the GRU's n is not that of its share of U h + u.
            let parts = match self.kind {
                Kind::Lstm | Kind::Slstm => [grad, &[]],
                Kind::Gru => [&grad[..2 * hidden], &kept[3 * hidden..]],
            };
            let (first, second) = place.row_mut(token).split_at_mut(parts[0].len());
            for (place, part) in [first, second].into_iter().zip(parts) {
                if accumulate {
                    add_into(place, part);
                } else {
                    place.copy_from_slice(part);
                }
            }
        }
    }

    pub(super) fn on_device(&self) -> Result<&device::Buffers> {
        self.on_device.as_ref().ok_or_else(|| {
            PluginError::internal("the cells were recorded for the CPU and run on a device")
        })
    }
}

impl Operation for Cells {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Lstm => "lstm",
            Kind::Gru => "gru",
            Kind::Slstm => "slstm",
        }
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (rows, length, hidden) = (run.rows(), run.length(), self.hidden);
        let (columns, carried, keeps) = (
            self.columns(),
            self.carried(),
            self.kind.kept() * self.hidden,
        );
        let gates = run.value(self.gates);
        let gates = gates.get();
        let mut h = run.value_mut(self.h);
        let (mut kept, mut memory) = (run.saved_mut(self.kept), run.saved_mut(self.memory));
        let (mut carry, mut sums) = (run.saved_mut(self.carry), run.saved_mut(self.sums));
        let mut transposed = run.saved_mut(self.transposed);
        let mut state = run.state(self.state);
        for (row, carry) in carry.chunks_exact_mut(carried).enumerate() {
            match &state {
                Some(state) => carry.copy_from_slice(&state[row]),
                None => carry.fill(0.0),
            }
        }
        let by_columns = rows * length >= TRANSPOSE_FROM;
        if by_columns {
            transpose(run.param(self.weight), &mut transposed, self.width);
        }
        let transposed = if by_columns { &transposed[..] } else { &[] };
        for t in 0..length {
            self.sum(run, &carry, transposed, &mut sums);
            for row in 0..rows {
                let at = row * length + t;
                let carried = &mut carry[row * carried..][..carried];
                let step = Step {
                    given: gates.row(at),
                    sums: &sums[row * columns..][..columns],
                    kept: &mut kept[at * keeps..][..keeps],
                    carried,
                };
                steps::forward(self.kind, step);
                let (new, beside) = carried.split_at(hidden);
                h.row_mut(at).copy_from_slice(new);
                memory[at * beside.len()..][..beside.len()].copy_from_slice(beside);
            }
        }
        if let Some(state) = &mut state {
            for (state, carry) in state.iter_mut().zip(carry.chunks_exact(carried)) {
                state.copy_from_slice(carry);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.gates.into(),
            self.h.into(),
            self.kept.into(),
            self.memory.into(),
            self.sums.into(),
            self.carry.into(),
            self.transposed.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (rows, length, hidden) = (run.rows(), run.length(), self.hidden);
        let (columns, carried, keeps) = (
            self.columns(),
            self.carried(),
            self.kind.kept() * self.hidden,
        );
        let (h, grad_h) = (run.value(self.h), run.grad(self.h));
        let (h, grad_h) = (h.get(), grad_h.get());
        let (mut kept, memory) = (run.saved_mut(self.kept), run.saved(self.memory));
        let (mut grad, mut carry) = (run.saved_mut(self.grad), run.saved_mut(self.carry));
        run.saved_mut(self.none).fill(0.0);
        let none = run.saved(self.none);
        let started = run.started_from(self.state);
        let beside = carried - hidden;
        carry.fill(0.0);
        for t in (0..length).rev() {
            for row in 0..rows {
                let at = row * length + t;
                let carried = &mut carry[row * carried..][..carried];
                add_into(&mut carried[..hidden], grad_h.row(at));
                let before = match t {
                    0 => {
                        let start = started.map_or(&none[..], |rows| &rows[row][..]);
                        start.split_at(hidden).into()
                    }
                    _ => [h.row(at - 1), &memory[(at - 1) * beside..][..beside]],
                };
                let step = StepBack {
                    kept: &mut kept[at * keeps..][..keeps],
                    before,
                    after: &memory[at * beside..][..beside],
                    carried,
                    grad: &mut grad[at * columns..][..columns],
                };
                steps::backward(self.kind, step);
            }
            let weight = run.param(self.weight);
            for part in self.parts() {
                let sizes = Sizes {
                    rows,
                    inner: part.rows,
                    columns: self.width,
                    a_stride: length * columns,
                    w_stride: self.width,
                    out_stride: carried,
                };
                let grad = &grad[t * columns + part.row..];
                let weight = &weight[part.row * self.width..];
                add_step_product(grad, weight, &mut carry[part.seen..], sizes);
            }
        }
        self.input_gradient(run, &grad, &kept);
        self.weight_gradients(run, &grad);
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&device::CELL, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        device::forward(self, run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        device::backward(self, self.on_device()?, run)
    }
}
