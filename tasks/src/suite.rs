//! Suites: architectures, tasks and settings in TOML. Built-in ones live in `tasks/suites/`. A key
//! that does not exist is an error with the nearest one and its line.

use std::path::Path;

use serde::Deserialize;

use crate::error::{SuiteError, nearest};
use crate::task::{Task, parse_task};

/// A suite. Every part but its tasks and architectures has defaults.
#[derive(Debug, Clone, Deserialize)]
pub struct Suite {
    /// One line.
    #[serde(default)]
    pub title: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
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
pub struct TargetEntry {
    /// What was found, in a sentence.
    pub claim: String,
    /// Where it stands: paper, table or figure.
    pub source: String,
    /// Architecture with options, as one of the suite's.
    pub architecture: String,
    /// Task with options, as one of the suite's.
    pub task: String,
    /// Evaluation lengths it speaks of.
    pub lengths: Vec<usize>,
    /// Accuracy at every one of these lengths, or more.
    pub at_least: Option<f64>,
    /// Less than this accuracy at every one of these lengths.
    pub below: Option<f64>,
    /// More than this architecture's accuracy at every one of these lengths.
    pub above: Option<String>,
}

/// Settings of training.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Training {
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences a step.
    pub batch: usize,
    /// Peak learning rates; every one is trained.
    pub learning_rates: Vec<f64>,
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
            warmup_steps: 50,
            weight_decay: 0.1,
            clip_norm: 1.0,
            seeds: 1,
        }
    }
}

/// Size of every model that does not say otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
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
#[serde(default)]
pub struct Evaluation {
    /// Examples a length.
    pub samples: u64,
}

impl Default for Evaluation {
    fn default() -> Self {
        Self { samples: 500 }
    }
}

/// Limits of one unit: a training and its evaluations.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Seconds that it may take, in which its worker runs or sleeps; `None` is no limit.
    pub time_s: Option<u64>,
    /// Bytes of resident memory; `None` is no limit.
    pub memory_bytes: Option<u64>,
}

/// An architecture of a suite.
#[derive(Debug, Clone, Deserialize)]
pub struct ArchitectureEntry {
    /// As `--arch` takes it.
    pub name: String,
}

/// A task of a suite.
#[derive(Debug, Clone, Deserialize)]
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

/// Keys of each table, for messages about others.
const KEYS: [(&str, &[&str]); 8] = [
    (
        "the top level",
        &[
            "title",
            "description",
            "training",
            "model",
            "evaluation",
            "limits",
            "architecture",
            "task",
            "target",
        ],
    ),
    (
        "training",
        &[
            "steps",
            "batch",
            "learning_rates",
            "warmup_steps",
            "weight_decay",
            "clip_norm",
            "seeds",
        ],
    ),
    ("model", &["d_model", "layers"]),
    ("evaluation", &["samples"]),
    ("limits", &["time_s", "memory_bytes"]),
    ("architecture", &["name"]),
    (
        "task",
        &[
            "name",
            "train_length",
            "train_length_min",
            "lengths",
            "samples",
            "steps",
            "batch",
            "learning_rates",
            "weight_decay",
            "architectures",
        ],
    ),
    (
        "target",
        &[
            "claim",
            "source",
            "architecture",
            "task",
            "lengths",
            "at_least",
            "below",
            "above",
        ],
    ),
];

/// The built-in suites, name and text.
pub fn suites() -> &'static [(&'static str, &'static str)] {
    &[
        ("quick", include_str!("../suites/quick.toml")),
        ("smoke", include_str!("../suites/smoke.toml")),
        ("niah", include_str!("../suites/niah.toml")),
        ("mqar", include_str!("../suites/mqar.toml")),
        ("published", include_str!("../suites/published.toml")),
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
        let toml = |error: toml::de::Error| SuiteError::Toml {
            origin: origin.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        };
        let value: toml::Table = toml::from_str(text).map_err(toml)?;
        check_keys(&value, text, origin)?;
        let suite: Self = toml::from_str(text).map_err(toml)?;
        suite.validate(origin)?;
        Ok(suite)
    }

    fn validate(&self, origin: &str) -> Result<(), SuiteError> {
        let invalid = |reason: String| {
            Err(SuiteError::Invalid {
                origin: origin.to_owned(),
                reason,
            })
        };
        if self.training.steps == 0 || self.training.batch == 0 || self.training.seeds == 0 {
            return invalid("steps, batch and seeds of [training] are at least 1".to_owned());
        }
        if self.training.learning_rates.is_empty() {
            return invalid("learning_rates of [training] is empty".to_owned());
        }
        for target in &self.targets {
            let expected = [
                target.at_least.is_some(),
                target.below.is_some(),
                target.above.is_some(),
            ];
            if expected.iter().filter(|given| **given).count() != 1 || target.lengths.is_empty() {
                return invalid(format!(
                    "target `{}` needs lengths and exactly one of at_least, below and above",
                    target.claim
                ));
            }
            parse_task(&target.task).map_err(|source| SuiteError::Task {
                origin: origin.to_owned(),
                source,
            })?;
        }
        for entry in &self.tasks {
            let task = parse_task(&entry.name).map_err(|source| SuiteError::Task {
                origin: origin.to_owned(),
                source,
            })?;
            let (min, max) = entry.train_lengths(task.as_ref());
            if min > max {
                return invalid(format!(
                    "task `{}`: train_length_min {min} is above train_length {max}",
                    entry.name
                ));
            }
            for length in entry.lengths.iter().copied().chain([min, max]) {
                if !(task.min_length()..=task.max_length()).contains(&length) {
                    return invalid(format!(
                        "task `{}` takes lengths {}..{}, not {length}",
                        entry.name,
                        task.min_length(),
                        task.max_length()
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_keys(value: &toml::Table, text: &str, origin: &str) -> Result<(), SuiteError> {
    let keys_of = |table: &str| {
        KEYS.iter()
            .find(|(name, _)| *name == table)
            .expect("known")
            .1
    };
    let check = |table: &str, found: &toml::Table| -> Result<(), SuiteError> {
        let known = keys_of(table);
        match found.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(SuiteError::UnknownKey {
                origin: origin.to_owned(),
                line: line_of(text, key),
                key: key.clone(),
                nearest: nearest(key, known.iter().copied()),
                table: if table == "the top level" {
                    table.to_owned()
                } else {
                    format!("[{table}]")
                },
                known: known.join(", "),
            }),
        }
    };
    check("the top level", value)?;
    for (name, part) in value {
        match part {
            toml::Value::Table(table) => check(name, table)?,
            toml::Value::Array(tables) => {
                for table in tables.iter().filter_map(toml::Value::as_table) {
                    check(name, table)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The first line on which a key is set or opens a table.
fn line_of(text: &str, key: &str) -> usize {
    let found = text.lines().position(|line| {
        let line = line.trim_start().trim_start_matches('[').trim_start();
        line.strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    });
    found.map_or(1, |index| index + 1)
}
