//! Starting values that depend on the channel and the layer, as the papers and their official code
//! give them. Matrices start like every linear layer of the backbone instead, and not at 0 where the
//! official code has 0: the other factor of such a product would have no gradient at first. The
//! README has what differs from the official code.

use longhaul_plugin_kit::Init;

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
