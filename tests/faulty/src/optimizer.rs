//! AdamW with decay on matrices only, global clipping, linear warm-up and cosine decay.

use longhaul_plugin_api::data::TrainConfig;

use crate::weights::{Sizes, Weights};

/// The optimiser's settings and moments.
pub struct Optimizer {
    config: TrainConfig,
    first: Weights,
    second: Weights,
}

impl Optimizer {
    /// Empty moments.
    pub fn new(config: &TrainConfig, sizes: Sizes) -> Self {
        Self {
            config: config.clone(),
            first: Weights::zeros(sizes),
            second: Weights::zeros(sizes),
        }
    }

    /// The moments as bytes.
    pub fn export(&self) -> Vec<u8> {
        let tensors = self.first.tensors.iter().chain(&self.second.tensors);
        tensors
            .flatten()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    /// Takes exported moments; whether they are of this model.
    pub fn import(&mut self, state: &[u8]) -> bool {
        let (values, rest) = state.as_chunks::<4>();
        let tensors = self
            .first
            .tensors
            .iter_mut()
            .chain(&mut self.second.tensors);
        let places: Vec<&mut f32> = tensors.flatten().collect();
        if values.len() != places.len() || !rest.is_empty() {
            return false;
        }
        for (place, &value) in places.into_iter().zip(values) {
            *place = f32::from_le_bytes(value);
        }
        true
    }

    /// The learning rate of a step.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let config = &self.config;
        if step < config.warmup_steps {
            return config.learning_rate * (step + 1) as f64 / config.warmup_steps as f64;
        }
        let span = config
            .total_steps
            .saturating_sub(config.warmup_steps)
            .max(1);
        let done = ((step - config.warmup_steps) as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * cosine)
    }

    /// Updates the weights; returns the gradients' norm before clipping and the learning rate.
    pub fn update(&mut self, weights: &mut Weights, grads: &Weights, step: u64) -> (f64, f64) {
        let config = &self.config;
        let squares = grads.tensors.iter().flatten();
        let norm = squares.map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let clip = if config.clip_norm > 0.0 && norm > config.clip_norm {
            (config.clip_norm / norm) as f32
        } else {
            1.0
        };
        let rate = self.learning_rate(step);
        let (beta1, beta2) = (config.beta1 as f32, config.beta2 as f32);
        let count = step as i32 + 1;
        let correct1 = 1.0 - config.beta1.powi(count);
        let correct2 = 1.0 - config.beta2.powi(count);
        for (index, info) in Weights::infos(weights.sizes).iter().enumerate() {
            let decay = if info.shape.len() >= 2 {
                (rate * config.weight_decay) as f32
            } else {
                0.0
            };
            for (at, value) in weights.tensors[index].iter_mut().enumerate() {
                let grad = clip * grads.tensors[index][at];
                let first = &mut self.first.tensors[index][at];
                let second = &mut self.second.tensors[index][at];
                *first = beta1 * *first + (1.0 - beta1) * grad;
                *second = beta2 * *second + (1.0 - beta2) * grad * grad;
                let top = f64::from(*first) / correct1;
                let root = (f64::from(*second) / correct2).sqrt() + config.epsilon;
                *value -= decay * *value + (rate * top / root) as f32;
            }
        }
        (norm, rate)
    }
}
