//! A plugin without the kit: the minimal gated recurrent unit on candle. `options` says what it is,
//! `network` computes it, `model` trains it, `session` reads with it.

mod model;
mod network;
mod options;
mod session;

use longhaul_plugin_api::author::{Model, Plugin, Result};
use longhaul_plugin_api::data::ModelConfig;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::LibraryInfo;

/// This crate's plugin.
pub struct MinGru;

impl Plugin for MinGru {
    fn describe() -> LibraryInfo {
        options::library()
    }

    fn build(config: &ModelConfig) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Trainable::build(config)?))
    }
}

longhaul_plugin_api::export_plugin!(crate::MinGru, "candle");

/// What candle refused, as an error that may cross the boundary.
fn refused(error: candle_core::Error) -> PluginError {
    PluginError::internal(format!("candle: {error}"))
}
