//! Options and the layers: the recurrent block with its gate, and local multi-query attention.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::{mlp_hidden, residual_init};
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor, options, pattern,
};

use crate::gate::rg_lru;

options! {
    struct RecurrentOptions {
        lru_width: usize = 0, 0..=16384 => "channels of the recurrence; 0 is the model width";
        heads: usize = 0, 0..=1024
            => "blocks of the gates and query heads; 0 is one for every 64 of the model width";
        conv: usize = 4, 2..=64 => "taps of the short convolution";
        init: InitialValues;
    }

    struct Options {
        recurrent: RecurrentOptions;
        pattern: String = "recurrent*2+attention".into()
            => "kinds of the layers, repeated; the model's end may cut it";
        kv_heads: usize = 1, 1..=1024 => "key and value heads";
        head_dim: usize = 0, 0..=1024 => "width of an attention head; 0 is the model width over heads";
        window: usize = 1024, 1..=1 << 20 => "tokens a query sees, itself included";
        rope_base: f64 = 10_000.0, 1.0..=1e9 => "base of the rotary frequencies";
        rope_share: f64 = 0.5, 0.0..=1.0 => "part of a head that is rotated";
        qkv_bias: bool = false => "biases of queries, keys and values";
    }
}

/// The architecture `griffin`.
pub fn griffin() -> Architecture {
    Architecture {
        name: "griffin",
        title: "Griffin: RG-LRU and local multi-query attention, 2 to 1",
        family: Family::Hybrid,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "geglu",
        mixer: |settings| Ok(Box::new(Griffin::new(settings)?)),
    }
}

/// The architecture `hawk`: the recurrence alone.
pub fn hawk() -> Architecture {
    Architecture {
        name: "hawk",
        title: "Hawk: the real-gated linear recurrent unit alone",
        family: Family::LinearRnn,
        citation: CITATION,
        options: RecurrentOptions::default().specs(),
        default_mlp: "geglu",
        mixer: |settings| {
            Ok(Box::new(Hawk {
                recurrent: Recurrent::new(settings, &RecurrentOptions::read(settings)?)?,
            }))
        },
    }
}

const CITATION: &str = "@article{de2024griffin,
  title={Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language Models},
  author={De, Soham and Smith, Samuel L. and Fernando, Anushan and Botev, Aleksandar and Cristian-Muraru, George and Gu, Albert and Haroun, Ruba and Berrada, Leonard and Chen, Yutian and Srinivasan, Srivatsan and others},
  year={2024}, note={arXiv:2402.19427}
}";

impl RecurrentOptions {
    fn heads(&self, settings: &Settings) -> usize {
        or_usual(self.heads, (settings.d_model() / 64).max(1))
    }
}

/// The recurrent block (arXiv 2402.19427, figure 2, with the layer of section 2.4).
struct Recurrent {
    width: usize,
    heads: usize,
    conv: usize,
    scales: Scales,
}

/// Starts of the matrices, of which `recurrentgemma` has other scales.
#[derive(Clone, Copy)]
struct Scales {
    start: InitialValues,
    /// Layers of the model.
    layers: usize,
}

impl Scales {
    /// Of a matrix that reads the residual stream of width `d_model`.
    fn into(self, d_model: usize) -> Init {
        let reference = Init::normal_by_fan_in(1.0, d_model);
        self.start.choose(Init::Linear { gain: 1.0 }, reference)
    }

    /// Of a matrix from `width` columns to the residual stream.
    fn out(self, width: usize) -> Init {
        let reference = Init::normal_by_fan_in(2.0 / self.layers as f32, width);
        self.start.choose(residual_init(self.layers), reference)
    }

    /// Of the convolution's taps.
    fn taps(self, taps: usize) -> Init {
        let usual = Init::within(1.0 / (taps as f32).sqrt());
        self.start.choose(usual, Init::normal_by_fan_in(0.01, taps))
    }

    /// Of the backbone; there the head is the embedding.
    fn starts(self, settings: &Settings, usual: Starts) -> Starts {
        let hidden = mlp_hidden(settings).unwrap_or(1);
        Starts {
            head: self.into(settings.d_model()),
            mlp_in: self.into(settings.d_model()),
            mlp_out: self.out(hidden),
            ..usual
        }
    }
}

