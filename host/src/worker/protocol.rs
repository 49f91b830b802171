//! What host and worker say to each other: one job as JSON on the worker's standard input, then JSON
//! lines back. Plain data only; what a message leads to is decided by the host.

use std::path::PathBuf;

use longhaul_results::outcomes::Outcomes;
use serde::{Deserialize, Serialize};

use crate::architecture::ArchSpec;
use crate::run::plan::{Checkpoint, Evaluation, Probes, Training};
use crate::text;

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
    /// Seed of initialisation and data.
    pub seed: u64,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// CPU threads.
    pub threads: u32,
    /// The training; none of a checkpoint.
    pub training: Option<Training>,
    /// Whether it is to be done; else the model that it left is read.
    pub train: bool,
    /// The run's folder, from the root of the file system: a plugin may change the folder it works in.
    #[serde(with = "crate::path_text")]
    pub folder: PathBuf,
    /// Name of the model's file in the folder `models` there.
    pub model: String,
    /// Identity of the training, kept in the saved model.
    pub identity: String,
    /// The checkpoint that is read instead of a trained model.
    pub checkpoint: Option<Checkpoint>,
    /// What its text task is made of.
    pub materials: Option<crate::run::materials::Record>,
    /// Seconds after which the training is kept as it stands, again and again.
    pub save_every_s: u64,
    /// Evaluations in order.
    pub evaluations: Vec<Evaluation>,
    /// What is looked at beside the answers.
    #[serde(default)]
    pub probes: Probes,
}

/// Most of what a job may ask for of a model's size and of threads.
const MOST_WIDTH: u64 = 1 << 16;
const MOST_LAYERS: u64 = 1 << 10;
const MOST_THREADS: u64 = 1 << 10;
/// Most tokens of one training step: a model with one value a token would need gigabytes.
const MOST_BATCH: u64 = 1 << 30;
/// Longest example, in tokens.
const MOST_LENGTH: u64 = 1 << 40;
/// Most evaluations of a job.
const MOST_EVALUATIONS: u64 = 100_000;

impl Job {
    /// Whether it can be done at all, by its numbers and names alone. The host asks before it starts a worker,
    /// and the worker before it begins.
    ///
    /// # Errors
    /// The first thing that cannot be, with what can.
    pub fn check(&self) -> Result<(), String> {
        between("d_model", self.d_model.into(), 1, MOST_WIDTH)?;
        between("layers", self.layers.into(), 1, MOST_LAYERS)?;
        between("threads", self.threads.into(), 1, MOST_THREADS)?;
        crate::device::Devices::parse_one(&self.device)?;
        match (&self.training, &self.checkpoint) {
            (Some(training), None) => {
                check_file_name(&self.model)?;
                training.check()?;
            }
            (None, Some(_)) => {}
            _ => return Err("it is of neither a training nor a checkpoint, or of both".to_owned()),
        }
        let evaluations = self.evaluations.len() as u64;
        between(
            "the number of evaluations",
            evaluations,
            0,
            MOST_EVALUATIONS,
        )?;
        for evaluation in &self.evaluations {
            let (length, samples) = (evaluation.length as u64, evaluation.samples);
            between("an evaluation's length", length, 1, MOST_LENGTH)?;
            between(
                "an evaluation's number of examples",
                samples,
                1,
                u64::MAX / length,
            )?;
        }
        Ok(())
    }

    /// The training that is to be done, if one is.
    pub fn to_train(&self) -> Option<&Training> {
        self.training.as_ref().filter(|_| self.train)
    }

    /// Length of training sequences whose states an evaluation may start from: that of the training, where it
    /// is known.
    pub fn source_length(&self, evaluation: &Evaluation) -> usize {
        let own = self.training.as_ref().map(|training| training.length);
        let stated = self.checkpoint.as_ref().and_then(|one| one.train_length);
        own.or(stated).unwrap_or(evaluation.length)
    }
}

