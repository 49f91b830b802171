//! A library that panics while it makes its root module.

use longhaul_plugin_api::abi::{PluginModuleRef, Probe};
use longhaul_plugin_api::abi_stable::library::{
    __call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult,
};

fn root_module() -> PluginModuleRef {
    panic!("no root module today")
}

extern "C" fn erased_root_module() -> RootModuleResult {
    __call_root_module_loader(root_module)
}

// SAFETY: `erased_root_module` erases a `PluginModuleRef`, the type named here.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
static LIB_HEADER: LibHeader = unsafe {
    LibHeader::from_constructor::<PluginModuleRef>(erased_root_module, CheckTypeLayout::Yes)
};

static PROBE: Probe = Probe::new("no kit");

#[unsafe(no_mangle)]
extern "C" fn longhaul_plugin_probe() -> *const Probe {
    &PROBE
}
