//! Mamba (arXiv 2312.00752): a selective state-space model with its own decay for every channel and
//! state. `mixer` says what a layer is, `cpu` plans the scan over rows and channels, `scan`
//! computes one block of channels, `cuda` does both on a device, [`mod@naive`] is what it is held against. `mamba3` is
//! its successor, of the kit's operations.

pub mod checkpoint;
mod cpu;
mod cuda;
mod mamba3;
mod mixer;
pub mod naive;
mod scan;

#[doc(hidden)] // to be timed by itself
pub use cpu::ScanInputs;
pub use mamba3::architecture as mamba3;
pub use mixer::architecture;

longhaul_plugin_kit::plugin!(Plugin, crate::architecture(), crate::mamba3(); crate::checkpoint::FORMATS);
