//! Training batches, and a thread that makes them ahead. A batch is a pure function of the task, the
//! seed and the step; nothing here knows a model.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use longhaul_tasks::{Coordinates, Split, Task, TaskError};

/// Padding of a row shorter than its batch.
const PADDING: u32 = 0;
/// Target of a position that is not scored.
const NOT_SCORED: i32 = -1;

/// Sequences of one step.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TrainingBatch {
    /// `[rows, length]`, short rows padded on the right.
    pub tokens: Vec<u32>,
    /// `[rows, length]`; -1 is not scored, padding included.
    pub targets: Vec<i32>,
    /// Sequences.
    pub rows: usize,
    /// Tokens a row.
    pub length: usize,
    /// Tokens without padding.
    pub real_tokens: u64,
}

/// Which batches.
#[derive(Debug, Clone, Copy)]
pub struct BatchPlan {
    /// Shortest length, in tokens.
    pub length_min: usize,
    /// Longest length, in tokens.
    pub length_max: usize,
    /// Steps over which the longest length drawn grows from the shortest to the longest; 0 draws from all at once.
    pub growing_steps: u64,
    /// Sequences a step.
    pub rows: usize,
    /// Data seed.
    pub seed: u64,
}

impl BatchPlan {
    /// Length of training example `index`: uniform from the shortest to the longest one of its step, and a
    /// function of seed and index alone.
    pub fn length_of(&self, index: u64) -> usize {
        let choices = self.choices(index / self.rows as u64);
        let draw = mix(mix(self.seed ^ 0x6c6f_6e67_6861_756c).wrapping_add(index));
        self.length_min + ((u128::from(draw) * u128::from(choices)) >> 64) as usize
    }

    /// Lengths that a step draws from. While they grow, each number of them from one on lasts for as many steps,
    /// but for rounding.
    fn choices(&self, step: u64) -> u64 {
        let all = (self.length_max - self.length_min + 1) as u64;
        if step >= self.growing_steps {
            return all;
        }
        let grown = u128::from(step) * u128::from(all) / u128::from(self.growing_steps);
        1 + grown as u64
    }

