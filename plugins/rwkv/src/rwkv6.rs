//! RWKV-6, Finch (arXiv 2404.05892): options, time mix, channel mix.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::{mlp_hidden, norm_epsilon};
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::bonus::{BonusInputs, bonus};
use crate::channel_mix::{ChannelMix, Matrices};
use crate::heads::{HeadOptions, LowRank, MatrixInputs, low_rank, low_rank_up, matrix_state, rank};
use crate::initial::{
    Depth, by_place, by_share, ends, head_norm, into_residual, matrix, zero_there, zigzag,
};
use crate::shift::{Last, Mix, Weighs, shift_state, token_shift};

options! {
    struct Options {
        mix_rank: usize = 0, 0..=4096
            => "rank of each blend's projection; 0 is 32, at most half the model width";
        decay_rank: usize = 0, 0..=4096
            => "rank of the decay's projection; 0 is 64, at most half the model width";
        heads: HeadOptions;
    }
}

/// The architecture `rwkv6`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "rwkv6",
        title: "RWKV-6 Finch: a matrix state with data-dependent decay a channel",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "channel-mix",
        mixer: |settings| Ok(Box::new(Rwkv6::new(settings)?)),
    }
}

const CITATION: &str = "@article{peng2024eagle,
  title={Eagle and Finch: {RWKV} with Matrix-Valued States and Dynamic Recurrence},
  author={Peng, Bo and Goldstein, Daniel and Anthony, Quentin and Albalak, Alon and others},
  year={2024}, note={arXiv:2404.05892}
}";

struct Rwkv6 {
    head_dim: usize,
    head_norm_epsilon: f32,
    mix_rank: usize,
    decay_rank: usize,
    mlp_hidden: usize,
    embedding_norm: bool,
    epsilon: f32,
    whose: InitialValues,
}

impl Rwkv6 {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            head_dim: options.heads.head_dim(settings)?,
            head_norm_epsilon: options.heads.head_norm_epsilon,
            mix_rank: rank(settings, options.mix_rank, 32),
            decay_rank: rank(settings, options.decay_rank, 64),
            mlp_hidden: mlp_hidden(settings)?,
            embedding_norm: options.heads.embedding_norm,
            epsilon: norm_epsilon(settings)?,
            whose: options.heads.init,
        })
    }

    /// The second matrix of a low-rank projection with a bias, which decides at first.
    fn small(&self) -> Init {
        let here = Init::Linear { gain: 0.1 };
        self.whose.choose(here, Init::within(0.01))
    }

    /// The blends for w, k, v, r and g, each by weights of its own that depend on the data
    /// (arXiv 2404.05892, section 4.2.1, "ddlerp").
    fn blends(&self, graph: &mut Graph, x: Tensor, depth: Depth) -> Vec<Tensor> {
        let d_model = x.cols();
        let Depth { rising, falling } = depth;
        let state = shift_state(graph, d_model);
        let first = Last {
            state,
            renew: false,
        };
        let start = by_share(d_model, |share| 1.0 - share.powf(falling));
        let mix = Mix::Channel(graph.param("time_maa_x", &[d_model], start));
        let blend = token_shift(graph, x, first, Weighs::Previous, &[mix])[0];
        let rank = self.mix_rank;
        let closed = zero_there(self.whose, Init::Linear { gain: 1.0 });
        let down = graph.linear_with("time_maa.down", blend, 5 * rank, false, closed);
        let down = graph.activation(down, Activation::Tanh);
        let starts = [
            ("w", 1.0, 0.0),
            ("k", 1.0, 0.0),
            ("v", 1.0, 0.3),
            ("r", 0.5, 0.0),
            ("g", 0.5, 0.0),
        ];
        let mut mixes = Vec::with_capacity(starts.len());
        for (index, (name, power, lift)) in starts.into_iter().enumerate() {
            let start = by_share(d_model, |share| {
                1.0 - share.powf(power * falling) - lift * rising
            });
            let name = format!("time_maa_{name}");
            let part = down.columns(index * rank, rank);
            let up = self.small();
            let blend = low_rank_up(graph, &name, part, d_model, up, Some(start));
            mixes.push(Mix::Token(blend));
        }
        let last = Last { state, renew: true };
        token_shift(graph, x, last, Weighs::Previous, &mixes)
    }
}

impl Mixer for Rwkv6 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (d_model, head_dim) = (x.cols(), self.head_dim);
        let depth = Depth::new(block.layer, block.layers);
        let rising = depth.rising;
        let blends = self.blends(graph, x, depth);
        let [for_w, for_k, for_v, for_r, for_g] = blends[..] else {
            unreachable!("five blends were recorded")
        };
        let start = by_place(d_model, |_, place| {
            5.0f32.mul_add(place.powf(0.7 + 1.3 * rising), -6.0)
        });
        let decay = low_rank(
            graph,
            "time_decay",
            for_w,
            self.decay_rank,
            Activation::Tanh,
            LowRank {
                down: zero_there(self.whose, Init::Linear { gain: 1.0 }),
                up: self.small(),
                bias: Some(start),
            },
        );
        let square = |graph: &mut Graph, name: &str, x: Tensor, here: f32, there: f32| {
            graph.linear_with(name, x, d_model, false, matrix(self.whose, here, there))
        };
        let r = square(graph, "receptance", for_r, 1.0, 1.0);
        // The official gain of the key, 0.1: at first the norm over a head is in its linear part.
        let k = square(graph, "key", for_k, 0.1, 0.1);
        let v = square(graph, "value", for_v, 1.0, 1.0);
        let g = square(graph, "gate", for_g, 1.0, 0.1);
        let start = by_place(d_model, |i, place| {
            0.1f32.mul_add(zigzag(i), rising * (1.0 - place))
        });
        let u = graph.param_without_decay("time_faaaa", &[d_model], start);
        let inputs = MatrixInputs {
            r,
            k,
            v,
            decay,
            removal: None,
        };
        let base = matrix_state(graph, inputs, head_dim);
        let y = bonus(graph, BonusInputs { base, r, k, v, u }, head_dim);
        let groups = d_model / head_dim;
        let epsilon = self.head_norm_epsilon;
        let start = head_norm(self.whose, block.layer, block.layers);
        let normal = graph.group_norm_with("ln_x", y, NormKind::Layer, groups, epsilon, start);
        let gated = graph.gate(g, normal, Activation::Silu);
        let start = into_residual(self.whose, block.layers);
        graph.linear_with("output", gated, d_model, false, start)
    }

    fn mlp(&self, block: &mut Block<'_>, x: Tensor) -> Option<Tensor> {
        let Depth { falling, .. } = Depth::new(block.layer, block.layers);
        // Cubed in the official code since 2024-11-17.
        let power = self.whose.choose(falling, falling.powi(3));
        let start = || by_share(x.cols(), |share| 1.0 - share.powf(power));
        let mix = ChannelMix {
            hidden: self.mlp_hidden,
            starts: Matrices::new(self.whose, block.layers, 1.0),
            weighs: Weighs::Previous,
            key: ("time_maa_k", start()),
            receptance: Some(("time_maa_r", start())),
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
        ends(self.whose, settings, usual, Init::within(1e-4))
    }
}
