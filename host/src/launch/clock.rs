//! A worker's own time, and its limits.

use std::time::{Duration, Instant};

use super::tree::Usage;
use super::{Ended, Limits};

/// Most that counts between two looks: what is beyond it was this process's own absence.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// A worker's own time.
pub struct Clock {
    looked: Instant,
    own: Duration,
    /// Its own time when it said something last.
    spoke: Duration,
    processor: Duration,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            looked: Instant::now(),
            own: Duration::ZERO,
            spoke: Duration::ZERO,
            processor: Duration::ZERO,
        }
    }

    /// Counts what passed since the last look.
    pub fn look(&mut self, usage: Usage) {
        let passed = self.looked.elapsed().min(LONGEST_LOOK);
        self.looked = Instant::now();
        let ran = usage.processor.saturating_sub(self.processor);
        self.processor = usage.processor;
        self.own += own_part(passed, ran, usage.running);
    }

    /// Its own time so far.
    pub fn own(&self) -> Duration {
        self.own
    }

    /// Time since the last look.
    pub fn since_look(&self) -> Duration {
        self.looked.elapsed()
    }

    /// It said something.
    pub fn spoke(&mut self) {
        self.spoke = self.own;
    }

    /// How the worker ends if it is beyond a limit.
    pub fn beyond(&self, limits: &Limits, usage: Usage) -> Option<Ended> {
        if let Some(limit) = limits
            .memory_bytes
            .filter(|&limit| usage.memory_bytes > limit)
        {
            let used = usage.memory_bytes;
            return Some(Ended::OutOfMemory { used, limit });
        }
        if limits.time.is_some_and(|limit| self.own >= limit) {
            return Some(Ended::TimedOut);
        }
        let limit = limits.silence;
        (self.own - self.spoke >= limit).then_some(Ended::Silent { limit })
    }
}

/// The part of some time that a worker had for itself: what its threads ran of it, or all of it where they
/// slept. `running` threads share what there was.
fn own_part(passed: Duration, ran: Duration, running: u32) -> Duration {
    if ran.is_zero() && running == 0 {
        return passed;
    }
    passed.min(ran / running.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_a_processor_does_not_count() {
        let ms = Duration::from_millis;
        assert_eq!(own_part(ms(100), ms(0), 0), ms(100), "it sleeps");
        assert_eq!(
            own_part(ms(100), ms(100), 1),
            ms(100),
            "it has one to itself"
        );
        assert_eq!(own_part(ms(100), ms(10), 1), ms(10), "others had it");
        assert_eq!(own_part(ms(100), ms(0), 2), ms(0), "others had all");
        assert_eq!(own_part(ms(100), ms(200), 4), ms(50), "four threads on two");
        assert_eq!(
            own_part(ms(100), ms(400), 4),
            ms(100),
            "four threads on four"
        );
    }
}
