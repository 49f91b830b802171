//! A random order of any number of things, in which any place is found without the others: a Feistel
//! network of eight rounds over the next power of four, walked until it falls inside (Black and Rogaway,
//! CT-RSA 2002, method 3).

use std::ops::Range;

use crate::draws::Draws;

/// Rounds of the network.
const ROUNDS: usize = 8;

/// Places that are worked on together.
const TOGETHER: usize = 64;

/// A permutation of `0..count`.
#[derive(Debug, Clone)]
pub struct Permutation {
    count: u64,
    /// Bits of each half of the network's domain.
    half: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// A permutation from the next sixteen draws.
    pub fn new(count: usize, draws: &mut Draws) -> Self {
        let count = count as u64;
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Self {
            count,
            half: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|_| draws.word()),
        }
    }

    /// What stands at a place below the count.
    pub fn at(&self, place: usize) -> usize {
        self.walk(place, Self::forward)
    }

    /// Gives what stands at each of these places in turn: as [`Self::at`], in a fraction of the time where there are
    /// many.
    pub fn each(&self, places: Range<usize>, mut give: impl FnMut(usize)) {
        if places.len() < 1 << self.half || self.half > u16::BITS {
            return places.for_each(|place| give(self.at(place)));
        }
        let tables = self.tables();
        let mut start = places.start;
        while start < places.end {
            let count = TOGETHER.min(places.end - start);
            let mut at: [u32; TOGETHER] = std::array::from_fn(|place| (start + place) as u32);
            // Those that are outside still, in front.
            let mut outside: [u8; TOGETHER] = std::array::from_fn(|place| place as u8);
            let mut left = count;
            while left > 0 {
                let mut still = 0;
                for first in (0..left).step_by(8) {
                    // Eight at a time, because each step of one waits for the step before.
                    let some: [u8; 8] = std::array::from_fn(|i| outside[(first + i).min(left - 1)]);
                    let values =
                        self.forward_eight(&tables, some.map(|place| at[usize::from(place)]));
                    for (place, value) in some.into_iter().zip(values).take(left - first) {
                        at[usize::from(place)] = value;
                        outside[still] = place;
                        still += usize::from(u64::from(value) >= self.count);
                    }
                }
                left = still;
            }
            at[..count].iter().for_each(|&value| give(value as usize));
            start += count;
        }
    }

    /// What each round makes of each half: few values, of which a walk needs each many times.
    fn tables(&self) -> [Vec<u32>; ROUNDS] {
        let mask = (1 << self.half) - 1;
        let of = |key| (0..=mask).map(move |half| (mixed(half, key) & mask) as u32);
        self.keys.map(|key| of(key).collect())
    }

    /// The place at which something stands.
    pub fn place_of(&self, value: usize) -> usize {
        self.walk(value, Self::backward)
    }

    fn walk(&self, from: usize, step: fn(&Self, u64) -> u64) -> usize {
        let mut at = from as u64;
        loop {
            at = step(self, at);
            if at < self.count {
                return at as usize;
            }
        }
    }

    fn forward(&self, at: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (at >> self.half, at & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mixed(right, key) & mask));
        }
        left << self.half | right
    }

    /// [`Self::forward`] of eight.
    #[inline]
    fn forward_eight(&self, tables: &[Vec<u32>; ROUNDS], at: [u32; 8]) -> [u32; 8] {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (at.map(|at| at >> self.half), at.map(|at| at & mask));
        for table in tables {
            let next = std::array::from_fn(|lane| left[lane] ^ table[right[lane] as usize]);
            (left, right) = (right, next);
        }
        std::array::from_fn(|lane| left[lane] << self.half | right[lane])
    }

    fn backward(&self, at: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (at >> self.half, at & mask);
        for key in self.keys.into_iter().rev() {
            (left, right) = (right ^ (mixed(left, key) & mask), left);
        }
        left << self.half | right
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn mixed(value: u64, key: u64) -> u64 {
    let mut bits = value.wrapping_add(key);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Purpose;
    use crate::task::{Coordinates, Split};

    fn draws(index: u64) -> Draws {
        let at = Coordinates {
            split: Split::Test,
            length: 1,
            seed: 0,
            index,
        };
        Draws::new(1, &at, 0, Purpose::Plan)
    }

    #[test]
    fn every_place_once_and_back() {
        for count in [1, 2, 3, 4, 5, 16, 17, 1000, 4097] {
            let order = Permutation::new(count, &mut draws(count as u64));
            let mut values: Vec<usize> = (0..count).map(|place| order.at(place)).collect();
            for (place, &value) in values.iter().enumerate() {
                assert_eq!(order.place_of(value), place);
            }
            for from in [0, 1, count / 2] {
                let mut all = Vec::new();
                order.each(from..count, |value| all.push(value));
                assert_eq!(all, values[from..], "{count} from {from}");
            }
            values.sort_unstable();
            assert_eq!(values, (0..count).collect::<Vec<_>>());
        }
    }

    /// Each value stands at each place as often, over permutations.
    #[test]
    fn places_are_uniform() {
        const COUNT: usize = 6;
        let mut seen = [[0.0_f64; COUNT]; COUNT];
        for index in 0..12_000 {
            let order = Permutation::new(COUNT, &mut draws(index));
            for (place, seen) in seen.iter_mut().enumerate() {
                seen[order.at(place)] += 1.0;
            }
        }
        let chi: f64 = seen
            .iter()
            .flatten()
            .map(|seen| (seen - 2000.0).powi(2) / 2000.0)
            .sum();
        // 25 degrees of freedom: mean 25, standard deviation 7.1.
        assert!(chi < 25.0 + 5.0 * 7.1, "chi-square {chi}");
    }
}
