//! The standard backbone: embedding, pre-norm residual blocks of a mixer and an MLP, final norm and
//! head. It is the same for every architecture, so that only the mixer differs in a comparison.

use longhaul_plugin_api::abi_stable::std_types::{RString, Tuple2};
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{Device, DeviceKind, ModelConfig};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, Family, NAIVE, OptionSpec, StateGrowth, capability,
};
use longhaul_plugin_api::panics::caught;

use crate::engine::graph::{Graph, Program};
use crate::engine::params::Init;
use crate::engine::tensor::Tensor;
use crate::initial::Starts;
use crate::ops::elementwise::Activation;
use crate::ops::norm::NormKind;
use crate::options::{Field, Settings, choice, or_usual};
use crate::precision::Precision;

/// The part of a block that mixes positions: what an architecture is.
pub trait Mixer: Send + Sync {
    /// Records the mixer of a block: x is normalised, `[B, T, D]`; the result, of the same shape, is added to
    /// the residual stream.
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor;

    /// Records the MLP that the architecture brings itself, chosen by the option `mlp` when
    /// [`Architecture::default_mlp`] names it: x is normalised, `[B, T, D]`; the result, of the same
    /// shape, is added to the residual stream. None where it brings none.
    fn mlp(&self, _block: &mut Block<'_>, _x: Tensor) -> Option<Tensor> {
        None
    }

    /// Whether a block has the MLP that the option `mlp` chooses: not where the mixer is a whole block by itself.
    fn has_mlp(&self, _layer: usize) -> bool {
        true
    }

    /// What happens to the embedding before the first block (learned positions).
    fn embed(&self, _graph: &mut Graph, x: Tensor) -> Tensor {
        x
    }

    /// How the backbone's own matrices start, where the reference implementation has them otherwise and the option
    /// `init` asks for it.
    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        usual
    }

    /// Fewest rows of a micro-batch that its recurrence needs to be efficient.
    fn min_rows(&self) -> usize {
        1
    }
}

/// A block of the backbone while it is recorded.
pub struct Block<'a> {
    /// Where its operations are recorded.
    pub graph: &'a mut Graph,
    /// Its number, from 0.
    pub layer: usize,
    /// Number of blocks in the model.
    pub layers: usize,
}

impl<'a> Block<'a> {
    /// Block `layer` of a model of `layers`.
    pub fn new(graph: &'a mut Graph, layer: usize, layers: usize) -> Self {
        Self {
            graph,
            layer,
            layers,
        }
    }

    /// Leaves a tensor for the blocks after this one, in the place of what had that name.
    pub fn share(&mut self, name: &'static str, tensor: Tensor) {
        self.graph.across_blocks.insert(name, tensor);
    }

    /// The tensor that a block before this one, or this one, has left under a name.
    pub fn shared(&self, name: &'static str) -> Option<Tensor> {
        self.graph.across_blocks.get(name).copied()
    }

    /// Records what the architecture's author has written, under a name.
    fn author<R>(&mut self, name: &str, part: impl FnOnce(&mut Block<'_>) -> R) -> R {
        let (layer, layers) = (self.layer, self.layers);
        let part = |graph: &mut Graph| part(&mut Block::new(graph, layer, layers));
        self.graph.mixer(|graph| graph.scope(name, part))
    }
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
    /// The MLP where the user does not choose: `gated`, `geglu`, `gelu`, `none`, or another word for
    /// one of the architecture's own, see [`Mixer::mlp`].
    pub default_mlp: &'static str,
    /// Makes the mixer, or refuses an option.
    pub mixer: fn(&Settings) -> Result<Box<dyn Mixer>>,
}

impl Architecture {
    /// Every option: its own, then the backbone's.
    pub fn all_options(&self) -> Vec<OptionSpec> {
        let backbone = Backbone {
            mlp: MlpWord(self.default_mlp.into()),
            ..Backbone::default()
        };
        let own = self.options.iter().cloned();
        own.chain(backbone.specs()).collect()
    }

