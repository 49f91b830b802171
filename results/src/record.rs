//! The rows of `results.csv` and `training.csv`. A column is named as its field; an unknown value is
//! an empty field, never 0. What cannot be is refused where a row is read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::metric::{Kind, Scores};

/// How a measurement ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It was measured.
    Ok,
    /// The plugin returned an error, or a value that cannot be.
    Failed,
    /// Its worker died.
    Crashed,
    /// Its worker ran past the time limit.
    TimedOut,
    /// Its worker ran out of memory.
    OutOfMemory,
    /// It was not started: what it needs failed, or the budget was spent.
    #[default]
    NotRun,
}

impl Status {
    /// The status as it stands in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed-out",
            Self::OutOfMemory => "out-of-memory",
            Self::NotRun => "not-run",
        }
    }

    /// The status in a table's cell.
    pub fn short(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Crashed => "crash",
            Self::TimedOut => "timeout",
            Self::OutOfMemory => "memory",
            Self::NotRun => "-",
        }
    }
}

/// Which examples a measurement is of.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// To choose a learning rate by.
    Validation,
    /// To report.
    #[default]
    Test,
}

/// A row of a file of records.
pub trait Record: Serialize + DeserializeOwned + Default {
    /// Columns that files of earlier versions do not have: they are read as empty.
    const ADDED: &'static [&'static str] = &[];

    /// Fills in what such a file says in other columns.
    fn complete(&mut self) {}

    /// Refuses values that no measurement gives, in words.
    ///
    /// # Errors
    /// What cannot be.
    fn validate(&self) -> Result<(), String>;
}

crate::table_row! {
/// One row of `results.csv`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Hash of the plan.
    pub run_id: String,
    /// Hash of all that decides the model: the training, or the checkpoint.
    pub unit: String,
    /// Plugin library; of a row of another tool that tool.
    pub plugin: String,
    /// Its version; empty of another tool.
    pub plugin_version: String,
    /// Hash of its file; of a row of another tool that of the file of results.
    pub plugin_sha256: String,
    /// Architecture inside it.
    pub architecture: String,
    /// Options that are not the default, and the model's size.
    pub options: String,
    /// Name of the checkpoint that was read; empty for a model trained here.
    pub checkpoint: String,
    /// Hash of its config and weights; empty likewise.
    pub checkpoint_sha256: String,
    /// Values of all parameters.
    pub parameters: Option<u64>,
    /// Task.
    pub task: String,
    /// All its options.
    pub task_options: String,
    /// Seed of initialisation and data.
    pub seed: u64,
    /// Shortest training length, in tokens.
    pub train_length_min: Option<u64>,
    /// Longest training length, in tokens; of a checkpoint what its config states.
    pub train_length: Option<u64>,
    /// How training lengths were drawn: `fixed`, always the longest; `uniform` from the shortest to the longest;
    /// `curriculum:P`, uniform up to a length that grows over the part P of the steps. Empty of a checkpoint.
    pub train_distribution: String,
    /// Optimiser steps.
    pub train_steps: Option<u64>,
    /// Sequences a step.
    pub batch: Option<u64>,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Steps of linear warm-up.
    pub warmup_steps: Option<u64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
    /// Largest gradient norm; 0 is no limit.
    pub clip_norm: Option<f64>,
    /// Which examples.
    pub split: Split,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// Empty for the whole cell, else a breakdown such as `depth=0.50`.
    pub label: String,
    /// What is measured of a sample.
    pub metric: String,
    /// Samples: answers, or examples.
    pub samples: Option<u64>,
    /// Right answers, where answers are right or wrong.
    pub correct: Option<u64>,
    /// Mean over samples: of right and wrong answers the share of right ones.
    pub value: Option<f64>,
    /// Standard deviation of a sample's score, where it is not right or wrong.
    pub value_sd: Option<f64>,
    /// Lower end of the 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end of it.
    pub value_high: Option<f64>,
    /// How that was made: `wilson` of accuracies, `student` of losses; empty where there is none.
    pub interval: String,
    /// Accuracy of guessing; a loss has none.
    pub chance: Option<f64>,
    /// Mean negative log likelihood of scored tokens, in nats.
    pub nll: Option<f64>,
    /// Recurrent state of one row at the end, in bytes.
    pub state_bytes: Option<u64>,
    /// Peak resident memory of the worker during this evaluation, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Wall clock of this evaluation, in seconds.
    pub seconds: Option<f64>,
    /// Tokens read a second.
    pub tokens_per_second: Option<f64>,
    /// Device; empty of another tool.
    pub device: String,
    /// How it ended.
    pub status: Status,
    /// Why, where it did not end well; else empty.
    pub reason: String,
}
}

