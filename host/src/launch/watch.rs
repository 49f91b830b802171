//! One worker from its start to its end, in one loop over its pipes: no thread that could wait for ever, no
//! buffer that could grow.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

use super::clock::Clock;
use super::lines::{Lines, Tail};
use super::tree;
use super::{Ended, Heard, Limits, Report};

/// How often a worker's use of the machine is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a worker may take to leave after its last word.
const FAREWELL: Duration = Duration::from_secs(3);
/// Most bytes that are taken from a pipe at a time.
const SIP: usize = 64 << 10;
/// Most bytes that are read of what a dead worker left in its pipes: a pipe holds less.
const LEFT: usize = 2 << 20;

/// Runs `longhaul worker JOB` on an input to its end. `on` hears every line of its own.
pub fn run(
    job: &str,
    input: &[u8],
    limits: &Limits,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(&[u8]) -> Heard,
) -> Report {
    // The link stays good when the program's file is replaced during a run.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("longhaul").args(["worker", job]);
    let word = random_word();
    let input = [word.as_bytes(), b"\n", input].concat();
    watch(&mut command, &word, input, limits, cancel, on)
}

/// A word that nobody guesses.
pub fn random_word() -> String {
    let mut bytes = [0_u8; 16];
    // Without random numbers words are the same: they keep accidents apart, no more.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    longhaul_text::hex(&bytes)
}

fn watch(
    command: &mut Command,
    word: &str,
    input: Vec<u8>,
    limits: &Limits,
    cancel: &AtomicBool,
    on: &mut dyn FnMut(&[u8]) -> Heard,
) -> Report {
    let before = killed_by_system();
    let mut worker = match Worker::start(command, word, input) {
        Ok(worker) => worker,
        Err(error) => return not_started(&error),
    };
    let mut clock = Clock::start();
    let ended = loop {
        if cancel.load(Ordering::Relaxed) {
            break Some(Ended::Cancelled);
        }
        worker.wait(LOOK);
        if let Some(ended) = worker.listen(&mut clock, on) {
            break Some(ended);
        }
        if worker.is_dead() {
            break None;
        }
        if clock.since_look() >= LOOK {
            let usage = tree::usage(worker.child.id(), limits.memory_bytes);
            clock.look(usage);
            if let Some(ended) = clock.beyond(limits, usage) {
                // What it said before counts, also where nobody listened for a while.
                break worker.drain(&mut clock, on).or(Some(ended));
            }
        }
    };
    if ended == Some(Ended::Enough) {
        worker.farewell();
    }
    let status = tree::end(&mut worker.child);
    // Whoever held the pipes is gone, or was never part of this worker.
    let ended = ended.or_else(|| worker.drain(&mut clock, on));
    let ended = match (ended, status) {
        (Some(ended), _) => ended,
        (None, Ok(status)) => {
            worker.last_errors();
            Ended::Died {
                status,
                last_line: worker.tail.last_line(),
                system_killed: before.zip(killed_by_system()).map(|(then, now)| now > then),
            }
        }
        (None, Err(error)) => return not_started(&error),
    };
    if worker.lines.dropped > 0 {
        let dropped = worker.lines.dropped;
        tracing::warn!("{dropped} lines in a worker's pipe were not its own and were dropped");
    }
    Report {
        ended,
        own_time: clock.own(),
    }
}

fn not_started(error: &std::io::Error) -> Report {
    Report {
        ended: Ended::NotStarted {
            reason: format!("no worker could be started: {error}"),
        },
        own_time: Duration::ZERO,
    }
}

/// Processes that the system has killed for lack of memory since it began.
fn killed_by_system() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

/// A worker with this process's ends of its pipes.
struct Worker {
    child: Child,
    /// Tells of its death, where the kernel can.
    death: Option<OwnedFd>,
    /// Where its job goes, and what of it is left to write.
    input: Option<(File, Vec<u8>)>,
    output: Option<File>,
    errors: Option<File>,
    lines: Lines,
    tail: Tail,
}

