//! Recordings by what they were made for. Each is kept with the places of its inputs, so that a shape met
//! again needs nothing but an upload and a replay. It holds addresses and no memory: whoever owns the memory
//! clears it when that moves.

use longhaul_plugin_api::author::Result;

use super::device::{Device, Recording};
use super::guards::Guards;
use super::memory::DeviceArena;
use super::ports::{Places, PortMemory};
use crate::engine::graph::Program;
use crate::engine::tensor::Shape;

/// Most nodes that are kept, beside the latest recording: some hundred megabytes of a driver's memory. A whole step is
/// some hundred nodes, but a wide recurrent cell has two a token and layer and as many backward.
const MOST_NODES: usize = 1 << 18;

/// A recorded pass.
struct Kept<K> {
    key: K,
    places: Places,
    guards: Guards,
    recording: Box<dyn Recording>,
}

/// The recordings used last, at most as many as it was made for, and no more nodes than [`MOST_NODES`] in all.
pub(crate) struct Recordings<K> {
    most: usize,
    most_nodes: usize,
    /// The latest comes last.
    kept: Vec<Kept<K>>,
}

impl<K: PartialEq> Recordings<K> {
    /// None yet, and `most` in time, at least 1.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            most_nodes: MOST_NODES,
            kept: Vec::with_capacity(most),
        }
    }

    /// Whether there is one; it is the latest then.
    pub fn recall(&mut self, key: &K) -> bool {
        // Mostly it was the latest before, too.
        let found = self.kept.iter().rposition(|kept| kept.key == *key);
        if let Some(index) = found {
            self.kept[index..].rotate_left(1);
        }
        found.is_some()
    }

    /// Keeps one as the latest, in the place of those used longest ago where there are too many.
    pub fn keep(&mut self, key: K, places: Places, guards: Guards, recording: Box<dyn Recording>) {
        let mut nodes = recording.nodes();
        let fits = self
            .kept
            .iter()
            .rev()
            .take(self.most - 1)
            .take_while(|kept| {
                nodes += kept.recording.nodes();
                nodes <= self.most_nodes
            });
        let fits = fits.count();
        self.kept.drain(..self.kept.len() - fits);
        self.kept.push(Kept {
            key,
            places,
            guards,
            recording,
        });
    }

    /// Places of the latest's inputs and results.
    ///
    /// # Panics
    /// Where there is none.
    pub fn places(&self) -> Places {
        self.latest().places
    }

    /// Runs the latest; whether what is between buffers was left alone.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where there is none.
    pub fn replay(&self, device: &dyn Device) -> Result<bool> {
        let Kept {
            guards, recording, ..
        } = self.latest();
        guards.fill(device)?;
        device.replay(recording.as_ref())?;
        Ok(guards.breach(device)?.is_none())
    }

    fn latest(&self) -> &Kept<K> {
        self.kept.last().expect("recalled or kept just now")
    }

    /// Lays out buffers, inputs and results of a shape that is not known yet, with room for so many values of
    /// logits. What was recorded names addresses, so all of it goes when memory moves, and when an error may have
    /// given some back.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn lay_out(
        &mut self,
        arena: &mut DeviceArena,
        ports: &mut PortMemory,
        program: &Program,
        (shape, training): (Shape, bool),
        logits: usize,
    ) -> Result<Places> {
        let arena = arena.prepare(program, shape, training, false);
        let laid_out = arena.and_then(|arena_moved| {
            let (places, moved) = ports.lay_out(shape, logits)?;
            Ok((places, moved || arena_moved))
        });
        if !matches!(laid_out, Ok((_, false))) {
            self.clear();
        }
        laid_out.map(|(places, _)| places)
    }

    /// Drops those whose key does not hold.
    pub fn retain(&mut self, holds: impl Fn(&K) -> bool) {
        self.kept.retain(|kept| holds(&kept.key));
    }

    /// Drops all of them.
    pub fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::device::Ptr;
    use crate::cuda::run::Ports;

    struct Nothing(usize);

    impl Recording for Nothing {
        fn nodes(&self) -> usize {
            self.0
        }
    }

    fn places(number: u64) -> Places {
        Places {
            ports: Ports::default(),
            schedule: Ptr(number),
            loss_parts: Ptr::default(),
            loss_count: 0,
            scored: 0,
        }
    }

    #[test]
    fn those_used_last_are_kept() {
        let mut recordings = Recordings::new(2);
        for key in [1, 2] {
            assert!(!recordings.recall(&key));
            recordings.keep(key, places(key), Guards::default(), Box::new(Nothing(1)));
        }
        assert!(recordings.recall(&1));
        assert_eq!(recordings.places().schedule, Ptr(1));
        recordings.keep(3, places(3), Guards::default(), Box::new(Nothing(1)));
        assert!(!recordings.recall(&2) && recordings.recall(&3) && recordings.recall(&1));
        recordings.retain(|key| *key == 3);
        assert!(!recordings.recall(&1) && recordings.recall(&3));
        recordings.clear();
        assert!(!recordings.recall(&3));
    }

    #[test]
    fn large_ones_are_few() {
        let mut recordings = Recordings {
            most_nodes: 10,
            ..Recordings::new(256)
        };
        for (key, nodes) in [(1, 2), (2, 3), (3, 5)] {
            recordings.keep(
                key,
                places(key),
                Guards::default(),
                Box::new(Nothing(nodes)),
            );
        }
        assert!([1, 2, 3].iter().all(|key| recordings.recall(key)));
        recordings.keep(4, places(4), Guards::default(), Box::new(Nothing(3)));
        // The two used last have 8 nodes together, and with the one before them it would be 11.
        assert_eq!(
            [1, 2, 3, 4].map(|key| recordings.recall(&key)),
            [false, false, true, true]
        );
        recordings.keep(5, places(5), Guards::default(), Box::new(Nothing(100)));
        assert_eq!(
            [3, 4, 5].map(|key| recordings.recall(&key)),
            [false, false, true]
        );
    }
}
