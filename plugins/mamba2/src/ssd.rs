//! State-space duality as a case of the kit's state matrix: the state is written by B and read by C, its value is x with the
//! scale dt, and it decays by exp(dt A).

use longhaul_plugin_kit::recurrences::state_matrix::{
    Decay, Heads, Read, Removal, StateMatrix, StateSpace,
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
    let SsdInputs {
        x,
        b,
        c,
        dt,
        a_log,
        d,
        dt_bias,
    } = inputs;
    let heads = dt.cols();
    let [dt, logs] = graph.step_sizes(dt, dt_bias, a_log);
    let matrix = StateMatrix {
        q: c,
        k: b,
        v: x,
        heads: Heads {
            heads,
            groups,
            key: b.cols() / groups,
            value: x.cols() / heads,
            writes: 1,
        },
        decay: Decay::Head(logs),
        removal: Removal::None,
        read: Read::After,
    };
    graph.state_space(StateSpace {
        matrix,
        scale: dt,
        skip: d,
        chunk,
    })
}
