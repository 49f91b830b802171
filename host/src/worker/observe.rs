//! What is seen of a model beside its answers: how large its state grows, and how far back its predictions
//! reach. The columns stand in `results/README.md`.

use std::collections::BTreeMap;

use longhaul_plugin_api::client::{LoadedModel, LoadedSession};
use longhaul_plugin_api::data::{Batch, Logits};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_tasks::Sample;

use crate::worker::clock::Clock;
use crate::worker::evaluate::{CHUNK, Signs};
use crate::worker::job::Failure;
use crate::worker::protocol::{Observation, Observed};

/// What was skipped of a sequence where effective remembrance is measured, in 64ths of its length.
const SKIPPED: [usize; 7] = [1, 4, 16, 32, 48, 60, 63];

/// Sums by what was seen, and at which position.
#[derive(Default)]
struct Sums(BTreeMap<(Observed, u64), (u64, f64, f64)>);

impl Sums {
    fn add(&mut self, what: Observed, position: u64, values: impl Iterator<Item = f64>) {
        let sums = self.0.entry((what, position)).or_default();
        for value in values {
            *sums = (sums.0 + 1, sums.1 + value, sums.2 + value * value);
        }
    }

    fn observations(self) -> Vec<Observation> {
        let one = |((what, position), (samples, sum, sum_squares))| Observation {
            what,
            position,
            samples,
            sum,
            sum_squares,
        };
        self.0.into_iter().map(one).collect()
    }
}

/// Root mean square of the values of each part of the state, by layer and position, over examples.
#[derive(Default)]
pub struct StateNorms(Sums);

impl StateNorms {
    /// Takes the state of the first `examples` rows of a session, at positions that are powers of two and where
    /// it is the last.
    ///
    /// # Errors
    /// The plugin's.
    pub fn take(
        &mut self,
        session: &LoadedSession,
        examples: usize,
        is_last: bool,
    ) -> Result<(), Failure> {
        let position = session.position();
        if !is_last && !position.is_power_of_two() {
            return Ok(());
        }
        let summary = match session.state_summary() {
            // There is nothing to record, which is no failure.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            summary => summary?,
        };
        for part in summary.iter().filter(|part| part.values > 0) {
            let what = Observed::StateNorm {
                layer: part.layer,
                state: part.name.to_string(),
                bytes: part.values * size_of::<f32>() as u64,
            };
            let of_one = |norm: &f64| norm / (part.values as f64).sqrt();
            self.0
                .add(what, position, part.norms.iter().take(examples).map(of_one));
        }
        Ok(())
    }

    /// What was seen.
    pub fn observations(self) -> Vec<Observation> {
        self.0.observations()
    }
}

/// Effective remembrance (arXiv 2507.02782, section 3.2): EffRem_T(t) is the total variation distance between
/// the predictions after all T tokens and after those from t on only. Near 0: what stands before t does not
/// matter; near 1: nothing is as it would be without it.
///
/// # Errors
/// The plugin's.
pub fn remembrance(
    model: &LoadedModel,
    samples: &[Box<dyn Sample>],
    vocab: usize,
    clock: &mut Clock,
) -> Result<Vec<Observation>, Failure> {
    let Some(length) = samples.iter().map(|sample| sample.len()).min() else {
        return Ok(Vec::new());
    };
    let mut signs = Signs::new();
    let mut last = |from: usize| {
        last_logits(
            model,
            samples,
            from..length,
            vocab,
            (&mut *clock, &mut signs),
        )
    };
    let whole = last(0)?;
    let mut skipped: Vec<usize> = SKIPPED.iter().map(|part| part * length / 64).collect();
    skipped.retain(|&skipped| skipped > 0);
    skipped.dedup();
    let mut sums = Sums::default();
    for skipped in skipped {
        let part = last(skipped)?;
        let pairs = whole.chunks(vocab).zip(part.chunks(vocab));
        let what = Observed::Remembrance {
            skipped: skipped as u64,
        };
        let distances = pairs.map(|(whole, part)| total_variation(whole, part));
        sums.add(what, length as u64, distances);
    }
    Ok(sums.observations())
}

/// Logits after the last of some positions of every sample, `[B, V]`.
fn last_logits(
    model: &LoadedModel,
    samples: &[Box<dyn Sample>],
    positions: std::ops::Range<usize>,
    vocab: usize,
    (clock, signs): (&mut Clock, &mut Signs),
) -> Result<Vec<f32>, Failure> {
    let rows = samples.len();
    let mut session = clock.inside(|| model.new_session(rows))?;
    let (mut tokens, mut targets) = (Vec::new(), Vec::new());
    let mut start = positions.start;
    loop {
        let count = CHUNK.min(positions.end - start);
        tokens.resize(rows * count, 0);
        targets.resize(count, 0);
        for (sample, tokens) in samples.iter().zip(tokens.chunks_mut(count)) {
            sample.write(start, tokens, &mut targets);
        }
        start += count;
        let is_last = start == positions.end;
        let logits = if is_last { Logits::Last } else { Logits::None };
        let batch = Batch::new(&tokens, &[], rows, count);
        let output = clock.inside(|| session.feed(batch, logits, vocab));
        let output =
            output.map_err(|error| Failure::from(error).at("reading without a beginning"))?;
        // The examples are read by now: what follows is not counted.
        signs.of_life(1.0);
        if is_last {
            return Ok(output.logits.into());
        }
    }
}

/// Total variation distance of two distributions by their logits: half the sum of absolute differences.
fn total_variation(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (softmax(a), softmax(b));
    let distance = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
    distance.min(1.0)
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits
        .iter()
        .map(|&logit| f64::from(logit - top).exp())
        .collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_known_distributions() {
        let logits =
            |shares: &[f64]| -> Vec<f32> { shares.iter().map(|share| share.ln() as f32).collect() };
        let (a, b) = (logits(&[0.5, 0.25, 0.25]), logits(&[0.25, 0.5, 0.25]));
        assert!((total_variation(&a, &b) - 0.25).abs() < 1e-7);
        assert_eq!(total_variation(&a, &a), 0.0);
        let (left, right) = ([200.0, 0.0], [0.0, 200.0]);
        assert!((total_variation(&left, &right) - 1.0).abs() < 1e-12);
        let shifted: Vec<f32> = a.iter().map(|logit| logit + 300.0).collect();
        assert!(
            total_variation(&a, &shifted) < 1e-5,
            "a constant changes nothing"
        );
    }
}
