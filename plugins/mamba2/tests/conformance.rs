//! The conformance suite, in-process.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::model::Library;

longhaul_conformance::plugin!(longhaul_mamba2::Plugin);

/// All of the library.
struct Mamba2;

impl Library for Mamba2 {
    const NAME: &'static str = "longhaul-mamba2";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const LICENCE: &'static str = env!("CARGO_PKG_LICENSE");
    const AUTHORS: &'static str = env!("CARGO_PKG_AUTHORS");

    fn architectures() -> Vec<Architecture> {
        vec![
            longhaul_mamba2::architecture(),
            longhaul_mamba2::log_linear(),
        ]
    }
}

#[test]
fn conformance_on_the_emulated_device() {
    longhaul_emulator::plugin::check::<Mamba2>();
}
