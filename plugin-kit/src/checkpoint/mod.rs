//! From a Hugging Face `config.json` to a [`CheckpointPlan`]: what plugins need to say which tensor
//! becomes which parameter. It reads no tensor.
//!
//! **Every key is accounted for.** A key that a format reads is honoured, or its value refused by name. Of the
//! others, `HARMLESS` and the format's own harmless keys say nothing about what is computed;
//! `MEANINGFUL` ones do in other families or other software, and are refused unless their value changes
//! nothing; all that remain are named in a warning, since refusing every note that a trainer left in a
//! config would refuse most checkpoints.

mod config;
mod keys;
mod plan;
mod rotary;
pub mod state_spaces;

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::checkpoint::{CONFIG_KEY, CheckpointPlan, WARNING, WORDS};
use longhaul_plugin_api::error::PluginError;

pub use config::Config;
pub use plan::Plan;
pub use rotary::Rotary;

/// A kind of checkpoint that a library reads.
pub struct Format {
    /// `model_type` of the `config.json`.
    pub model_type: &'static str,
    /// Keys of this format, beside those of every format, that say nothing about what is computed.
    pub harmless: &'static [&'static str],
    /// Turns a config into a plan.
    pub read: fn(&Config) -> Result<Plan>,
}

/// The plan of a checkpoint by the format of its `model_type`.
///
/// # Errors
/// No such format; a config that is not JSON, or not what the format needs; a key with a meaning that the
/// format does not honour.
pub fn plan(formats: &[Format], model_type: &str, config: &str) -> Result<CheckpointPlan> {
    let format = formats
        .iter()
        .find(|format| format.model_type == model_type)
        .ok_or_else(|| {
            PluginError::unsupported(format!(
                "this plugin reads no checkpoints of model_type `{model_type}`"
            ))
        })?;
    let config = Config::parse(config)?;
    let mut plan = (format.read)(&config)?.into_plan();
    let mut say = |name: &str, text: &str| plan.extra.push(Tuple2(name.into(), text.into()));
    let unknown = config.unknown_keys(format)?;
    if !unknown.is_empty() {
        say(
            WARNING,
            &format!(
                "config.json has keys that a {model_type} is not known to have, and nothing was made of them: {}",
                unknown.join(", ")
            ),
        );
    }
    config.used().iter().for_each(|key| say(CONFIG_KEY, key));
    config
        .known_words()
        .iter()
        .for_each(|text| say(WORDS, text));
    Ok(plan)
}

#[cfg(test)]
mod tests;
