//! A plugin's models on the emulated device, held against the conformance suite as those on the CPU are.

use std::marker::PhantomData;
use std::sync::Arc;

use longhaul_conformance::CHECKS;
use longhaul_plugin_kit::api::author::{Model, Plugin};
use longhaul_plugin_kit::api::data::ModelConfig;
use longhaul_plugin_kit::api::metadata::LibraryInfo;
use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::cuda::plugin::DeviceKitModel;
use longhaul_plugin_kit::model::{Library, OnKit};
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::{PluginError, Result};

/// A library whose models are built on the emulated device; their reference forms stay on the CPU.
pub struct Emulated<L>(PhantomData<L>);

impl<L: Library> Plugin for Emulated<L> {
    fn describe() -> LibraryInfo {
        OnKit::<L>::describe()
    }

    fn build(config: &ModelConfig) -> Result<Box<dyn Model>> {
        if Settings::new(config).wants_reference() {
            return OnKit::<L>::build(config);
        }
        let architectures = L::architectures();
        let architecture = architectures
            .iter()
            .find(|architecture| architecture.name == config.architecture.as_str())
            .ok_or_else(|| PluginError::bad_option("no such architecture"))?;
        let device: Arc<dyn Device> = Arc::new(crate::Emulator::beside_target());
        let model = DeviceKitModel::new(architecture, config, &device)?;
        Ok(Box::new(model))
    }
}

/// Checks that would take minutes on the emulator: 65,536 tokens.
const TOO_LONG: [&str; 1] = ["long"];

/// Runs the conformance suite on a library's models on the emulated device.
///
/// # Panics
/// With every failed check and what was wrong.
pub fn check<L: Library>() {
    let checks = CHECKS.iter().map(|check| check.name);
    let checks: Vec<&str> = checks.filter(|name| !TOO_LONG.contains(name)).collect();
    longhaul_conformance::run_in_process_only::<Emulated<L>>(&checks);
}
