//! The order of work: what is expected to take longest goes first, so that no slow unit is left alone at
//! the end. Expectations go by the pace of what is over.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::run::unit::Work;

/// Work that nobody has taken yet.
pub struct Queue(Mutex<HashMap<Model, Waiting>>);

/// An architecture with its options: what has one pace.
type Model = (String, String);

/// The work on one model.
#[derive(Default)]
struct Waiting {
    /// The largest last.
    works: Vec<Work>,
    /// Seconds and tokens of what is over.
    spent: (f64, f64),
}

impl Waiting {
    /// Seconds a token, where anything is over.
    fn pace(&self) -> Option<f64> {
        let (seconds, tokens) = self.spent;
        (tokens > 0.0).then(|| seconds / tokens)
    }
}

impl Queue {
    /// Of some work.
    pub fn new(works: Vec<Work>) -> Self {
        let mut waiting: HashMap<Model, Waiting> = HashMap::new();
        // Backwards, so that of equals the first in the plan is the first to go.
        for work in works.into_iter().rev() {
            waiting.entry(model(&work)).or_default().works.push(work);
        }
        for waiting in waiting.values_mut() {
            waiting
                .works
                .sort_by(|one, other| one.tokens().total_cmp(&other.tokens()));
        }
        Self(Mutex::new(waiting))
    }

    /// The next to do.
    pub fn next(&self) -> Option<Work> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a model that nothing is known of, the worst is expected.
        let paces = waiting.values().filter_map(Waiting::pace);
        let slowest = paces.fold(f64::MIN_POSITIVE, f64::max);
        let longest = waiting
            .iter_mut()
            .max_by(|(name, one), (other_name, other)| {
                let expected = |waiting: &Waiting| {
                    let largest = waiting.works.last();
                    largest.map_or(-1.0, |work| {
                        work.tokens() * waiting.pace().unwrap_or(slowest)
                    })
                };
                let order = expected(one).total_cmp(&expected(other));
                order.then_with(|| other_name.cmp(name))
            });
        longest.and_then(|(_, waiting)| waiting.works.pop())
    }

    /// Notes how long some work took.
    pub fn over(&self, work: &Work, took: Duration) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (seconds, tokens) = &mut waiting.entry(model(work)).or_default().spent;
        *seconds += took.as_secs_f64();
        *tokens += work.tokens();
    }
}

fn model(work: &Work) -> Model {
    (work.unit.architecture.clone(), work.unit.options.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::unit::tests::work;

    #[test]
    fn the_longest_goes_first_and_pace_is_learned() {
        let of = |architecture: &str, steps| {
            let mut work = work();
            work.unit.architecture = architecture.into();
            work.unit.training.as_mut().unwrap().steps = steps;
            work
        };
        let queue = Queue::new(vec![of("a", 10), of("b", 30), of("a", 25), of("b", 20)]);
        let next = |queue: &Queue| {
            let work = queue.next()?;
            let steps = work.unit.training.as_ref().unwrap().steps;
            Some((work.unit.architecture, steps))
        };
        assert_eq!(next(&queue), Some(("b".into(), 30)));
        // Now `a` is known to be a hundred times slower than `b`.
        queue.over(&of("b", 30), Duration::from_secs(1));
        queue.over(&of("a", 30), Duration::from_secs(100));
        assert_eq!(next(&queue), Some(("a".into(), 25)));
        assert_eq!(next(&queue), Some(("a".into(), 10)));
        assert_eq!(next(&queue), Some(("b".into(), 20)));
        assert_eq!(next(&queue), None);
    }
}
