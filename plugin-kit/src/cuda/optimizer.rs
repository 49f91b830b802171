//! AdamW on a device: two launches over all parameters at once. It owns the moments and nothing else.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::TrainConfig;

use super::device::{Device, Kernel, KernelParams, KernelSource, Launch, Ptr};
use super::memory::{Memory, ParamBlock, download, to_bytes};
use crate::engine::optimizer::learning_rate;
use crate::engine::params::Params;
use crate::kernel_params;

/// Source of the optimiser's kernels.
pub static ADAMW: KernelSource = KernelSource {
    file: "adamw.cu",
    text: include_str!("../../kernels/adamw.cu"),
};

/// Values whose squares a block sums; PART of the kernels.
const PART: usize = 4096;

kernel_params! {
    struct Squares { grads: Ptr, parts: Ptr, total: u64 }
}

kernel_params! {
    struct AdamW {
        values: Ptr, grads: Ptr, first: Ptr, second: Ptr, parts: Ptr, decays: Ptr, schedule: Ptr, norm: Ptr, total: u64,
        part_count: u32, clip: f32, beta1: f32, beta2: f32, epsilon: f32, weight_decay: f32,
    }
}

/// The euclidean norm of gradients, left on the device.
pub struct GradientNorm {
    parts: Memory,
    count: usize,
}

impl GradientNorm {
    /// Room for the norm of a model's gradients.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, grads: &ParamBlock) -> Result<Self> {
        device.load(&[&ADAMW])?;
        let count = grads.total().div_ceil(PART);
        Ok(Self {
            parts: Memory::new(device, count)?,
            count,
        })
    }

    /// Sums squares part by part.
    fn measure(&self, device: &dyn Device, grads: &ParamBlock) -> Result<()> {
        let params = Squares {
            grads: grads.ptr(),
            parts: self.parts.ptr(),
            total: grads.total() as u64,
        };
        let launch = Launch::flat(self.count, 256).with_shared(32);
        device.launch(kernel("squares"), launch, params.bytes())
    }

    /// The norm, read back.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, device: &dyn Device, grads: &ParamBlock) -> Result<f64> {
        self.measure(device, grads)?;
        let parts = download(device, self.parts.ptr(), self.count)?;
        Ok(parts
            .iter()
            .map(|part| f64::from(*part))
            .sum::<f64>()
            .sqrt())
    }
}

fn kernel(name: &'static str) -> Kernel {
    Kernel {
        source: &ADAMW,
        name,
    }
}

/// AdamW's moments and settings.
pub struct DeviceAdamW {
    config: TrainConfig,
    first: ParamBlock,
    second: ParamBlock,
    decays: Memory,
    /// Rate, step size, second correction; then the norm that comes back.
    schedule: Memory,
    updates: u64,
}

impl DeviceAdamW {
    /// Zero moments for a model's parameters.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, config: &TrainConfig, params: &Params) -> Result<Self> {
        device.load(&[&ADAMW])?;
        let first = ParamBlock::zeros(device, params)?;
        let mut decays = vec![0.0; first.total() / 64];
        let mut place = 0;
        for entry in &params.entries {
            let groups = entry.values.len().div_ceil(64);
            decays[place..place + groups].fill(if entry.decay { 1.0 } else { 0.0 });
            place += groups;
        }
        let memory = Memory::new(device, decays.len())?;
        device.upload(memory.ptr(), &to_bytes(&decays))?;
        Ok(Self {
            config: config.clone(),
            second: ParamBlock::zeros(device, params)?,
            first,
            decays: memory,
            schedule: Memory::new(device, 5)?,
            updates: 0,
        })
    }

    /// Updates the parameters and returns the gradients' global norm before clipping and the learning
    /// rate used. Nothing is updated when the norm is not finite.
    ///
    /// # Errors
    /// The device's.
    pub fn step(
        &mut self,
        device: &dyn Device,
        params: &ParamBlock,
        grads: &ParamBlock,
        norm: &GradientNorm,
        step: u64,
    ) -> Result<(f64, f64)> {
        let config = &self.config;
        let rate = learning_rate(config, step);
        let power = (self.updates + 1) as i32;
        let schedule = [
            rate as f32,
            (rate / (1.0 - config.beta1.powi(power))) as f32,
            (1.0 / (1.0 - config.beta2.powi(power)).sqrt()) as f32,
            0.0,
        ];
        device.upload(self.schedule.ptr(), &to_bytes(&schedule))?;
        norm.measure(device, grads)?;
        let update = AdamW {
            values: params.ptr(),
            grads: grads.ptr(),
            first: self.first.ptr(),
            second: self.second.ptr(),
            parts: norm.parts.ptr(),
            decays: self.decays.ptr(),
            schedule: self.schedule.ptr(),
            norm: self.schedule.ptr().value(4),
            total: params.total() as u64,
            part_count: norm.count as u32,
            clip: config.clip_norm as f32,
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            epsilon: config.epsilon as f32,
            weight_decay: config.weight_decay as f32,
        };
        let launch = Launch::for_each(params.total()).with_shared(32);
        device.launch(kernel("adamw"), launch, update.bytes())?;
        let norm = f64::from(download(device, self.schedule.ptr().value(4), 1)?[0]);
        // As on the CPU: an update that was not done does not count in the bias correction.
        self.updates += u64::from(norm.is_finite());
        Ok((norm, rate))
    }
}
