//! The worker of a unit: its job, its messages, and its end as a status with a reason. Starting and limiting it
//! is [`crate::launch`]'s.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longhaul_results::Status;

use crate::launch::{self, Ended, Heard, Limits};
use crate::number::size;
use crate::run::conversation::Conversation;
use crate::text;
use crate::worker::protocol::{FailureKind, Job, Message};

/// How a worker ended.
#[derive(Debug)]
pub enum End {
    /// It did all it was asked.
    Done {
        /// Seconds inside the plugin's functions.
        inside_plugin_s: f64,
        /// Seconds outside them.
        outside_plugin_s: f64,
    },
    /// It said why it could not go on.
    Failed {
        /// What kind.
        kind: FailureKind,
        /// The words.
        reason: String,
    },
    /// It died.
    Died {
        /// How.
        status: ExitStatus,
        /// Its last line on standard error.
        last_line: String,
        /// Whether the system killed a process for lack of memory meanwhile, where it says so.
        system_killed: Option<bool>,
    },
    /// It said what cannot be, and was killed.
    Impossible {
        /// What.
        what: String,
    },
    /// It was killed for saying nothing.
    Silent {
        /// The limit, in seconds.
        time_s: u64,
    },
    /// It was killed at its limit of time.
    TimedOut {
        /// The limit, in seconds.
        time_s: u64,
    },
    /// It was killed for memory.
    OutOfMemory {
        /// What it had, in bytes.
        used: u64,
        /// What it may have, in bytes.
        limit: u64,
    },
    /// It was killed because the run stops.
    Cancelled,
    /// It could not be started.
    NotStarted {
        /// The system's words.
        reason: String,
    },
}

impl End {
    /// Status and reason for the record of what the worker was doing.
    pub fn status(&self) -> (Status, String) {
        match self {
            Self::Failed { kind, reason } => {
                let status = match kind {
                    FailureKind::OutOfMemory => Status::OutOfMemory,
                    FailureKind::Disk | FailureKind::Device | FailureKind::Error => Status::Failed,
                };
                (status, reason.clone())
            }
            Self::Died {
                status,
                last_line,
                system_killed,
            } => died(*status, last_line, *system_killed),
            Self::Impossible { what } => (
                Status::Failed,
                format!("the worker said {what}; this is a bug in the plugin"),
            ),
            Self::Silent { time_s } => (
                Status::TimedOut,
                format!("killed because it said nothing for {time_s} s of its own time"),
            ),
            Self::TimedOut { time_s } => (
                Status::TimedOut,
                format!(
                    "killed at the time limit of {time_s} s of its own time for training and evaluations; --time-limit raises it"
                ),
            ),
            Self::OutOfMemory { used, limit } => (
                Status::OutOfMemory,
                format!(
                    "killed with {} of memory, over the limit of {}; --memory-limit raises it",
                    size(*used),
                    size(*limit)
                ),
            ),
            Self::NotStarted { reason } => (Status::Failed, reason.clone()),
            Self::Done { .. } => (
                Status::Failed,
                "the worker ended without answering".to_owned(),
            ),
            Self::Cancelled => (Status::NotRun, "the run was stopped".to_owned()),
        }
    }
}

/// Status and reason of a death that nobody asked for.
fn died(status: ExitStatus, last_line: &str, system_killed: Option<bool>) -> (Status, String) {
    let how = crate::signals::describe(status);
    let words = if last_line.is_empty() {
        how.clone()
    } else {
        format!("{how}: {last_line}")
    };
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    let allocation = (last_line.contains("memory allocation of") && last_line.contains("failed"))
        || last_line.contains("std::bad_alloc");
    match system_killed {
        Some(true) if killed => {
            let words = format!("{how}, by the system for lack of memory");
            return (Status::OutOfMemory, words);
        }
        None if killed => {
            let words = format!("{how}, most likely by the system for lack of memory");
            return (Status::OutOfMemory, words);
        }
        Some(false) if killed => {
            let words = format!("{how}, neither by longhaul nor by the system for lack of memory");
            return (Status::Crashed, words);
        }
        _ => {}
    }
    if allocation {
        return (Status::OutOfMemory, words);
    }
    match status.code() {
        Some(_) => (
            Status::Crashed,
            format!("the worker ended before it was done: {words}"),
        ),
        None => (Status::Crashed, words),
    }
}

