//! What the values of a metric are. It decides intervals, which of two values is better, words and axes.

use crate::statistics::{Z95, student, wilson};

/// A kind of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A sample is right or wrong.
    ZeroOne,
    /// A sample has a share from 0 to 1.
    Share,
    /// A sample has a loss from 0 on, of which less is better and no chance is known.
    Loss,
}

/// Scores of samples taken together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Samples.
    pub samples: u64,
    /// Their mean score.
    pub mean: f64,
    /// Standard deviation of a sample's score; of two samples and more, where it is known.
    pub sd: Option<f64>,
}

impl Kind {
    /// The kind of a metric, by the metric's name in records.
    pub fn named(metric: &str) -> Option<Self> {
        match metric {
            "token_accuracy" | "exact_match" | "string_match_part" | "only_label" => {
                Some(Self::ZeroOne)
            }
            "string_match_all" => Some(Self::Share),
            "bits_per_byte" => Some(Self::Loss),
            _ => None,
        }
    }

    /// As [`Self::named`]; an unknown one is of right and wrong answers, whose numbers are checked most.
    pub fn of(metric: &str) -> Self {
        Self::named(metric).unwrap_or(Self::ZeroOne)
    }

    /// Whether values are from 0 to 1 and more is better.
    pub fn is_accuracy(self) -> bool {
        self != Self::Loss
    }

    /// How far the samples of one model determine its mean, as a 95 % interval with its name: `wilson` of
    /// accuracies, `student` of losses. A share varies no more than answers that are right or wrong with the
    /// same mean, so Wilson's interval of these holds for it too, and is wider than it need be.
    pub fn interval(self, scores: &Scores) -> Option<(&'static str, (f64, f64))> {
        if self.is_accuracy() {
            // Rounding makes no answer half right, and no mean of ones more than one.
            let sum = (scores.mean * scores.samples as f64).min(scores.samples as f64);
            let sum = if self == Self::ZeroOne {
                sum.round()
            } else {
                sum
            };
            return wilson(sum, scores.samples, Z95).map(|ends| ("wilson", ends));
        }
        let (low, high) = student(scores.mean, scores.sd?, scores.samples)?;
        Some(("student", (low.max(0.0), high)))
    }

    /// A value as tables and plots show it: accuracies in percent.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Loss => format!("{value:.3}"),
            _ => format!("{:.1}", 100.0 * value),
        }
    }

    /// A value in less room: accuracies in whole percent.
    pub(crate) fn show_short(self, value: f64) -> String {
        match self {
            Self::Loss => format!("{value:.2}"),
            _ => format!("{:.0}", 100.0 * value),
        }
    }

    /// Least, median and greatest of the seeds, in words.
    pub(crate) fn seeds(self) -> &'static str {
        match self {
            Self::Loss => "the best, the median and the worst seed",
            _ => "the worst, the median and the best seed",
        }
    }

    /// What a metric's values are, in words.
    pub(crate) fn words(self, metric: &str) -> String {
        let metric = metric.replace('_', " ");
        if self.is_accuracy() {
            return format!("{metric} in %");
        }
        metric
    }
}