    /// The description that crosses the boundary. Devices, state and the reference form are what a model at
    /// the default options records.
    pub fn info(&self) -> ArchitectureInfo {
        let on_device = |graph: &mut Graph| graph.want_device(Precision::default());
        let program = self.sketch(on_device);
        // What has a naive form alone is its own reference, and nothing is held to anything.
        let own = program.as_ref().map_or(0, |program| program.references);
        let has_reference = self
            .sketch(Graph::want_reference)
            .is_some_and(|program| program.references > own);
        let naive = program.iter().flat_map(|program| &program.naive);
        let naive = naive.map(|&name| Tuple2(NAIVE.into(), name.into()));
        let extra: Vec<Tuple2<RString, RString>> = naive.collect();
        let has_kernels = program
            .as_ref()
            .is_some_and(|program| program.check_device_form().is_ok());
        let mut devices = vec!["cpu".into()];
        devices.extend(has_kernels.then(|| "cuda".into()));
        let mut capabilities = vec![
            capability::TRAIN.into(),
            capability::FORK.into(),
            capability::EXPORT_STATE.into(),
            capability::EXPORT_TRAINING.into(),
        ];
        capabilities.extend(has_reference.then(|| capability::REFERENCE.into()));
        let jumps = program.as_ref().is_some_and(Program::jumps);
        capabilities.extend(jumps.then(|| capability::JUMPS.into()));
        ArchitectureInfo {
            name: self.name.into(),
            title: self.title.into(),
            family: self.family,
            citation: self.citation.into(),
            options: self.all_options().into(),
            state_growth: program.map_or(StateGrowth::Constant, |program| program.state_growth()),
            devices: devices.into(),
            capabilities: capabilities.into(),
            extra: extra.into(),
        }
    }

    /// What a model at the default options records, at the first of some usual widths that they allow. None
    /// where none does or recording fails, which building such a model then says.
    fn sketch(&self, ask: impl Fn(&mut Graph)) -> Option<Program> {
        let options = self.all_options().into_iter();
        let options = options.map(|option| Tuple2(option.name, option.kind.default_value()));
        let mut config = ModelConfig {
            architecture: self.name.into(),
            options: options.collect(),
            vocab: 2,
            d_model: 0,
            // As many as a pattern of kinds of layers needs to show all of them.
            layers: 24,
            max_train_length: 64,
            seed: 0,
            device: Device {
                kind: DeviceKind::Cpu,
                index: 0,
                threads: 1,
            },
            extra: Vec::new().into(),
        };
        [64, 128, 256, 512, 768, 1024]
            .into_iter()
            .find_map(|width| {
                config.d_model = width;
                let mut graph = Graph::sketch();
                ask(&mut graph);
                let recorded = caught(|| {
                    let settings = Settings::new(&config);
                    let mixer = (self.mixer)(&settings)?;
                    record(&settings, mixer.as_ref(), &mut graph)
                });
                recorded.ok().map(|()| graph.program)
            })
    }
}

crate::options! {
    pub(crate) enum Norm {
        Rms = "rmsnorm",
        Layer = "layernorm",
    }

    /// The options that every architecture on this backbone has.
    pub(crate) struct Backbone {
        norm: Norm => "norm before every part of a block";
        norm_epsilon: f32 = 1e-5, 1e-12..=1e-1 => "epsilon of the norms";
        final_norm_epsilon: f32 = 0.0, 0.0..=1e-1 => "epsilon of the norm before the head; 0 is norm_epsilon";
        mlp: MlpWord => "MLP of a block: SwiGLU, GeGLU, GELU, none, or the architecture's own";
        mlp_ratio: f64 = 4.0, 0.25..=64.0 => "width of the MLP over the model width";
        mlp_hidden: usize = 0, 0..=1 << 20 => "width of the MLP; 0 is mlp_ratio times the model width";
        mlp_bias: bool = false => "biases in the MLP";
        tied: bool = false => "head shares the embedding's weight";
        padding_token: i64 = -1, -1..=i64::from(u32::MAX)
            => "token whose embedding is not trained by reading it; -1 is none";
        embedding_scale: f32 = 1.0, 1e-6..=1e6 => "factor on the embedding";
        logit_cap: f32 = 0.0, 0.0..=1e6 => "c of the capped logits c tanh(logit / c); 0 is no cap";
    }
}

/// The words of the option `mlp` that every architecture has.
const MLPS: [&str; 4] = ["gated", "geglu", "gelu", "none"];

/// A word of the option `mlp`: one of these, or the architecture's own.
#[derive(Debug, Clone, Default)]
pub(crate) struct MlpWord(String);

impl Field for MlpWord {
    type Limits = ();