impl Worker {
    fn start(command: &mut Command, word: &str, input: Vec<u8>) -> std::io::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C reaches this process alone, which then decides.
            .process_group(0);
        let mut child = tree::spawn(command)?;
        let death =
            pid(&child).and_then(|id| rustix::process::pidfd_open(id, PidfdFlags::empty()).ok());
        let [stdin, stdout, stderr] = [
            child.stdin.take().map(OwnedFd::from),
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ]
        .map(|pipe| pipe.and_then(|pipe| without_waiting(pipe).ok()));
        Ok(Self {
            child,
            death,
            input: stdin.map(|stdin| (stdin, input)),
            output: stdout,
            errors: stderr,
            lines: Lines::new(word),
            tail: Tail::default(),
        })
    }

    /// Waits until something happens, and no longer than this.
    fn wait(&self, most: Duration) {
        let mut fds = Vec::with_capacity(4);
        if let Some((pipe, _)) = &self.input {
            fds.push(PollFd::new(pipe, PollFlags::OUT));
        }
        for pipe in [&self.output, &self.errors].into_iter().flatten() {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        let most = match &self.death {
            Some(death) => {
                fds.push(PollFd::from_borrowed_fd(death.as_fd(), PollFlags::IN));
                most
            }
            // Without the kernel's word a death is looked for.
            None => most.min(Duration::from_millis(5)),
        };
        let most = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(most.subsec_nanos()),
        };
        let _ = poll(&mut fds, Some(&most));
    }

    /// Takes what is there of every pipe, a sip of each. Returns an end if the worker's words led to one.
    fn listen(&mut self, clock: &mut Clock, on: &mut dyn FnMut(&[u8]) -> Heard) -> Option<Ended> {
        self.write_input();
        let mut sip = [0; SIP];
        if let Some(count) = read(&mut self.errors, &mut sip) {
            self.tail.push(&sip[..count]);
        }
        let count = read(&mut self.output, &mut sip)?;
        self.hear(&sip[..count], clock, on)
    }

    fn hear(
        &mut self,
        bytes: &[u8],
        clock: &mut Clock,
        on: &mut dyn FnMut(&[u8]) -> Heard,
    ) -> Option<Ended> {
        let mut ended = None;
        let pushed = self.lines.push(bytes, &mut |line| {
            clock.spoke();
            ended = match on(line) {
                Heard::More => None,
                Heard::Enough => Some(Ended::Enough),
                Heard::Impossible(what) => Some(Ended::Impossible(what)),
            };
            ended.is_none()
        });
        let too_long = |error| Ended::Impossible(format!("{error}"));
        ended.or(pushed.err().map(too_long))
    }

    /// Hears all that is in the pipe already.
    fn drain(&mut self, clock: &mut Clock, on: &mut dyn FnMut(&[u8]) -> Heard) -> Option<Ended> {
        let (mut sip, mut taken) = ([0; SIP], 0);
        while taken < LEFT {
            let count = read(&mut self.output, &mut sip)?;
            taken += count;
            if let Some(ended) = self.hear(&sip[..count], clock, on) {
                return Some(ended);
            }
        }
        None
    }

    /// Takes all that is left on standard error.
    fn last_errors(&mut self) {
        let (mut sip, mut taken) = ([0; SIP], 0);
        while taken < LEFT {
            let Some(count) = read(&mut self.errors, &mut sip) else {
                return;
            };
            taken += count;
            self.tail.push(&sip[..count]);
        }
    }

    /// Writes as much of the job as the pipe takes, and closes it after the last byte.
    fn write_input(&mut self) {
        while let Some((pipe, left)) = &mut self.input {
            match pipe.write(left) {
                Ok(count) if count < left.len() => drop(left.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // All is written, or the worker does not read: how it ends says why.
                _ => self.input = None,
            }
        }
    }

    /// Whether it has died. It is not waited for, so its number stays its own.
    fn is_dead(&self) -> bool {
        let Some(id) = pid(&self.child) else {
            return true;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(
            rustix::process::waitid(WaitId::Pid(id), options),
            Ok(None) | Err(rustix::io::Errno::INTR)
        )
    }

    /// Gives it time to leave by itself, and its errors a place to go.
    fn farewell(&mut self) {
        let begun = Instant::now();
        self.input = None;
        self.output = None;
        while !self.is_dead() && begun.elapsed() < FAREWELL {
            self.wait(Duration::from_millis(50));
            let mut sip = [0; SIP];
            let _ = read(&mut self.errors, &mut sip);
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn without_waiting(pipe: OwnedFd) -> std::io::Result<File> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    Ok(File::from(pipe))
}

/// Reads once. `None` when nothing is there now; a pipe that has ended is closed.
fn read(pipe: &mut Option<File>, buffer: &mut [u8]) -> Option<usize> {
    match pipe.as_mut()?.read(buffer) {
        Ok(count @ 1..) => Some(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            None
        }
        _ => {
            *pipe = None;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORD: &str = "word";

    fn limits(time_ms: u64) -> Limits {
        Limits {
            time: Some(Duration::from_millis(time_ms)),
            silence: Duration::from_secs(60),
            memory_bytes: None,
        }
    }

    /// Runs a shell's script as a worker that ends by the line `end`.
    fn script(script: &str, limits: &Limits) -> (Ended, Vec<String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut heard = Vec::new();
        let input = b"the job\n".to_vec();
        let report = watch(
            &mut command,
            WORD,
            input,
            limits,
            &AtomicBool::new(false),
            &mut |line| {
                let line = String::from_utf8_lossy(line).into_owned();
                let end = match line.as_str() {
                    "end" => Heard::Enough,
                    "lie" => Heard::Impossible("it lies".to_owned()),
                    _ => Heard::More,
                };
                heard.push(line);
                end
            },
        );
        (report.ended, heard)
    }

    /// Whether no process has this word in its command line.
    fn is_gone(word: &str) -> bool {
        let mut all = std::fs::read_dir("/proc").unwrap().flatten();
        !all.any(|entry| {
            let text = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(word)
        })
    }

    #[test]
    fn a_worker_reads_its_job_and_says_its_last_word() {
        let (ended, heard) = script(
            "read job; echo noise; echo word $job; echo word end",
            &limits(60_000),
        );
        assert_eq!(ended, Ended::Enough);
        assert_eq!(heard, ["the job", "end"]);
    }

    /// A shell may leave a pipe open in whatever it starts, which passes it on.
    #[test]
    fn a_worker_does_not_get_what_this_process_was_given() {
        // Without the flag that would close it in a child.
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
        let link = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        let all = "for fd in /proc/$$/fd/*; do echo word $(readlink $fd); done; echo word end";
        let (ended, heard) = script(all, &limits(60_000));
        assert_eq!(ended, Ended::Enough);
        let pipes = heard.iter().filter(|line| line.starts_with("pipe:"));
        assert!(pipes.count() >= 3, "{heard:?}");
        assert!(!heard.contains(&link.display().to_string()), "{heard:?}");
    }

    #[test]
    fn what_cannot_be_said_ends_it_at_once() {
        let (ended, _) = script("echo word lie; sleep 60", &limits(60_000));
        assert_eq!(ended, Ended::Impossible("it lies".to_owned()));
        let flood = "yes word $(head -c 100000 /dev/zero | tr '\\0' x) | tr -d '\\n'";
        let (ended, _) = script(flood, &limits(60_000));
        assert!(
            matches!(&ended, Ended::Impossible(what) if what.contains("4 MiB")),
            "{ended:?}"
        );
    }

    #[test]
    fn a_death_is_noticed_while_a_child_holds_the_pipes() {
        let begun = Instant::now();
        let (ended, heard) = script(
            "sleep 61.5 & echo why >&2; echo word a; kill -ABRT $$",
            &limits(60_000),
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(heard, ["a"]);
        let Ended::Died {
            status, last_line, ..
        } = ended
        else {
            panic!("{ended:?}");
        };
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(6)
        );
        assert_eq!(last_line, "why");
        assert!(is_gone("61.5"), "its child went with it");
    }

    #[test]
    fn children_that_left_go_with_their_worker() {
        let begun = Instant::now();
        let left = "setsid sh -c 'sleep 62.5 & sleep 62.5' & sleep 0.2; echo word end; sleep 62.5";
        let (ended, _) = script(left, &limits(60_000));
        assert_eq!(ended, Ended::Enough);
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(is_gone("62.5"));
    }

    #[test]
    fn one_that_sleeps_reaches_its_limit() {
        let (ended, heard) = script("echo word a; sleep 63.5", &limits(300));
        assert_eq!(ended, Ended::TimedOut);
        assert_eq!(heard, ["a"]);
        let silent = Limits {
            time: None,
            silence: Duration::from_millis(300),
            memory_bytes: None,
        };
        let (ended, _) = script("sleep 0.2; echo word a; sleep 63.5", &silent);
        assert!(matches!(ended, Ended::Silent { .. }), "{ended:?}");
    }

    #[test]
    fn memory_counts_that_of_children() {
        let limits = Limits {
            memory_bytes: Some(64 << 20),
            ..limits(60_000)
        };
        let child = "(x=$(head -c 100000000 /dev/zero | tr '\\0' x); sleep 64.5) & wait";
        let (ended, _) = script(child, &limits);
        assert!(matches!(ended, Ended::OutOfMemory { .. }), "{ended:?}");
        assert!(is_gone("64.5"));
    }

    #[test]
    fn a_flood_of_errors_is_dropped() {
        let flood = "head -c 50000000 /dev/zero >&2; echo >&2; echo why >&2; exit 3";
        let (ended, _) = script(flood, &limits(60_000));
        let Ended::Died { last_line, .. } = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(last_line, "why");
    }
}
