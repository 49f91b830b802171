//! What the library says of itself, and the options read back from a configuration.

use longhaul_plugin_api::abi_stable::std_types::RVec;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::ModelConfig;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, Family, LibraryInfo, OptionKind, OptionSpec, OptionValue, StateGrowth,
    capability,
};

use crate::fault::{Fault, Schedule};

/// The library's description.
pub fn library() -> LibraryInfo {
    LibraryInfo {
        name: "longhaul-faulty".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        licence: "MIT OR Apache-2.0".into(),
        authors: RVec::from(vec!["The Longhaul developers".into()]),
        architectures: RVec::from(vec![architecture()]),
        extra: RVec::new(),
    }
}

fn architecture() -> ArchitectureInfo {
    let words = Fault::WORDS.iter().map(|&word| word.into());
    ArchitectureInfo {
        name: "faulty".into(),
        title: "Decaying averages of embeddings; misbehaves on request".into(),
        family: Family::Rnn,
        citation: "@misc{longhaulfaulty,\n  title = {A deliberately faulty plugin},\n  author = {{The Longhaul developers}},\n  year = {2026}\n}".into(),
        options: RVec::from(vec![
            option(
                "fault",
                "How to misbehave.",
                OptionKind::Choice {
                    default: "none".into(),
                    choices: words.collect(),
                },
            ),
            option(
                "after",
                "First training step, or first token of a feed, at which to misbehave.",
                OptionKind::Integer {
                    default: 0,
                    min: 0,
                    max: 1 << 30,
                },
            ),
            option(
                "decay",
                "Share of the average that survives a token, at initialisation.",
                OptionKind::Float {
                    default: 0.9,
                    min: 0.01,
                    max: 0.99,
                },
            ),
        ]),
        state_growth: StateGrowth::Constant,
        devices: RVec::from(vec!["cpu".into()]),
        capabilities: [
            capability::TRAIN,
            capability::FORK,
            capability::EXPORT_STATE,
            capability::EXPORT_TRAINING,
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

/// The options of a configuration.
pub struct Options {
    /// How and when to misbehave.
    pub schedule: Schedule,
    /// Share of the average that survives a token, at initialisation.
    pub decay: f32,
}

impl Options {
    /// Reads a configuration's options.
    ///
    /// # Errors
    /// An option is missing, unknown or of another type.
    pub fn read(config: &ModelConfig) -> Result<Self> {
        let (mut fault, mut after, mut decay) = (None, None, None);
        for pair in &config.options {
            match (pair.0.as_str(), &pair.1) {
                ("fault", OptionValue::Text(word)) => fault = Fault::from_word(word.as_str()),
                ("after", OptionValue::Integer(value)) => after = u64::try_from(*value).ok(),
                ("decay", OptionValue::Float(value)) => decay = Some(*value as f32),
                (name, value) => {
                    return Err(PluginError::bad_option(format!(
                        "option `{name}` with value `{value}` is not one of fault, after, decay"
                    )));
                }
            }
        }
        let (Some(fault), Some(after), Some(decay)) = (fault, after, decay) else {
            return Err(PluginError::bad_option(
                "the options fault, after and decay are all needed, each within its limits",
            ));
        };
        Ok(Self {
            schedule: Schedule { fault, after },
            decay,
        })
    }
}
