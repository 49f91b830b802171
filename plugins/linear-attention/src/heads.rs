//! What the architectures share: sizes of the heads, projections and how they start, normalisers, slots.

use longhaul_plugin_kit::backbone::residual_init;
use longhaul_plugin_kit::initial::{InitialValues, Starts};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::{self, Decay, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{Graph, Init, PluginError, Result, Tensor, options};

options! {
    /// Options of an architecture that says by how much keys and values are wider than the model.
    pub struct HeadOptions {
        heads: usize = 4, 1..=1024 => "H, heads";
        expand_k: f64 = 1.0, 1e-3..=64.0 => "columns of all heads' queries and keys over the model width";
        expand_v: f64 = 1.0, 1e-3..=64.0 => "columns of all heads' values over the model width";
        common: CommonOptions;
    }

    /// Options of every architecture.
    #[derive(Copy)]
    pub struct CommonOptions {
        head_norm_epsilon: f32 = 1e-5, 1e-12..=1e-1 => "epsilon of the norm of what is read from the states";
        init: InitialValues;
    }
}

/// How matrices start. The reference implementation (`fla`) draws all of them alike.
#[derive(Clone, Copy)]
pub struct Matrices {
    whose: InitialValues,
    layers: usize,
}

impl Matrices {
    fn or_reference(self, longhaul: Init) -> Init {
        self.whose.choose(longhaul, Init::Normal { std: 0.02 })
    }

    /// Records a projection to `cols` columns.
    pub fn read(self, graph: &mut Graph, name: &str, x: Tensor, cols: usize) -> Tensor {
        let start = self.or_reference(Init::Linear { gain: 1.0 });
        graph.linear_with(name, x, cols, false, start)
    }

    /// Records the projection `o_proj` into the residual stream of so many columns.
    pub fn write(self, graph: &mut Graph, y: Tensor, d_model: usize) -> Tensor {
        let start = self.or_reference(residual_init(self.layers));
        graph.linear_with("o_proj", y, d_model, false, start)
    }

    /// Records a short convolution of `taps` taps with an activation; x itself where there are none.
    pub fn convolve(
        self,
        graph: &mut Graph,
        name: &str,
        x: Tensor,
        taps: usize,
        activation: Activation,
    ) -> Tensor {
        if taps == 0 {
            return x;
        }
        let start = self.or_reference(Init::within(1.0 / (taps as f32).sqrt()));
        graph.short_convolution_with(name, x, taps, start, None, activation)
    }

    /// Of the backbone.
    pub fn backbone(self, usual: Starts) -> Starts {
        Starts {
            embedding: self.or_reference(usual.embedding),
            head: self.or_reference(usual.head),
            mlp_in: self.or_reference(usual.mlp_in),
            mlp_out: self.or_reference(usual.mlp_out),
        }
    }
}

/// Sizes of the heads, and what surrounds their states.
#[derive(Clone, Copy)]
pub struct Heads {
    /// H.
    pub heads: usize,
    /// K.
    pub key: usize,
    /// V.
    pub value: usize,
    /// Of the norm of what is read.
    pub epsilon: f32,
    pub matrices: Matrices,
}

impl Heads {
    /// # Errors
    /// Heads that do not divide the columns.
    pub fn new(settings: &Settings, options: &HeadOptions) -> Result<Self> {
        let heads = options.heads;
        let width = |name: &str, expand: f64| -> Result<usize> {
            let cols = expand * settings.d_model() as f64;
            if cols.fract() == 0.0 && (cols as usize).is_multiple_of(heads) {
                return Ok(cols as usize / heads);
            }
            Err(PluginError::bad_option(format!(
                "heads={heads} must divide {name} times d_model, {cols}"
            )))
        };
        let key = width("expand_k", options.expand_k)?;
        let value = width("expand_v", options.expand_v)?;
        Ok(Self::of(settings, options.common, heads, key, value))
    }

    pub fn of(
        settings: &Settings,
        options: CommonOptions,
        heads: usize,
        key: usize,
        value: usize,
    ) -> Self {
        Self {
            heads,
            key,
            value,
            epsilon: options.head_norm_epsilon,
            matrices: Matrices {
                whose: options.init,
                layers: settings.layers(),
            },
        }
    }

    /// Records queries, keys and values.
    pub fn project(&self, graph: &mut Graph, x: Tensor) -> [Tensor; 3] {
        let (keys, values) = (self.heads * self.key, self.heads * self.value);
        let each = [("q_proj", keys), ("k_proj", keys), ("v_proj", values)];
        each.map(|(name, cols)| self.matrices.read(graph, name, x, cols))
    }

    /// Records [`Heads::project`] with a short convolution and SiLU behind each; none with 0 taps.
    pub fn project_convolved(&self, graph: &mut Graph, x: Tensor, taps: usize) -> [Tensor; 3] {
        let mut each = self.project(graph, x);
        for (name, tensor) in ["q_conv1d", "k_conv1d", "v_conv1d"].iter().zip(&mut each) {
            let matrices = self.matrices;
            *tensor = matrices.convolve(graph, name, *tensor, taps, Activation::Silu);
        }
        each
    }

    /// Records the factor `1 / sqrt(K)` of queries.
    pub fn scaled(&self, graph: &mut Graph, q: Tensor) -> Tensor {
        graph.scale(q, 1.0 / (self.key as f32).sqrt())
    }

    /// Records the states of the heads; the result is what queries read, `[H V]`.
    pub fn states(&self, graph: &mut Graph, [q, k, v]: [Tensor; 3], decay: Decay) -> Tensor {
        let sizes = state_matrix::Heads {
            heads: self.heads,
            groups: self.heads,
            key: q.cols() / self.heads,
            value: v.cols() / self.heads,
            writes: 1,
        };
        graph.state_matrix(StateMatrix {
            q,
            k,
            v,
            heads: sizes,
            decay,
            removal: Removal::None,
            read: Read::After,
        })
    }

    /// Records [`Heads::states`] without a decay, divided by what queries read of a state that ones are written to:
    /// weights of the past that add to one.
    pub fn normalised(&self, graph: &mut Graph, [q, k, v]: [Tensor; 3], epsilon: f32) -> Tensor {
        let read = self.states(graph, [q, k, v], Decay::None);
        let ones = graph.filled(1.0, self.heads);
        let sums = self.states(graph, [q, k, ones], Decay::None);
        let epsilon = graph.filled(epsilon, self.heads);
        let sums = graph.add(sums, epsilon);
        let inverse = graph.activation(sums, Activation::Reciprocal);
        graph.by_head(inverse, read)
    }

    /// Records RMSNorm of each head with one weight for all, times SiLU of a projection of x.
    pub fn gated_norm(&self, graph: &mut Graph, x: Tensor, read: Tensor) -> Tensor {
        let gate = self.matrices.read(graph, "g_proj", x, read.cols());
        let normal = graph.head_norm("g_norm", read, self.heads, self.epsilon);
        graph.gate(gate, normal, Activation::Silu)
    }

    /// Records a memory of slots (arXiv 2409.07146, section 3): keys and values of `slots` slots a head, which
    /// `write` `[H slots]` lets in and `decay`, as a logarithm, lets go; a query's softmax over its products with the
    /// keys weighs the values.
    pub fn slots(
        &self,
        graph: &mut Graph,
        [q, k, v]: [Tensor; 3],
        write: Tensor,
        decay: Tensor,
    ) -> Tensor {
        let products = self.states(graph, [q, k, write], Decay::Value(decay));
        let weights = graph.softmax(products, self.heads);
        self.states(graph, [weights, write, v], Decay::Key(decay))
    }
}
