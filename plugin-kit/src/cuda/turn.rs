//! Whose turn it is on a device: one call at a time. A recording is one call, and those it makes itself go
//! through, so that nothing of another thread's gets into it.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

thread_local! {
    /// Its address tells living threads apart.
    static ME: u8 = const { 0 };
}

fn me() -> usize {
    ME.with(|me| ptr::from_ref(me) as usize)
}

/// The turns of a device.
#[derive(Default)]
pub struct Turns {
    lock: Mutex<()>,
    /// The thread whose turn it is; 0 for none.
    holder: AtomicUsize,
}

/// A turn, until it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    /// Empty inside a turn that this thread already has.
    outermost: Option<MutexGuard<'a, ()>>,
}

impl Turns {
    /// Waits until no other thread has the turn.
    pub fn take(&self) -> Turn<'_> {
        // Only this thread writes its own address, so what it reads of that is never old.
        let outermost = (self.holder.load(Ordering::Relaxed) != me()).then(|| {
            // Nothing is behind the lock that a panic could leave half done.
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.holder.store(me(), Ordering::Relaxed);
            guard
        });
        Turn {
            turns: self,
            outermost,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.outermost.is_some() {
            self.turns.holder.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Turns;

    #[test]
    fn a_turn_has_turns_inside_and_keeps_other_threads_out() {
        let turns = Turns::default();
        let finished = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let outer = turns.take();
            drop(turns.take());
            let other = scope.spawn(|| {
                let _turn = turns.take();
                finished.load(Ordering::Relaxed)
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(turns.take());
            finished.store(true, Ordering::Relaxed);
            drop(outer);
            assert!(other.join().unwrap(), "the turn was given up inside");
        });
    }
}
