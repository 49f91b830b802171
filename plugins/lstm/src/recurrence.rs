//! The recurrence as the papers write it, one step and one cell at a time.

use longhaul_plugin_kit::{Carries, Graph, Param, Ports, Real, Recurrence, Sequence, Tensor};

use crate::cpu;

/// The recurrence with its inputs; H is the number of cells. Its result is h, `[B, T, H]`.
#[derive(Clone, Copy)]
pub(crate) struct Cells {
    /// The input's share of the gates, `[B, T, 4H]` (order i, f, g, o).
    pub gates: Tensor,
    /// `[4H, H]`.
    pub weight_hh: Param,
    /// `[4H]`.
    pub bias_hh: Param,
}

impl Recurrence for Cells {
    fn name(&self) -> &'static str {
        "lstm"
    }

    fn ports(&self) -> Ports {
        let hidden = self.gates.cols() / 4;
        Ports {
            inputs: vec![self.gates],
            params: vec![self.weight_hh, self.bias_hh],
            cols: hidden,
            carries: Carries::State {
                values: 2 * hidden,
                initial: 0.0,
            },
        }
    }

    /// i, f, o = sigmoid(..), g = tanh(..), c = f c + i g, h = o tanh(c); the state is h, then c.
    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let [weight_hh, bias_hh] = &given.params[..] else {
            unreachable!("two parameters are recorded")
        };
        let hidden = bias_hh.len() / 4;
        let (h, c) = state.split_at_mut(hidden);
        let mut output = Vec::with_capacity(given.length * hidden);
        for t in 0..given.length {
            let gates = given.token(0, t);
            let pre = |j: usize| {
                let weights = weight_hh[j * hidden..].iter().zip(&*h);
                gates[j] + bias_hh[j] + weights.map(|(&w, &h)| w * h).sum::<N>()
            };
            let pre: Vec<N> = (0..4 * hidden).map(pre).collect();
            for n in 0..hidden {
                let (i, f) = (pre[n].sigmoid(), pre[hidden + n].sigmoid());
                let (g, o) = (pre[2 * hidden + n].tanh(), pre[3 * hidden + n].sigmoid());
                c[n] = f * c[n] + i * g;
                h[n] = o * c[n].tanh();
            }
            output.extend_from_slice(h);
        }
        output
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(cpu::lstm(graph, *self))
    }
}
