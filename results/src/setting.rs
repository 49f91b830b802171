//! What tells models and curves apart: every column that was decided before anything was measured. One
//! list for measurements, summary, tables and plots.

use crate::record::{Measurement, Split};
use crate::summary::SummaryRow;

/// What models that are compared may differ in: all but learning rate and seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Model<'a> {
    pub task: (&'a str, &'a str),
    pub plugin: &'a str,
    pub architecture: &'a str,
    pub options: &'a str,
    pub checkpoint: (&'a str, &'a str),
    pub train_length_min: Option<u64>,
    pub train_length: Option<u64>,
    pub train_distribution: &'a str,
    pub train_steps: Option<u64>,
    pub batch: Option<u64>,
    pub warmup_steps: Option<u64>,
    /// Bits of the weight decay and of the largest gradient norm.
    pub decay_and_clip: (Option<u64>, Option<u64>),
}

/// A model at one learning rate (its bits): its points are those of one curve.
pub(crate) type Trained<'a> = (Model<'a>, Option<u64>);

/// What the seeds of one point share: the curve, the examples, the length and the breakdown.
pub(crate) type Point<'a> = (Trained<'a>, Split, u64, &'a str);

macro_rules! settings {
    ($row:ty) => {
        impl $row {
            pub(crate) fn model(&self) -> Model<'_> {
                Model {
                    task: (&self.task, &self.task_options),
                    plugin: &self.plugin,
                    architecture: &self.architecture,
                    options: &self.options,
                    checkpoint: (&self.checkpoint, &self.checkpoint_sha256),
                    train_length_min: self.train_length_min,
                    train_length: self.train_length,
                    train_distribution: &self.train_distribution,
                    train_steps: self.train_steps,
                    batch: self.batch,
                    warmup_steps: self.warmup_steps,
                    decay_and_clip: (
                        self.weight_decay.map(f64::to_bits),
                        self.clip_norm.map(f64::to_bits),
                    ),
                }
            }

            pub(crate) fn trained(&self) -> Trained<'_> {
                (self.model(), self.learning_rate.map(f64::to_bits))
            }

            pub(crate) fn point(&self) -> Point<'_> {
                (self.trained(), self.split, self.eval_length, &self.label)
            }
        }
    };
}

settings!(Measurement);
settings!(SummaryRow);

/// What curves share that are compared: the task, the part of it, and the longest training length.
pub(crate) type Compared<'a> = ((&'a str, &'a str), Option<&'a str>, Option<u64>);

impl SummaryRow {
    /// Whether another row is of the same model, trained in the same way at the same learning rate.
    pub fn is_trained_as(&self, other: &Self) -> bool {
        self.trained() == other.trained()
    }

    /// The options that a model was trained with: those without `eval.` in front.
    pub(crate) fn trained_options(&self) -> String {
        let options = self.options.split(',');
        let options: Vec<&str> = options
            .filter(|option| !option.starts_with("eval."))
            .collect();
        options.join(",")
    }

    pub(crate) fn compared(&self) -> Compared<'_> {
        (self.model().task, self.part(), self.train_length)
    }
}

/// Groups in the order of first appearance, by hash: linear in their number.
pub(crate) fn group<T, K: std::hash::Hash + Eq>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for item in items {
        let place = *places.entry(key(&item)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(item);
    }
    groups
}
