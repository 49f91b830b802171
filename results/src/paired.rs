//! Two models on identical examples: the difference, how far seeds and examples determine it, a test, and what
//! the set could have shown. Pure functions, whose random numbers are the same in every call.

use crate::bootstrap::{self, Examples};
use crate::metric::Kind;
use crate::random::Random;
use crate::statistics::{Z95, detectable, mcnemar, mean, standard_deviation, student};

/// Replicates of the bootstrap.
const REPLICATES: usize = 4000;

/// Random signs of a test.
const FLIPS: usize = 10_000;

/// What two models scored on the examples of one seed, in one order.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a> {
    /// Score of one model, an example.
    pub one: &'a [f64],
    /// Score of the other.
    pub other: &'a [f64],
    /// What each example counts in both: answers, or bytes.
    pub weights: &'a [f64],
}

/// One model less the other, over the same seeds and examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Mean over seeds.
    pub value: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Examples that one model alone has right, and that the other has, where an example is right or wrong.
    pub discordant: Option<(u64, u64)>,
    /// `mcnemar` where an example is right or wrong, else `sign-flip`.
    pub test: &'static str,
    /// How likely a difference at least as large is where the two models, as they are, are equally good on
    /// examples like these.
    pub p_value: f64,
    /// Smallest difference that seeds and examples like these would have shown, see
    /// [`detectable`].
    pub detectable: f64,
}

