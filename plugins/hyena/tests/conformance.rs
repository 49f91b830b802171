//! The conformance suite, in-process.

use longhaul_emulator::plugin::Emulated;

longhaul_conformance::plugin!(longhaul_hyena::Plugin);

/// The model as a whole: it is made of the kit's operations, each of which has its own test on the emulated device,
/// gradients included, and a filter's network takes the emulator long.
#[test]
fn conformance_on_the_emulated_device() {
    let checks = ["build", "chunks"];
    longhaul_conformance::run_in_process_only::<Emulated<longhaul_hyena::Plugin>>(&checks);
}
