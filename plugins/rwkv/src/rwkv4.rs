//! RWKV-4 (arXiv 2305.13048): options, time mix, channel mix.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::{mlp_hidden, norm_epsilon};
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::{Settings, or_usual};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::channel_mix::{ChannelMix, Matrices};
use crate::initial::{
    Depth, by_place, by_share, ends, into_residual, matrix, spread, zero_there, zigzag,
};
use crate::shift::{Last, Mix, Weighs, shift_state, token_shift};
use crate::wkv4::Wkv4Inputs;

options! {
    struct Options {
        hidden: usize = 0, 0..=1 << 16 => "channels of the recurrence; 0 is the model width";
        embedding_norm: bool = true => "LayerNorm between the embedding and the first block (ln0)";
        init: InitialValues;
    }
}

/// The architecture `rwkv4`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "rwkv4",
        title: "RWKV-4: a decaying weighted mean a channel",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "channel-mix",
        mixer: |settings| Ok(Box::new(Rwkv4::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{peng2023rwkv,
  title={{RWKV}: Reinventing {RNN}s for the Transformer Era},
  author={Peng, Bo and Alcaide, Eric and Anthony, Quentin and Albalak, Alon and others},
  booktitle={Findings of the Association for Computational Linguistics: EMNLP}, year={2023},
  note={arXiv:2305.13048}
}";

struct Rwkv4 {
    hidden: usize,
    mlp_hidden: usize,
    embedding_norm: bool,
    epsilon: f32,
    whose: InitialValues,
}

impl Rwkv4 {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            hidden: or_usual(options.hidden, settings.d_model()),
            mlp_hidden: mlp_hidden(settings)?,
            embedding_norm: options.embedding_norm,
            epsilon: norm_epsilon(settings)?,
            whose: options.init,
        })
    }
}

impl Mixer for Rwkv4 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (d_model, hidden) = (x.cols(), self.hidden);
        let Depth { rising, falling } = Depth::new(block.layer, block.layers);
        // Starts of arXiv 2305.13048, appendix E.
        let decay = by_place(hidden, |_, place| {
            8.0f32.mul_add(place.powf(0.7 + 1.3 * rising), -5.0)
        });
        let first = by_place(hidden, |i, _| 0.5f32.mul_add(zigzag(i), 0.3f32.ln()));
        let time_decay = graph.param_without_decay("time_decay", &[hidden], decay);
        let time_first = graph.param_without_decay("time_first", &[hidden], first);
        let key = by_share(d_model, |share| share.powf(falling));
        let value = by_share(d_model, |share| share.powf(falling) + 0.3 * rising);
        let receptance = by_share(d_model, |share| share.powf(0.5 * falling));
        let mixes = [
            ("time_mix_key", key),
            ("time_mix_value", value),
            ("time_mix_receptance", receptance),
        ]
        .map(|(name, init)| Mix::Channel(graph.param(name, &[d_model], init)));
        let last = Last {
            state: shift_state(graph, d_model),
            renew: true,
        };
        let blends = token_shift(graph, x, last, Weighs::Current, &mixes);
        let linear = || Init::Linear { gain: 1.0 };
        let (zero, value) = (
            || zero_there(self.whose, linear()),
            matrix(self.whose, 1.0, spread(hidden, d_model)),
        );
        let k = graph.linear_with("key", blends[0], hidden, false, zero());
        let v = graph.linear_with("value", blends[1], hidden, false, value);
        let r = graph.linear_with("receptance", blends[2], hidden, false, zero());
        let inputs = Wkv4Inputs {
            r,
            k,
            v,
            time_decay,
            time_first,
        };
        let y = graph.record(inputs);
        let start = into_residual(self.whose, block.layers);
        graph.linear_with("output", y, d_model, false, start)
    }

    fn mlp(&self, block: &mut Block<'_>, x: Tensor) -> Option<Tensor> {
        let Depth { falling, .. } = Depth::new(block.layer, block.layers);
        let start = || by_share(x.cols(), |share| share.powf(falling));
        let mix = ChannelMix {
            hidden: self.mlp_hidden,
            starts: Matrices::new(self.whose, block.layers, spread(self.mlp_hidden, x.cols())),
            weighs: Weighs::Current,
            key: ("time_mix_key", start()),
            receptance: Some(("time_mix_receptance", start())),
        };
        Some(mix.record(block.graph, x))
    }

    fn embed(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        if self.embedding_norm {
            graph.norm("pre_ln", x, NormKind::Layer, self.epsilon)
        } else {
            x
        }
    }

    fn starts(&self, settings: &Settings, usual: Starts) -> Starts {
        // Values of 1e-4, whatever the sizes.
        let rows = settings.config.vocab as usize;
        let gain = 1e-4 * (rows.max(settings.d_model()) as f32).sqrt();
        ends(self.whose, settings, usual, Init::Orthogonal { gain })
    }
}
