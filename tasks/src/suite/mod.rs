//! Suites: architectures, tasks and settings in TOML. Built-in ones live in `tasks/suites/`. A key
//! that does not exist is an error with the nearest one and its line; what a number may be stands in
//! [`crate::bounds`].

mod check;
mod distribution;
mod initial;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::check::Problem;
pub use self::distribution::TrainDistribution;
pub use self::initial::InitialState;
use crate::error::{SuiteError, nearest};
use crate::task::Task;

/// A suite. Every part but its tasks and architectures has defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// One line.
    #[serde(default)]
    pub title: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// How long it takes, and where.
    #[serde(default)]
    pub duration: String,
    /// How models are trained.
    #[serde(default)]
    pub training: Training,
    /// How large models are.
    #[serde(default)]
    pub model: ModelSize,
    /// How they are evaluated.
    #[serde(default)]
    pub evaluation: Evaluation,
    /// What a unit may use.
    #[serde(default)]
    pub limits: Limits,
    /// What text tasks are made of, where the command line does not say.
    #[serde(default)]
    pub materials: SuiteMaterials,
    /// The architectures.
    #[serde(default, rename = "architecture")]
    pub architectures: Vec<ArchitectureEntry>,
    /// The tasks.
    #[serde(default, rename = "task")]
    pub tasks: Vec<TaskEntry>,
    /// What others published, to be held against what is measured.
    #[serde(default, rename = "target")]
    pub targets: Vec<TargetEntry>,
}

/// A published figure. Exactly one of `at_least`, `below` and `above` says what is expected.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetEntry {
    /// What was found, in a sentence.
    pub claim: String,
    /// Where it stands: paper, table or figure.
    pub source: String,
    /// Architecture with options, as one of the suite's; of several it is said of each.
    #[serde(deserialize_with = "one_or_many")]
    pub architecture: Vec<String>,
    /// Task with options, as one of the suite's.
    pub task: String,
    /// The part that it speaks of, of a task that has the examples of several: `niah_single_2`; of several likewise.
    #[serde(default, deserialize_with = "one_or_many")]
    pub part: Vec<String>,
    /// Evaluation lengths it speaks of.
    pub lengths: Vec<usize>,
    /// Whether it speaks of the mean accuracy over them, by the trapezoidal rule from the first to the last, and not of
    /// every one.
    #[serde(default)]
    pub mean: bool,
    /// Accuracy or loss at every one of these lengths, or more.
    pub at_least: Option<f64>,
    /// Less than this accuracy or loss at every one of these lengths.
    pub below: Option<f64>,
    /// Where the needle lies, from 0 to 1, in the examples that it speaks of; of all where there is nothing. Only with
    /// `above`.
    #[serde(default)]
    pub depths: Vec<f64>,
    /// More accuracy at every one of these lengths than this, seed by seed.
    pub above: Option<AboveEntry>,
    /// Of models whose training lengths were drawn so; without it of each distribution that is trained.
    pub train_distribution: Option<TrainDistribution>,
}

/// A text, or a list of them.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Texts;
    impl<'de> serde::de::Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            to.write_str("a text or a list of texts")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = list.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }
    from.deserialize_any(Texts)
}

/// What a target is held against: what is not given is as in the target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AboveEntry {
    /// Architecture with options, as one of the suite's.
    pub architecture: Option<String>,
    /// A part of the task.
    pub part: Option<String>,
    /// An evaluation length.
    pub length: Option<usize>,
    /// Where the needle lies, from 0 to 1.
    #[serde(default)]
    pub depths: Vec<f64>,
}

/// Settings of training.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences a step.
    pub batch: usize,
    /// Peak learning rates; every one is trained.
    pub learning_rates: Vec<f64>,
    /// How training lengths are drawn; every one is trained.
    pub train_distributions: Vec<TrainDistribution>,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm; 0 switches clipping off.
    pub clip_norm: f64,
    /// Number of seeds, from 0 on.
    pub seeds: u64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch: 32,
            learning_rates: vec![1e-3],
            train_distributions: vec![TrainDistribution::default()],
            warmup_steps: 50,
            weight_decay: 0.1,
            clip_norm: 1.0,
            seeds: 1,
        }
    }
}

/// Size of every model that does not say otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSize {
    /// D.
    pub d_model: u32,
    /// Layers.
    pub layers: u32,
}

impl Default for ModelSize {
    fn default() -> Self {
        Self {
            d_model: 64,
            layers: 2,
        }
    }
}

/// Settings of evaluation.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluation {
    /// Examples a length.
    pub samples: u64,
    /// Whether the size of the recurrent state is recorded, by layer and position.
    pub state_norms: bool,
    /// Examples a length whose effective remembrance is measured.
    pub remembrance: u64,
    /// Other states to start from, from each of which all examples are read again.
    pub initial_states: Vec<InitialState>,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            samples: 500,
            state_norms: false,
            remembrance: 0,
            initial_states: Vec::new(),
        }
    }
}

/// Limits of one unit: a training and its evaluations.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Seconds that it may take, in which its worker runs or sleeps; `None` is no limit.
    pub time_s: Option<u64>,
    /// Bytes of resident memory; `None` is no limit.
    pub memory_bytes: Option<u64>,
}

/// What text tasks are made of: paths as the command line takes them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuiteMaterials {
    /// A tokenizer's file or folder, or `bytes`.
    pub tokenizer: Option<PathBuf>,
    /// A folder of texts.
    pub texts: Option<PathBuf>,
    /// Files of questions.
    pub questions: Vec<PathBuf>,
}

/// An architecture of a suite.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchitectureEntry {
    /// As `--arch` takes it.
    pub name: String,
}

