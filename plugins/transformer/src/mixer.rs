//! Options and the layer: one projection to queries, keys and values, positions, attention, an output gate, out.

use longhaul_plugin_kit::api::metadata::{Family, OptionSpec};
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::ops::rotary_scaling::{Angles, Scaling, Turns};
use longhaul_plugin_kit::options::{Settings, boolean, choice, float, integer};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor};

/// The architecture `transformer`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "transformer",
        title: "Softmax attention: rope, alibi, nope, learned, hard-alibi",
        family: Family::Attention,
        citation: CITATION,
        options: options(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Attention::new(settings)?)),
    }
}

fn options() -> Vec<OptionSpec> {
    vec![
        choice(
            "positions",
            "rope",
            &["rope", "alibi", "nope", "learned", "hard-alibi"],
            "what a token knows of its position",
        ),
        integer(
            "heads",
            0,
            0,
            1024,
            "query heads; 0 is one for every 64 of the model width",
        ),
        integer(
            "kv_heads",
            0,
            0,
            1024,
            "key and value heads; 0 is as many as heads",
        ),
        integer(
            "head_dim",
            0,
            0,
            1024,
            "width of a head; 0 is the model width over heads",
        ),
        integer(
            "window",
            0,
            0,
            1 << 20,
            "tokens a query sees, itself included; 0 is all",
        ),
        float(
            "rope_base",
            10_000.0,
            1.0,
            1e9,
            "base of the rotary frequencies",
        ),
        choice(
            "rope_scaling",
            "none",
            &["none", "linear", "yarn", "llama3"],
            "how rotary angles are squeezed for longer sequences",
        ),
        float(
            "rope_factor",
            1.0,
            1.0,
            1e6,
            "how many times longer than rope_original_length they are to be",
        ),
        integer(
            "rope_original_length",
            0,
            0,
            1 << 40,
            "longest sequence trained on before, in tokens; yarn and llama3 need it",
        ),
        float(
            "rope_beta_fast",
            0.0,
            0.0,
            1e6,
            "pairs with more turns in that length stay; 0 is 32 for yarn, 4 for llama3",
        ),
        float(
            "rope_beta_slow",
            0.0,
            0.0,
            1e6,
            "pairs with fewer turns in that length are interpolated; 0 is 1",
        ),
        float(
            "rope_attention_factor",
            0.0,
            0.0,
            1e3,
            "yarn: factor of queries and keys; 0 is 0.1 ln(rope_factor) + 1",
        ),
        boolean(
            "rope_truncate",
            true,
            "yarn: whether the ends of its ramp are whole pairs",
        ),
        float(
            "rope_share",
            1.0,
            0.0,
            1.0,
            "part of a head that is rotated",
        ),
        integer(
            "max_positions",
            0,
            0,
            1 << 20,
            "rows of the learned table; 0 is 16 times the training length",
        ),
        integer(
            "conv",
            0,
            0,
            64,
            "taps of a short convolution over queries, keys and values; 0 is none",
        ),
        boolean("bias", false, "biases in the projections"),
        boolean(
            "qk_norm",
            false,
            "RMS norms of the queries and keys of each head",
        ),
        boolean(
            "qk_norm_shared",
            false,
            "these norms have one weight for all heads",
        ),
        float(
            "qk_norm_epsilon",
            1e-6,
            1e-12,
            1e-1,
            "epsilon of these norms",
        ),
        boolean(
            "output_gate",
            false,
            "what attention gives, times a sigmoid of the layer's input",
        ),
    ]
}

const CITATION: &str = "@inproceedings{vaswani2017attention,
  title={Attention Is All You Need},
  author={Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion and Gomez, Aidan N. and Kaiser, {\\L}ukasz and Polosukhin, Illia},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}, note={arXiv:1706.03762}
}
@article{su2021roformer,
  title={{RoFormer}: Enhanced Transformer with Rotary Position Embedding},
  author={Su, Jianlin and Lu, Yu and Pan, Shengfeng and Murtadha, Ahmed and Wen, Bo and Liu, Yunfeng},
  year={2021}, note={arXiv:2104.09864}
}
@inproceedings{press2022alibi,
  title={Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation},
  author={Press, Ofir and Smith, Noah A. and Lewis, Mike},
  booktitle={International Conference on Learning Representations}, year={2022}, note={arXiv:2108.12409}
}
@inproceedings{peng2024yarn,
  title={{YaRN}: Efficient Context Window Extension of Large Language Models},
  author={Peng, Bowen and Quesnelle, Jeffrey and Fan, Honglu and Shippole, Enrico},
  booktitle={International Conference on Learning Representations}, year={2024}, note={arXiv:2309.00071}
}
@inproceedings{jelassi2024repeat,
  title={Repeat After Me: Transformers are Better than State Space Models at Copying},
  author={Jelassi, Samy and Brandfonbrener, David and Kakade, Sham M. and Malach, Eran},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2402.01032}
}";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Positions {
    Rope,
    Alibi,
    Nope,
    Learned { rows: usize },
    HardAlibi,
}

