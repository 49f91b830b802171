//! AdamW with decoupled decay on matrices (arXiv 1711.05101), global gradient clipping, linear
//! warm-up and cosine decay. It owns the moments and nothing else.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::TrainConfig;
use longhaul_plugin_api::error::PluginError;
use rayon::prelude::*;

use super::params::Params;

/// Values of a piece: the unit of work of a thread, and of the fixed order of sums.
const PIECE: usize = 1 << 14;

/// The learning rate of a step: up linearly over the warm-up, then down along half a cosine from the
/// peak to `final_fraction` of it.
pub fn learning_rate(config: &TrainConfig, step: u64) -> f64 {
    let (step, warmup) = (step as f64, config.warmup_steps as f64);
    if step < warmup {
        return config.learning_rate * (step + 1.0) / warmup;
    }
    let span = (config.total_steps as f64 - warmup).max(1.0);
    let progress = ((step - warmup) / span).clamp(0.0, 1.0);
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    config.learning_rate * (config.final_fraction + (1.0 - config.final_fraction) * cosine)
}

/// What AdamW keeps from step to step.
pub struct Moments {
    /// Updates done, for the bias correction.
    pub updates: u64,
    /// Mean of the gradients, one vector a parameter.
    pub first: Vec<Vec<f32>>,
    /// Mean of their squares.
    pub second: Vec<Vec<f32>>,
}

impl Moments {
    /// Those before the first step.
    pub fn zeros(params: &Params) -> Self {
        let zeros = || {
            let lengths = params.entries.iter().map(|entry| entry.values.len());
            lengths.map(|length| vec![0.0; length]).collect()
        };
        Self {
            updates: 0,
            first: zeros(),
            second: zeros(),
        }
    }

    /// As bytes: the number of updates, then the means and the mean squares of all parameters, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let values = self.first.iter().chain(&self.second).flatten();
        let values = values.flat_map(|value| value.to_le_bytes());
        self.updates
            .to_le_bytes()
            .into_iter()
            .chain(values)
            .collect()
    }

    /// Of a model's parameters, from bytes.
    ///
    /// # Errors
    /// Bytes of another number; means that no training has.
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self> {
        let expected = 8 + 8 * params.total();
        let Some((updates, values)) = bytes
            .split_first_chunk::<8>()
            .filter(|_| bytes.len() == expected)
        else {
            return Err(PluginError::bad_option(format!(
                "an exported training of this model has {expected} bytes, and this has {}",
                bytes.len()
            )));
        };
        let mut moments = Self {
            updates: u64::from_le_bytes(*updates),
            ..Self::zeros(params)
        };
        let mut values = values.as_chunks::<4>().0.iter();
        let all = moments
            .first
            .iter_mut()
            .chain(&mut moments.second)
            .flatten();
        for (value, &raw) in all.zip(&mut values) {
            *value = f32::from_le_bytes(raw);
        }
        let mut first = moments.first.iter().flatten();
        let mut second = moments.second.iter().flatten();
        if first.all(|value| value.is_finite())
            && second.all(|&value| value.is_finite() && value >= 0.0)
        {
            Ok(moments)
        } else {
            Err(PluginError::bad_option(
                "an exported training has means that are not finite, or mean squares below 0",
            ))
        }
    }
}

/// AdamW's moments and settings.
pub struct AdamW {
    config: TrainConfig,
    /// What it keeps.
    pub moments: Moments,
}

/// What one value's update needs besides its own moments.
#[derive(Clone, Copy)]
struct Update {
    gradient_factor: f32,
    beta1: f32,
    beta2: f32,
    step_size: f32,
    second_correction: f32,
    epsilon: f32,
    decay_factor: f32,
}

impl AdamW {
    /// Zero moments for a model's parameters.
    pub fn new(config: &TrainConfig, params: &Params) -> Self {
        Self {
            config: config.clone(),
            moments: Moments::zeros(params),
        }
    }

    /// Updates the parameters and returns the gradients' global norm before clipping and the
    /// learning rate used. Nothing is updated when the norm is not finite.
    pub fn step(
        &mut self,
        params: &mut Params,
        gradients: &[&mut Vec<f32>],
        step: u64,
    ) -> (f64, f64) {
        let rate = learning_rate(&self.config, step);
        let norm = global_norm(gradients);
        if !norm.is_finite() {
            return (norm, rate);
        }
        let kept = &mut self.moments;
        kept.updates += 1;
        let config = &self.config;
        let clip = config.clip_norm;
        let gradient_factor = if clip > 0.0 && norm > clip {
            clip / norm
        } else {
            1.0
        };
        let power = kept.updates as i32;
        let update = Update {
            gradient_factor: gradient_factor as f32,
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            step_size: (rate / (1.0 - config.beta1.powi(power))) as f32,
            second_correction: (1.0 / (1.0 - config.beta2.powi(power)).sqrt()) as f32,
            epsilon: config.epsilon as f32,
            decay_factor: 1.0,
        };
        let moments = kept.first.iter_mut().zip(&mut kept.second);
        for ((entry, gradient), (first, second)) in
            params.entries.iter_mut().zip(gradients).zip(moments)
        {
            let decay = if entry.decay {
                1.0 - rate * config.weight_decay
            } else {
                1.0
            };
            let update = Update {
                decay_factor: decay as f32,
                ..update
            };
            entry
                .values
                .par_chunks_mut(PIECE)
                .zip(gradient.par_chunks(PIECE))
                .zip(
                    first
                        .par_chunks_mut(PIECE)
                        .zip(second.par_chunks_mut(PIECE)),
                )
                .for_each(|((values, gradient), (first, second))| {
                    update_piece(values, gradient, first, second, update);
                });
        }
        (norm, rate)
    }
}

