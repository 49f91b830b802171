//! The recurrence as it is written, one token and one head after another.

use super::{Decay, Heads, Read, Removal, StateMatrix};
use crate::recurrences::Sequence;
use crate::recurrences::real::Real;

/// o `[T, reads H V]` of one sequence from the inputs of a [`StateMatrix`]: q, k, v, the decay, then beta or a and b, with
/// the columns that its fields say. `state` is `[H, V, K]`.
pub(super) fn naive<N: Real>(what: &StateMatrix, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
    let Heads {
        heads,
        groups,
        key,
        value,
        ..
    } = what.heads;
    let (reads, mut o) = (what.reads(), Vec::new());
    for t in 0..given.length {
        let mut of_token = vec![N::from(0.0); reads * heads * value];
        for (head, s) in state.chunks_exact_mut(value * key).enumerate() {
            if what.read != Read::Before {
                step(what, given, t, head, s);
            }
            for read in 0..reads {
                let group = read * groups + head / (heads / groups);
                let q = &given.token(0, t)[group * key..][..key];
                let o = &mut of_token[(read * heads + head) * value..][..value];
                for (o, row) in o.iter_mut().zip(s.chunks_exact(key)) {
                    *o = dot(row, q);
                }
            }
            if what.read == Read::Before {
                step(what, given, t, head, s);
            }
        }
        o.extend(of_token);
    }
    o
}

/// A head's decay, removal and writes at a token.
fn step<N: Real>(what: &StateMatrix, given: &Sequence<N>, t: usize, head: usize, s: &mut [N]) {
    let Heads {
        heads,
        groups,
        key,
        value,
        writes,
    } = what.heads;
    let removal = 3 + what.decay.given().iter().len();
    let of_head = |input: usize| &given.token(input, t)[head * key..][..key];
    let log = |row: usize, i: usize| match &what.decay {
        Decay::None => N::from(0.0),
        Decay::Constant(logs) => N::from(logs[head]),
        Decay::Head(_) => given.token(3, t)[head],
        Decay::Key(_) => of_head(3)[i],
        Decay::Value(_) => given.token(3, t)[head * value + row],
    };
    for (index, row) in s.chunks_exact_mut(key).enumerate() {
        let taken = match what.removal {
            Removal::Pair { .. } => dot(row, of_head(removal)),
            _ => N::from(0.0),
        };
        for (i, s) in row.iter_mut().enumerate() {
            *s *= log(index, i).exp();
            if let Removal::Pair { .. } = what.removal {
                *s -= of_head(removal + 1)[i] * taken;
            }
        }
    }
    for write in 0..writes {
        let group = head / (heads / groups);
        let k = &given.token(1, t)[(write * groups + group) * key..][..key];
        let v = &given.token(2, t)[(write * heads + head) * value..][..value];
        for (row, &v) in s.chunks_exact_mut(key).zip(v) {
            let put = match what.removal {
                Removal::Delta(_) => {
                    let beta = given.token(removal, t)[write * heads + head];
                    beta * (v - dot(row, k))
                }
                _ => v,
            };
            row.iter_mut().zip(k).for_each(|(s, &k)| *s += put * k);
        }
    }
}

fn dot<N: Real>(a: &[N], b: &[N]) -> N {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}
