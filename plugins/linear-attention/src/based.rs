//! Based (arXiv 2402.18668): linear attention by the Taylor series of an exponential, and a sliding window of softmax
//! attention, in turns.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Mixer, PluginError, Result, Tensor, options, pattern,
};

use crate::heads::{CommonOptions, Heads};

options! {
    struct Options {
        heads: usize = 4, 1..=1024 => "H, heads; divides the model width";
        feature_dim: usize = 16, 1..=64 => "K, columns of a head's queries and keys in linear layers";
        scale: f32 = 0.0, 0.0..=1e3
            => "factor on products of queries and keys in linear layers; 0 is 1 / sqrt(K), 1 is fla's parallel form";
        pattern: String = "linear+window".into()
            => "kinds of the layers, linear or window, repeated; the model's end may cut it";
        window: usize = 64, 1..=1 << 20 => "tokens that a query of a window layer sees, itself included";
        rope_base: f64 = 10_000.0, 1.0..=1e9 => "base of the rotary frequencies in window layers";
        common: CommonOptions;
    }
}

/// The architecture `based`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "based",
        title: "Based: Taylor linear attention and a sliding window, in turns",
        family: Family::Hybrid,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Based::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{arora2024simple,
  title={Simple Linear Attention Language Models Balance the Recall-Throughput Tradeoff},
  author={Arora, Simran and Eyuboglu, Sabri and Zhang, Michael and Timalsina, Aman and Alberti, Silas and Zinsley, Dylan and Zou, James and Rudra, Atri and R{\\'e}, Christopher},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2402.18668}
}";

/// Beside sums of weights that are a half and more.
const EPSILON: f32 = 1e-12;

struct Based {
    heads: Heads,
    scale: f32,
    attention: AttentionSpec,
    rope_base: f64,
    /// Whether each layer is a window.
    windows: Vec<bool>,
}

impl Based {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let (heads, d_model) = (options.heads, settings.d_model());
        if !d_model.is_multiple_of(heads) {
            return Err(PluginError::bad_option(format!(
                "heads={heads} must divide d_model, {d_model}"
            )));
        }
        let (key, head_dim) = (options.feature_dim, d_model / heads);
        let kinds = pattern::parse(&options.pattern, &["linear", "window"])
            .map_err(PluginError::bad_option)?;
        let kinds = kinds.iter().cycle().take(settings.layers());
        Ok(Self {
            heads: Heads::of(settings, options.common, heads, key, head_dim),
            scale: match options.scale {
                0.0 => 1.0 / (key as f32).sqrt(),
                scale => scale,
            },
            attention: AttentionSpec {
                heads,
                kv_heads: heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                window: Some(options.window),
                bias: PositionBias::None,
            },
            rope_base: options.rope_base,
            windows: kinds.map(|kind| *kind == "window").collect(),
        })
    }

    fn attend(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let (heads, head_dim) = (self.heads.heads, self.attention.head_dim);
        let wide = Heads {
            key: head_dim,
            ..self.heads
        };
        let [q, k, v] = wide.project(graph, x);
        let rotated = head_dim / 2 * 2;
        let [q, k] = [q, k].map(|part| graph.rotary(part, heads, rotated, self.rope_base));
        graph.attention(q, k, v, self.attention)
    }
}

impl Mixer for Based {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (heads, graph) = (&self.heads, &mut *block.graph);
        let read = if self.windows[block.layer] {
            self.attend(graph, x)
        } else {
            let [q, k, v] = heads.project(graph, x);
            let [q, k] = [q, k].map(|part| graph.taylor(part, heads.heads, self.scale));
            heads.normalised(graph, [q, k, v], EPSILON)
        };
        heads.matrices.write(graph, read, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.heads.matrices.backbone(usual)
    }
}
