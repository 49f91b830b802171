//! Kimi Delta Attention (arXiv 2510.26692, eq. 1) and Gated DeltaNet-2 (arXiv 2605.22791): the delta rule on a state
//! in which every key channel has a decay of its own. KDA has one step size a head; Gated DeltaNet-2 has a gate for
//! every key channel that is removed, b, and for every value channel that is written, w:
//! `S = (I - k (b k)ᵀ) D S + k (w v)ᵀ`.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::layer::{Layer, LayerOptions, rate_from_1};

options! {
    struct Options {
        layer: LayerOptions;
        decay_bound: f32 = 0.0, -100.0..=0.0
            => "least logarithm of a decay, bound sigmoid(e^A_log (x + dt_bias)), -5 in Kimi's; 0 is none, -e^A_log softplus(x + dt_bias)";
    }
}

/// The architecture `kda`.
pub fn kda() -> Architecture {
    let options = Options {
        layer: LayerOptions {
            value_heads: Some(0),
            ..LayerOptions::default()
        },
        ..Options::default()
    };
    Architecture {
        name: "kda",
        title: "Kimi Delta Attention: the delta rule with a decay a channel",
        family: Family::LinearRnn,
        citation: "@misc{kimi2025linear,
  title={Kimi Linear: An Expressive, Efficient Attention Architecture},
  author={{Kimi Team}}, year={2025}, note={arXiv:2510.26692}
}",
        options: options.specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(ChannelDecay::new(settings, false)?)),
    }
}

/// The architecture `gdn-2`.
pub fn gdn2() -> Architecture {
    Architecture {
        name: "gdn-2",
        title: "Gated DeltaNet-2: removal and writing gated by channel",
        family: Family::LinearRnn,
        citation: "@misc{hatamizadeh2026gated,
  title={Gated {DeltaNet}-2: Decoupling Erase and Write in Linear Attention},
  author={Hatamizadeh, Ali and Choi, Yejin and Kautz, Jan},
  year={2026}, note={arXiv:2605.22791}
}",
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(ChannelDecay::new(settings, true)?)),
    }
}

struct ChannelDecay {
    layer: Layer,
    /// Whether removal and writing have gates by channel.
    by_channel: bool,
    bound: f32,
}

impl ChannelDecay {
    fn new(settings: &Settings, by_channel: bool) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            layer: Layer::new(settings, options.layer)?,
            by_channel,
            bound: options.decay_bound,
        })
    }

    /// Logarithms of decays by key channel.
    fn decay(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        if self.bound == 0.0 {
            return self.layer.decay(graph, x, rate_from_1());
        }
        let x = self.layer.biased(graph, x);
        let scaled = self.layer.rated(graph, x, Init::Zeros, Activation::Exp);
        let share = graph.activation(scaled, Activation::Sigmoid);
        graph.scale(share, self.bound)
    }
}

impl Mixer for ChannelDecay {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let layer = &self.layer;
        let heads = layer.heads;
        let [queries, keys, values] = layer.widths();
        let (channels, rank) = (heads.heads * heads.key, heads.value);
        let convolved = queries + keys + values;
        let gates = if self.by_channel {
            keys + values
        } else {
            heads.heads
        };
        let mut all = layer.project(graph, x, convolved + gates + 2 * rank);
        let mut qkv = layer.convolve(graph, all.next(convolved));
        let q = layer.unit(graph, qkv.next(queries));
        let k = layer.unit(graph, qkv.next(keys));
        let (q, v) = (layer.scaled(graph, q), qkv.next(values));
        let (removed, written) = match self.by_channel {
            true => (all.next(keys), Some(all.next(values))),
            false => (all.next(heads.heads), None),
        };
        let removed = layer.steps(graph, removed);
        let low = all.next(rank);
        let decay = graph.linear_with("decay_proj", low, channels, false, layer.matrix());
        let decay = self.decay(graph, decay);
        let (removal, v) = match written {
            Some(written) => {
                // What is removed is read from the state after its decay.
                let read = graph.gate(removed, k, Activation::Identity);
                let a = graph.gate(decay, read, Activation::Exp);
                let v = graph.gate(written, v, Activation::Sigmoid);
                (Removal::Pair { a, b: k }, v)
            }
            None => (Removal::Delta(removed), v),
        };
        let o = graph.state_matrix(StateMatrix {
            q,
            k,
            v,
            heads,
            decay: Decay::Key(decay),
            removal,
            read: Read::After,
        });
        let low = all.next(rank);
        let gate = graph.linear_with("gate_proj", low, values, true, layer.matrix());
        layer.out(graph, o, Some((gate, Activation::Sigmoid)), x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.layer.starts(usual)
    }
}
