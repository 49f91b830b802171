//! The conformance suite, in-process.

use longhaul_emulator::plugin::Emulated;

longhaul_conformance::plugin!(longhaul_hyena::Plugin);

/// The checks that reach all of a model: it is made of the kit's operations, each of which has its own test on the
/// emulated device.
#[test]
fn conformance_on_the_emulated_device() {
    let checks = ["build", "gradients", "chunks", "fork"];
    longhaul_conformance::run_in_process_only::<Emulated<longhaul_hyena::Plugin>>(&checks);
}
