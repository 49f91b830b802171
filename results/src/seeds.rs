//! Scores by seed, and how far those of one condition are above those of another on the same seeds.

use std::collections::BTreeMap;

use crate::record::{Measurement, Split, Status};
use crate::statistics::{Z95, mean, standard_deviation, student, unpaired, wilson};
use crate::summary::SummaryRow;

/// A sum of scores, and their samples.
type Sum = (f64, u64);

/// The scores of each seed: of right or wrong answers and of shares, in 0 to 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeedScores(BTreeMap<u64, Sum>);

/// One condition less another, over the seeds that were measured under both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// These seeds.
    pub seeds: u64,
    /// Mean over them.
    pub value: f64,
    /// Lower end of its 95 % interval: Student's over seeds, never narrower than Newcombe's of all answers.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl SeedScores {
    /// Of rows, one or several a seed.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Measurement>) -> Self {
        let mut scores = Self::default();
        for row in rows {
            if let Some(own) = row.scores() {
                scores.add(row.seed, own.mean * own.samples as f64, own.samples);
            }
        }
        scores
    }

    /// Of the test examples that a point of a curve is of, under the labels that are wanted.
    pub fn at(point: &SummaryRow, rows: &[Measurement], wanted: impl Fn(&str) -> bool) -> Self {
        Self::of(rows.iter().filter(|row| {
            row.eval_length == point.eval_length
                && row.split == Split::Test
                && row.status == Status::Ok
                && wanted(&row.label)
                && row.trained() == point.trained()
        }))
    }

    fn add(&mut self, seed: u64, sum: f64, samples: u64) {
        let own = self.0.entry(seed).or_default();
        own.0 += sum;
        own.1 += samples;
    }

    /// How many seeds there are.
    pub fn seeds(&self) -> u64 {
        self.0.len() as u64
    }

    /// The mean over seeds of each seed's mean.
    pub fn mean(&self) -> Option<f64> {
        mean(&self.means())
    }

    /// The mean of all answers together, and its 95 % interval (Wilson): what these models answer, not what other seeds would.
    pub fn pooled(&self) -> Option<(f64, f64, f64)> {
        pooled(self.0.values().copied())
    }

    /// The mean over seeds and its 95 % interval: Student's over seeds, never narrower than that of all answers together
    /// (Wilson), which one seed has alone.
    pub fn level(&self) -> Option<(f64, f64, f64)> {
        let value = self.mean()?;
        let (_, low, high) = self.pooled()?;
        let (low, high) = widened((low, high), value, &self.means());
        Some((value, low.max(0.0), high.min(1.0)))
    }

    /// The mean over lengths, by the trapezoidal rule from the first to the last, of the seeds that have them all; of
    /// none where there are fewer than two lengths, or they do not ascend. It counts for as many answers as a mean of them would vary as much with.
    pub fn over_lengths(lengths: &[(u64, Self)]) -> Self {
        let places: Vec<f64> = lengths.iter().map(|(length, _)| *length as f64).collect();
        if places.len() < 2 || !places.is_sorted_by(|one, next| one < next) {
            return Self::default();
        }
        let last = places.len() - 1;
        let weight = |at: usize| {
            let (before, after) = (at.saturating_sub(1), (at + 1).min(last));
            (places[after] - places[before]) / (2.0 * (places[last] - places[0]))
        };
        let mut all = Self::default();
        for &seed in lengths[0].1.0.keys() {
            let own = lengths
                .iter()
                .map(|(_, scores)| scores.0.get(&seed).copied());
            let own: Option<Vec<Sum>> = own.map(|sum| sum.filter(|of| of.1 > 0)).collect();
            let Some(own) = own else { continue };
            let (mut mean, mut spread) = (0.0, 0.0);
            for (at, (sum, samples)) in own.into_iter().enumerate() {
                mean += weight(at) * sum / samples as f64;
                spread += weight(at).powi(2) / samples as f64;
            }
            let samples = (1.0 / spread) as u64;
            all.add(seed, mean * samples as f64, samples);
        }
        all
    }

    fn means(&self) -> Vec<f64> {
        let measured = self.0.values().filter(|of| of.1 > 0);
        measured.map(|of| of.0 / of.1 as f64).collect()
    }

    /// This less another, seed by seed; `None` where they share no seed.
    pub fn less(&self, other: &Self) -> Option<Difference> {
        let pairs = self.0.iter();
        let pairs = pairs.filter_map(|(seed, one)| Some((*one, *other.0.get(seed)?)));
        let pairs: Vec<_> = pairs
            .filter(|(one, other)| one.1 > 0 && other.1 > 0)
            .collect();
        let of_seeds: Vec<f64> = pairs
            .iter()
            .map(|(one, other)| one.0 / one.1 as f64 - other.0 / other.1 as f64)
            .collect();
        let value = mean(&of_seeds)?;
        let one = pooled(pairs.iter().map(|pair| pair.0))?;
        let of_answers = unpaired(one, pooled(pairs.iter().map(|pair| pair.1))?);
        let (low, high) = widened(of_answers, value, &of_seeds);
        Some(Difference {
            seeds: of_seeds.len() as u64,
            value,
            low: low.max(-1.0),
            high: high.min(1.0),
        })
    }
}

