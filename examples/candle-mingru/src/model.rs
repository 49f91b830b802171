//! The model: parameters, gradients by candle, AdamW.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use longhaul_plugin_api::author::{Model, Result, Session};
use longhaul_plugin_api::data::{Batch, ModelConfig, ParameterInfo, StepReport, TrainConfig};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::StateGrowth;
use rayon::ThreadPool;

use crate::network::{Network, Parameter, parameters};
use crate::options::Settings;
use crate::refused;
use crate::session::Reading;

/// A model on candle.
pub struct Trainable {
    settings: Settings,
    /// As many threads as the host gave; candle's products run on it.
    pool: Arc<ThreadPool>,
    parameters: Vec<Parameter>,
    /// In the order of the parameters; empty before the first batch.
    gradients: Vec<Tensor>,
    training: Option<Training>,
}

/// The optimiser: decay is for matrices only, so there are two.
struct Training {
    config: TrainConfig,
    matrices: AdamW,
    others: AdamW,
}

impl Trainable {
    /// Builds and initialises a model.
    ///
    /// # Errors
    /// A refused option, size or device; no threads; candle's.
    pub fn build(config: &ModelConfig) -> Result<Self> {
        let settings = Settings::read(config)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.device.threads.max(1) as usize)
            .build()
            .map_err(|error| PluginError::internal(format!("no threads to be had: {error}")))?;
        Ok(Self {
            settings,
            pool: Arc::new(pool),
            parameters: parameters(&settings).map_err(refused)?,
            gradients: Vec::new(),
            training: None,
        })
    }

    fn var(&self, index: usize) -> Result<&Var> {
        let parameter = self.parameters.get(index).ok_or_else(|| {
            PluginError::bad_option(format!(
                "parameter {index} does not exist; there are {}",
                self.parameters.len()
            ))
        })?;
        Ok(&parameter.var)
    }

    /// The mean loss over the scored positions, and its gradients.
    fn differentiate(&mut self, batch: &Batch<'_>) -> Result<(StepReport, GradStore)> {
        check_tokens(batch, self.settings.vocab)?;
        let scored = batch.targets.iter().filter(|&&target| target >= 0).count();
        if scored == 0 {
            return Err(PluginError::bad_option(
                "no position of the batch is scored: every target is -1",
            ));
        }
        let pool = Arc::clone(&self.pool);
        let sums = pool
            .install(|| self.backward(batch, scored))
            .map_err(refused)?;
        self.gradients = self
            .parameters
            .iter()
            .map(|parameter| match sums.grads.get(&parameter.var) {
                Some(grad) => Ok(grad.clone()),
                None => parameter.var.zeros_like(),
            })
            .collect::<candle_core::Result<_>>()
            .map_err(refused)?;
        let report = StepReport {
            loss: sums.nll / scored as f64,
            gradient_norm: 0.0,
            learning_rate: 0.0,
            scored: scored as u64,
            correct: sums.correct,
        };
        Ok((report, sums.grads))
    }

    /// Losses, and gradients of their mean over `scored` positions, summed over micro-batches of whole
    /// rows: small enough that the many tensors of the scan come from memory in use already.
    fn backward(&self, batch: &Batch<'_>, scored: usize) -> candle_core::Result<Sums> {
        let length = batch.length as usize;
        let values: Vec<Tensor> = self
            .parameters
            .iter()
            .map(|parameter| parameter.var.as_tensor().clone())
            .collect();
        let network = Network { values: &values };
        let tokens = (MICRO_BATCH / length).max(1) * length;
        let parts = batch.tokens.as_slice().chunks(tokens);
        let mut sums: Option<Sums> = None;
        for (tokens, targets) in parts.zip(batch.targets.as_slice().chunks(tokens)) {
            let Some(part) = part(&network, tokens, targets, length, scored)? else {
                continue; // nothing of it is scored
            };
            sums = Some(match sums {
                None => part,
                Some(sums) => sums.add(part, &self.parameters)?,
            });
        }
        sums.ok_or_else(|| candle_core::Error::Msg("no position is scored".to_owned()))
    }
}