impl Training {
    fn check(&self) -> Result<(), String> {
        let (length_min, length) = (self.length_min as u64, self.length as u64);
        let batch = self.batch as u64;
        between("the longest training length", length, 1, MOST_LENGTH)?;
        between("the shortest training length", length_min, 1, length)?;
        if let Some(part) = self
            .curriculum
            .filter(|part| !(*part > 0.0 && *part <= 1.0))
        {
            return Err(format!(
                "the part of the curriculum is {part}; it is above 0 and at most 1"
            ));
        }
        between("the batch", batch, 1, (MOST_BATCH / length).max(1))?;
        between("steps", self.steps, 1, u64::MAX / batch)?;
        between("warmup_steps", self.warmup_steps, 0, self.steps)?;
        let rate = self.learning_rate;
        if !rate.is_finite() || rate <= 0.0 {
            return Err(format!(
                "the learning rate is {rate}; it is a number above 0"
            ));
        }
        for (what, value) in [
            ("weight decay", self.weight_decay),
            ("clip_norm", self.clip_norm),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(format!("the {what} is {value}; it is a number, 0 or above"));
            }
        }
        Ok(())
    }
}

fn between(what: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("{what} is {value}; it is {least} to {most}"))
}

/// Refuses a name that could lead out of a folder, or that a file cannot have.
fn check_file_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!(
        "the model's file cannot be named `{}`",
        crate::text::line(name)
    ))
}

/// What went wrong in a worker that lived to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Memory ran out, and the plugin noticed.
    OutOfMemory,
    /// The model file could not be written. The host judges whether that was the disk or the plugin, which
    /// may have used up descriptors.
    Disk,
    /// The device failed, after which a process has to begin anew on it.
    Device,
    /// Anything else.
    Error,
}

/// Scores of one breakdown, or of all examples (label empty). The mean is a ratio, `sum / weight`, and its
/// deviation follows from the sums ([`Score::spread`]).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Empty, or `depth=0.50`.
    #[serde(deserialize_with = "text::as_line")]
    pub label: String,
    /// Samples in the task's metric: answers, or examples.
    pub samples: u64,
    /// Sum of what they count: of answers that are right or wrong the number of right ones, of shares these,
    /// of a loss a byte its bits.
    pub sum: f64,
    /// Sum of its squares.
    pub squares: f64,
    /// Sum of what that is a mean over: 1 a sample, of a loss a byte its bytes.
    pub weight: f64,
    /// Sum of its squares.
    pub weight_squares: f64,
    /// Sum of the products of both.
    pub products: f64,
    /// Scored tokens.
    pub tokens: u64,
    /// Sum of their negative log likelihood, in nats.
    pub nll_sum: f64,
}

impl Score {
    /// Of one sample with this score.
    pub fn of(value: f64) -> Self {
        Self::ratio(value, 1.0)
    }

    /// Of one sample that counts so much of so much: bits of bytes.
    pub fn ratio(value: f64, weight: f64) -> Self {
        Self {
            samples: 1,
            sum: value,
            squares: value * value,
            weight,
            weight_squares: weight * weight,
            products: value * weight,
            ..Self::default()
        }
    }

    /// Of answers, `correct` of which are right.
    pub fn answers(samples: u64, correct: u64) -> Self {
        let (all, right) = (samples as f64, correct as f64);
        Self {
            samples,
            sum: right,
            squares: right,
            weight: all,
            weight_squares: all,
            products: right,
            ..Self::default()
        }
    }

    /// The mean; `None` of nothing.
    pub fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// Standard deviation of a sample's score. Where samples weigh differently it is that of what a sample adds
    /// to the error of the ratio, to first order (Cochran 1977, Sampling Techniques, equation 6.9), so that the
    /// standard error of the mean is this over the root of `samples` in both cases. `None` of fewer than two.
    pub fn spread(&self) -> Option<f64> {
        let (mean, count) = (self.mean()?, self.samples as f64);
        let squares = self.squares - mean * (2.0 * self.products - mean * self.weight_squares);
        let spread = || (squares.max(0.0) / (count - 1.0)).sqrt() / (self.weight / count);
        (self.samples > 1).then(spread)
    }

