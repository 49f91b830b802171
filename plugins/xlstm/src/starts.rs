//! Initial values that all layers share.

use longhaul_plugin_kit::backbone::{mlp_hidden, residual_init};
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Init, options};

/// Whose initial values the matrices have.
#[derive(Debug, Clone, Copy)]
pub struct Matrices {
    whose: InitialValues,
    d_model: usize,
    layers: usize,
}

impl Matrices {
    pub fn new(settings: &Settings, whose: InitialValues) -> Self {
        Self {
            whose,
            d_model: settings.d_model(),
            layers: settings.layers(),
        }
    }

    /// The reference implementation's for most: normal, variance 2 / (5 D), whatever the matrix reads.
    fn small(self) -> Init {
        let std = (0.4 / self.d_model as f32).sqrt();
        Init::Normal { std }
    }

    /// Of a matrix that reads the residual stream, or `gates` of a head.
    pub fn read(self) -> Init {
        self.whose.choose(Init::Linear { gain: 1.0 }, self.small())
    }

    /// Of a matrix into the residual stream; the reference implementation's has the deviation 2 / (layers sqrt(cols)).
    pub fn write(self, cols: usize) -> Init {
        let std = 2.0 / self.layers as f32 / (cols as f32).sqrt();
        self.whose
            .choose(residual_init(self.layers), Init::Normal { std })
    }

    /// Of the backbone; `mlp_cols` gives what the reference implementation counts by in the matrix out of the MLP.
    pub fn backbone(self, usual: Starts, mlp_cols: usize) -> Starts {
        let small = || self.small();
        Starts {
            embedding: self.whose.choose(usual.embedding, small()),
            head: self.whose.choose(usual.head, small()),
            mlp_in: self.whose.choose(usual.mlp_in, small()),
            mlp_out: self.whose.choose(usual.mlp_out, self.write(mlp_cols)),
        }
    }
}

/// Columns of the MLP, or D where that cannot be known.
pub fn mlp_cols(settings: &Settings) -> usize {
    mlp_hidden(settings).unwrap_or_else(|_| settings.d_model())
}

options! {
    /// The norm of what a head gives.
    pub enum HeadNorm {
        Layer = "layernorm",
        Rms = "rmsnorm",
    }
}

impl HeadNorm {
    /// Without a bias.
    pub fn kind(self) -> NormKind {
        match self {
            Self::Layer => NormKind::Centred,
            Self::Rms => NormKind::Rms,
        }
    }
}

/// Evenly spaced from 3 to 6: the forget gates' biases.
pub fn forget_bias(heads: usize) -> Vec<f32> {
    let last = heads.saturating_sub(1).max(1) as f32;
    (0..heads)
        .map(|head| 3.0 + 3.0 * head as f32 / last)
        .collect()
}
