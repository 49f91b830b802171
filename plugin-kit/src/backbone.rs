//! The standard backbone: embedding, pre-norm residual blocks of a mixer and an MLP, final norm and
//! head. It is the same for every architecture, so that only the mixer differs in a comparison.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, Family, OptionSpec, StateGrowth, capability,
};

use crate::cuda::precision::Precision;
use crate::engine::graph::Graph;
use crate::engine::params::Init;
use crate::engine::tensor::Tensor;
use crate::ops::elementwise::Activation;
use crate::ops::norm::NormKind;
use crate::options::{Settings, boolean, choice, float, integer};

/// The part of a block that mixes positions: what an architecture is.
pub trait Mixer: Send + Sync {
    /// Records the mixer of layer `layer` (from 0): x is normalised, `[B, T, D]`; the result, of the
    /// same shape, is added to the residual stream.
    fn forward(&self, graph: &mut Graph, x: Tensor, layer: usize) -> Tensor;

    /// Records the MLP that the architecture brings itself, chosen by the option `mlp` when
    /// [`Architecture::default_mlp`] names it: x is normalised, `[B, T, D]`; the result, of the same
    /// shape, is added to the residual stream.
    fn mlp(&self, _graph: &mut Graph, x: Tensor, _layer: usize) -> Tensor {
        x
    }

    /// What happens to the embedding before the first block (learned positions).
    fn embed(&self, _graph: &mut Graph, x: Tensor) -> Tensor {
        x
    }

    /// Fewest rows of a micro-batch that its recurrence needs to be efficient.
    fn min_rows(&self) -> usize {
        1
    }

    /// How the state grows with these options.
    fn state_growth(&self) -> StateGrowth;
}

/// One architecture of a plugin: what is said of it and how its mixer is made.
pub struct Architecture {
    /// The name `--arch` takes.
    pub name: &'static str,
    /// One line for a list.
    pub title: &'static str,
    /// Its inductive bias.
    pub family: Family,
    /// BibTeX.
    pub citation: &'static str,
    /// The mixer's own options; the backbone's are added.
    pub options: Vec<OptionSpec>,
    /// State growth at the default options.
    pub state_growth: StateGrowth,
    /// The MLP where the user does not choose: `gated`, `geglu`, `gelu`, `none`, or another word for
    /// one of the architecture's own, see [`Mixer::mlp`].
    pub default_mlp: &'static str,
    /// Makes the mixer, or refuses an option.
    pub mixer: fn(&Settings) -> Result<Box<dyn Mixer>>,
}

impl Architecture {
    /// The description that crosses the boundary.
    pub fn info(&self) -> ArchitectureInfo {
        let mut options = self.options.clone();
        options.extend(backbone_options(self.default_mlp));
        ArchitectureInfo {
            name: self.name.into(),
            title: self.title.into(),
            family: self.family,
            citation: self.citation.into(),
            options: options.into(),
            state_growth: self.state_growth,
            devices: vec!["cpu".into(), "cuda".into()].into(),
            capabilities: vec![
                capability::TRAIN.into(),
                capability::FORK.into(),
                capability::EXPORT_STATE.into(),
                capability::REFERENCE.into(),
            ]
            .into(),
            extra: Vec::new().into(),
        }
    }
}

/// The options that every architecture on this backbone has.
fn backbone_options(default_mlp: &str) -> Vec<OptionSpec> {
    let mut mlps = vec!["gated", "geglu", "gelu", "none"];
    if !mlps.contains(&default_mlp) {
        mlps.push(default_mlp);
    }
    vec![
        choice(
            "norm",
            "rmsnorm",
            &["rmsnorm", "layernorm"],
            "norm before every part of a block",
        ),
        float("norm_epsilon", 1e-5, 1e-12, 1e-1, "epsilon of the norms"),
        float(
            "final_norm_epsilon",
            0.0,
            0.0,
            1e-1,
            "epsilon of the norm before the head; 0 is norm_epsilon",
        ),
        choice(
            "mlp",
            default_mlp,
            &mlps,
            "MLP of a block: SwiGLU, GeGLU, GELU, none, or the architecture's own",
        ),
        float(
            "mlp_ratio",
            4.0,
            0.25,
            64.0,
            "width of the MLP over the model width",
        ),
        integer(
            "mlp_hidden",
            0,
            0,
            1 << 20,
            "width of the MLP; 0 is mlp_ratio times the model width",
        ),
        boolean("mlp_bias", false, "biases in the MLP"),
        boolean("tied", false, "head shares the embedding's weight"),
        integer(
            "padding_token",
            -1,
            -1,
            i64::from(u32::MAX),
            "token whose embedding is not trained by reading it; -1 is none",
        ),
        float("embedding_scale", 1.0, 1e-6, 1e6, "factor on the embedding"),
        float(
            "logit_cap",
            0.0,
            0.0,
            1e6,
            "c of the capped logits c tanh(logit / c); 0 is no cap",
        ),
    ]
}

/// Traces a whole model.
///
/// # Errors
/// A missing option.
pub fn trace(settings: &Settings, mixer: &dyn Mixer) -> Result<Graph> {
    record(settings, mixer, Graph::new(settings.config.seed))
}