/// Compares two models on their common seeds. `None` without seeds, and of seeds without examples or weights.
///
/// The interval is the percentile interval of the hierarchical bootstrap over seeds and examples, widened to the
/// one of the examples alone and, of two seeds and more, to Student's over the seeds' differences: percentiles
/// of few seeds are too narrow (Hesterberg 2015, arXiv:1411.5279).
pub fn compare(kind: Kind, seeds: &[Pairs<'_>]) -> Option<Difference> {
    let differences: Vec<Vec<f64>> = seeds
        .iter()
        .map(|pairs| {
            let both = pairs.one.iter().zip(pairs.other);
            both.map(|(one, other)| one - other).collect()
        })
        .collect();
    let examples: Vec<Examples<'_>> = differences
        .iter()
        .zip(seeds)
        .map(|(values, pairs)| Examples {
            values,
            weights: pairs.weights,
        })
        .collect();
    let of_seeds: Vec<f64> = examples.iter().map(Examples::mean).collect();
    let value = mean(&of_seeds).filter(|value| value.is_finite())?;
    let (mut low, mut high) = bootstrap::interval(&bootstrap::means(&examples, REPLICATES))?;
    let error = standard_error(kind, &examples)?;
    (low, high) = (low.min(value - Z95 * error), high.max(value + Z95 * error));
    let mut resolved = detectable(error, None)?;
    let count = of_seeds.len() as u64;
    if let Some(sd) = standard_deviation(&of_seeds) {
        let ends = student(value, sd, count)?;
        (low, high) = (low.min(ends.0), high.max(ends.1));
        resolved = resolved.max(detectable(sd / (count as f64).sqrt(), Some(count))?);
    }
    if kind.is_accuracy() {
        (low, high) = (low.max(-1.0), high.min(1.0));
    }
    let discordant = discordant(kind, seeds);
    let (test, p_value) = match discordant {
        Some((one, other)) => ("mcnemar", mcnemar(one, other)),
        None => ("sign-flip", sign_flip(&examples, FLIPS)),
    };
    Some(Difference {
        value,
        low,
        high,
        discordant,
        test,
        p_value,
        detectable: resolved,
    })
}

/// Standard error of the difference by the examples alone, all seeds' taken together. Of accuracies one more
/// example is counted that each model alone has right (Agresti and Min 2005, Statistics in Medicine 24): examples that
/// show no difference do not exclude that others do. `None` of fewer than two examples.
fn standard_error(kind: Kind, seeds: &[Examples<'_>]) -> Option<f64> {
    let mut all = Vec::new();
    for seed in seeds {
        let (mean, count) = (seed.mean(), seed.values.len() as f64);
        let scale = count / seed.weights.iter().sum::<f64>();
        // What an example adds to the error of a ratio, to first order (Cochran 1977, equation 6.9).
        let terms = seed.values.iter().zip(seed.weights);
        all.extend(terms.map(|(value, weight)| mean + scale * (value - mean * weight)));
    }
    if kind.is_accuracy() {
        all.extend([1.0, -1.0]);
    }
    Some(standard_deviation(&all)? / (all.len() as f64).sqrt())
}

/// Examples that one model alone has right, and those that the other has; `None` where an example is not right
/// or wrong.
fn discordant(kind: Kind, seeds: &[Pairs<'_>]) -> Option<(u64, u64)> {
    let single = seeds
        .iter()
        .all(|pairs| pairs.weights.iter().all(|&weight| weight == 1.0));
    if kind != Kind::ZeroOne || !single {
        return None;
    }
    let alone = |has: fn(f64, f64) -> bool| {
        let pairs = seeds
            .iter()
            .flat_map(|pairs| pairs.one.iter().zip(pairs.other));
        pairs.filter(|(one, other)| has(**one, **other)).count() as u64
    };
    Some((
        alone(|one, other| one > other),
        alone(|one, other| one < other),
    ))
}

/// Fisher's randomisation test of paired scores, two-sided: how often the difference is at least as large where
/// each example's scores are exchanged between the models or not by the toss of a coin, that of the data
/// counted in (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9). For scores that are right or wrong it is [`mcnemar`].
pub fn sign_flip(seeds: &[Examples<'_>], flips: usize) -> f64 {
    let terms: Vec<f64> = seeds
        .iter()
        .flat_map(|seed| {
            let all: f64 = seed.weights.iter().sum();
            seed.values.iter().map(move |value| value / all)
        })
        .filter(|&value| value != 0.0)
        .collect();
    let size: f64 = terms.iter().map(|value| value.abs()).sum();
    let found = terms.iter().sum::<f64>().abs() - 1e-12 * size;
    let mut random = Random::new(1);
    let as_large = (0..flips).filter(|_| {
        let mut sum = 0.0;
        for some in terms.chunks(64) {
            let bits = random.bits();
            for (place, value) in some.iter().enumerate() {
                sum += if bits >> place & 1 == 0 {
                    *value
                } else {
                    -value
                };
            }
        }
        sum.abs() >= found
    });
    (1 + as_large.count()) as f64 / (1 + flips) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONES: [f64; 100] = [1.0; 100];

    /// So many of a hundred right, the first ones.
    fn right(count: usize) -> Vec<f64> {
        (0..100).map(|place| f64::from(place < count)).collect()
    }

    fn pairs<'a>(one: &'a [f64], other: &'a [f64]) -> Pairs<'a> {
        Pairs {
            one,
            other,
            weights: &ONES,
        }
    }

    #[test]
    fn equal_models_differ_by_nothing_and_the_set_could_not_show_less_than_it_says() {
        let all = right(100);
        let found = compare(Kind::ZeroOne, &[pairs(&all, &all)]).expect("a difference");
        assert_eq!((found.value, found.p_value), (0.0, 1.0));
        assert_eq!(found.discordant, Some((0, 0)));
        // One example more on either side: the root of 2 / 101 / 102, by hand.
        let error = (2.0_f64 / 101.0 / 102.0).sqrt();
        assert!((found.high - Z95 * error).abs() < 1e-12 && found.low == -found.high);
        assert!((found.detectable - 2.801_585_2 * error).abs() < 1e-6);
    }

    #[test]
    fn seeds_that_disagree_leave_the_difference_open() {
        let (many, few) = (right(90), right(70));
        let one = compare(Kind::ZeroOne, &[pairs(&many, &few)]).expect("a difference");
        assert!((one.value - 0.2).abs() < 1e-12 && one.low > 0.1 && one.high < 0.3);
        assert_eq!((one.test, one.discordant), ("mcnemar", Some((20, 0))));
        let seeds = [pairs(&many, &few), pairs(&few, &many), pairs(&many, &few)];
        let three = compare(Kind::ZeroOne, &seeds).expect("a difference");
        // Student's over 0.2, -0.2, 0.2.
        assert!((three.value - 0.2 / 3.0).abs() < 1e-12);
        assert!(three.low < -0.5 && three.high > 0.6 && three.high <= 1.0);
        assert!(three.detectable > 0.5);
        assert_eq!(compare(Kind::ZeroOne, &seeds), Some(three), "again");
    }

    #[test]
    fn answers_of_unequal_number_are_flipped_together() {
        let weights = vec![4.0; 20];
        let (one, other) = (vec![3.0; 20], vec![2.0; 20]);
        let found = compare(
            Kind::ZeroOne,
            &[Pairs {
                one: &one,
                other: &other,
                weights: &weights,
            }],
        );
        let found = found.expect("a difference");
        assert!((found.value - 0.25).abs() < 1e-12);
        assert_eq!((found.test, found.discordant), ("sign-flip", None));
        assert!(found.p_value < 0.001, "{found:?}");
    }

    #[test]
    fn of_nothing_there_is_no_difference() {
        assert_eq!(compare(Kind::ZeroOne, &[]), None);
        assert_eq!(compare(Kind::Loss, &[pairs(&[], &[])]), None);
        let none = Pairs {
            one: &[0.0],
            other: &[0.0],
            weights: &[0.0],
        };
        assert_eq!(compare(Kind::Loss, &[none]), None);
    }
}
