//! RWKV-7, Goose (arXiv 2503.14456): options, time mix, channel mix.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::{mlp_hidden, norm_epsilon};
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::bonus::{BonusInputs, bonus};
use crate::channel_mix::{ChannelMix, Matrices};
use crate::heads::{HeadOptions, LowRank, MatrixInputs, low_rank, matrix_state, rank};
use crate::initial::{Depth, by_place, by_share, ends, head_norm, into_residual, matrix, spread};
use crate::removal::{RemovalInputs, removal};
use crate::shift::{Last, Mix, Weighs, shift_state, token_shift};

options! {
    struct Options {
        decay_rank: usize = 0, 0..=4096
            => "rank of the decay's projection; 0 is the published one, at most half the model width";
        rate_rank: usize = 0, 0..=4096
            => "rank of the in-context rate's projection; 0 is the published one, at most half the model width";
        value_rank: usize = 0, 0..=4096
            => "rank of the value residual's projection; 0 is the published one, at most half the model width";
        gate_rank: usize = 0, 0..=4096
            => "rank of the gate's projection; 0 is the published one, at most half the model width";
        heads: HeadOptions;
    }
}

/// The architecture `rwkv7`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "rwkv7",
        title: "RWKV-7 Goose: a matrix state under a generalised delta rule",
        family: Family::LinearRnn,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "channel-mix",
        mixer: |settings| Ok(Box::new(Rwkv7::new(settings)?)),
    }
}

const CITATION: &str = "@article{peng2025rwkv7,
  title={{RWKV}-7 \"Goose\" with Expressive Dynamic State Evolution},
  author={Peng, Bo and Zhang, Ruichong and Goldstein, Daniel and Alcaide, Eric and others},
  year={2025}, note={arXiv:2503.14456}
}";

/// Where a channel stands.
#[derive(Clone, Copy)]
struct Place {
    /// i / (D - 1).
    share: f32,
    /// The same from -1/2 to 1/2.
    line: f32,
    /// Within its head from -1 to 1, times its size: steep at both ends.
    curve: f32,
}

impl Place {
    fn new(channel: usize, head_dim: usize, share: f32) -> Self {
        let middle = (head_dim - 1) as f32 / 2.0;
        let within = (channel as f32 - middle) / middle;
        Self {
            share,
            line: share - 0.5,
            curve: within * within.abs(),
        }
    }
}

/// The name under which the first layer leaves its value for the others.
const FIRST_VALUE: &str = "rwkv7.first_value";

struct Rwkv7 {
    head_dim: usize,
    head_norm_epsilon: f32,
    decay_rank: usize,
    rate_rank: usize,
    value_rank: usize,
    gate_rank: usize,
    mlp_hidden: usize,
    embedding_norm: bool,
    epsilon: f32,
    whose: InitialValues,
}

/// The official rank by a rule of the model width: a multiple of 32.
fn published(rule: f64) -> usize {
    ((rule / 32.0).round() as usize * 32).max(32)
}

impl Rwkv7 {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let d_model = settings.d_model() as f64;
        let by_root = |factor: f64| published(factor * d_model.sqrt());
        let by_power = published(0.6 * d_model.powf(0.8));
        Ok(Self {
            head_dim: options.heads.head_dim(settings)?,
            head_norm_epsilon: options.heads.head_norm_epsilon,
            decay_rank: rank(settings, options.decay_rank, by_root(1.8)),
            rate_rank: rank(settings, options.rate_rank, by_root(1.8)),
            value_rank: rank(settings, options.value_rank, by_root(1.3)),
            gate_rank: rank(settings, options.gate_rank, by_power),
            mlp_hidden: mlp_hidden(settings)?,
            embedding_norm: options.heads.embedding_norm,
            epsilon: norm_epsilon(settings)?,
            whose: options.heads.init,
        })
    }

    /// The blends for r, w, k, v, a and g.
    fn blends(&self, graph: &mut Graph, x: Tensor, depth: Depth) -> Vec<Tensor> {
        let d_model = x.cols();
        let starts = [
            ("x_r", 0.2),
            ("x_w", 0.9),
            ("x_k", 0.7),
            ("x_v", 0.7),
            ("x_a", 0.9),
            ("x_g", 0.2),
        ];
        let mixes = starts.map(|(name, power)| {
            let start = by_share(d_model, |share| 1.0 - share.powf(power * depth.falling));
            Mix::Channel(graph.param(name, &[d_model], start))
        });
        let last = Last {
            state: shift_state(graph, d_model),
            renew: true,
        };
        token_shift(graph, x, last, Weighs::Previous, &mixes)
    }

    /// A start for each channel: of the releases before 2025-05-06, as the paper's, or of those since.
    fn ramp(
        &self,
        channels: usize,
        here: impl Fn(Place) -> f32,
        there: impl Fn(Place) -> f32,
    ) -> Init {
        let head_dim = self.head_dim;
        by_place(channels, |channel, share| {
            let place = Place::new(channel % head_dim, head_dim, share);
            self.whose.choose(here(place), there(place))
        })
    }

    /// The decay's bias, from slow to fast over the channels, more so in late layers.
    fn decay_bias(&self, channels: usize, depth: Depth) -> Init {
        let rising = depth.rising;
        self.ramp(
            channels,
            |place| 5.0f32.mul_add(place.share.powf(0.85 + rising.sqrt()), -6.5),
            |place| -5.5 + 6.0 * place.share.powf(1.0 + rising.powf(0.3)) + 2.5 * place.curve,
        )
    }

    /// The starts of a low-rank projection to `channels` by way of `rank`.
    fn low_rank(&self, channels: usize, rank: usize, bias: Option<Init>) -> LowRank {
        match self.whose {
            InitialValues::Longhaul => LowRank::usual(bias),
            InitialValues::Reference => {
                let gain = 0.1 * spread(rank, channels);
                LowRank::closed(Init::Orthogonal { gain }, bias)
            }
        }
    }

    /// The value residual (arXiv 2503.14456, eq. 8): `v + (v of the first layer - v) sigmoid(..)`.
    fn value(&self, block: &mut Block<'_>, v: Tensor, blend: Tensor) -> Tensor {
        let Some(first) = block.shared(FIRST_VALUE) else {
            block.share(FIRST_VALUE, v);
            return v;
        };
        let graph = &mut *block.graph;
        let bias = self.ramp(v.cols(), |_| 1.0, |place| 0.73 - 0.4 * place.line);
        let start = self.low_rank(v.cols(), self.value_rank, Some(bias));
        let rank = self.value_rank;
        let share = low_rank(graph, "value_mix", blend, rank, Activation::Identity, start);
        let minus = graph.scale(v, -1.0);
        let ahead = graph.add(first, minus);
        let moved = graph.gate(share, ahead, Activation::Sigmoid);
        graph.add(v, moved)
    }
}

