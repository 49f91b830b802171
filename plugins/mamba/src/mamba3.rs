//! Mamba-3 (arXiv 2603.15569): a trapezoidal rule in place of Euler's, a state that turns by angles that depend on the
//! data, no short convolution. `modules/mamba3.py` of state-spaces/mamba has the layer.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{InitialValues, MambaStarts, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Heads, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor, options,
};

options! {
    enum RopeFraction => "share of the state's values that turn" {
        Half = "0.5",
        All = "1.0",
    }

    enum Rate => "-A of the data's x: 1 + x from 0 on and 1 / (1 - x) below, or softplus(x)" {
        HeavyTail = "heavy_tail",
        Softplus = "softplus",
    }

    struct Options {
        state: usize = 64, 2..=1024 => "N, state size a channel";
        head_dim: usize = 32, 1..=1024 => "channels a head; divides expand times D";
        expand: usize = 2, 1..=16 => "inner width over the model width";
        groups: usize = 1, 1..=256 => "groups of heads that share B and C; divides the heads";
        mimo_rank: usize = 1, 1..=16 => "R, writes and reads of a token that share a state; over 1 is MIMO";
        rope_fraction: RopeFraction;
        a_activation: Rate;
        a_floor: f32 = 1e-4, 0.0..=1.0 => "least -A";
        norm_before_gate: bool = false => "norm each head before the gate";
        norm_bc_epsilon: f32 = 1e-5, 1e-12..=1e-1 => "epsilon of the norms of B, of C and before the gate";
        init: InitialValues;
    }
}

/// The architecture `mamba3`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "mamba3",
        title: "Mamba-3: trapezoidal rule and a state that turns with the data",
        family: Family::Ssm,
        citation: CITATION,
        options: Options::default().specs(),
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Mamba3::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{lahoti2026mamba3,
  title={Mamba-3: Improved Sequence Modeling using State Space Principles},
  author={Lahoti, Aakash and Li, Kevin Y. and Chen, Berlin and Wang, Caitlin and Bick, Aviv and Kolter, J. Zico and Dao, Tri and Gu, Albert},
  booktitle={International Conference on Learning Representations}, year={2026}, note={arXiv:2603.15569}
}";

struct Mamba3 {
    state: usize,
    head_dim: usize,
    heads: usize,
    groups: usize,
    /// R.
    rank: usize,
    /// Angles of a head.
    angles: usize,
    activation: Rate,
    floor: f32,
    norm_before_gate: bool,
    epsilon: f32,
    starts: MambaStarts,
}

/// What a token's step is made of, each `[B, T, H]`.
struct Steps {
    /// dt.
    size: Tensor,
    /// dt A, logarithms of decays.
    logs: Tensor,
    /// lambda dt: the weight of the token itself.
    own: Tensor,
    /// (1 - lambda) dt: that of the token before, until it decays.
    before: Tensor,
}

