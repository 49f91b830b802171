//! Where MQAR's keys are asked for again: distinct gaps drawn one after another from a power law, as
//! the source's `choice(replace=False, p=...)` draws them, in bounded time; and what a guesser gets
//! from their order.

use crate::chance::remembered;
use crate::draws::{Draws, Purpose, key};
use crate::task::{Coordinates, Split};

/// Candidates tried for each gap before the rest is drawn by clocks.
const TRIES: usize = 4;

/// Gap i of 0..slots with probability proportional to (i + 1)^(a - 1).
#[derive(Debug, Clone, Copy)]
pub struct PowerLaw {
    /// The exponent a.
    pub a: f64,
    /// Number of gaps to choose from.
    pub slots: usize,
}

impl PowerLaw {
    /// `count` distinct gaps in the order in which they are drawn.
    pub fn draw(&self, count: usize, draws: &mut Draws) -> Vec<usize> {
        let mut gaps = Vec::with_capacity(count);
        let mut seen = (count > 64).then(std::collections::HashSet::new);
        // Candidates with replacement, those already drawn left out, are what drawing without it means.
        // Where the law leaves few likely gaps that would take for ever, so the tries are counted.
        for _ in 0..TRIES * count {
            if gaps.len() == count {
                return gaps;
            }
            let Some(gap) = self.candidate(draws) else {
                continue;
            };
            let new = match &mut seen {
                Some(seen) => seen.insert(gap),
                None => !gaps.contains(&gap),
            };
            if new {
                gaps.push(gap);
            }
        }
        self.by_clocks(count, gaps, draws)
    }

    /// A gap by rejection: the envelope is the integral of x^(a-1) over [i+1, i+2), inverted in closed
    /// form, and a candidate is kept with the ratio of the two.
    fn candidate(&self, draws: &mut Draws) -> Option<usize> {
        let (a, slots) = (self.a, self.slots);
        let top = (slots as f64 + 1.0).powf(a);
        let x = (1.0 + draws.unit() * (top - 1.0)).powf(1.0 / a);
        let gap = (x as usize).clamp(1, slots) - 1;
        let i = gap as f64 + 1.0;
        let mass = i.powf(a - 1.0);
        let envelope = ((i + 1.0).powf(a) - i.powf(a)) / a;
        // For a < 1 the mass is at most i^(a-1) / envelope <= 1 / (2^a - 1) * a of it.
        let bound = if a < 1.0 {
            a / (2f64.powf(a) - 1.0)
        } else {
            1.0
        };
        (draws.unit() * bound < mass / envelope).then_some(gap)
    }

    /// The rest of the gaps: every gap left has a clock that rings after an exponential time at the rate
    /// of its mass, and the first to ring are the next drawn, in the same law as one after another.
    fn by_clocks(&self, count: usize, mut gaps: Vec<usize>, draws: &mut Draws) -> Vec<usize> {
        let mut left = vec![true; self.slots];
        for &gap in &gaps {
            left[gap] = false;
        }
        let mut clocks: Vec<(f64, usize)> = (0..self.slots)
            .filter(|&gap| left[gap])
            .map(|gap| {
                let rate = (gap as f64 + 1.0).powf(self.a - 1.0);
                (draws.exponential() / rate, gap)
            })
            .collect();
        let wanted = count - gaps.len();
        if wanted < clocks.len() {
            clocks.select_nth_unstable_by(wanted, |a, b| a.0.total_cmp(&b.0));
            clocks.truncate(wanted);
        }
        clocks.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        gaps.extend(clocks.into_iter().map(|clock| clock.1));
        gaps
    }

    /// Share of right answers of who matches no key and says, at the k-th query, the value of the pair
    /// that is most often asked for k-th. Which pair that is comes from half of 160,000 queries of its
    /// own, the share from the other half.
    pub fn chance(&self, pairs: usize) -> f64 {
        let known = ("mqar", [pairs as u64, self.slots as u64, self.a.to_bits()]);
        remembered(known, || self.guess(pairs).max(1.0 / pairs as f64))
    }

    fn guess(&self, pairs: usize) -> f64 {
        let trials = (80_000 / pairs).max(20) as u64;
        let ranked = |trial: u64| {
            let at = Coordinates {
                split: Split::Train,
                length: self.slots,
                seed: 0,
                index: trial,
            };
            let mut draws = Draws::new(key("mqar", "chance"), &at, 0, Purpose::Chance);
            let gaps = self.draw(pairs, &mut draws);
            let mut order: Vec<usize> = (0..pairs).collect();
            order.sort_unstable_by_key(|&pair| gaps[pair]);
            order
        };
        let mut counts = vec![0_u32; pairs * pairs];
        for trial in 0..trials {
            for (rank, pair) in ranked(trial).into_iter().enumerate() {
                counts[rank * pairs + pair] += 1;
            }
        }
        let best: Vec<usize> = counts
            .chunks(pairs)
            .map(|row| (0..pairs).max_by_key(|&pair| row[pair]).unwrap_or(0))
            .collect();
        let right: usize = (trials..2 * trials)
            .map(|trial| {
                let order = ranked(trial);
                order.iter().zip(&best).filter(|(a, b)| a == b).count()
            })
            .sum();
        right as f64 / (trials as usize * pairs) as f64
    }
}
