//! Starting values that depend on the channel and the layer, as the papers and their official code
//! give them, and those of matrices. With `init=longhaul` matrices start like every linear layer of the
//! backbone, and not at 0 where the official code has 0: the other factor of such a product would have no
//! gradient at first. With `init=reference` all is as there; the README has the table.

use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Init, backbone::residual_init};

/// Where a layer stands: both ratios of the official initialisation.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    /// l / (L - 1): from 0 in the first to 1 in the last layer.
    pub rising: f32,
    /// 1 - l / L: from 1 in the first to almost 0 in the last layer.
    pub falling: f32,
}

impl Depth {
    pub(crate) fn new(layer: usize, layers: usize) -> Self {
        Self {
            rising: layer as f32 / layers.saturating_sub(1).max(1) as f32,
            falling: 1.0 - layer as f32 / layers as f32,
        }
    }
}

/// A value for each channel by a function of i / D.
pub(crate) fn by_share(channels: usize, value: impl Fn(f32) -> f32) -> Init {
    let share = |channel: usize| channel as f32 / channels as f32;
    Init::Values((0..channels).map(|channel| value(share(channel))).collect())
}

/// A value for each channel by a function of its index and of i / (D - 1).
pub(crate) fn by_place(channels: usize, value: impl Fn(usize, f32) -> f32) -> Init {
    let last = channels.saturating_sub(1).max(1) as f32;
    let each = (0..channels).map(|channel| value(channel, channel as f32 / last));
    Init::Values(each.collect())
}

/// -1, 0, 1, -1, .. beginning with 0: neighbours start apart.
pub(crate) fn zigzag(channel: usize) -> f32 {
    ((channel + 1) % 3) as f32 - 1.0
}

/// A linear layer's start with one gain, or an orthogonal one with another.
pub(crate) fn matrix(whose: InitialValues, gain: f32, orthogonal: f32) -> Init {
    let reference = Init::Orthogonal { gain: orthogonal };
    whose.choose(Init::Linear { gain }, reference)
}

/// A matrix that the official code starts at 0, with another start here.
pub(crate) fn zero_there(whose: InitialValues, here: Init) -> Init {
    whose.choose(here, Init::Zeros)
}

/// A projection into the residual stream, which the official code starts at 0.
pub(crate) fn into_residual(whose: InitialValues, layers: usize) -> Init {
    zero_there(whose, residual_init(layers))
}

/// The weight of the norm over a head, smaller in the first layers in the official code.
pub(crate) fn head_norm(whose: InitialValues, layer: usize, layers: usize) -> Init {
    let share = (layer + 1) as f32 / layers as f32;
    whose.choose(Init::Ones, Init::Constant(share.powf(0.7)))
}

/// The gain of an orthogonal matrix `[rows, cols]` that keeps lengths where there are more rows than columns.
pub(crate) fn spread(rows: usize, cols: usize) -> f32 {
    (rows as f32 / cols as f32).sqrt().max(1.0)
}

/// Embedding and head.
pub(crate) fn ends(
    whose: InitialValues,
    settings: &Settings,
    usual: Starts,
    embedding: Init,
) -> Starts {
    let (vocab, d_model) = (settings.config.vocab as usize, settings.d_model());
    let gain = 0.5 * spread(vocab, d_model);
    Starts {
        embedding: whose.choose(usual.embedding, embedding),
        head: whose.choose(usual.head, Init::Orthogonal { gain }),
        ..usual
    }
}
