//! Gated linear attention (arXiv 2312.06635): a decay for each key channel, from a low-rank projection.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::Decay;
use longhaul_plugin_kit::{Architecture, Block, Init, Mixer, Result, Tensor, options};

use crate::heads::{HeadOptions, Heads};

options! {
    struct Options {
        heads: HeadOptions = HeadOptions { expand_k: 0.5, ..HeadOptions::default() };
        gate_rank: usize = 16, 1..=4096 => "rank of the decays' projection";
        gate_divisor: f32 = 16.0, 1e-3..=1e6 => "what the logarithm of a decay, ln sigmoid(x), is divided by";
        conv: usize = 0, 0..=64 => "taps of short convolutions over q, k and v, with SiLU; 0 is none";
    }
}

/// The architecture `gla`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "gla",
        title: "Gated linear attention: a data-dependent decay a key channel",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Gla::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{yang2024gated,
  title={Gated Linear Attention Transformers with Hardware-Efficient Training},
  author={Yang, Songlin and Wang, Bailin and Shen, Yikang and Panda, Rameswar and Kim, Yoon},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2312.06635}
}";

struct Gla {
    heads: Heads,
    options: Options,
}

impl Gla {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            heads: Heads::new(settings, &options.heads)?,
            options,
        })
    }
}

impl Mixer for Gla {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (heads, options, graph) = (&self.heads, &self.options, &mut *block.graph);
        let [q, k, v] = heads.project_convolved(graph, x, options.conv);
        let down = heads
            .matrices
            .read(graph, "gk_proj.0", x, options.gate_rank);
        let up = heads.matrices.read(graph, "gk_proj.1", down, k.cols());
        let bias = graph.param("gk_proj.1.bias", &[k.cols()], Init::Zeros);
        let bias = graph.constant(bias);
        let gate = graph.add(up, bias);
        let gate = graph.activation(gate, Activation::LogSigmoid);
        let decay = graph.scale(gate, 1.0 / options.gate_divisor);
        let q = heads.scaled(graph, q);
        let read = heads.states(graph, [q, k, v], Decay::Key(decay));
        let gated = heads.gated_norm(graph, x, read);
        heads.matrices.write(graph, gated, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
