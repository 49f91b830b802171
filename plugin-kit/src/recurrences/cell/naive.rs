//! Recurrent cells as the papers write them, one token and one cell at a time.

use super::Kind;
use crate::recurrences::real::Real;

/// `h` `[T, H]` of one sequence from the input's share of the gates `[T, G H]`, `weight` `[G H, W]`, `bias` `[G H]` and
/// what is carried, `[C, H]` with h first, in whose place the last token's is left; see [`Kind`].
pub fn naive<N: Real>(
    kind: Kind,
    gates: &[N],
    weight: &[N],
    bias: &[N],
    carried: &mut [N],
) -> Vec<N> {
    let columns = bias.len();
    let hidden = columns / kind.gates();
    let width = weight.len() / columns;
    let mut result = Vec::with_capacity(gates.len() / kind.gates());
    for given in gates.chunks_exact(columns) {
        let h = carried[..hidden].to_vec();
        let sums: Vec<N> = (0..columns)
            .map(|column| {
                let row = &weight[column * width..][..width];
                let block = column % hidden / width * width;
                let seen = &h[block..block + width];
                bias[column] + row.iter().zip(seen).map(|(&w, &h)| w * h).sum::<N>()
            })
            .collect();
        for n in 0..hidden {
            let sum = |gate: usize| sums[gate * hidden + n];
            let pre = |gate: usize| given[gate * hidden + n] + sum(gate);
            match kind {
                Kind::Lstm => {
                    let (i, f) = (pre(0).sigmoid(), pre(1).sigmoid());
                    let (g, o) = (pre(2).tanh(), pre(3).sigmoid());
                    let c = f * carried[hidden + n] + i * g;
                    carried[hidden + n] = c;
                    carried[n] = o * c.tanh();
                }
                Kind::Gru => {
                    let (r, z) = (pre(0).sigmoid(), pre(1).sigmoid());
                    let new = (given[2 * hidden + n] + r * sum(2)).tanh();
                    carried[n] = (-z + 1.0) * new + z * h[n];
                }
                Kind::Slstm => {
                    let (i, f) = (pre(0), pre(1).log_sigmoid());
                    let (z, o) = (pre(2).tanh(), pre(3).sigmoid());
                    let [c, sum, m] = [1, 2, 3].map(|part| carried[part * hidden + n]);
                    let begins = sum.value() == 0.0;
                    let new = if begins { i } else { (f + m).max(i) };
                    let keep = if begins {
                        N::from(0.0)
                    } else {
                        (f + m - new).exp()
                    };
                    let take = (i - new).exp();
                    let (c, sum) = (keep * c + take * z, keep * sum + take);
                    carried[hidden + n] = c;
                    carried[2 * hidden + n] = sum;
                    carried[3 * hidden + n] = new;
                    carried[n] = o * c / sum;
                }
            }
        }
        result.extend_from_slice(&carried[..hidden]);
    }
    result
}
