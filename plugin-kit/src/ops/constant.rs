//! Constants: a parameter's values as a tensor of one row, which stands for every position. What is made of
//! constants alone is a constant, and is computed once a run. Numbers at every position, without a parameter.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::Ptr;
use crate::cuda::rows::{ROWS, column_sums_to_grad, copy_rows, parts};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run, ViewMut};
use crate::engine::tensor::{Buffer, Param, Saved, Tensor};
use crate::simd::add_into;

impl Graph {
    /// A parameter's values, as many as it has, as a constant: one row that stands for every position.
    #[track_caller]
    pub fn constant(&mut self, param: Param) -> Tensor {
        let y = self.constant_tensor(self.param_shape(param).iter().product());
        self.push(Constant { param, y });
        y
    }

    /// The same number in `cols` columns of every position.
    #[track_caller]
    pub fn filled(&mut self, value: f32, cols: usize) -> Tensor {
        let y = self.tensor(cols);
        self.push(Filled { value, y });
        y
    }

    /// Room for [`sum_on_device`], where `x` is a constant beside what has a row for every position.
    pub(crate) fn sums_of_constant(&mut self, x: Tensor, among: Tensor) -> Option<Saved> {
        let wanted = self.wants_device() && x.is_constant() && !among.is_constant();
        wanted.then(|| parts(self, x.cols()))
    }
}

struct Constant {
    param: Param,
    y: Tensor,
}

impl Constant {
    /// The parameter's one row, or its gradient's.
    fn row(&self, data: Ptr) -> DeviceRows {
        let cols = self.y.cols();
        DeviceRows {
            data,
            stored: false,
            rows: 1,
            cols,
            stride: cols,
        }
    }
}

impl Operation for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let mut y = run.value_mut(self.y);
        y.row_mut(0).copy_from_slice(run.param(self.param));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad = run.grad(self.y);
        add_into(&mut run.param_grad(self.param), grad.get().row(0));
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let from = self.row(run.param(self.param));
        copy_rows(run, from, one(run.value(self.y)), 1.0, false)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let to = self.row(run.param_grad(self.param));
        copy_rows(run, one(run.grad(self.y)?), to, 1.0, true)
    }
}

/// The first row of one that is the same for all.
fn one(rows: DeviceRows) -> DeviceRows {
    DeviceRows { rows: 1, ..rows }
}

struct Filled {
    value: f32,
    y: Tensor,
}

impl Operation for Filled {
    fn name(&self) -> &'static str {
        "filled"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        run.value_mut(self.y).data_mut().fill(self.value);
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.y.into()])
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        // It launches none, but none at all would say that there is no form for a device.
        vec![&ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y);
        run.fill(y.data, self.value, y.rows * y.cols)
    }

    fn cuda_backward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Ok(())
    }
}

/// The gradient of a constant: `each(row, accumulate, grad)` gives every position's share, in order.
pub(crate) fn sum_over_rows(
    grad: &mut ViewMut<'_>,
    rows: usize,
    mut each: impl FnMut(usize, bool, &mut [f32]),
) {
    let accumulate = grad.accumulate();
    let grad = grad.row_mut(0);
    if rows == 0 && !accumulate {
        grad.fill(0.0);
    }
    for row in 0..rows {
        each(row, accumulate || row > 0, grad);
    }
}

/// The gradient of a constant from every position's share.
///
/// # Errors
/// The device's.
pub(crate) fn sum_on_device(
    run: &CudaRun<'_>,
    shares: DeviceRows,
    parts: Saved,
    (grad, accumulate): (DeviceRows, bool),
) -> Result<()> {
    if !accumulate {
        run.fill(grad.data, 0.0, grad.cols)?;
    }
    column_sums_to_grad(run, shares, parts, grad)
}
