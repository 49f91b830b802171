//! What RWKV-6 and RWKV-7 share around their recurrence: sizes of heads, the decay's functions and low-rank
//! projections.

use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Heads, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{Graph, Init, PluginError, Result, Tensor, options};

/// Head size of the published models.
const HEAD_DIM: usize = 64;

/// Widest head that the CUDA kernels take.
const WIDEST: usize = 128;

/// Narrowest head: the norm over a head leaves little of fewer channels.
const NARROWEST: usize = 4;

options! {
    /// Options of both.
    pub(crate) struct HeadOptions {
        embedding_norm: bool = true => "LayerNorm between the embedding and the first block (ln0)";
        head_dim: usize = 0, 0..=WIDEST
            => "K and V of a head; 0 is 64, or the largest divisor of the model width below";
        head_norm_epsilon: f32 = 64e-5, 1e-12..=1e-1 => "epsilon of the norm over each head";
        init: InitialValues;
    }
}

impl HeadOptions {
    /// The size of a head.
    ///
    /// # Errors
    /// A size that does not divide the model width or is too narrow.
    pub(crate) fn head_dim(&self, settings: &Settings) -> Result<usize> {
        let d_model = settings.d_model();
        let mut sizes = (1..=HEAD_DIM.min(d_model)).rev();
        let usual = sizes.find(|&size| d_model.is_multiple_of(size));
        let head_dim = or_usual(self.head_dim, usual.unwrap_or(1));
        if head_dim < NARROWEST || !d_model.is_multiple_of(head_dim) {
            return Err(PluginError::bad_option(format!(
                "head_dim={head_dim} must be at least {NARROWEST} and divide d_model, {d_model}; \
                 give another head_dim or a model width with such a divisor"
            )));
        }
        Ok(head_dim)
    }
}

/// A rank: 0 is the published one, at most half of the model width.
pub(crate) fn rank(settings: &Settings, given: usize, published: usize) -> usize {
    or_usual(given, published.min(settings.d_model() / 2).max(1))
}

/// The fastest decay of RWKV-7 is exp(-e^-1/2).
const FASTEST: f32 = 0.606_530_66;

/// What the recurrence reads, `[B, T, D]` each with the heads side by side.
#[derive(Clone, Copy)]
pub(crate) struct MatrixInputs {
    pub r: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    /// Before its functions.
    pub decay: Tensor,
    /// kappa and b of RWKV-7.
    pub removal: Option<[Tensor; 2]>,
}

/// Records the recurrence over heads of `head_dim`, whose result is o, `[B, T, D]`. The two rules differ in `removal`:
///
/// * without, RWKV-6 (arXiv 2404.05892, eq. 18 and 19, without u): `o = S r`, then `S = S diag(w) + v k`,
///   w = exp(-exp(decay));
/// * with, RWKV-7 (arXiv 2503.14456, eq. 16 and 17): `S = S (diag(w) - kappa b) + v k`, then `o = S r`,
///   w = exp(-e^-1/2 sigmoid(decay)).
pub(crate) fn matrix_state(graph: &mut Graph, inputs: MatrixInputs, head_dim: usize) -> Tensor {
    let heads = inputs.k.cols() / head_dim;
    let logs = match inputs.removal {
        None => graph.activation(inputs.decay, Activation::NegativeExp),
        Some(_) => {
            let share = graph.activation(inputs.decay, Activation::Sigmoid);
            graph.scale(share, -FASTEST)
        }
    };
    graph.state_matrix(StateMatrix {
        q: inputs.r,
        k: inputs.k,
        v: inputs.v,
        heads: Heads {
            heads,
            groups: heads,
            key: head_dim,
            value: head_dim,
            writes: 1,
        },
        decay: Decay::Key(logs),
        read: match inputs.removal {
            None => Read::Before,
            Some(_) => Read::After,
        },
        removal: match inputs.removal {
            None => Removal::None,
            Some([a, b]) => Removal::Pair { a, b },
        },
    })
}

/// How a low-rank projection starts.
pub(crate) struct LowRank {
    /// A `[rank, cols]`.
    pub down: Init,
    /// B `[out, rank]`.
    pub up: Init,
    /// `[out]`; no bias without.
    pub bias: Option<Init>,
}

impl LowRank {
    /// Small where there is a bias, so that at first the bias decides.
    pub(crate) fn usual(bias: Option<Init>) -> Self {
        let gain = if bias.is_some() { 0.1 } else { 1.0 };
        Self {
            down: Init::Linear { gain: 1.0 },
            up: Init::Linear { gain },
            bias,
        }
    }

    /// Nothing but the bias, as in the official code: A is 0.
    pub(crate) fn closed(up: Init, bias: Option<Init>) -> Self {
        Self {
            down: Init::Zeros,
            up,
            bias,
        }
    }
}

/// `B f(A x)` by way of `rank` values, plus a bias where a start is given for one: A under
/// `name.down.weight`, B under `name.up.weight`, the bias under `name.bias`.
pub(crate) fn low_rank(
    graph: &mut Graph,
    name: &str,
    x: Tensor,
    rank: usize,
    activation: Activation,
    start: LowRank,
) -> Tensor {
    let out = x.cols();
    let LowRank { down, up, bias } = start;
    let down = graph.linear_with(&format!("{name}.down"), x, rank, false, down);
    let down = match activation {
        Activation::Identity => down,
        other => graph.activation(down, other),
    };
    low_rank_up(graph, name, down, out, up, bias)
}

/// The second half of [`low_rank`].
pub(crate) fn low_rank_up(
    graph: &mut Graph,
    name: &str,
    down: Tensor,
    out: usize,
    up: Init,
    bias: Option<Init>,
) -> Tensor {
    let weight = graph.param(&format!("{name}.up.weight"), &[out, down.cols()], up);
    let bias = bias.map(|init| graph.param(&format!("{name}.bias"), &[out], init));
    graph.linear_by(down, weight, bias)
}
