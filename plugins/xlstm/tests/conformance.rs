//! The conformance suite, in-process.

use longhaul_emulator::plugin::Emulated;
use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::model::Library;

longhaul_conformance::plugin!(longhaul_xlstm::Plugin);

/// Both blocks of the matrix memory and the scalar one, and the checks that reach all of a model: they are made of the
/// kit's operations, each of which has its own test on the emulated device.
struct OnDevice;

impl Library for OnDevice {
    const NAME: &'static str = "longhaul-xlstm";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const AUTHORS: &'static str = env!("CARGO_PKG_AUTHORS");

    fn architectures() -> Vec<Architecture> {
        vec![longhaul_xlstm::mlstm(), longhaul_xlstm::xlstm()]
    }
}

#[test]
fn conformance_on_the_emulated_device() {
    let checks = ["build", "gradients", "chunks", "fork"];
    longhaul_conformance::run_in_process_only::<Emulated<OnDevice>>(&checks);
}
