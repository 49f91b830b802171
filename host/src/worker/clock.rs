//! Where a worker's time goes: inside the plugin's functions or outside them.

use std::time::{Duration, Instant};

/// Counts the time inside the plugin since the worker began.
#[derive(Debug)]
pub struct Clock {
    begun: Instant,
    inside: Duration,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            begun: Instant::now(),
            inside: Duration::ZERO,
        }
    }

    /// Runs a call into the plugin and counts its time.
    pub fn inside<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = call();
        self.inside += begun.elapsed();
        result
    }

    /// Seconds inside and outside the plugin so far.
    pub fn seconds(&self) -> (f64, f64) {
        let all = self.begun.elapsed();
        (
            self.inside.as_secs_f64(),
            all.saturating_sub(self.inside).as_secs_f64(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_on_its_side() {
        let mut clock = Clock::start();
        clock.inside(|| std::thread::sleep(Duration::from_millis(30)));
        std::thread::sleep(Duration::from_millis(10));
        let (inside, outside) = clock.seconds();
        assert!(inside >= 0.03, "{inside}");
        assert!(outside >= 0.01, "{outside}");
    }
}
