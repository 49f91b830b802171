//! A library with a good probe and no root module, as if its dynamic symbols had been stripped.

use longhaul_plugin_api::abi::Probe;

static PROBE: Probe = Probe::new("no kit");

#[unsafe(no_mangle)]
extern "C" fn longhaul_plugin_probe() -> *const Probe {
    &PROBE
}