    fn specs(&self, name: &str, (): (), help: &str) -> Vec<OptionSpec> {
        let own = Some(self.0.as_str()).filter(|own| !MLPS.contains(own));
        choice(name, &self.0, MLPS.into_iter().chain(own), help)
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        String::read(settings, name).map(Self)
    }
}

impl Backbone {
    /// The options of a model, also where a part of a hybrid asks.
    fn of(settings: &Settings) -> Result<Self> {
        Self::read(&settings.whole())
    }

    fn mlp_hidden(&self, d_model: usize) -> usize {
        let by_ratio = (d_model as f64 * self.mlp_ratio).round();
        or_usual(self.mlp_hidden, by_ratio.max(1.0) as usize)
    }
}

/// Traces a whole model.
///
/// # Errors
/// A missing option.
pub fn trace(settings: &Settings, mixer: &dyn Mixer) -> Result<Graph> {
    traced(settings, mixer, Graph::new(settings.config.seed))
}

/// Records a model into a graph; a panic or a bug is told with the place it had come to.
fn traced(settings: &Settings, mixer: &dyn Mixer, mut graph: Graph) -> Result<Graph> {
    match caught(|| record(settings, mixer, &mut graph)) {
        Ok(()) => Ok(graph),
        Err(error) => Err(error.within(&graph.place())),
    }
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
    traced(settings, mixer, graph)
}

/// Records a whole model into a graph.
pub(crate) fn record(settings: &Settings, mixer: &dyn Mixer, graph: &mut Graph) -> Result<()> {
    let (d_model, layers) = (settings.d_model(), settings.layers());
    let vocab = settings.config.vocab as usize;
    let options = Backbone::of(settings)?;
    let norm = match options.norm {
        Norm::Layer => NormKind::Layer,
        Norm::Rms => NormKind::Rms,
    };
    let epsilon = options.norm_epsilon;
    let starts = mixer.starts(settings, Starts::usual(settings));
    let mlp = Mlp::new(&options, d_model, starts.mlp_in, starts.mlp_out);
    if settings.wants_reference() {
        graph.want_reference();
    }
    let table = graph.param("embedding.weight", &[vocab, d_model], starts.embedding);
    let padding = u32::try_from(options.padding_token).ok();
    let embedded = graph.embedding(table, padding);
    let embedded = graph.scale(embedded, options.embedding_scale);
    let mut x = graph.mixer(|graph| mixer.embed(graph, embedded));
    check_width("Mixer::embed", x, d_model)?;
    for layer in 0..layers {
        x = graph.scope(format!("layers.{layer}"), |graph| {
            let normal = graph.norm("norm1", x, norm, epsilon);
            let mut block = Block::new(graph, layer, layers);
            let mixed = block.author("mixer", |block| mixer.forward(block, normal));
            check_width("Mixer::forward", mixed, d_model)?;
            let x = block.graph.add(x, mixed);
            mlp.forward(&mut block, x, norm, epsilon, mixer)
        })?;
    }
    let wanted = graph.select_scored(x);
    let last_epsilon = match options.final_norm_epsilon {
        0.0 => epsilon,
        own => own,
    };
    let normal = graph.norm("norm", wanted, norm, last_epsilon);
    let head = if options.tied {
        table
    } else {
        graph.param("head.weight", &[vocab, d_model], starts.head)
    };
    graph.head(normal, head, options.logit_cap);
    Ok(())
}

/// Refuses what an author's function gave where it is not as wide as the residual stream.
fn check_width(function: &str, given: Tensor, d_model: usize) -> Result<()> {
    if given.cols() == d_model {
        return Ok(());
    }
    Err(PluginError::internal(format!(
        "`{function}` gave {} columns, and the model is {d_model} wide: its result goes into the residual stream",
        given.cols()
    )))
}

/// Start of a projection into the residual stream: smaller the more of them there are
/// (GPT-2's rule, 1 / sqrt(2 layers)).
pub fn residual_init(layers: usize) -> Init {
    Init::Linear {
        gain: 1.0 / (2.0 * layers as f32).sqrt(),
    }
}

/// Width of the MLP by the options `mlp_hidden` and `mlp_ratio`, also where a part of a hybrid asks.
///
/// # Errors
/// A missing option.
pub fn mlp_hidden(settings: &Settings) -> Result<usize> {
    Ok(Backbone::of(settings)?.mlp_hidden(settings.d_model()))
}

/// Epsilon of the backbone's norms, also where a part of a hybrid asks.
///
/// # Errors
/// A missing option.
pub fn norm_epsilon(settings: &Settings) -> Result<f32> {
    Ok(Backbone::of(settings)?.norm_epsilon)
}

/// Whether the blocks have an MLP, also where a part of a hybrid asks.
///
/// # Errors
/// A missing option.
pub fn has_mlp(settings: &Settings) -> Result<bool> {
    Ok(Backbone::of(settings)?.mlp.0 != "none")
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
    /// The start of each matrix into it.
    start_in: Init,
    /// The start of the matrix out of it.
    start_out: Init,
}

impl Mlp {
    fn new(options: &Backbone, d_model: usize, start_in: Init, start_out: Init) -> Self {
        let kind = match options.mlp.0.as_str() {
            "gated" => MlpKind::Gated(Activation::Silu),
            "geglu" => MlpKind::Gated(Activation::Gelu),
            "gelu" => MlpKind::Gelu,
            "none" => MlpKind::None,
            _ => MlpKind::Own,
        };
        Self {
            kind,
            hidden: options.mlp_hidden(d_model),
            bias: options.mlp_bias,
            start_in,
            start_out,
        }
    }

