//! RWKV-7, Goose (arXiv 2503.14456): options, time mix, channel mix.

use std::sync::{Mutex, PoisonError};

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::backbone::{mlp_hidden, residual_init};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::{Settings, boolean, integer};
use longhaul_plugin_kit::{Architecture, Graph, Init, Mixer, Result, Tensor};

use crate::bonus::{BonusInputs, bonus};
use crate::channel_mix::ChannelMix;
use crate::heads::{head_dim, head_options, low_rank, rank};
use crate::initial::{Depth, by_place, by_share};
use crate::matrix_state::{MatrixInputs, matrix_state};
use crate::removal::{RemovalInputs, removal};
use crate::shift::{Last, Mix, Weighs, shift_state, token_shift};

/// The architecture `rwkv7`.
pub fn architecture() -> Architecture {
    let ranks = [
        ("decay_rank", "rank of the decay's projection"),
        ("rate_rank", "rank of the in-context rate's projection"),
        ("value_rank", "rank of the value residual's projection"),
        ("gate_rank", "rank of the gate's projection"),
    ];
    let mut options: Vec<_> = ranks
        .into_iter()
        .map(|(name, what)| {
            let help = format!("{what}; 0 is the published one, at most half the model width");
            integer(name, 0, 0, 4096, &help)
        })
        .collect();
    options.push(boolean(
        "embedding_norm",
        true,
        "LayerNorm between the embedding and the first block (ln0)",
    ));
    options.extend(head_options());
    Architecture {
        name: "rwkv7",
        title: "RWKV-7 Goose: a matrix state under a generalised delta rule",
        family: Family::LinearRnn,
        citation: CITATION,
        options,
        default_mlp: "channel-mix",
        mixer: |settings| Ok(Box::new(Rwkv7::new(settings)?)),
    }
}

const CITATION: &str = "@article{peng2025rwkv7,
  title={{RWKV}-7 \"Goose\" with Expressive Dynamic State Evolution},
  author={Peng, Bo and Zhang, Ruichong and Goldstein, Daniel and Alcaide, Eric and others},
  year={2025}, note={arXiv:2503.14456}
}";

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
    layers: usize,
    /// The value of the first layer that was traced, for the later ones.
    first_value: Mutex<Option<Tensor>>,
}

/// The official rank by a rule of the model width: a multiple of 32.
fn published(rule: f64) -> usize {
    ((rule / 32.0).round() as usize * 32).max(32)
}

impl Rwkv7 {
    fn new(settings: &Settings) -> Result<Self> {
        let d_model = settings.d_model() as f64;
        let by_root = |factor: f64| published(factor * d_model.sqrt());
        Ok(Self {
            head_dim: head_dim(settings)?,
            head_norm_epsilon: settings.float("head_norm_epsilon")? as f32,
            decay_rank: rank(settings, "decay_rank", by_root(1.8))?,
            rate_rank: rank(settings, "rate_rank", by_root(1.8))?,
            value_rank: rank(settings, "value_rank", by_root(1.3))?,
            gate_rank: rank(settings, "gate_rank", published(0.6 * d_model.powf(0.8)))?,
            mlp_hidden: mlp_hidden(settings)?,
            embedding_norm: settings.boolean("embedding_norm")?,
            epsilon: settings.float("norm_epsilon")? as f32,
            layers: settings.layers(),
            first_value: Mutex::new(None),
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

    /// The value residual (arXiv 2503.14456, eq. 8): `v + (v of the first layer - v) sigmoid(..)`.
    fn value(&self, graph: &mut Graph, v: Tensor, blend: Tensor, layer: usize) -> Tensor {
        let mut cell = self
            .first_value
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = match *cell {
            Some(first) if layer > 0 => first,
            _ => {
                *cell = Some(v);
                return v;
            }
        };
        let start = Init::Ones;
        let share = low_rank(
            graph,
            "value_mix",
            blend,
            self.value_rank,
            Activation::Identity,
            Some(start),
        );
        let minus = graph.scale(v, -1.0);
        let ahead = graph.add(first, minus);
        let moved = graph.gate(share, ahead, Activation::Sigmoid);
        graph.add(v, moved)
    }
}

impl Mixer for Rwkv7 {
    fn forward(&self, graph: &mut Graph, x: Tensor, layer: usize) -> Tensor {
        let (d_model, head_dim) = (x.cols(), self.head_dim);
        let depth = Depth::new(layer, self.layers);
        let blends = self.blends(graph, x, depth);
        let [for_r, for_w, for_k, for_v, for_a, for_g] = blends[..] else {
            unreachable!("six blends were recorded")
        };
        let start = by_place(d_model, |_, place| {
            5.0f32.mul_add(place.powf(0.85 + depth.rising.sqrt()), -6.5)
        });
        let rank = self.decay_rank;
        let decay = low_rank(graph, "decay", for_w, rank, Activation::Tanh, Some(start));
        let (rank, start) = (self.rate_rank, Some(Init::Zeros));
        let rate = low_rank(graph, "rate", for_a, rank, Activation::Identity, start);
        let rank = self.gate_rank;
        let gate = low_rank(graph, "gate", for_g, rank, Activation::Sigmoid, None);
        // The official gains; a head's key has length 1 only where it removes.
        let linear = |graph: &mut Graph, name: &str, x: Tensor, gain: f32| {
            graph.linear_with(name, x, d_model, false, Init::Linear { gain })
        };
        let r = linear(graph, "receptance", for_r, 0.5);
        let k = linear(graph, "key", for_k, 0.05);
        let v = linear(graph, "value", for_v, 0.5);
        let v = self.value(graph, v, for_v, layer);
        let start = |value| Init::Constant(value);
        let inputs = RemovalInputs {
            k,
            rate,
            removal_key: graph.param_without_decay("k_k", &[d_model], start(0.85)),
            replacement: graph.param_without_decay("k_a", &[d_model], start(1.0)),
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
        let base = graph.group_norm("ln_x", o, NormKind::Layer, groups, epsilon);
        let u = graph.param_without_decay("r_k", &[d_model], start(-0.04));
        let y = bonus(graph, BonusInputs { base, r, k, v, u }, head_dim);
        let gated = graph.gate(gate, y, Activation::Identity);
        let init = residual_init(self.layers);
        graph.linear_with("output", gated, d_model, false, init)
    }

    fn mlp(&self, graph: &mut Graph, x: Tensor, layer: usize) -> Option<Tensor> {
        let Depth { falling, .. } = Depth::new(layer, self.layers);
        let start = by_share(x.cols(), |share| 1.0 - share.powf(falling.powi(4)));
        let mix = ChannelMix {
            hidden: self.mlp_hidden,
            layers: self.layers,
            weighs: Weighs::Previous,
            key: ("x_k", start),
            receptance: None,
        };
        Some(mix.record(graph, x))
    }

    fn embed(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        if self.embedding_norm {
            graph.norm("pre_ln", x, NormKind::Layer, self.epsilon)
        } else {
            x
        }
    }
}
