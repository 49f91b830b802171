//! What the environment sets, read once.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::code::{Code, abort};

/// The settings of this process.
pub static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::read);

/// How this machine is simulated.
pub struct Settings {
    /// The card behind each number that the process sees.
    pub cards: Vec<usize>,
    /// Bytes a card has.
    pub memory: u64,
    /// Time from a copy out of pinned memory being asked for to its being made.
    pub delay: Duration,
    /// Where contexts are written down.
    pub log: Option<PathBuf>,
    /// What the matrix library has no algorithms for: `epilogues`, `rounding`.
    pub lacks: Vec<String>,
    fault: Option<Fault>,
}

/// What goes wrong, and when.
struct Fault {
    code: Code,
    /// Part of the kernel's name; without one the card is lost from the beginning.
    kernel: Option<String>,
    /// Which launch of it.
    nth: u64,
    seen: AtomicU64,
}

impl Settings {
    fn read() -> Self {
        let count = number("SIMULATED_CUDA_CARDS").unwrap_or(1) as usize;
        Self {
            cards: visible(count),
            memory: number("SIMULATED_CUDA_MEMORY").unwrap_or(2 << 30),
            delay: Duration::from_micros(number("SIMULATED_CUDA_DELAY").unwrap_or(50)),
            log: std::env::var_os("SIMULATED_CUDA_LOG").map(PathBuf::from),
            lacks: text("SIMULATED_CUDA_LACKS").map_or_else(Vec::new, |words| {
                words.split(',').map(str::to_owned).collect()
            }),
            fault: text("SIMULATED_CUDA_FAULT").map(|fault| {
                Fault::parse(&fault).unwrap_or_else(|| {
                    abort(format!(
                        "SIMULATED_CUDA_FAULT={fault}: write lost, lost@KERNEL:N or illegal-address@KERNEL:N"
                    ))
                })
            }),
        }
    }

    /// Whether there is no card behind the driver from the beginning.
    pub fn lost(&self) -> bool {
        self.fault
            .as_ref()
            .is_some_and(|fault| fault.kernel.is_none())
    }

    /// What this launch of a kernel, now counted, fails with.
    pub fn strike(&self, kernel: &str) -> Option<Code> {
        let fault = self.fault.as_ref()?;
        if !kernel.contains(fault.kernel.as_ref()?) {
            return None;
        }
        let seen = 1 + fault.seen.fetch_add(1, Ordering::Relaxed);
        (seen == fault.nth).then_some(fault.code)
    }
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let (kind, place) = text
            .split_once('@')
            .map_or((text, None), |(kind, place)| (kind, Some(place)));
        let code = match kind {
            "lost" => Code::DeviceUnavailable,
            "illegal-address" if place.is_some() => Code::IllegalAddress,
            _ => return None,
        };
        let (kernel, nth) = match place.map(|place| place.rsplit_once(':').unwrap_or((place, "1")))
        {
            None => (None, 1),
            Some((kernel, nth)) => (Some(kernel.to_owned()), u64::from_str(nth).ok()?),
        };
        Some(Self {
            code,
            kernel,
            nth,
            seen: AtomicU64::new(0),
        })
    }
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// A whole number, with K, M or G behind it for powers of 1024.
fn number(name: &str) -> Option<u64> {
    let text = text(name)?;
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let factor = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => abort(format!("{name}={text} is no number")),
    };
    match u64::from_str(digits) {
        Ok(number) => Some(factor * number),
        Err(_) => abort(format!("{name}={text} is no number")),
    }
}

/// The cards that `CUDA_VISIBLE_DEVICES` leaves, up to the first number that is none.
fn visible(count: usize) -> Vec<usize> {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Err(_) => (0..count).collect(),
        Ok(list) => list
            .split(',')
            .map_while(|item| usize::from_str(item.trim()).ok())
            .take_while(|card| *card < count)
            .collect(),
    }
}
