//! What a batch adds up to, on the device: its loss, its hits and the norm of its gradients; in training also
//! what the update needs to know of them. A few bytes come back, and only when they are asked for.

use std::mem::offset_of;
use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::TrainConfig;

use super::device::{Device, Kernel, KernelParams, KernelSource, Launch, Ptr};
use super::memory::{Memory, ParamBlock};
use super::optimizer::AdamW;
use super::ports::{LossPart, Places, Schedule};
use super::run::Control;
use crate::kernel_params;

/// Source of the kernels that end a step.
pub(crate) static ADAMW: KernelSource = KernelSource {
    file: "adamw.cu",
    text: include_str!("../../kernels/adamw.cu"),
    params: &[
        LossPart::CPP,
        Schedule::CPP,
        Step::CPP,
        LossParts::CPP,
        Squares::CPP,
        FinishStep::CPP,
        AdamW::CPP,
    ],
};

/// Threads of a block of them.
const THREADS: u32 = 256;

/// Fewest values whose squares a block sums.
const LEAST_PART: usize = 4096;

/// Most blocks that do; one block adds up what they leave.
const MOST_PARTS: usize = 4096;

/// Bytes of the fields of a [`Step`] that the host reads, which come first.
const READ_BYTES: usize = offset_of!(Step, updates);

kernel_params! {
    /// What a step leaves: read by the host where it wants to know, and by the next step.
    pub(super) struct Step {
        loss: f64, norm: f64,         // of this batch; the norm is that before clipping
        correct: u64,                 // places whose most likely token was the target
        bad_step: u64,                // first step whose loss or norm was not finite, or NO_STEP
        bad_loss: f64, bad_norm: f64, // its
        updates: u64,                 // done so far: as on the CPU, those of finite norms
        update: u32,                  // whether adamw is to do one
        factor: f32, step_size: f32, second_correction: f32, decay: f32,
        unused: u32,
    }
}

kernel_params! {
    struct LossParts {
        nll: *const f32,     // [S]
        best: *const u32,    // [S]
        targets: *const i32, // [S]; arbitrary from control->wanted on
        control: *const Control,
        parts: *mut LossPart, // [grid]
    }
}

kernel_params! {
    struct Squares {
        grads: *const f32, // [total]
        parts: *mut f32,   // [grid]
        total: u64, part: u64,
    }
}

kernel_params! {
    struct FinishStep {
        losses: *const LossPart, // [loss_count]
        squares: *const f32,     // [square_count]
        control: *const Control,
        schedule: *const Schedule,
        step: *mut Step,
        beta1: f64, beta2: f64, clip: f64, weight_decay: f64,
        loss_count: u32, square_count: u32,
        training: u32, unused: u32, // whether an update follows
    }
}

/// What was read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Totals {
    /// Mean negative log likelihood of the wanted positions.
    pub loss: f64,
    /// Norm of the gradients, before clipping.
    pub norm: f64,
    /// Wanted positions whose most likely token was the target.
    pub correct: u64,
    /// The first training step, with loss and norm, that was not finite since this was asked last.
    pub bad: Option<(u64, f64, f64)>,
}

/// Sums over a batch, and what is kept of a training from step to step.
pub(crate) struct StepTotals {
    step: Memory,
    squares: Memory,
    part: usize,
    count: usize,
}

impl StepTotals {
    /// For a model's gradients.
    ///
    /// # Errors
    /// Memory is exhausted; the compiler's log.
    pub fn new(device: &Arc<dyn Device>, grads: &ParamBlock) -> Result<Self> {
        device.load(&[&ADAMW])?;
        let part = grads.total().div_ceil(MOST_PARTS).max(LEAST_PART);
        let count = grads.total().div_ceil(part);
        let totals = Self {
            step: Memory::new(device, size_of::<Step>() / 4)?,
            squares: Memory::new(device, count)?,
            part,
            count,
        };
        totals.begin(device.as_ref())?;
        Ok(totals)
    }