impl Mamba3 {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        let d_inner = options.expand * settings.d_model();
        let Options {
            state,
            head_dim,
            groups,
            ..
        } = options;
        if !d_inner.is_multiple_of(head_dim) {
            return Err(PluginError::bad_option(format!(
                "head_dim={head_dim} must divide expand times d_model, {d_inner}"
            )));
        }
        let heads = d_inner / head_dim;
        if !heads.is_multiple_of(groups) {
            return Err(PluginError::bad_option(format!(
                "groups={groups} must divide the {heads} heads (expand times d_model over head_dim)"
            )));
        }
        let turning = match options.rope_fraction {
            RopeFraction::Half => 4,
            RopeFraction::All => 2,
        };
        if state < turning {
            return Err(PluginError::bad_option(format!(
                "state={state}: at least {turning} are needed for a pair that turns"
            )));
        }
        Ok(Self {
            state,
            head_dim,
            heads,
            groups,
            rank: options.mimo_rank,
            angles: state / turning,
            activation: options.a_activation,
            floor: options.a_floor,
            norm_before_gate: options.norm_before_gate,
            epsilon: options.norm_bc_epsilon,
            starts: MambaStarts::new(settings, options.init)?,
        })
    }

    /// Records -A, `[H]`: positive, and at least the floor.
    fn rate(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let positive = if self.activation == Rate::Softplus {
            graph.activation(x, Activation::Softplus)
        } else {
            // max(x, 0) + 1 / (1 + max(-x, 0)).
            let negative = graph.scale(x, -1.0);
            let negative = graph.activation(negative, Activation::Relu);
            let one = graph.filled(1.0, self.heads);
            let below = graph.add(negative, one);
            let below = graph.activation(below, Activation::Reciprocal);
            let above = graph.activation(x, Activation::Relu);
            graph.add(above, below)
        };
        let [down, up] = [-self.floor, self.floor].map(|by| graph.filled(by, self.heads));
        let over = graph.add(positive, down);
        let over = graph.activation(over, Activation::Relu);
        graph.add(over, up)
    }

    /// Records the steps from dt, A and lambda as they come from the projection (section 3.1).
    fn steps(&self, graph: &mut Graph, dt: Tensor, a: Tensor, trap: Tensor) -> Steps {
        let bias = MambaStarts::step_size_bias();
        let bias = graph.param_without_decay("dt_bias", &[self.heads], bias);
        let bias = graph.constant(bias);
        let size = graph.add(dt, bias);
        let size = graph.activation(size, Activation::Softplus);
        let rate = self.rate(graph, a);
        let rate = graph.scale(rate, -1.0);
        let rest = graph.scale(trap, -1.0);
        Steps {
            size,
            logs: graph.gate(rate, size, Activation::Identity),
            own: graph.gate(trap, size, Activation::Sigmoid),
            before: graph.gate(rest, size, Activation::Sigmoid),
        }
    }

    /// Records the weights of each channel, `[d_inner]`, by which x becomes R of its kind (section 3.3); none where R is 1.
    fn weights(&self, graph: &mut Graph, name: &str, start: f32) -> Vec<Tensor> {
        let ranks = if self.rank == 1 { 0 } else { self.rank };
        let weights = (0..ranks).map(|rank| {
            let shape = [self.heads, self.head_dim];
            let param = graph.param(&format!("{name}.{rank}"), &shape, Init::Constant(start));
            graph.constant(param)
        });
        weights.collect()
    }

    /// Records what C reads of the state and of what goes past it, `[H V]` for each of R, with R of B and C by head. The
    /// state is kept as it is before its token's own share: `U = a (U + (own' + before) k' v'ᵀ)` with ' for the token
    /// before and a for the decay, and the state is `U + own k vᵀ`.
    fn read(
        &self,
        graph: &mut Graph,
        [q, k]: [&[Tensor]; 2],
        x: Tensor,
        steps: &Steps,
    ) -> Vec<Tensor> {
        let skip = graph.param_without_decay("D", &[self.heads], Init::Ones);
        let skip = graph.constant(skip);
        let up = self.weights(graph, "mimo_x", 1.0 / self.rank as f32);
        let [x_before, own_before] = [x, steps.own].map(|x| graph.previous(x));
        let weight = graph.add(own_before, steps.before);
        let weight = graph.gate(steps.logs, weight, Activation::Exp);
        let weighed = graph.by_head(weight, x_before);
        let written = several(graph, &up, weighed);
        let [all_q, all_k, all_v] = [q, k, &written].map(|parts| beside(graph, parts));
        let k_before = graph.previous(all_k);
        let read = graph.state_matrix(StateMatrix {
            q: all_q,
            k: k_before,
            v: all_v,
            heads: Heads {
                heads: self.heads,
                groups: self.heads,
                key: self.state,
                value: self.head_dim,
                writes: self.rank,
            },
            decay: Decay::Head(steps.logs),
            removal: Removal::None,
            read: Read::Times(self.rank),
        });
        let v = several(graph, &up, x);
        let past = |graph: &mut Graph, i: usize, j: usize| {
            let own = graph.head_dots(q[i], k[j], self.heads);
            let own = graph.gate(own, steps.own, Activation::Identity);
            let own = if i == j { graph.add(own, skip) } else { own };
            graph.by_head(own, v[j])
        };
        let ranks = 0..self.rank;
        let reads = ranks.clone().map(|i| {
            let read = read.columns(i * x.cols(), x.cols());
            ranks.clone().fold(read, |sum, j| {
                let own = past(graph, i, j);
                graph.add(sum, own)
            })
        });
        reads.collect()
    }

    /// Records the gate, the norm and the sum over R: what the layer gives before its last matrix.
    fn gated(&self, graph: &mut Graph, reads: &[Tensor], z: Tensor) -> Tensor {
        let of_z = self.weights(graph, "mimo_z", 1.0);
        let down = self.weights(graph, "mimo_o", 1.0 / self.rank as f32);
        let gates = several(graph, &of_z, z);
        let gated = reads.iter().zip(gates).enumerate().map(|(rank, (&y, z))| {
            let y = match self.norm_before_gate {
                true => graph.shared(|graph| {
                    graph.group_norm("norm", y, NormKind::Rms, self.heads, self.epsilon)
                }),
                false => y,
            };
            let gated = graph.gate(z, y, Activation::Silu);
            match down.get(rank) {
                Some(&weight) => graph.gate(weight, gated, Activation::Identity),
                None => gated,
            }
        });
        let gated: Vec<Tensor> = gated.collect();
        gated
            .into_iter()
            .reduce(|sum, y| graph.add(sum, y))
            .expect("at least one")
    }
}

