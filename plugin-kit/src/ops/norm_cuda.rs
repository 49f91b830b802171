//! The norms on a device.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::norm::{Norm, Weight};
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::rows::{add_parts, part_count};
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::tensor::{Param, Saved};
use crate::kernel_params;

pub(super) static NORM: KernelSource = KernelSource {
    file: "norm.cu",
    text: include_str!("../../kernels/norm.cu"),
    params: &[NormForward::CPP, NormBackward::CPP, NormWeightBackward::CPP],
};

/// Threads of a block.
const THREADS: usize = 256;

/// Widest group that one warp takes; a lane then has 32 values of it.
const WARP_WIDTH: usize = 1024;

kernel_params! {
    struct NormForward {
        x: *const Stored,     // [rows, groups, width]
        weight: *const f32,   // [weights], or null: the constant
        bias: *const f32,     // [groups, width], or null
        y: *mut Stored,       // [rows, groups, width], contiguous
        statistics: *mut f32, // [rows, groups, 2]: mean and s
        x_stride: u64, rows: u64,
        width: u32, groups: u32, team: u32,
        epsilon: f32,
        weights: u32, // groups * width, or width: the same for all groups
        constant: f32,
        centred: u32, unused: u32, // centred: whether the mean is taken away, which RMSNorm does not
    }
}

kernel_params! {
    struct NormBackward {
        x: *const Stored,       // [rows, groups, width]
        weight: *const f32,     // [weights], or null: the constant
        dy: *const Stored,      // [rows, groups, width]
        statistics: *const f32, // [rows, groups, 2]
        dx: *mut Stored,        // [rows, groups, width]
        x_stride: u64, dy_stride: u64, dx_stride: u64, rows: u64,
        width: u32, groups: u32, team: u32, centred: u32, accumulate: u32, weights: u32,
        constant: f32,
        unused: u32,
    }
}

kernel_params! {
    struct NormWeightBackward {
        x: *const Stored,       // [rows, cols]
        dy: *const Stored,      // [rows, cols]
        statistics: *const f32, // [rows, cols / width, 2]
        weight_parts: *mut f32, // [part_count, cols]
        bias_parts: *mut f32,   // [part_count, cols], or null
        x_stride: u64, dy_stride: u64, rows: u64,
        cols: u32, width: u32, part_count: u32, unused: u32,
    }
}

/// Sums of the parameters' gradients over parts of the rows.
#[derive(Clone, Copy)]
pub(super) struct NormParts {
    pub(super) weight: Saved,
    pub(super) bias: Option<Saved>,
}

/// Threads that take one group of one row, and the launch for all of them.
fn teams(rows: usize, groups: usize, width: usize) -> (usize, Launch) {
    let team = if width <= WARP_WIDTH { 32 } else { THREADS };
    let blocks = (rows * groups).div_ceil(THREADS / team);
    (team, Launch::flat(blocks, THREADS as u32).with_shared(32))
}

impl Norm {
    pub(super) fn device_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, y) = (run.value(self.x), run.value(self.y));
        let width = x.cols / self.groups;
        let (weight, weights, constant) = self.device_weight(run);
        let (team, launch) = teams(x.rows, self.groups, width);
        let params = NormForward {
            x: x.data,
            weight,
            bias: self.bias.map_or(Ptr::default(), |bias| run.param(bias)),
            y: y.data,
            statistics: run.saved(self.statistics),
            x_stride: x.stride as u64,
            rows: x.rows as u64,
            width: width as u32,
            groups: self.groups as u32,
            team: team as u32,
            epsilon: self.epsilon,
            weights: weights as u32,
            constant,
            centred: self.centred.into(),
            unused: 0,
        };
        run.launch(&NORM, "norm_forward", launch, &params)
    }

    pub(super) fn device_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, dy) = (run.value(self.x), run.grad(self.y)?);
        let (dx, accumulate) = run.grad_mut(self.x)?;
        let width = x.cols / self.groups;
        let (weight, weights, constant) = self.device_weight(run);
        let (team, launch) = teams(x.rows, self.groups, width);
        let params = NormBackward {
            x: x.data,
            weight,
            dy: dy.data,
            statistics: run.saved(self.statistics),
            dx: dx.data,
            x_stride: x.stride as u64,
            dy_stride: dy.stride as u64,
            dx_stride: dx.stride as u64,
            rows: x.rows as u64,
            width: width as u32,
            groups: self.groups as u32,
            team: team as u32,
            centred: self.centred.into(),
            accumulate: accumulate.into(),
            weights: weights as u32,
            constant,
            unused: 0,
        };
        run.launch(&NORM, "norm_backward", launch, &params)?;
        match self.weight {
            Weight::Param(weight, values) => self.param_gradients(run, [x, dy], weight, values),
            Weight::Constant(_) => Ok(()),
        }
    }

    /// The weight, how many values it has, and what stands in its place where it is null.
    fn device_weight(&self, run: &CudaRun<'_>) -> (Ptr, usize, f32) {
        match &self.weight {
            Weight::Param(weight, values) => (run.param(*weight), *values, 1.0),
            Weight::Constant(values) => (Ptr::default(), values.len(), values[0]),
        }
    }

    fn param_gradients(
        &self,
        run: &CudaRun<'_>,
        [x, dy]: [DeviceRows; 2],
        weight: Param,
        values: usize,
    ) -> Result<()> {
        let parts = self.parts.ok_or_else(|| {
            PluginError::internal("a norm was recorded without Graph::want_device")
        })?;
        let count = part_count(x.rows);
        let params = NormWeightBackward {
            x: x.data,
            dy: dy.data,
            statistics: run.saved(self.statistics),
            weight_parts: run.saved(parts.weight),
            bias_parts: parts.bias.map_or(Ptr::default(), |bias| run.saved(bias)),
            x_stride: x.stride as u64,
            dy_stride: dy.stride as u64,
            rows: x.rows as u64,
            cols: x.cols as u32,
            width: (x.cols / self.groups) as u32,
            part_count: count as u32,
            unused: 0,
        };
        let launch = Launch::of([x.cols.div_ceil(32), count, 1], 256).with_shared(512);
        run.launch(&NORM, "norm_weight_backward", launch, &params)?;
        // A weight for all groups sums over these too.
        let sums = run.param_grad(weight);
        add_parts(run, parts.weight, count * (x.cols / values), values, sums)?;
        match (self.bias, parts.bias) {
            (Some(bias), Some(sums)) => add_parts(run, sums, count, x.cols, run.param_grad(bias)),
            _ => Ok(()),
        }
    }
}
