//! The one launcher of workers: every use of a plugin is a process started here, listened to, held to its
//! limits, and ended with all that it started. It knows neither jobs nor records.
//!
//! A worker is `longhaul worker JOB`. The first line on its standard input is a word that it puts before
//! each of its own lines, the rest is its job. What it writes without that word was written by somebody else
//! and is dropped. That keeps accidents apart, not malice: a plugin is native code in the same process.

mod ask;
mod clock;
mod lines;
mod tree;
mod watch;

use std::process::ExitStatus;
use std::time::Duration;

pub use ask::{AskError, Reply, ask, ask_each};
pub use watch::run;

/// Longest that a worker may be silent, in time of its own.
pub const SILENCE: Duration = Duration::from_secs(3600);

/// What a worker, with all that it starts, may use.
///
/// Its time is the time in which it runs or sleeps. Waiting for a processor that others use does not count,
/// nor does the time in which this process itself was stopped: a busy machine makes no holes in a table.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time of its own until it is killed.
    pub time: Option<Duration>,
    /// Time of its own without a word until it is killed.
    pub silence: Duration,
    /// Bytes of resident memory.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// A limit of time for a worker that may take nine tenths of the machine's memory.
    pub fn of_time(seconds: u64) -> Self {
        Self {
            time: Some(Duration::from_secs(seconds)),
            silence: SILENCE,
            memory_bytes: memory_share(),
        }
    }

    /// With another limit of memory, where that is less.
    pub fn with_memory(self, bytes: u64) -> Self {
        let memory_bytes = Some(self.memory_bytes.map_or(bytes, |own| own.min(bytes)));
        Self {
            memory_bytes,
            ..self
        }
    }
}

/// What a worker may take of the machine's memory unless something else is asked for, in bytes.
pub fn memory_share() -> Option<u64> {
    crate::run::machine::memory_bytes().map(|bytes| bytes / 10 * 9)
}

/// What a listener makes of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// More may come.
    More,
    /// It was the worker's last word: now it may leave.
    Enough,
    /// It cannot be, as these words say: the worker is killed.
    Impossible(String),
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It said its last word.
    Enough,
    /// It said what cannot be.
    Impossible(String),
    /// It died before its last word.
    Died {
        /// How.
        status: ExitStatus,
        /// The last line on its standard error that says something.
        last_line: String,
        /// Whether the system killed a process for lack of memory meanwhile; none where it does not say.
        system_killed: Option<bool>,
    },
    /// It was killed at its limit of time.
    TimedOut,
    /// It was killed because it said nothing for so long.
    Silent {
        /// The limit.
        limit: Duration,
    },
    /// It was killed for memory.
    OutOfMemory {
        /// What it had, in bytes.
        used: u64,
        /// What it may have, in bytes.
        limit: u64,
    },
    /// It was killed because its work is no longer wanted.
    Cancelled,
    /// It could not be started.
    NotStarted {
        /// The system's words.
        reason: String,
    },
}

/// A worker's end, and the time of its own that it took.
#[derive(Debug)]
pub struct Report {
    /// How it ended.
    pub ended: Ended,
    /// Time in which it ran or slept.
    pub own_time: Duration,
}
