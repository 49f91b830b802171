//! From what a short calibration took to what a plan will take: arithmetic on records, and the queue that a run has.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::run::queue::Queue;
use crate::run::unit::Work;
use crate::worker::rows_at_once;

/// What training steps took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// Seconds that the first steps took beyond their share: memory, caches, kernels that are compiled.
    pub begin: f64,
    /// Seconds a step.
    pub each: f64,
}

impl Steps {
    /// Of the seconds from the beginning of a training to the end of each of its steps. The first third of them is
    /// warming up; of the others the median counts, as other work that holds up one of so few says nothing of the
    /// rest. None without a step.
    pub fn new(ends: &[f64]) -> Option<Self> {
        let warming = ends.len() / 3;
        let begun = |step: usize| step.checked_sub(1).map_or(0.0, |before| ends[before]);
        let mut took: Vec<f64> = (warming..ends.len())
            .map(|step| ends[step] - begun(step))
            .collect();
        took.sort_by(f64::total_cmp);
        let each = took.get(took.len() / 2)?.max(0.0);
        let begin = (begun(warming) - each * warming as f64).max(0.0);
        Some(Self { begin, each })
    }

    /// Seconds of so many steps.
    pub fn seconds(&self, steps: u64) -> f64 {
        self.begin + self.each * steps as f64
    }
}

/// What reading some examples of one length took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Length, in tokens.
    pub length: usize,
    /// Examples.
    pub samples: u64,
    /// Seconds.
    pub seconds: f64,
    /// Recurrent state of one sequence at the end, in bytes.
    pub state_bytes: u64,
    /// Peak resident memory of the worker meanwhile, in bytes, where the system says it.
    pub peak_bytes: Option<u64>,
}

impl Point {
    /// Seconds a token.
    fn pace(&self) -> f64 {
        self.seconds / self.tokens()
    }

    fn tokens(&self) -> f64 {
        self.samples as f64 * self.length as f64
    }
}

/// What reading takes by length: as measured where it was, and beyond by a fit. A token costs `a + b T` seconds in a
/// sequence of T tokens; `b` is that of attention, and 0 where the state does not grow.
#[derive(Debug, Clone)]
pub struct Reading {
    /// By length, ascending.
    points: Vec<Point>,
    /// The fit's `a` and `b`.
    fit: (f64, f64),
    /// Bytes of state that a token adds to a sequence.
    growth: f64,
}

impl Reading {
    /// Of measured lengths, ascending; none without any.
    pub fn new(points: Vec<Point>) -> Option<Self> {
        let last = *points.last()?;
        // Shorter ones are read in more rows at once, and say less of long ones.
        let long: Vec<Point> = points
            .iter()
            .filter(|point| point.length * 4 >= last.length)
            .copied()
            .collect();
        let growth = match points.iter().rev().nth(1) {
            Some(before) => {
                let bytes = last.state_bytes.saturating_sub(before.state_bytes);
                bytes as f64 / (last.length - before.length).max(1) as f64
            }
            None => 0.0,
        };
        Some(Self {
            fit: fit(&long, growth > 0.0),
            points,
            growth,
        })
    }

    fn at(&self, length: usize) -> Option<&Point> {
        self.points.iter().find(|point| point.length == length)
    }

    /// Seconds that so many examples of a length take.
    pub fn seconds(&self, length: usize, samples: u64) -> f64 {
        // Examples are read in groups, and a group that is not full takes as long.
        let groups = |of: u64| samples.div_ceil(of.max(1)) as f64;
        match self.at(length) {
            Some(point) => point.seconds * groups(point.samples),
            None => {
                let rows = rows_at_once(length, samples, self.state_bytes(length));
                let (a, b) = self.fit;
                let tokens = groups(rows) * rows as f64 * length as f64;
                tokens * (a + b * length as f64)
            }
        }
    }

    /// Peak memory of a worker that reads so many examples of a length, in bytes.
    pub fn memory(&self, length: usize, samples: u64) -> Option<u64> {
        if let Some(point) = self.at(length) {
            return point.peak_bytes;
        }
        let last = self.points.last()?;
        let states = |length, samples| {
            let state = self.state_bytes(length);
            state.saturating_mul(rows_at_once(length, samples, state))
        };
        let more = states(length, samples).saturating_sub(states(last.length, last.samples));
        last.peak_bytes.map(|peak| peak.saturating_add(more))
    }

    /// State of one sequence of a length, in bytes.
    fn state_bytes(&self, length: usize) -> u64 {
        self.points.last().map_or(0, |last| {
            let more = self.growth * length.saturating_sub(last.length) as f64;
            last.state_bytes.saturating_add(more as u64)
        })
    }
}

/// Seconds a token as `a + b T`, neither of them negative; `b` is 0 where nothing `grows` with T.
fn fit(points: &[Point], grows: bool) -> (f64, f64) {
    let tokens: f64 = points.iter().map(Point::tokens).sum();
    let seconds: f64 = points.iter().map(|point| point.seconds).sum();
    let flat = (seconds / tokens.max(1.0), 0.0);
    if !grows || points.len() < 2 {
        return flat;
    }
    let mean =
        |value: &dyn Fn(&Point) -> f64| points.iter().map(value).sum::<f64>() / points.len() as f64;
    let length = |point: &Point| point.length as f64;
    let (middle, pace) = (mean(&length), mean(&Point::pace));
    let spread = mean(&|point| (length(point) - middle).powi(2));
    let both = mean(&|point| (length(point) - middle) * (point.pace() - pace));
    let slope = both / spread.max(f64::MIN_POSITIVE);
    if slope <= 0.0 {
        return flat;
    }
    let start = pace - slope * middle;
    if start >= 0.0 {
        return (start, slope);
    }
    // Through the origin.
    let slope = mean(&|point| length(point) * point.pace()) / mean(&|point| length(point).powi(2));
    (0.0, slope)
}