/// Lets through what is worth a look: how far a worker is only now and then, and so much of its log.
#[derive(Default)]
struct Eye {
    glance: Option<Instant>,
    logged: u32,
}

impl Eye {
    /// Events of a plugin's log that one worker may have.
    const LOG: u32 = 1000;
    /// How often a look is taken at how far a worker is.
    const GLANCE: Duration = Duration::from_millis(100);

    fn lets(&mut self, message: Message) -> Option<Message> {
        match message {
            Message::Log { level, .. } if self.logged == Self::LOG => {
                self.logged += 1;
                let text = format!("more than {} events; the others are dropped", Self::LOG);
                Some(Message::Log { level, text })
            }
            Message::Log { .. } => {
                self.logged = self.logged.saturating_add(1);
                (self.logged <= Self::LOG).then_some(message)
            }
            Message::Progress { record: false, .. } | Message::Evaluation { .. } => {
                if self
                    .glance
                    .is_some_and(|last| last.elapsed() < Self::GLANCE)
                {
                    return None;
                }
                self.glance = Some(Instant::now());
                Some(message)
            }
            _ => Some(message),
        }
    }
}

/// Whether a worker was ended because this process ends too. A batch scheduler that takes a machine away signals
/// every process of a job, in an order of its own: such a death is believed to be the worker's own only when
/// nobody has told this process the same a moment later.
fn goes_with_us(status: ExitStatus, cancel: &AtomicBool) -> bool {
    const MOMENT: Duration = Duration::from_secs(1);
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    if !matches!(signal, Some(9 | 15)) {
        return false;
    }
    let begun = Instant::now();
    while begun.elapsed() < MOMENT && !cancel.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
    cancel.load(Ordering::Relaxed)
}

