//! AdamW on a device: one launch over all parameters at once. It owns the moments and nothing else; how far
//! the training is, and whether this step updates at all, stands in device memory, see `totals.rs`.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::TrainConfig;

use super::device::{Device, KernelParams, Launch, Ptr};
use super::memory::{Memory, ParamBlock, to_bytes};
use super::totals::{Step, kernel};
use crate::engine::optimizer::Moments;
use crate::engine::params::Params;
use crate::kernel_params;

kernel_params! {
    pub(super) struct AdamW {
        values: *mut f32,   // [total]
        grads: *const f32,  // [total]
        first: *mut f32,    // [total]
        second: *mut f32,   // [total]
        decays: *const f32, // [total / 64]: 1 where weight decay applies, else 0
        step: *const Step,
        total: u64,
        beta1: f32, beta2: f32, epsilon: f32,
        unused: u32,
    }
}

/// AdamW's moments and settings.
pub struct DeviceAdamW {
    /// The settings.
    pub config: TrainConfig,
    first: ParamBlock,
    second: ParamBlock,
    decays: Memory,
}

impl DeviceAdamW {
    /// Zero moments for a model's parameters.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, config: &TrainConfig, params: &Params) -> Result<Self> {
        let first = ParamBlock::zeros(device, params)?;
        let mut decays = vec![0.0; first.total() / 64];
        for (index, entry) in params.entries.iter().enumerate() {
            // Those that lie side by side share one decay, and so may share 64 values.
            let values = first.range(index);
            let groups = values.start / 64..values.end.div_ceil(64);
            decays[groups].fill(if entry.decay { 1.0 } else { 0.0 });
        }
        let memory = Memory::new(device, decays.len())?;
        device.upload(memory.ptr(), &to_bytes(&decays))?;
        Ok(Self {
            config: config.clone(),
            second: ParamBlock::zeros(device, params)?,
            first,
            decays: memory,
        })
    }

    /// The moments of all parameters, after so many updates and all work.
    ///
    /// # Errors
    /// The device's, also of earlier work.
    pub fn read(&self, updates: u64) -> Result<Moments> {
        let all = |block: &ParamBlock| -> Result<Vec<Vec<f32>>> {
            (0..block.ptrs.len())
                .map(|index| block.read(index))
                .collect()
        };
        Ok(Moments {
            updates,
            first: all(&self.first)?,
            second: all(&self.second)?,
        })
    }

    /// Replaces the moments of all parameters.
    ///
    /// # Errors
    /// The device's.
    pub fn write(&self, moments: &Moments) -> Result<()> {
        let blocks = [
            (&self.first, &moments.first),
            (&self.second, &moments.second),
        ];
        for (block, values) in blocks {
            for (index, values) in values.iter().enumerate() {
                block.write(index, values)?;
            }
        }
        Ok(())
    }

    /// Updates the parameters by what `step`, a `struct Step` of adamw.cu, says of the gradients.
    ///
    /// # Errors
    /// The device's.
    pub fn update(
        &self,
        device: &dyn Device,
        params: &ParamBlock,
        grads: &ParamBlock,
        step: Ptr,
    ) -> Result<()> {
        let config = &self.config;
        let update = AdamW {
            values: params.ptr(),
            grads: grads.ptr(),
            first: self.first.ptr(),
            second: self.second.ptr(),
            decays: self.decays.ptr(),
            step,
            total: params.total() as u64,
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            epsilon: config.epsilon as f32,
            unused: 0,
        };
        let launch = Launch::for_each(params.total());
        device.launch(kernel("adamw"), launch, update.bytes())
    }
}
