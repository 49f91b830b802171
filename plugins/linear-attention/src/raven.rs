//! Raven (github.com/goombalab/raven, raven.pdf): slots as in gated slot attention, of which a router writes a few a
//! token.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{MambaStarts, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor, options,
};

use crate::heads::{HeadOptions, Heads};

options! {
    enum Router => "scores of slots: sigmoids, of which the chosen add to one, or a softmax of all" {
        Sigmoid = "sigmoid",
        Softmax = "softmax",
    }

    enum Decay {
        Mamba2 = "mamba2",
        Gla = "gla",
    }

    struct Options {
        heads: HeadOptions;
        slots: usize = 64, 1..=256 => "M, slots of a head";
        routed: usize = 32, 1..=256 => "slots of a head that a token writes to, at most all";
        router: Router;
        decay: Decay
            => "logarithms of decays: -exp(A) softplus(x + b) a head, or ln sigmoid(x) over gate_divisor a slot";
        gate_divisor: f32 = 8.0, 1e-3..=1e6 => "of decay=gla";
    }
}

/// The architecture `raven`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "raven",
        title: "Raven: slots that forget, of which a router writes a few",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Raven::new(settings)?)),
    }
}

const CITATION: &str = "@misc{afzal2025raven,
  title={Raven: High-Recall Sequence Modeling with Sparse Memory Routing},
  author={Afzal, Arshia and Bick, Aviv and Xing, Eric P. and Cevher, Volkan and Gu, Albert},
  year={2025}, howpublished={github.com/goombalab/raven}
}";

/// Beside a sum of sigmoids; fla's.
const EPSILON: f32 = 1e-9;

struct Raven {
    heads: Heads,
    options: Options,
}

impl Raven {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let (slots, routed) = (options.slots, options.routed);
        if routed > slots {
            return Err(PluginError::bad_option(format!(
                "routed={routed} slots a token, and slots={slots} a head"
            )));
        }
        Ok(Self {
            heads: Heads::new(settings, &options.heads)?,
            options,
        })
    }

    /// Records how much of each slot's decay a token takes, `[H M]`.
    fn route(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let (heads, matrices) = (self.heads.heads, self.heads.matrices);
        let Options { slots, routed, .. } = self.options;
        let logits = matrices.read(graph, "r_proj", x, heads * slots);
        if self.options.router == Router::Softmax {
            let scores = graph.softmax(logits, heads);
            return graph.largest(scores, heads, routed);
        }
        let scores = graph.activation(logits, Activation::Sigmoid);
        let chosen = graph.largest(scores, heads, routed);
        graph.shares(chosen, heads, EPSILON)
    }

    /// Records the logarithms of the slots' decays, `[H M]`.
    fn decay(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let route = self.route(graph, x);
        let (heads, matrices) = (self.heads.heads, self.heads.matrices);
        if self.options.decay == Decay::Gla {
            let gate = matrices.read(graph, "f_proj", x, heads * self.options.slots);
            let gate = graph.activation(gate, Activation::LogSigmoid);
            let decay = graph.scale(gate, 1.0 / self.options.gate_divisor);
            return graph.gate(decay, route, Activation::Identity);
        }
        let a_log = graph.param_without_decay("A_log", &[heads], Init::Custom(a_log));
        let bias = graph.param_without_decay("dt_bias", &[heads], MambaStarts::step_size_bias());
        let [a_log, bias] = [a_log, bias].map(|param| graph.constant(param));
        let step = matrices.read(graph, "a_proj", x, heads);
        let step = graph.add(step, bias);
        let step = graph.activation(step, Activation::Softplus);
        let decay = graph.gate(a_log, step, Activation::NegativeExp);
        graph.by_head(decay, route)
    }
}

/// A uniform over 1e-4..16, as its logarithm.
fn a_log(_index: usize, draw: &mut dyn FnMut() -> f32) -> f32 {
    (1e-4 + (16.0 - 1e-4) * draw()).ln()
}

impl Mixer for Raven {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (heads, graph) = (&self.heads, &mut *block.graph);
        let all = heads.project(graph, x);
        let [q, k, v] = all.map(|part| graph.activation(part, Activation::Silu));
        let q = graph.head_norm("q_norm", q, heads.heads, heads.epsilon);
        let k = graph.head_norm("k_norm", k, heads.heads, heads.epsilon);
        let decay = self.decay(graph, x);
        let write = graph.activation(decay, Activation::OneMinusExp);
        let read = heads.slots(graph, [q, k, v], write, decay);
        let read = graph.activation(read, Activation::Silu);
        let normal = graph.norm("g_norm", read, NormKind::Rms, heads.epsilon);
        heads.matrices.write(graph, normal, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
