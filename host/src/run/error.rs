//! Why a run could not be planned, begun or kept. What happens to a single measurement is not an
//! error of the run: it is a record with a status.

use std::path::{Path, PathBuf};

use longhaul_results::{JournalError, LockError, PlotError};
use longhaul_tasks::{SuiteError, TaskError};

/// Why a run ended without its results.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// What the command line's other parts refuse: plugins, architectures.
    #[error("{0}")]
    Command(crate::exit::CommandError),
    /// Something the user wrote.
    #[error("{0}")]
    Input(String),
    /// A suite that cannot be read.
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// A task that cannot be made.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Two runs on one folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Records that cannot be kept or read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Plots that cannot be written.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A worker that could not write what it must.
    #[error(
        "{0}. Everything measured so far is kept; when that is mended, give the same command again (`longhaul run` with --resume)"
    )]
    Worker(String),
    /// Ctrl-C, with the words that say how to go on.
    #[error("interrupted; everything measured so far is kept. Go on with:\n  {resume}")]
    Interrupted {
        /// The command that goes on.
        resume: String,
    },
}

impl RunError {
    /// Ctrl-C, with the command that goes on.
    pub fn interrupted() -> Self {
        Self::Interrupted {
            resume: crate::run::command::resume_command(),
        }
    }

    /// An error of the system on a path.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// The process's exit code for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Command(error) => error.code,
            Self::Input(_) | Self::Suite(_) | Self::Task(_) => crate::exit::USAGE,
            Self::Lock(_)
            | Self::Journal(_)
            | Self::Plot(_)
            | Self::Worker(_)
            | Self::Io { .. } => crate::exit::ENVIRONMENT,
            Self::Interrupted { .. } => crate::exit::INTERRUPTED,
        }
    }
}

impl From<RunError> for crate::exit::CommandError {
    fn from(error: RunError) -> Self {
        Self {
            code: error.exit_code(),
            message: error.to_string(),
        }
    }
}
