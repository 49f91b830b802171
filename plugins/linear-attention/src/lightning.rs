//! Lightning attention as MiniMax-01 has it (arXiv 2501.08313; arXiv 2401.04658): a fixed decay for each head and
//! layer, SiLU before the state, a norm and a sigmoid gate behind it.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::Decay;
use longhaul_plugin_kit::{Architecture, Block, Mixer, Tensor, options};

use crate::heads::{HeadOptions, Heads};

options! {
    enum Slopes {
        /// Powers of two, as MiniMax has them.
        MiniMax = "minimax",
        Fla = "fla",
    }

    struct Options {
        heads: HeadOptions;
        slopes: Slopes
            => "how fast head h of H in layer l of L forgets: 2^(-8 (h + 1) / H) (1 - l / (L - 1)), or 8 h / H (1 - l / L)";
    }
}

/// The architecture `lightning`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "lightning",
        title: "Lightning attention: a fixed decay a head, slower in later layers",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| {
            let Options { heads, slopes } = Options::read(settings)?;
            Ok(Box::new(Lightning {
                heads: Heads::new(settings, &heads)?,
                slopes,
            }))
        },
    }
}

const CITATION: &str = "@article{qin2024lightning,
  title={Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence Lengths in Large Language Models},
  author={Qin, Zhen and Sun, Weigao and Li, Dong and Shen, Xuyang and Sun, Weixuan and Zhong, Yiran},
  year={2024}, note={arXiv:2401.04658}
}";

struct Lightning {
    heads: Heads,
    slopes: Slopes,
}

impl Lightning {
    /// Logarithms of the heads' decays.
    fn decays(&self, layer: usize, layers: usize) -> Vec<f64> {
        let (heads, layer, layers) = (self.heads.heads as f64, layer as f64, layers as f64);
        let slope = |head: usize| match self.slopes {
            Slopes::MiniMax => {
                let factor = 1.0 - layer / (layers - 1.0 + 1e-5) + 1e-5;
                (-8.0 * (head + 1) as f64 / heads).exp2() * factor
            }
            Slopes::Fla => 8.0 / heads * (1.0 - layer / layers) * head as f64,
        };
        (0..self.heads.heads).map(|head| -slope(head)).collect()
    }
}

impl Mixer for Lightning {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let decay = Decay::Constant(self.decays(block.layer, block.layers));
        let (heads, graph) = (&self.heads, &mut *block.graph);
        let all = heads.project(graph, x);
        let all = all.map(|part| graph.activation(part, Activation::Silu));
        let read = heads.states(graph, all, decay);
        let gate = heads.matrices.read(graph, "output_gate", x, read.cols());
        let normal = graph.norm("norm", read, NormKind::Rms, heads.epsilon);
        let gated = graph.gate(gate, normal, Activation::Sigmoid);
        heads.matrices.write(graph, gated, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
