//! A plugin whose description contradicts itself: an option's default is outside its limits.

use longhaul_plugin_api::abi_stable::std_types::RVec;
use longhaul_plugin_api::author::{Model, Plugin, Result};
use longhaul_plugin_api::data::ModelConfig;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, Family, LibraryInfo, OptionKind, OptionSpec, StateGrowth,
};

struct Contradiction;

impl Plugin for Contradiction {
    fn describe() -> LibraryInfo {
        let option = OptionSpec {
            name: "state".into(),
            help: "An option whose default is outside its limits.".into(),
            kind: OptionKind::Integer {
                default: 4096,
                min: 1,
                max: 64,
            },
        };
        let architecture = ArchitectureInfo {
            name: "contradiction".into(),
            title: "Describes itself wrongly".into(),
            family: Family::Rnn,
            citation: "@misc{contradiction}".into(),
            options: RVec::from(vec![option]),
            state_growth: StateGrowth::Constant,
            devices: RVec::from(vec!["cpu".into()]),
            capabilities: RVec::new(),
            extra: RVec::new(),
        };
        LibraryInfo {
            name: "longhaul-contradiction".into(),
            version: "0.1.0".into(),
            licence: "MIT OR Apache-2.0".into(),
            authors: RVec::from(vec!["The Longhaul developers".into()]),
            architectures: RVec::from(vec![architecture]),
            extra: RVec::new(),
        }
    }

    fn build(_config: &ModelConfig) -> Result<Box<dyn Model>> {
        Err(PluginError::unsupported("only its description matters"))
    }
}

longhaul_plugin_api::export_plugin!(crate::Contradiction, "no kit");
