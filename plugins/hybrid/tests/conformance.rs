//! The conformance suite, in-process.

use longhaul_emulator::plugin::Emulated;
use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::model::Library;

longhaul_conformance::plugin!(longhaul_hybrid::Plugin);

/// Two of different kinds, and the checks that reach all of a model: every kind has its own plugin's tests on the
/// emulated device.
struct OnDevice;

impl Library for OnDevice {
    const NAME: &'static str = "longhaul-hybrid";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const AUTHORS: &'static str = env!("CARGO_PKG_AUTHORS");

    fn architectures() -> Vec<Architecture> {
        vec![longhaul_hybrid::mamba2attn(), longhaul_hybrid::qwen3_next()]
    }
}

#[test]
fn conformance_on_the_emulated_device() {
    let checks = ["build", "gradients", "chunks", "fork"];
    longhaul_conformance::run_in_process_only::<Emulated<OnDevice>>(&checks);
}
