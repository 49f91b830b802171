//! A traced model on a device behind the author's traits, as [`crate::model`] has it on the CPU.

use std::sync::Arc;

use longhaul_plugin_api::author::{Model, Result, Session};
use longhaul_plugin_api::data::{
    Batch, FeedOutput, Logits, ModelConfig, ParameterInfo, StepReport, TrainConfig,
};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::StateGrowth;

use super::device::Device;
use super::model::{DeviceModel, DeviceTrainer};
use super::optimizer::DeviceAdamW;
use super::session::DeviceSession;
use crate::backbone::{Architecture, trace_on_device};
use crate::engine::graph::Program;
use crate::engine::operation::LossSums;
use crate::engine::params::Params;
use crate::model::{check_length, check_size, check_tokens, no_parameter, poison_wanted, report};
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
    optimizer: Option<DeviceAdamW>,
    state_growth: StateGrowth,
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
            optimizer: None,
            state_growth: mixer.state_growth(),
        })
    }

    fn gradients(&mut self, batch: &Batch<'_>) -> Result<LossSums> {
        check_tokens(self.shared.vocab, batch)?;
        let shared = &self.shared;
        let sums = self
            .trainer
            .gradients(&shared.program, &shared.model, batch)?;
        self.has_gradients = true;
        Ok(sums)
    }
}

impl Model for DeviceKitModel {
    fn parameters(&self) -> Vec<ParameterInfo> {
        self.params.infos()
    }

    fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()> {
        let entry = self
            .params
            .entries
            .get(index)
            .ok_or_else(|| no_parameter(index))?;
        check_length(&entry.name, entry.values.len(), values.len())?;
        values.copy_from_slice(&self.shared.model.params.read(index)?);
        Ok(())
    }

    fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
        let entry = self
            .params
            .entries
            .get(index)
            .ok_or_else(|| no_parameter(index))?;
        check_length(&entry.name, entry.values.len(), values.len())?;
        self.shared.model.params.write(index, values)
    }

    fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
        self.optimizer = Some(DeviceAdamW::new(
            &self.shared.model.device,
            config,
            &self.params,
        )?);
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport> {
        if self.optimizer.is_none() {
            return Err(PluginError::bad_option("train_step before begin_training"));
        }
        let sums = self.gradients(batch)?;
        let Self {
            shared,
            trainer,
            optimizer,
            ..
        } = self;
        let optimizer = optimizer.as_mut().expect("checked above");
        let model = &shared.model;
        let (norm, rate) = optimizer.step(
            model.device.as_ref(),
            &model.params,
            &trainer.grads,
            &trainer.norm,
            step,
        )?;
        Ok(report(sums, norm, rate))
    }

    fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        let sums = self.gradients(batch)?;
        let device = self.shared.model.device.as_ref();
        let norm = self.trainer.norm.read(device, &self.trainer.grads)?;
        Ok(report(sums, norm, 0.0))
    }

    fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()> {
        if !self.has_gradients || index >= self.params.entries.len() {
            return Err(PluginError::bad_option(format!(
                "no gradient of parameter {index}: call loss_and_gradients first"
            )));
        }
        let gradient = self.trainer.grads.read(index)?;
        check_length(&index.to_string(), gradient.len(), values.len())?;
        values.copy_from_slice(&gradient);
        Ok(())
    }

    fn state_growth(&self) -> StateGrowth {
        self.state_growth
    }

    fn declared_state_bytes(&self, length: u64) -> u64 {
        let states = self.shared.program.states().iter();
        states.map(|state| state.bytes(length)).sum()
    }

    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
        if rows == 0 {
            return Err(PluginError::bad_option("a session of 0 rows"));
        }
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
}
