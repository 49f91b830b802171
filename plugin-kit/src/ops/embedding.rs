//! Token embedding, learned absolute positions and the choice of scored positions.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::embedding_cuda::{EMBEDDING, PIECE};
use super::token_order::{TOKEN_ORDER, TokenOrder};
use crate::cuda::rows::ROWS;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Param, Saved, Tensor};
use crate::simd::add_into;

impl Graph {
    /// The rows of a table `[V, D]` that the input tokens name. Reading the padding token leaves no
    /// gradient in the table.
    #[track_caller]
    pub fn embedding(&mut self, table: Param, padding: Option<u32>) -> Tensor {
        let (vocab, cols) = (self.param_shape(table)[0], self.param_shape(table)[1]);
        let y = self.tensor(cols);
        let sorted = self.wants_device().then(|| {
            let parts = Extent::Chunks {
                chunk: PIECE,
                cols: 2 * cols,
            };
            (TokenOrder::new(self, vocab), self.saved(parts))
        });
        self.push(Embedding {
            table,
            vocab,
            padding,
            sorted,
            y,
        });
        y
    }

    /// `x + table[position]` with a table `[positions, D]`; a position past the table is an error
    /// that says so.
    #[track_caller]
    pub fn add_positions(&mut self, x: Tensor, table: Param) -> Tensor {
        let y = self.tensor(x.cols());
        let positions = self.param_shape(table)[0];
        self.push(AddPositions {
            x,
            table,
            positions,
            y,
        });
        y
    }

    /// The rows of x at the positions whose output is wanted, so that what follows costs nothing
    /// elsewhere.
    #[track_caller]
    pub fn select_scored(&mut self, x: Tensor) -> Tensor {
        let y = self.scored_tensor(x.cols());
        self.push(SelectScored { x, y });
        y
    }
}

pub(super) struct Embedding {
    pub(super) table: Param,
    /// Rows of the table.
    pub(super) vocab: usize,
    pub(super) padding: Option<u32>,
    /// For the backward pass on a device: the positions' order, and sums of its pieces, `[pieces, 2, D]`.
    pub(super) sorted: Option<(TokenOrder, Saved)>,
    pub(super) y: Tensor,
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let table = run.param(self.table);
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for (row, &token) in y.data_mut().chunks_exact_mut(cols).zip(run.tokens()) {
            row.copy_from_slice(&table[token as usize * cols..][..cols]);
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        let cols = grad_y.cols;
        let mut grad_table = run.param_grad(self.table);
        for (row, &token) in grad_y.data.chunks_exact(cols).zip(run.tokens()) {
            if self.padding == Some(token) {
                continue;
            }
            add_into(&mut grad_table[token as usize * cols..][..cols], row);
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&EMBEDDING, &TOKEN_ORDER]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_backward(run)
    }
}

pub(super) struct AddPositions {
    pub(super) x: Tensor,
    pub(super) table: Param,
    pub(super) positions: usize,
    pub(super) y: Tensor,
}

impl AddPositions {
    /// The error of a run whose last position is past the table.
    pub(super) fn too_long(&self, end: usize) -> PluginError {
        PluginError::unsupported(format!(
            "learned positions end at {}, and position {end} was asked for; a model with learned \
             absolute positions cannot read further",
            self.positions
        ))
    }
}

impl Operation for AddPositions {
    fn name(&self) -> &'static str {
        "add_positions"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let table = run.param(self.table);
        let (length, first) = (run.length(), run.position() as usize);
        if first + length > self.positions {
            return Err(self.too_long(first + length));
        }
        let x = run.value(self.x);
        let (rows, x) = (x.rows(), x.get());
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for row in 0..rows {
            let target = y.row_mut(row);
            target.copy_from_slice(x.row(row));
            add_into(target, &table[(first + row % length) * cols..][..cols]);
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        let (rows, grad_y) = (grad_y.rows(), grad_y.get());
        let (length, cols) = (run.length(), grad_y.cols);
        let mut grad_table = run.param_grad(self.table);
        for row in 0..rows {
            add_into(
                &mut grad_table[(row % length) * cols..][..cols],
                grad_y.row(row),
            );
        }
        let mut grad_x = run.grad_mut(self.x);
        for row in 0..rows {
            if grad_x.accumulate() {
                add_into(grad_x.row_mut(row), grad_y.row(row));
            } else {
                grad_x.row_mut(row).copy_from_slice(grad_y.row(row));
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&EMBEDDING, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_backward(run)
    }
}

pub(super) struct SelectScored {
    pub(super) x: Tensor,
    pub(super) y: Tensor,
}

impl Operation for SelectScored {
    fn name(&self) -> &'static str {
        "select_scored"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let mut y = run.value_mut(self.y);
        for (row, wanted) in run.wanted().iter().enumerate() {
            y.row_mut(row)
                .copy_from_slice(x.get().row(wanted.position as usize));
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        let mut grad_x = run.grad_mut(self.x);
        if !grad_x.accumulate() {
            grad_x.data_mut().fill(0.0);
        }
        for (row, wanted) in run.wanted().iter().enumerate() {
            add_into(
                grad_x.row_mut(wanted.position as usize),
                grad_y.get().row(row),
            );
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&EMBEDDING]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_backward(run)
    }
}
