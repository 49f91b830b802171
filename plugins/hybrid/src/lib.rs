//! Hybrids: a pattern of attention, state-space and recurrent layers in one model, made of the mixers
//! of the other plugins. [`pattern`] reads the pattern, `mixer` deals the layers out.

mod checkpoint;
mod mixer;
pub mod pattern;

pub use mixer::architecture;

longhaul_plugin_kit::export!(Plugin, crate::architecture(); crate::checkpoint::FORMATS);
