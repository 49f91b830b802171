//! Draws of a target: splitmix64, so that a seed gives the same inputs everywhere and for ever.

/// A stream of draws.
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of one input of a seed.
    pub fn new(seed: u64, input: u64) -> Self {
        let mut random = Self {
            state: seed ^ input.wrapping_mul(0xd134_2543_de82_ef95),
        };
        random.bits();
        random
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `end - 1`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            end => (self.bits() % end as u64) as usize,
        }
    }

    /// Whether one draw in `of` hits.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of a list.
    ///
    /// # Panics
    /// For an empty list.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
