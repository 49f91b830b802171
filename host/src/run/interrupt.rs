//! Ctrl-C and its kin: the first asks the run to stop in order, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

/// What asks a run to stop: Ctrl-C, `kill`, a closed terminal, Ctrl-\\, and the warning of a batch
/// scheduler before it takes the machine away.
const SIGNALS: [i32; 5] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1];

/// A flag that any of these sets.
///
/// # Errors
/// The system refuses a signal handler.
pub fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let ignored = ignored();
    for signal in SIGNALS {
        // `nohup` has a reason.
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        // In this order: the second time, the flag is already set when this handler looks.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(crate::exit::INTERRUPTED),
            Arc::clone(&flag),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// The signals that this process was started to ignore, a bit each from 1 on.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
