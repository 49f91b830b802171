//! Means, intervals and tests, in float64. Pure functions. `tests/golden` holds them against SciPy and
//! statsmodels.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use statrs::function::beta::beta_reg;

/// Standard normal quantile of a two-sided 95 % interval.
pub const Z95: f64 = 1.959_963_984_540_054;

/// Probability left out at each end of a two-sided 95 % interval.
const TAIL: f64 = 0.025;

/// Wilson's score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22): how far `samples`
/// answers of one model determine its accuracy. `correct` is a whole number of answers, or a sum of shares
/// from 0 to 1. `None` of no samples and of more correct than samples.
pub fn wilson(correct: f64, samples: u64, z: f64) -> Option<(f64, f64)> {
    let n = samples as f64;
    if samples == 0 || !(0.0..=n).contains(&correct) {
        return None;
    }
    let p = correct / n;
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // At the ends the exact values are 0 and 1; rounding must not move them.
    let low = if correct == 0.0 {
        0.0
    } else {
        (centre - spread) / scale
    };
    let high = if correct == n {
        1.0
    } else {
        (centre + spread) / scale
    };
    Some((low, high))
}

/// Student's 95 % interval of the mean of a population, from the mean and the standard deviation of so many
/// values of it (Student 1908, Biometrika 6). `None` of fewer than two.
pub fn student(mean: f64, sd: f64, count: u64) -> Option<(f64, f64)> {
    if count < 2 || !(mean.is_finite() && sd.is_finite() && sd >= 0.0) {
        return None;
    }
    let half = student_quantile(Some(count - 1), 1.0 - TAIL)? * sd / (count as f64).sqrt();
    Some((mean - half, mean + half))
}

/// Standard deviation of a population, from some values of it; `None` of fewer than two.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// 95 % interval of the mean accuracy over all seeds, from the accuracies of a few: the two ends of
/// Gaffke 2005 (Math. Methods Stat. 14; Learned-Miller and Thomas 2019, arXiv:1905.06208). It supposes
/// nothing but that accuracies lie in 0 to 1, so it also holds where most seeds learn a task and some do
/// not, where Student's t and the bootstrap fail. Of accuracies that are 0 or 1 it is Clopper and
/// Pearson's. Wide for few seeds: three that agree do not exclude that two thirds of all seeds differ.
/// `None` of fewer than two values, and of values that are no accuracies.
pub fn seeds_interval(values: &[f64]) -> Option<(f64, f64)> {
    let accuracies = values.iter().all(|value| (0.0..=1.0).contains(value));
    (values.len() > 1 && accuracies).then(|| {
        (
            weighted_quantile(values, 0.0, TAIL),
            weighted_quantile(values, 1.0, 1.0 - TAIL),
        )
    })
}

