//! The layer: one projection to queries, keys and values, positions, forget gates, attention, an output
//! gate, out.

use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::ops::rotary_scaling::{Angles, Scaling, Turns};
use longhaul_plugin_kit::options::{Settings, Words, or_usual};
use longhaul_plugin_kit::{Block, Graph, Init, Mixer, PluginError, Result, Tensor};

use crate::architectures::{HeadOptions, Options, Positions, RopeScaling};

/// Epsilon of the norm of a pair of heads, as in the authors' code.
const PAIR_EPSILON: f32 = 1e-5;

/// What is made of the queries, keys and values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Softmax attention.
    Plain,
    /// The same with keys that fade by a forget gate of each query head and token.
    Forgetting,
    /// The difference of two softmaxes.
    Differential,
}

pub(crate) struct Attention {
    kind: Kind,
    options: Options,
    spec: AttentionSpec,
    angles: Angles,
    /// Values of a head that are rotated, an even number.
    rotated: usize,
    /// Rows of the table of learned positions.
    positions: usize,
    qk_norm: QkNorm,
}

/// Norms of the queries and keys of each head.
#[derive(Clone, Copy)]
enum QkNorm {
    None,
    /// A weight a channel.
    ByChannel {
        epsilon: f32,
    },
    /// One weight for all heads.
    Shared {
        epsilon: f32,
    },
}

impl QkNorm {
    fn new(options: &Options) -> Result<Self> {
        let epsilon = options.qk_norm_epsilon;
        match (options.qk_norm, options.qk_norm_shared) {
            (false, false) => Ok(Self::None),
            (true, false) => Ok(Self::ByChannel { epsilon }),
            (true, true) => Ok(Self::Shared { epsilon }),
            (false, true) => Err(PluginError::bad_option(
                "qk_norm_shared=true needs qk_norm=true",
            )),
        }
    }

    fn apply(self, graph: &mut Graph, name: &str, x: Tensor, heads: usize) -> Tensor {
        match self {
            Self::None => x,
            Self::ByChannel { epsilon } => graph.group_norm(name, x, NormKind::Rms, heads, epsilon),
            Self::Shared { epsilon } => graph.head_norm(name, x, heads, epsilon),
        }
    }
}

/// Sizes of the heads of a layer.
#[derive(Clone, Copy)]
pub(crate) struct HeadSizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl HeadSizes {
    /// Sizes by the options; heads of each kind come `pair` at a time.
    pub fn new(settings: &Settings, options: HeadOptions, pair: usize) -> Result<Self> {
        let d_model = settings.d_model();
        let usual = (d_model / 64).max(1).next_multiple_of(pair);
        let heads = or_usual(options.heads, usual);
        let kv_heads = or_usual(options.kv_heads, heads);
        if !heads.is_multiple_of(pair) || !kv_heads.is_multiple_of(pair) {
            return Err(PluginError::bad_option(format!(
                "heads={heads} and kv_heads={kv_heads} must be even: heads come in pairs"
            )));
        }
        let given = options.head_dim;
        if (given == 0 && !d_model.is_multiple_of(heads)) || !heads.is_multiple_of(kv_heads) {
            return Err(PluginError::bad_option(format!(
                "heads={heads} must divide d_model={d_model} unless head_dim is given, and \
                 kv_heads={kv_heads} must divide heads"
            )));
        }
        Ok(Self {
            heads,
            kv_heads,
            head_dim: or_usual(given, d_model / heads),
        })
    }
}

impl Attention {
    pub(crate) fn new(settings: &Settings, kind: Kind) -> Result<Self> {
        let options = Options::read(settings)?;
        let pair = if kind == Kind::Differential { 2 } else { 1 };
        let HeadSizes {
            heads,
            kv_heads,
            head_dim,
        } = HeadSizes::new(settings, options.heads, pair)?;
        let rows = (16 * settings.config.max_train_length as usize).clamp(1, 1 << 20);
        let bias = match options.positions {
            Positions::Alibi => PositionBias::Alibi,
            Positions::HardAlibi => PositionBias::HardAlibi,
            _ => PositionBias::None,
        };
        Ok(Self {
            kind,
            spec: AttentionSpec {
                heads,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window: (options.window > 0).then_some(options.window),
                bias,
            },
            angles: angles(&options)?,
            rotated: (head_dim as f64 * options.rope_share) as usize / 2 * 2,
            positions: or_usual(options.max_positions, rows),
            qk_norm: QkNorm::new(&options)?,
            options,
        })
    }
}

/// The rotary angles of the options.
fn angles(options: &Options) -> Result<Angles> {
    let factor = options.rope_factor;
    let kind = options.rope_scaling.word();
    let is_scaled = options.rope_scaling != RopeScaling::None;
    let bad = |what: String| PluginError::bad_option(what);
    if !is_scaled && factor != 1.0 {
        return Err(bad(format!(
            "rope_factor={factor} needs rope_scaling: linear, yarn or llama3"
        )));
    }
    if is_scaled && options.positions != Positions::Rope {
        return Err(bad(format!("rope_scaling={kind} needs positions=rope")));
    }
    let or = |given: f64, usual: f64| if given > 0.0 { given } else { usual };
    let turns = |fast: f64| {
        let turns = Turns {
            original_length: options.rope_original_length as f64,
            fast: or(options.rope_beta_fast, fast),
            slow: or(options.rope_beta_slow, 1.0),
        };
        if turns.original_length == 0.0 {
            return Err(bad(format!(
                "rope_scaling={kind} needs rope_original_length, the longest sequence trained on before it"
            )));
        }
        match turns.fast > turns.slow {
            true => Ok(turns),
            false => Err(bad(format!(
                "rope_beta_fast={} must be above rope_beta_slow={}",
                turns.fast, turns.slow
            ))),
        }
    };
    let scaling = match options.rope_scaling {
        RopeScaling::None => Scaling::None,
        RopeScaling::Linear => Scaling::Linear { factor },
        RopeScaling::Yarn => Scaling::Yarn {
            factor,
            turns: turns(32.0)?,
            truncate: options.rope_truncate,
            attention: or(
                options.rope_attention_factor,
                Scaling::yarn_attention(factor),
            ),
        },
        RopeScaling::Llama3 => Scaling::Llama3 {
            factor,
            turns: turns(4.0)?,
        },
    };
    Ok(Angles {
        scaling,
        ..options.rope_base.into()
    })
}

