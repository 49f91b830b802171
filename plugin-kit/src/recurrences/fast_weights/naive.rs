//! Token by token, as the papers write it: the step of each token by its own gradient, as a matrix.

use super::{FastWeights, Loss, Update};
use crate::recurrences::Sequence;
use crate::recurrences::real::Real;

/// The result `[T, H V]`. `state` is of each head what [`super::Sizes::carried`] says, each matrix `[K, V]` or, with b
/// as the last row, `[K + 1, V]`.
pub(super) fn naive<N: Real>(what: &FastWeights, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
    let (sizes, mut y) = (what.sizes(), Vec::new());
    for t in 0..given.length {
        let place = (given.position + t) % what.mini_batch;
        for (head, state) in state.chunks_exact_mut(sizes.carried()).enumerate() {
            let part = |input: usize, width: usize| &given.token(input, t)[head * width..][..width];
            let widened = |input: usize| {
                let one = [N::from(1.0)];
                let all = part(input, sizes.key).iter().chain(&one).copied();
                all.take(sizes.rows).collect::<Vec<N>>()
            };
            let (q, k) = (widened(0), widened(1));
            let start = begin(what, given, head);
            let (first, rest) = state.split_at_mut(sizes.matrix());
            let z = read(&k, &start, first);
            let g = gradient(what, given, head, &z, part(2, sizes.value));
            let rate = part(3, 1)[0];
            // The token's step, k gᵀ times its rate.
            let step = k
                .iter()
                .flat_map(|&k| g.iter().map(move |&g| rate * k * g))
                .collect::<Vec<N>>();
            let now: Vec<N> = match what.update {
                Update::Descent { .. } => {
                    let shares = &given.params[given.params.len() - 1];
                    let share = (shares[place] + 1.0 / (place + 1) as f64).max(N::from(0.0));
                    for (sum, &step) in rest.iter_mut().zip(&step) {
                        *sum += step;
                    }
                    let moved = first.iter().zip(&*rest);
                    moved.map(|(&first, &sum)| first - share * sum).collect()
                }
                Update::Momentum { keep, momentum } => {
                    let (now, speed) = rest.split_at_mut(sizes.matrix());
                    let keep = keep.map_or(N::from(1.0), |_| part(4, 1)[0]);
                    for (i, now) in now.iter_mut().enumerate() {
                        let mut moves = -step[i];
                        if momentum.is_some() {
                            speed[i] = part(given.inputs.len() - 1, 1)[0] * speed[i] - step[i];
                            moves = speed[i];
                        }
                        *now = keep * (start[i] + *now) + moves - start[i];
                    }
                    now.to_vec()
                }
            };
            y.extend(read(&q, &start, &now));
            if place + 1 == what.mini_batch {
                first.copy_from_slice(&now);
                if what.shares().is_some() {
                    rest.fill(N::from(0.0));
                }
            }
        }
    }
    y
}

/// W and b of a head before the first token, in rows.
fn begin<N: Real>(what: &FastWeights, given: &Sequence<N>, head: usize) -> Vec<N> {
    let sizes = what.sizes();
    let weights = sizes.key * sizes.value;
    let mut start = given.params[0][head * weights..][..weights].to_vec();
    if what.bias.is_some() {
        start.extend(&given.params[1][head * sizes.value..][..sizes.value]);
    }
    start
}

/// `x (start + moved)`.
fn read<N: Real>(x: &[N], start: &[N], moved: &[N]) -> Vec<N> {
    let cols = start.len() / x.len();
    let column = |j: usize| {
        let at = |i: usize| start[i * cols + j] + moved[i * cols + j];
        x.iter().enumerate().map(|(i, &x)| x * at(i)).sum::<N>()
    };
    (0..cols).map(column).collect()
}

/// The gradient of the loss by z.
fn gradient<N: Real>(
    what: &FastWeights,
    given: &Sequence<N>,
    head: usize,
    z: &[N],
    target: &[N],
) -> Vec<N> {
    let minus = |(&y, &target): (&N, &N)| y - target;
    let Loss::Normal { epsilon, .. } = what.loss else {
        return z.iter().zip(target).map(minus).collect();
    };
    let first = 1 + usize::from(what.bias.is_some());
    let of = |param: usize| &given.params[param][head * z.len()..][..z.len()];
    let (weight, bias) = (of(first), of(first + 1));
    let mean = |values: &[N]| values.iter().copied().sum::<N>() / values.len() as f64;
    let centre = mean(z);
    let squares: Vec<N> = z.iter().map(|&z| (z - centre) * (z - centre)).collect();
    let deviation = (mean(&squares) + f64::from(epsilon)).sqrt();
    let normal: Vec<N> = z.iter().map(|&z| (z - centre) / deviation).collect();
    let outer = |i: usize| (normal[i] * weight[i] + bias[i] - target[i]) * weight[i];
    let outer: Vec<N> = (0..z.len()).map(outer).collect();
    let along: Vec<N> = outer.iter().zip(&normal).map(|(&u, &n)| u * n).collect();
    let (mean_outer, mean_along) = (mean(&outer), mean(&along));
    let slope = |i: usize| (outer[i] - mean_outer - normal[i] * mean_along) / deviation;
    (0..z.len()).map(slope).collect()
}
