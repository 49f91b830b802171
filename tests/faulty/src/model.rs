//! The model: parameters, training steps and sessions, with faults where the option asks for them.

use std::sync::Arc;

use longhaul_plugin_api::abi::LogLevel;
use longhaul_plugin_api::author::{Model, Result, Session, log};
use longhaul_plugin_api::data::{
    Batch, DeviceKind, ModelConfig, ParameterInfo, Reporting, StepReport, TrainConfig,
};
use longhaul_plugin_api::error::{ErrorKind, PluginError};
use longhaul_plugin_api::metadata::StateGrowth;

use crate::fault::{Fault, Schedule};
use crate::optimizer::Optimizer;
use crate::options::Options;
use crate::session::Averaging;
use crate::weights::{Sizes, Weights, score};

/// Decaying averages of embeddings under a linear head.
pub struct Averages {
    schedule: Schedule,
    // Shared with sessions, which keep the weights they were opened with.
    weights: Arc<Weights>,
    grads: Weights,
    optimizer: Option<Optimizer>,
    reporting: Reporting,
}

impl Averages {
    /// Builds and initialises a model.
    ///
    /// # Errors
    /// A refused option or size, or another device than the CPU.
    pub fn build(config: &ModelConfig) -> Result<Self> {
        let options = Options::read(config)?;
        options.schedule.in_build()?;
        if config.device.kind != DeviceKind::Cpu {
            return Err(PluginError::new(
                ErrorKind::Device,
                format!("faulty runs on cpu only, not on {}", config.device),
            ));
        }
        if config.vocab == 0 || config.d_model == 0 || config.layers == 0 {
            return Err(PluginError::bad_option(format!(
                "vocab {}, d_model {} and layers {} must all be at least 1",
                config.vocab, config.d_model, config.layers
            )));
        }
        let sizes = Sizes {
            vocab: config.vocab as usize,
            d_model: config.d_model as usize,
            layers: config.layers as usize,
        };
        log(
            LogLevel::Debug,
            &format!("building with {:?}", options.schedule),
        );
        let seed = match options.schedule.fault {
            Fault::Nondeterministic => config.seed ^ clock(),
            _ => config.seed,
        };
        Ok(Self {
            schedule: options.schedule,
            weights: Arc::new(Weights::initial(sizes, options.decay, seed)),
            grads: Weights::zeros(sizes),
            optimizer: None,
            reporting: Reporting::default(),
        })
    }

    fn tensor<'a>(&self, tensors: &'a [Vec<f32>], index: usize) -> Result<&'a [f32]> {
        tensors.get(index).map(Vec::as_slice).ok_or_else(|| {
            PluginError::bad_option(format!(
                "parameter {index} does not exist; there are {}",
                tensors.len()
            ))
        })
    }

    /// Fills the gradients of the mean loss over the scored positions.
    fn gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        let sizes = self.weights.sizes;
        let (d_model, length) = (sizes.d_model, batch.length as usize);
        check_tokens(batch, sizes.vocab)?;
        for tensor in &mut self.grads.tensors {
            tensor.fill(0.0);
        }
        let head = self.grads.tensors.len() - 1;
        let scored = batch.targets.iter().filter(|&&target| target >= 0).count();
        if scored == 0 {
            return Err(PluginError::bad_option(
                "no position of the batch is scored: every target is -1",
            ));
        }
        let weight = 1.0 / scored as f32;
        let (mut loss, mut correct) = (0.0, 0);
        let mut logits = vec![0.0; sizes.vocab];
        let rows = batch.tokens.as_slice().chunks_exact(length);
        for (tokens, targets) in rows.zip(batch.targets.as_slice().chunks_exact(length)) {
            let trace = self.weights.trace(tokens);
            let outputs = &trace.hidden[sizes.layers * length * d_model..];
            let mut grad = vec![0.0; length * d_model];
            for (t, &target) in targets
                .iter()
                .enumerate()
                .filter(|(_, target)| **target >= 0)
            {
                let hidden = &outputs[t * d_model..][..d_model];
                self.weights.logits(hidden, &mut logits);
                let (best, nll) = score(&mut logits, target as usize, true);
                loss += f64::from(nll);
                correct += u64::from(best == target as u32);
                logits[target as usize] -= 1.0;
                let grad = &mut grad[t * d_model..][..d_model];
                for (token, &share) in logits.iter().enumerate() {
                    let share = share * weight;
                    let row = token * d_model..(token + 1) * d_model;
                    let weights = &self.weights.head()[row.clone()];
                    let grads = &mut self.grads.tensors[head][row];
                    for channel in 0..d_model {
                        grad[channel] += share * weights[channel];
                        grads[channel] += share * hidden[channel];
                    }
                }
            }
            self.weights
                .backward(tokens, &trace, &mut grad, &mut self.grads);
        }
        if self.schedule.fault == Fault::WrongGradients {
            self.grads.tensors[head].iter_mut().for_each(|g| *g *= 1.1);
        }
        Ok(StepReport {
            loss: loss / scored as f64,
            gradient_norm: 0.0,
            learning_rate: 0.0,
            scored: scored as u64,
            correct,
        })
    }
}

