//! Random draws by counter: ChaCha8 keyed by task, options, split and seed; an example's index
//! and a purpose choose the stream, and a position in the stream is found without the ones before.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::task::{Coordinates, Split};

/// Streams of one example.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// What is placed where.
    Plan = 0,
    /// The filler between, one word a position.
    Filler = 1,
    /// The order of a breakdown's values over examples.
    Order = 2,
    /// Trials from which the accuracy of guessing is computed.
    Chance = 3,
}

/// A source of draws.
#[derive(Clone)]
pub struct Draws {
    rng: ChaCha8Rng,
}

/// The key of a task with options: a stable hash of its name and options.
pub fn key(name: &str, options: &str) -> u64 {
    // FNV-1a, 64 bits (Fowler, Noll, Vo).
    let bytes = name.bytes().chain([0]).chain(options.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Draws {
    /// The draws of an example for a purpose, at an attempt to find one that belongs to its split. The
    /// length is part of the key, so that examples of two lengths share nothing.
    pub fn new(key: u64, at: &Coordinates, attempt: u64, purpose: Purpose) -> Self {
        let split: u64 = match at.split {
            Split::Train => 1,
            Split::Validation => 2,
            Split::Test => 3,
        };
        let mut seed = [0; 32];
        for (place, word) in
            seed.chunks_exact_mut(8)
                .zip([key, split | attempt << 8, at.seed, at.length as u64])
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let mut rng = ChaCha8Rng::from_seed(seed);
        rng.set_stream(at.index.wrapping_mul(4).wrapping_add(purpose as u64));
        Self { rng }
    }

    /// The next draw below `count`, by multiplication and shift; the bias is below `count / 2^32`.
    pub fn below(&mut self, count: usize) -> usize {
        ((u64::from(self.rng.next_u32()) * count as u64) >> 32) as usize
    }

    /// The next 64 bits, two draws.
    pub fn word(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// The next draw from [0, 1).
    pub fn unit(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / 4_294_967_296.0
    }

    /// The next draw from the exponential distribution of mean 1.
    pub fn exponential(&mut self) -> f64 {
        // 53 bits, so that the smallest of a million is not rounded; never the logarithm of 0.
        let bits = (self.rng.next_u64() >> 11) as f64;
        -((bits + 0.5) / 9_007_199_254_740_992.0).ln()
    }

    /// Goes to a position of the stream, counted in draws.
    pub fn seek(&mut self, position: usize) {
        self.rng.set_word_pos(position as u128);
    }

    /// `count` distinct numbers below `range`, in random order (Floyd's method, then a shuffle).
    pub fn distinct(&mut self, count: usize, range: usize) -> Vec<usize> {
        let mut chosen: Vec<usize> = Vec::with_capacity(count);
        let mut seen = (count > 64).then(|| std::collections::HashSet::with_capacity(count));
        for top in range - count..range {
            let candidate = self.below(top + 1);
            let taken = match &mut seen {
                Some(seen) => !seen.insert(candidate),
                None => chosen.contains(&candidate),
            };
            let value = if taken { top } else { candidate };
            if taken && let Some(seen) = &mut seen {
                seen.insert(top);
            }
            chosen.push(value);
        }
        for last in (1..chosen.len()).rev() {
            chosen.swap(last, self.below(last + 1));
        }
        chosen
    }
}