/// A task of a suite.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskEntry {
    /// As `--task` takes it.
    pub name: String,
    /// Longest training length; the task's own default where there is none.
    pub train_length: Option<usize>,
    /// Shortest training length; the same as the longest where there is none.
    pub train_length_min: Option<usize>,
    /// Evaluation lengths.
    #[serde(default)]
    pub lengths: Vec<usize>,
    /// Examples a length, instead of the suite's.
    pub samples: Option<u64>,
    /// Optimiser steps, instead of the suite's.
    pub steps: Option<u64>,
    /// Sequences a step, instead of the suite's.
    pub batch: Option<usize>,
    /// Learning rates, instead of the suite's.
    pub learning_rates: Option<Vec<f64>>,
    /// How training lengths are drawn, instead of the suite's.
    pub train_distributions: Option<Vec<TrainDistribution>>,
    /// Decoupled weight decay, instead of the suite's.
    pub weight_decay: Option<f64>,
    /// Architectures, instead of the suite's.
    pub architectures: Option<Vec<String>>,
}

impl TaskEntry {
    /// An entry with a task and nothing else, as `--task` gives it.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            train_length: None,
            train_length_min: None,
            lengths: Vec::new(),
            samples: None,
            steps: None,
            batch: None,
            learning_rates: None,
            train_distributions: None,
            weight_decay: None,
            architectures: None,
        }
    }

    /// Shortest and longest training length.
    pub fn train_lengths(&self, task: &dyn Task) -> (usize, usize) {
        match (self.train_length_min, self.train_length) {
            (Some(min), Some(max)) => (min, max),
            (None, Some(max)) => (max, max),
            (Some(min), None) => (min, task.default_train_lengths().1),
            (None, None) => task.default_train_lengths(),
        }
    }
}

/// The built-in suites, name and text.
pub fn suites() -> &'static [(&'static str, &'static str)] {
    &[
        ("quick", include_str!("../../suites/quick.toml")),
        ("smoke", include_str!("../../suites/smoke.toml")),
        ("niah", include_str!("../../suites/niah.toml")),
        (
            "ruler-tokens",
            include_str!("../../suites/ruler-tokens.toml"),
        ),
        ("mqar", include_str!("../../suites/mqar.toml")),
        ("books", include_str!("../../suites/books.toml")),
        ("published", include_str!("../../suites/published.toml")),
        (
            "published-small",
            include_str!("../../suites/published-small.toml"),
        ),
        ("ruler", include_str!("../../suites/ruler.toml")),
        ("babilong", include_str!("../../suites/babilong.toml")),
        ("ablation", include_str!("../../suites/ablation.toml")),
        ("needles", include_str!("../../suites/needles.toml")),
        ("huang2025", include_str!("../../suites/huang2025.toml")),
        (
            "huang2025-grid",
            include_str!("../../suites/huang2025-grid.toml"),
        ),
        (
            "state-tracking",
            include_str!("../../suites/state-tracking.toml"),
        ),
        (
            "state-tracking-large",
            include_str!("../../suites/state-tracking-large.toml"),
        ),
    ]
}

impl Suite {
    /// A built-in suite by name, or a file.
    ///
    /// # Errors
    /// Neither; a key that does not exist; a value that is not allowed.
    pub fn load(name_or_path: &str) -> Result<Self, SuiteError> {
        if let Some((name, text)) = suites().iter().find(|(name, _)| *name == name_or_path) {
            return Self::from_toml(text, name);
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            let names: Vec<&str> = suites().iter().map(|(name, _)| *name).collect();
            return Err(SuiteError::Unknown {
                name: name_or_path.to_owned(),
                nearest: nearest(name_or_path, names.iter().copied()),
                known: names.join(", "),
            });
        }
        let text = std::fs::read_to_string(path).map_err(|source| SuiteError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_toml(&text, name_or_path)
    }

    /// A suite from its text; `origin` is what messages call it.
    ///
    /// # Errors
    /// A key that does not exist; a value that is not allowed.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, SuiteError> {
        let suite: Self = toml::from_str(text).map_err(|error| of_toml(&error, text, origin))?;
        check::suite(&suite).map_err(|problem| match problem {
            Problem::Value(reason) => SuiteError::Invalid {
                origin: origin.to_owned(),
                reason,
            },
            Problem::Task(source) => SuiteError::Task {
                origin: origin.to_owned(),
                source,
            },
        })?;
        Ok(suite)
    }
}

/// Longest line of a suite that an error quotes, in bytes.
const QUOTED: usize = 200;

/// The parser's error with the line it is about; of a line that would fill the screen, its number alone.
fn shown(error: &toml::de::Error, text: &str, line: usize) -> String {
    let quoted = text.lines().nth(line - 1).unwrap_or("");
    if quoted.len() <= QUOTED {
        return error.to_string().trim_end().to_owned();
    }
    format!("line {line}: {}", error.message())
}

/// The parser's error; of a key that does not exist, with the nearest that does.
fn of_toml(error: &toml::de::Error, text: &str, origin: &str) -> SuiteError {
    let message = error.message();
    let before = error.span().map_or("", |span| &text[..span.start]);
    let line = 1 + before.matches('\n').count();
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(key)) => {
            let known: Vec<&str> = quoted.collect();
            SuiteError::UnknownKey {
                origin: origin.to_owned(),
                line,
                key: key.to_owned(),
                nearest: nearest(key, known.iter().copied()),
                known: known.join(", "),
            }
        }
        _ => SuiteError::Toml {
            origin: origin.to_owned(),
            message: shown(error, text, line),
        },
    }
}
