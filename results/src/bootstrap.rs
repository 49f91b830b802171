//! Resampling with replacement: of seeds, and of the examples of each seed that was drawn (the hierarchical
//! bootstrap; Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8). Pure functions,
//! whose random numbers are the same in every call.

use std::cell::LazyCell;
use std::ops::Deref;

use crate::metric::{Kind, Scores};
use crate::random::Random;
use crate::statistics::student_quantile;

/// Where all random numbers begin.
const SEED: u64 = 0x6c6f_6e67_6861_756c;

/// Quantiles of the two ends of a 95 % interval.
const ENDS: (f64, f64) = (0.025, 0.975);

/// A value an example and what it counts, of one seed: the mean is all values over all weights.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    /// Right answers less those of another model, say.
    pub values: &'a [f64],
    /// Answers, or bytes; as many as values.
    pub weights: &'a [f64],
}

impl Examples<'_> {
    /// All values over all weights; not a number where these are 0.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.weights.iter().sum::<f64>()
    }
}

/// Means over seeds in so many replicates, ascending. In each, as many seeds are drawn as there are, and of each
/// that is drawn as many examples as it has. Without seeds, or of a seed without examples, nothing.
pub fn means(seeds: &[Examples<'_>], replicates: usize) -> Vec<f64> {
    if seeds.is_empty() || seeds.iter().any(|seed| seed.values.is_empty()) {
        return Vec::new();
    }
    let mut random = Random::new(SEED);
    let mut mean = || {
        let mut sum = 0.0;
        for _ in seeds {
            let seed = &seeds[random.below(seeds.len())];
            let (mut values, mut weights) = (0.0, 0.0);
            for _ in seed.values {
                let drawn = random.below(seed.values.len());
                values += seed.values[drawn];
                weights += seed.weights[drawn];
            }
            // Only examples of no weight have been drawn: such a replicate says nothing.
            sum += if weights > 0.0 {
                values / weights
            } else {
                seed.mean()
            };
        }
        sum / seeds.len() as f64
    };
    let mut means: Vec<f64> = (0..replicates).map(|_| mean()).collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The percentile interval, 95 %, of ascending replicates, between which quantiles are interpolated; `None` of
/// none.
pub fn interval(ascending: &[f64]) -> Option<(f64, f64)> {
    let quantile = |share: f64| {
        let place = share * (ascending.len() as f64 - 1.0);
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        let (low, high) = (ascending[below], ascending[above]);
        low + (high - low) * place.fract()
    };
    (!ascending.is_empty()).then(|| (quantile(ENDS.0), quantile(ENDS.1)))
}

/// The values at the ends of the percentile interval of things that are only ordered, such as lengths and
/// ranks; `None` of none.
pub(crate) fn ordinal_interval<T: Copy + Ord>(values: &mut [T]) -> Option<(T, T)> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| ((share * values.len() as f64).ceil() as usize).clamp(1, last + 1) - 1;
    Some((values[at(ENDS.0)], values[at(ENDS.1)]))
}

/// Seeds by points of a curve, in which each cell has its samples' scores.
pub(crate) type Cells = Vec<Vec<Scores>>;

/// Means of each point in so many replicates: seeds are drawn, all points of a seed together, and the samples of
/// each cell. All curves of as many seeds draw the same places, in order of their seeds. No example is looked at: samples that are right
/// or wrong, drawn with replacement, make a binomial number of right ones, and means of others are taken as
/// normal. Its quantiles are spread evenly over the replicates (a balanced bootstrap: Davison, Hinkley and
/// Schechtman 1986, Biometrika 73), which needs few of them.
pub(crate) fn curve(cells: &Cells, kind: Kind, replicates: usize) -> Vec<Vec<f64>> {
    let Some(first) = cells.first() else {
        return Vec::new();
    };
    let mut random = Random::new(SEED);
    let seeds = cells.len();
    let drawn: Vec<usize> = (0..replicates * seeds)
        .map(|_| random.below(seeds))
        .collect();
    let normal = LazyCell::new(|| normal_quantiles(replicates));
    let mut point = |place: usize| -> Vec<f64> {
        let mut of_seed = |seed: &Vec<Scores>| {
            let mut means = quantiles(&seed[place], kind, replicates, &normal);
            random.shuffle(&mut means);
            // What is behind the end is the beginning.
            means
                .iter()
                .copied()
                .cycle()
                .take(replicates + seeds)
                .collect()
        };
        let means: Vec<Vec<f64>> = cells.iter().map(&mut of_seed).collect();
        // A seed that is drawn twice has its samples drawn twice.
        let mean = |(replicate, drawn): (usize, &[usize])| {
            let drawn = drawn.iter().enumerate();
            let sum: f64 = drawn
                .map(|(turn, &seed)| means[seed][replicate + turn])
                .sum();
            sum / seeds as f64
        };
        drawn.chunks_exact(seeds).enumerate().map(mean).collect()
    };
    (0..first.len()).map(&mut point).collect()
}

/// Shares that are spread evenly from 0 to 1.
fn shares(count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |place| (place as f64 + 0.5) / count as f64)
}