/// What names a cell, and nothing measured: the identity that `--resume` goes by. A row is named by its
/// cell and its label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// The training or checkpoint.
    pub unit: String,
    /// Which examples.
    pub split: Split,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
}

impl Measurement {
    /// The cell that it is of.
    pub fn cell(&self) -> Cell {
        Cell {
            unit: self.unit.clone(),
            split: self.split,
            eval_length: self.eval_length,
        }
    }

    /// The kind of its values.
    pub fn kind(&self) -> Kind {
        Kind::of(&self.metric)
    }

    /// Its samples' scores, where it was measured.
    pub fn scores(&self) -> Option<Scores> {
        Some(Scores {
            samples: self.samples?,
            mean: self.value?,
            sd: self.value_sd,
        })
    }

    /// Whether it is of a whole cell that is reported: no breakdown, and not for choosing.
    pub fn is_reported_cell(&self) -> bool {
        self.label.is_empty() && self.split == Split::Test
    }
}

impl Record for Measurement {
    const ADDED: &'static [&'static str] = &["train_distribution"];

    /// Lengths were uniform before there were other distributions, which with one length is fixed.
    fn complete(&mut self) {
        if let (true, Some(shortest)) = (self.train_distribution.is_empty(), self.train_length_min)
        {
            let fixed = Some(shortest) == self.train_length;
            let name = if fixed { "fixed" } else { "uniform" };
            name.clone_into(&mut self.train_distribution);
        }
    }

    fn validate(&self) -> Result<(), String> {
        let bounded = if self.kind().is_accuracy() {
            share
        } else {
            not_negative
        };
        bounded("value", self.value)?;
        bounded("value_low", self.value_low)?;
        bounded("value_high", self.value_high)?;
        share("chance", self.chance)?;
        for (name, value) in [
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
            ("clip_norm", self.clip_norm),
            ("nll", self.nll),
            ("value_sd", self.value_sd),
            ("seconds", self.seconds),
            ("tokens_per_second", self.tokens_per_second),
        ] {
            not_negative(name, value)?;
        }
        if self.eval_length == 0 {
            return Err("eval_length is 0".to_owned());
        }
        let measured = (self.samples, self.value, self.correct);
        match (self.status, self.kind(), measured) {
            (Status::Ok, Kind::ZeroOne, (Some(samples), Some(value), Some(correct))) => {
                if samples == 0 || correct > samples {
                    return Err(format!("{correct} of {samples} answers are right"));
                }
                if (value - correct as f64 / samples as f64).abs() > 1e-9 {
                    return Err(format!("value is {value} at {correct} of {samples}"));
                }
                Ok(())
            }
            (Status::Ok, Kind::Share | Kind::Loss, (Some(samples), Some(_), None)) => {
                if samples == 0 {
                    return Err("it has a value of 0 samples".to_owned());
                }
                Ok(())
            }
            (Status::Ok, Kind::ZeroOne, _) => {
                Err("it is ok without samples, correct and value".to_owned())
            }
            (Status::Ok, ..) => Err(format!(
                "it is ok, and {} has samples and value, and no correct",
                self.metric
            )),
            (_, _, (None, None, None)) => Ok(()),
            (status, ..) => Err(format!("it is {} and has a value", status.name())),
        }
    }
}

crate::table_row! {
/// One row of `training.csv`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingPoint {
    /// Hash of the plan.
    pub run_id: String,
    /// Hash of all that decides the model, as in `results.csv`.
    pub unit: String,
    /// Plugin library.
    pub plugin: String,
    /// Architecture inside it.
    pub architecture: String,
    /// Options that are not the default, and the model's size.
    pub options: String,
    /// Task.
    pub task: String,
    /// All its options.
    pub task_options: String,
    /// Seed of initialisation and data.
    pub seed: u64,
    /// Longest training length, in tokens.
    pub train_length: u64,
    /// How training lengths are drawn, as in `results.csv`; empty where an earlier version wrote the table.
    pub train_distribution: String,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Step, from 0.
    pub step: u64,
    /// Mean negative log likelihood of the step's batch, in nats.
    pub loss: Option<f64>,
    /// Share of the batch's scored tokens that were right.
    pub accuracy: Option<f64>,
    /// Gradient norm before clipping.
    pub gradient_norm: Option<f64>,
    /// The step's learning rate.
    pub step_learning_rate: Option<f64>,
    /// Tokens a second since the row before.
    pub tokens_per_second: Option<f64>,
    /// Wall clock since the first step, in seconds.
    pub seconds: Option<f64>,
}
}