    /// Begins a training: no update was done, and no step was bad.
    ///
    /// # Errors
    /// The device's.
    pub fn begin(&self, device: &dyn Device) -> Result<()> {
        device.fill(self.step.ptr(), 0, size_of::<Step>() / 4)?;
        self.forget_bad(device)
    }

    /// Forgets the bad step that was read.
    ///
    /// # Errors
    /// The device's.
    pub fn forget_bad(&self, device: &dyn Device) -> Result<()> {
        device.fill(
            self.step.ptr().value(offset_of!(Step, bad_step) / 4),
            u32::MAX,
            2,
        )
    }

    /// Updates that were done in this training, after all work.
    ///
    /// # Errors
    /// The device's, also of earlier work.
    pub fn updates(&self, device: &dyn Device) -> Result<u64> {
        let mut bytes = [0; 8];
        device.download(
            self.step.ptr().value(offset_of!(Step, updates) / 4),
            &mut bytes,
        )?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Goes on after so many updates.
    ///
    /// # Errors
    /// The device's.
    pub fn set_updates(&self, device: &dyn Device, updates: u64) -> Result<()> {
        let place = self.step.ptr().value(offset_of!(Step, updates) / 4);
        device.upload(place, &updates.to_le_bytes())
    }

    /// Where the update finds what it needs.
    pub fn step(&self) -> Ptr {
        self.step.ptr()
    }

    /// Adds up a batch whose gradients and losses stand; with a training's settings, also counts and
    /// decides for its update.
    ///
    /// # Errors
    /// The device's.
    pub fn add_up(
        &self,
        device: &dyn Device,
        places: &Places,
        grads: &ParamBlock,
        training: Option<&TrainConfig>,
    ) -> Result<()> {
        let ports = places.ports;
        let losses = LossParts {
            nll: ports.nll,
            best: ports.best,
            targets: ports.targets,
            control: ports.control,
            parts: places.loss_parts,
        };
        let launch = |blocks: usize| Launch::flat(blocks, THREADS).with_shared(64);
        device.launch(
            kernel("loss_parts"),
            launch(places.loss_count),
            losses.bytes(),
        )?;
        let squares = Squares {
            grads: grads.ptr(),
            parts: self.squares.ptr(),
            total: grads.total() as u64,
            part: self.part as u64,
        };
        device.launch(kernel("squares"), launch(self.count), squares.bytes())?;
        let setting = |get: fn(&TrainConfig) -> f64| training.map_or(0.0, get);
        let finish = FinishStep {
            losses: places.loss_parts,
            squares: self.squares.ptr(),
            control: ports.control,
            schedule: places.schedule,
            step: self.step.ptr(),
            beta1: setting(|config| config.beta1),
            beta2: setting(|config| config.beta2),
            clip: setting(|config| config.clip_norm),
            weight_decay: setting(|config| config.weight_decay),
            loss_count: places.loss_count as u32,
            square_count: self.count as u32,
            training: training.is_some().into(),
            unused: 0,
        };
        device.launch(kernel("finish_step"), launch(1), finish.bytes())
    }

    /// Reads what the last batch added up to, after all work.
    ///
    /// # Errors
    /// The device's, also of earlier work.
    pub fn read(&self, device: &dyn Device) -> Result<Totals> {
        let mut bytes = [0; READ_BYTES];
        device.download(self.step.ptr(), &mut bytes)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let real = |at: usize| f64::from_bits(word(at));
        let bad_step = word(offset_of!(Step, bad_step));
        Ok(Totals {
            loss: real(0),
            norm: real(8),
            correct: word(16),
            bad: (bad_step != u64::MAX).then(|| (bad_step, real(32), real(40))),
        })
    }
}

/// A kernel of [`ADAMW`].
pub(crate) fn kernel(name: &'static str) -> Kernel {
    Kernel {
        source: &ADAMW,
        name,
    }
}
