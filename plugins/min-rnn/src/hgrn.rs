//! HGRN (arXiv 2311.04823) in the real form of flash-linear-attention: forget gates with lower bounds that rise from
//! layer to layer.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::diagonal::Transition;
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::minimal::Width;

options! {
    struct Options {
        width: Width;
        lower_bound: bool = true => "learned lower bounds of the forget gates";
        conv: usize = 0, 0..=64 => "taps of the convolutions of input and forget gate; 0 is none";
        init: InitialValues;
    }
}

/// The architecture `hgrn`.
pub fn hgrn() -> Architecture {
    Architecture {
        name: "hgrn",
        title: "HGRN: forget gates whose lower bounds rise with the layers",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Hgrn::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{qin2023hgrn,
  title={Hierarchically Gated Recurrent Neural Network for Sequence Modeling},
  author={Qin, Zhen and Yang, Songlin and Zhong, Yiran},
  booktitle={NeurIPS}, year={2023}, note={arXiv:2311.04823}
}";

struct Hgrn {
    hidden: usize,
    options: Options,
}

impl Hgrn {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            hidden: options.width.of(settings),
            options,
        })
    }

    /// The forget gate, and 1 minus it.
    fn forget(&self, block: &mut Block<'_>, f: Tensor) -> (Tensor, Tensor) {
        let minus = block.graph.scale(f, -1.0);
        if !self.options.lower_bound {
            let forget = block.graph.activation(f, Activation::Sigmoid);
            return (forget, block.graph.activation(minus, Activation::Sigmoid));
        }
        let bounds = self.bounds(block);
        let (bound, room) = block.graph.lower_bound(bounds, block.layer, block.layers);
        let above = block.graph.gate(f, room, Activation::Sigmoid);
        let forget = block.graph.add(bound, above);
        (forget, block.graph.gate(minus, room, Activation::Sigmoid))
    }

    /// The lower bounds of all layers before their softmax, of which the first block has the parameter.
    fn bounds(&self, block: &mut Block<'_>) -> Tensor {
        const NAME: &str = "hgrn.lower_bounds";
        block.shared(NAME).unwrap_or_else(|| {
            let shape = [block.layers, self.hidden];
            let bounds = block.graph.param("lower_bounds", &shape, Init::Zeros);
            let bounds = block.graph.constant(bounds);
            block.share(NAME, bounds);
            bounds
        })
    }
}

/// The standard deviation of every matrix in the reference implementation.
const SMALL: Init = Init::Normal { std: 0.02 };

impl Mixer for Hgrn {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let (hidden, d_model) = (self.hidden, x.cols());
        let into = self.options.init.choose(Init::Linear { gain: 1.0 }, SMALL);
        let project = |graph: &mut Graph, name: &str| {
            graph.linear_with(&format!("{name}_proj"), x, hidden, false, into.clone())
        };
        let convolved = |graph: &mut Graph, name: &str| {
            let projected = project(graph, name);
            if self.options.conv == 0 {
                return projected;
            }
            let usual = Init::within(1.0 / (self.options.conv as f32).sqrt());
            let (taps, name) = (
                self.options.init.choose(usual, SMALL),
                format!("{name}_conv1d"),
            );
            let identity = Activation::Identity;
            graph.short_convolution_with(&name, projected, self.options.conv, taps, None, identity)
        };
        let (input, f) = (convolved(block.graph, "i"), convolved(block.graph, "f"));
        let (forget, room) = self.forget(block, f);
        let graph = &mut *block.graph;
        let input = graph.gate(input, room, Activation::Silu);
        let h = graph.diagonal_scan(Transition::Signed(forget), input);
        let normal = graph.norm("g_norm", h, NormKind::Rms, 1e-6);
        let gate = project(graph, "g");
        let gated = graph.gate(gate, normal, Activation::Silu);
        let out = self.options.init.choose(residual_init(block.layers), SMALL);
        graph.linear_with("o_proj", gated, d_model, false, out)
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        let reference = Starts {
            embedding: SMALL,
            head: SMALL,
            mlp_in: SMALL,
            mlp_out: SMALL,
        };
        self.options.init.choose(usual, reference)
    }
}
