//! A plugin on the bare ABI whose one architecture, `faulty`, works, and misbehaves in exactly one way when its
//! option `fault` says so. The table of what each fault must lead to is in `tests/README.md`.
//!
//! It must not use the kit, and must not break in any way that was not asked for.

use longhaul_plugin_api::author::{Model, Plugin, Result};
use longhaul_plugin_api::data::ModelConfig;
use longhaul_plugin_api::metadata::LibraryInfo;

mod fault;
mod model;
mod optimizer;
mod options;
mod processes;
mod session;
mod weights;

struct Faulty;

impl Plugin for Faulty {
    fn describe() -> LibraryInfo {
        options::library()
    }

    fn build(config: &ModelConfig) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Averages::build(config)?))
    }
}

longhaul_plugin_api::export_plugin!(crate::Faulty, "no kit");
