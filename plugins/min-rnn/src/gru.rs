//! The gated recurrent unit (arXiv 1406.1078) in the form of PyTorch's `nn.GRU`.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::InitialValues;
use longhaul_plugin_kit::recurrences::cell::Kind;
use longhaul_plugin_kit::{Architecture, Block, Init, Mixer, Tensor, options};

use crate::minimal::Width;

options! {
    struct Options {
        width: Width;
        init: InitialValues;
    }
}

/// The architecture `gru`.
pub fn gru() -> Architecture {
    Architecture {
        name: "gru",
        title: "Gated recurrent unit",
        family: Family::Rnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| {
            let Options { width, init } = Options::read(settings)?;
            Ok(Box::new(Gru {
                hidden: width.of(settings),
                start: init,
            }))
        },
    }
}

const CITATION: &str = "@inproceedings{cho2014gru,
  title={Learning Phrase Representations using {RNN} Encoder-Decoder for Statistical Machine Translation},
  author={Cho, Kyunghyun and van Merri{\\\"e}nboer, Bart and Gulcehre, Caglar and Bahdanau, Dzmitry and Bougares, Fethi and Schwenk, Holger and Bengio, Yoshua},
  booktitle={EMNLP}, year={2014}, note={arXiv:1406.1078}
}";

struct Gru {
    hidden: usize,
    start: InitialValues,
}

impl Mixer for Gru {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (graph, hidden) = (&mut *block.graph, self.hidden);
        // PyTorch draws all of them within one bound.
        let uniform = Init::within(1.0 / (hidden as f32).sqrt());
        let bias = self.start.choose(Init::Zeros, uniform.clone());
        let weight_ih = graph.param("weight_ih", &[3 * hidden, x.cols()], uniform.clone());
        let bias_ih = graph.param("bias_ih", &[3 * hidden], bias.clone());
        let weight_hh = graph.param("weight_hh", &[3 * hidden, hidden], uniform.clone());
        let bias_hh = graph.param("bias_hh", &[3 * hidden], bias);
        let gates = graph.linear_by(x, weight_ih, Some(bias_ih));
        let h = graph.recurrent_cell(Kind::Gru, gates, weight_hh, bias_hh);
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
