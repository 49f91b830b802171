//! A plugin that panics when asked to describe itself.

use longhaul_plugin_api::author::{Model, Plugin, Result};
use longhaul_plugin_api::data::ModelConfig;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::LibraryInfo;

struct Speechless;

impl Plugin for Speechless {
    fn describe() -> LibraryInfo {
        panic!("at a loss for words")
    }

    fn build(_config: &ModelConfig) -> Result<Box<dyn Model>> {
        Err(PluginError::unsupported("only its description matters"))
    }
}

longhaul_plugin_api::export_plugin!(crate::Speechless, "no kit");
