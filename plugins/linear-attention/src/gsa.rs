//! Gated slot attention (arXiv 2409.07146): a memory of slots that forgets, read by a softmax over slots.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Architecture, Block, Mixer, Tensor, options};

use crate::heads::{HeadOptions, Heads};

options! {
    struct Options {
        heads: HeadOptions;
        slots: usize = 64, 1..=256 => "M, slots of a head";
        gate_divisor: f32 = 8.0, 1e-3..=1e6 => "what the logarithm of a decay, ln sigmoid(x), is divided by";
        conv: usize = 0, 0..=64 => "taps of short convolutions over q, k and v, with SiLU; 0 is none";
    }
}

/// The architecture `gsa`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "gsa",
        title: "Gated slot attention: slots that forget, read by a softmax",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| {
            let options = Options::read(settings)?;
            Ok(Box::new(Gsa {
                heads: Heads::new(settings, &options.heads)?,
                options,
            }))
        },
    }
}

const CITATION: &str = "@inproceedings{zhang2024gated,
  title={Gated Slot Attention for Efficient Linear-Time Sequence Modeling},
  author={Zhang, Yu and Yang, Songlin and Zhu, Ruijie and Zhang, Yue and Cui, Leyang and Wang, Yiqiao and Wang, Bolun and Shi, Freda and Wang, Bailin and Bi, Wei and Zhou, Peng and Fu, Guohong},
  booktitle={Advances in Neural Information Processing Systems}, year={2024}, note={arXiv:2409.07146}
}";

struct Gsa {
    heads: Heads,
    options: Options,
}

impl Mixer for Gsa {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (heads, options, graph) = (&self.heads, &self.options, &mut *block.graph);
        let all = heads.project_convolved(graph, x, options.conv);
        let all = all.map(|part| graph.activation(part, Activation::Silu));
        let gate = heads
            .matrices
            .read(graph, "f_proj", x, heads.heads * options.slots);
        let gate = graph.activation(gate, Activation::LogSigmoid);
        let decay = graph.scale(gate, 1.0 / options.gate_divisor);
        let write = graph.activation(decay, Activation::OneMinusExp);
        let read = heads.slots(graph, all, write, decay);
        let read = graph.activation(read, Activation::Silu);
        let normal = graph.norm("g_norm", read, NormKind::Rms, heads.epsilon);
        heads.matrices.write(graph, normal, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
