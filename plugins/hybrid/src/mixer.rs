//! One mixer that hands each layer to the mixer of its kind.

use longhaul_plugin_kit::api::metadata::{Family, OptionSpec};
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::options::{Settings, choice, text};
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Mixer, PluginError, Result, Tensor, pattern,
};

use crate::preset;

/// The architecture `hybrid`.
pub fn architecture() -> Architecture {
    let mut options = vec![
        text(
            "pattern",
            "mamba2+attention",
            "kinds of the layers, repeated: mamba2*3+attention",
        ),
        choice(
            "preset",
            "none",
            &["none", "mamba2attn"],
            "a published layout instead of a pattern",
        ),
    ];
    for (kind, part) in parts() {
        options.extend(part.options.into_iter().map(|option| OptionSpec {
            name: format!("{kind}.{}", option.name).into(),
            help: format!("{kind} layers: {}", option.help).into(),
            kind: option.kind,
        }));
    }
    Architecture {
        name: "hybrid",
        title: "A pattern of attention, state-space and recurrent layers",
        family: Family::Hybrid,
        citation: CITATION,
        options,
        default_mlp: "none",
        mixer: |settings| Ok(Box::new(Hybrid::new(settings)?)),
    }
}

const CITATION: &str = "@inproceedings{dao2024transformers,
  title={Transformers are {SSM}s: Generalized Models and Efficient Algorithms Through Structured State Space Duality},
  author={Dao, Tri and Gu, Albert},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2405.21060}
}";

/// The architectures that a pattern may name, under the names it uses.
fn parts() -> [(&'static str, Architecture); 4] {
    [
        ("attention", longhaul_transformer::architecture()),
        ("lstm", longhaul_lstm::architecture()),
        ("mamba", longhaul_mamba::architecture()),
        ("mamba2", longhaul_mamba2::architecture()),
    ]
}

/// The names of the parts.
fn kinds_of_layer() -> Vec<&'static str> {
    parts().iter().map(|(kind, _)| *kind).collect()
}

struct Hybrid {
    /// The kinds in use with their mixers.
    mixers: Vec<(&'static str, Box<dyn Mixer>)>,
    /// Each layer's index into `mixers`.
    layers: Vec<usize>,
}

impl Hybrid {
    fn new(settings: &Settings) -> Result<Self> {
        let count = settings.layers();
        let kinds = match settings.text("preset")? {
            "mamba2attn" => preset::mamba2attn(count),
            _ => pattern::parse(settings.text("pattern")?, &kinds_of_layer())
                .and_then(|pattern| pattern::deal(&pattern, count))
                .map_err(PluginError::bad_option)?,
        };
        let mut mixers: Vec<(&'static str, Box<dyn Mixer>)> = Vec::new();
        for (kind, part) in parts() {
            if kinds.contains(&kind) {
                mixers.push((kind, (part.mixer)(&settings.part(kind))?));
            }
        }
        let index = |kind| mixers.iter().position(|(known, _)| *known == kind);
        let layers = kinds.into_iter().filter_map(index).collect();
        Ok(Self { mixers, layers })
    }
}

impl Mixer for Hybrid {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        self.mixers[self.layers[block.layer]].1.forward(block, x)
    }

    fn embed(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        self.mixers
            .iter()
            .fold(x, |x, (_, mixer)| mixer.embed(graph, x))
    }

    fn starts(&self, settings: &Settings, usual: Starts) -> Starts {
        self.mixers.iter().fold(usual, |starts, (kind, mixer)| {
            mixer.starts(&settings.part(kind), starts)
        })
    }

    fn min_rows(&self) -> usize {
        self.mixers
            .iter()
            .map(|(_, mixer)| mixer.min_rows())
            .max()
            .unwrap_or(1)
    }
}
