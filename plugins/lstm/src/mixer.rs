//! Options and the layer: input weights over the whole sequence at once, then the recurrence.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::recurrences::cell::Kind;
use longhaul_plugin_kit::{Architecture, Block, Init, Mixer, PluginError, Result, Tensor, options};

/// The forget gate's bias at first: open, so that memory lasts.
const USUAL_FORGET_BIAS: f32 = 1.0;

options! {
    struct Options {
        hidden: usize = 0, 0..=16384 => "cells a layer; 0 is the model width";
        forget_bias: f32 = USUAL_FORGET_BIAS, -20.0..=20.0 => "start of the forget gate's bias, with init=longhaul";
        init: InitialValues;
    }
}

/// The architecture `lstm`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "lstm",
        title: "Long short-term memory with forget gate",
        family: Family::Rnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Lstm::new(settings)?)),
    }
}

const CITATION: &str = "@article{hochreiter1997lstm,
  title={Long Short-Term Memory},
  author={Hochreiter, Sepp and Schmidhuber, J{\\\"u}rgen},
  journal={Neural Computation}, volume={9}, number={8}, pages={1735--1780}, year={1997}
}
@article{gers2000forget,
  title={Learning to Forget: Continual Prediction with {LSTM}},
  author={Gers, Felix A. and Schmidhuber, J{\\\"u}rgen and Cummins, Fred},
  journal={Neural Computation}, volume={12}, number={10}, pages={2451--2471}, year={2000}
}";

struct Lstm {
    hidden: usize,
    forget_bias: f32,
    start: InitialValues,
}

impl Lstm {
    fn new(settings: &Settings) -> Result<Self> {
        let Options {
            hidden,
            forget_bias,
            init,
        } = Options::read(settings)?;
        if init == InitialValues::Reference && forget_bias != USUAL_FORGET_BIAS {
            return Err(PluginError::bad_option(format!(
                "forget_bias={forget_bias} has no place beside init=reference, where biases are drawn as the weights \
                 are: leave out one of the two"
            )));
        }
        Ok(Self {
            hidden: or_usual(hidden, settings.d_model()),
            forget_bias,
            start: init,
        })
    }
}

impl Mixer for Lstm {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let hidden = self.hidden;
        // PyTorch draws all of them within one bound.
        let uniform = Init::within(1.0 / (hidden as f32).sqrt());
        let mut open = vec![0.0; 4 * hidden];
        open[hidden..2 * hidden].fill(self.forget_bias);
        let bias_ih = self.start.choose(Init::Values(open), uniform.clone());
        let bias_hh = self.start.choose(Init::Zeros, uniform.clone());
        let weight_ih = graph.param("weight_ih", &[4 * hidden, x.cols()], uniform.clone());
        let bias_ih = graph.param("bias_ih", &[4 * hidden], bias_ih);
        let weight_hh = graph.param("weight_hh", &[4 * hidden, hidden], uniform.clone());
        let bias_hh = graph.param("bias_hh", &[4 * hidden], bias_hh);
        let gates = graph.linear_by(x, weight_ih, Some(bias_ih));
        let h = graph.recurrent_cell(Kind::Lstm, gates, weight_hh, bias_hh);
        if hidden == x.cols() {
            return h;
        }
        let out = self.start.choose(residual_init(block.layers), uniform);
        graph.linear_with("out_proj", h, x.cols(), false, out)
    }

    fn min_rows(&self) -> usize {
        8
    }
}
