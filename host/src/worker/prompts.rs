//! In which order prompts are read, so that what several begin with is read once: those that share a prefix
//! follow on each other, and where they part a session is kept. Nothing here knows a model.

use std::collections::BTreeMap;

use longhaul_tasks::Sample;
use sha2::{Digest, Sha256};

/// Tokens of a feed. Every feed begins at a multiple of it, and sessions are kept at multiples of it only: so a
/// prompt goes through the same feeds, to the same bytes, whether its prefix was shared or not.
pub const CELL: usize = 512;

/// One prompt's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Which sample.
    pub sample: usize,
    /// Tokens that it shares with the prompt before, a multiple of [`CELL`].
    pub shared: usize,
    /// Where later prompts go on from while this one is read: ascending, above `shared`.
    pub keeps: Vec<usize>,
    /// Whether a later prompt goes on from `shared` too.
    pub again: bool,
}

/// The turns of some prompts, and what is kept for the prompts that are read after all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// In order.
    pub turns: Vec<Turn>,
    /// Tokens of the last prompt with which all of `next` begin.
    pub carried: usize,
}

impl Order {
    /// Orders samples, all of which begin with the `carried` tokens of what was read before; all of `next` will be
    /// read afterwards.
    ///
    /// Of the branches at which prompts part, the one with the most prompts is read last. So of `n` prompts at most
    /// `log2(n)` sessions are kept at a time beside the one that `next` goes on from.
    pub fn new(samples: &[Box<dyn Sample>], carried: usize, next: &[Box<dyn Sample>]) -> Self {
        let mut turns = Vec::with_capacity(samples.len());
        let mut left = vec![Branch {
            samples: (0..samples.len()).collect(),
            cells: carried / CELL,
            shared: carried,
        }];
        while let Some(mut branch) = left.pop() {
            if let [sample] = branch.samples[..] {
                turns.push(Turn {
                    sample,
                    shared: branch.shared,
                    keeps: Vec::new(),
                    again: false,
                });
                continue;
            }
            let mut parts = branch.part(samples);
            while let [_] = parts[..] {
                branch.cells += 1;
                parts = branch.part(samples);
            }
            let parted = branch.cells * CELL;
            parts.sort_by_key(|part| (part.len(), part.first().copied()));
            for (place, samples) in parts.into_iter().enumerate().rev() {
                left.push(Branch {
                    samples,
                    cells: branch.cells,
                    shared: if place == 0 { branch.shared } else { parted },
                });
            }
        }
        let last = turns
            .last()
            .map(|turn: &Turn| samples[turn.sample].as_ref());
        let carried = last.map_or(0, |last| common(last, next));
        plan(&mut turns, carried);
        Self { turns, carried }
    }

    /// Tokens that are read in all, where every kept session is used.
    pub fn tokens(&self, samples: &[Box<dyn Sample>]) -> u64 {
        let each = |turn: &Turn| (samples[turn.sample].len() - turn.shared) as u64;
        self.turns.iter().map(each).sum()
    }
}

/// Prompts that begin with the same cells.
struct Branch {
    samples: Vec<usize>,
    /// Cells that they are known to share.
    cells: usize,
    /// Tokens that the first of them shares with the prompt before.
    shared: usize,
}

impl Branch {
    /// The same prompts by their next cell. One that has no more whole cell is a part of its own.
    fn part(&self, samples: &[Box<dyn Sample>]) -> Vec<Vec<usize>> {
        let mut parts: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
        let mut ended = Vec::new();
        let (mut first, mut cell) = (Vec::new(), Vec::new());
        let mut like_first = Vec::new();
        for &sample in &self.samples {
            if !read(samples[sample].as_ref(), self.cells, &mut cell) {
                ended.push(vec![sample]);
                continue;
            }
            if first.is_empty() {
                std::mem::swap(&mut first, &mut cell);
                like_first.push(sample);
            } else if cell == first {
                like_first.push(sample);
            } else {
                let mut hash = Sha256::new();
                cell.iter()
                    .for_each(|token| hash.update(token.to_le_bytes()));
                parts
                    .entry(hash.finalize().into())
                    .or_default()
                    .push(sample);
            }
        }
        ended.extend(parts.into_values());
        if !like_first.is_empty() {
            ended.push(like_first);
        }
        ended
    }
}