impl Mixer for Attention {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.spec;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let qkv = graph.linear("qkv", x, q_width + 2 * kv_width, self.options.bias);
        // As in state-spaces' hybrids (mamba_ssm, modules/mha.py): with a bias, without an activation.
        let qkv = match self.options.conv {
            0 => qkv,
            taps => graph.short_convolution("conv1d", qkv, taps, true, Activation::Identity),
        };
        let q = qkv.columns(0, q_width);
        let k = qkv.columns(q_width, kv_width);
        let v = qkv.columns(q_width + kv_width, kv_width);
        let mut q = self.qk_norm.apply(graph, "q_norm", q, heads);
        let mut k = self.qk_norm.apply(graph, "k_norm", k, kv_heads);
        if self.options.positions == Positions::Rope {
            q = graph.rotary(q, heads, self.rotated, self.angles);
            k = graph.rotary(k, kv_heads, self.rotated, self.angles);
        }
        let mut y = match self.kind {
            Kind::Plain => graph.attention(q, k, v, self.spec),
            Kind::Forgetting => {
                let bias = forget_bias(graph, x, heads, 1.0);
                graph.attention_with_key_bias(q, k, v, bias, self.spec)
            }
            Kind::Differential => self.differential(graph, [q, k, v], block.layer),
        };
        if self.options.output_gate {
            let gate = graph.linear("gate", x, q_width, self.options.bias);
            y = graph.gate(gate, y, Activation::Sigmoid);
        }
        graph.linear_with(
            "out_proj",
            y,
            x.cols(),
            self.options.bias,
            residual_init(block.layers),
        )
    }

    fn embed(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        if self.options.positions != Positions::Learned {
            return x;
        }
        let std = 1.0 / (x.cols() as f32).sqrt();
        let table = graph.param(
            "positions.weight",
            &[self.positions, x.cols()],
            Init::Normal { std },
        );
        graph.add_positions(x, table)
    }
}

/// Minus the sum of the logarithms of the forget gates so far, in two parts, `[B, T, 2 H]`: of key j, beside that of
/// query i, it leaves `sum over l in j + 1 ..= i of ln f_l` (arXiv 2503.02130, eq. 4 and 5) with `f = sigmoid(W x + b)`,
/// times a factor.
pub(crate) fn forget_bias(graph: &mut Graph, x: Tensor, heads: usize, factor: f32) -> Tensor {
    let gate = graph.linear("forget", x, heads, true);
    let negative = graph.scale(gate, -1.0);
    // -ln sigmoid(z) = softplus(-z).
    let mut faded = graph.activation(negative, Activation::Softplus);
    if factor != 1.0 {
        faded = graph.scale(faded, factor);
    }
    graph.running_sum(faded)
}

impl Attention {
    /// `(1 - l) norm((softmax(q1 k1) - lambda softmax(q2 k2)) v)` of every pair of heads (arXiv 2410.05258, eq. 1 to 3),
    /// `[B, T, H K]`: the first half of the heads has q1 and k1, the second q2 and k2, and the values of a pair are a
    /// head of each half. `lambda = exp(a . b) - exp(c . d) + l`, with l by the layer.
    fn differential(&self, graph: &mut Graph, [q, k, v]: [Tensor; 3], layer: usize) -> Tensor {
        let spec = AttentionSpec {
            heads: self.spec.heads / 2,
            kv_heads: self.spec.kv_heads / 2,
            ..self.spec
        };
        let start = 0.8 - 0.6 * (-0.3 * layer as f32).exp();
        let [minus, plus] = ["1", "2"].map(|pair| exponential(graph, pair, spec.head_dim));
        let minus = graph.scale(minus, -1.0);
        // Less than nothing is added of the second softmax.
        let factor = graph.add(plus, minus);
        let half = |x: Tensor, second: bool| {
            let cols = x.cols() / 2;
            x.columns(if second { cols } else { 0 }, cols)
        };
        let halves = [false, true].map(|second| {
            let of = |graph: &mut Graph, pair: bool| {
                graph.attention(half(q, pair), half(k, pair), half(v, second), spec)
            };
            let (first, other) = (of(graph, false), of(graph, true));
            let learned = graph.by_head(factor, other);
            let fixed = graph.scale(other, -start);
            let less = graph.add(learned, fixed);
            graph.add(first, less)
        });
        let pairs = graph.concatenate(&halves, spec.heads);
        let normal = graph.head_norm("subln", pairs, spec.heads, PAIR_EPSILON);
        graph.scale(normal, 1.0 - start)
    }
}

/// `exp(lambda_q . lambda_k)`, a constant of one column. Both start as normal numbers of deviation 0.1.
fn exponential(graph: &mut Graph, pair: &str, width: usize) -> Tensor {
    let std = 0.1;
    let q = graph.param_without_decay(&format!("lambda_q{pair}"), &[width], Init::Normal { std });
    let k = graph.param_without_decay(
        &format!("lambda_k{pair}"),
        &[1, width],
        Init::Normal { std },
    );
    let q = graph.constant(q);
    let product = graph.linear_by(q, k, None);
    graph.activation(product, Activation::Exp)
}
