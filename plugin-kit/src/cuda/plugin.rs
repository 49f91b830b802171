//! A traced model on a device behind the author's traits, as [`crate::model`] has it on the CPU.

use std::sync::Arc;

use longhaul_plugin_api::author::{Model, Result, Session};
use longhaul_plugin_api::data::{
    Batch, FeedOutput, Logits, ModelConfig, ParameterInfo, StateSummary, StepReport, TrainConfig,
};
use longhaul_plugin_api::metadata::StateGrowth;

use super::device::Device;
use super::model::{DeviceModel, DeviceTrainer};
use super::session::DeviceSession;
use crate::backbone::{Architecture, trace_on_device};
use crate::engine::graph::Program;
use crate::engine::optimizer::Moments;
use crate::engine::params::Params;
use crate::model::{check_rows, check_size, check_tokens, no_gradient, poison_wanted};
use crate::options::Settings;

/// What model and sessions share.
struct Shared {
    program: Program,
    model: DeviceModel,
    vocab: u32,
    poison: bool,
}

/// A model on the kit, on a device.
pub struct DeviceKitModel {
    shared: Arc<Shared>,
    /// Names and shapes; the values are on the device.
    params: Params,
    trainer: DeviceTrainer,
    has_gradients: bool,
}

impl DeviceKitModel {
    /// Traces and initialises a model on a device.
    ///
    /// # Errors
    /// A refused option; an operation without kernels; the device's.
    pub fn new(
        architecture: &Architecture,
        config: &ModelConfig,
        device: &Arc<dyn Device>,
    ) -> Result<Self> {
        check_size(config)?;
        let settings = Settings::new(config);
        let mixer = (architecture.mixer)(&settings)?;
        let graph = trace_on_device(&settings, mixer.as_ref(), device.precision())?;
        let (program, params) = (graph.program, graph.params);
        program.check_device_form()?;
        let poison = poison_wanted(config);
        let model = DeviceModel::new(device, &program, &params)?;
        Ok(Self {
            trainer: DeviceTrainer::new(device, &params, poison)?,
            shared: Arc::new(Shared {
                program,
                model,
                vocab: config.vocab,
                poison,
            }),
            params,
            has_gradients: false,
        })
    }
}

impl Model for DeviceKitModel {
    fn parameters(&self) -> Vec<ParameterInfo> {
        self.params.infos()
    }

    fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()> {
        self.params.checked(index, values.len())?;
        values.copy_from_slice(&self.shared.model.params.read(index)?);
        Ok(())
    }

    fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
        self.params.checked(index, values.len())?;
        self.shared.model.params.write(index, values)
    }

    fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
        self.trainer
            .begin(&self.shared.model.device, config, &self.params)
    }

    fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport> {
        let Self {
            shared, trainer, ..
        } = self;
        check_tokens(shared.vocab, batch)?;
        let report = trainer.step(&shared.program, &shared.model, batch, step)?;
        self.has_gradients = true;
        Ok(report)
    }

    fn export_training(&self) -> Result<Vec<u8>> {
        let moments = self.trainer.export(self.shared.model.device.as_ref())?;
        Ok(moments.to_bytes())
    }

    fn import_training(&mut self, state: &[u8]) -> Result<()> {
        let moments = Moments::from_bytes(&self.params, state)?;
        let device = self.shared.model.device.as_ref();
        self.trainer.import(device, &moments)
    }

    fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        let Self {
            shared, trainer, ..
        } = self;
        check_tokens(shared.vocab, batch)?;
        let report = trainer.gradients(&shared.program, &shared.model, batch)?;
        self.has_gradients = true;
        Ok(report)
    }

    fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()> {
        if !self.has_gradients {
            return Err(no_gradient(index));
        }
        self.params.checked(index, values.len())?;
        values.copy_from_slice(&self.trainer.grads.read(index)?);
        Ok(())
    }

    fn state_growth(&self) -> StateGrowth {
        self.shared.program.state_growth()
    }

    fn declared_state_bytes(&self, length: u64) -> u64 {
        self.shared.program.state_bytes(length)
    }

    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
        check_rows(rows)?;
        let shared = Arc::clone(&self.shared);
        let Shared {
            program,
            model,
            vocab,
            poison,
        } = shared.as_ref();
        let session = DeviceSession::new(&model.device, program, rows, *vocab as usize, *poison)?;
        Ok(Box::new(KitSession { session, shared }))
    }
}

struct KitSession {
    session: DeviceSession,
    shared: Arc<Shared>,
}

impl Session for KitSession {
    fn feed(&mut self, batch: &Batch<'_>, logits: Logits) -> Result<FeedOutput> {
        check_tokens(self.shared.vocab, batch)?;
        self.session
            .feed(&self.shared.program, &self.shared.model, batch, logits)
    }

    fn position(&self) -> u64 {
        self.session.position()
    }

    fn state_bytes(&self) -> u64 {
        self.session.state_bytes()
    }

    fn reset(&mut self) -> Result<()> {
        self.session.reset()
    }

    fn fork(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(Self {
            session: self.session.fork(&self.shared.program)?,
            shared: Arc::clone(&self.shared),
        }))
    }

    fn export_state(&self) -> Result<Vec<u8>> {
        self.session.export()
    }

    fn import_state(&mut self, bytes: &[u8]) -> Result<()> {
        self.session.import(&self.shared.program, bytes)
    }

    fn state_summary(&self) -> Result<Vec<StateSummary>> {
        self.session.summary(&self.shared.program)
    }

    fn read_state(&self) -> Result<Vec<f32>> {
        self.session.fixed_values(&self.shared.program)
    }

    fn start_from(&mut self, values: &[f32]) -> Result<()> {
        self.session.start_from(&self.shared.program, values)
    }
}
