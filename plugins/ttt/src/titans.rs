//! The neural memory of Titans (arXiv 2501.00663, sections 3.1, 3.2 and 4.4), a matrix a head, as a layer by itself (LMM).

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::fast_weights::{FastWeights, Loss, Update};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::{Sizes, heads_of};

options! {
    struct Options {
        sizes: Sizes;
        max_rate: f64 = 1.0, 1e-4..=100.0
            => "most of a token's learning rate, the loss being the mean over a head's values";
        momentum: bool = true => "a share of the last step in each, by token";
        decay: bool = true => "forgetting, by token";
        conv: usize = 4, 1..=64 => "taps of the short convolution; 1 is none, SiLU alone";
        gate: bool = true => "a gate with SiLU on what is read";
        init: InitialValues;
    }
}

/// The architecture `titans`.
pub fn titans() -> Architecture {
    Architecture {
        name: "titans",
        title: "Titans' neural memory: a matrix a head, trained with momentum and decay",
        family: Family::Rnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Titans::new(settings)?)),
    }
}

const CITATION: &str = "@misc{behrouz2024titans,
  title={Titans: Learning to Memorize at Test Time},
  author={Behrouz, Ali and Zhong, Peilin and Mirrokni, Vahab},
  year={2024}, note={arXiv:2501.00663}
}";

/// Under the roots of lengths, and of the norm of what is read.
const EPSILON: f32 = 1e-6;

/// Before the sigmoid: 0.018 of the memory is forgotten a token.
const KEEP: f32 = 4.0;

struct Titans {
    heads: usize,
    options: Options,
}

impl Titans {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            heads: heads_of(settings, &options.sizes)?,
            options,
        })
    }

    /// Queries and keys of length 1, and values.
    fn queries_keys_values(&self, graph: &mut Graph, x: Tensor) -> [Tensor; 3] {
        let cols = x.cols();
        let all = graph.linear("in_proj", x, 3 * cols, false);
        let all = match self.options.conv {
            1 => graph.activation(all, Activation::Silu),
            taps => graph.short_convolution("conv1d", all, taps, false, Activation::Silu),
        };
        let part = |index: usize| all.columns(index * cols, cols);
        let [q, k] = [0, 1].map(|index| graph.l2_norm(part(index), self.heads, EPSILON));
        [q, k, part(2)]
    }

    /// Rates, and what is kept of the memory and of the last step where there are such: numbers from 0 to 1 of each token
    /// and head.
    fn paces(&self, graph: &mut Graph, x: Tensor) -> (Tensor, Option<Tensor>, Option<Tensor>) {
        let (heads, cols, options) = (self.heads, x.cols(), &self.options);
        let own = [(true, 0.0), (options.decay, KEEP), (options.momentum, 0.0)];
        let own = own.into_iter().filter(|(is_on, _)| *is_on);
        let usual: Vec<f32> = own.flat_map(|(_, bias)| vec![bias; heads]).collect();
        let count = usual.len();
        let within = Init::within(1.0 / (cols as f32).sqrt());
        let bias = options.init.choose(Init::Values(usual), within.clone());
        let weight = graph.param("paces.weight", &[count, cols], within);
        let bias = graph.param("paces.bias", &[count], bias);
        let all = graph.linear_by(x, weight, Some(bias));
        let all = graph.activation(all, Activation::Sigmoid);
        let part = |index: usize| all.columns(index * heads, heads);
        let keep = options.decay.then(|| part(1));
        let momentum = options
            .momentum
            .then(|| part(1 + usize::from(options.decay)));
        // The gradient of the mean of squares is 2 / width of that of half their sum.
        let rate = graph.scale(
            part(0),
            (2.0 * options.max_rate * heads as f64 / cols as f64) as f32,
        );
        (rate, keep, momentum)
    }
}

impl Mixer for Titans {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, heads) = (&mut *block.graph, self.heads);
        let width = x.cols() / heads;
        let [q, k, target] = self.queries_keys_values(graph, x);
        let (rate, keep, momentum) = self.paces(graph, x);
        // Glorot's bound of a square matrix.
        let glorot = Init::within((3.0 / width as f32).sqrt());
        let memory = self.options.init.choose(Init::Normal { std: 0.02 }, glorot);
        let what = FastWeights {
            q,
            k,
            target,
            rate,
            start: graph.param_without_decay("memory", &[heads, width, width], memory),
            bias: None,
            loss: Loss::Squares,
            update: Update::Momentum { keep, momentum },
            mini_batch: self.options.sizes.mini_batch,
        };
        let read = graph.fast_weights(what);
        let mut y = graph.head_norm("norm", read, heads, EPSILON);
        if self.options.gate {
            let gate = graph.linear("g_proj", x, x.cols(), false);
            y = graph.gate(gate, y, Activation::Silu);
        }
        let usual = Init::Linear { gain: 1.0 };
        let out = self.options.init.choose(residual_init(block.layers), usual);
        graph.linear_with("out_proj", y, x.cols(), false, out)
    }
}
