//! Softmax attention (arXiv 1706.03762) with the position schemes that decide how it extrapolates:
//! rotary, ALiBi, none, learned absolute, Hard-ALiBi. `mixer` says what a layer is; the operation is
//! the kit's, and [`mod@reference`] is what the whole layer is held against.

pub mod checkpoint;
mod mixer;
pub mod reference;

pub use mixer::architecture;

longhaul_plugin_kit::plugin!(Plugin, crate::architecture(); crate::checkpoint::FORMATS);
