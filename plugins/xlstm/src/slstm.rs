//! The scalar memory before the MLP (arXiv 2405.04517, figure 10; PyPI `xlstm`): a short convolution in front of input and
//! forget gate, gates and recurrent weights a head, a norm of each head.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::cell::Kind;
use longhaul_plugin_kit::{Architecture, Block, Init, Mixer, PluginError, Result, Tensor, options};

use crate::mlstm::CITATION;
use crate::starts::{HeadNorm, Matrices};

options! {
    /// Options of a scalar memory.
    pub struct Options {
        heads: usize = 4, 1..=1024 => "heads, whose cells see each other";
        conv: usize = 4, 0..=64
            => "taps of the short convolution before input and forget gate; 0 is none";
        head_norm: HeadNorm => "norm of what each head gives";
        head_norm_epsilon: f32 = 1e-5, 1e-12..=1e-1 => "epsilon of that norm";
        init: InitialValues;
    }
}

/// The architecture `slstm`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "slstm",
        title: "sLSTM: cells with exponential gates that see their head, xLSTM's",
        family: Family::Rnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "geglu",
        mixer: |settings| Ok(Box::new(ScalarMemory::new(settings)?)),
    }
}

/// The mixer of a layer with a scalar memory.
pub struct ScalarMemory {
    options: Options,
    matrices: Matrices,
}

impl ScalarMemory {
    pub fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let (heads, d_model) = (options.heads, settings.d_model());
        if !d_model.is_multiple_of(heads) {
            return Err(PluginError::bad_option(format!(
                "heads={heads} must divide d_model, {d_model}"
            )));
        }
        Ok(Self {
            matrices: Matrices::new(settings, options.init),
            options,
        })
    }

    /// The cells' biases in the order of their gates: those of the forget gate fall from 5 to -7 within a head, in later
    /// layers later.
    fn bias(&self, d_model: usize, layer: usize, layers: usize) -> Vec<f32> {
        let width = d_model / self.options.heads;
        let power = 0.3 + 1.3 * layer as f32 / (layers - 1).max(1) as f32;
        let last = (width - 1).max(1) as f32;
        let mut bias = vec![0.0; 4 * d_model];
        for (cell, bias) in bias[d_model..2 * d_model].iter_mut().enumerate() {
            *bias = 5.0 - 12.0 * ((cell % width) as f32 / last).powf(power);
        }
        bias
    }
}

impl Mixer for ScalarMemory {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let d_model = x.cols();
        let bias = self.bias(d_model, block.layer, block.layers);
        let (options, graph) = (&self.options, &mut *block.graph);
        let heads = options.heads;
        let convolved = match options.conv {
            0 => x,
            taps => {
                let start = Init::within(1.0 / (taps as f32).sqrt());
                let bias = Some(start.clone());
                graph.short_convolution_with("conv1d", x, taps, start, bias, Activation::Silu)
            }
        };
        let each = [
            ("igate", convolved),
            ("fgate", convolved),
            ("zgate", x),
            ("ogate", x),
        ];
        let gates = each
            .map(|(name, x)| graph.block_linear_with(name, x, heads, false, self.matrices.read()));
        let gates = graph.concatenate(&gates, 1);
        let shape = [4 * d_model, d_model / heads];
        let recurrent = options.init.choose(Init::Linear { gain: 1.0 }, Init::Zeros);
        let weight = graph.param("weight_hh", &shape, recurrent);
        let bias = graph.param("bias", &[4 * d_model], Init::Values(bias));
        let h = graph.recurrent_cell(Kind::Slstm, gates, weight, bias);
        let (norm, epsilon) = (options.head_norm.kind(), options.head_norm_epsilon);
        graph.group_norm("norm", h, norm, heads, epsilon)
    }

    fn starts(&self, settings: &Settings, usual: Starts) -> Starts {
        self.matrices.backbone(usual, settings.d_model())
    }

    fn min_rows(&self) -> usize {
        8
    }
}
