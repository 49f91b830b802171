//! The matrix memory in two blocks: after an up-projection, as in the paper's models and their code (PyPI `xlstm`), or
//! before the MLP, as in xLSTM-7B (arXiv 2503.13427, section 3) and transformers' `xLSTM`.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::mlstm::Mlstm;
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor, options,
};

use crate::starts::{HeadNorm, Matrices, forget_bias, mlp_cols};

options! {
    /// The blocks that have a matrix memory.
    pub enum Kind
        => "post-up is xLSTM-7B's, the memory before the MLP; pre-up is the paper's, the memory in an up-projection and no MLP"
    {
        PostUp = "post-up",
        PreUp = "pre-up",
    }

    /// Options of a matrix memory.
    pub struct Options {
        block: Kind;
        heads: usize = 4, 1..=1024 => "H, heads";
        gate_soft_cap: f32 = 15.0, 0.0..=80.0
            => "c of the gates' capped inputs c tanh(x / c), of post-up; 0 is no cap";
        qk_factor: f64 = 0.5, 1e-3..=64.0
            => "columns of all heads' queries and keys over the model width, of post-up";
        v_factor: f64 = 1.0, 1e-3..=64.0 => "the same of values, of post-up";
        expand: usize = 2, 1..=16 => "inner width over the model width, of pre-up";
        conv: usize = 4, 2..=64 => "taps of the short convolution, of pre-up";
        qkv_block: usize = 4, 1..=1 << 16
            => "columns that a block of the projections to q, k and v mixes, of pre-up";
        head_norm: HeadNorm => "norm of what each head reads";
        head_norm_epsilon: f32 = 1e-6, 1e-12..=1e-1 => "epsilon of that norm";
        normaliser_epsilon: f32 = 1e-6, 0.0..=1e-1 => "added to what a head's reading is divided by";
        init: InitialValues;
    }
}

/// The architecture `mlstm`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "mlstm",
        title: "mLSTM: a matrix memory with exponential gates, xLSTM's",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(MatrixMemory::new(settings)?)),
    }
}

