//! One worker process under limits: started, listened to, watched, and killed where it must be. How it
//! ended is said here; what that means for records is not.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use longhaul_results::Status;

use crate::worker::protocol::{FailureKind, Job, Message};

/// How often a worker's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a worker may take to end after its last word.
const FAREWELL: Duration = Duration::from_secs(3);
/// How much of a worker's standard error is kept.
const TAIL: usize = 8192;

/// What a worker may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// When it is killed.
    pub deadline: Instant,
    /// The seconds that `deadline` stands for, for the words.
    pub time_s: u64,
    /// Bytes of resident memory.
    pub memory_bytes: Option<u64>,
}

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
    },
    /// It was killed at its deadline.
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
            Self::Died { status, last_line } => died(*status, last_line),
            Self::TimedOut { time_s } => (
                Status::TimedOut,
                format!(
                    "killed at the time limit of {time_s} s for training and evaluations; --time-limit raises it"
                ),
            ),
            Self::OutOfMemory { used, limit } => (
                Status::OutOfMemory,
                format!(
                    "killed with {} MiB of memory, over the limit of {} MiB; --memory-limit raises it",
                    used >> 20,
                    limit >> 20
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
fn died(status: ExitStatus, last_line: &str) -> (Status, String) {
    let how = crate::signals::describe(status);
    let words = if last_line.is_empty() {
        how.clone()
    } else {
        format!("{how}: {last_line}")
    };
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    let allocation = (last_line.contains("memory allocation of") && last_line.contains("failed"))
        || last_line.contains("std::bad_alloc");
    if killed {
        return (
            Status::OutOfMemory,
            format!("{how}, most likely by the system for lack of memory"),
        );
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

/// Runs a worker on a job to its end. `on` hears every message but the last.
pub fn run_worker(
    job: &Job,
    limits: &Limits,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(&Message),
) -> End {
    let mut child = match start(job) {
        Ok(child) => child,
        Err(error) => {
            return End::NotStarted {
                reason: format!("no worker could be started: {error}"),
            };
        }
    };
    let lines = listen(&mut child);
    let tail = child.stderr.take().map(keep_tail);
    let ended = watch(&child, &lines, limits, cancel, on);
    // A worker that is told to die, and one that does not leave after its last word, is killed with
    // all it started.
    let killed = matches!(
        ended,
        Some(End::TimedOut { .. } | End::OutOfMemory { .. } | End::Cancelled)
    );
    let status = wait(&mut child, if killed { Duration::ZERO } else { FAREWELL });
    match (ended, status) {
        (Some(end), _) => end,
        (None, Ok(status)) => End::Died {
            status,
            last_line: tail.map(Tail::last_line).unwrap_or_default(),
        },
        (None, Err(error)) => End::NotStarted {
            reason: format!("the worker was lost: {error}"),
        },
    }
}

fn start(job: &Job) -> std::io::Result<Child> {
    // The link stays good when the program's file is replaced during a run.
    let mut child = Command::new("/proc/self/exe")
        .arg0("longhaul")
        .args(["worker", "train"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group: Ctrl-C reaches the host alone, which then decides.
        .process_group(0)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = serde_json::to_vec(job).expect("a job serialises");
        // A worker that died already is noticed by its silence.
        let _ = stdin.write_all(&text);
    }
    Ok(child)
}

/// A thread that turns lines into messages.
fn listen(child: &mut Child) -> Receiver<Message> {
    let (sender, receiver) = channel();
    let Some(stdout) = child.stdout.take() else {
        return receiver;
    };
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            match serde_json::from_slice(&line) {
                Ok(message) => {
                    if sender.send(message).is_err() {
                        return;
                    }
                }
                Err(error) => tracing::warn!("a worker said what is not a message: {error}"),
            }
        }
    });
    receiver
}

/// Listens and looks until the worker has said its last word (`Some`), fell silent (`None`) or must go.
fn watch(
    child: &Child,
    lines: &Receiver<Message>,
    limits: &Limits,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(&Message),
) -> Option<End> {
    let mut looked = Instant::now();
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Some(End::Cancelled);
        }
        if Instant::now() >= limits.deadline {
            return Some(End::TimedOut {
                time_s: limits.time_s,
            });
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            let used = resident_bytes(child.id()).unwrap_or(0);
            if let Some(limit) = limits.memory_bytes.filter(|&limit| used > limit) {
                return Some(End::OutOfMemory { used, limit });
            }
        }
        match lines.recv_timeout(LOOK) {
            Ok(Message::Done {
                inside_plugin_s,
                outside_plugin_s,
            }) => {
                return Some(End::Done {
                    inside_plugin_s,
                    outside_plugin_s,
                });
            }
            Ok(Message::Failed { kind, reason }) => return Some(End::Failed { kind, reason }),
            Ok(message) => on(&message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Waits for the end, and kills the worker's whole group when it does not come.
fn wait(child: &mut Child, patience: Duration) -> std::io::Result<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some(group) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    child.wait()
}

/// Resident memory of a process, in bytes.
fn resident_bytes(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The end of a worker's standard error.
struct Tail {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

fn keep_tail(mut stderr: ChildStderr) -> Tail {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&bytes);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            let mut kept = kept
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            kept.extend_from_slice(&buffer[..count]);
            let excess = kept.len().saturating_sub(TAIL);
            kept.drain(..excess);
        }
    });
    Tail { bytes, reader }
}

impl Tail {
    /// The last line that says something; waits a moment for it to arrive.
    fn last_line(self) -> String {
        let begun = Instant::now();
        while !self.reader.is_finished() && begun.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let kept = self
            .bytes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept).into_owned();
        // What Rust says under a panic is about how to see more, not about why.
        let about = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
        text.lines()
            .rev()
            .find(about)
            .unwrap_or_default()
            .trim()
            .to_owned()
    }
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
        };
        end.status()
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
        let line = "memory allocation of 1099511627776 bytes failed";
        assert_eq!(status_of(6, line).0, Status::OutOfMemory);
        let end = End::OutOfMemory {
            used: 3 << 30,
            limit: 1 << 30,
        };
        assert!(end.status().1.contains("3072 MiB"));
        let end = End::Failed {
            kind: FailureKind::OutOfMemory,
            reason: "r".into(),
        };
        assert_eq!(end.status(), (Status::OutOfMemory, "r".into()));
        assert_eq!(End::TimedOut { time_s: 5 }.status().0, Status::TimedOut);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 16);
    }

    #[test]
    fn the_last_line_is_kept() {
        let mut child = Command::new("sh")
            .args([
                "-c",
                "seq 100000 >&2; echo why >&2; echo 'note: run with' >&2; echo >&2",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let tail = keep_tail(child.stderr.take().unwrap());
        child.wait().unwrap();
        assert_eq!(tail.last_line(), "why");
    }
}
