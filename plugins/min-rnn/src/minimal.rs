//! minGRU and minLSTM (arXiv 2410.01201): gates of the input alone, so that h is a weighted mean of what came in.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::recurrences::diagonal::Transition;
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

options! {
    enum Candidate
        => "what comes in: positive (x + 1/2 or sigmoid(x), the paper's appendix B), or as it is (its section 3)"
    {
        Positive = "positive",
        Linear = "linear",
    }

    struct Options {
        width: Width;
        candidate: Candidate;
        bias: bool = false => "biases of the gates and of what comes in";
        init: InitialValues;
    }

    /// Of every architecture here.
    #[derive(Copy)]
    pub(crate) struct Width {
        hidden: usize = 0, 0..=16384 => "channels of the recurrence; 0 is the model width";
    }
}

impl Width {
    /// Channels of the recurrence.
    pub(crate) fn of(self, settings: &Settings) -> usize {
        or_usual(self.hidden, settings.d_model())
    }
}

/// The architecture `mingru`.
pub fn mingru() -> Architecture {
    Architecture {
        name: "mingru",
        title: "minGRU: a gated mean of its inputs",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Minimal::new(settings, Gates::One)?)),
    }
}

/// The architecture `minlstm`.
pub fn minlstm() -> Architecture {
    Architecture {
        name: "minlstm",
        title: "minLSTM: a mean of its inputs by two gates",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Minimal::new(settings, Gates::Two)?)),
    }
}

const CITATION: &str = "@misc{feng2024rnns,
  title={Were {RNN}s All We Needed?},
  author={Feng, Leo and Tung, Frederick and Ahmed, Mohamed Osama and Bengio, Yoshua and Hajimirsadeghi, Hossein},
  year={2024}, note={arXiv:2410.01201}
}";

#[derive(Clone, Copy, PartialEq)]
enum Gates {
    /// z: how much of the new is taken.
    One,
    /// Forget and input gates, which sum to 1 once they are normalised.
    Two,
}

struct Minimal {
    gates: Gates,
    hidden: usize,
    options: Options,
}

impl Minimal {
    fn new(settings: &Settings, gates: Gates) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            gates,
            hidden: options.width.of(settings),
            options,
        })
    }
}

impl Mixer for Minimal {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let hidden = self.hidden;
        let (name, parts) = match self.gates {
            Gates::One => ("to_hidden_and_gate", 2),
            Gates::Two => ("to_hidden_and_f_i_gate", 3),
        };
        let all = graph.linear(name, x, parts * hidden, self.options.bias);
        let part = |index: usize| all.columns(index * hidden, hidden);
        // h = (1 - z) h + z candidate, z = sigmoid(take).
        let take = match self.gates {
            Gates::One => part(1),
            // z = i / (f + i) of sigmoids f and i is sigmoid(softplus(-f) - softplus(-i)).
            Gates::Two => {
                let rare = |graph: &mut Graph, gate: Tensor| {
                    let minus = graph.scale(gate, -1.0);
                    graph.activation(minus, Activation::Softplus)
                };
                let (forget, input) = (rare(graph, part(1)), rare(graph, part(2)));
                let minus = graph.scale(input, -1.0);
                graph.add(forget, minus)
            }
        };
        let log_keep = graph.activation(take, Activation::Softplus);
        let log_keep = graph.scale(log_keep, -1.0);
        let candidate = match self.options.candidate {
            Candidate::Positive => graph.activation(part(0), Activation::Positive),
            Candidate::Linear => part(0),
        };
        let taken = graph.gate(take, candidate, Activation::Sigmoid);
        let h = graph.diagonal_scan(Transition::Log(log_keep), taken);
        if hidden == x.cols() {
            return h;
        }
        let usual = residual_init(block.layers);
        let out = self.options.init.choose(usual, Init::Linear { gain: 1.0 });
        graph.linear_with("to_out", h, x.cols(), false, out)
    }
}
