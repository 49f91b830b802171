//! A library whose probe says that it was built for another machine.

use longhaul_plugin_api::abi::Probe;

static PROBE: Probe = {
    let mut probe = Probe::new("no kit");
    probe.target = [0; 32];
    probe
        .target
        .split_at_mut(13)
        .0
        .copy_from_slice(b"riscv64-linux");
    probe
};

#[unsafe(no_mangle)]
extern "C" fn longhaul_plugin_probe() -> *const Probe {
    &PROBE
}