    /// Takes another's samples in.
    pub fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.sum += other.sum;
        self.squares += other.squares;
        self.weight += other.weight;
        self.weight_squares += other.weight_squares;
        self.products += other.products;
        self.tokens += other.tokens;
        self.nll_sum += other.nll_sum;
    }

    /// The same of examples that were read in some other way.
    pub fn read_as(self, way: &str) -> Self {
        let label = match self.label.as_str() {
            "" => way.to_owned(),
            label => format!("{way},{label}"),
        };
        Self { label, ..self }
    }
}

/// What is seen of a model beside its answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observed {
    /// Root mean square of the values of a part of the state.
    StateNorm {
        /// The layer, from 0.
        layer: u32,
        /// What keeps it.
        #[serde(deserialize_with = "text::as_line")]
        state: String,
        /// Its size, a row.
        bytes: u64,
    },
    /// Total variation between predictions with and without the first tokens.
    Remembrance {
        /// How many.
        skipped: u64,
    },
}

/// Something seen over some examples of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// What.
    pub what: Observed,
    /// Tokens read when it was looked at.
    pub position: u64,
    /// Examples.
    pub samples: u64,
    /// Sum of its values.
    pub sum: f64,
    /// Sum of their squares.
    pub sum_squares: f64,
}

/// A generated answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Which example of the evaluation.
    pub sample: u64,
    /// The words, without what ended them.
    pub text: String,
    /// Tokens generated.
    pub tokens: u64,
    /// Why it is over: `stop`, `length` or `scored`.
    pub end: String,
    /// In the task's metric.
    pub score: f64,
    /// The prompt, where it is short.
    pub prompt: Option<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// What the answer was held against.
    pub references: Vec<String>,
    /// What results are broken down by.
    pub labels: Vec<String>,
}

impl Answered {
    /// Bytes of all its texts.
    pub fn bytes(&self) -> usize {
        let lists = self.references.iter().chain(&self.labels);
        let own = self.text.len() + self.end.len() + self.prompt.as_ref().map_or(0, String::len);
        lists.map(String::len).sum::<usize>() + own
    }
}

