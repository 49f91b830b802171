//! The conformance suite, in-process.

longhaul_conformance::plugin!(longhaul_xlstm::Plugin);

#[test]
fn conformance_on_the_emulated_device() {
    longhaul_emulator::plugin::check::<longhaul_xlstm::Plugin>();
}