    /// Fills `batch` with the examples of a step.
    ///
    /// # Errors
    /// The task refuses a length.
    pub fn fill(
        &self,
        task: &dyn Task,
        step: u64,
        batch: &mut TrainingBatch,
    ) -> Result<(), TaskError> {
        let first = step * self.rows as u64;
        let samples = (first..first + self.rows as u64)
            .map(|index| {
                task.sample(&Coordinates {
                    split: Split::Train,
                    length: self.length_of(index),
                    seed: self.seed,
                    index,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let length = samples.iter().map(|sample| sample.len()).max().unwrap_or(0);
        batch.rows = self.rows;
        batch.length = length;
        batch.real_tokens = samples.iter().map(|sample| sample.len() as u64).sum();
        batch.tokens.resize(self.rows * length, PADDING);
        batch.targets.resize(self.rows * length, NOT_SCORED);
        let rows = batch
            .tokens
            .chunks_mut(length)
            .zip(batch.targets.chunks_mut(length));
        for (sample, (tokens, targets)) in samples.iter().zip(rows) {
            let own = sample.len();
            sample.write(0, &mut tokens[..own], &mut targets[..own]);
            tokens[own..].fill(PADDING);
            targets[own..].fill(NOT_SCORED);
        }
        Ok(())
    }
}

/// The finaliser of SplitMix64: a bijection of 64 bits in which every input bit reaches every output
/// bit (Steele, Lea, Flood 2014).
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Things made ahead by another thread, in order, with buffers that go back and forth.
pub struct Ahead<T> {
    made: Receiver<T>,
    used: SyncSender<T>,
}

impl<T: Default + Send> Ahead<T> {
    /// Starts a thread in `scope` that makes things until `make` says `false` or the receiver is gone.
    /// Two are kept ready beside the one in use.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start<'scope, 'env>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        mut make: impl FnMut(&mut T) -> bool + Send + 'scope,
    ) -> std::io::Result<Self>
    where
        T: 'scope,
    {
        let (made_sender, made) = sync_channel(2);
        let (used, used_receiver) = sync_channel::<T>(4);
        std::thread::Builder::new().spawn_scoped(scope, move || {
            loop {
                let mut thing = used_receiver.try_recv().unwrap_or_default();
                if !make(&mut thing) || made_sender.send(thing).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { made, used })
    }

    /// The next thing; `None` when there are no more.
    pub fn next(&self) -> Option<T> {
        self.made.recv().ok()
    }

    /// Gives a used thing back, so that its buffers are filled again.
    pub fn give_back(&self, thing: T) {
        let _ = self.used.try_send(thing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: BatchPlan = BatchPlan {
        length_min: 3,
        length_max: 40,
        growing_steps: 0,
        rows: 16,
        seed: 1,
    };

    #[test]
    fn rows_are_padded_on_the_right() {
        let task = longhaul_tasks::parse_task("parity").unwrap();
        let mut batch = TrainingBatch::default();
        // A used buffer must not shine through.
        PLAN.fill(task.as_ref(), 7, &mut batch).unwrap();
        batch.tokens.fill(9);
        batch.targets.fill(9);
        PLAN.fill(task.as_ref(), 3, &mut batch).unwrap();
        assert_eq!(batch.tokens.len(), batch.rows * batch.length);
        let mut shortened = 0;
        for row in 0..batch.rows {
            let index = 3 * 16 + row as u64;
            let at = Coordinates {
                split: Split::Train,
                length: PLAN.length_of(index),
                seed: 1,
                index,
            };
            let sample = task.sample(&at).unwrap();
            let (mut tokens, mut targets) = (vec![0; sample.len()], vec![0; sample.len()]);
            sample.write(0, &mut tokens, &mut targets);
            tokens.resize(batch.length, 0);
            targets.resize(batch.length, -1);
            let range = row * batch.length..(row + 1) * batch.length;
            assert_eq!(batch.tokens[range.clone()], tokens);
            assert_eq!(batch.targets[range], targets);
            shortened += usize::from(sample.len() < batch.length);
        }
        assert!(shortened > 0, "some row is padded");
    }

    #[test]
    fn lengths_are_uniform_and_fixed_by_seed_and_index() {
        let mut counts = [0_u32; 41];
        for index in 0..38_000 {
            counts[PLAN.length_of(index)] += 1;
        }
        assert_eq!(counts[..3], [0, 0, 0]);
        // 1000 expected in each of 38; a deviation of 5 sigma is 158.
        assert!(
            counts[3..]
                .iter()
                .all(|&count| (842..=1158).contains(&count)),
            "{counts:?}"
        );
        let other = BatchPlan { seed: 2, ..PLAN };
        let same = (0..1000)
            .filter(|&i| PLAN.length_of(i) == other.length_of(i))
            .count();
        assert!(
            same < 100,
            "{same} lengths of 1000 are the same for another seed"
        );
    }

    /// The law over a whole training of a curriculum: lengths of a step are uniform up to its longest, which grows
    /// by one token after equal numbers of steps and stays.
    #[test]
    fn a_curriculum_draws_uniformly_up_to_a_length_that_grows() {
        let growing = BatchPlan {
            growing_steps: 380,
            rows: 1000,
            ..PLAN
        };
        for step in [0, 9, 10, 100, 199, 379, 380, 1000] {
            let longest = (3 + step / 10).min(40);
            let mut counts = [0_u32; 41];
            for row in 0..1000 {
                counts[growing.length_of(step as u64 * 1000 + row)] += 1;
            }
            let drawn = &counts[3..=longest];
            assert_eq!(drawn.iter().sum::<u32>(), 1000, "step {step}: {counts:?}");
            // Chi-square over its degrees of freedom has mean 1 and deviation sqrt(2 / degrees).
            let degrees = (drawn.len() - 1) as f64;
            let expected = 1000.0 / drawn.len() as f64;
            let square = |&count: &u32| (f64::from(count) - expected).powi(2) / expected;
            let chi: f64 = drawn.iter().map(square).sum();
            assert!(
                chi <= degrees + 5.0 * (2.0 * degrees).sqrt(),
                "step {step}: {counts:?}"
            );
        }
        // From the end of growth on the lengths are those of the uniform distribution.
        let uniform = BatchPlan {
            growing_steps: 0,
            ..growing
        };
        for index in 380_000..381_000 {
            assert_eq!(growing.length_of(index), uniform.length_of(index));
        }
    }

    #[test]
    fn made_ahead_in_order() {
        std::thread::scope(|scope| {
            let mut count = 0_u64;
            let ahead = Ahead::<u64>::start(scope, move |thing| {
                *thing = count;
                count += 1;
                count <= 10
            })
            .unwrap();
            for expected in 0..10 {
                let thing = ahead.next().unwrap();
                assert_eq!(thing, expected);
                ahead.give_back(thing);
            }
            assert_eq!(ahead.next(), None);
        });
    }

    #[test]
    fn an_impatient_receiver_ends_the_thread() {
        std::thread::scope(|scope| {
            let ahead = Ahead::<u64>::start(scope, |_| true).unwrap();
            assert!(ahead.next().is_some());
            drop(ahead);
        });
    }
}