/// Tokens of a micro-batch, about.
const MICRO_BATCH: usize = 256;

/// What micro-batches add up to.
struct Sums {
    /// Of negative log likelihoods, in nats.
    nll: f64,
    /// Scored positions whose most likely token was the target.
    correct: u64,
    grads: GradStore,
}

impl Sums {
    fn add(mut self, other: Self, parameters: &[Parameter]) -> candle_core::Result<Self> {
        for parameter in parameters {
            if let Some(more) = other.grads.get(&parameter.var) {
                let sum = match self.grads.get(&parameter.var) {
                    Some(grad) => (grad + more)?,
                    None => more.clone(),
                };
                self.grads.insert(&parameter.var, sum);
            }
        }
        Ok(Self {
            nll: self.nll + other.nll,
            correct: self.correct + other.correct,
            grads: self.grads,
        })
    }
}

/// One micro-batch of rows of `length` tokens, or nothing where none of it is scored.
fn part(
    network: &Network<'_>,
    tokens: &[u32],
    targets: &[i32],
    length: usize,
    scored: usize,
) -> candle_core::Result<Option<Sums>> {
    let cpu = &Device::Cpu;
    let (positions, targets): (Vec<u32>, Vec<u32>) = targets
        .iter()
        .enumerate()
        .filter(|(_, target)| **target >= 0)
        .map(|(position, &target)| (position as u32, target as u32))
        .unzip();
    if positions.is_empty() {
        return Ok(None);
    }
    let count = positions.len();
    let tokens = Tensor::from_slice(tokens, (tokens.len() / length, length), cpu)?;
    let (hidden, _) = network.read(&tokens, None)?;
    let positions = Tensor::from_vec(positions, count, cpu)?;
    let logits = network.logits(&hidden.index_select(&positions, 0)?)?;
    let wanted = Tensor::from_slice(&targets, (count, 1), cpu)?;
    let nll = candle_nn::ops::log_softmax(&logits, D::Minus1)?
        .gather(&wanted, 1)?
        .neg()?;
    let grads = (nll.sum_all()? / scored as f64)?.backward()?;
    let best = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let right = best
        .iter()
        .zip(&targets)
        .filter(|(best, target)| best == target);
    let nll = nll.flatten_all()?.to_vec1::<f32>()?;
    Ok(Some(Sums {
        nll: nll.iter().map(|&nll| f64::from(nll)).sum(),
        correct: right.count() as u64,
        grads,
    }))
}

/// Refuses tokens and targets outside the vocabulary.
pub fn check_tokens(batch: &Batch<'_>, vocab: usize) -> Result<()> {
    if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= vocab) {
        return Err(PluginError::bad_option(format!(
            "token {token} is outside the vocabulary of {vocab}"
        )));
    }
    let mut targets = batch.targets.iter();
    match targets.find(|&&target| target < -1 || i64::from(target) >= vocab as i64) {
        None => Ok(()),
        Some(target) => Err(PluginError::bad_option(format!(
            "target {target} is neither -1 nor inside the vocabulary of {vocab}"
        ))),
    }
}

impl Training {
    fn new(config: &TrainConfig, parameters: &[Parameter]) -> candle_core::Result<Self> {
        let vars = |matrices: bool| {
            let of_kind = parameters
                .iter()
                .filter(|parameter| (parameter.info.shape.len() >= 2) == matrices);
            of_kind
                .map(|parameter| parameter.var.clone())
                .collect::<Vec<_>>()
        };
        let settings = |weight_decay: f64| ParamsAdamW {
            lr: config.learning_rate,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.epsilon,
            weight_decay,
        };
        Ok(Self {
            config: config.clone(),
            matrices: AdamW::new(vars(true), settings(config.weight_decay))?,
            others: AdamW::new(vars(false), settings(0.0))?,
        })
    }

