//! The rows of `results.csv` and `training.csv`. A column is named as its field; an unknown value is
//! an empty field, never 0.

use serde::{Deserialize, Serialize};

/// How a measurement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// One row of `results.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Hash of the plan.
    pub run_id: String,
    /// Plugin library.
    pub plugin: String,
    /// Its version.
    pub plugin_version: String,
    /// Hash of its file.
    pub plugin_sha256: String,
    /// Architecture inside it.
    pub architecture: String,
    /// Options that are not the default, and the model's size.
    pub options: String,
    /// Values of all parameters.
    pub parameters: Option<u64>,
    /// Task.
    pub task: String,
    /// All its options.
    pub task_options: String,
    /// Seed of initialisation and data.
    pub seed: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Longest training length, in tokens.
    pub train_length: u64,
    /// Optimiser steps.
    pub train_steps: u64,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// Empty for the whole cell, else a breakdown such as `depth=0.50`.
    pub label: String,
    /// What counts as one answer.
    pub metric: String,
    /// Answers.
    pub samples: Option<u64>,
    /// Right answers.
    pub correct: Option<u64>,
    /// Right answers over answers.
    pub value: Option<f64>,
    /// Lower end of the Wilson 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end of it.
    pub value_high: Option<f64>,
    /// Accuracy of guessing.
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
    /// Device.
    pub device: String,
    /// How it ended.
    pub status: Status,
    /// Why, where it did not end well.
    pub reason: String,
}

/// What names a measurement, and nothing measured: the identity that `--resume` goes by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeasurementKey {
    /// Architecture and its options.
    pub architecture: (String, String),
    /// Task and its options.
    pub task: (String, String),
    /// Seed.
    pub seed: u64,
    /// Bits of the learning rate.
    pub learning_rate: u64,
    /// Training length and steps.
    pub training: (u64, u64),
    /// Evaluation length.
    pub eval_length: u64,
    /// Breakdown.
    pub label: String,
}

impl Measurement {
    /// Its identity.
    pub fn key(&self) -> MeasurementKey {
        MeasurementKey {
            architecture: (self.architecture.clone(), self.options.clone()),
            task: (self.task.clone(), self.task_options.clone()),
            seed: self.seed,
            learning_rate: self.learning_rate.to_bits(),
            training: (self.train_length, self.train_steps),
            eval_length: self.eval_length,
            label: self.label.clone(),
        }
    }
}

/// One row of `training.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingPoint {
    /// Hash of the plan.
    pub run_id: String,
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
