//! What a task is, and the registry of all of them.

use std::borrow::Cow;

use crate::error::{TaskError, nearest};
use crate::materials::{Material, Materials};
use crate::named::Named;
use crate::options::{OptionSpec, Options};
use crate::parts::{ATTEMPTS, split_of};
use crate::ruler::score;
use crate::tasks;

/// Which examples. No two splits share any, of any seed, where a length has enough to give each some:
/// `tasks/README.md` says where not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// To train on.
    Train,
    /// To choose by.
    Validation,
    /// To report.
    Test,
}

/// Where an example comes from. The same coordinates are the same bytes on any worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coordinates {
    /// The split.
    pub split: Split,
    /// The task's length, in tokens.
    pub length: usize,
    /// The data seed.
    pub seed: u64,
    /// Which example.
    pub index: u64,
}

/// What is measured of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Every scored token is an answer, right or wrong.
    TokenAccuracy,
    /// An example is an answer, right when all its scored tokens are. Answers are teacher-forced; that
    /// all tokens are right under it is the same as greedy decoding giving exactly the answer.
    ExactMatch,
    /// The share of the references that a generated answer contains, whatever the case of letters (RULER's
    /// `string_match_all`).
    StringMatchAll,
    /// Whether a generated answer contains any of the references, whatever the case of letters (RULER's
    /// `string_match_part`).
    StringMatchPart,
    /// Whether a generated answer names the reference and no other word that an answer may be, in its first sentence
    /// (BABILong's rule).
    OnlyLabel,
    /// Negative log likelihood in bits over the bytes of text of the scored tokens, all examples together.
    BitsPerByte,
}

impl Metric {
    /// The metric's name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenAccuracy => "token_accuracy",
            Self::ExactMatch => "exact_match",
            Self::StringMatchAll => "string_match_all",
            Self::StringMatchPart => "string_match_part",
            Self::OnlyLabel => "only_label",
            Self::BitsPerByte => "bits_per_byte",
        }
    }

    /// Whether answers are generated, after prompts that no model is trained on.
    pub fn is_generated(self) -> bool {
        self.is_string_match() || self == Self::OnlyLabel
    }

    /// Whether the references alone score a generated answer, as RULER's do.
    pub fn is_string_match(self) -> bool {
        matches!(self, Self::StringMatchAll | Self::StringMatchPart)
    }
}

/// Something that results can be broken down by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// What varies.
    pub key: &'static str,
    /// Its value in this example.
    pub value: String,
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Makes a task of checked options, and of materials if it reads text.
pub(crate) type Build = fn(&Options, &Materials) -> Result<Box<dyn Task>, TaskError>;

/// What is said of a task.
pub struct TaskSpec {
    /// The name `--task` takes.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// Paper, arXiv id, section or file.
    pub source: &'static str,
    /// What its length counts.
    pub length_meaning: &'static str,
    /// What is scored.
    pub scored: &'static str,
    /// How chance is defined.
    pub chance_meaning: &'static str,
    /// Of its definition: it goes up when any example changes, and stands in the options text.
    pub version: u64,
    /// What counts as one answer.
    pub metric: Metric,
    /// Its options.
    pub options: &'static [OptionSpec],
    /// What it is made of beside its options.
    pub materials: &'static [Material],
    /// Makes it from checked options, and the materials of a task that reads text.
    pub(crate) build: Build,
}

/// A task with its options.
pub trait Task: Send + Sync {
    /// What is said of it.
    fn spec(&self) -> &'static TaskSpec;
    /// All options and the version as canonical text: sorted, comma-separated, parses to the same task.
    fn options_text(&self) -> String;
    /// Number of token ids.
    fn vocab(&self) -> usize;
    /// Accuracy at a length of a guesser who knows the format, in the task's metric; a loss has none.
    fn chance(&self, length: usize) -> Option<f64>;
    /// Shortest length.
    fn min_length(&self) -> usize;
    /// Longest length.
    fn max_length(&self) -> usize {
        1 << 20
    }
    /// Shortest and longest training length of the source.
    fn default_train_lengths(&self) -> (usize, usize);
    /// Examples after which each of a breakdown's labels has occurred: fewer leave some out.
    fn label_cycle(&self) -> u64 {
        1
    }
    /// An example of a length that is known to be allowed, of whatever split it then belongs to; each
    /// attempt is another.
    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample>;
    /// A token in readable form.
    fn symbol(&self, token: u32) -> Cow<'static, str>;

    /// Whether it has all that it is made of.
    ///
    /// # Errors
    /// What is missing, and how to give it: nothing can be measured, which is no score of 0.
    fn ready(&self) -> Result<(), TaskError> {
        Ok(())
    }

    /// The task of the examples with this label, of one that has the examples of several: its chance and its answers are
    /// theirs. Its name stands in the label `task`.
    fn part(&self, _label: &str) -> Option<&dyn Task> {
        None
    }

    /// Refuses a length that the task cannot have.
    ///
    /// # Errors
    /// The length, with what it may be.
    fn check_length(&self, length: usize) -> Result<(), TaskError> {
        let (min, max) = (self.min_length(), self.max_length());
        if (min..=max).contains(&length) {
            return Ok(());
        }
        Err(TaskError::Length {
            task: self.spec().name.to_owned(),
            options: self.options_text(),
            length,
            min,
            max,
        })
    }

