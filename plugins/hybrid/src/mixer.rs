//! One mixer that hands each layer to the mixer of its kind.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{
    Architecture, Block, Graph, Mixer, PluginError, Result, Tensor, options, pattern,
};

use crate::kinds;
use crate::layouts::Layout;

options! {
    enum Preset => "the layers of mamba2attn instead of a pattern" {
        None = "none",
        Mamba2Attn = "mamba2attn",
    }

    struct Options {
        pattern: String = "mamba2+attention".into() => "kinds of the layers, repeated: mamba2*3+attention";
        preset: Preset;
    }
}

/// The architecture `hybrid`: any pattern of any kinds.
pub fn architecture() -> Architecture {
    let mut options = Options::default().specs();
    options.extend(kinds::options(&kinds::all(), &[]));
    Architecture {
        name: "hybrid",
        title: "A pattern of attention, state-space and recurrent layers",
        family: Family::Hybrid,
        citation: CITATION,
        options,
        default_mlp: "none",
        mixer: |settings| {
            let Options { pattern, preset } = Options::read(settings)?;
            let layers = match preset {
                Preset::Mamba2Attn => Layout::Mamba2Attn.kinds("mamba2", settings.layers()),
                Preset::None => {
                    let kinds: Vec<&str> = kinds::all().iter().map(|(kind, _)| *kind).collect();
                    dealt(&pattern, &kinds, settings.layers())?
                }
            };
            Ok(Box::new(Hybrid::new(settings, &layers)?))
        },
    }
}

const CITATION: &str = "@inproceedings{dao2024transformers,
  title={Transformers are {SSM}s: Generalized Models and Efficient Algorithms Through Structured State Space Duality},
  author={Dao, Tri and Gu, Albert},
  booktitle={International Conference on Machine Learning}, year={2024}, note={arXiv:2405.21060}
}";

/// The kind of every layer by a pattern of some kinds.
///
/// # Errors
/// A pattern that is none, or longer than the model.
pub fn dealt(text: &str, kinds: &[&'static str], layers: usize) -> Result<Vec<&'static str>> {
    pattern::parse(text, kinds)
        .and_then(|pattern| pattern::deal(&pattern, layers))
        .map_err(PluginError::bad_option)
}

/// Layers of several kinds.
pub struct Hybrid {
    /// The kinds in use with their mixers.
    mixers: Vec<(&'static str, Box<dyn Mixer>)>,
    /// Each layer's index into `mixers`.
    layers: Vec<usize>,
}

impl Hybrid {
    /// The mixers of these layers.
    ///
    /// # Errors
    /// An option that one of them refuses.
    pub fn new(settings: &Settings, layers: &[&'static str]) -> Result<Self> {
        let mut mixers: Vec<(&'static str, Box<dyn Mixer>)> = Vec::new();
        for (kind, part) in kinds::all() {
            if layers.contains(&kind) {
                mixers.push((kind, (part.mixer)(&settings.part(kind))?));
            }
        }
        let index = |kind: &&str| mixers.iter().position(|(known, _)| known == kind);
        let layers = layers.iter().filter_map(index).collect();
        Ok(Self { mixers, layers })
    }
}

impl Mixer for Hybrid {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        self.mixers[self.layers[block.layer]].1.forward(block, x)
    }

    fn has_mlp(&self, layer: usize) -> bool {
        self.mixers[self.layers[layer]].1.has_mlp(layer)
    }

    fn embed(&self, graph: &mut Graph, x: Tensor) -> Tensor {
        // Several of them may have what they call the same.
        self.mixers.iter().fold(x, |x, (kind, mixer)| {
            graph.scope(*kind, |graph| mixer.embed(graph, x))
        })
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
