//! The worker's line to the host. It is a private copy of standard output, and descriptor 1 then
//! leads to standard error: whatever a plugin prints cannot reach the protocol.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

use longhaul_plugin_api::abi::LogLevel;
use longhaul_plugin_api::abi_stable::std_types::RStr;

use crate::worker::protocol::Message;

static PIPE: OnceLock<Mutex<File>> = OnceLock::new();

/// Takes standard output for the protocol. Called once, before a plugin is loaded.
///
/// # Errors
/// The system refuses a descriptor.
pub fn take_stdout() -> std::io::Result<()> {
    let _ = PIPE.set(Mutex::new(crate::machine::private_stdout()?));
    Ok(())
}

/// Sends a message. A host that is gone ends the worker: nobody waits for its work.
pub fn send(message: &Message) {
    let Some(pipe) = PIPE.get() else { return };
    let mut line = serde_json::to_vec(message).expect("a message serialises");
    line.push(b'\n');
    let mut pipe = pipe
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if pipe.write_all(&line).is_err() {
        std::process::exit(1);
    }
}

/// Passes a plugin's log event on to the host.
pub extern "C" fn plugin_log(level: LogLevel, text: RStr<'_>) {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    send(&Message::Log {
        level: level.to_owned(),
        text: text.to_string(),
    });
}
