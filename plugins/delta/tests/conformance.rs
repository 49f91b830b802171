//! The conformance suite, in-process.

use longhaul_emulator::plugin::Emulated;
use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::model::Library;

longhaul_conformance::plugin!(longhaul_delta::Plugin);

/// Those that use most of what a state matrix has, and the checks that reach all of a model: all are made of the kit's
/// operations, each of which has its own test on the emulated device, but for `mesa-net`.
struct OnDevice;

impl Library for OnDevice {
    const NAME: &'static str = "longhaul-delta";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const AUTHORS: &'static str = env!("CARGO_PKG_AUTHORS");

    fn architectures() -> Vec<Architecture> {
        vec![
            longhaul_delta::delta_product(),
            longhaul_delta::gdn2(),
            longhaul_delta::mesa_net(),
        ]
    }
}

#[test]
fn conformance_on_the_emulated_device() {
    let checks = ["build", "gradients", "chunks", "fork"];
    longhaul_conformance::run_in_process_only::<Emulated<OnDevice>>(&checks);
}
