//! Tables over positions of a filter that no parameter is in: what an implicit filter is made from.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Stored};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::kernel_params;

static POSITIONS: KernelSource = KernelSource {
    file: "positions.cu",
    text: include_str!("../../kernels/positions.cu"),
    params: &[PositionTable::CPP],
};

kernel_params! {
    struct PositionTable {
        y: *mut Stored, // [rows, cols]
        length: f64, last: f64, first: f64, step: f64, shift: f64,
        rows: u32, cols: u32, kind: u32, unused: u32,
    }
}

/// What stands in a table; t is a row over the last of `length`, so that a filter's own positions are 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// t, then cosines, then negated sines of `2 pi f row / length`, each of (cols - 1) / 2 frequencies f evenly
    /// from 1e-4 to their number less 1 (arXiv 2302.10866, section 3.3, as its code has it).
    Features,
    /// `e^(-rate t) + shift`, rates of the columns evenly from one to another.
    Decay {
        /// Rate of the first column.
        first: f64,
        /// Rate of the last.
        last: f64,
        /// What is added.
        shift: f64,
    },
}

impl Graph {
    /// A table `[rows, cols]` over the positions of a filter that is `length` long; rows may be more.
    ///
    /// # Panics
    /// If features have an even number of columns.
    #[track_caller]
    pub fn positions(
        &mut self,
        kind: Positions,
        rows: usize,
        cols: usize,
        length: usize,
    ) -> Tensor {
        assert!(
            kind != Positions::Features || cols % 2 == 1,
            "{cols} features: a position, and a cosine and a sine of each frequency, are an odd number"
        );
        let y = self.table_tensor(rows, cols);
        self.push(Table {
            kind,
            length,
            rows,
            y,
        });
        y
    }
}

struct Table {
    kind: Positions,
    length: usize,
    rows: usize,
    y: Tensor,
}

impl Table {
    /// Of the columns' frequencies or rates: the first, and the step from one to the next.
    fn columns(&self) -> (f64, f64) {
        let (first, last, count) = match self.kind {
            Positions::Features => {
                let count = self.y.cols() / 2;
                (1e-4, count as f64 - 1.0, count)
            }
            Positions::Decay { first, last, .. } => (first, last, self.y.cols()),
        };
        match count {
            0 | 1 => (first, 0.0),
            _ => (first, (last - first) / (count - 1) as f64),
        }
    }

    fn last(&self) -> f64 {
        self.length.saturating_sub(1).max(1) as f64
    }
}

impl Operation for Table {
    fn name(&self) -> &'static str {
        "positions"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (first, step) = self.columns();
        let mut y = run.value_mut(self.y);
        let half = y.cols() / 2;
        for row in 0..self.rows {
            let t = row as f64 / self.last();
            let angle = std::f64::consts::TAU * row as f64 / self.length as f64;
            for (col, y) in y.row_mut(row).iter_mut().enumerate() {
                let of = |index: usize| first + step * index as f64;
                *y = match self.kind {
                    Positions::Decay { shift, .. } => (-of(col) * t).exp() + shift,
                    Positions::Features if col == 0 => t,
                    Positions::Features if col <= half => (of(col - 1) * angle).cos(),
                    Positions::Features => -(of(col - 1 - half) * angle).sin(),
                } as f32;
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.y.into()])
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&POSITIONS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y);
        let (first, step) = self.columns();
        let params = PositionTable {
            y: y.data,
            length: self.length as f64,
            last: self.last(),
            first,
            step,
            shift: match self.kind {
                Positions::Decay { shift, .. } => shift,
                Positions::Features => 0.0,
            },
            rows: y.rows as u32,
            cols: y.cols as u32,
            kind: (self.kind != Positions::Features).into(),
            unused: 0,
        };
        let launch = Launch::for_each(y.rows * y.cols);
        run.launch(&POSITIONS, "position_table", launch, &params)
    }

    fn cuda_backward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Ok(())
    }
}
