//! What the library says of itself, and the options read back from a configuration.

use longhaul_plugin_api::abi_stable::std_types::RVec;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{DeviceKind, ModelConfig};
use longhaul_plugin_api::error::{ErrorKind, PluginError};
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, Family, LibraryInfo, OptionKind, OptionSpec, OptionValue, StateGrowth,
    capability,
};

const CITATION: &str = "@article{feng2024rnns,
  title={Were {RNN}s All We Needed?},
  author={Feng, Leo and Tung, Frederick and Ahmed, Mohamed Osama and Bengio, Yoshua and Hajimirsadeghi, Hossein},
  journal={arXiv preprint arXiv:2410.01201}, year={2024}
}";

/// The library's description.
pub fn library() -> LibraryInfo {
    LibraryInfo {
        name: env!("CARGO_PKG_NAME").into(),
        version: env!("CARGO_PKG_VERSION").into(),
        licence: env!("CARGO_PKG_LICENSE").into(),
        authors: RVec::from(vec![env!("CARGO_PKG_AUTHORS").into()]),
        architectures: RVec::from(vec![architecture()]),
        extra: RVec::new(),
    }
}

fn architecture() -> ArchitectureInfo {
    let expand = OptionKind::Integer {
        default: 1,
        min: 1,
        max: 16,
    };
    let update_bias = OptionKind::Float {
        default: -1.0,
        min: -20.0,
        max: 20.0,
    };
    ArchitectureInfo {
        name: "candle-mingru".into(),
        title: "Minimal gated recurrent unit, on candle".into(),
        family: Family::LinearRnn,
        citation: CITATION.into(),
        options: RVec::from(vec![
            option("expand", "width of the state over the model's", expand),
            option(
                "update_bias",
                "start of the update gate's bias; lower remembers longer",
                update_bias,
            ),
        ]),
        state_growth: StateGrowth::Constant,
        devices: RVec::from(vec!["cpu".into()]),
        capabilities: [
            capability::TRAIN,
            capability::FORK,
            capability::EXPORT_STATE,
        ]
        .into_iter()
        .map(Into::into)
        .collect(),
        extra: RVec::new(),
    }
}

fn option(name: &str, help: &str, kind: OptionKind) -> OptionSpec {
    OptionSpec {
        name: name.into(),
        help: help.into(),
        kind,
    }
}

/// Sizes of a model and where it starts.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// V, token ids.
    pub vocab: usize,
    /// D, model width.
    pub d_model: usize,
    /// H, width of the state.
    pub hidden: usize,
    /// Residual blocks.
    pub layers: usize,
    /// Start of the update gate's bias.
    pub update_bias: f32,
    /// Seed of the initialisation.
    pub seed: u64,
}

impl Settings {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Another device than the CPU; an option missing or of another type; a size of 0.
    pub fn read(config: &ModelConfig) -> Result<Self> {
        if config.device.kind != DeviceKind::Cpu {
            return Err(PluginError::new(
                ErrorKind::Device,
                format!(
                    "candle-mingru runs on cpu only, not on {}; give --device cpu",
                    config.device
                ),
            ));
        }
        let (mut expand, mut update_bias) = (None, None);
        for pair in &config.options {
            match (pair.0.as_str(), &pair.1) {
                ("expand", OptionValue::Integer(value)) => expand = usize::try_from(*value).ok(),
                ("update_bias", OptionValue::Float(value)) => update_bias = Some(*value as f32),
                (name, value) => {
                    return Err(PluginError::bad_option(format!(
                        "option `{name}` with value `{value}` is not one of expand, update_bias"
                    )));
                }
            }
        }
        let (Some(expand), Some(update_bias)) = (expand, update_bias) else {
            return Err(PluginError::bad_option(
                "the options expand and update_bias are both needed, each within its limits",
            ));
        };
        let d_model = config.d_model as usize;
        let settings = Self {
            vocab: config.vocab as usize,
            d_model,
            hidden: expand * d_model,
            layers: config.layers as usize,
            update_bias,
            seed: config.seed,
        };
        if settings.vocab == 0 || settings.hidden == 0 || settings.layers == 0 {
            return Err(PluginError::bad_option(format!(
                "vocab {}, d_model {d_model}, expand {expand} and layers {} must all be at least 1",
                settings.vocab, settings.layers
            )));
        }
        Ok(settings)
    }
}
