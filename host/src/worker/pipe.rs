//! The worker's line to the host. It is a private copy of standard output, and descriptor 1 then
//! leads to standard error: whatever a plugin prints cannot reach the protocol. Each line begins with a word
//! that the host gave this process, and a forked child sends none.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::sync::{Mutex, OnceLock};

use longhaul_plugin_api::abi::LogLevel;
use longhaul_plugin_api::abi_stable::std_types::RStr;
use rustix::process::{Signal, getpid};
use serde::Serialize;

use crate::exit::{CommandError, ENVIRONMENT};
use crate::launch::Reply;
use crate::text;
use crate::worker::protocol::Message;

static PIPE: OnceLock<Pipe> = OnceLock::new();

struct Pipe {
    file: Mutex<File>,
    /// What every line begins with.
    word: String,
    /// The process it was opened in.
    process: rustix::process::Pid,
}

/// Makes this process a worker: it ends with its host, takes in orphans of what it starts, goes first when
/// memory is short, and keeps standard output for the protocol. Called once, before a plugin is loaded.
/// Returns the job that stands on standard input.
///
/// # Errors
/// The system refuses a descriptor; there is no job.
pub fn open() -> Result<String, CommandError> {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let file = crate::machine::private_stdout().map_err(CommandError::environment)?;
    let (mut word, mut job) = (String::new(), String::new());
    let mut input = std::io::stdin().lock();
    input
        .read_line(&mut word)
        .and_then(|_| input.read_to_string(&mut job))
        .map_err(CommandError::environment)?;
    let _ = PIPE.set(Pipe {
        file: Mutex::new(file),
        word: word.trim_end().to_owned(),
        process: getpid(),
    });
    Ok(job)
}

/// Reads a job.
///
/// # Errors
/// What it is not.
pub fn parse<T: serde::de::DeserializeOwned>(job: &str) -> Result<T, CommandError> {
    serde_json::from_str(job).map_err(|error| {
        CommandError::usage(format!(
            "a worker cannot read its job ({error}); `longhaul worker` is started by other commands"
        ))
    })
}

/// Sends a message.
pub fn send(message: &Message) {
    write(message);
}

/// Sends an answer, or a part of it, of a worker that was asked.
pub fn answer<T: Serialize>(answer: T) {
    write(&Reply::Answer(answer));
}

/// Says that this was all of the answer, or why there is no more.
pub fn conclude(done: Result<(), CommandError>) {
    write(&match done {
        Ok(()) => Reply::<()>::End,
        Err(CommandError { code, message }) => Reply::Refusal {
            message: text::block(&message),
            by_system: code == ENVIRONMENT,
        },
    });
}

/// Writes a line. A host that is gone ends the worker: nobody waits for its work.
fn write(said: &impl Serialize) {
    let Some(pipe) = PIPE.get() else { return };
    // The child of a plugin that forks has this function too, but is no worker.
    if pipe.process != getpid() {
        return;
    }
    // Whatever somebody else began in this pipe ends here.
    let mut line = format!("\n{} ", pipe.word).into_bytes();
    serde_json::to_writer(&mut line, said).expect("a message serialises");
    line.push(b'\n');
    let mut file = pipe
        .file
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if file.write_all(&line).is_err() {
        std::process::exit(1);
    }
}

/// Passes a plugin's log event on to the host.
pub extern "C" fn plugin_log(level: LogLevel, words: RStr<'_>) {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    send(&Message::Log {
        level: level.to_owned(),
        text: text::line(words.as_str()),
    });
}
