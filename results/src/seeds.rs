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
        let means = self.0.values().filter(|of| of.1 > 0);
        mean(&means.map(|of| of.0 / of.1 as f64).collect::<Vec<_>>())
    }

    /// The mean of all answers together, and its 95 % interval (Wilson): what these models answer, not what other seeds would.
    pub fn pooled(&self) -> Option<(f64, f64, f64)> {
        pooled(self.0.values().copied())
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
        let (mut low, mut high) = unpaired(one, pooled(pairs.iter().map(|pair| pair.1))?);
        let seeds = of_seeds.len() as u64;
        let ends = standard_deviation(&of_seeds).and_then(|sd| student(value, sd, seeds));
        if let Some(ends) = ends {
            (low, high) = (low.min(ends.0), high.max(ends.1));
        }
        Some(Difference {
            seeds,
            value,
            low: low.max(-1.0),
            high: high.min(1.0),
        })
    }
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

    #[test]
    fn one_seed_has_the_interval_of_its_answers() {
        let seeds = |values: &[f64]| {
            let mut scores = SeedScores::default();
            for (seed, value) in (0..).zip(values) {
                scores.add(seed, value * 100.0, 100);
            }
            scores
        };
        let one = seeds(&[0.9]).less(&seeds(&[0.2])).expect("a difference");
        assert!((one.value - 0.7).abs() < 1e-12 && one.low > 0.5 && one.high < 0.8);
        // Seeds that differ widen it.
        let two = seeds(&[0.9, 0.5]).less(&seeds(&[0.2, 0.2]));
        let two = two.expect("a difference");
        assert!(two.seeds == 2 && two.low < 0.0 && two.high == 1.0);
        assert_eq!(seeds(&[0.9]).less(&SeedScores::default()), None);
    }
}
