//! TTT-Linear (arXiv 2407.04620) as in test-time-training/ttt-lm-pytorch, `ttt.py`, in the Transformer's backbone, or
//! with what Mamba's adds to the layer.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::ops::rotary_scaling::Angles;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::fast_weights::{FastWeights, Loss, Update};
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor, options,
};

use crate::{Sizes, heads_of};

options! {
    struct Options {
        sizes: Sizes;
        base_rate: f64 = 1.0, 1e-4..=100.0
            => "most of a token's learning rate, before it is divided by head_dim";
        theta: f64 = 10000.0, 1.0..=1e9
            => "base of the rotary angles, which begin anew with every mini-batch";
        gate: bool = false => "a gate with GELU on what is read";
        share_qk: bool = false => "one projection for queries and keys, with a convolution for each";
        conv: usize = 4, 1..=64 => "taps of these convolutions";
        init: InitialValues;
    }
}

/// The architecture `ttt-linear`.
pub fn ttt_linear() -> Architecture {
    Architecture {
        name: "ttt-linear",
        title: "TTT-Linear: a linear model a head, trained by what it reads",
        family: Family::Rnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(TttLinear::new(settings)?)),
    }
}

const CITATION: &str = "@misc{sun2024ttt,
  title={Learning to (Learn at Test Time): {RNN}s with Expressive Hidden States},
  author={Sun, Yu and Li, Xinhao and Dalal, Karan and Xu, Jiarui and Vikram, Arjun and Zhang, Genghan and others},
  year={2024}, note={arXiv:2407.04620}
}";

/// Of both LayerNorms.
const EPSILON: f32 = 1e-6;

/// The standard deviation of most of what the reference implementation draws, and of what the inner model starts from.
const SMALL: Init = Init::Normal { std: 0.02 };

struct TttLinear {
    heads: usize,
    options: Options,
}

impl TttLinear {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let heads = heads_of(settings, &options.sizes)?;
        let width = settings.d_model() / heads;
        if !width.is_multiple_of(2) {
            return Err(PluginError::bad_option(format!(
                "head_dim={width}: rotary angles turn pairs of a head's values, give an even one"
            )));
        }
        Ok(Self { heads, options })
    }

    /// A square matrix into the layer.
    fn project(&self, graph: &mut Graph, name: &str, x: Tensor) -> Tensor {
        let init = self.options.init.choose(Init::Linear { gain: 1.0 }, SMALL);
        graph.linear_with(name, x, x.cols(), false, init)
    }

    /// Queries and keys, turned by their places in the mini-batch.
    fn queries_and_keys(&self, graph: &mut Graph, x: Tensor) -> [Tensor; 2] {
        let q = self.project(graph, "q_proj", x);
        let (taps, init) = (self.options.conv, self.options.init);
        let [q, k] = match self.options.share_qk {
            false => [q, self.project(graph, "k_proj", x)],
            true => ["conv_q", "conv_k"].map(|name| {
                let usual = Init::within(1.0 / (taps as f32).sqrt());
                let bias = init.choose(Init::Zeros, usual.clone());
                let identity = Activation::Identity;
                graph.short_convolution_with(name, q, taps, usual, Some(bias), identity)
            }),
        };
        let angles = Angles {
            period: Some(self.options.sizes.mini_batch as u32),
            ..self.options.theta.into()
        };
        let width = x.cols() / self.heads;
        [q, k].map(|x| graph.rotary(x, self.heads, width, angles))
    }

    /// What the inner model, its LayerNorm included, gives for the queries.
    fn read(&self, graph: &mut Graph, x: Tensor, [q, k, v]: [Tensor; 3]) -> Tensor {
        const NORM: &str = "ttt_norm";
        let (heads, cols) = (self.heads, x.cols());
        let mini_batch = self.options.sizes.mini_batch;
        let width = cols / heads;
        let rate = graph.linear_with("rate", x, heads, true, SMALL);
        let rate = graph.activation(rate, Activation::Sigmoid);
        let minus_k = graph.scale(k, -1.0);
        // One norm in the inner loss and behind it.
        let loss = Loss::Normal {
            weight: graph.param(&format!("{NORM}.weight"), &[cols], Init::Ones),
            bias: graph.param(&format!("{NORM}.bias"), &[cols], Init::Zeros),
            epsilon: EPSILON,
        };
        let what = FastWeights {
            q,
            k,
            target: graph.add(v, minus_k),
            rate: graph.scale(rate, (self.options.base_rate / width as f64) as f32),
            start: graph.param_without_decay("W1", &[heads, width, width], SMALL),
            bias: Some(graph.param_without_decay("b1", &[heads, width], Init::Zeros)),
            loss,
            update: Update::Descent {
                shares: graph.param("learnable_token_idx", &[mini_batch], Init::Zeros),
            },
            mini_batch,
        };
        let z = graph.fast_weights(what);
        graph.shared(|graph| graph.group_norm(NORM, z, NormKind::Layer, heads, EPSILON))
    }
}

impl Mixer for TttLinear {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let [q, k] = self.queries_and_keys(graph, x);
        let v = self.project(graph, "v_proj", x);
        let read = self.read(graph, x, [q, k, v]);
        let y = graph.add(q, read);
        let mut y = graph.norm("post_norm", y, NormKind::Layer, EPSILON);
        if self.options.gate {
            let gate = self.project(graph, "g_proj", x);
            y = graph.gate(gate, y, Activation::Gelu);
        }
        let out = self.options.init.choose(residual_init(block.layers), SMALL);
        graph.linear_with("o_proj", y, x.cols(), false, out)
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        let reference = Starts {
            embedding: SMALL,
            head: SMALL,
            mlp_in: SMALL,
            mlp_out: SMALL,
        };
        self.options.init.choose(usual, reference)
    }
}