impl Mixer for Rwkv7 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (d_model, head_dim) = (x.cols(), self.head_dim);
        let depth = Depth::new(block.layer, block.layers);
        let blends = self.blends(graph, x, depth);
        let [for_r, for_w, for_k, for_v, for_a, for_g] = blends[..] else {
            unreachable!("six blends were recorded")
        };
        let bias = self.decay_bias(d_model, depth);
        let (rank, start) = (
            self.decay_rank,
            self.low_rank(d_model, self.decay_rank, Some(bias)),
        );
        let decay = low_rank(graph, "decay", for_w, rank, Activation::Tanh, start);
        let bias = self.ramp(
            d_model,
            |_| 0.0,
            |place| -0.19 + 0.3 * place.curve + 0.4 * place.line,
        );
        let (rank, start) = (
            self.rate_rank,
            self.low_rank(d_model, self.rate_rank, Some(bias)),
        );
        let rate = low_rank(graph, "rate", for_a, rank, Activation::Identity, start);
        let (rank, start) = (self.gate_rank, self.low_rank(d_model, self.gate_rank, None));
        let gate = low_rank(graph, "gate", for_g, rank, Activation::Sigmoid, start);
        // The gains of the layers' own code; a head's key has length 1 only where it removes.
        let square = |graph: &mut Graph, name: &str, x: Tensor, here: f32, there: f32| {
            graph.linear_with(name, x, d_model, false, matrix(self.whose, here, there))
        };
        let r = square(graph, "receptance", for_r, 0.5, 1.0);
        let k = square(graph, "key", for_k, 0.05, 0.1);
        let v = square(graph, "value", for_v, 0.5, 1.0);
        let v = self.value(block, v, for_v);
        let graph = &mut *block.graph;
        let removal_key = self.ramp(d_model, |_| 0.85, |place| 0.71 - 0.1 * place.line);
        let replacement = self.ramp(d_model, |_| 1.0, |_| 1.02);
        let inputs = RemovalInputs {
            k,
            rate,
            removal_key: graph.param_without_decay("k_k", &[d_model], removal_key),
            replacement: graph.param_without_decay("k_a", &[d_model], replacement),
        };
        let removed = removal(graph, inputs, head_dim);
        let k = removed.k;
        let inputs = MatrixInputs {
            r,
            k,
            v,
            decay,
            removal: Some([removed.kappa, removed.b]),
        };
        let o = matrix_state(graph, inputs, head_dim);
        let groups = d_model / head_dim;
        let epsilon = self.head_norm_epsilon;
        let start = head_norm(self.whose, block.layer, block.layers);
        let base = graph.group_norm_with("ln_x", o, NormKind::Layer, groups, epsilon, start);
        let u = graph.param_without_decay("r_k", &[d_model], Init::Constant(-0.04));
        let y = bonus(graph, BonusInputs { base, r, k, v, u }, head_dim);
        let gated = graph.gate(gate, y, Activation::Identity);
        let start = into_residual(self.whose, block.layers);
        graph.linear_with("output", gated, d_model, false, start)
    }

    fn mlp(&self, block: &mut Block<'_>, x: Tensor) -> Option<Tensor> {
        let Depth { falling, .. } = Depth::new(block.layer, block.layers);
        let start = by_share(x.cols(), |share| 1.0 - share.powf(falling.powi(4)));
        let mix = ChannelMix {
            hidden: self.mlp_hidden,
            starts: Matrices::new(self.whose, block.layers, 1.0),
            weighs: Weighs::Previous,
            key: ("x_k", start),
            receptance: None,
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
