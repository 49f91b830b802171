//! The conformance suite, in-process.

longhaul_conformance::plugin!(longhaul_linear_attention::Plugin);

#[test]
fn conformance_on_the_emulated_device() {
    longhaul_emulator::plugin::check::<longhaul_linear_attention::Plugin>();
}
