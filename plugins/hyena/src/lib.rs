//! Hyena (arXiv 2302.10866): gates around long convolutions whose filters are made by a small network.

mod filter;
mod mixer;

pub use mixer::hyena;

longhaul_plugin_kit::plugin!(Plugin, crate::hyena());
