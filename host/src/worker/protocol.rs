//! What host and worker say to each other: one job as JSON on the worker's standard input, then JSON
//! lines back. Plain data only; what a message leads to is decided by the host.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::architecture::ArchSpec;
use crate::run::plan::{Checkpoint, Evaluation, Training};

/// All that a worker is to do for one unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The architecture with its options and the plugin's file.
    pub architecture: ArchSpec,
    /// Model width.
    pub d_model: u32,
    /// Layers.
    pub layers: u32,
    /// Task with its options, as text: what the model is, or was, trained on.
    pub task: String,
    /// Longest training length in tokens, for which a model is built; 0 of a checkpoint.
    pub train_length: usize,
    /// Seed of initialisation and data.
    pub seed: u64,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// CPU threads.
    pub threads: u32,
    /// The training; without one the saved model is read.
    pub training: Option<Training>,
    /// Where the model is saved or read.
    pub model_file: PathBuf,
    /// Identity of the training, kept in the saved model.
    pub identity: String,
    /// The checkpoint that is read instead of a trained model.
    pub checkpoint: Option<Checkpoint>,
    /// Evaluations in order.
    pub evaluations: Vec<Evaluation>,
}

/// What went wrong in a worker that lived to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Memory ran out, and the plugin noticed.
    OutOfMemory,
    /// The model file could not be written: the disk's fault, not the plugin's.
    Disk,
    /// The device failed, after which a process has to begin anew on it.
    Device,
    /// Anything else.
    Error,
}

/// Right answers of one breakdown, or of all examples (label empty).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Empty, or `depth=0.50`.
    pub label: String,
    /// Answers in the task's metric.
    pub samples: u64,
    /// Right ones.
    pub correct: u64,
    /// Scored tokens.
    pub tokens: u64,
    /// Sum of their negative log likelihood, in nats.
    pub nll_sum: f64,
}

/// The outcome of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Place in the job's list.
    pub index: usize,
    /// Breakdowns in order of their label, then all examples.
    pub scores: Vec<Score>,
    /// Recurrent state of one row at the end, in bytes.
    pub state_bytes: u64,
    /// Peak resident memory during this evaluation, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Tokens read, without padding.
    pub tokens: u64,
    /// Wall clock, in seconds.
    pub seconds: f64,
}

/// One line from a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// The model stands.
    Started {
        /// Values of all parameters.
        parameters: u64,
        /// The model's notes for the log.
        notes: Vec<String>,
    },
    /// A training step was done.
    Progress {
        /// Step, from 0.
        step: u64,
        /// Mean negative log likelihood of its batch, in nats.
        loss: f64,
        /// Share of scored tokens that were right.
        accuracy: Option<f64>,
        /// Norm before clipping; none where the plugin computed none.
        gradient_norm: Option<f64>,
        /// The step's learning rate.
        learning_rate: f64,
        /// Tokens a second since the last recorded step, without padding.
        tokens_per_second: Option<f64>,
        /// Wall clock since the first step, in seconds.
        seconds: f64,
        /// Whether it belongs into `training.csv`, or is for the eye only.
        record: bool,
    },
    /// Training is over and the model saved.
    Trained {
        /// Wall clock, in seconds.
        seconds: f64,
    },
    /// An evaluation begins.
    Evaluating {
        /// Place in the job's list.
        index: usize,
    },
    /// An evaluation goes on.
    Evaluation {
        /// Share done, 0 to 1.
        share: f64,
    },
    /// An evaluation is over.
    Evaluated(Evaluated),
    /// An evaluation failed; the worker goes on with the next.
    EvaluationFailed {
        /// Place in the job's list.
        index: usize,
        /// What kind.
        kind: FailureKind,
        /// The words.
        reason: String,
    },
    /// A log event of the plugin.
    Log {
        /// `error`, `warn`, `info` or `debug`.
        level: String,
        /// The words.
        text: String,
    },
    /// Nothing more can be done.
    Failed {
        /// What kind.
        kind: FailureKind,
        /// The words.
        reason: String,
    },
    /// All is done.
    Done {
        /// Seconds inside the plugin's functions.
        inside_plugin_s: f64,
        /// Seconds outside them: loading, making examples, saving, scoring.
        outside_plugin_s: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_pipe() {
        let messages = [
            Message::Started {
                parameters: 5,
                notes: vec!["a \"quoted\"\nnote".to_owned()],
            },
            Message::Progress {
                step: 3,
                loss: 0.1,
                accuracy: None,
                gradient_norm: Some(2.5),
                learning_rate: 1e-3,
                tokens_per_second: Some(1e6),
                seconds: 0.5,
                record: true,
            },
            Message::Trained { seconds: 1.0 },
            Message::Evaluating { index: 2 },
            Message::Evaluated(Evaluated {
                index: 2,
                scores: vec![Score {
                    label: "depth=0.50".to_owned(),
                    samples: 3,
                    correct: 2,
                    tokens: 9,
                    nll_sum: 0.25,
                }],
                state_bytes: 64,
                peak_memory_bytes: None,
                tokens: 512,
                seconds: 0.125,
            }),
            Message::EvaluationFailed {
                index: 0,
                kind: FailureKind::OutOfMemory,
                reason: "no room".to_owned(),
            },
            Message::Failed {
                kind: FailureKind::Disk,
                reason: "full".to_owned(),
            },
            Message::Done {
                inside_plugin_s: 1.5,
                outside_plugin_s: 0.01,
            },
        ];
        for message in messages {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'), "one line: {line}");
            assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        }
    }
}