/// Reads a cell of a prompt; `false` where it is not whole, or nothing would be left to read after it.
fn read(sample: &dyn Sample, cell: usize, tokens: &mut Vec<u32>) -> bool {
    let start = cell * CELL;
    if start + CELL >= sample.len() {
        return false;
    }
    let mut targets = [0; CELL];
    tokens.resize(CELL, 0);
    sample.write(start, tokens, &mut targets);
    true
}

/// Tokens with which a prompt and all of the others begin, in whole cells.
fn common(sample: &dyn Sample, others: &[Box<dyn Sample>]) -> usize {
    let (mut own, mut other) = (Vec::new(), Vec::new());
    let mut cells = 0;
    while !others.is_empty() && read(sample, cells, &mut own) {
        for sample in others {
            if !read(sample.as_ref(), cells, &mut other) || other != own {
                return CELL * cells;
            }
        }
        cells += 1;
    }
    CELL * cells
}

/// Says of every turn where sessions are kept: at each position from which a later turn goes on, by the last turn
/// before it that passes there.
fn plan(turns: &mut [Turn], carried: usize) {
    // Positions from which later turns go on before a lower one is gone back to, ascending.
    let mut later = Vec::new();
    later.extend((carried > 0).then_some(carried));
    for turn in turns.iter_mut().rev() {
        while let Some(position) = later.pop_if(|position| *position > turn.shared) {
            turn.keeps.insert(0, position);
        }
        turn.again = later.last() == Some(&turn.shared);
        if turn.shared > 0 && !turn.again {
            later.push(turn.shared);
        }
    }
}

#[cfg(test)]
pub mod tests {
    //! Also holds the sample that tests beside this module use.

    use super::*;
    use longhaul_tasks::{Label, Request};

    /// A prompt of these tokens.
    pub struct Prompt {
        pub tokens: Vec<u32>,
        pub request: Request,
    }

    impl Sample for Prompt {
        fn len(&self) -> usize {
            self.tokens.len()
        }
        fn labels(&self) -> &[Label] {
            &[]
        }
        fn request(&self) -> Option<&Request> {
            Some(&self.request)
        }
        fn write(&self, start: usize, tokens: &mut [u32], targets: &mut [i32]) {
            tokens.copy_from_slice(&self.tokens[start..start + tokens.len()]);
            targets.fill(-1);
        }
    }

    /// A haystack of so many tokens with a needle at a position, and a question behind.
    pub fn needle(haystack: usize, position: usize, needle: u32) -> Box<dyn Sample> {
        let mut tokens: Vec<u32> = (0..haystack as u32).map(|token| token % 97).collect();
        tokens.splice(position..position, [200 + needle; 8]);
        tokens.extend([255; 20]);
        let request = Request {
            references: vec![needle.to_string()],
            labels: Vec::new(),
            most_new: 4,
        };
        Box::new(Prompt { tokens, request })
    }

