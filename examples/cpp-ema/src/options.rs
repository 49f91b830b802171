//! What the library says of itself, and the options read back from a configuration.

use longhaul_plugin_api::abi_stable::std_types::RVec;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{DeviceKind, ModelConfig};
use longhaul_plugin_api::error::{ErrorKind, PluginError};
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, Family, LibraryInfo, OptionKind, OptionSpec, OptionValue, StateGrowth,
    capability,
};

use crate::native::Sizes;

const CITATION: &str = "@article{ma2022mega,
  title={Mega: Moving Average Equipped Gated Attention},
  author={Ma, Xuezhe and Zhou, Chunting and Kong, Xiang and He, Junxian and Gui, Liangke and Neubig, Graham and May, Jonathan and Zettlemoyer, Luke},
  journal={arXiv preprint arXiv:2209.10655}, year={2022}
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
    let decay = OptionKind::Float {
        default: 0.9,
        min: 0.01,
        max: 0.999,
    };
    ArchitectureInfo {
        name: "cpp-ema".into(),
        title: "Gated exponential averages, in C++".into(),
        family: Family::LinearRnn,
        citation: CITATION.into(),
        options: RVec::from(vec![option(
            "decay",
            "share of an average that survives a token, at the start; channels spread around it",
            decay,
        )]),
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
    /// V, D and blocks.
    pub sizes: Sizes,
    /// Share of an average that survives a token, at the start.
    pub decay: f32,
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
                    "cpp-ema runs on cpu only, not on {}; give --device cpu",
                    config.device
                ),
            ));
        }
        let mut decay = None;
        for pair in &config.options {
            match (pair.0.as_str(), &pair.1) {
                ("decay", OptionValue::Float(value)) => decay = Some(*value as f32),
                (name, value) => {
                    return Err(PluginError::bad_option(format!(
                        "option `{name}` with value `{value}` is not decay"
                    )));
                }
            }
        }
        let decay = decay.ok_or_else(|| {
            PluginError::bad_option("the option decay is needed, within its limits")
        })?;
        let sizes = Sizes {
            vocab: config.vocab as usize,
            d_model: config.d_model as usize,
            layers: config.layers as usize,
        };
        if sizes.vocab == 0 || sizes.d_model == 0 || sizes.layers == 0 {
            return Err(PluginError::bad_option(format!(
                "vocab {}, d_model {} and layers {} must all be at least 1",
                sizes.vocab, sizes.d_model, sizes.layers
            )));
        }
        Ok(Self {
            sizes,
            decay,
            seed: config.seed,
        })
    }
}
