//! A stream: a thread that does what it is asked in order, and a capture that keeps it instead.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::code::{Code, Outcome, fail};
use crate::work::Work;
use crate::world::Context;

/// Which calls are refused on other threads and streams while a stream captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Unsafe ones on any thread.
    Global,
    /// Unsafe ones on the thread that captures.
    ThreadLocal,
    /// None.
    Relaxed,
}

impl Mode {
    /// By its number in `cuda.h`.
    pub fn of(number: c_int) -> Outcome<Self> {
        match number {
            0 => Ok(Self::Global),
            1 => Ok(Self::ThreadLocal),
            2 => Ok(Self::Relaxed),
            _ => fail(Code::InvalidValue, format!("capture mode {number}")),
        }
    }
}

/// A stream of a context.
pub struct Stream {
    pub context: Arc<Context>,
    queue: Mutex<Queue>,
    changed: Condvar,
    capture: Mutex<Option<Capture>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    busy: bool,
    closed: bool,
}

struct Capture {
    mode: Mode,
    thread: ThreadId,
    work: Vec<Work>,
    valid: bool,
}

impl Stream {
    /// A stream and its thread.
    pub fn start(context: Arc<Context>) -> Arc<Self> {
        let stream = Arc::new(Self {
            context,
            queue: Mutex::default(),
            changed: Condvar::new(),
            capture: Mutex::default(),
        });
        let worker = Arc::clone(&stream);
        thread::spawn(move || worker.run());
        stream
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn capture(&self) -> MutexGuard<'_, Option<Capture>> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closed;
            let queue = self.changed.wait_while(self.queue(), idle);
            let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
            let Some(work) = queue.waiting.pop_front() else {
                return;
            };
            queue.busy = true;
            drop(queue);
            // After an error only events are reached, so that nobody waits for ever.
            let goes_on = self.context.error().is_ok() || matches!(work, Work::Reach(..));
            if goes_on && let Err(code) = work.run(&self.context) {
                self.context.break_down(code);
            }
            // What work held is given back before anybody is told that it is done.
            drop(work);
            self.queue().busy = false;
            self.changed.notify_all();
        }
    }

    /// Asks for work; what `pageable` memory it would read later cannot stand in a graph.
    pub fn submit(&self, what: &str, work: Work) -> Outcome {
        if let Some(capture) = self.capture().as_mut() {
            if !capture.valid {
                return Err(Code::CaptureInvalidated);
            }
            let refused = match &work {
                Work::Upload { .. } => {
                    Some("reads pageable memory, which is gone when the graph runs")
                }
                Work::Download { _held: None, .. } => {
                    Some("writes pageable memory, which is gone when the graph runs")
                }
                Work::Graph(_) => {
                    Some("is a graph in a graph, which this simulation does not have")
                }
                _ => None,
            };
            if let Some(why) = refused {
                capture.valid = false;
                return fail(
                    Code::CaptureUnsupported,
                    format!("{what} while the stream captures {why}"),
                );
            }
            capture.work.push(match work {
                Work::PinnedUpload {
                    to,
                    from,
                    count,
                    _held,
                    ..
                } => Work::PinnedUpload {
                    to,
                    from,
                    count,
                    expected: None,
                    _held,
                },
                work => work,
            });
            return Ok(());
        }
        self.queue().waiting.push_back(work);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until everything is done; the context's error then shows.
    pub fn wait(&self) {
        let working = |queue: &mut Queue| queue.busy || !queue.waiting.is_empty();
        let done = self.changed.wait_while(self.queue(), working);
        drop(done.unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether everything is done.
    pub fn is_done(&self) -> bool {
        let queue = self.queue();
        !queue.busy && queue.waiting.is_empty()
    }

    /// Lets the thread end when its work is done.
    pub fn close(&self) {
        self.queue().closed = true;
        self.changed.notify_all();
    }

    /// Whether it captures.
    pub fn is_capturing(&self) -> bool {
        self.capture().is_some()
    }

    /// Begins to keep what is asked for.
    pub fn begin_capture(&self, mode: Mode) -> Outcome {
        let mut capture = self.capture();
        if capture.is_some() {
            return fail(
                Code::CaptureUnsupported,
                "a stream that captures begins to capture",
            );
        }
        *capture = Some(Capture {
            mode,
            thread: thread::current().id(),
            work: Vec::new(),
            valid: true,
        });
        Ok(())
    }

    /// What was asked for since.
    pub fn end_capture(&self) -> Outcome<Vec<Work>> {
        let mut place = self.capture();
        let Some(capture) = place.as_ref() else {
            return fail(Code::InvalidValue, "a capture ends that was not begun");
        };
        if capture.mode != Mode::Relaxed && capture.thread != thread::current().id() {
            return fail(Code::CaptureWrongThread, "a capture ends on another thread");
        }
        match place.take() {
            Some(capture) if capture.valid => Ok(capture.work),
            _ => fail(
                Code::CaptureInvalidated,
                "the capture met a call that is not allowed",
            ),
        }
    }

    /// Refuses a call on this very stream that no capture allows, and spoils the capture.
    pub fn forbid_while_capturing(&self, what: &str) -> Outcome {
        match self.capture().as_mut() {
            None => Ok(()),
            Some(capture) => {
                capture.valid = false;
                fail(
                    Code::CaptureUnsupported,
                    format!("{what} on a stream that captures"),
                )
            }
        }
    }

    /// Refuses a call that is unsafe while this stream captures, and spoils the capture.
    pub fn forbid_unsafe(&self, what: &str) -> Outcome {
        let mut capture = self.capture();
        let Some(capture) = capture.as_mut() else {
            return Ok(());
        };
        let applies = match capture.mode {
            Mode::Global => true,
            Mode::ThreadLocal => capture.thread == thread::current().id(),
            Mode::Relaxed => false,
        };
        if applies {
            capture.valid = false;
            return fail(
                Code::CaptureUnsupported,
                format!("{what} while a stream captures in mode {:?}", capture.mode),
            );
        }
        Ok(())
    }
}