    /// An example: the first attempt that belongs to the split.
    ///
    /// # Errors
    /// A length that the task cannot have.
    fn sample(&self, at: &Coordinates) -> Result<Box<dyn Sample>, TaskError> {
        self.check_length(at.length)?;
        let mut attempts = (0..ATTEMPTS).map(|attempt| self.make(at, attempt));
        let found = attempts.find(|sample| split_of(sample.as_ref()) == at.split);
        Ok(found.unwrap_or_else(|| self.make(at, 0)))
    }
}

/// What is to be generated after an example has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The texts that an answer is held against, by the task's metric.
    pub references: Vec<String>,
    /// Of [`Metric::OnlyLabel`] the words that an answer may be, in small letters, but for those that the question names;
    /// else none.
    pub labels: Vec<String>,
    /// Most tokens to generate.
    pub most_new: usize,
}

impl Request {
    /// The score of an answer, 0 to 1.
    ///
    /// # Panics
    /// For a metric of answers that are not generated.
    pub fn score(&self, metric: Metric, answer: &str) -> f64 {
        match metric {
            Metric::OnlyLabel => {
                let right = score::names_only(answer, &self.references, &self.labels);
                f64::from(u8::from(right))
            }
            metric => score::score(metric, answer, &self.references),
        }
    }
}

/// An example. Small whatever its length.
pub trait Sample: Send {
    /// Tokens, of the prompt where an answer is generated.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What results can be broken down by.
    fn labels(&self) -> &[Label];
    /// What is generated; none where the scored positions are the answer.
    fn request(&self) -> Option<&Request> {
        None
    }
    /// Tokens before the answer in the prompt, in tasks whose answer stands there in one known place.
    fn answer_at(&self) -> Option<usize> {
        None
    }
    /// Writes tokens and targets of the positions from `start` on; both slices have the same length.
    /// The target of position t is what follows after reading tokens 0..=t, and -1 is not scored.
    ///
    /// # Panics
    /// If the positions leave the example.
    fn write(&self, start: usize, tokens: &mut [u32], targets: &mut [i32]);
    /// Writes the bytes of text that the targets of the positions from `start` on stand for, in tasks whose metric
    /// is of bytes.
    ///
    /// # Panics
    /// If the positions leave the example.
    fn write_bytes(&self, _start: usize, bytes: &mut [u32]) {
        bytes.fill(1);
    }
}

/// All tasks.
pub fn registry() -> &'static [&'static TaskSpec] {
    &tasks::ALL
}

pub(crate) fn find(name: &str) -> Result<&'static TaskSpec, TaskError> {
    let spec = registry().iter().find(|spec| spec.name == name);
    spec.copied().ok_or_else(|| {
        let known = registry().iter().map(|spec| spec.name);
        TaskError::UnknownTask {
            name: name.to_owned(),
            nearest: nearest(name, known),
        }
    })
}

/// What is said of the task that a text, `name` or `name:option=value,option=value`, names.
///
/// # Errors
/// An unknown name, with the nearest; text of another form.
pub fn spec_of(text: &str) -> Result<&'static TaskSpec, TaskError> {
    find(&Named::parse(text)?.name)
}

/// A task by name and options as text, made of these materials.
///
/// # Errors
/// An unknown name, with the nearest; an unknown option; a value that is not allowed; materials that it
/// cannot be made of.
pub fn build(
    name: &str,
    options: &[(String, String)],
    materials: &Materials,
) -> Result<Box<dyn Task>, TaskError> {
    let spec = find(name)?;
    (spec.build)(&Options::parse(spec, options, materials)?, materials)
}

/// The task of a record.
///
/// # Errors
/// As [`build`]; another version of the task than the one that was recorded.
pub fn recorded_task(name: &str, options: &str) -> Result<Box<dyn Task>, TaskError> {
    recorded_task_of(name, options, &Materials::default())
}

/// The task of a record, made of these materials.
///
/// # Errors
/// As [`recorded_task`]; other materials than those that the options name.
pub fn recorded_task_of(
    name: &str,
    options: &str,
    materials: &Materials,
) -> Result<Box<dyn Task>, TaskError> {
    let version = find(name)?.version;
    let its_own = format!("version={version}");
    if options.split(',').any(|option| option == its_own) {
        return parse_task_of(&format!("{name}:{options}"), materials);
    }
    Err(TaskError::Recorded {
        task: name.to_owned(),
        recorded: options.to_owned(),
        version,
    })
}

/// A task from `name` or `name:option=value,option=value`, made of the materials that need no file.
///
/// # Errors
/// As [`build`]; text of another form.
pub fn parse_task(text: &str) -> Result<Box<dyn Task>, TaskError> {
    parse_task_of(text, &Materials::default())
}

/// A task from `name` or `name:option=value,option=value`, made of these materials.
///
/// # Errors
/// As [`build`]; text of another form.
pub fn parse_task_of(text: &str, materials: &Materials) -> Result<Box<dyn Task>, TaskError> {
    let Named { name, options } = Named::parse(text)?;
    build(&name, &options, materials)
}
