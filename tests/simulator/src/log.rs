//! `SIMULATED_CUDA_LOG`: a line for every context that is opened or closed, so that a test sees which
//! process used which card and what it left behind.

use std::fs::OpenOptions;
use std::io::Write;

use crate::code::abort;
use crate::settings::SETTINGS;

/// Adds `PROCESS card CARD WHAT` to the log.
pub fn line(card: usize, what: &str) {
    let Some(path) = &SETTINGS.log else {
        return;
    };
    let text = format!("{} card {card} {what}\n", std::process::id());
    let file = OpenOptions::new().append(true).create(true).open(path);
    // One write of one line: processes do not cut into each other's.
    if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
        abort(format!("SIMULATED_CUDA_LOG={}: {error}", path.display()));
    }
}