    /// `x + mlp(norm(x))`, or x where there is no MLP.
    fn forward(
        &self,
        block: &mut Block<'_>,
        x: Tensor,
        norm: NormKind,
        epsilon: f32,
        mixer: &dyn Mixer,
    ) -> Result<Tensor> {
        if self.kind == MlpKind::None || !mixer.has_mlp(block.layer) {
            return Ok(x);
        }
        let normal = block.graph.norm("norm2", x, norm, epsilon);
        if self.kind == MlpKind::Own {
            let own = block.author("mlp", |block| mixer.mlp(block, normal));
            let own = own.ok_or_else(|| {
                PluginError::internal(
                    "the option `mlp` has a word of the architecture's own (`default_mlp`), and its mixer has \
                     no `mlp`: write gated, geglu, gelu or none, or record one in `Mixer::mlp`",
                )
            })?;
            check_width("Mixer::mlp", own, x.cols())?;
            return Ok(block.graph.add(x, own));
        }
        let graph = &mut *block.graph;
        let down = graph.scope("mlp", |graph| {
            let (gate, up) = (("gate", self.hidden), ("up", self.hidden));
            let mut into =
                |layers: &[_]| graph.linears_with(layers, normal, self.bias, &self.start_in);
            let hidden = if let MlpKind::Gated(activation) = self.kind {
                let into = into(&[gate, up]);
                graph.gate(into[0], into[1], activation)
            } else {
                let up = into(&[up])[0];
                graph.activation(up, Activation::Gelu)
            };
            let start = self.start_out.clone();
            graph.linear_with("down", hidden, x.cols(), self.bias, start)
        });
        Ok(graph.add(x, down))
    }
}
