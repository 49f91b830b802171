//! Options and the layer: one projection to gate, x, B, C and dt, and factors of levels where there are levels; a short
//! convolution over x, B and C; the state-space operation; a gated norm; out.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{InitialValues, MambaStarts, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor, options,
};

use crate::ssd::{Levels, SsdInputs, ssd, with_levels};

options! {
    struct Options {
        state: usize = 64, 1..=1024 => "N, state size a channel";
        head_dim: usize = 32, 1..=1024 => "channels a head; divides expand times D";
        expand: usize = 2, 1..=16 => "inner width over the model width";
        groups: usize = 1, 1..=256 => "groups of heads that share B and C; divides the heads";
        conv: usize = 4, 2..=64 => "taps of the short convolution";
        bias: bool = false => "biases in the projections";
        conv_bias: bool = true => "bias in the convolution";
        init: InitialValues;
        chunk: Option<usize> = Some(64), 1..=1024 => "tokens of a chunk; changes speed, not results";
        norm_gate_epsilon: f32 = 1e-5, 1e-12..=1e-1 => "epsilon of the gated norm";
        norm_before_gate: bool = false => "the norm comes before the gate, as in Falcon-H1";
        levels: Option<usize> = None, 0..=64
            => "levels of the past, from 2; 0 is as many as the training length has";
    }
}

/// The architecture `mamba2`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "mamba2",
        title: "Mamba-2: state-space duality, one decay a head",
        family: Family::Ssm,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Mamba2::new(settings)?)),
    }
}

/// The architecture `log-linear-attention`.
pub fn log_linear() -> Architecture {
    let options = Options {
        chunk: None,
        levels: Some(0),
        ..Options::default()
    };
    Architecture {
        name: "log-linear-attention",
        title: "Log-linear Mamba-2: a state for each power of two of the past",
        citation: LOG_LINEAR_CITATION,
        options: options.specs(),
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
    options: Options,
    d_inner: usize,
    levels: Option<usize>,
    starts: MambaStarts,
}

impl Mamba2 {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let d_inner = options.expand * settings.d_model();
        let (head_dim, groups) = (options.head_dim, options.groups);
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
        if options.levels == Some(1) {
            return Err(PluginError::bad_option(
                "levels=1 is a token alone: 2 or more, or 0 for as many as the training length has",
            ));
        }
        let last = settings.config.max_train_length.max(2) - 1;
        let usual = last.ilog2() as usize + 2;
        Ok(Self {
            d_inner,
            levels: options.levels.map(|given| or_usual(given, usual)),
            starts: MambaStarts::new(settings, options.init)?,
            options,
        })
    }

    fn heads(&self) -> usize {
        self.d_inner / self.options.head_dim
    }
}

impl Mixer for Mamba2 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (options, d_inner, heads) = (&self.options, self.d_inner, self.heads());
        let Options { groups, conv, .. } = *options;
        let shared = groups * options.state;
        let factors = heads * self.levels.unwrap_or(0);
        let width = 2 * d_inner + 2 * shared + heads + factors;
        let all = graph.linear("in_proj", x, width, options.bias);
        let z = all.columns(0, d_inner);
        let xbc = all.columns(d_inner, d_inner + 2 * shared);
        let dt = all.columns(2 * d_inner + 2 * shared, heads);
        let (taps, bias) = self.starts.convolution(conv);
        let bias = options.conv_bias.then_some(bias);
        let xbc = graph.short_convolution_with("conv1d", xbc, conv, taps, bias, Activation::Silu);
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
            None => ssd(graph, inputs, groups, options.chunk.unwrap_or(0)),
            Some(count) => {
                let shape = [heads, count];
                let levels = Levels {
                    count,
                    factors: all.columns(width - factors, factors),
                    weight: graph.param_without_decay("L", &shape, Init::Ones),
                };
                with_levels(graph, inputs, groups, levels)
            }
        };
        let norm = |graph: &mut Graph, y| {
            graph.group_norm("norm", y, NormKind::Rms, groups, options.norm_gate_epsilon)
        };
        let y = if options.norm_before_gate {
            let normal = norm(graph, y);
            graph.gate(z, normal, Activation::Silu)
        } else {
            let gated = graph.gate(z, y, Activation::Silu);
            norm(graph, gated)
        };
        graph.linear_with("out_proj", y, x.cols(), options.bias, self.starts.out())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.starts.backbone(usual)
    }
}

/// A uniform over 1..16, as its logarithm.
fn a_log(_index: usize, draw: &mut dyn FnMut() -> f32) -> f32 {
    (1.0 + 15.0 * draw()).ln()
}