/// Runs a worker on a job to its end, and says what time of its own that took. `on` hears every message but
/// the last.
pub fn run_worker(
    job: &Job,
    limits: &Limits,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(&Message),
) -> (End, Duration) {
    // A path may hold bytes that are no text, and JSON is text.
    let input = job
        .check()
        .and_then(|()| serde_json::to_vec(job).map_err(|error| error.to_string()));
    let input = match input {
        Ok(input) => input,
        Err(reason) => {
            let kind = FailureKind::Error;
            return (End::Failed { kind, reason }, Duration::ZERO);
        }
    };
    let mut last = None;
    let mut conversation = Conversation::new(job);
    let mut eye = Eye::default();
    let report = launch::run("train", &input, limits, cancel, &mut |line| {
        let message = serde_json::from_slice(line)
            .map_err(|error| format!("what is no message: {error}"))
            .and_then(|message| conversation.hear(&message).map(|()| message));
        match message {
            Ok(Message::Done {
                inside_plugin_s,
                outside_plugin_s,
            }) => {
                last = Some(End::Done {
                    inside_plugin_s,
                    outside_plugin_s,
                });
            }
            Ok(Message::Failed { kind, reason }) => last = Some(End::Failed { kind, reason }),
            Ok(message) => {
                if let Some(message) = eye.lets(message) {
                    on(&message);
                }
                return Heard::More;
            }
            Err(what) => return Heard::Impossible(text::line(&what)),
        }
        Heard::Enough
    });
    let end = match report.ended {
        Ended::Enough => last.unwrap_or(End::Done {
            inside_plugin_s: 0.0,
            outside_plugin_s: 0.0,
        }),
        Ended::Impossible(what) => End::Impossible { what },
        Ended::Died { status, .. } if goes_with_us(status, cancel) => End::Cancelled,
        Ended::Died {
            status,
            last_line,
            system_killed,
        } => End::Died {
            status,
            last_line,
            system_killed,
        },
        Ended::TimedOut => End::TimedOut {
            time_s: limits.time.unwrap_or_default().as_secs(),
        },
        Ended::Silent { limit } => End::Silent {
            time_s: limit.as_secs(),
        },
        Ended::OutOfMemory { used, limit } => End::OutOfMemory { used, limit },
        Ended::Cancelled => End::Cancelled,
        Ended::NotStarted { reason } => End::NotStarted { reason },
    };
    (end, report.own_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// A wait status: signals stand in its low bits, exit codes above.
    fn ended(raw: i32) -> ExitStatus {
        ExitStatus::from_raw(raw)
    }

    fn status_of(raw: i32, line: &str) -> (Status, String) {
        let end = End::Died {
            status: ended(raw),
            last_line: line.to_owned(),
            system_killed: None,
        };
        end.status()
    }

    #[test]
    fn a_worker_that_is_killed_with_its_host_did_not_die_of_itself() {
        let (told, not_told) = (AtomicBool::new(true), AtomicBool::new(false));
        for signal in [9, 15] {
            assert!(goes_with_us(ended(signal), &told));
        }
        assert!(!goes_with_us(ended(9), &not_told));
        for other in [0, 1 << 8, 11] {
            assert!(!goes_with_us(ended(other), &told));
        }
    }

    #[test]
    fn deaths_have_names() {
        let (status, reason) = status_of(11, "");
        assert_eq!(status, Status::Crashed);
        assert!(reason.contains("SIGSEGV"), "{reason}");
        let (status, reason) = status_of(6, "assertion failed");
        assert_eq!(status, Status::Crashed);
        assert!(
            reason.contains("SIGABRT") && reason.contains("assertion failed"),
            "{reason}"
        );
        let (status, reason) = status_of(0, "");
        assert_eq!(
            status,
            Status::Crashed,
            "an end without a last word is no success"
        );
        assert!(reason.contains("exit code 0"), "{reason}");
    }

    #[test]
    fn memory_has_its_own_status() {
        assert_eq!(status_of(9, "").0, Status::OutOfMemory);
        let killed = |system_killed| died(ended(9), "", system_killed);
        assert_eq!(killed(Some(true)).0, Status::OutOfMemory);
        let (status, reason) = killed(Some(false));
        assert_eq!(status, Status::Crashed);
        assert!(
            reason.contains("SIGKILL") && reason.contains("neither"),
            "{reason}"
        );
        let line = "memory allocation of 1099511627776 bytes failed";
        assert_eq!(status_of(6, line).0, Status::OutOfMemory);
        let end = End::OutOfMemory {
            used: 3 << 30,
            limit: 1 << 30,
        };
        assert!(end.status().1.contains("3.0 GiB"));
        let end = End::Failed {
            kind: FailureKind::OutOfMemory,
            reason: "r".into(),
        };
        assert_eq!(end.status(), (Status::OutOfMemory, "r".into()));
        assert_eq!(End::TimedOut { time_s: 5 }.status().0, Status::TimedOut);
    }

    #[test]
    fn a_flood_is_cut() {
        let mut eye = Eye::default();
        let log = Message::Log {
            level: "info".into(),
            text: "x".into(),
        };
        let let_through = (0..100_000).filter_map(|_| eye.lets(log.clone())).count();
        assert_eq!(let_through, Eye::LOG as usize + 1);
        let share = Message::Evaluation { share: 0.5 };
        let let_through = (0..1000).filter_map(|_| eye.lets(share.clone())).count();
        assert!(let_through < 50, "{let_through}");
        let trained = Message::Trained { seconds: 1.0 };
        assert!(eye.lets(trained).is_some());
    }
}
