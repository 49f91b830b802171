//! Exit codes. They are part of the command's interface and stand in its help.

/// Everything asked for was done, but for what was not run for a reason that its record states.
pub const OK: u8 = 0;
/// A measurement or a check did not end well; the rest was done.
pub const FAILED: u8 = 1;
/// The command line, a suite or a name in it is wrong.
pub const USAGE: u8 = 2;
/// The system refused: a file, a lock, the disk.
pub const ENVIRONMENT: u8 = 3;
/// Stopped by Ctrl-C; the run can be resumed.
pub const INTERRUPTED: u8 = 130;

/// An error of a command with its exit code.
#[derive(Debug)]
pub struct CommandError {
    /// One of the constants here.
    pub code: u8,
    /// What was wrong, where, and what to do.
    pub message: String,
}

impl CommandError {
    /// A wrong command line, suite or name.
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self {
            code: USAGE,
            message: message.to_string(),
        }
    }

    /// A refusal of the system.
    pub fn environment(message: impl std::fmt::Display) -> Self {
        Self {
            code: ENVIRONMENT,
            message: message.to_string(),
        }
    }
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}