    /// Follows an order as a reader would: every turn goes on from a session that is there. Returns the tokens
    /// read and the most sessions kept at a time.
    fn follow(order: &Order, samples: &[Box<dyn Sample>], carried: usize) -> (u64, usize) {
        let tokens = |sample: usize, count: usize| {
            let (mut tokens, mut targets) = (vec![0; count], vec![0; count]);
            samples[sample].write(0, &mut tokens, &mut targets);
            tokens
        };
        let mut kept: Vec<Vec<u32>> = Vec::new();
        if let (Some(first), true) = (order.turns.first(), carried > 0) {
            kept.push(tokens(first.sample, carried));
        }
        let (mut read, mut most) = (0, 0);
        for turn in &order.turns {
            while kept.last().is_some_and(|kept| kept.len() > turn.shared) {
                kept.pop();
            }
            if turn.shared > 0 {
                let from = if turn.again {
                    kept.last().cloned()
                } else {
                    kept.pop()
                };
                assert_eq!(from, Some(tokens(turn.sample, turn.shared)));
            }
            kept.extend(turn.keeps.iter().map(|&keep| tokens(turn.sample, keep)));
            assert!(kept.is_sorted_by_key(Vec::len));
            most = most.max(kept.len());
            read += (samples[turn.sample].len() - turn.shared) as u64;
        }
        kept.retain(|kept| kept.len() <= order.carried);
        assert_eq!(kept.len(), usize::from(order.carried > 0));
        (read, most)
    }

    #[test]
    fn a_haystack_is_read_once() {
        let depths = [3000, 100, 2000, 4000, 1000, 2500, 3500, 0];
        let samples: Vec<_> = (0..8).map(|i| needle(4096, depths[i], i as u32)).collect();
        let order = Order::new(&samples, 0, &[]);
        let mut seen: Vec<usize> = order.turns.iter().map(|turn| turn.sample).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..8).collect::<Vec<_>>());
        let (read, most) = follow(&order, &samples, 0);
        assert_eq!(read, order.tokens(&samples));
        // Each from the cell of its needle on, and what is shared once.
        let behind: usize = depths.iter().map(|depth| 4124 - depth / CELL * CELL).sum();
        let trunk = 4000 / CELL * CELL;
        assert!(read <= (behind + trunk) as u64, "{read}");
        assert!(most <= 3, "{most} sessions");
    }

    #[test]
    fn prompts_of_unequal_length_and_equal_ones_keep_apart() {
        let mut samples: Vec<_> = [5, 511, 512, 513, 1024, 1025, 1536, 5]
            .map(|length| needle(length, length, 1))
            .into();
        samples.push(needle(1536, 1536, 1));
        let order = Order::new(&samples, 0, &[]);
        assert_eq!(order.turns.len(), 9);
        follow(&order, &samples, 0);
        // The last token of a prompt is never a part of what is shared.
        for turn in &order.turns {
            assert!(turn.shared < samples[turn.sample].len());
        }
        assert_eq!(Order::new(&[], 0, &samples), Order::default());
    }

    #[test]
    fn few_sessions_are_kept_of_any_tree() {
        // Four levels of four branches.
        let prompt = |index: u32| -> Box<dyn Sample> {
            let level = |level: u32| vec![(index >> (2 * level)) & 3; CELL];
            let tokens = [level(3), level(2), level(1), level(0), vec![9]].concat();
            let request = Request {
                references: Vec::new(),
                labels: Vec::new(),
                most_new: 1,
            };
            Box::new(Prompt { tokens, request })
        };
        let samples: Vec<_> = (0..256).map(prompt).collect();
        let order = Order::new(&samples, 0, &[]);
        let (read, most) = follow(&order, &samples, 0);
        assert_eq!(read, (4 + 16 + 64 + 256) * CELL as u64 + 256);
        assert!(most <= 8, "{most} sessions");
    }

    #[test]
    fn a_longer_haystack_goes_on_from_a_shorter_one() {
        let of = |length: usize| -> Vec<_> { (0..4).map(|i| needle(length, length, i)).collect() };
        let (short, long) = (of(2048), of(4096));
        let first = Order::new(&short, 0, &long);
        assert_eq!(first.carried, 2048);
        follow(&first, &short, 0);
        let second = Order::new(&long, first.carried, &[]);
        let (read, _) = follow(&second, &long, first.carried);
        // The second half once, and four questions.
        assert_eq!(read, 2048 + 4 * 28);
    }
}