    /// The learning rate of a step: linear warm-up, then a cosine.
    fn learning_rate(&self, step: u64) -> f64 {
        let config = &self.config;
        if step < config.warmup_steps {
            return config.learning_rate * (step + 1) as f64 / config.warmup_steps as f64;
        }
        let left = config.total_steps.saturating_sub(config.warmup_steps);
        let done = ((step - config.warmup_steps) as f64 / left.max(1) as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * cosine)
    }

    /// Clips the gradients and updates; returns their norm before, and the learning rate.
    fn update(
        &mut self,
        parameters: &[Parameter],
        mut grads: GradStore,
        step: u64,
    ) -> candle_core::Result<(f64, f64)> {
        let mut squares = 0.0;
        for parameter in parameters {
            if let Some(grad) = grads.get(&parameter.var) {
                let values = grad.flatten_all()?.to_vec1::<f32>()?;
                squares += values.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
            }
        }
        let (norm, limit) = (squares.sqrt(), self.config.clip_norm);
        if limit > 0.0 && norm > limit {
            for parameter in parameters {
                if let Some(grad) = grads.remove(&parameter.var) {
                    grads.insert(&parameter.var, (grad * (limit / norm))?);
                }
            }
        }
        let rate = self.learning_rate(step);
        for optimizer in [&mut self.matrices, &mut self.others] {
            optimizer.set_learning_rate(rate);
            optimizer.step(&grads)?;
        }
        Ok((norm, rate))
    }
}

impl Model for Trainable {
    fn parameters(&self) -> Vec<ParameterInfo> {
        let parameters = self.parameters.iter();
        parameters.map(|parameter| parameter.info.clone()).collect()
    }

    fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()> {
        read(self.var(index)?, values).map_err(refused)
    }

    fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
        let var = self.var(index)?;
        Tensor::from_slice(values, var.shape(), &Device::Cpu)
            .and_then(|values| var.set(&values))
            .map_err(refused)
    }

    fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
        self.training = Some(Training::new(config, &self.parameters).map_err(refused)?);
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport> {
        if self.training.is_none() {
            return Err(PluginError::internal(
                "train_step was called before begin_training",
            ));
        }
        let (mut report, grads) = self.differentiate(batch)?;
        if let Some(training) = &mut self.training {
            (report.gradient_norm, report.learning_rate) = training
                .update(&self.parameters, grads, step)
                .map_err(refused)?;
        }
        Ok(report)
    }

    fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        Ok(self.differentiate(batch)?.0)
    }

    fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()> {
        let gradient = self.gradients.get(index).ok_or_else(|| {
            PluginError::bad_option(format!(
                "there is no gradient {index}; compute a batch's gradients first"
            ))
        })?;
        read(gradient, values).map_err(refused)
    }

    fn state_growth(&self) -> StateGrowth {
        StateGrowth::Constant
    }

    fn declared_state_bytes(&self, _length: u64) -> u64 {
        (self.settings.layers * self.settings.hidden * size_of::<f32>()) as u64
    }

    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
        if rows == 0 {
            return Err(PluginError::bad_option("a session needs at least 1 row"));
        }
        // Copies: a variable's values change in place, and the session must not notice.
        let values = self
            .parameters
            .iter()
            .map(|parameter| Ok(parameter.var.copy()?.detach()))
            .collect::<candle_core::Result<Vec<_>>>()
            .map_err(refused)?;
        Ok(Box::new(Reading::new(
            values,
            Arc::clone(&self.pool),
            &self.settings,
            rows,
        )))
    }

    fn notes(&self) -> Vec<String> {
        vec![format!(
            "candle on {} threads",
            self.pool.current_num_threads()
        )]
    }
}

fn read(tensor: &Tensor, values: &mut [f32]) -> candle_core::Result<()> {
    values.copy_from_slice(&tensor.flatten_all()?.to_vec1::<f32>()?);
    Ok(())
}