impl Recurrent {
    fn new(settings: &Settings, options: &RecurrentOptions) -> Result<Self> {
        let width = or_usual(options.lru_width, settings.d_model());
        let heads = options.heads(settings);
        if !width.is_multiple_of(heads) {
            return Err(PluginError::bad_option(format!(
                "heads={heads} must divide the width of the recurrence, {width}"
            )));
        }
        Ok(Self {
            width,
            heads,
            conv: options.conv,
            scales: Scales {
                start: options.init,
                layers: settings.layers(),
            },
        })
    }

    fn forward(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let d_model = x.cols();
        let into = |graph: &mut Graph, name: &str| {
            graph.linear_with(name, x, self.width, true, self.scales.into(d_model))
        };
        let gate = into(graph, "linear_y");
        let input = into(graph, "linear_x");
        let (conv, taps, bias) = (self.conv, self.scales.taps(self.conv), Some(Init::Zeros));
        let u =
            graph.short_convolution_with("conv_1d", input, conv, taps, bias, Activation::Identity);
        let h = graph.scope("rg_lru", |graph| {
            let i = graph.block_linear("input_gate", u, self.heads);
            let r = graph.block_linear("recurrent_gate", u, self.heads);
            let lambda = graph.param_without_decay("lambda", &[self.width], Init::Custom(lambda));
            rg_lru(graph, u, r, i, lambda)
        });
        let gated = graph.gate(gate, h, Activation::Gelu);
        let start = self.scales.out(self.width);
        graph.linear_with("linear_out", gated, d_model, true, start)
    }
}

/// Lambda for which softplus(lambda) = -ln a, a's square uniform over 0.9^2..0.999^2
/// (arXiv 2402.19427, section 2.4).
fn lambda(_index: usize, draw: &mut dyn FnMut() -> f32) -> f32 {
    let (low, high) = (0.9f32 * 0.9, 0.999f32 * 0.999);
    let minus_log = -0.5 * (low + (high - low) * draw()).ln();
    minus_log.exp_m1().ln()
}

struct Hawk {
    recurrent: Recurrent,
}

impl Mixer for Hawk {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        self.recurrent.forward(block.graph, x)
    }

    fn starts(&self, settings: &Settings, usual: Starts) -> Starts {
        self.recurrent.scales.starts(settings, usual)
    }
}

struct Griffin {
    recurrent: Recurrent,
    attention: AttentionSpec,
    rope_base: f64,
    rotated: usize,
    qkv_bias: bool,
    /// Whether each layer is attention.
    layers: Vec<bool>,
}

impl Griffin {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let (heads, kv_heads) = (options.recurrent.heads(settings), options.kv_heads);
        let head_dim = or_usual(options.head_dim, (settings.d_model() / heads).max(1));
        if !heads.is_multiple_of(kv_heads) {
            return Err(PluginError::bad_option(format!(
                "kv_heads={kv_heads} must divide the {heads} heads"
            )));
        }
        let kinds = pattern::parse(&options.pattern, &["recurrent", "attention"])
            .map_err(PluginError::bad_option)?;
        let layers = kinds.iter().cycle().take(settings.layers());
        Ok(Self {
            recurrent: Recurrent::new(settings, &options.recurrent)?,
            attention: AttentionSpec {
                heads,
                kv_heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window: Some(options.window),
                bias: PositionBias::None,
            },
            rope_base: options.rope_base,
            rotated: (head_dim as f64 * options.rope_share) as usize / 2 * 2,
            qkv_bias: options.qkv_bias,
            layers: layers.map(|kind| *kind == "attention").collect(),
        })
    }

    fn attend(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.attention;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let (scales, all) = (self.recurrent.scales, q_width + 2 * kv_width);
        let qkv = graph.linear_with("qkv", x, all, self.qkv_bias, scales.into(x.cols()));
        let q = graph.rotary(qkv.columns(0, q_width), heads, self.rotated, self.rope_base);
        let k = qkv.columns(q_width, kv_width);
        let k = graph.rotary(k, kv_heads, self.rotated, self.rope_base);
        let v = qkv.columns(q_width + kv_width, kv_width);
        let y = graph.attention(q, k, v, self.attention);
        // By the model's width also where the heads are wider, as there.
        graph.linear_with("out_proj", y, x.cols(), true, scales.out(x.cols()))
    }
}

impl Mixer for Griffin {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        if self.layers[block.layer] {
            self.attend(graph, x)
        } else {
            self.recurrent.forward(graph, x)
        }
    }

    fn starts(&self, settings: &Settings, usual: Starts) -> Starts {
        self.recurrent.scales.starts(settings, usual)
    }
}
