//! What a stream is asked to do, and doing it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use longhaul_emulator::native::{Library, NativeKernel, NativeLaunch};

use crate::code::{Code, Outcome, abort, fail};
use crate::memory::{PinnedUse, is_device_address};
use crate::products::Product;
use crate::settings::SETTINGS;
use crate::world::{Context, world};

/// One thing to do. Sizes are in bytes where nothing else is said.
pub enum Work {
    /// To the card, from bytes that were taken when the call was made.
    Upload { to: u64, bytes: Vec<u8> },
    /// To the card, from pinned memory, which is read when this runs.
    PinnedUpload {
        to: u64,
        from: usize,
        count: usize,
        /// What stood there when the call was made; none in a graph, which may be launched with other bytes.
        expected: Option<Vec<u8>>,
        _held: PinnedUse,
    },
    /// To host memory, which stays until this has run.
    Download {
        to: usize,
        from: u64,
        count: usize,
        _held: Option<PinnedUse>,
    },
    /// From place to place on the card.
    Copy { to: u64, from: u64, count: usize },
    /// A four-byte word into `rows` rows of `cols` words, `pitch` bytes apart.
    Fill {
        to: u64,
        word: u32,
        rows: usize,
        cols: usize,
        pitch: usize,
    },
    /// A kernel.
    Launch(Launch),
    /// Matrix products.
    Product(Product),
    /// A graph.
    Graph(Arc<Vec<Work>>),
    /// An event is reached for the `n`th time.
    Reach(Arc<Event>, u64),
    /// Waits until an event is reached for the `n`th time.
    Await(Arc<Event>, u64),
}

/// A kernel with its parameter's bytes.
pub struct Launch {
    pub function: Arc<Function>,
    pub launch: NativeLaunch,
    pub params: Vec<u8>,
}

/// A kernel of a loaded module.
pub struct Function {
    pub name: String,
    pub kernel: NativeKernel,
    /// Its code stays as long as work needs it.
    pub _library: Arc<Library>,
    /// Dynamic shared memory it may have.
    pub shared_bytes: Mutex<u32>,
}

impl Work {
    /// Does it, on a context that is in order.
    pub fn run(&self, context: &Context) -> Outcome {
        match self {
            Self::Upload { to, bytes } => {
                check(context, "an upload", *to, bytes.len())?;
                // SAFETY: checked; the bytes are this work's own.
                unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), *to as *mut u8, bytes.len())
                };
                Ok(())
            }
            Self::PinnedUpload {
                to,
                from,
                count,
                expected,
                ..
            } => {
                check(context, "an upload", *to, *count)?;
                std::thread::sleep(SETTINGS.delay);
                // SAFETY: the block of pinned memory is held.
                let now = unsafe { std::slice::from_raw_parts(*from as *const u8, *count) };
                if expected.as_ref().is_some_and(|expected| expected != now) {
                    abort(format!(
                        "pinned memory changed before the copy of {count} bytes from it had run"
                    ));
                }
                // SAFETY: checked.
                unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), *to as *mut u8, *count) };
                Ok(())
            }
            Self::Download {
                to, from, count, ..
            } => {
                check(context, "a download", *from, *count)?;
                // SAFETY: checked; the caller's memory stays until the copy has run, which is the contract.
                unsafe {
                    std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *count)
                };
                Ok(())
            }
            Self::Copy { to, from, count } => {
                check(context, "a copy's source", *from, *count)?;
                check(context, "a copy's end", *to, *count)?;
                // SAFETY: both are checked.
                unsafe { std::ptr::copy(*from as *const u8, *to as *mut u8, *count) };
                Ok(())
            }
            Self::Fill {
                to,
                word,
                rows,
                cols,
                pitch,
            } => {
                for row in 0..*rows {
                    let place = *to + (row * pitch) as u64;
                    check(context, "a fill", place, 4 * cols)?;
                    // SAFETY: checked, and words begin at a multiple of four: the call saw to it.
                    unsafe { std::slice::from_raw_parts_mut(place as *mut u32, *cols) }.fill(*word);
                }
                Ok(())
            }
            Self::Launch(launch) => launch.run(context),
            Self::Product(product) => product.run(context),
            Self::Graph(list) => list.iter().try_for_each(|work| work.run(context)),
            Self::Reach(event, nth) => {
                event.reach(*nth);
                Ok(())
            }
            Self::Await(event, nth) => {
                event.wait(*nth);
                Ok(())
            }
        }
    }
}

