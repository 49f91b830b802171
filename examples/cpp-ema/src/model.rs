//! The model: parameters in one buffer, training steps row by row, the optimiser's schedule.

use std::sync::Arc;

use longhaul_plugin_api::author::{Model, Result, Session};
use longhaul_plugin_api::data::{
    Batch, ModelConfig, ParameterInfo, ParameterRole, StepReport, TrainConfig,
};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::StateGrowth;

use crate::native::{AdamW, Sizes};
use crate::options::Settings;
use crate::session::Reading;

/// Gated exponential averages.
pub struct Averages {
    sizes: Sizes,
    /// All parameters, one after the other; shared with sessions, which keep what they were opened with.
    values: Arc<Vec<f32>>,
    grads: Vec<f32>,
    training: Option<Training>,
}

/// The optimiser's settings and moments.
struct Training {
    config: TrainConfig,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Averages {
    /// Builds and initialises a model.
    ///
    /// # Errors
    /// A refused option, size or device.
    pub fn build(config: &ModelConfig) -> Result<Self> {
        let settings = Settings::read(config)?;
        let values = initial(&settings);
        if values.len() != settings.sizes.parameters() {
            return Err(PluginError::internal(format!(
                "{} parameters here and {} in ema.cpp",
                values.len(),
                settings.sizes.parameters()
            )));
        }
        Ok(Self {
            sizes: settings.sizes,
            grads: vec![0.0; values.len()],
            values: Arc::new(values),
            training: None,
        })
    }

    /// Where a parameter lies in the buffer.
    fn range(&self, index: usize) -> Result<std::ops::Range<usize>> {
        let infos = infos(self.sizes);
        let info = infos.get(index).ok_or_else(|| {
            PluginError::bad_option(format!(
                "parameter {index} does not exist; there are {}",
                infos.len()
            ))
        })?;
        let start = infos[..index].iter().map(ParameterInfo::len).sum();
        Ok(start..start + info.len())
    }

    /// Fills the gradients of the mean loss over the scored positions.
    fn differentiate(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        let sizes = self.sizes;
        check_tokens(batch, sizes.vocab)?;
        let scored = batch.targets.iter().filter(|&&target| target >= 0).count();
        if scored == 0 {
            return Err(PluginError::bad_option(
                "no position of the batch is scored: every target is -1",
            ));
        }
        let (d_model, length) = (sizes.d_model, batch.length as usize);
        let weight = 1.0 / scored as f32;
        let (mut loss, mut correct) = (0.0, 0);
        let mut trace = vec![0.0; sizes.trace(length)];
        let mut grad = vec![0.0; length * d_model];
        let mut logits = vec![0.0; sizes.vocab];
        let mut scratch = vec![0.0; 4 * d_model];
        self.grads.fill(0.0);
        let rows = batch.tokens.as_slice().chunks_exact(length);
        for (tokens, targets) in rows.zip(batch.targets.as_slice().chunks_exact(length)) {
            let mut state = vec![0.0; sizes.state()];
            sizes.forward(&self.values, tokens, &mut state, &mut trace);
            let outputs = &trace[trace.len() - length * d_model..];
            grad.fill(0.0);
            let places = outputs.chunks(d_model).zip(grad.chunks_mut(d_model));
            for ((output, grad), &target) in places.zip(targets) {
                let Ok(target) = u32::try_from(target) else {
                    continue; // not scored
                };
                sizes.logits(&self.values, output, &mut logits);
                let (best, nll) = sizes.score(&logits, target);
                loss += f64::from(nll);
                correct += u64::from(best == target);
                sizes.score_backward(
                    &self.values,
                    output,
                    &mut logits,
                    target,
                    weight,
                    grad,
                    &mut self.grads,
                );
            }
            sizes.backward(
                &self.values,
                tokens,
                &mut trace,
                &mut grad,
                &mut scratch,
                &mut self.grads,
            );
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

/// Name, shape and owner of each parameter, in the buffer's order.
fn infos(sizes: Sizes) -> Vec<ParameterInfo> {
    let info = |name: String, shape: &[usize], role| ParameterInfo {
        name: name.into(),
        shape: shape
            .iter()
            .map(|&size| size as u64)
            .collect::<Vec<_>>()
            .into(),
        role,
    };
    let (vocab, d_model) = (sizes.vocab, sizes.d_model);
    let (mixer, backbone) = (ParameterRole::Mixer, ParameterRole::Backbone);
    let mut infos = vec![info("embedding".to_owned(), &[vocab, d_model], backbone)];
    for layer in 0..sizes.layers {
        let name = |part: &str| format!("layers.{layer}.{part}");
        infos.push(info(name("decay"), &[d_model], mixer));
        for part in ["in.weight", "gate.weight", "out.weight"] {
            infos.push(info(name(part), &[d_model, d_model], mixer));
        }
    }
    infos.push(info("head.weight".to_owned(), &[vocab, d_model], backbone));
    infos
}

/// The start, a function of the settings alone.
fn initial(settings: &Settings) -> Vec<f32> {
    let sizes = settings.sizes;
    let bound = (3.0 / sizes.d_model as f32).sqrt();
    let mut state = settings.seed;
    let mut values = Vec::new();
    for info in infos(sizes) {
        let count = info.len();
        if info.shape.len() == 1 {
            // Each channel forgets at its own rate, spread around the one asked for.
            let middle = (settings.decay / (1.0 - settings.decay)).ln();
            let spread = |channel: usize| 4.0 * (channel as f32 + 0.5) / count as f32 - 2.0;
            values.extend((0..count).map(|channel| middle + spread(channel)));
            continue;
        }
        let bound = match info.name.as_str() {
            "embedding" => 1.0,
            // The residual stream keeps its size however many blocks add to it.
            name if name.ends_with("out.weight") => bound / (2.0 * sizes.layers as f32).sqrt(),
            _ => bound,
        };
        values.extend((0..count).map(|_| bound * draw(&mut state)));
    }
    values
}

/// The next number from -1..1 (SplitMix64).
fn draw(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
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

    /// Updates the values; returns the gradients' norm before clipping and the learning rate.
    fn update(&mut self, values: &mut [f32], grads: &[f32], sizes: Sizes, step: u64) -> (f64, f64) {
        let squares = grads.iter().map(|&grad| f64::from(grad).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let rate = self.learning_rate(step);
        let config = &self.config;
        let limit = config.clip_norm;
        let count = i32::try_from(step).unwrap_or(i32::MAX).saturating_add(1);
        let mut start = 0;
        for info in infos(sizes) {
            let matrix = info.shape.len() >= 2;
            let range = start..start + info.len();
            start = range.end;
            AdamW {
                rate: rate as f32,
                beta1: config.beta1 as f32,
                beta2: config.beta2 as f32,
                epsilon: config.epsilon as f32,
                decay: if matrix {
                    config.weight_decay as f32
                } else {
                    0.0
                },
                clip: if limit > 0.0 && norm > limit {
                    (limit / norm) as f32
                } else {
                    1.0
                },
                correction1: (1.0 - config.beta1.powi(count)) as f32,
                correction2: (1.0 - config.beta2.powi(count)) as f32,
            }
            .step(
                &mut values[range.clone()],
                &grads[range.clone()],
                &mut self.first[range.clone()],
                &mut self.second[range],
            );
        }
        (norm, rate)
    }
}

impl Model for Averages {
    fn parameters(&self) -> Vec<ParameterInfo> {
        infos(self.sizes)
    }

    fn read_parameter(&self, index: usize, values: &mut [f32]) -> Result<()> {
        values.copy_from_slice(&self.values[self.range(index)?]);
        Ok(())
    }

    fn write_parameter(&mut self, index: usize, values: &[f32]) -> Result<()> {
        let range = self.range(index)?;
        Arc::make_mut(&mut self.values)[range].copy_from_slice(values);
        Ok(())
    }

    fn begin_training(&mut self, config: &TrainConfig) -> Result<()> {
        self.training = Some(Training {
            config: config.clone(),
            first: vec![0.0; self.values.len()],
            second: vec![0.0; self.values.len()],
        });
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>, step: u64) -> Result<StepReport> {
        if self.training.is_none() {
            return Err(PluginError::internal(
                "train_step was called before begin_training",
            ));
        }
        let mut report = self.differentiate(batch)?;
        if let Some(training) = &mut self.training {
            let values = Arc::make_mut(&mut self.values);
            (report.gradient_norm, report.learning_rate) =
                training.update(values, &self.grads, self.sizes, step);
        }
        Ok(report)
    }

    fn loss_and_gradients(&mut self, batch: &Batch<'_>) -> Result<StepReport> {
        self.differentiate(batch)
    }

    fn read_gradient(&self, index: usize, values: &mut [f32]) -> Result<()> {
        values.copy_from_slice(&self.grads[self.range(index)?]);
        Ok(())
    }

    fn state_growth(&self) -> StateGrowth {
        StateGrowth::Constant
    }

    fn declared_state_bytes(&self, _length: u64) -> u64 {
        (self.sizes.state() * size_of::<f32>()) as u64
    }

    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
        if rows == 0 {
            return Err(PluginError::bad_option("a session needs at least 1 row"));
        }
        Ok(Box::new(Reading::new(
            Arc::clone(&self.values),
            self.sizes,
            rows,
        )))
    }

    fn notes(&self) -> Vec<String> {
        vec!["C++ on one thread, whatever --threads says".to_owned()]
    }
}
