//! A plugin without the kit whose compute is C++, compiled by its build script: gated exponential
//! averages. `ema.cpp` computes; `native` is the only module that calls it.

mod model;
mod native;
mod options;
mod session;

use longhaul_plugin_api::author::{Model, Plugin, Result};
use longhaul_plugin_api::data::ModelConfig;
use longhaul_plugin_api::metadata::LibraryInfo;

/// This crate's plugin.
pub struct Ema;

impl Plugin for Ema {
    fn describe() -> LibraryInfo {
        options::library()
    }

    fn build(config: &ModelConfig) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Averages::build(config)?))
    }
}

longhaul_plugin_api::export_plugin!(crate::Ema, "C++");
