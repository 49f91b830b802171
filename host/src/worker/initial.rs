//! The state that sequences start from, by policy (arXiv 2507.02782, section 4). A plugin says what its state is
//! made of and takes the values; what they are is decided here, by seed and place alone.

use longhaul_plugin_api::client::{LoadedModel, LoadedSession};
use longhaul_plugin_api::data::{Batch, Logits};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_tasks::{InitialState, Task};

use crate::worker::batches::{BatchPlan, TrainingBatch, mix};
use crate::worker::clock::Clock;
use crate::worker::evaluate::{CHUNK, Signs};
use crate::worker::job::Failure;

/// Seed of the training sequences whose states are passed on, beside that of the data: others than those that
/// a model is trained on first.
const OTHERS: u64 = 0x7061_7373_6564;

/// A part of a fixed size: its values are `[B, values]` in the row of all.
struct Part {
    values: usize,
    /// Whether noise is its own at all: what does not start at 0 is on a scale of its own.
    takes_noise: bool,
    /// Mean and deviation of its values after other sequences.
    fitted: (f64, f64),
}

/// States of so many rows.
pub struct Start {
    policy: InitialState,
    rows: usize,
    seed: u64,
    parts: Vec<Part>,
    /// The architecture's own, as a session reads them out.
    own: Vec<f32>,
    /// Those after other sequences.
    passed: Vec<f32>,
}

impl Start {
    /// Whether there is anything to start from: a model may keep no state of a fixed size, or not describe it.
    ///
    /// # Errors
    /// The plugin's.
    pub fn is_possible(session: &LoadedSession) -> Result<bool, Failure> {
        Ok(!fixed_parts(session)?.is_empty())
    }

    /// Of a session at position 0. States that are passed on are at first the model's own, see [`Start::pass`].
    ///
    /// # Errors
    /// The plugin's.
    pub fn new(
        session: &LoadedSession,
        policy: InitialState,
        rows: usize,
        seed: u64,
    ) -> Result<Self, Failure> {
        let own = session.read_state()?;
        Ok(Self {
            policy,
            rows,
            seed,
            parts: fixed_parts(session)?,
            passed: own.clone(),
            own,
        })
    }

    /// Takes states that other sequences ended with.
    pub fn pass(&mut self, states: Vec<f32>) {
        let mut rest = states.as_slice();
        for part in &mut self.parts {
            let (values, after) = rest.split_at(self.rows * part.values);
            part.fitted = mean_and_deviation(values);
            rest = after;
        }
        self.passed = states;
    }

    /// The states that were passed on last.
    pub fn passed(&self) -> &[f32] {
        &self.passed
    }

    /// The states that the rows of a group start from; another group has other noise.
    pub fn states(&self, group: u64) -> Vec<f32> {
        match self.policy {
            InitialState::Zero => self.own.clone(),
            InitialState::Passed => self.passed.clone(),
            InitialState::Noise(deviation) => self.noise(group, |_| (0.0, deviation)),
            InitialState::Fitted => self.noise(group, |part| part.fitted),
        }
    }

    fn noise(&self, group: u64, law: impl Fn(&Part) -> (f64, f64)) -> Vec<f32> {
        let mut states = self.own.clone();
        let mut rest = states.as_mut_slice();
        let key = mix(mix(self.seed).wrapping_add(group));
        let mut index = 0;
        for part in &self.parts {
            let (values, after) = rest.split_at_mut(self.rows * part.values);
            let (mean, deviation) = law(part);
            for value in values.iter_mut().filter(|_| part.takes_noise) {
                *value = (mean + deviation * normal(key, index)) as f32;
                index += 1;
            }
            rest = after;
        }
        states
    }

