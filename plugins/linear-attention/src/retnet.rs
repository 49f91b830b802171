//! RetNet (arXiv 2307.08621): rotated queries and keys, a fixed decay for each head, a gated norm of heads.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::options::{Settings, float, integer};
use longhaul_plugin_kit::recurrences::state_matrix::Decay;
use longhaul_plugin_kit::{Architecture, Block, Mixer, PluginError, Result, Tensor};

use crate::heads::Heads;

/// The architecture `retnet`.
pub fn architecture() -> Architecture {
    let mut options = Heads::options(8, 1.0, 2.0);
    options.extend([
        float(
            "rope_base",
            10_000.0,
            1.0,
            1e9,
            "base of the rotary frequencies",
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
        name: "retnet",
        title: "RetNet: multi-scale retention, a fixed decay a head",
        family: Family::LinearRnn,
        citation: CITATION,
        options,
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(RetNet::new(settings)?)),
    }
}

const CITATION: &str = "@article{sun2023retentive,
  title={Retentive Network: A Successor to Transformer for Large Language Models},
  author={Sun, Yutao and Dong, Li and Huang, Shaohan and Ma, Shuming and Xia, Yuqing and Xue, Jilong and Wang, Jianyong and Wei, Furu},
  year={2023}, note={arXiv:2307.08621}
}";

struct RetNet {
    heads: Heads,
    rope_base: f64,
    conv: usize,
}

impl RetNet {
    fn new(settings: &Settings) -> Result<Self> {
        let heads = Heads::new(settings)?;
        if !heads.key.is_multiple_of(2) {
            return Err(PluginError::bad_option(format!(
                "a head's keys are rotated in pairs, and of heads={} each has {} columns of expand_k times d_model",
                heads.heads, heads.key
            )));
        }
        Ok(Self {
            heads,
            rope_base: settings.float("rope_base")?,
            conv: settings.size("conv")?,
        })
    }

    /// Logarithms of the heads' decays, `1 - 2^(-5 - h)` (section 2.2).
    fn decays(&self) -> Vec<f64> {
        let each = 0..self.heads.heads;
        each.map(|head| (-(-5.0 - head as f64).exp2()).ln_1p())
            .collect()
    }
}

impl Mixer for RetNet {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (heads, graph) = (&self.heads, &mut *block.graph);
        let [q, k, v] = heads.project_convolved(graph, x, self.conv);
        let [q, k] = [q, k].map(|part| graph.rotary(part, heads.heads, heads.key, self.rope_base));
        let q = heads.scaled(graph, q);
        let read = heads.states(graph, [q, k, v], Decay::Constant(self.decays()));
        let gated = heads.gated_norm(graph, x, read);
        heads.matrices.write(graph, gated, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
