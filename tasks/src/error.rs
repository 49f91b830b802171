//! Errors of tasks and suites. Each names the task or file, what was given, and what is allowed.

use std::path::PathBuf;

use crate::named::NamedError;

/// Why a task or an example cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TaskError {
    /// No such task.
    #[error(
        "no task `{name}`{}; `longhaul tasks` lists all",
        did_you_mean(nearest)
    )]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// The closest known name.
        nearest: Option<String>,
    },
    /// No such option.
    #[error(
        "task `{task}` has no option `{option}`{}; it has {known}",
        did_you_mean(nearest)
    )]
    UnknownOption {
        /// The task.
        task: String,
        /// What was asked for.
        option: String,
        /// The closest known name.
        nearest: Option<String>,
        /// All options.
        known: String,
    },
    /// An option's value that is not allowed.
    #[error("option `{option}` of task `{task}` is {allowed}, not `{value}`")]
    BadOption {
        /// The task.
        task: String,
        /// The option.
        option: String,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A version of the task's definition that is not here.
    #[error(
        "task `{task}` is at version {version} here, and version `{asked}` made other examples; use the \
         release that had it, or leave `version` out"
    )]
    Version {
        /// The task.
        task: String,
        /// What was asked for.
        asked: String,
        /// What there is.
        version: u64,
    },
    /// A record of another definition of the task.
    #[error(
        "task `{task}` was recorded as `{recorded}`, not as the version {version} that is here, whose \
         examples are others; use the release that recorded it, or train again in another folder"
    )]
    Recorded {
        /// The task.
        task: String,
        /// Its options in the record.
        recorded: String,
        /// What there is.
        version: u64,
    },
    /// Another material than the one that is named.
    #[error(
        "task `{task}` is of {material} `{asked}`, and `{here}` is given; give the {material} that it was made \
         of, or leave `{material}` out"
    )]
    Material {
        /// The task.
        task: String,
        /// What kind of material.
        material: &'static str,
        /// What was named.
        asked: String,
        /// What there is.
        here: String,
    },
    /// A task of questions, and none are given.
    #[error(
        "task `{task}` asks the questions of {form}, which are not included; give its file: --qa FILE"
    )]
    NoQuestions {
        /// The task.
        task: &'static str,
        /// The data set.
        form: &'static str,
    },
    /// Options that do not go together.
    #[error("task `{task}`: {reason}")]
    BadCombination {
        /// The task.
        task: String,
        /// Which, and why.
        reason: String,
    },
    /// Text that is not `name:option=value,..`.
    #[error(transparent)]
    Named(#[from] NamedError),
    /// A length that the task cannot have.
    #[error(
        "task `{}` takes lengths {min}..{max}, not {length}",
        with_options(task, options)
    )]
    Length {
        /// The task.
        task: String,
        /// Its options.
        options: String,
        /// What was asked for.
        length: usize,
        /// Shortest.
        min: usize,
        /// Longest.
        max: usize,
    },
}

/// Why a suite cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// Neither a built-in suite nor a file.
    #[error(
        "no suite `{name}`{}: neither a built-in one ({known}) nor a file",
        did_you_mean(nearest)
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The closest known name.
        nearest: Option<String>,
        /// All built-in suites.
        known: String,
    },
    /// The file cannot be read.
    #[error("suite {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A key that does not exist.
    #[error(
        "suite {origin}, line {line}: no key `{key}`{}; its table has {known}",
        did_you_mean(nearest)
    )]
    UnknownKey {
        /// File or built-in name.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// What stands there.
        key: String,
        /// The closest known name.
        nearest: Option<String>,
        /// All keys of the table it stands in.
        known: String,
    },
    /// Text that is not TOML, or a value of the wrong type.
    #[error("suite {origin}: {message}")]
    Toml {
        /// File or built-in name.
        origin: String,
        /// The parser's words, with the place.
        message: String,
    },
    /// A value that makes no sense.
    #[error("suite {origin}: {reason}")]
    Invalid {
        /// File or built-in name.
        origin: String,
        /// What, and what to do.
        reason: String,
    },
    /// A task of the suite that cannot be made.
    #[error("suite {origin}: {source}")]
    Task {
        /// File or built-in name.
        origin: String,
        /// Why.
        source: TaskError,
    },
}

/// A task as its user wrote it.
fn with_options(task: &str, options: &str) -> String {
    match options {
        "" => task.to_owned(),
        _ => format!("{task}:{options}"),
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// The known name closest to a mistyped one, if any is close enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
        .min()
        .map(|(_, known)| known.to_owned())
}
