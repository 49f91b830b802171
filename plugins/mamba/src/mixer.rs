//! Options and the layer: one projection to x and z; a short convolution; dt, B and C from its result;
//! the selective scan; the gate; out.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{InitialValues, MambaStarts, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::cpu::ScanInputs;

options! {
    struct Options {
        state: usize = 16, 1..=1024 => "N, state size a channel";
        expand: usize = 2, 1..=16 => "inner width over the model width";
        conv: usize = 4, 2..=64 => "taps of the short convolution";
        dt_rank: usize = 0, 0..=16384 => "rank of dt's projection; 0 is D / 16, rounded up";
        bias: bool = false => "biases in in_proj and out_proj";
        conv_bias: bool = true => "bias in the convolution";
        inner_norms: bool = false => "RMS norms of dt's low-rank values, B and C, as in Jamba (arXiv 2403.19887)";
        inner_norm_epsilon: f32 = 1e-6, 1e-12..=1e-1 => "epsilon of these norms";
        init: InitialValues;
        negative_eigenvalues: bool = false
            => "transitions 2 exp(dt A) - 1, which may be negative (arXiv 2411.12537)";
    }
}

/// The architecture `mamba`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "mamba",
        title: "Mamba: selective scan S6, a decay a channel and state",
        family: Family::Ssm,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Mamba::new(settings)?)),
    }
}

const CITATION: &str = "@article{gu2023mamba,
  title={Mamba: Linear-Time Sequence Modeling with Selective State Spaces},
  author={Gu, Albert and Dao, Tri},
  year={2023}, note={arXiv:2312.00752}
}
@inproceedings{grazzi2025unlocking,
  title={Unlocking State-Tracking in Linear {RNN}s Through Negative Eigenvalues},
  author={Grazzi, Riccardo and Siems, Julien and Zela, Arber and Franke, J{\\\"o}rg K. H. and Hutter, Frank and Pontil, Massimiliano},
  booktitle={International Conference on Learning Representations}, year={2025}, note={arXiv:2411.12537}
}";

struct Mamba {
    options: Options,
    d_inner: usize,
    dt_rank: usize,
    starts: MambaStarts,
}

impl Mamba {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let d_model = settings.d_model();
        Ok(Self {
            d_inner: options.expand * d_model,
            dt_rank: or_usual(options.dt_rank, d_model.div_ceil(16)),
            starts: MambaStarts::new(settings, options.init)?,
            options,
        })
    }
}

impl Mixer for Mamba {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (options, d_inner, dt_rank) = (&self.options, self.d_inner, self.dt_rank);
        let (state, taps) = (options.state, options.conv);
        let both = graph.linear("in_proj", x, 2 * d_inner, options.bias);
        let (u, z) = (both.columns(0, d_inner), both.columns(d_inner, d_inner));
        let (weight, bias) = self.starts.convolution(taps);
        let bias = options.conv_bias.then_some(bias);
        let u = graph.short_convolution_with("conv1d", u, taps, weight, bias, Activation::Silu);
        let dbc = graph.linear("x_proj", u, dt_rank + 2 * state, false);
        let mut low = dbc.columns(0, dt_rank);
        let mut b = dbc.columns(dt_rank, state);
        let mut c = dbc.columns(dt_rank + state, state);
        if options.inner_norms {
            let epsilon = options.inner_norm_epsilon;
            let norm = |graph: &mut Graph, name, x| graph.head_norm(name, x, 1, epsilon);
            low = norm(graph, "dt_norm", low);
            b = norm(graph, "b_norm", b);
            c = norm(graph, "c_norm", c);
        }
        let dt_weight = graph.param(
            "dt_proj.weight",
            &[d_inner, dt_rank],
            Init::Linear { gain: 1.0 },
        );
        let dt_bias = graph.param("dt_proj.bias", &[d_inner], MambaStarts::step_size_bias());
        let delta = graph.linear_by(low, dt_weight, Some(dt_bias));
        // S4D-real: A = -(1, 2, .., N) in every channel.
        let row = (1..=state).map(|n| (n as f32).ln());
        let start = std::iter::repeat_n(row, d_inner).flatten().collect();
        let a_log = graph.param_without_decay("A_log", &[d_inner, state], Init::Values(start));
        let d = graph.param_without_decay("D", &[d_inner], Init::Ones);
        let inputs = ScanInputs {
            u,
            delta,
            b,
            c,
            a_log,
            d,
            negative: options.negative_eigenvalues,
        };
        let y = graph.record(inputs);
        let gated = graph.gate(z, y, Activation::Silu);
        graph.linear_with("out_proj", gated, x.cols(), options.bias, self.starts.out())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.starts.backbone(usual)
    }
}
