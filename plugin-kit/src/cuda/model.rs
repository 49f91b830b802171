//! A traced program on a device: gradients of a batch, and training steps. The whole step, from the
//! embedding to the update, is recorded once for a shape and replayed; what changes from batch to batch is
//! uploaded before, in one piece. The host waits for the device only where results are read.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{Batch, StepReport, TrainConfig};
use longhaul_plugin_api::error::PluginError;

use super::device::Device;
use super::memory::{DeviceArena, ParamBlock};
use super::optimizer::DeviceAdamW;
use super::ports::{Inputs, Places, PortMemory, Schedule};
use super::recordings::Recordings;
use super::run::{Buffers, Control, CudaRun};
use super::totals::StepTotals;
use crate::engine::graph::Program;
use crate::engine::operation::Wanted;
use crate::engine::optimizer::{Moments, learning_rate};
use crate::engine::params::Params;
use crate::engine::tensor::Shape;
use crate::model::not_begun;

/// Wanted positions are rounded up to a multiple of this, so that batches which differ a little in their
/// number replay one recording.
const WANTED_STEP: usize = 64;

/// Most recordings that are kept.
const RECORDINGS: usize = 256;

/// Compiles what a program's operations launch.
///
/// # Errors
/// A size that an operation's kernels do not take; the compiler's log, with file and line.
pub fn load_kernels(device: &dyn Device, program: &Program) -> Result<()> {
    let mut operations = program.operations.iter();
    operations.try_for_each(|operation| operation.check_device())?;
    for operation in &program.operations {
        device.load(&operation.kernels())?;
    }
    Ok(())
}

/// A recorded pass wrote between buffers, and no operation by itself does.
pub(super) fn unnamed() -> PluginError {
    PluginError::internal(
        "a recorded pass wrote between two buffers; its operations, run one by one, did not",
    )
}

/// A model's parameters on a device.
pub struct DeviceModel {
    /// The device.
    pub device: Arc<dyn Device>,
    /// The parameters.
    pub params: ParamBlock,
}

impl DeviceModel {
    /// Compiles a program's kernels and uploads its parameters.
    ///
    /// # Errors
    /// A size that an operation's kernels do not take; the compiler's log; memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, program: &Program, params: &Params) -> Result<Self> {
        load_kernels(device.as_ref(), program)?;
        let block = ParamBlock::zeros(device, params)?;
        for (index, entry) in params.entries.iter().enumerate() {
            block.write(index, &entry.values)?;
        }
        Ok(Self {
            device: Arc::clone(device),
            params: block,
        })
    }
}

/// Gradients and training steps on a device, with the buffers for computing them.
pub struct DeviceTrainer {
    /// By shape, and whether it ends with an update. First, so that they go before the memory and the device
    /// that they name.
    recordings: Recordings<(Shape, bool)>,
    optimizer: Option<DeviceAdamW>,
    totals: StepTotals,
    /// Gradient sums of the last batch.
    pub grads: ParamBlock,
    arena: DeviceArena,
    ports: PortMemory,
    poison: bool,
    wanted: Vec<Wanted>,
}