/// Euclidean norm over all gradients, summed piece by piece in a fixed order.
pub fn global_norm(gradients: &[&mut Vec<f32>]) -> f64 {
    let squares: f64 = gradients
        .iter()
        .map(|gradient| {
            let pieces: Vec<f64> = gradient
                .par_chunks(PIECE)
                .map(|piece| f64::from(squares(piece)))
                .collect();
            pieces.iter().sum::<f64>()
        })
        .sum();
    squares.sqrt()
}

crate::simd! {
    fn squares(values: &[f32]) -> f32 {
        crate::simd::dot(values, values)
    }
}

crate::simd! {
    fn update_piece(
        values: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        update: Update,
    ) {
        let count = values.len();
        let (gradient, first, second) =
            (&gradient[..count], &mut first[..count], &mut second[..count]);
        for index in 0..count {
            let g = gradient[index] * update.gradient_factor;
            let m = update.beta1 * first[index] + (1.0 - update.beta1) * g;
            let v = update.beta2 * second[index] + (1.0 - update.beta2) * g * g;
            first[index] = m;
            second[index] = v;
            let denominator = v.sqrt() * update.second_correction + update.epsilon;
            values[index] =
                values[index] * update.decay_factor - update.step_size * m / denominator;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::Graph;
    use crate::engine::params::Init;

    #[test]
    fn schedule_warms_up_and_follows_the_cosine() {
        let config = TrainConfig {
            learning_rate: 1.0,
            final_fraction: 0.1,
            warmup_steps: 10,
            total_steps: 110,
            ..TrainConfig::default()
        };
        assert!((learning_rate(&config, 0) - 0.1).abs() < 1e-12);
        assert!((learning_rate(&config, 9) - 1.0).abs() < 1e-12);
        assert!((learning_rate(&config, 60) - 0.55).abs() < 1e-12);
        assert!((learning_rate(&config, 110) - 0.1).abs() < 1e-12);
    }

    /// Against a plain float64 AdamW with decay on the matrix only and clipping.
    #[test]
    fn follows_the_paper_for_matrices_and_vectors() {
        let mut graph = Graph::new(1);
        graph.param("matrix", &[3, 2], Init::Constant(0.5));
        graph.param("vector", &[4], Init::Constant(-0.25));
        let mut params = graph.params;
        let config = TrainConfig {
            learning_rate: 0.01,
            final_fraction: 1.0,
            weight_decay: 0.2,
            clip_norm: 1.0,
            total_steps: 5,
            ..TrainConfig::default()
        };
        let mut adam = AdamW::new(&config, &params);
        let mut exact = [vec![0.5f64; 6], vec![-0.25f64; 4]];
        let (mut m, mut v) = ([vec![0.0; 6], vec![0.0; 4]], [vec![0.0; 6], vec![0.0; 4]]);
        for step in 0..5u64 {
            let mut grads: Vec<Vec<f32>> = [6usize, 4]
                .iter()
                .map(|&n| {
                    (0..n)
                        .map(|i| (i as f32 - 2.0) * 0.7 + step as f32 * 0.3)
                        .collect()
                })
                .collect();
            let norm = grads
                .iter()
                .flatten()
                .map(|&g| f64::from(g).powi(2))
                .sum::<f64>()
                .sqrt();
            let clip = if norm > 1.0 { 1.0 / norm } else { 1.0 };
            let t = step as i32 + 1;
            for p in 0..2 {
                for i in 0..exact[p].len() {
                    let g = f64::from(grads[p][i]) * clip;
                    m[p][i] = 0.9 * m[p][i] + 0.1 * g;
                    v[p][i] = 0.95 * v[p][i] + 0.05 * g * g;
                    let (mh, vh): (f64, f64) = (
                        m[p][i] / (1.0 - 0.9f64.powi(t)),
                        v[p][i] / (1.0 - 0.95f64.powi(t)),
                    );
                    let decay = if p == 0 { 1.0 - 0.01 * 0.2 } else { 1.0 };
                    exact[p][i] = exact[p][i] * decay - 0.01 * mh / (vh.sqrt() + 1e-8);
                }
            }
            let refs: Vec<&mut Vec<f32>> = grads.iter_mut().collect();
            let (got_norm, rate) = adam.step(&mut params, &refs, step);
            assert!((got_norm - norm).abs() < 1e-5 && (rate - 0.01).abs() < 1e-12);
        }
        for (entry, exact) in params.entries.iter().zip(&exact) {
            for (got, want) in entry.values.iter().zip(exact) {
                assert!(
                    (f64::from(*got) - want).abs() < 1e-6,
                    "{got} against {want}"
                );
            }
        }
    }
}