struct Attention {
    positions: Positions,
    spec: AttentionSpec,
    angles: Angles,
    /// Values of a head that are rotated, an even number.
    rotated: usize,
    bias: bool,
    /// Taps of the convolution over queries, keys and values.
    conv: usize,
    qk_norm: QkNorm,
    output_gate: bool,
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
    fn new(settings: &Settings) -> Result<Self> {
        let epsilon = settings.float("qk_norm_epsilon")? as f32;
        let shared = settings.boolean("qk_norm_shared")?;
        match (settings.boolean("qk_norm")?, shared) {
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

impl Attention {
    fn new(settings: &Settings) -> Result<Self> {
        let d_model = settings.d_model();
        let heads = match settings.size("heads")? {
            0 => (d_model / 64).max(1),
            heads => heads,
        };
        let kv_heads = match settings.size("kv_heads")? {
            0 => heads,
            kv_heads => kv_heads,
        };
        let given = settings.size("head_dim")?;
        if (given == 0 && !d_model.is_multiple_of(heads)) || !heads.is_multiple_of(kv_heads) {
            return Err(PluginError::bad_option(format!(
                "heads={heads} must divide d_model={d_model} unless head_dim is given, and \
                 kv_heads={kv_heads} must divide heads"
            )));
        }
        let head_dim = if given == 0 { d_model / heads } else { given };
        let positions = match settings.text("positions")? {
            "alibi" => Positions::Alibi,
            "nope" => Positions::Nope,
            "learned" => {
                let rows = match settings.size("max_positions")? {
                    0 => (16 * settings.config.max_train_length as usize).clamp(1, 1 << 20),
                    rows => rows,
                };
                Positions::Learned { rows }
            }
            "hard-alibi" => Positions::HardAlibi,
            _ => Positions::Rope,
        };
        let window = settings.size("window")?;
        let bias = match positions {
            Positions::Alibi => PositionBias::Alibi,
            Positions::HardAlibi => PositionBias::HardAlibi,
            _ => PositionBias::None,
        };
        Ok(Self {
            positions,
            spec: AttentionSpec {
                heads,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window: (window > 0).then_some(window),
                bias,
            },
            angles: angles(settings, positions)?,
            rotated: (head_dim as f64 * settings.float("rope_share")?) as usize / 2 * 2,
            bias: settings.boolean("bias")?,
            conv: settings.size("conv")?,
            qk_norm: QkNorm::new(settings)?,
            output_gate: settings.boolean("output_gate")?,
        })
    }
}

/// The rotary angles of the options.
fn angles(settings: &Settings, positions: Positions) -> Result<Angles> {
    let factor = settings.float("rope_factor")?;
    let kind = settings.text("rope_scaling")?;
    let bad = |what: String| PluginError::bad_option(what);
    if kind == "none" && factor != 1.0 {
        return Err(bad(format!(
            "rope_factor={factor} needs rope_scaling: linear, yarn or llama3"
        )));
    }
    if kind != "none" && positions != Positions::Rope {
        return Err(bad(format!("rope_scaling={kind} needs positions=rope")));
    }
    let or = |name: &str, default: f64| {
        let given = settings.float(name)?;
        Ok::<_, PluginError>(if given > 0.0 { given } else { default })
    };
    let turns = |fast: f64| {
        let turns = Turns {
            original_length: settings.size("rope_original_length")? as f64,
            fast: or("rope_beta_fast", fast)?,
            slow: or("rope_beta_slow", 1.0)?,
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
    let scaling = match kind {
        "linear" => Scaling::Linear { factor },
        "yarn" => Scaling::Yarn {
            factor,
            turns: turns(32.0)?,
            truncate: settings.boolean("rope_truncate")?,
            attention: or("rope_attention_factor", Scaling::yarn_attention(factor))?,
        },
        "llama3" => Scaling::Llama3 {
            factor,
            turns: turns(4.0)?,
        },
        _ => Scaling::None,
    };
    let base = settings.float("rope_base")?;
    Ok(Angles { base, scaling })
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
        let qkv = graph.linear("qkv", x, q_width + 2 * kv_width, self.bias);
        // As in state-spaces' hybrids (mamba_ssm, modules/mha.py): with a bias, without an activation.
        let qkv = match self.conv {
            0 => qkv,
            taps => graph.short_convolution("conv1d", qkv, taps, true, Activation::Identity),
        };
        let q = qkv.columns(0, q_width);
        let k = qkv.columns(q_width, kv_width);
        let v = qkv.columns(q_width + kv_width, kv_width);
        let mut q = self.qk_norm.apply(graph, "q_norm", q, heads);
        let mut k = self.qk_norm.apply(graph, "k_norm", k, kv_heads);
        if self.positions == Positions::Rope {
            q = graph.rotary(q, heads, self.rotated, self.angles);
            k = graph.rotary(k, kv_heads, self.rotated, self.angles);
        }
        let mut y = graph.attention(q, k, v, self.spec);
        if self.output_gate {
            let gate = graph.linear("gate", x, q_width, self.bias);
            y = graph.gate(gate, y, Activation::Sigmoid);
        }
        graph.linear_with(
            "out_proj",
            y,
            x.cols(),
            self.bias,
            residual_init(block.layers),
        )
    }

    fn embed(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let Positions::Learned { rows } = self.positions else {
            return x;
        };
        let std = 1.0 / (x.cols() as f32).sqrt();
        let table = graph.param("positions.weight", &[rows, x.cols()], Init::Normal { std });
        graph.add_positions(x, table)
    }
}
