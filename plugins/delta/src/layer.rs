//! What the layers share: sizes and options, one projection and one short convolution, step sizes and decays, and
//! the way out through a norm and a gate.

use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::{InitialValues, MambaStarts, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::recurrences::state_matrix::Heads;
use longhaul_plugin_kit::{Graph, Init, PluginError, Result, Tensor, options};

/// Widest head that a state matrix with a removal takes.
const WIDEST: usize = 256;

/// Head size that the number of heads is chosen by.
const USUAL: usize = 64;

/// Under the root of a vector's length.
const LENGTH_EPSILON: f32 = 1e-6;

options! {
    /// The options of every architecture here.
    #[derive(Copy)]
    pub(crate) struct LayerOptions {
        heads: usize = 0, 0..=1024 => "heads of queries and keys; 0 is D / 64, at least 2";
        head_dim: usize = 0, 0..=WIDEST => "K, width of queries and keys of a head; 0 is D / heads";
        expand_v: f64 = 1.0, 1.0 / 64.0..=64.0 => "V over K, rounded";
        conv: usize = 4, 1..=64 => "taps of the short convolution; 1 is none, SiLU alone";
        conv_bias: bool = false => "bias in the convolution";
        negative_eigenvalues: Option<bool> = Some(false)
            => "steps up to 2 instead of 1, so that a key can turn the sign of what it held (arXiv 2411.12537)";
        norm_gate_epsilon: f32 = 1e-5, 1e-12..=1e-1 => "epsilon of the norm over each head";
        init: InitialValues;
        // Of those that share queries and keys among heads of values.
        value_heads: Option<usize> = None, 0..=1024 => "heads of values, a multiple of the heads; 0 is as many";
    }
}

/// Sizes and starts of a layer.
pub(crate) struct Layer {
    pub heads: Heads,
    options: LayerOptions,
    layers: usize,
}

impl Layer {
    /// # Errors
    /// Sizes that do not fit each other or a state matrix.
    pub(crate) fn new(settings: &Settings, options: LayerOptions) -> Result<Self> {
        let d_model = settings.d_model();
        let groups = or_usual(options.heads, d_model.div_ceil(USUAL).max(2));
        let key = or_usual(options.head_dim, (d_model / groups).max(1));
        if key > WIDEST {
            return Err(PluginError::bad_option(format!(
                "D / heads is {key}, more than the {WIDEST} that a head may have: give more heads or head_dim"
            )));
        }
        let heads = or_usual(options.value_heads.unwrap_or(0), groups);
        if !heads.is_multiple_of(groups) {
            return Err(PluginError::bad_option(format!(
                "value_heads={heads} must be a multiple of the {groups} heads"
            )));
        }
        let value = (key as f64 * options.expand_v).round().max(1.0) as usize;
        Ok(Self {
            heads: Heads {
                heads,
                groups,
                key,
                value,
                writes: 1,
            },
            options,
            layers: settings.layers(),
        })
    }

    /// Columns of all queries, of all keys and of all values of a token.
    pub(crate) fn widths(&self) -> [usize; 3] {
        let Heads {
            heads,
            groups,
            key,
            value,
            writes,
        } = self.heads;
        [groups * key, writes * groups * key, writes * heads * value]
    }

    /// A matrix into the layer.
    pub(crate) fn matrix(&self) -> Init {
        self.or_reference(Init::Linear { gain: 1.0 })
    }

    fn or_reference(&self, longhaul: Init) -> Init {
        let reference = Init::Normal { std: 0.02 };
        self.options.init.choose(longhaul, reference)
    }

    /// `in_proj`, all that is read of x at once; [`Columns::next`] gives its parts in order.
    pub(crate) fn project(&self, graph: &mut Graph, x: Tensor, cols: usize) -> Columns {
        Columns::of(graph.linear_with("in_proj", x, cols, false, self.matrix()))
    }

    /// SiLU of a short convolution.
    pub(crate) fn convolve(&self, graph: &mut Graph, x: Tensor) -> Columns {
        let LayerOptions {
            conv, conv_bias, ..
        } = self.options;
        if conv == 1 {
            return Columns::of(graph.activation(x, Activation::Silu));
        }
        let taps = self.or_reference(Init::within(1.0 / (conv as f32).sqrt()));
        let bias = conv_bias.then_some(Init::Zeros);
        let silu = Activation::Silu;
        Columns::of(graph.short_convolution_with("conv1d", x, conv, taps, bias, silu))
    }

    /// Each head at length 1.
    pub(crate) fn unit(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        graph.l2_norm(x, x.cols() / self.heads.key, LENGTH_EPSILON)
    }

    /// Queries over the root of their width.
    pub(crate) fn scaled(&self, graph: &mut Graph, q: Tensor) -> Tensor {
        graph.scale(q, 1.0 / (self.heads.key as f32).sqrt())
    }

    /// Step sizes: beta from 0 to 1, or to 2.
    pub(crate) fn steps(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let beta = graph.activation(x, Activation::Sigmoid);
        let is_wide = self.options.negative_eigenvalues == Some(true);
        graph.scale(beta, if is_wide { 2.0 } else { 1.0 })
    }

    /// Logarithms of decays, `-e^A_log softplus(x + dt_bias)`.
    pub(crate) fn decay(&self, graph: &mut Graph, x: Tensor, a_log: Init) -> Tensor {
        let x = self.biased(graph, x);
        let steps = graph.activation(x, Activation::Softplus);
        self.rated(graph, steps, a_log, Activation::NegativeExp)
    }

    /// `x + dt_bias`.
    pub(crate) fn biased(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let start = MambaStarts::step_size_bias();
        let bias = graph.param_without_decay("dt_bias", &[x.cols()], start);
        let bias = graph.constant(bias);
        graph.add(x, bias)
    }

    /// x times f(A_log) of its head.
    pub(crate) fn rated(&self, graph: &mut Graph, x: Tensor, a_log: Init, f: Activation) -> Tensor {
        let a_log = graph.param_without_decay("A_log", &[self.heads.heads], a_log);
        let a_log = graph.constant(a_log);
        if x.cols() == self.heads.heads {
            return graph.gate(a_log, x, f);
        }
        let rates = graph.activation(a_log, f);
        graph.by_head(rates, x)
    }

    /// `out_proj` of each head's norm, times f(gate) where there is one.
    pub(crate) fn out(
        &self,
        graph: &mut Graph,
        o: Tensor,
        gate: Option<(Tensor, Activation)>,
        d_model: usize,
    ) -> Tensor {
        let normal = graph.head_norm("norm", o, self.heads.heads, self.options.norm_gate_epsilon);
        let gated = match gate {
            Some((gate, activation)) => graph.gate(gate, normal, activation),
            None => normal,
        };
        let start = self.or_reference(residual_init(self.layers));
        graph.linear_with("out_proj", gated, d_model, false, start)
    }

    /// How the backbone's matrices start.
    pub(crate) fn starts(&self, usual: Starts) -> Starts {
        let start = |usual| self.or_reference(usual);
        Starts {
            embedding: start(usual.embedding),
            head: start(usual.head),
            mlp_in: start(usual.mlp_in),
            mlp_out: start(usual.mlp_out),
        }
    }
}

/// The logarithm of a uniform draw between 0 and 16, without 0 itself.
pub(crate) fn rate_from_0() -> Init {
    Init::Custom(|_, draw| (16.0 * draw().max(1e-6)).ln())
}

/// The logarithm of a uniform draw between 1 and 16.
pub(crate) fn rate_from_1() -> Init {
    Init::Custom(|_, draw| (1.0 + 15.0 * draw()).ln())
}

/// The columns of a tensor, part by part.
pub(crate) struct Columns {
    all: Tensor,
    taken: usize,
}

impl Columns {
    fn of(all: Tensor) -> Self {
        Self { all, taken: 0 }
    }

    /// The next `cols` columns.
    pub(crate) fn next(&mut self, cols: usize) -> Tensor {
        self.taken += cols;
        self.all.columns(self.taken - cols, cols)
    }
}