/// The outcome of one evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Place in the job's list.
    pub index: usize,
    /// Breakdowns in order of their label, then all examples.
    pub scores: Vec<Score>,
    /// What each example scored; none of more than are kept.
    pub outcomes: Option<Outcomes>,
    /// What else was seen.
    #[serde(default)]
    pub observations: Vec<Observation>,
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
        #[serde(deserialize_with = "text::as_lines")]
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
    /// A training that was interrupted goes on where it was kept.
    GoesOn {
        /// The step that comes next, from 1.
        step: u64,
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
    /// An answer was generated, in the evaluation under way.
    Answered(Answered),
    /// An evaluation is over.
    Evaluated(Evaluated),
    /// An evaluation failed; the worker goes on with the next.
    EvaluationFailed {
        /// Place in the job's list.
        index: usize,
        /// What kind.
        kind: FailureKind,
        /// The words.
        #[serde(deserialize_with = "text::as_line")]
        reason: String,
    },
    /// A log event of the plugin.
    Log {
        /// `error`, `warn`, `info` or `debug`.
        level: String,
        /// The words.
        #[serde(deserialize_with = "text::as_line")]
        text: String,
    },
    /// Nothing more can be done.
    Failed {
        /// What kind.
        kind: FailureKind,
        /// The words.
        #[serde(deserialize_with = "text::as_line")]
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
pub mod tests {
    //! Also holds the job that tests beside this module use.

    use longhaul_tasks::InitialState;

    use super::*;
    use crate::architecture::tests::spec;

    /// A job for tests: a training of ten steps and two evaluations of ten examples.
    pub fn job() -> Job {
        let evaluation = |length| Evaluation {
            split: longhaul_results::Split::Test,
            length,
            samples: 10,
        };
        Job {
            architecture: spec(),
            d_model: 8,
            layers: 1,
            task: "parity".into(),
            seed: 0,
            device: "cpu".into(),
            threads: 1,
            training: Some(Training {
                length_min: 3,
                length: 16,
                curriculum: None,
                steps: 10,
                batch: 4,
                learning_rate: 1e-3,
                warmup_steps: 0,
                weight_decay: 0.1,
                clip_norm: 1.0,
                initial_state: InitialState::Zero,
            }),
            train: true,
            folder: "/runs/a".into(),
            model: "a-s0-lr0.001-12345678.safetensors".into(),
            identity: "12345678".into(),
            checkpoint: None,
            materials: None,
            save_every_s: 120,
            evaluations: vec![evaluation(16), evaluation(32)],
            probes: Probes::default(),
        }
    }

    #[test]
    fn a_job_that_cannot_be_is_refused_with_a_sentence() {
        assert_eq!(job().check(), Ok(()));
        let refused = |change: &dyn Fn(&mut Job)| {
            let mut job = job();
            change(&mut job);
            job.check().unwrap_err()
        };
        assert_eq!(
            refused(&|job| job.d_model = 1 << 31),
            "d_model is 2147483648; it is 1 to 65536"
        );
        assert!(refused(&|job| job.layers = 0).contains("layers is 0"));
        assert!(refused(&|job| job.threads = u32::MAX).contains("threads"));
        let of = |job: &mut Job| job.training.as_mut().unwrap().length = usize::MAX;
        assert!(refused(&of).contains("training length"));
        assert!(refused(&|job| job.training = None).contains("neither"));
        assert!(refused(&|job| job.device = "gpu".into()).contains("gpu"));
        assert!(refused(&|job| job.evaluations[0].length = 0).contains("length is 0"));
        assert!(refused(&|job| job.evaluations[0].samples = 1 << 62).contains("examples"));
        for name in ["", "..", "../a", "a/b", ".a", "a\0", &"a".repeat(256)] {
            assert!(
                refused(&|job| job.model = name.to_owned()).contains("named"),
                "{name}"
            );
        }
        let training =
            |change: &dyn Fn(&mut Training)| refused(&|job| change(job.training.as_mut().unwrap()));
        assert!(training(&|training| training.batch = 0).contains("batch is 0"));
        assert!(training(&|training| training.batch = 1 << 31).contains("batch"));
        assert!(training(&|training| training.steps = 0).contains("steps is 0"));
        assert!(training(&|training| training.length_min = 17).contains("shortest"));
        for part in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(training(&|training| training.curriculum = Some(part)).contains("curriculum"));
        }
        assert!(
            training(&|training| training.weight_decay = f64::NAN).contains("weight decay is NaN")
        );
        assert!(training(&|training| training.learning_rate = 0.0).contains("learning rate is 0"));
        assert!(
            training(&|training| training.clip_norm = -1.0)
                .contains("clip_norm is -1; it is a number")
        );
    }

    #[test]
    fn every_message_survives_the_pipe() {
        let messages = [
            Message::Started {
                parameters: 5,
                notes: vec!["a \"quoted\" note".to_owned()],
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
            Message::Answered(Answered {
                sample: 7,
                text: "a \"quoted\"\nanswer".to_owned(),
                end: "stop".to_owned(),
                score: 0.25,
                references: vec!["7".to_owned()],
                ..Answered::default()
            }),
            Message::Evaluated(Evaluated {
                index: 2,
                scores: vec![Score {
                    label: "depth=0.50".to_owned(),
                    tokens: 9,
                    nll_sum: 0.25,
                    ..Score::answers(3, 2)
                }],
                outcomes: Outcomes::new([(1.0, 1.0), (1.0, 0.0), (1.0, 1.0)]).ok(),
                observations: vec![Observation {
                    what: Observed::Remembrance { skipped: 8 },
                    position: 16,
                    samples: 3,
                    sum: 0.75,
                    sum_squares: 0.25,
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
