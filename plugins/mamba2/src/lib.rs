//! Mamba-2 (arXiv 2405.21060): a state-space model with one decay a head, computed by chunks as
//! matrix products (SSD). `mixer` says what a layer is, `cpu` plans the operation over rows and
//! heads, `chunk` computes one chunk and `gradients` its gradients, `cuda` is the form for a device, [`mod@reference`] is what it is held against.

pub mod checkpoint;
mod chunk;
mod cpu;
mod cuda;
mod gradients;
mod mixer;
pub mod reference;

#[doc(hidden)] // for the operation's own test
pub use cpu::{SsdInputs, ssd};
pub use mixer::architecture;

longhaul_plugin_kit::export!(Plugin, crate::architecture(); crate::checkpoint::FORMATS);