/// Quantiles of the normal distribution at so many shares.
fn normal_quantiles(count: usize) -> Vec<f64> {
    let of = |share| student_quantile(None, share).unwrap_or(0.0);
    shares(count).map(of).collect()
}

/// Quantiles of the mean of so many samples drawn with replacement, at evenly spread shares, of which `normal` has those of
/// the normal distribution.
fn quantiles(
    scores: &Scores,
    kind: Kind,
    count: usize,
    normal: &impl Deref<Target = Vec<f64>>,
) -> Vec<f64> {
    if kind == Kind::ZeroOne {
        return binomial_quantiles(scores, shares(count));
    }
    let error = scores.sd.unwrap_or(0.0) / (scores.samples as f64).sqrt();
    let most = if kind.is_accuracy() {
        1.0
    } else {
        f64::INFINITY
    };
    let of = |normal: &f64| (scores.mean + error * normal).clamp(0.0, most);
    normal.iter().map(of).collect()
}

/// Quantiles of the share of right ones, at ascending shares. Probabilities go out from the most likely number
/// by their ratios, up to where they are lost in rounding: a few roots of the samples.
fn binomial_quantiles(scores: &Scores, shares: impl Iterator<Item = f64>) -> Vec<f64> {
    const LEAST: f64 = 1e-18;
    let (n, p) = (scores.samples as f64, scores.mean);
    if p <= 0.0 || p >= 1.0 {
        return shares.map(|_| p.clamp(0.0, 1.0)).collect();
    }
    let mode = ((n + 1.0) * p).floor().min(n);
    let odds = p / (1.0 - p);
    let up = |&(k, weight): &(f64, f64)| {
        Some((k + 1.0, weight * (n - k) / (k + 1.0) * odds)).filter(|next| next.1 > LEAST)
    };
    let down = |&(k, weight): &(f64, f64)| {
        Some((k - 1.0, weight * k / (n - k + 1.0) / odds)).filter(|next| next.1 > LEAST)
    };
    let mut below: Vec<_> = std::iter::successors(Some((mode, 1.0)), down).collect();
    below.reverse();
    below.extend(std::iter::successors(Some((mode, 1.0)), up).skip(1));
    let all: f64 = below.iter().map(|(_, weight)| weight).sum();
    let (mut place, mut reached) = (0, below[0].1);
    shares
        .map(|share| {
            while reached < share * all && place + 1 < below.len() {
                place += 1;
                reached += below[place].1;
            }
            below[place].0 / n
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy.stats.binom.ppf(shares, 40, 0.9) / 40, and of 1e9 at one half by the normal law.
    #[test]
    fn right_answers_drawn_again_are_binomial() {
        let scores = |samples, mean| Scores {
            samples,
            mean,
            sd: None,
        };
        let quantiles = |scores: Scores, count| {
            super::quantiles(&scores, Kind::ZeroOne, count, &Box::new(Vec::new()))
        };
        let found = quantiles(scores(40, 0.9), 8);
        let expected = [33.0, 34.0, 35.0, 36.0, 36.0, 37.0, 38.0, 39.0];
        assert_eq!(found, expected.map(|right| right / 40.0));
        assert_eq!(quantiles(scores(9, 1.0), 2), [1.0, 1.0]);
        let many = quantiles(scores(1_000_000_000, 0.5), 2);
        let half = 0.674_489_75 * 0.5 / 1e9_f64.sqrt();
        assert!((many[1] - 0.5 - half).abs() < 1e-8, "{many:?}");
    }

    #[test]
    fn means_of_curves_spread_by_seeds_and_samples() {
        let cell = |mean| Scores {
            samples: 100,
            mean,
            sd: None,
        };
        let spread = |cells: &Cells| {
            let means = curve(cells, Kind::ZeroOne, 2000).remove(0);
            let scores: f64 = means.iter().sum::<f64>() / 2000.0;
            let squares: f64 = means.iter().map(|mean| (mean - scores).powi(2)).sum();
            (scores, squares / 2000.0)
        };
        let (mean, variance) = spread(&vec![vec![cell(0.5)]]);
        assert!((mean - 0.5).abs() < 1e-9, "balanced: {mean}");
        assert!((variance / 0.0025 - 1.0).abs() < 0.01, "{variance}");
        // Two seeds: of their variance about the mean a half, and of the samples' a half.
        let (mean, variance) = spread(&vec![vec![cell(0.2)], vec![cell(0.8)]]);
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        let expected = 0.09 / 2.0 + 0.0016 / 2.0;
        assert!((variance / expected - 1.0).abs() < 0.05, "{variance}");
        assert!(curve(&Vec::new(), Kind::ZeroOne, 10).is_empty());
    }
}