    /// Reads other training sequences of a length, a row each, and takes the states that they end with, in an
    /// evaluation of which `share` is done.
    ///
    /// # Errors
    /// The plugin's; the task refuses the length.
    pub fn read_others(
        &mut self,
        model: &LoadedModel,
        task: &dyn Task,
        length: usize,
        share: f64,
        clock: &mut Clock,
    ) -> Result<(), Failure> {
        let plan = BatchPlan {
            length_min: length,
            length_max: length,
            growing_steps: 0,
            rows: self.rows,
            seed: self.seed ^ OTHERS,
        };
        let mut batch = TrainingBatch::default();
        plan.fill(task, 0, &mut batch)?;
        let mut session = clock.inside(|| model.new_session(self.rows))?;
        let mut signs = Signs::new();
        for start in (0..batch.length).step_by(CHUNK) {
            let count = CHUNK.min(batch.length - start);
            let rows = batch.tokens.chunks(batch.length);
            let tokens: Vec<u32> = rows
                .flat_map(|row| &row[start..start + count])
                .copied()
                .collect();
            let chunk = Batch::new(&tokens, &[], self.rows, count);
            clock.inside(|| session.feed(chunk, Logits::None, task.vocab()))?;
            signs.of_life(share);
        }
        self.pass(session.read_state()?);
        Ok(())
    }
}

/// The parts of a session's state that are of a fixed size.
fn fixed_parts(session: &LoadedSession) -> Result<Vec<Part>, Failure> {
    let summary = match session.state_summary() {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(Vec::new()),
        summary => summary?,
    };
    let fixed = summary.iter().filter(|part| !part.grows && part.values > 0);
    let part = fixed.map(|part| Part {
        values: part.values as usize,
        takes_noise: part.initial == 0.0,
        fitted: (0.0, 0.0),
    });
    Ok(part.collect())
}

fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let squares = values
        .iter()
        .map(|&value| (f64::from(value) - mean).powi(2));
    (mean, (squares.sum::<f64>() / count).sqrt())
}

/// Number `index` of a stream of normal draws (Box and Muller 1958).
fn normal(key: u64, index: u64) -> f64 {
    let unit = |number: u64| {
        // 53 bits, and never 0.
        ((mix(key.wrapping_add(mix(number))) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let radius = (-2.0 * unit(2 * index).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(2 * index + 1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(policy: InitialState) -> Start {
        let part = |values, takes_noise| Part {
            values,
            takes_noise,
            fitted: (0.0, 0.0),
        };
        let mut own = vec![0.0; 2 * 3000];
        own.extend([-1e30; 2 * 5]);
        Start {
            policy,
            rows: 2,
            seed: 7,
            parts: vec![part(3000, true), part(5, false)],
            passed: own.clone(),
            own,
        }
    }

    #[test]
    fn noise_has_the_law_that_was_asked_for() {
        let noise = start(InitialState::Noise(0.5));
        let states = noise.states(0);
        let (mean, deviation) = mean_and_deviation(&states[..6000]);
        // Five standard deviations of either.
        assert!(mean.abs() < 5.0 * 0.5 / 6000_f64.sqrt(), "{mean}");
        assert!(
            (deviation - 0.5).abs() < 5.0 * 0.5 / 12000_f64.sqrt(),
            "{deviation}"
        );
        let beyond = states[..6000]
            .iter()
            .filter(|value| value.abs() > 2.0 * 0.5)
            .count();
        assert!(
            (200..350).contains(&beyond),
            "{beyond} of 6000 beyond two deviations, not 273"
        );
        assert_eq!(states[6000..], [-1e30; 10], "a logarithm is left as it is");
        assert_eq!(states, noise.states(0));
        assert_ne!(states, noise.states(1), "another group has other noise");
    }

    #[test]
    fn fitted_noise_has_the_mean_and_deviation_of_what_was_passed() {
        let mut fitted = start(InitialState::Fitted);
        assert_eq!(fitted.states(0), fitted.own, "nothing to fit to yet");
        let mut states: Vec<f32> = (0..6000).map(|index| 3.0 + (index % 2) as f32).collect();
        states.extend([1.0; 10]);
        fitted.pass(states.clone());
        let (mean, deviation) = mean_and_deviation(&fitted.states(4)[..6000]);
        assert!(
            (mean - 3.5).abs() < 0.04 && (deviation - 0.5).abs() < 0.03,
            "{mean} {deviation}"
        );
        let mut passed = start(InitialState::Passed);
        passed.pass(states.clone());
        assert_eq!(passed.states(0), states);
        assert_eq!(
            start(InitialState::Zero).states(3),
            start(InitialState::Zero).own
        );
    }
}
