//! The conformance suite, in-process.

use longhaul_emulator::plugin::Emulated;
use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::model::Library;

longhaul_conformance::plugin!(longhaul_mamba::Plugin);

/// One architecture of the plugin.
struct Only<const MAMBA3: bool>;

impl<const MAMBA3: bool> Library for Only<MAMBA3> {
    const NAME: &'static str = "longhaul-mamba";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const AUTHORS: &'static str = env!("CARGO_PKG_AUTHORS");

    fn architectures() -> Vec<Architecture> {
        match MAMBA3 {
            true => vec![longhaul_mamba::mamba3()],
            false => vec![longhaul_mamba::architecture()],
        }
    }
}

#[test]
fn conformance_on_the_emulated_device() {
    longhaul_emulator::plugin::check::<Only<false>>();
}

/// The checks that reach all of a model: it is made of the kit's operations, each of which has its own test on the
/// emulated device.
#[test]
fn conformance_of_mamba3_on_the_emulated_device() {
    let checks = ["build", "gradients", "chunks", "fork"];
    longhaul_conformance::run_in_process_only::<Emulated<Only<true>>>(&checks);
}
