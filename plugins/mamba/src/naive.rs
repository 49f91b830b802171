//! The recurrence as the paper writes it, one step, channel and state at a time.

use longhaul_plugin_kit::{Carries, Graph, Ports, Real, Recurrence, Sequence, Tensor};

use crate::cpu::{self, ScanInputs};

impl Recurrence for ScanInputs {
    fn name(&self) -> &'static str {
        "selective_scan"
    }

    fn ports(&self) -> Ports {
        let channels = self.u.cols();
        Ports {
            inputs: vec![self.u, self.delta, self.b, self.c],
            params: vec![self.a_log, self.d],
            cols: channels,
            carries: Carries::State {
                values: channels * self.b.cols(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let ([u, delta, b, c], [a_log, d]) = (&given.inputs[..], &given.params[..]) else {
            unreachable!("four inputs and two parameters are recorded")
        };
        recurrence([u, delta, b, c], [a_log, d], self.negative, state)
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(cpu::selective_scan(graph, *self))
    }
}

/// y `[T, d_inner]` of one sequence from u `[T, d_inner]`, delta `[T, d_inner]` before its softplus, b and c `[T, N]`,
/// `a_log` `[d_inner, N]`, `d` `[d_inner]` and the state `[d_inner, N]`:
///
/// h = exp(softplus(delta) A) h + softplus(delta) B u, y = C h + D u, A = -exp(a_log)
/// (arXiv 2312.00752, eq. 2 and algorithm 2, with the Euler step for B as in the official code). With `negative`,
/// transitions are `2 exp(..) - 1` (arXiv 2411.12537, section 4.2).
pub fn recurrence<N: Real>(
    [u, delta, b, c]: [&[N]; 4],
    [a_log, d]: [&[N]; 2],
    negative: bool,
    h: &mut [N],
) -> Vec<N> {
    let (channels, states) = (d.len(), a_log.len() / d.len());
    let mut result = Vec::with_capacity(u.len());
    for at in 0..u.len() {
        let (t, channel) = (at / channels, at % channels);
        let step = delta[at].softplus();
        let mut y = d[channel] * u[at];
        for n in 0..states {
            let (index, token) = (channel * states + n, t * states + n);
            let mut decay = (-step * a_log[index].exp()).exp();
            if negative {
                decay = decay * 2.0 - 1.0;
            }
            h[index] = decay * h[index] + step * b[token] * u[at];
            y += c[token] * h[index];
        }
        result.push(y);
    }
    result
}
