//! Ctrl-C and its kin: the first asks those who listen to stop in order, the second ends the process at
//! once. Where nobody listens, the first ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

/// What asks a run to stop: Ctrl-C, `kill`, a closed terminal, Ctrl-\\, and the warning of a batch
/// scheduler before it takes the machine away.
const SIGNALS: [i32; 5] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1];

/// What the handlers share.
struct Handled {
    /// Set by Ctrl-C.
    asked: Arc<AtomicBool>,
    /// Whether nobody listens.
    idle: Arc<AtomicBool>,
    /// How many listen.
    listeners: Mutex<usize>,
}

/// Someone who looks at the flag; while there is one, Ctrl-C only sets it.
pub struct Listener {
    handled: &'static Handled,
}

impl Listener {
    /// Begins to listen to Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// The system refuses a signal handler.
    pub fn new() -> std::io::Result<Self> {
        static HANDLED: OnceLock<Handled> = OnceLock::new();
        static FIRST: Mutex<()> = Mutex::new(());
        let _first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        let handled = match HANDLED.get() {
            Some(handled) => handled,
            None => {
                let made = handle()?;
                HANDLED.get_or_init(|| made)
            }
        };
        handled.count(|listeners| listeners + 1);
        Ok(Self { handled })
    }

    /// The flag that Ctrl-C sets.
    pub fn flag(&self) -> &AtomicBool {
        &self.handled.asked
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handled.count(|listeners| listeners - 1);
    }
}

impl Handled {
    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *listeners = change(*listeners);
        self.idle.store(*listeners == 0, Ordering::Relaxed);
    }
}

fn handle() -> std::io::Result<Handled> {
    let (asked, idle) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(true)),
    );
    let ignored = ignored();
    for signal in SIGNALS {
        // `nohup` has a reason.
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&idle))?;
        // In this order: the second time, the flag is already set when this handler looks.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(crate::exit::INTERRUPTED),
            Arc::clone(&asked),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&asked))?;
    }
    Ok(Handled {
        asked,
        idle,
        listeners: Mutex::new(0),
    })
}

/// A flag that Ctrl-C (or SIGTERM) sets, for one who listens from now on to the end of the process.
///
/// # Errors
/// The system refuses a signal handler.
pub fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let listener = std::mem::ManuallyDrop::new(Listener::new()?);
    Ok(Arc::clone(&listener.handled.asked))
}

/// The signals that this process was started to ignore, a bit each from 1 on.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