/// A quantile of the mean of `values` and `bound` under weights that are uniform over all that add up
/// to 1. The mean is taken as a beta variable between the least and the greatest value, with its own mean
/// and variance: exact where there are two different values, within 0.01 else.
fn weighted_quantile(values: &[f64], bound: f64, quantile: f64) -> f64 {
    let all = || values.iter().copied().chain([bound]);
    let count = values.len() as f64 + 1.0;
    let (low, high) = all().fold((bound, bound), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let range = high - low;
    if range <= f64::EPSILON {
        return bound;
    }
    let centre = all().map(|value| (value - low) / range).sum::<f64>() / count;
    let squares: f64 = all()
        .map(|value| ((value - low) / range - centre).powi(2))
        .sum();
    let variance = squares / count / (count + 1.0);
    let weight = centre * (1.0 - centre) / variance - 1.0;
    low + range * beta_quantile(centre * weight, (1.0 - centre) * weight, quantile)
}

/// Quantile of the beta distribution, by bisection.
fn beta_quantile(a: f64, b: f64, quantile: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if beta_reg(a, b, middle) < quantile {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// Quantile of Student's law; of the normal law without degrees of freedom. `None` outside 0 to 1.
pub(crate) fn student_quantile(degrees: Option<u64>, share: f64) -> Option<f64> {
    let inside = share > 0.0 && share < 1.0;
    if !inside {
        return None;
    }
    Some(match degrees {
        Some(degrees) => StudentsT::new(0.0, 1.0, degrees as f64)
            .ok()?
            .inverse_cdf(share),
        None => Normal::new(0.0, 1.0).ok()?.inverse_cdf(share),
    })
}

/// The smallest difference that a two-sided test at 5 % finds in 80 of 100 tries, where the difference has this
/// standard error: the sum of the quantiles at 0.975 and 0.8 times it (Miller 2024, arXiv:2411.00640,
/// section 5). Where the error is of so many seeds the quantiles are Student's.
pub fn detectable(standard_error: f64, seeds: Option<u64>) -> Option<f64> {
    let degrees = match seeds {
        Some(seeds) => Some(seeds.checked_sub(1).filter(|&degrees| degrees > 0)?),
        None => None,
    };
    let quantile = |share| student_quantile(degrees, share);
    Some((quantile(1.0 - TAIL)? + quantile(0.8)?) * standard_error)
}

/// McNemar's exact test, two-sided, of as many pairs of which one alone is right, and of which the other is
/// (McNemar 1947, Psychometrika 12): how likely a split at least as uneven is where either side is as likely.
pub fn mcnemar(only_one: u64, only_other: u64) -> f64 {
    let (few, many) = (only_one.min(only_other), only_one.max(only_other));
    if few == many {
        return 1.0;
    }
    // At most `few` of all with a probability of one half.
    (2.0 * beta_reg(many as f64, few as f64 + 1.0, 0.5)).min(1.0)
}

/// Holm's correction: with these p-values a whole family keeps its level, whatever depends on what (Holm 1979,
/// Scand. J. Stat. 6). In the order of `p_values`.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&one, &other| p_values[one].total_cmp(&p_values[other]));
    let mut corrected = vec![1.0; p_values.len()];
    let mut least: f64 = 0.0;
    for (rank, &place) in order.iter().enumerate() {
        least = least.max((p_values.len() - rank) as f64 * p_values[place]);
        corrected[place] = least.min(1.0);
    }
    corrected
}

/// 95 % interval of the difference between two independent means from the interval of each, `(mean, low, high)`:
/// each end from the ends that it depends on (Newcombe 1998, Statistics in Medicine 17, 873, method 10; Zou and
/// Donner 2008, ibid. 27).
pub fn unpaired(one: (f64, f64, f64), other: (f64, f64, f64)) -> (f64, f64) {
    let difference = one.0 - other.0;
    let below = (one.0 - one.1).hypot(other.2 - other.0);
    let above = (one.2 - one.0).hypot(other.0 - other.1);
    (difference - below, difference + above)
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Median; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[middle - 1] + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
    #[test]
    fn wilson_agrees_with_newcombe() {
        for (correct, samples, low, high) in [
            (81.0, 263, 0.2553, 0.3662),
            (15.0, 148, 0.0624, 0.1605),
            (0.0, 20, 0.0, 0.1611),
            (1.0, 29, 0.0061, 0.1718),
        ] {
            let (got_low, got_high) = wilson(correct, samples, Z95).expect("counts that can be");
            assert!(
                (got_low - low).abs() < 5e-5,
                "{correct}/{samples}: {got_low}"
            );
            assert!(
                (got_high - high).abs() < 5e-5,
                "{correct}/{samples}: {got_high}"
            );
        }
        assert_eq!(wilson(10.0, 10, Z95).expect("counts that can be").1, 1.0);
        let (low, high) = wilson(125.0, 250, Z95).expect("counts that can be");
        assert!(
            ((high - low) / 2.0 - 0.062).abs() < 1e-3,
            "half-width of 250 at one half"
        );
        assert_eq!((wilson(0.0, 0, Z95), wilson(99.0, 4, Z95)), (None, None));
    }

    /// scipy.stats.t.interval(0.95, n - 1, loc=mean, scale=sd / sqrt(n)) of SciPy 1.17.
    #[test]
    fn student_agrees_with_scipy() {
        for (values, low, high) in [
            (vec![1.2, 1.5, 1.1, 1.9], 0.853_118_147_5, 1.996_881_852_5),
            (vec![2.0, 2.5], -0.926_551_184_0, 5.426_551_184_0),
        ] {
            let (mean, sd) = (mean(&values), standard_deviation(&values));
            let (mean, sd) = (mean.expect("a mean"), sd.expect("a deviation"));
            let found = student(mean, sd, values.len() as u64).expect("an interval");
            assert!((found.0 - low).abs() < 1e-7, "{values:?}: {found:?}");
            assert!((found.1 - high).abs() < 1e-7, "{values:?}: {found:?}");
        }
        assert_eq!(student(1.0, 0.5, 1), None);
        assert_eq!(standard_deviation(&[1.0]), None);
    }

    /// Clopper and Pearson's intervals, from the quantiles of the beta distribution as SciPy has them.
    #[test]
    fn seeds_that_succeed_or_fail_have_clopper_and_pearsons_interval() {
        for (values, low, high) in [
            (vec![1.0, 1.0], 0.158_114, 1.0),
            (vec![1.0, 1.0, 1.0], 0.292_402, 1.0),
            (vec![0.0, 1.0, 1.0], 0.094_299, 0.991_596),
            (vec![0.0, 0.0, 0.0, 0.0, 1.0], 0.005_051, 0.716_418),
            (vec![0.0; 5], 0.0, 0.521_824),
        ] {
            let found = seeds_interval(&values).expect("an interval");
            assert!((found.0 - low).abs() < 1e-6, "{values:?}: {found:?}");
            assert!((found.1 - high).abs() < 1e-6, "{values:?}: {found:?}");
        }
        assert_eq!(seeds_interval(&[0.5]), None);
        assert_eq!(seeds_interval(&[0.5, f64::NAN]), None);
        assert_eq!(seeds_interval(&[0.5, 7.0]), None);
    }

    #[test]
    fn seeds_that_agree_leave_room_for_those_not_tried() {
        let (low, high) = seeds_interval(&[0.9, 0.9, 0.9]).expect("an interval");
        assert!((low - 0.9 * 0.292_402).abs() < 1e-6 && (high - 0.970_76).abs() < 1e-5);
        let width = |seeds: usize| {
            let (low, high) = seeds_interval(&vec![0.9; seeds]).expect("an interval");
            high - low
        };
        assert!(width(5) < width(3) && width(100) < 0.05 && width(100_000) < 1e-4);
        let (low, high) = seeds_interval(&[0.3, 0.5, 0.6, 0.9, 0.95]).expect("an interval");
        assert!(0.25 < low && low < 0.65 && 0.65 < high && high < 0.95);
    }

    #[test]
    fn medians_stand_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
