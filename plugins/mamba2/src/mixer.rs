//! Options and the layer: one projection to gate, x, B, C and dt, and factors of levels where there are levels; a short
//! convolution over x, B and C; the state-space operation; a gated norm; out.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{InitialValues, MambaStarts, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::{Settings, boolean, float, integer};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor};

use crate::ssd::{Levels, SsdInputs, ssd, with_levels};

/// The architecture `mamba2`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "mamba2",
        title: "Mamba-2: state-space duality, one decay a head",
        family: Family::Ssm,
        citation: CITATION,
        options: vec![
            integer("state", 64, 1, 1024, "N, state size a channel"),
            integer(
                "head_dim",
                32,
                1,
                1024,
                "channels a head; divides expand times D",
            ),
            integer("expand", 2, 1, 16, "inner width over the model width"),
            integer(
                "groups",
                1,
                1,
                256,
                "groups of heads that share B and C; divides the heads",
            ),
            integer("conv", 4, 2, 64, "taps of the short convolution"),
            boolean("bias", false, "biases in the projections"),
            boolean("conv_bias", true, "bias in the convolution"),
            InitialValues::option(),
            integer(
                "chunk",
                64,
                1,
                1024,
                "tokens of a chunk; changes speed, not results",
            ),
            float(
                "norm_gate_epsilon",
                1e-5,
                1e-12,
                1e-1,
                "epsilon of the gated norm",
            ),
            boolean(
                "norm_before_gate",
                false,
                "the norm comes before the gate, as in Falcon-H1",
            ),
        ],
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Mamba2::new(settings, None)?)),
    }
}

/// The architecture `log-linear-attention`.
pub fn log_linear() -> Architecture {
    let mut options = architecture().options;
    options.retain(|option| option.name != "chunk");
    options.push(integer(
        "levels",
        0,
        0,
        64,
        "levels of the past, from 2; 0 is as many as the training length has",
    ));
    Architecture {
        name: "log-linear-attention",
        title: "Log-linear Mamba-2: a state for each power of two of the past",
        citation: LOG_LINEAR_CITATION,
        options,
        mixer: |settings| {
            let given = settings.size("levels")?;
            if given == 1 {
                return Err(PluginError::bad_option(
                    "levels=1 is a token alone: 2 or more, or 0 for as many as the training length has",
                ));
            }
            let last = settings.config.max_train_length.max(2) - 1;
            let usual = last.ilog2() as usize + 2;
            let levels = Some(if given == 0 { usual } else { given });
            Ok(Box::new(Mamba2::new(settings, levels)?))
        },
        ..architecture()
    }
}

const LOG_LINEAR_CITATION: &str = "@misc{guo2025loglinear,
  title={Log-Linear Attention},
  author={Guo, Han and Yang, Songlin and Goel, Tarushii and Xing, Eric P. and Dao, Tri and Kim, Yoon},
  year={2025}, note={arXiv:2506.04761}
}";

const CITATION: &str = "@inproceedings{dao2024transformers,
  title={Transformers are {SSM}s: Generalized Models and Efficient Algorithms Through Structured State Space Duality},
  author={Dao, Tri and Gu, Albert},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2405.21060}
}";

struct Mamba2 {
    state: usize,
    head_dim: usize,
    d_inner: usize,
    groups: usize,
    bias: bool,
    conv: usize,
    conv_bias: bool,
    /// Tokens of a chunk where there are no levels.
    chunk: usize,
    levels: Option<usize>,
    epsilon: f32,
    norm_before_gate: bool,
    starts: MambaStarts,
}

impl Mamba2 {
    fn new(settings: &Settings, levels: Option<usize>) -> Result<Self> {
        let d_inner = settings.size("expand")? * settings.d_model();
        let (head_dim, groups) = (settings.size("head_dim")?, settings.size("groups")?);
        if !d_inner.is_multiple_of(head_dim) {
            return Err(PluginError::bad_option(format!(
                "head_dim={head_dim} must divide expand times d_model, {d_inner}"
            )));
        }
        let heads = d_inner / head_dim;
        if !heads.is_multiple_of(groups) {
            return Err(PluginError::bad_option(format!(
                "groups={groups} must divide the {heads} heads (expand times d_model over head_dim)"
            )));
        }
        Ok(Self {
            bias: settings.boolean("bias")?,
            conv_bias: settings.boolean("conv_bias")?,
            state: settings.size("state")?,
            head_dim,
            d_inner,
            groups,
            conv: settings.size("conv")?,
            chunk: match levels {
                None => settings.size("chunk")?,
                Some(_) => 0,
            },
            levels,
            epsilon: settings.float("norm_gate_epsilon")? as f32,
            norm_before_gate: settings.boolean("norm_before_gate")?,
            starts: MambaStarts::new(settings)?,
        })
    }

    fn heads(&self) -> usize {
        self.d_inner / self.head_dim
    }
}

impl Mixer for Mamba2 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (d_inner, heads) = (self.d_inner, self.heads());
        let shared = self.groups * self.state;
        let factors = heads * self.levels.unwrap_or(0);
        let width = 2 * d_inner + 2 * shared + heads + factors;
        let all = graph.linear("in_proj", x, width, self.bias);
        let z = all.columns(0, d_inner);
        let xbc = all.columns(d_inner, d_inner + 2 * shared);
        let dt = all.columns(2 * d_inner + 2 * shared, heads);
        let (taps, bias) = self.starts.convolution(self.conv);
        let bias = self.conv_bias.then_some(bias);
        let xbc =
            graph.short_convolution_with("conv1d", xbc, self.conv, taps, bias, Activation::Silu);
        let dt_bias = graph.param_without_decay("dt_bias", &[heads], MambaStarts::step_size_bias());
        let a_log = Init::Custom(match self.levels {
            None => a_log,
            Some(_) => |head, _| (1.0 + head as f32).ln(),
        });
        let a_log = graph.param_without_decay("A_log", &[heads], a_log);
        let d = graph.param_without_decay("D", &[heads], Init::Ones);
        let inputs = SsdInputs {
            x: xbc.columns(0, d_inner),
            b: xbc.columns(d_inner, shared),
            c: xbc.columns(d_inner + shared, shared),
            dt,
            a_log,
            d,
            dt_bias,
        };
        let y = match self.levels {
            None => ssd(graph, inputs, self.groups, self.chunk),
            Some(count) => {
                let shape = [heads, count];
                let levels = Levels {
                    count,
                    factors: all.columns(width - factors, factors),
                    weight: graph.param_without_decay("L", &shape, Init::Ones),
                };
                with_levels(graph, inputs, self.groups, levels)
            }
        };
        let norm = |graph: &mut Graph, y| {
            graph.group_norm("norm", y, NormKind::Rms, self.groups, self.epsilon)
        };
        let y = if self.norm_before_gate {
            let normal = norm(graph, y);
            graph.gate(z, normal, Activation::Silu)
        } else {
            let gated = graph.gate(z, y, Activation::Silu);
            norm(graph, gated)
        };
        graph.linear_with("out_proj", y, x.cols(), self.bias, self.starts.out())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.starts.backbone(usual)
    }
}

/// A uniform over 1..16, as its logarithm.
fn a_log(_index: usize, draw: &mut dyn FnMut() -> f32) -> f32 {
    (1.0 + 15.0 * draw()).ln()
}