impl DeviceTrainer {
    /// A trainer for a model's parameters. `poison` fills every buffer with NaN before each run.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, params: &Params, poison: bool) -> Result<Self> {
        let grads = ParamBlock::zeros(device, params)?;
        Ok(Self {
            totals: StepTotals::new(device, &grads)?,
            optimizer: None,
            grads,
            arena: DeviceArena::new(device)?,
            ports: PortMemory::new(device)?,
            recordings: Recordings::new(RECORDINGS),
            poison,
            wanted: Vec::new(),
        })
    }

    /// Begins a training, with zero moments.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn begin(
        &mut self,
        device: &Arc<dyn Device>,
        config: &TrainConfig,
        params: &Params,
    ) -> Result<()> {
        let optimizer = DeviceAdamW::new(device, config, params)?;
        // These name the moments that there were.
        self.recordings.retain(|(_, update)| !update);
        self.optimizer = Some(optimizer);
        self.totals.begin(device.as_ref())
    }

    /// What the optimiser keeps, after all work.
    ///
    /// # Errors
    /// No training was begun; the device's; a step that was not finite and not read yet.
    pub fn export(&self, device: &dyn Device) -> Result<Moments> {
        let optimizer = self.optimizer.as_ref().ok_or_else(not_begun)?;
        if let Some((step, loss, norm)) = self.totals.read(device)?.bad {
            return Err(PluginError::not_finite(loss, norm, Some(step)));
        }
        optimizer.read(self.totals.updates(device)?)
    }

    /// Replaces what the optimiser keeps.
    ///
    /// # Errors
    /// No training was begun; the device's.
    pub fn import(&mut self, device: &dyn Device, moments: &Moments) -> Result<()> {
        let optimizer = self.optimizer.as_ref().ok_or_else(not_begun)?;
        optimizer.write(moments)?;
        self.totals.set_updates(device, moments.updates)
    }

    /// A training step. Its results are read, and so the device is waited for, where they are due.
    ///
    /// # Errors
    /// No training was begun; a batch without scored positions; whatever an operation refuses; the device's;
    /// at a step that is due, the first one before it that was not finite.
    pub fn step(
        &mut self,
        program: &Program,
        model: &DeviceModel,
        batch: &Batch<'_>,
        step: u64,
    ) -> Result<StepReport> {
        let optimizer = self.optimizer.as_ref().ok_or_else(not_begun)?;
        let rate = learning_rate(&optimizer.config, step);
        let due = optimizer.config.reporting().is_due(step);
        self.run(program, model, batch, Some(Schedule { rate, step }))?;
        if due {
            self.report(model.device.as_ref(), Some(step), rate)
        } else {
            Ok(StepReport::unread(rate))
        }
    }

    /// Computes the loss, and leaves the gradients of the mean loss in [`DeviceTrainer::grads`].
    ///
    /// # Errors
    /// A batch without scored positions; whatever an operation refuses; the device's.
    pub fn gradients(
        &mut self,
        program: &Program,
        model: &DeviceModel,
        batch: &Batch<'_>,
    ) -> Result<StepReport> {
        self.run(program, model, batch, None)?;
        self.report(model.device.as_ref(), None, 0.0)
    }

    /// Reads the last batch's results; of training step `step`, where it was one.
    fn report(&self, device: &dyn Device, step: Option<u64>, rate: f64) -> Result<StepReport> {
        let totals = self.totals.read(device)?;
        if let (Some(step), Some((bad_step, loss, norm))) = (step, totals.bad) {
            self.totals.forget_bad(device)?;
            // If it is this one, the report says so.
            if bad_step != step {
                let mut error = PluginError::not_finite(loss, norm, Some(bad_step));
                error.message = format!("training step {bad_step}: {}", error.message).into();
                return Err(error);
            }
        }
        Ok(StepReport {
            loss: totals.loss,
            gradient_norm: totals.norm,
            learning_rate: rate,
            scored: self.wanted.len() as u64,
            correct: totals.correct,
        })
    }

    /// Puts a batch through the program; with a schedule, an update follows.
    fn run(
        &mut self,
        program: &Program,
        model: &DeviceModel,
        batch: &Batch<'_>,
        schedule: Option<Schedule>,
    ) -> Result<()> {
        self.list_wanted(batch.targets.as_slice());
        if self.wanted.is_empty() {
            return Err(PluginError::bad_option(
                "no position of the batch is scored",
            ));
        }
        let shape = Shape {
            rows: batch.rows as usize,
            length: batch.length as usize,
            scored: self.wanted.len().next_multiple_of(WANTED_STEP),
        };
        let (device, key) = (model.device.as_ref(), (shape, schedule.is_some()));
        if !self.recordings.recall(&key) {
            self.record(program, model, key)?;
        }
        if self.poison {
            self.arena.poison()?;
        }
        let count = self.wanted.len();
        let inputs = Inputs {
            control: Control {
                position: 0,
                wanted: count as u32,
                loss_scale: 1.0 / count as f32,
            },
            schedule: schedule.unwrap_or_default(),
            tokens: batch.tokens.as_slice(),
            wanted: &self.wanted,
        };
        let places = self.recordings.places();
        self.ports.upload(device, &places, &inputs)?;
        if self.recordings.replay(device)? && self.grads.check_guards("gradient").is_ok() {
            return Ok(());
        }
        // Once more, one by one: which operation it was.
        self.arena.prepare(program, shape, true, false)?;
        self.pass(program, model, shape, &places, true)?;
        Err(unnamed())
    }

    fn list_wanted(&mut self, targets: &[i32]) {
        self.wanted.clear();
        let scored = targets.iter().enumerate().filter(|place| *place.1 >= 0);
        self.wanted.extend(scored.map(|(position, &target)| Wanted {
            position: position as u32,
            target,
            logits: false,
        }));
    }

    /// Lays out and records a shape that is not known yet, as the latest.
    fn record(&mut self, program: &Program, model: &DeviceModel, key: (Shape, bool)) -> Result<()> {
        let (shape, update) = key;
        // Buffers are laid out anew for each shape in memory that all shapes share.
        let places =
            self.recordings
                .lay_out(&mut self.arena, &mut self.ports, program, (shape, true), 0)?;
        let recording = model.device.record(&mut || {
            self.pass(program, model, shape, &places, false)?;
            self.end(model, &places, update)
        })?;
        let guards = self.arena.guards.clone();
        self.recordings.keep(key, places, guards, recording);
        Ok(())
    }

    /// Forward through the program, then backward; with `checked`, which is not to be recorded, what is between buffers
    /// is looked at after each operation.
    fn pass(
        &self,
        program: &Program,
        model: &DeviceModel,
        shape: Shape,
        places: &Places,
        checked: bool,
    ) -> Result<()> {
        let run = CudaRun {
            device: model.device.as_ref(),
            shape,
            program,
            buffers: Buffers {
                values: &self.arena.values,
                grads: &self.arena.grads,
                params: &model.params.ptrs,
                param_grads: &self.grads.ptrs,
                states: None,
            },
            ports: places.ports,
            touched: &self.arena.touched,
        };
        self.arena.begin_pass();
        run.fill(self.grads.ptr(), 0.0, self.grads.total())?;
        let check = || match checked {
            true => {
                self.arena.check_guards(program)?;
                self.grads.check_guards("gradient")
            }
            false => Ok(()),
        };
        program.forward(|operation| {
            operation.cuda_forward(&run)?;
            check()
        })?;
        program.backward(|operation| {
            operation.cuda_backward(&run)?;
            check()
        })
    }

    /// What follows a pass: sums and norm, and in training the update.
    fn end(&self, model: &DeviceModel, places: &Places, update: bool) -> Result<()> {
        let device = model.device.as_ref();
        let optimizer = self.optimizer.as_ref().filter(|_| update);
        let config = optimizer.map(|optimizer| &optimizer.config);
        self.totals.add_up(device, places, &self.grads, config)?;
        match optimizer {
            Some(optimizer) => {
                optimizer.update(device, &model.params, &self.grads, self.totals.step())
            }
            None => Ok(()),
        }
    }
}
