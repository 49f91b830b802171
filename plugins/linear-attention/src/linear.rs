//! Linear attention (arXiv 2006.16236): a positive feature map of queries and keys, weights that add to one.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::Decay;
use longhaul_plugin_kit::{Architecture, Block, Mixer, Result, Tensor, options};

use crate::heads::{HeadOptions, Heads};

options! {
    enum FeatureMap {
        Elu = "elu",
        Relu = "relu",
        Identity = "identity",
    }

    struct Options {
        heads: HeadOptions;
        feature_map: FeatureMap => "what is made of queries and keys: elu + 1, relu, themselves";
        normalise: bool = true
            => "weights of the past add to one (the paper); without, what is read grows with the length";
        head_norm: bool = false => "RMSNorm of what each head reads (fla)";
    }
}

/// The architecture `linear-attention`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "linear-attention",
        title: "Linear attention: a sum of keys times values, with a positive feature map",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(LinearAttention::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{katharopoulos2020transformers,
  title={Transformers are {RNN}s: Fast Autoregressive Transformers with Linear Attention},
  author={Katharopoulos, Angelos and Vyas, Apoorv and Pappas, Nikolaos and Fleuret, Fran{\\c{c}}ois},
  booktitle={International Conference on Machine Learning}, year={2020}, note={arXiv:2006.16236}
}";

/// Keeps a quotient of sums that are 0 finite; fla's.
const EPSILON: f32 = 1e-10;

struct LinearAttention {
    heads: Heads,
    options: Options,
}

impl LinearAttention {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            heads: Heads::new(settings, &options.heads)?,
            options,
        })
    }
}

impl Mixer for LinearAttention {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (heads, graph) = (&self.heads, &mut *block.graph);
        let [q, k, v] = heads.project(graph, x);
        let [q, k] = [q, k].map(|part| match self.options.feature_map {
            FeatureMap::Elu => graph.activation(part, Activation::EluPlusOne),
            FeatureMap::Relu => graph.activation(part, Activation::Relu),
            FeatureMap::Identity => part,
        });
        let q = heads.scaled(graph, q);
        let mut read = if self.options.normalise {
            heads.normalised(graph, [q, k, v], EPSILON)
        } else {
            heads.states(graph, [q, k, v], Decay::None)
        };
        if self.options.head_norm {
            read = graph.head_norm("norm", read, heads.heads, heads.epsilon);
        }
        heads.matrices.write(graph, read, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
