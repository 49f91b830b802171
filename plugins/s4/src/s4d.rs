//! S4D (arXiv 2206.11893) as in state-spaces/s4, `models/s4/s4d.py`: a system of its own for every channel, started by
//! S4D-Lin, discretised by a zero-order hold.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::diagonal::Discretisation;
use longhaul_plugin_kit::{Architecture, Block, Init, Mixer, PluginError, Result, Tensor, options};

use crate::glu::{Glu, StepOptions, dense, log_steps};

options! {
    struct Options {
        state: usize = 64, 2..=1024 => "real states a channel, in conjugate pairs";
        discretisation: Discretisation;
        steps: StepOptions;
        glu: Glu;
        init: InitialValues;
    }
}

/// The architecture `s4d`.
pub fn s4d() -> Architecture {
    Architecture {
        name: "s4d",
        title: "S4D: a complex diagonal state space for every channel",
        family: Family::Ssm,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(S4d::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{gu2022s4d,
  title={On the Parameterization and Initialization of Diagonal State Space Models},
  author={Gu, Albert and Gupta, Ankit and Goel, Karan and R{\\'e}, Christopher},
  booktitle={NeurIPS}, year={2022}, note={arXiv:2206.11893}
}";

struct S4d {
    /// Conjugate pairs a channel.
    pairs: usize,
    discretisation: Discretisation,
    log_steps: Init,
    glu: Glu,
    start: InitialValues,
}

impl S4d {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let state = options.state;
        if !state.is_multiple_of(2) {
            return Err(PluginError::bad_option(format!(
                "state={state} is odd: states come in conjugate pairs"
            )));
        }
        Ok(Self {
            pairs: state / 2,
            discretisation: options.discretisation,
            log_steps: log_steps(&options.steps)?,
            glu: options.glu,
            start: options.init,
        })
    }
}

impl Mixer for S4d {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, channels, pairs) = (&mut *block.graph, x.cols(), self.pairs);
        let angles = (0..pairs * channels).map(|index| index / channels);
        let angles = angles.map(|n| (std::f64::consts::PI * n as f64) as f32);
        let half = Init::Normal { std: 0.5f32.sqrt() };
        let starts = [
            ("log_A_real", [pairs, channels], Init::Constant(0.5f32.ln())),
            ("A_imag", [pairs, channels], Init::Values(angles.collect())),
            ("C", [2 * pairs, channels], half),
            ("log_dt", [1, channels], self.log_steps.clone()),
            ("D", [1, channels], Init::Normal { std: 1.0 }),
        ];
        let [log_re, im, c, log_dt, d] = starts.map(|(name, shape, start)| {
            let shape = if shape[0] == 1 {
                &shape[1..]
            } else {
                &shape[..]
            };
            let param = graph.param_without_decay(name, shape, start);
            graph.constant(param)
        });
        let re = graph.activation(log_re, Activation::Exp);
        let re = graph.scale(re, -1.0);
        let step = graph.activation(log_dt, Activation::Exp);
        let (transition, gain) = graph.discretise(self.discretisation, re, im, step);
        // Every channel's input goes to its states as it is; the gain is that of the output, and twice, for the other
        // half of the pairs.
        let weights = graph.complex_product(c, gain);
        let weights = graph.scale(weights, 2.0);
        let y = graph.diagonal_systems(transition, weights, x);
        let skip = graph.gate(d, x, Activation::Identity);
        let y = graph.add(y, skip);
        // As PyTorch starts a convolution of one tap.
        let uniform = Init::within(1.0 / (channels as f32).sqrt());
        let (weight, bias) = dense(self.start, (uniform.clone(), uniform));
        self.glu.forward(graph, y, &weight, &bias)
    }
}