/// Refuses what reaches out of an allocation, as a card does: the context is of no use any more.
pub fn check(context: &Context, what: &str, address: u64, bytes: usize) -> Outcome {
    if bytes == 0 || world().memory.holds(context.handle, address, bytes) {
        return Ok(());
    }
    fail(
        Code::IllegalAddress,
        format!("{what} of {bytes} bytes at {address:#x}: no allocation holds them"),
    )
}

impl Launch {
    fn run(&self, context: &Context) -> Outcome {
        let name = &self.function.name;
        if let Some(code) = SETTINGS.strike(name) {
            return fail(code, format!("{name}: as SIMULATED_CUDA_FAULT asks"));
        }
        for word in self.params.as_chunks::<8>().0 {
            let address = u64::from_ne_bytes(*word);
            if is_device_address(address) && !world().memory.points_into(context.handle, address) {
                return fail(
                    Code::IllegalAddress,
                    format!("{name} was given {address:#x}, where no memory is or is any more"),
                );
            }
        }
        // SAFETY: the library is held; the addresses are those of allocations, around which pages are closed.
        unsafe { self.function.kernel.run(&self.launch, &self.params) }
            .or_else(|why| fail(Code::LaunchFailed, format!("{name}: {why}")))
    }
}

/// An event: how often it was recorded, and how often work has come to it.
#[derive(Default)]
pub struct Event {
    state: Mutex<EventState>,
    changed: Condvar,
}

#[derive(Default)]
struct EventState {
    recorded: u64,
    reached: u64,
    captured: bool,
    when: Option<Instant>,
}

impl Event {
    fn state(&self) -> std::sync::MutexGuard<'_, EventState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a recording, which is the last one now.
    pub fn record(&self) -> u64 {
        let mut state = self.state();
        state.captured = false;
        state.recorded += 1;
        state.recorded
    }

    /// The last recording stands in a graph: the event can be waited for by nobody.
    pub fn capture(&self) {
        self.state().captured = true;
    }

    fn reach(&self, nth: u64) {
        let mut state = self.state();
        state.reached = nth;
        state.when = Some(Instant::now());
        self.changed.notify_all();
    }

    fn wait(&self, nth: u64) {
        let state = self.state();
        let waits = self.changed.wait_while(state, |state| state.reached < nth);
        drop(waits.unwrap_or_else(PoisonError::into_inner));
    }

    /// The last recording.
    pub fn last(&self) -> Outcome<u64> {
        let state = self.state();
        if state.captured {
            return fail(
                Code::CapturedEvent,
                "an event that was recorded in a capture is waited for",
            );
        }
        Ok(state.recorded)
    }

    /// Waits for the last recording.
    pub fn synchronize(&self) -> Outcome {
        let last = self.last()?;
        self.wait(last);
        Ok(())
    }

    /// Whether the last recording was reached.
    pub fn query(&self) -> Outcome {
        let last = self.last()?;
        if self.state().reached < last {
            Err(Code::NotReady)
        } else {
            Ok(())
        }
    }

    /// When it was reached.
    pub fn when(&self) -> Outcome<Instant> {
        self.query()?;
        let when = self.state().when;
        when.map_or_else(
            || {
                fail(
                    Code::InvalidHandle,
                    "the time of an event that was never recorded",
                )
            },
            Ok,
        )
    }
}
