//! A parameter at every position.

use longhaul_plugin_api::author::Result;

use crate::cuda::rows::{self as device_rows, ROWS, parts};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Param, Saved, Tensor};
use crate::rows::{self, column_sums};

impl Graph {
    /// A parameter `[n]` at every position: `[B, T, n]`.
    ///
    /// # Panics
    /// If it has more than one dimension.
    #[track_caller]
    pub fn broadcast(&mut self, param: Param) -> Tensor {
        let &[cols] = self.param_shape(param) else {
            panic!(
                "a parameter of one dimension can be had at every position, not `{:?}`",
                self.param_shape(param)
            );
        };
        let y = self.tensor(cols);
        let parts = self.wants_device().then(|| parts(self, cols));
        self.push(Broadcast { param, parts, y });
        y
    }
}

struct Broadcast {
    param: Param,
    /// Sums of the parameter's gradient, on a device.
    parts: Option<Saved>,
    y: Tensor,
}

impl Operation for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        rows::broadcast(run.value_mut(self.y).data_mut(), run.param(self.param));
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        column_sums(run.grad(self.y).get().data, &mut run.param_grad(self.param));
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        device_rows::broadcast(run, run.param(self.param), run.value(self.y))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let Some(parts) = self.parts else {
            return Ok(());
        };
        device_rows::column_sums(run, run.grad(self.y)?, parts, run.param_grad(self.param))
    }
}
