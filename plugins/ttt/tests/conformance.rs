//! The conformance suite, in-process.

use longhaul_emulator::plugin::Emulated;

longhaul_conformance::plugin!(longhaul_ttt::Plugin);

/// The models as a whole: the kit's test of fast weights holds the kernels, gradients included.
#[test]
fn conformance_on_the_emulated_device() {
    let checks = ["build", "chunks"];
    longhaul_conformance::run_in_process_only::<Emulated<longhaul_ttt::Plugin>>(&checks);
}
