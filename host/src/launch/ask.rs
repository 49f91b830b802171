//! Workers that answer a question: describing, checking, timing, looking at a checkpoint.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Ended, Heard, Limits, run};
use crate::exit::{CommandError, ENVIRONMENT, INTERRUPTED};
use crate::number::size;
use crate::run::interrupt::Listener;
use crate::text;

/// One line of a worker that answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply<T> {
    /// An answer, or a part of it.
    Answer(T),
    /// There is no answer, or no more of it.
    Refusal {
        /// Why.
        #[serde(deserialize_with = "text::as_block")]
        message: String,
        /// Whether it is the system that refused something.
        by_system: bool,
    },
    /// That was all.
    End,
}

/// Why a worker did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It said why it cannot.
    #[error("{0}")]
    Refused(String),
    /// It said what the system refused it.
    #[error("{0}")]
    System(String),
    /// It ended otherwise, as these words say.
    #[error("{0}")]
    Lost(String),
    /// It was killed at its limit of time, in seconds.
    #[error("it took longer than {0} s")]
    TimedOut(u64),
    /// It could not be started, for these reasons of the system.
    #[error("{0}")]
    NotStarted(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl AskError {
    /// The command's error with this exit code, but for Ctrl-C and what the system refused, which have their own.
    pub fn or_code(self, code: u8) -> CommandError {
        let code = match self {
            Self::Interrupted => INTERRUPTED,
            Self::System(_) | Self::NotStarted(_) => ENVIRONMENT,
            Self::Refused(_) | Self::Lost(_) | Self::TimedOut(_) => code,
        };
        CommandError {
            code,
            message: self.to_string(),
        }
    }
}

/// Has a worker answer one question.
///
/// # Errors
/// Its refusal, its end, or Ctrl-C.
pub fn ask<A: DeserializeOwned>(
    job: &str,
    question: &impl Serialize,
    limits: &Limits,
) -> Result<A, AskError> {
    let mut last = None;
    ask_each(job, question, limits, &mut |answer| last = Some(answer))?;
    last.ok_or_else(|| AskError::Lost("it ended without an answer".to_owned()))
}

/// Has a worker answer a question in parts; `on` hears each as it comes.
///
/// # Errors
/// Its refusal, its end, or Ctrl-C: then some parts may be missing.
pub fn ask_each<A: DeserializeOwned>(
    job: &str,
    question: &impl Serialize,
    limits: &Limits,
    on: &mut dyn FnMut(A),
) -> Result<(), AskError> {
    // A path may hold bytes that are no text, and JSON is text.
    let input = serde_json::to_vec(question).map_err(|error| {
        AskError::Lost(format!("{error}; rename it, or give another path to it"))
    })?;
    let interrupt = Listener::new()
        .map_err(|error| AskError::Lost(format!("no handler for Ctrl-C: {error}")))?;
    let mut refusal = None;
    let report = run(job, &input, limits, interrupt.flag(), &mut |line| {
        match serde_json::from_slice(line) {
            Ok(Reply::Answer(answer)) => on(answer),
            Ok(Reply::End) => return Heard::Enough,
            Ok(Reply::Refusal { message, by_system }) => {
                refusal = Some(match by_system {
                    true => AskError::System(message),
                    false => AskError::Refused(message),
                });
                return Heard::Enough;
            }
            Err(error) => return Heard::Impossible(format!("what cannot be read: {error}")),
        }
        Heard::More
    });
    match (refusal, report.ended) {
        (Some(refusal), _) => Err(refusal),
        (None, Ended::Enough) => Ok(()),
        (None, Ended::Cancelled) => Err(AskError::Interrupted),
        (None, Ended::NotStarted { reason }) => Err(AskError::NotStarted(reason)),
        (None, Ended::TimedOut) => Err(AskError::TimedOut(
            limits.time.unwrap_or_default().as_secs(),
        )),
        (None, ended) => Err(AskError::Lost(words(&ended))),
    }
}

/// How a worker ended, in words that follow on its name.
fn words(ended: &Ended) -> String {
    match ended {
        Ended::Enough | Ended::Cancelled | Ended::TimedOut | Ended::NotStarted { .. } => {
            "it ended without an answer".to_owned()
        }
        Ended::Impossible(what) => format!("its worker said {what}"),
        Ended::Died {
            status, last_line, ..
        } => {
            let how = crate::signals::describe(*status);
            if last_line.is_empty() {
                format!("it died: {how}")
            } else {
                format!("it died: {how}: {last_line}")
            }
        }
        Ended::Silent { limit } => format!("it said nothing for {} s", limit.as_secs()),
        Ended::OutOfMemory { used, limit } => format!(
            "it took {} of memory, over the limit of {}",
            size(*used),
            size(*limit)
        ),
    }
}
