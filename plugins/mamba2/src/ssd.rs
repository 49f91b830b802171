//! State-space duality as a case of the kit's state matrix: the state is written by B and read by C, its value is x with the
//! scale dt, and it decays by exp(dt A).

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::state_matrix::{
    Decay, Heads, LogLinear, Read, Removal, StateMatrix, StateSpace,
};
use longhaul_plugin_kit::{Graph, Param, Tensor};

/// Inputs of the operation.
#[doc(hidden)]
pub struct SsdInputs {
    /// `[B, T, H V]`.
    pub x: Tensor,
    /// `[B, T, G N]`.
    pub b: Tensor,
    /// `[B, T, G N]`.
    pub c: Tensor,
    /// `[B, T, H]`.
    pub dt: Tensor,
    /// `[H]`.
    pub a_log: Param,
    /// `[H]`.
    pub d: Param,
    /// `[H]`.
    pub dt_bias: Param,
}

/// Records it; the result is y, `[B, T, H V]`, see [`recurrence`](crate::reference::recurrence).
#[doc(hidden)]
pub fn ssd(graph: &mut Graph, inputs: SsdInputs, groups: usize, chunk: usize) -> Tensor {
    let (matrix, scale) = inputs.matrix(graph, groups);
    graph.state_space(StateSpace {
        matrix,
        scale,
        skip: inputs.d,
        chunk,
    })
}

/// The levels of the past.
pub(crate) struct Levels {
    /// L.
    pub count: usize,
    /// What a token says of its factors, `[B, T, H L]`.
    pub factors: Tensor,
    /// What that is multiplied by, `[H, L]`.
    pub weight: Param,
}

/// The same with levels (arXiv 2506.04761): factors are the softplus of `weight * factors`, as in fla's
/// `log_linear_mamba2`.
pub(crate) fn with_levels(
    graph: &mut Graph,
    inputs: SsdInputs,
    groups: usize,
    levels: Levels,
) -> Tensor {
    let (mut matrix, scale) = inputs.matrix(graph, groups);
    matrix.v = graph.by_head(scale, inputs.x);
    let weight = graph.constant(levels.weight);
    let lambda = graph.gate(weight, levels.factors, Activation::Identity);
    let lambda = graph.activation(lambda, Activation::Softplus);
    let read = graph.log_linear(LogLinear {
        matrix,
        lambda,
        levels: levels.count,
    });
    let skip = graph.constant(inputs.d);
    let past = graph.by_head(skip, inputs.x);
    graph.add(read, past)
}

impl SsdInputs {
    /// The state matrix with x for its values, and dt, which they are to be multiplied by.
    fn matrix(&self, graph: &mut Graph, groups: usize) -> (StateMatrix, Tensor) {
        let heads = self.dt.cols();
        let [dt, logs] = graph.step_sizes(self.dt, self.dt_bias, self.a_log);
        let matrix = StateMatrix {
            q: self.c,
            k: self.b,
            v: self.x,
            heads: Heads {
                heads,
                groups,
                key: self.b.cols() / groups,
                value: self.x.cols() / heads,
                writes: 1,
            },
            decay: Decay::Head(logs),
            removal: Removal::None,
            read: Read::After,
        };
        (matrix, dt)
    }
}
