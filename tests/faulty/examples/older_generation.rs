//! A library whose probe is of an older generation of the ABI, and nothing else.

use longhaul_plugin_api::abi::Probe;

static PROBE: Probe = {
    let mut probe = Probe::new("no kit");
    probe.generation = 0;
    probe.api_version = [0; 32];
    probe
        .api_version
        .split_at_mut(5)
        .0
        .copy_from_slice(b"0.9.3");
    probe
};

#[unsafe(no_mangle)]
extern "C" fn longhaul_plugin_probe() -> *const Probe {
    &PROBE
}