/// Seconds that `jobs` workers take for some work, in a run's own order. `seconds` are those of one piece.
pub fn wall_seconds(works: Vec<Work>, jobs: usize, seconds: &dyn Fn(&Work) -> Duration) -> f64 {
    let jobs = jobs.clamp(1, works.len().max(1));
    let queue = Queue::new(works);
    let mut at_work: Vec<Option<(Work, Duration)>> = vec![None; jobs];
    let mut free: BinaryHeap<_> = (0..jobs)
        .map(|slot| Reverse((Duration::ZERO, slot)))
        .collect();
    let mut wall = Duration::ZERO;
    while let Some(Reverse((now, slot))) = free.pop() {
        wall = wall.max(now);
        if let Some((work, took)) = at_work[slot].take() {
            queue.over(&work, took);
        }
        if let Some(work) = queue.next() {
            let took = seconds(&work);
            free.push(Reverse((now.saturating_add(took), slot)));
            at_work[slot] = Some((work, took));
        }
    }
    wall.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::unit::tests::work;

    fn near(found: f64, wanted: f64) {
        assert!((found / wanted - 1.0).abs() < 1e-6, "{found}, not {wanted}");
    }

    /// A full group of a length whose tokens take `a + b T` seconds.
    fn point(length: usize, a: f64, b: f64, state_bytes: u64) -> Point {
        let samples = rows_at_once(length, 100, state_bytes);
        let tokens = samples as f64 * length as f64;
        Point {
            length,
            samples,
            seconds: tokens * (a + b * length as f64),
            state_bytes,
            peak_bytes: Some(100 << 20),
        }
    }

    #[test]
    fn steps_without_their_warming_up() {
        // Two slow ones, then a tenth of a second each but for one that was held up.
        let steps = Steps::new(&[1.0, 2.0, 2.1, 2.2, 5.3, 5.4]).unwrap();
        near(steps.each, 0.1);
        near(steps.seconds(1000), 1.8 + 100.0);
        near(Steps::new(&[0.5]).unwrap().seconds(4), 2.0);
        assert_eq!(Steps::new(&[]), None);
    }

    #[test]
    fn measured_lengths_are_scaled_by_groups() {
        let reading = Reading::new(vec![point(2048, 1e-6, 0.0, 10)]).unwrap();
        // Eight rows a group: 20 examples are three groups.
        near(reading.seconds(2048, 20), 3.0 * 8.0 * 2048e-6);
        assert_eq!(reading.memory(2048, 20), Some(100 << 20));
        assert!(Reading::new(Vec::new()).is_none());
    }

    #[test]
    fn longer_lengths_are_linear_or_quadratic() {
        let lengths = [64, 1024, 2048, 4096];
        let attention = |b| {
            let state = |length| length as u64 * 100;
            Reading::new(lengths.map(|t| point(t, 1e-6, b, state(t))).to_vec()).unwrap()
        };
        let tokens = 8.0 * 65536.0;
        near(
            attention(1e-9).seconds(65536, 8),
            tokens * (1e-6 + 65536e-9),
        );
        near(attention(0.0).seconds(65536, 8), tokens * 1e-6);
        // What only looks like growth, in a model whose state does not grow, is not carried on.
        let noise = lengths.map(|t| point(t, 1e-6, if t == 4096 { 1e-11 } else { 0.0 }, 500));
        let reading = Reading::new(noise.to_vec()).unwrap();
        assert!(reading.seconds(1 << 20, 8) < 1.05 * 8.0 * f64::from(1 << 20) * 1e-6);
        // Nor does a token ever take less than nothing.
        assert!(attention(-2e-10).seconds(1 << 20, 8) > 0.0);
    }

    #[test]
    fn memory_grows_by_the_state_of_all_rows() {
        let grows = [1024, 4096].map(|t| point(t, 1e-6, 0.0, t as u64 * 1000));
        let reading = Reading::new(grows.to_vec()).unwrap();
        let more = 8 * (8192 - 4096) * 1000;
        assert_eq!(reading.memory(8192, 100), Some((100 << 20) + more));
        let same = [1024, 4096].map(|t| point(t, 1e-6, 0.0, 1000));
        let reading = Reading::new(same.to_vec()).unwrap();
        assert_eq!(reading.memory(1 << 20, 100), Some(100 << 20));
    }

    #[test]
    fn the_wall_clock_is_that_of_the_queue() {
        let of = |steps| {
            let mut work = work();
            work.unit.training.as_mut().unwrap().steps = steps;
            work
        };
        let works = || vec![of(1), of(2), of(3), of(6)];
        let seconds = |work: &Work| Duration::from_secs(work.unit.training.as_ref().unwrap().steps);
        near(wall_seconds(works(), 1, &seconds), 12.0);
        // The longest first: 6 on one worker, 3, 2 and 1 on the other.
        near(wall_seconds(works(), 2, &seconds), 6.0);
        near(wall_seconds(works(), 9, &seconds), 6.0);
        assert!(wall_seconds(Vec::new(), 2, &seconds) == 0.0);
    }
}
