//! Hybrids: a pattern of attention, state-space and recurrent layers in one model, made of the mixers
//! of the other plugins. `mixer` deals the layers out, `preset` has published layouts.

mod checkpoint;
mod mixer;
mod preset;

pub use mixer::architecture;

longhaul_plugin_kit::plugin!(Plugin, crate::architecture(); crate::checkpoint::FORMATS);