impl Record for TrainingPoint {
    const ADDED: &'static [&'static str] = &["train_distribution"];

    fn validate(&self) -> Result<(), String> {
        share("accuracy", self.accuracy)?;
        for (name, value) in [
            ("learning_rate", Some(self.learning_rate)),
            ("loss", self.loss),
            ("gradient_norm", self.gradient_norm),
            ("step_learning_rate", self.step_learning_rate),
            ("tokens_per_second", self.tokens_per_second),
            ("seconds", self.seconds),
        ] {
            not_negative(name, value)?;
        }
        Ok(())
    }
}

crate::table_row! {
/// One row of `probes.csv`: what was seen of a model beside its answers, over the examples of a cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Hash of the plan.
    pub run_id: String,
    /// Hash of all that decides the model, as in `results.csv`.
    pub unit: String,
    /// Architecture.
    pub architecture: String,
    /// Options that are not the default, and the model's size.
    pub options: String,
    /// Name of the checkpoint that was read; empty for a model trained here.
    pub checkpoint: String,
    /// Task.
    pub task: String,
    /// All its options.
    pub task_options: String,
    /// Seed of initialisation and data.
    pub seed: u64,
    /// Longest training length, in tokens, where it is known.
    pub train_length: Option<u64>,
    /// How training lengths were drawn, as in `results.csv`; empty where an earlier version wrote the table.
    pub train_distribution: String,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Which examples.
    pub split: Split,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// `state_norm`: root mean square of the values of a part of the recurrent state.
    /// `effective_remembrance`: total variation between the predictions with and without the first tokens.
    pub probe: String,
    /// How much was read when it was looked at, in tokens.
    pub position: u64,
    /// Layer, from 0, of a state norm.
    pub layer: Option<u32>,
    /// What keeps that part of the state; empty of an effective remembrance.
    pub state: String,
    /// What the prediction was made without, of an effective remembrance, in tokens.
    pub skipped: Option<u64>,
    /// Examples.
    pub samples: u64,
    /// Mean over the examples.
    pub value: f64,
    /// Standard deviation over the examples; empty for one.
    pub deviation: Option<f64>,
    /// Bytes of that part of the state, a row.
    pub state_bytes: Option<u64>,
}
}

impl Probe {
    /// The cell that it is of.
    pub fn cell(&self) -> Cell {
        Cell {
            unit: self.unit.clone(),
            split: self.split,
            eval_length: self.eval_length,
        }
    }

    /// What tells it apart from others of its cell, in the order in which they are kept.
    pub fn place(&self) -> impl Ord + use<> {
        let Self {
            layer,
            position,
            skipped,
            ..
        } = *self;
        (
            self.probe.clone(),
            layer,
            self.state.clone(),
            position,
            skipped,
        )
    }
}

impl Record for Probe {
    const ADDED: &'static [&'static str] = &["train_distribution"];

    fn validate(&self) -> Result<(), String> {
        for (name, value) in [
            ("learning_rate", self.learning_rate),
            ("value", Some(self.value)),
            ("deviation", self.deviation),
        ] {
            not_negative(name, value)?;
        }
        if self.samples == 0 || self.eval_length == 0 || self.position > self.eval_length {
            return Err(format!(
                "{} samples at position {} of {}",
                self.samples, self.position, self.eval_length
            ));
        }
        Ok(())
    }
}

fn not_negative(name: &str, value: Option<f64>) -> Result<(), String> {
    match value {
        Some(value) if !(value.is_finite() && value >= 0.0) => {
            Err(format!("{name} is {value}; it is a number from 0 on"))
        }
        _ => Ok(()),
    }
}

fn share(name: &str, value: Option<f64>) -> Result<(), String> {
    match value {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(format!("{name} is {value}; it is from 0 to 1"))
        }
        _ => Ok(()),
    }
}
