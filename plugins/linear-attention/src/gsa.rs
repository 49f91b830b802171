//! Gated slot attention (arXiv 2409.07146): a memory of slots that forgets, read by a softmax over slots.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::{Settings, float, integer};
use longhaul_plugin_kit::{Architecture, Block, Mixer, Tensor};

use crate::heads::Heads;

/// The architecture `gsa`.
pub fn architecture() -> Architecture {
    let mut options = Heads::options(4, 1.0, 1.0);
    options.extend([
        integer("slots", 64, 1, 256, "M, slots of a head"),
        float(
            "gate_divisor",
            8.0,
            1e-3,
            1e6,
            "what the logarithm of a decay, ln sigmoid(x), is divided by",
        ),
        integer(
            "conv",
            0,
            0,
            64,
            "taps of short convolutions over q, k and v, with SiLU; 0 is none",
        ),
    ]);
    Architecture {
        name: "gsa",
        title: "Gated slot attention: slots that forget, read by a softmax",
        family: Family::LinearRnn,
        citation: CITATION,
        options,
        default_mlp: "gated",
        mixer: |settings| {
            Ok(Box::new(Gsa {
                heads: Heads::new(settings)?,
                slots: settings.size("slots")?,
                gate_divisor: settings.float("gate_divisor")? as f32,
                conv: settings.size("conv")?,
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
    slots: usize,
    gate_divisor: f32,
    conv: usize,
}

impl Mixer for Gsa {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (heads, graph) = (&self.heads, &mut *block.graph);
        let all = heads.project_convolved(graph, x, self.conv);
        let all = all.map(|part| graph.activation(part, Activation::Silu));
        let gate = heads
            .matrices
            .read(graph, "f_proj", x, heads.heads * self.slots);
        let gate = graph.activation(gate, Activation::LogSigmoid);
        let decay = graph.scale(gate, 1.0 / self.gate_divisor);
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