/// [`trace`] with the buffers that only forms for a device need, one that multiplies so.
///
/// # Errors
/// A missing option.
pub fn trace_on_device(
    settings: &Settings,
    mixer: &dyn Mixer,
    precision: Precision,
) -> Result<Graph> {
    let mut graph = Graph::new(settings.config.seed);
    graph.want_device(precision);
    record(settings, mixer, graph)
}

fn record(settings: &Settings, mixer: &dyn Mixer, mut graph: Graph) -> Result<Graph> {
    let (d_model, layers) = (settings.d_model(), settings.layers());
    let vocab = settings.config.vocab as usize;
    let norm = match settings.text("norm")? {
        "layernorm" => NormKind::Layer,
        _ => NormKind::Rms,
    };
    let epsilon = settings.float("norm_epsilon")? as f32;
    let mlp = Mlp::new(settings)?;
    if settings.wants_reference() {
        graph.want_reference();
    }
    let std = 1.0 / (d_model as f32).sqrt();
    let table = graph.param("embedding.weight", &[vocab, d_model], Init::Normal { std });
    let padding = u32::try_from(settings.integer("padding_token")?).ok();
    let embedded = graph.embedding(table, padding);
    let embedded = graph.scale(embedded, settings.float("embedding_scale")? as f32);
    let mut x = graph.mixer(|graph| mixer.embed(graph, embedded));
    for layer in 0..layers {
        x = graph.scope(format!("layers.{layer}"), |graph| {
            let normal = graph.norm("norm1", x, norm, epsilon);
            let mixed = graph
                .mixer(|graph| graph.scope("mixer", |graph| mixer.forward(graph, normal, layer)));
            let x = graph.add(x, mixed);
            mlp.forward(graph, x, norm, epsilon, mixer, layer)
        });
    }
    let wanted = graph.select_scored(x);
    let last_epsilon = match settings.float("final_norm_epsilon")? as f32 {
        0.0 => epsilon,
        own => own,
    };
    let normal = graph.norm("norm", wanted, norm, last_epsilon);
    let head = if settings.boolean("tied")? {
        table
    } else {
        graph.param("head.weight", &[vocab, d_model], Init::Linear { gain: 1.0 })
    };
    graph.head(normal, head, settings.float("logit_cap")? as f32);
    Ok(graph)
}

/// Start of a projection into the residual stream: smaller the more of them there are
/// (GPT-2's rule, 1 / sqrt(2 layers)).
pub fn residual_init(layers: usize) -> Init {
    Init::Linear {
        gain: 1.0 / (2.0 * layers as f32).sqrt(),
    }
}

/// Width of the MLP by the options `mlp_hidden` and `mlp_ratio`.
///
/// # Errors
/// A missing option.
pub fn mlp_hidden(settings: &Settings) -> Result<usize> {
    let by_ratio = (settings.d_model() as f64 * settings.float("mlp_ratio")?).round();
    Ok(match settings.size("mlp_hidden")? {
        0 => by_ratio.max(1.0) as usize,
        hidden => hidden,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MlpKind {
    Gated(Activation),
    Gelu,
    None,
    Own,
}

struct Mlp {
    kind: MlpKind,
    hidden: usize,
    bias: bool,
    layers: usize,
}

impl Mlp {
    fn new(settings: &Settings) -> Result<Self> {
        let kind = match settings.text("mlp")? {
            "gated" => MlpKind::Gated(Activation::Silu),
            "geglu" => MlpKind::Gated(Activation::Gelu),
            "gelu" => MlpKind::Gelu,
            "none" => MlpKind::None,
            _ => MlpKind::Own,
        };
        Ok(Self {
            kind,
            hidden: mlp_hidden(settings)?,
            bias: settings.boolean("mlp_bias")?,
            layers: settings.layers(),
        })
    }

    /// `x + mlp(norm(x))`, or x where there is no MLP.
    fn forward(
        &self,
        graph: &mut Graph,
        x: Tensor,
        norm: NormKind,
        epsilon: f32,
        mixer: &dyn Mixer,
        layer: usize,
    ) -> Tensor {
        if self.kind == MlpKind::None {
            return x;
        }
        let normal = graph.norm("norm2", x, norm, epsilon);
        if self.kind == MlpKind::Own {
            let own =
                graph.mixer(|graph| graph.scope("mlp", |graph| mixer.mlp(graph, normal, layer)));
            return graph.add(x, own);
        }
        let down = graph.scope("mlp", |graph| {
            let hidden = if let MlpKind::Gated(activation) = self.kind {
                let gate = graph.linear("gate", normal, self.hidden, self.bias);
                let up = graph.linear("up", normal, self.hidden, self.bias);
                graph.gate(gate, up, activation)
            } else {
                let up = graph.linear("up", normal, self.hidden, self.bias);
                graph.activation(up, Activation::Gelu)
            };
            graph.linear_with(
                "down",
                hidden,
                x.cols(),
                self.bias,
                residual_init(self.layers),
            )
        });
        graph.add(x, down)
    }
}
