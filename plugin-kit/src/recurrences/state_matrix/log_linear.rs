//! A state matrix whose past has levels (log-linear attention, arXiv 2506.04761): the tokens before t are cut into
//! ranges of 1, 2, 4, .. tokens, as the bits of t say, each range has a state, and each level a factor of its own.

use std::ops::Range;

use super::{Decay, Heads, Removal, StateMatrix, head};
use crate::engine::graph::Graph;
use crate::engine::tensor::Tensor;
use crate::recurrences::real::Real;
use crate::recurrences::{Carries, Ports, Recurrence, Sequence};

/// What [`Graph::log_linear`] records: `o_t = sum over levels l of lambda_t^(l) S_t^(l)ᵀ q_t`, where the matrices of
/// all levels together are the state matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLinear {
    /// Queries, keys, values and decays: these by head and token, one write, nothing removed, read after it.
    pub matrix: StateMatrix,
    /// The factors, `[B, T, H L]`, a head's L beside each other: first that of the token itself.
    pub lambda: Tensor,
    /// L, levels; from 2. The last has all tokens that are too old for the others: with L levels these are as in the
    /// paper for sequences of up to `2^(L - 1)` tokens.
    pub levels: usize,
}

impl Graph {
    /// Records a state matrix with levels; the result is o, `[B, T, H V]`.
    ///
    /// # Panics
    /// If sizes do not fit, or its state matrix is another than it says.
    #[track_caller]
    pub fn log_linear(&mut self, what: LogLinear) -> Tensor {
        what.matrix.check();
        let once = what.matrix.heads.writes * what.matrix.reads() == 1;
        let plain = what.matrix.is_by_head(self) && what.matrix.removal == Removal::None;
        assert!(
            once && plain && matches!(what.matrix.decay, Decay::Head(_)),
            "levels need a state matrix that decays by head and token, removes nothing, writes once and is read after"
        );
        assert!((2..=64).contains(&what.levels), "2 to 64 levels");
        let cols = what.matrix.heads.heads * what.levels;
        assert_eq!(what.lambda.cols(), cols, "a factor a head and level");
        self.record(what)
    }
}

/// Where tokens stand. Slot s has those that level s + 1 is the factor of: `2^s` of them, or none; the last slot all
/// that are older.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    pub count: usize,
}

impl Slots {
    /// The slot that takes up all lower ones when the number of tokens read goes from one to another.
    pub fn taking_up(self, from: u64, to: u64) -> usize {
        let changed = u64::BITS - (from ^ to).leading_zeros();
        (changed.max(1) as usize - 1).min(self.count - 1)
    }

    /// The tokens `from..to` by the slot where they are once `to` tokens are read, the latest first.
    pub fn ranges(self, from: u64, to: u64) -> impl Iterator<Item = (usize, Range<u64>)> {
        let mut end = to;
        std::iter::from_fn(move || self.next(from, &mut end))
    }

    #[inline(always)]
    pub fn next(self, from: u64, end: &mut u64) -> Option<(usize, Range<u64>)> {
        let last = *end;
        if last <= from {
            return None;
        }
        let bit = last.trailing_zeros();
        *end = last - (1 << bit);
        Some(((bit as usize).min(self.count - 1), from.max(*end)..last))
    }
}

impl LogLinear {
    pub(super) fn slots(&self) -> Slots {
        Slots {
            count: self.levels - 1,
        }
    }

    /// Those of the state matrix, and the factors.
    pub(super) fn inputs(&self) -> Vec<Tensor> {
        let mut inputs = self.matrix.inputs();
        inputs.push(self.lambda);
        inputs
    }

    /// Values of a sequence's state: `[slots, H, V, K]`, and whether there is anything in each slot.
    pub(super) fn state_values(&self) -> usize {
        let Heads {
            heads, key, value, ..
        } = self.matrix.heads;
        self.slots().count * (heads * key * value + 1)
    }
}

impl Recurrence for LogLinear {
    fn name(&self) -> &'static str {
        "log_linear"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: self.inputs(),
            params: Vec::new(),
            cols: self.matrix.v.cols(),
            carries: Carries::State {
                values: self.state_values(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let Heads {
            heads,
            groups,
            key,
            value,
            ..
        } = self.matrix.heads;
        let (slots, size) = (self.slots(), key * value);
        let dot = |a: &[N], b: &[N]| -> N { a.iter().zip(b).map(|(&a, &b)| a * b).sum() };
        let mut o = Vec::with_capacity(given.length * heads * value);
        for t in 0..given.length {
            let [q, k, v, logs, lambda] = [0, 1, 2, 3, 4].map(|input| given.token(input, t));
            let read = (given.position + t) as u64;
            let target = slots.taking_up(read, read + 1);
            for head in 0..heads {
                let group = head / (heads / groups);
                let [q, k] = [q, k].map(|all| &all[group * key..][..key]);
                let v = &v[head * value..][..value];
                let lambda = &lambda[head * self.levels..][..self.levels];
                let own = dot(q, k) * lambda[0];
                let mut sums: Vec<N> = v.iter().map(|&v| v * own).collect();
                for slot in 0..slots.count {
                    let matrix = &mut state[(slot * heads + head) * size..][..size];
                    for (row, sum) in matrix.chunks_exact_mut(key).zip(&mut sums) {
                        row.iter_mut().for_each(|s| *s *= logs[head].exp());
                        *sum += dot(row, q) * lambda[slot + 1];
                    }
                }
                o.append(&mut sums);
                for index in 0..size {
                    let mut sum = v[index / key] * k[index % key];
                    for slot in 0..target {
                        let place = &mut state[(slot * heads + head) * size + index];
                        sum += std::mem::replace(place, N::from(0.0));
                    }
                    state[(target * heads + head) * size + index] += sum;
                }
            }
            let filled = &mut state[slots.count * heads * size..];
            filled[..target].fill(N::from(0.0));
            filled[target] = N::from(1.0);
        }
        o
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let mut what = self.clone();
        what.matrix.apart(graph, Some(&mut what.lambda));
        Some(head::levels::record(graph, &what))
    }
}
