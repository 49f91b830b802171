//! Initial values by the option `init`: this project's, which are the same in every architecture as far as they can be,
//! or those of an architecture's reference implementation. What these are stands in each plugin's README.

use longhaul_plugin_api::author::Result;

use crate::backbone::{has_mlp, residual_init};
use crate::engine::params::Init;
use crate::options::Settings;

crate::options! {
    /// Whose initial values a model has, where the architecture's reference implementation has others.
    pub enum InitialValues
        => "initial values: longhaul's, alike in all architectures, or the reference implementation's"
    {
        /// This project's.
        Longhaul = "longhaul",
        /// Those of the architecture's reference implementation.
        Reference = "reference",
    }
}

impl InitialValues {
    /// One of two, such as the starts of a parameter.
    pub fn choose<T>(self, longhaul: T, reference: T) -> T {
        match self {
            Self::Longhaul => longhaul,
            Self::Reference => reference,
        }
    }
}

/// How the backbone's own matrices start.
pub struct Starts {
    /// The embedding `[V, D]`.
    pub embedding: Init,
    /// The head `[V, D]`, where it is not the embedding.
    pub head: Init,
    /// Each matrix into the MLP `[hidden, D]`.
    pub mlp_in: Init,
    /// The matrix out of the MLP `[D, hidden]`.
    pub mlp_out: Init,
}

impl Starts {
    /// Those of every architecture that names no others.
    pub fn usual(settings: &Settings) -> Self {
        Self {
            embedding: Init::Normal {
                std: 1.0 / (settings.d_model() as f32).sqrt(),
            },
            head: Init::Linear { gain: 1.0 },
            mlp_in: Init::Linear { gain: 1.0 },
            mlp_out: residual_init(settings.layers()),
        }
    }
}

/// What both versions of Mamba share, with what `mamba_ssm` has otherwise.
#[derive(Debug, Clone, Copy)]
pub struct MambaStarts {
    whose: InitialValues,
    layers: usize,
    /// Additions to the residual stream a layer: 2 beside an MLP.
    additions: usize,
}

impl MambaStarts {
    /// Those of a model of these settings.
    ///
    /// # Errors
    /// The architecture is not on the backbone.
    pub fn new(settings: &Settings, whose: InitialValues) -> Result<Self> {
        Ok(Self {
            whose,
            layers: settings.layers(),
            additions: if has_mlp(settings)? { 2 } else { 1 },
        })
    }

    /// Of the convolution's taps and bias.
    pub fn convolution(&self, taps: usize) -> (Init, Init) {
        let uniform = Init::within(1.0 / (taps as f32).sqrt());
        (uniform.clone(), self.whose.choose(Init::Zeros, uniform))
    }

    /// Of `out_proj.weight`.
    pub fn out(&self) -> Init {
        let gain = 1.0 / ((self.additions * self.layers) as f32).sqrt();
        let reference = Init::Linear { gain };
        self.whose.choose(residual_init(self.layers), reference)
    }

    /// Of the bias under a softplus that makes step sizes log-uniform over 0.001..0.1 (arXiv 2312.00752, section 3.6).
    pub fn step_size_bias() -> Init {
        Init::Custom(|_, draw| {
            let (low, high) = (0.001f32.ln(), 0.1f32.ln());
            let step = (low + draw() * (high - low)).exp();
            // The inverse of softplus.
            step + (-(-step).exp_m1()).ln()
        })
    }

    /// Of the backbone.
    pub fn backbone(&self, usual: Starts) -> Starts {
        let reference = Init::Normal { std: 0.02 };
        Starts {
            embedding: self.whose.choose(usual.embedding, reference),
            ..usual
        }
    }
}
