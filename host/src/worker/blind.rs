//! Whether a plugin's answers come from the sequence and not from the targets that it is given beside it.

use longhaul_plugin_api::client::LoadedModel;
use longhaul_plugin_api::data::FeedOutput;

use crate::worker::clock::Clock;
use crate::worker::evaluate::{Chunk, Signs, Source, feed};
use crate::worker::job::Failure;

/// Answers on the first example, to be held against those on the same example with other targets.
///
/// A plugin needs the targets for their likelihood, so it could take its predictions from them. It is fed the
/// same tokens once more with false targets: its predictions must stay, and the false targets must have the
/// likelihood that the true ones leave.
#[derive(Default)]
pub struct FirstRow {
    predictions: Vec<u32>,
    nll: Vec<f32>,
}

impl FirstRow {
    /// Most positions that are compared: from there on an example is not read again.
    const MOST: usize = 4096;

    /// Takes the first row's answers of a chunk.
    pub fn take(&mut self, chunk: &Chunk, answers: &FeedOutput) {
        let row = &chunk.targets[..chunk.length];
        let scored = row.iter().filter(|&&target| target >= 0).count();
        let room = scored.min(Self::MOST - self.predictions.len());
        self.predictions
            .extend(answers.predictions.iter().take(room));
        self.nll.extend(answers.nll.iter().take(room));
    }

    /// Reads the example again with false targets; `reader` gives its chunks from the start.
    ///
    /// # Errors
    /// The plugin's; answers that were made from the targets.
    pub fn check<'a>(
        &self,
        model: &LoadedModel,
        reader: impl Fn() -> Source<'a>,
        vocab: usize,
        clock: &mut Clock,
    ) -> Result<(), Failure> {
        let count = self.predictions.len();
        if count == 0 || vocab < 2 {
            return Ok(());
        }
        let blind = self.read(model, reader(), true, vocab, clock)?;
        if self.differing(&blind) > count / 2 {
            // With fewer sequences a model may round otherwise, so like is held against like.
            let seen = self.read(model, reader(), false, vocab, clock)?;
            let changed = seen.differing(&blind);
            if changed > count / 2 {
                return Err(Failure::error(format!(
                    "{changed} of {count} predictions changed when nothing but the targets did: they come from the targets and not from the sequence; this is a bug in the plugin"
                )));
            }
        }
        let likely = |nll: &f32| f64::from(-nll).exp();
        let sums = blind
            .nll
            .iter()
            .zip(&self.nll)
            .map(|(a, b)| likely(a) + likely(b));
        let doubled = sums.filter(|sum| *sum > 1.1).count();
        if doubled > count / 2 {
            return Err(Failure::error(format!(
                "at {doubled} of {count} positions two tokens have more than the whole likelihood; this is a bug in the plugin"
            )));
        }
        Ok(())
    }

    /// Answers on the example alone, with its own targets or with false ones.
    fn read(
        &self,
        model: &LoadedModel,
        mut example: Source<'_>,
        falsely: bool,
        vocab: usize,
        clock: &mut Clock,
    ) -> Result<Self, Failure> {
        let mut session = clock.inside(|| model.new_session(1))?;
        let (mut read, mut chunk, mut signs) = (Self::default(), Chunk::default(), Signs::new());
        while read.predictions.len() < self.predictions.len() && example.fill(&mut chunk) {
            let known = &self.predictions[read.predictions.len()..];
            let scored = chunk.targets.iter_mut().filter(|target| **target >= 0);
            for (target, &prediction) in scored.zip(known).filter(|_| falsely) {
                *target = false_target(*target, prediction, vocab);
            }
            let answers = feed(&mut session, &chunk, 1, vocab, clock)?;
            read.take(&chunk, &answers);
            signs.of_life(1.0);
        }
        Ok(read)
    }

    fn differing(&self, other: &Self) -> usize {
        let both = self.predictions.iter().zip(&other.predictions);
        both.filter(|(a, b)| a != b).count()
    }
}

/// A token that is neither the target nor, where there is a third, what was predicted.
fn false_target(target: i32, prediction: u32, vocab: usize) -> i32 {
    let mut others = (1..vocab).map(|step| ((target as usize + step) % vocab) as i32);
    let first = others.next().unwrap_or(target);
    let third = others.next().unwrap_or(first);
    if i64::from(first) == i64::from(prediction) {
        third
    } else {
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_false_target_is_neither_the_target_nor_the_prediction() {
        for vocab in 2..5 {
            for target in 0..vocab {
                for prediction in 0..vocab {
                    let found = false_target(target as i32, prediction as u32, vocab) as usize;
                    assert!(found < vocab && found != target);
                    assert!(vocab == 2 || found != prediction);
                }
            }
        }
    }
}
