//! Mamba-2 (arXiv 2405.21060): a state-space model with one decay a head; and with levels of the past, log-linear
//! attention (arXiv 2506.04761). `mixer` says what a layer is, `ssd` how its recurrence is a state matrix of the kit,
//! [`mod@reference`] is what that is held against.

pub mod checkpoint;
mod mixer;
pub mod reference;
mod ssd;

pub use mixer::{architecture, log_linear};
#[doc(hidden)] // for the operation's own test
pub use ssd::{SsdInputs, ssd};

longhaul_plugin_kit::plugin!(Plugin, crate::architecture(), crate::log_linear(); crate::checkpoint::FORMATS);