/// Of all architectures of xLSTM.
pub const CITATION: &str = "@inproceedings{beck2024xlstm,
  title={{xLSTM}: Extended Long Short-Term Memory},
  author={Beck, Maximilian and P{\\\"o}ppel, Korbinian and Spanring, Markus and Auer, Andreas and Prudnikova, Oleksandra and Kopp, Michael and Klambauer, G{\\\"u}nter and Brandstetter, Johannes and Hochreiter, Sepp},
  booktitle={Advances in Neural Information Processing Systems}, year={2024}, note={arXiv:2405.04517}
}
@inproceedings{beck2025xlstm7b,
  title={{xLSTM} 7{B}: A Recurrent {LLM} for Fast and Efficient Inference},
  author={Beck, Maximilian and P{\\\"o}ppel, Korbinian and Lippe, Phillip and Kurle, Richard and Blies, Patrick M. and Klambauer, G{\\\"u}nter and B{\\\"o}ck, Sebastian and Hochreiter, Sepp},
  booktitle={International Conference on Machine Learning}, year={2025}, note={arXiv:2503.13427}
}";

/// What both blocks have.
struct Memory {
    heads: usize,
    norm: NormKind,
    norm_epsilon: f32,
    epsilon: f32,
    matrices: Matrices,
}

/// Sizes of a block.
enum Sizes {
    PostUp {
        /// Columns of all queries.
        keys: usize,
        /// Columns of all values.
        values: usize,
        cap: f32,
    },
    PreUp {
        inner: usize,
        conv: usize,
        /// Blocks of the projections to q, k and v.
        blocks: usize,
    },
}

/// The mixer of a layer with a matrix memory.
pub struct MatrixMemory {
    memory: Memory,
    sizes: Sizes,
}

/// A number of columns that heads divide.
fn columns(settings: &Settings, name: &str, factor: f64, heads: usize) -> Result<usize> {
    // Config files of xLSTM-7B's kind cut what is not whole.
    let cols = (factor * settings.d_model() as f64) as usize;
    if cols > 0 && cols.is_multiple_of(heads) {
        return Ok(cols);
    }
    Err(PluginError::bad_option(format!(
        "heads={heads} must divide {name} times d_model, {cols}"
    )))
}

impl MatrixMemory {
    pub fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let heads = options.heads;
        let memory = Memory {
            heads,
            norm: options.head_norm.kind(),
            norm_epsilon: options.head_norm_epsilon,
            epsilon: options.normaliser_epsilon,
            matrices: Matrices::new(settings, options.init),
        };
        let sizes = match options.block {
            Kind::PreUp => {
                let inner = options.expand * settings.d_model();
                let width = options.qkv_block;
                if !inner.is_multiple_of(width) || !inner.is_multiple_of(heads) {
                    return Err(PluginError::bad_option(format!(
                        "heads={heads} and qkv_block={width} must divide expand times d_model, {inner}"
                    )));
                }
                Sizes::PreUp {
                    inner,
                    conv: options.conv,
                    blocks: inner / width,
                }
            }
            Kind::PostUp => Sizes::PostUp {
                keys: columns(settings, "qk_factor", options.qk_factor, heads)?,
                values: columns(settings, "v_factor", options.v_factor, heads)?,
                cap: options.gate_soft_cap,
            },
        };
        Ok(Self { memory, sizes })
    }
}

impl Memory {
    /// Records the memory and the norm of what heads read; gates are before their activations, `[H]` each.
    fn record(
        &self,
        graph: &mut Graph,
        [q, k, v]: [Tensor; 3],
        [input, forget]: [Tensor; 2],
    ) -> Tensor {
        let key = q.cols() / self.heads;
        let q = graph.scale(q, 1.0 / (key as f32).sqrt());
        let forget = graph.activation(forget, Activation::LogSigmoid);
        let h = graph.mlstm(Mlstm {
            q,
            k,
            v,
            input,
            forget,
            epsilon: self.epsilon,
        });
        graph.group_norm("norm", h, self.norm, self.heads, self.norm_epsilon)
    }

    /// Input and forget gates before their activations, `[2 H]`.
    fn gates(&self, graph: &mut Graph, x: Tensor, input_bias: &Init) -> Tensor {
        let mut bias = graph.drawn("gates.input", &[self.heads], input_bias);
        bias.extend(forget_bias(self.heads));
        let weight = graph.param("gates.weight", &[2 * self.heads, x.cols()], Init::Zeros);
        let bias = graph.param("gates.bias", &[2 * self.heads], Init::Values(bias));
        graph.linear_by(x, weight, Some(bias))
    }

    fn gates_of(&self, gates: Tensor) -> [Tensor; 2] {
        [0, self.heads].map(|start| gates.columns(start, self.heads))
    }

    /// xLSTM-7B's.
    fn post_up(
        &self,
        graph: &mut Graph,
        x: Tensor,
        [keys, values]: [usize; 2],
        cap: f32,
    ) -> Tensor {
        let cols = 2 * keys + 2 * values;
        let all = graph.linear_with("qkvo", x, cols, false, self.matrices.read());
        let qkv = [(0, keys), (keys, keys), (2 * keys, values)];
        let qkv = qkv.map(|(start, cols)| all.columns(start, cols));
        let output = all.columns(2 * keys + values, values);
        let mut gates = self.gates(graph, x, &Init::Constant(-10.0));
        if cap > 0.0 {
            let shares = graph.scale(gates, 1.0 / cap);
            let shares = graph.activation(shares, Activation::Tanh);
            gates = graph.scale(shares, cap);
        }
        let h = self.record(graph, qkv, self.gates_of(gates));
        let h = graph.gate(output, h, Activation::Sigmoid);
        let start = self.matrices.write(x.cols());
        graph.linear_with("out_proj", h, x.cols(), false, start)
    }

    /// The paper's (figure 11).
    fn pre_up(
        &self,
        graph: &mut Graph,
        x: Tensor,
        inner: usize,
        conv: usize,
        blocks: usize,
    ) -> Tensor {
        let up = graph.linear_with("proj_up", x, 2 * inner, false, self.matrices.read());
        let (memory, z) = (up.columns(0, inner), up.columns(inner, inner));
        let taps = Init::within(1.0 / (conv as f32).sqrt());
        let bias = Some(taps.clone());
        let convolved =
            graph.short_convolution_with("conv1d", memory, conv, taps, bias, Activation::Silu);
        let each = [
            ("q_proj", convolved),
            ("k_proj", convolved),
            ("v_proj", memory),
        ];
        let qkv = each
            .map(|(name, x)| graph.block_linear_with(name, x, blocks, false, self.matrices.read()));
        let all = graph.concatenate(&qkv, 1);
        let gates = self.gates(graph, all, &Init::Normal { std: 0.1 });
        let h = self.record(graph, qkv, self.gates_of(gates));
        let skip = graph.param("skip", &[inner], Init::Ones);
        let skip = graph.constant(skip);
        let past = graph.gate(skip, convolved, Activation::Identity);
        let h = graph.add(h, past);
        let h = graph.gate(z, h, Activation::Silu);
        let start = self.matrices.write(x.cols());
        graph.linear_with("proj_down", h, x.cols(), false, start)
    }
}

impl Mixer for MatrixMemory {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (memory, graph) = (&self.memory, &mut *block.graph);
        match self.sizes {
            Sizes::PostUp { keys, values, cap } => memory.post_up(graph, x, [keys, values], cap),
            Sizes::PreUp {
                inner,
                conv,
                blocks,
            } => memory.pre_up(graph, x, inner, conv, blocks),
        }
    }

    fn has_mlp(&self, _layer: usize) -> bool {
        matches!(self.sizes, Sizes::PostUp { .. })
    }

    fn starts(&self, settings: &Settings, usual: Starts) -> Starts {
        self.memory.matrices.backbone(usual, mlp_cols(settings))
    }
}
