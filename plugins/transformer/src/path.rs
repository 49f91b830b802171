//! PaTH attention (arXiv 2505.16381): keys are turned by every token after them, so that positions are what was written
//! between a key and a query.

use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::path::PathAttention;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Architecture, Block, Graph, Mixer, Result, Tensor, options};

use crate::architectures::HeadOptions;
use crate::mixer::{HeadSizes, forget_bias};

/// Epsilon of the norms of queries and keys, and of the directions' length, as in fla's layer.
const NORM_EPSILON: f32 = 1e-5;
const LENGTH_EPSILON: f32 = 1e-6;

options! {
    enum ForgetGate
        => "keys fade by a gate of each query head, as in fox; scaled: its logarithm over the root of head_dim"
    {
        None = "none",
        Plain = "plain",
        Scaled = "scaled",
    }

    struct Options {
        heads: HeadOptions;
        rank: usize = 32, 0..=4096 => "rank of the projection to what turns keys; 0 is a full one";
        conv: usize = 3, 0..=64 => "taps of a short convolution over what turns keys; 0 is none";
        qk_norm: bool = false
            => "RMS norms of the queries and keys of each head, with one weight for all";
        forget_gate: ForgetGate;
    }
}

/// The architecture `path`.
pub fn path() -> Architecture {
    Architecture {
        name: "path",
        title: "PaTH attention: keys turned by every token after them",
        citation: CITATION,
        options: Options::default().specs(),
        mixer: |settings| Ok(Box::new(Path::new(settings)?)),
        ..crate::architecture()
    }
}

const CITATION: &str = "@inproceedings{yang2025path,
  title={{PaTH} Attention: Position Encoding via Accumulating {Householder} Transformations},
  author={Yang, Songlin and Shen, Yikang and Wen, Kaiyue and Tan, Shawn and Mishra, Mayank and Ren, Liliang and Panda, Rameswar and Kim, Yoon},
  booktitle={Advances in Neural Information Processing Systems}, year={2025}, note={arXiv:2505.16381}
}";

struct Path {
    heads: HeadSizes,
    options: Options,
    /// What the logarithms of forget gates are multiplied by, where there are any.
    forget: Option<f32>,
}

impl Path {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let heads = HeadSizes::new(settings, options.heads, 1)?;
        Ok(Self {
            heads,
            forget: match options.forget_gate {
                ForgetGate::Plain => Some(1.0),
                ForgetGate::Scaled => Some(1.0 / (heads.head_dim as f32).sqrt()),
                ForgetGate::None => None,
            },
            options,
        })
    }

    /// The directions in which a token turns keys, each of length 1.
    fn directions(&self, graph: &mut Graph, x: Tensor, cols: usize) -> Tensor {
        let w = match self.options.rank {
            0 => graph.linear("w_proj", x, cols, false),
            rank => {
                let inner = graph.linear("w_down", x, rank, false);
                graph.linear("w_up", inner, cols, false)
            }
        };
        let w = match self.options.conv {
            0 => w,
            taps => graph.short_convolution("w_conv1d", w, taps, false, Activation::Silu),
        };
        graph.l2_norm(w, self.heads.kv_heads, LENGTH_EPSILON)
    }
}

impl Mixer for Path {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let HeadSizes {
            heads,
            kv_heads,
            head_dim,
        } = self.heads;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        let qkv = graph.linear("qkv", x, q_width + 2 * kv_width, false);
        let mut q = qkv.columns(0, q_width);
        let mut k = qkv.columns(q_width, kv_width);
        if self.options.qk_norm {
            q = graph.head_norm("q_norm", q, heads, NORM_EPSILON);
            k = graph.head_norm("k_norm", k, kv_heads, NORM_EPSILON);
        }
        let w = self.directions(graph, x, kv_width);
        let beta = graph.linear("beta", x, kv_heads, true);
        let beta = graph.activation(beta, Activation::Sigmoid);
        let what = PathAttention {
            q,
            k,
            v: qkv.columns(q_width + kv_width, kv_width),
            w,
            beta: graph.scale(beta, 2.0),
            key_bias: self
                .forget
                .map(|factor| forget_bias(graph, x, heads, factor)),
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
        };
        let y = graph.path_attention(what);
        graph.linear_with("out_proj", y, x.cols(), false, residual_init(block.layers))
    }
}
