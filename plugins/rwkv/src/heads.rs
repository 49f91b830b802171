//! What RWKV-6 and RWKV-7 share around their recurrence: sizes of heads and low-rank projections.

use longhaul_plugin_kit::api::metadata::OptionSpec;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, float, integer};
use longhaul_plugin_kit::{Graph, Init, PluginError, Result, Tensor};

use crate::matrix_scan::WIDEST;

/// Head size of the published models.
const HEAD_DIM: usize = 64;

/// Narrowest head: the norm over a head leaves little of fewer channels.
const NARROWEST: usize = 4;

/// The options `head_dim` and `head_norm_epsilon`.
pub(crate) fn head_options() -> [OptionSpec; 2] {
    [
        integer(
            "head_dim",
            0,
            0,
            WIDEST as i64,
            "K and V of a head; 0 is 64, or the largest divisor of the model width below",
        ),
        float(
            "head_norm_epsilon",
            64e-5,
            1e-12,
            1e-1,
            "epsilon of the norm over each head",
        ),
    ]
}

/// The size of a head by the option `head_dim`.
///
/// # Errors
/// A size that does not divide the model width or is too narrow.
pub(crate) fn head_dim(settings: &Settings) -> Result<usize> {
    let d_model = settings.d_model();
    let head_dim = match settings.size("head_dim")? {
        0 => (1..=HEAD_DIM.min(d_model))
            .rev()
            .find(|&size| d_model.is_multiple_of(size))
            .unwrap_or(1),
        size => size,
    };
    if head_dim < NARROWEST || !d_model.is_multiple_of(head_dim) {
        return Err(PluginError::bad_option(format!(
            "head_dim={head_dim} must be at least {NARROWEST} and divide d_model, {d_model}; \
             give another head_dim or a model width with such a divisor"
        )));
    }
    Ok(head_dim)
}

/// A rank by its option: 0 is the published one, at most half of the model width.
///
/// # Errors
/// A missing option.
pub(crate) fn rank(settings: &Settings, name: &str, published: usize) -> Result<usize> {
    Ok(match settings.size(name)? {
        0 => published.min(settings.d_model() / 2).max(1),
        rank => rank,
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
