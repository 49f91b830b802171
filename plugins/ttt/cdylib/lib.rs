//! The plugin's symbols, apart from its crate, which other plugins link.

longhaul_plugin_kit::export!(longhaul_ttt::Plugin);
