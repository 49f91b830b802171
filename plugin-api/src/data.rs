//! The plain data that crosses with each call: configurations, batches and reports.

use abi_stable::StableAbi;
use abi_stable::std_types::{RSlice, RString, RVec, Tuple2};

use crate::error::PluginError;
use crate::metadata::{OptionValue, Pairs, pair};

/// The kind of device a model runs on.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The host processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// The device a model runs on. The plugin opens it itself.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The kind.
    pub kind: DeviceKind,
    /// Which one of its kind; 0 on the CPU.
    pub index: u32,
    /// CPU threads the plugin may use, at least 1.
    pub threads: u32,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            DeviceKind::Cpu => write!(f, "cpu"),
            DeviceKind::Cuda => write!(f, "cuda:{}", self.index),
        }
    }
}

/// Everything a model is built from. The same configuration gives the same bytes.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct ModelConfig {
    /// Name of the architecture inside the library.
    pub architecture: RString,
    /// A value for every declared option, defaults filled in by the host.
    pub options: RVec<Tuple2<RString, OptionValue>>,
    /// Number of token ids, V.
    pub vocab: u32,
    /// Model width, D.
    pub d_model: u32,
    /// Number of layers (residual blocks of one mixer and its MLP).
    pub layers: u32,
    /// Longest sequence seen in training, in tokens: what learned positions are sized by.
    pub max_train_length: u64,
    /// Seed of the initialisation.
    pub seed: u64,
    /// The device.
    pub device: Device,
    /// Later additions.
    pub extra: Pairs,
}

/// Pairs that [`ModelConfig::extra`] and [`TrainConfig::extra`] may have. A plugin that does not know one
/// ignores it.
pub mod extra {
    use crate::metadata::{Pairs, pair};

    /// `form` = `reference`: the model computes the same by its naive float64 functions, feeds only. Asked
    /// of plugins that declare [`REFERENCE`](crate::metadata::capability::REFERENCE).
    pub const REFERENCE_FORM: (&str, &str) = ("form", "reference");

    /// `buffers` = `poisoned`: every buffer begins each run full of NaN, so that reading what was not
    /// written shows.
    pub const POISONED_BUFFERS: (&str, &str) = ("buffers", "poisoned");

    /// Name of a pair of [`TrainConfig::extra`](super::TrainConfig::extra) whose value is a number N, at
    /// least 1: steps that are multiples of N, and the last of `total_steps`, are reported in full. Of the
    /// others a model may answer [`StepReport::unread`](super::StepReport::unread), so that a device need
    /// not be waited for; a model may always answer in full. A loss or norm that is not finite in a step
    /// that was not read is an error of the next step that is due, and names the step it was in.
    pub const REPORT_EVERY: &str = "report_every";

    /// Whether a pair is there.
    pub fn has(pairs: &Pairs, wanted: (&str, &str)) -> bool {
        pair(pairs, wanted.0) == Some(wanted.1)
    }
}

/// The optimiser: AdamW with decay on matrices only, global gradient clipping, linear warm-up and
/// cosine decay.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct TrainConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Learning rate at the last step, as a fraction of the peak; 1 keeps it constant.
    pub final_fraction: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Decoupled weight decay, on parameters of two dimensions and more.
    pub weight_decay: f64,
    /// AdamW's first moment decay.
    pub beta1: f64,
    /// AdamW's second moment decay.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
    /// Largest global gradient norm; 0 switches clipping off.
    pub clip_norm: f64,
    /// Later additions.
    pub extra: Pairs,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            final_fraction: 0.1,
            warmup_steps: 0,
            total_steps: 1,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            clip_norm: 1.0,
            extra: RVec::new(),
        }
    }
}

impl TrainConfig {
    /// Asks for full reports of the steps that are multiples of `every` and of the last one only, see
    /// [`extra::REPORT_EVERY`].
    pub fn reported_every(mut self, every: u64) -> Self {
        self.extra.retain(|pair| pair.0 != extra::REPORT_EVERY);
        let value = every.max(1).to_string();
        self.extra
            .push(Tuple2(extra::REPORT_EVERY.into(), value.into()));
        self
    }

    /// Which steps are to be reported in full.
    pub fn reporting(&self) -> Reporting {
        let every = pair(&self.extra, extra::REPORT_EVERY).and_then(|text| text.parse().ok());
        Reporting {
            every: every.unwrap_or(1),
            total_steps: self.total_steps,
        }
    }
}

/// Which steps of a training are reported in full: all of them unless [`extra::REPORT_EVERY`] says
/// otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reporting {
    every: u64,
    total_steps: u64,
}

impl Reporting {
    /// Whether a step must be reported in full.
    pub fn is_due(self, step: u64) -> bool {
        self.every <= 1 || step.is_multiple_of(self.every) || step + 1 == self.total_steps
    }

    /// Whether a report may be taken for a step's: one in full, or an unread one where none is due.
    pub(crate) fn allows(self, step: u64, report: &StepReport) -> bool {
        !report.is_unread() || !self.is_due(step)
    }
}

/// Token sequences and what is scored in them.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Inputs, `[B, T]`, each below the vocabulary's size.
    pub tokens: RSlice<'a, u32>,
    /// `[B, T]`: the target at t is what follows after reading tokens 0..=t; -1 is not scored.
    pub targets: RSlice<'a, i32>,
    /// B, the number of sequences.
    pub rows: u32,
    /// T, tokens a sequence.
    pub length: u32,
}

