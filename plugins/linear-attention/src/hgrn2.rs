//! HGRN2 (arXiv 2404.07904): keys are what decays let in, and decays have a lower bound that rises with the layer.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::recurrences::state_matrix::Decay;
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor, options,
};

use crate::heads::{CommonOptions, Heads};

options! {
    struct Options {
        head_dim: usize = 0, 0..=1024 => "K and V, columns of a head; 0 is 128, at most the model width";
        lower_bound: bool = true => "decays have a lower bound that rises with the layer";
        conv: usize = 0, 0..=64 => "taps of short convolutions over q, f and i; 0 is none";
        common: CommonOptions;
    }
}

/// The architecture `hgrn2`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "hgrn2",
        title: "HGRN2: gated linear attention whose keys are what its decays let in",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Hgrn2::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{qin2024hgrn2,
  title={{HGRN2}: Gated Linear {RNN}s with State Expansion},
  author={Qin, Zhen and Yang, Songlin and Sun, Weixuan and Shen, Xuyang and Li, Dong and Sun, Weigao and Zhong, Yiran},
  booktitle={Conference on Language Modeling}, year={2024}, note={arXiv:2404.07904}
}";

/// What the first layer leaves for the others: the bounds of all layers.
const BOUNDS: &str = "hgrn2.lower_bounds";

struct Hgrn2 {
    heads: Heads,
    options: Options,
}

impl Hgrn2 {
    fn new(settings: &Settings) -> Result<Self> {
        let (options, d_model) = (Options::read(settings)?, settings.d_model());
        let head_dim = or_usual(options.head_dim, d_model.min(128));
        if !d_model.is_multiple_of(head_dim) {
            return Err(PluginError::bad_option(format!(
                "head_dim={head_dim} must divide d_model, {d_model}"
            )));
        }
        let heads = d_model / head_dim;
        Ok(Self {
            heads: Heads::of(settings, options.common, heads, head_dim, head_dim),
            options,
        })
    }

    /// How far the decays of a layer are open, `[1, D]`: one less the lower bound, which is the sum of a softmax over
    /// layers up to this one, the first's share left out (section 2.2 of arXiv 2311.04823). None in the first layer,
    /// where the bound is 0.
    fn open(&self, block: &mut Block<'_>, d_model: usize) -> Option<Tensor> {
        if !self.options.lower_bound {
            return None;
        }
        let (layer, layers) = (block.layer, block.layers);
        let logits = match block.shared(BOUNDS) {
            Some(logits) => logits,
            None => {
                let shape = [layers, d_model];
                let graph = &mut *block.graph;
                let param = graph.param_without_decay("lower_bounds", &shape, Init::Zeros);
                let logits = graph.constant(param);
                block.share(BOUNDS, logits);
                logits
            }
        };
        if layer == 0 {
            return None;
        }
        let graph = &mut *block.graph;
        let powers: Vec<Tensor> = (0..layers)
            .map(|layer| {
                let own = logits.columns(layer * d_model, d_model);
                graph.activation(own, Activation::Exp)
            })
            .collect();
        let bound = sum(graph, &powers[1..=layer]);
        let rest = powers[layer + 1..].iter().chain(&powers[..1]);
        let rest = sum(graph, &rest.copied().collect::<Vec<_>>());
        let total = graph.add(bound, rest);
        let inverse = graph.activation(total, Activation::Reciprocal);
        Some(graph.gate(inverse, rest, Activation::Identity))
    }
}

fn sum(graph: &mut Graph, parts: &[Tensor]) -> Tensor {
    let mut rest = parts.iter().copied();
    let first = rest.next().expect("a layer");
    rest.fold(first, |sum, part| graph.add(sum, part))
}

impl Mixer for Hgrn2 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let open = self.open(block, x.cols());
        let (heads, graph) = (&self.heads, &mut *block.graph);
        let [q, f, i] = ["q", "f", "i"].map(|name| {
            let part = heads
                .matrices
                .read(graph, &format!("{name}_proj"), x, x.cols());
            let name = format!("{name}_conv1d");
            heads
                .matrices
                .convolve(graph, &name, part, self.options.conv, Activation::Identity)
        });
        let q = graph.activation(q, Activation::Silu);
        // What a decay lets in: 1 - sigmoid(f) = sigmoid(-f), and less by as much as the bound takes.
        let closed = graph.scale(f, -1.0);
        let (k, decay) = match open {
            Some(open) => {
                let k = graph.gate(closed, open, Activation::Sigmoid);
                (k, graph.activation(k, Activation::LogOneMinus))
            }
            None => {
                let k = graph.activation(closed, Activation::Sigmoid);
                (k, graph.activation(f, Activation::LogSigmoid))
            }
        };
        let q = heads.scaled(graph, q);
        let read = heads.states(graph, [q, k, i], Decay::Key(decay));
        let normal = graph.norm("g_norm", read, NormKind::Rms, heads.epsilon);
        heads.matrices.write(graph, normal, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