/// The interval of answers, made as wide as Student's over seeds where there are several.
fn widened(of_answers: (f64, f64), value: f64, of_seeds: &[f64]) -> (f64, f64) {
    let of_seeds = standard_deviation(of_seeds)
        .and_then(|deviation| student(value, deviation, of_seeds.len() as u64));
    let (low, high) = of_seeds.unwrap_or(of_answers);
    (low.min(of_answers.0), high.max(of_answers.1))
}

/// The mean of all these samples and its 95 % interval.
fn pooled(sums: impl Iterator<Item = Sum>) -> Option<(f64, f64, f64)> {
    let (sum, samples) = sums.fold((0.0, 0), |all, own| (all.0 + own.0, all.1 + own.1));
    let (low, high) = wilson(sum, samples, Z95)?;
    Some((sum / samples as f64, low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores of seeds with a hundred answers each.
    fn seeds(values: &[f64]) -> SeedScores {
        let mut scores = SeedScores::default();
        for (seed, value) in (0..).zip(values) {
            scores.add(seed, value * 100.0, 100);
        }
        scores
    }

    #[test]
    fn seeds_that_agree_are_known_as_well_as_their_answers() {
        let (value, low, high) = seeds(&[1.0; 3]).level().expect("a level");
        // Wilson's of 300 right answers of 300.
        assert!(value == 1.0 && (low - 0.9873).abs() < 1e-4 && high == 1.0);
        let one = seeds(&[0.5]);
        assert_eq!(one.level(), one.pooled());
        // Student's of three: 0.8 +- 4.303 * 0.2 / sqrt(3).
        let (value, low, high) = seeds(&[0.6, 0.8, 1.0]).level().expect("a level");
        assert!((value - 0.8).abs() < 1e-12 && (low - 0.3032).abs() < 1e-4 && high == 1.0);
        assert_eq!(SeedScores::default().level(), None);
    }

    #[test]
    fn lengths_count_for_what_lies_between_them() {
        let at = [(40, &[1.0, 1.0][..]), (64, &[1.0, 0.5]), (256, &[0.5])];
        let at = at.map(|(length, values)| (length, seeds(values)));
        let over = SeedScores::over_lengths(&at);
        // 24 tokens at 1 and 192 from 1 down to 0.5; the other seed has no value at 256.
        let (value, low, high) = over.level().expect("a level");
        assert_eq!(over.seeds(), 1);
        assert!((value - (24.0 + 192.0 * 0.75) / 216.0).abs() < 1e-12);
        // Weights 1/18, 1/2 and 4/9 of a hundred answers each: 221 of one kind.
        let exact = wilson(221.0 * value, 221, Z95).expect("an interval");
        assert_eq!((low, high), exact);
        assert_eq!(SeedScores::over_lengths(&at[..2]).seeds(), 2);
        let backwards = [at[1].clone(), at[0].clone()];
        for none in [&at[..1], &[], &backwards] {
            assert_eq!(SeedScores::over_lengths(none), SeedScores::default());
        }
    }

    #[test]
    fn one_seed_has_the_interval_of_its_answers() {
        let one = seeds(&[0.9]).less(&seeds(&[0.2])).expect("a difference");
        assert!((one.value - 0.7).abs() < 1e-12 && one.low > 0.5 && one.high < 0.8);
        // Seeds that differ widen it.
        let two = seeds(&[0.9, 0.5]).less(&seeds(&[0.2, 0.2]));
        let two = two.expect("a difference");
        assert!(two.seeds == 2 && two.low < 0.0 && two.high == 1.0);
        assert_eq!(seeds(&[0.9]).less(&SeedScores::default()), None);
    }
}