impl<'a> Batch<'a> {
    /// A batch over slices of `rows * length` values each.
    pub fn new(tokens: &'a [u32], targets: &'a [i32], rows: usize, length: usize) -> Self {
        Self {
            tokens: RSlice::from_slice(tokens),
            targets: RSlice::from_slice(targets),
            rows: rows as u32,
            length: length as u32,
        }
    }
}

/// What a training step did.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean negative log likelihood over the scored positions, in nats, before the update.
    pub loss: f64,
    /// Global norm of the gradients before clipping; 0 where it was not computed.
    pub gradient_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// Scored positions.
    pub scored: u64,
    /// Scored positions whose most likely token was the target.
    pub correct: u64,
}

impl StepReport {
    /// The report of a step whose results were not read: the loss is NaN and nothing is scored.
    pub fn unread(learning_rate: f64) -> Self {
        Self {
            loss: f64::NAN,
            gradient_norm: 0.0,
            learning_rate,
            scored: 0,
            correct: 0,
        }
    }

    /// Whether it says nothing but the learning rate, see [`StepReport::unread`].
    pub fn is_unread(&self) -> bool {
        self.loss.is_nan() && self.gradient_norm == 0.0 && self.scored == 0 && self.correct == 0
    }

    /// That loss and gradient norm are finite, so that a NaN is an error where it arises; `step` is that of
    /// the training, where the report is of one.
    ///
    /// # Errors
    /// [`Numeric`](crate::error::ErrorKind::Numeric), with both.
    pub(crate) fn check_finite(&self, step: Option<u64>) -> Result<(), PluginError> {
        if self.loss.is_finite() && self.gradient_norm.is_finite() {
            return Ok(());
        }
        Err(PluginError::not_finite(self.loss, self.gradient_norm, step))
    }
}

/// A parameter's name, shape and owner.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Dotted name, unique in the model.
    pub name: RString,
    /// Dimensions, row-major, last contiguous.
    pub shape: RVec<u64>,
    /// Whether it belongs to the architecture's mixer or to the shared backbone.
    pub role: ParameterRole,
}

impl ParameterInfo {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Who owns a parameter.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterRole {
    /// The part in which architectures differ.
    Mixer,
    /// The part that all share: embedding, norms, MLP, head.
    Backbone,
}

/// What a feed should return beside advancing the state.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None.
    None,
    /// Those after the last token of each row, `[B, V]`.
    Last,
    /// Those after every token, `[B, T, V]`.
    All,
}

/// A part of a session's recurrent state: what one operation of one layer keeps.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, PartialEq)]
pub struct StateSummary {
    /// The layer, from 0.
    pub layer: u32,
    /// What keeps it, no two of one name in a layer.
    pub name: RString,
    /// Values of one row.
    pub values: u64,
    /// Whether it is a cache of what was read, which is empty at position 0, and not of a fixed size.
    pub grows: bool,
    /// What each value is at position 0. A state of a fixed size for which it is not 0 is on a scale of its
    /// own (a logarithm) and is left as it is by noise.
    pub initial: f32,
    /// Euclidean norm of each row's values, `[B]`.
    pub norms: RVec<f64>,
}

/// A feed's answers.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Default)]
pub struct FeedOutput {
    /// The most likely token at each scored position, in row-major order of the targets.
    pub predictions: RVec<u32>,
    /// Negative log likelihood of the target at each scored position, in nats.
    pub nll: RVec<f32>,
    /// Logits as asked for, row-major; empty when none were.
    pub logits: RVec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_due_unless_asked_otherwise() {
        let config = TrainConfig {
            total_steps: 22,
            ..TrainConfig::default()
        };
        let due = |config: &TrainConfig| -> Vec<u64> {
            let reporting = config.reporting();
            (0..22).filter(|step| reporting.is_due(*step)).collect()
        };
        let all: Vec<u64> = (0..22).collect();
        assert_eq!(due(&config), all);
        assert_eq!(due(&config.clone().reported_every(1)), all);
        assert_eq!(due(&config.clone().reported_every(8)), [0, 8, 16, 21]);
        assert_eq!(
            due(&config.clone().reported_every(8).reported_every(20)),
            [0, 20, 21]
        );
        let mut odd = config;
        odd.extra
            .push(Tuple2(extra::REPORT_EVERY.into(), "often".into()));
        assert_eq!(due(&odd), all);
    }

    #[test]
    fn only_a_report_of_nothing_is_unread() {
        let unread = StepReport::unread(0.5);
        assert!(unread.is_unread() && unread.learning_rate == 0.5);
        let scored = StepReport {
            scored: 3,
            ..unread
        };
        let measured = StepReport {
            loss: 1.0,
            ..unread
        };
        let normed = StepReport {
            gradient_norm: f64::NAN,
            ..unread
        };
        for report in [scored, measured, normed] {
            assert!(!report.is_unread(), "{report:?}");
        }
        let every_eighth = TrainConfig::default().reported_every(8).reporting();
        assert!(every_eighth.allows(3, &unread) && !every_eighth.allows(8, &unread));
        assert!(every_eighth.allows(8, &measured));
        assert!(!TrainConfig::default().reporting().allows(3, &unread));
    }
}
