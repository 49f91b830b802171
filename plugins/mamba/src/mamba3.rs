//! Mamba-3 (arXiv 2603.15569): a trapezoidal rule in place of Euler's, a state that turns by angles that depend on the
//! data, no short convolution. `modules/mamba3.py` of state-spaces/mamba has the layer.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::{InitialValues, MambaStarts, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::options::{Settings, boolean, choice, float, integer};
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Heads, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, PluginError, Result, Tensor};

/// The architecture `mamba3`.
pub fn architecture() -> Architecture {
    Architecture {
        name: "mamba3",
        title: "Mamba-3: trapezoidal rule and a state that turns with the data",
        family: Family::Ssm,
        citation: CITATION,
        options: vec![
            integer("state", 64, 2, 1024, "N, state size a channel"),
            integer(
                "head_dim",
                32,
                1,
                1024,
                "channels a head; divides expand times D",
            ),
            integer("expand", 2, 1, 16, "inner width over the model width"),
            integer(
                "groups",
                1,
                1,
                256,
                "groups of heads that share B and C; divides the heads",
            ),
            choice(
                "rope_fraction",
                "0.5",
                &["0.5", "1.0"],
                "share of the state's values that turn",
            ),
            choice(
                "a_activation",
                "heavy_tail",
                &["heavy_tail", "softplus"],
                "-A of the data's x: 1 + x from 0 on and 1 / (1 - x) below, or softplus(x)",
            ),
            float("a_floor", 1e-4, 0.0, 1.0, "least -A"),
            boolean("norm_before_gate", false, "norm each head before the gate"),
            float(
                "norm_bc_epsilon",
                1e-5,
                1e-12,
                1e-1,
                "epsilon of the norms of B, of C and before the gate",
            ),
            InitialValues::option(),
        ],
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
    /// Angles of a head.
    angles: usize,
    is_softplus: bool,
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
        let d_inner = settings.size("expand")? * settings.d_model();
        let (head_dim, groups) = (settings.size("head_dim")?, settings.size("groups")?);
        let state = settings.size("state")?;
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
        let turning = if settings.text("rope_fraction")? == "0.5" {
            4
        } else {
            2
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
            angles: state / turning,
            is_softplus: settings.text("a_activation")? == "softplus",
            floor: settings.float("a_floor")? as f32,
            norm_before_gate: settings.boolean("norm_before_gate")?,
            epsilon: settings.float("norm_bc_epsilon")? as f32,
            starts: MambaStarts::new(settings)?,
        })
    }

    /// Records -A, `[H]`: positive, and at least the floor.
    fn rate(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        let positive = if self.is_softplus {
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

    /// Records what C reads of the state and of what goes past it, `[H V]`, with B and C by head. The state is kept as
    /// it is before its token's own share: `U = a (U + (own' + before) k' v'ᵀ)` with ' for the token before and a for
    /// the decay, and the state is `U + own k vᵀ`.
    fn read(&self, graph: &mut Graph, [q, k]: [Tensor; 2], v: Tensor, steps: &Steps) -> Tensor {
        let skip = graph.param_without_decay("D", &[self.heads], Init::Ones);
        let skip = graph.constant(skip);
        let [k_before, v_before, own_before] = [k, v, steps.own].map(|x| graph.previous(x));
        let weight = graph.add(own_before, steps.before);
        let weight = graph.gate(steps.logs, weight, Activation::Exp);
        let written = graph.by_head(weight, v_before);
        let read = graph.state_matrix(StateMatrix {
            q,
            k: k_before,
            v: written,
            heads: Heads {
                heads: self.heads,
                groups: self.heads,
                key: self.state,
                value: self.head_dim,
                writes: 1,
            },
            decay: Decay::Head(steps.logs),
            removal: Removal::None,
            read: Read::After,
        });
        let own = graph.head_dots(q, k, self.heads);
        let own = graph.gate(own, steps.own, Activation::Identity);
        let own = graph.add(own, skip);
        let own = graph.by_head(own, v);
        graph.add(read, own)
    }
}

impl Mixer for Mamba3 {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (heads, shared, d_inner) = (
            self.heads,
            self.groups * self.state,
            self.heads * self.head_dim,
        );
        // z, x, B, C, dt, A, lambda, angles.
        let widths = [
            d_inner,
            d_inner,
            shared,
            shared,
            heads,
            heads,
            heads,
            self.angles,
        ];
        let all = graph.linear("in_proj", x, widths.iter().sum(), false);
        let mut start = 0;
        let [z, v, b, c, dt, a, trap, angles] = widths.map(|cols| {
            start += cols;
            all.columns(start - cols, cols)
        });
        let steps = self.steps(graph, dt, a, trap);
        // Half a turn a unit of dt at most.
        let angles = graph.activation(angles, Activation::Tanh);
        let angles = graph.scale(angles, 0.5);
        let turns = graph.running_turns(angles, steps.size);
        let mut by_head = |part: Tensor, norm: &str, bias: &str| {
            let normal = graph.head_norm(norm, part, self.groups, self.epsilon);
            let bias = graph.param(bias, &[heads, self.state], Init::Ones);
            graph.turned_heads(normal, bias, turns, heads)
        };
        let k = by_head(b, "B_norm", "B_bias");
        let q = by_head(c, "C_norm", "C_bias");
        let y = self.read(graph, [q, k], v, &steps);
        let y = match self.norm_before_gate {
            true => graph.group_norm("norm", y, NormKind::Rms, heads, self.epsilon),
            false => y,
        };
        let gated = graph.gate(z, y, Activation::Silu);
        graph.linear_with("out_proj", gated, x.cols(), false, self.starts.out())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.starts.backbone(usual)
    }
}
