//! The recurrence as a paper would write it, one step and channel at a time. With float64 numbers it is what
//! everything faster is held to, with numbers that remember how they were made it has exact gradients.

use longhaul_plugin_kit::{Carries, {{graph}}Ports, Real, Recurrence, Sequence, Tensor};

/// a = sigmoid(gate), h = a h + (1 - a) x, from h = 0; the result is h, `[B, T, W]`.
#[derive(Clone, Copy)]
pub(crate) struct Average {
    /// `[B, T, W]`.
    pub x: Tensor,
    /// `[B, T, W]`, before its sigmoid.
    pub gate: Tensor,
}

impl Recurrence for Average {
    fn name(&self) -> &'static str {
        "{{crate}}"
    }

    fn ports(&self) -> Ports {
        let width = self.x.cols();
        Ports {
            inputs: vec![self.x, self.gate],
            params: Vec::new(),
            cols: width,
            carries: Carries::State { values: width, initial: 0.0 },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, h: &mut [N]) -> Vec<N> {
        let mut result = Vec::new();
        for t in 0..given.length {
            let (x, gate) = (given.token(0, t), given.token(1, t));
            for c in 0..h.len() {
                let a = gate[c].sigmoid();
                h[c] = a * h[c] + (N::from(1.0) - a) * x[c];
            }
            result.extend_from_slice(h);
        }
        result
    }
{{fast}}}
