//! RetNet (arXiv 2307.08621): rotated queries and keys, a fixed decay for each head, a gated norm of heads.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::Decay;
use longhaul_plugin_kit::{Architecture, Block, Mixer, PluginError, Result, Tensor, options};

use crate::heads::{HeadOptions, Heads};

options! {
    struct Options {
        heads: HeadOptions = HeadOptions { heads: 8, expand_v: 2.0, ..HeadOptions::default() };
        rope_base: f64 = 10_000.0, 1.0..=1e9 => "base of the rotary frequencies";
        conv: usize = 0, 0..=64 => "taps of short convolutions over q, k and v, with SiLU; 0 is none";
    }
}

/// The architecture `retnet`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "retnet",
        title: "RetNet: multi-scale retention, a fixed decay a head",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
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
    options: Options,
}

impl RetNet {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let heads = Heads::new(settings, &options.heads)?;
        if !heads.key.is_multiple_of(2) {
            return Err(PluginError::bad_option(format!(
                "a head's keys are rotated in pairs, and of heads={} each has {} columns of expand_k times d_model",
                heads.heads, heads.key
            )));
        }
        Ok(Self { heads, options })
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
        let (heads, options, graph) = (&self.heads, &self.options, &mut *block.graph);
        let [q, k, v] = heads.project_convolved(graph, x, options.conv);
        let base = options.rope_base;
        let [q, k] = [q, k].map(|part| graph.rotary(part, heads.heads, heads.key, base));
        let q = heads.scaled(graph, q);
        let read = heads.states(graph, [q, k, v], Decay::Constant(self.decays()));
        let gated = heads.gated_norm(graph, x, read);
        heads.matrices.write(graph, gated, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