/// Records x times each of the weights; x itself where there are none.
fn several(graph: &mut Graph, weights: &[Tensor], x: Tensor) -> Vec<Tensor> {
    if weights.is_empty() {
        return vec![x];
    }
    let weighed = weights
        .iter()
        .map(|&weight| graph.gate(weight, x, Activation::Identity));
    weighed.collect()
}

/// Records tensors beside each other; the only one is itself.
fn beside(graph: &mut Graph, parts: &[Tensor]) -> Tensor {
    match parts {
        &[part] => part,
        parts => graph.concatenate(parts, 1),
    }
}

impl Mixer for Mamba3 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (heads, rank, d_inner) = (self.heads, self.rank, self.heads * self.head_dim);
        let shared = self.groups * self.state;
        // z, x, B, C, dt, A, lambda, angles.
        let widths = [
            d_inner,
            d_inner,
            rank * shared,
            rank * shared,
            heads,
            heads,
            heads,
            self.angles,
        ];
        let all = graph.linear("in_proj", x, widths.iter().sum(), false);
        let mut start = 0;
        let [z, x_inner, b, c, dt, a, trap, angles] = widths.map(|cols| {
            start += cols;
            all.columns(start - cols, cols)
        });
        let steps = self.steps(graph, dt, a, trap);
        // Half a turn a unit of dt at most.
        let angles = graph.activation(angles, Activation::Tanh);
        let angles = graph.scale(angles, 0.5);
        let turns = graph.running_turns(angles, steps.size);
        let mut by_head = |part: Tensor, norm: &str, bias: &str| {
            let normal = graph.head_norm(norm, part, rank * self.groups, self.epsilon);
            let turned = (0..rank).map(|index| {
                let name = match rank {
                    1 => bias.to_owned(),
                    _ => format!("{bias}.{index}"),
                };
                let bias = graph.param(&name, &[heads, self.state], Init::Ones);
                let normal = normal.columns(index * shared, shared);
                graph.turned_heads(normal, bias, turns, heads)
            });
            turned.collect::<Vec<Tensor>>()
        };
        let k = by_head(b, "B_norm", "B_bias");
        let q = by_head(c, "C_norm", "C_bias");
        let reads = self.read(graph, [&q, &k], x_inner, &steps);
        let gated = self.gated(graph, &reads, z);
        graph.linear_with("out_proj", gated, x.cols(), false, self.starts.out())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.starts.backbone(usual)
    }
}
