//! Tensors beside each other.

use longhaul_plugin_api::author::Result;

use crate::cuda::rows::{ROWS, copy_rows};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::simd::add_into;

impl Graph {
    /// The columns of several tensors beside each other.
    ///
    /// # Panics
    /// Without tensors, or with a constant.
    #[track_caller]
    pub fn concatenate(&mut self, parts: &[Tensor]) -> Tensor {
        assert!(!parts.is_empty(), "nothing is concatenated");
        let constant = parts.iter().any(|part| part.is_constant());
        assert!(!constant, "a constant has no row for every position");
        let cols = parts.iter().map(|part| part.cols()).sum();
        let y = self.tensor_like(parts[0], cols);
        self.push(Concatenate {
            parts: parts.to_vec(),
            y,
        });
        y
    }
}

struct Concatenate {
    parts: Vec<Tensor>,
    y: Tensor,
}

impl Concatenate {
    /// Each part with its first column in y.
    fn places(&self) -> impl Iterator<Item = (Tensor, usize)> {
        self.parts.iter().scan(0, |next, &part| {
            let start = *next;
            *next += part.cols();
            Some((part, start))
        })
    }
}

/// Columns of rows.
fn columns(rows: DeviceRows, start: usize, cols: usize) -> DeviceRows {
    DeviceRows {
        data: rows.data.value(start),
        cols,
        ..rows
    }
}

impl Operation for Concatenate {
    fn name(&self) -> &'static str {
        "concatenate"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let mut y = run.value_mut(self.y);
        for (part, start) in self.places() {
            let x = run.value(part);
            let x = x.get();
            for row in 0..y.rows() {
                y.row_mut(row)[start..start + x.cols].copy_from_slice(x.row(row));
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let all = self.parts.iter().copied().chain([self.y]);
        Some(all.map(Buffer::from).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let dy = run.grad(self.y);
        let dy = dy.get();
        for (part, start) in self.places() {
            let mut place = run.grad_mut(part);
            let (add, cols) = (place.accumulate(), part.cols());
            for row in 0..place.rows() {
                let (to, from) = (place.row_mut(row), &dy.row(row)[start..start + cols]);
                if add {
                    add_into(to, from);
                } else {
                    to.copy_from_slice(from);
                }
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y);
        for (part, start) in self.places() {
            copy_rows(
                run,
                run.value(part),
                columns(y, start, part.cols()),
                1.0,
                false,
            )?;
        }
        Ok(())
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        for (part, start) in self.places() {
            let (place, add) = run.grad_mut(part)?;
            copy_rows(run, columns(dy, start, part.cols()), place, 1.0, add)?;
        }
        Ok(())
    }
}