fn not_begun() -> PluginError {
    PluginError::internal("no training was begun")
}

/// Nanoseconds of the clock, for the fault that must differ from run to run.
fn clock() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

/// Refuses tokens and targets outside the vocabulary.
pub fn check_tokens(batch: &Batch<'_>, vocab: usize) -> Result<()> {
    let token = batch.tokens.iter().find(|&&token| token as usize >= vocab);
    let target = batch
        .targets
        .iter()
        .find(|&&target| target < -1 || target >= vocab as i32);
    match (token, target) {
        (Some(token), _) => Err(PluginError::bad_option(format!(
            "token {token} is outside the vocabulary of {vocab}"
        ))),
        (None, Some(target)) => Err(PluginError::bad_option(format!(
            "target {target} is neither -1 nor inside the vocabulary of {vocab}"
        ))),
        (None, None) => Ok(()),
    }
}

impl Model for Averages {
    fn parameters(&self) -> Vec<ParameterInfo> {
        let mut infos = Weights::infos(self.weights.sizes);
        match self.schedule.fault {
            Fault::DuplicateParameters => infos[1].name = infos[0].name.clone(),
            Fault::WrongShapes => infos[1].shape[0] *= 2,
            _ => (),
        }
        infos
    }

    fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()> {
        values.copy_from_slice(self.tensor(&self.weights.tensors, index)?);
        if self.schedule.fault == Fault::NanParameters && index == 1 {
            values[0] = f32::NAN;
        }
        Ok(())
    }

    fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
        self.tensor(&self.weights.tensors, index)?;
        Arc::make_mut(&mut self.weights).tensors[index].copy_from_slice(values);
        Ok(())
    }

    fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
        self.optimizer = Some(Optimizer::new(config, self.weights.sizes));
        self.reporting = config.reporting();
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport> {
        self.schedule.in_train_step(step)?;
        let mut report = self.gradients(batch)?;
        let optimizer = self.optimizer.as_mut().ok_or_else(not_begun)?;
        let weights = Arc::make_mut(&mut self.weights);
        (report.gradient_norm, report.learning_rate) = optimizer.update(weights, &self.grads, step);
        if self.schedule.due(Fault::NanLoss, step) {
            report.loss = f64::NAN;
        }
        if self.schedule.due(Fault::NegativeLoss, step) {
            report.loss = -5.0;
        }
        if self.schedule.due(Fault::NanLearningRate, step) {
            report.learning_rate = f64::NAN;
        }
        if self.schedule.due(Fault::SilentSteps, step)
            || (self.schedule.due(Fault::QuietSteps, step) && !self.reporting.is_due(step))
        {
            report = StepReport::unread(report.learning_rate);
        }
        Ok(report)
    }

    fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        self.gradients(batch)
    }

    fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()> {
        values.copy_from_slice(self.tensor(&self.grads.tensors, index)?);
        Ok(())
    }

    fn state_growth(&self) -> StateGrowth {
        StateGrowth::Constant
    }

    fn declared_state_bytes(&self, _length: u64) -> u64 {
        let sizes = self.weights.sizes;
        let bytes = (sizes.layers * sizes.d_model * size_of::<f32>()) as u64;
        match self.schedule.fault {
            Fault::LiesAboutState => bytes / 2,
            _ => bytes,
        }
    }

    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
        if rows == 0 {
            return Err(PluginError::bad_option("a session needs at least 1 row"));
        }
        Ok(Box::new(Averaging::new(
            Arc::clone(&self.weights),
            self.schedule,
            rows,
        )))
    }

    fn export_training(&self) -> Result<Vec<u8>> {
        let optimizer = self.optimizer.as_ref();
        optimizer.map(Optimizer::export).ok_or_else(not_begun)
    }

    fn import_training(&mut self, state: &[u8]) -> Result<()> {
        let forgets = self.schedule.fault == Fault::ForgetsTraining;
        let optimizer = self.optimizer.as_mut().ok_or_else(not_begun)?;
        let before = forgets.then(|| optimizer.export());
        if !optimizer.import(state) {
            return Err(PluginError::bad_option(format!(
                "{} bytes are no training of this model",
                state.len()
            )));
        }
        if let Some(before) = before {
            optimizer.import(&before);
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        vec![format!("{} decaying averages", self.weights.sizes.layers)]
    }
}
