//! RWKV-4 (arXiv 2305.13048). `rwkv4` says what the architecture is, `shift` and `channel_mix` are
//! what the family shares, `wkv4` plans the scan over rows and channels, `wkv4_scan` computes one
//! block of channels, [`mod@reference`] is what all is held against.

mod channel_mix;
mod initial;
mod part;
pub mod reference;
mod rwkv4;
mod shift;
mod wkv4;
mod wkv4_scan;

longhaul_plugin_kit::export!(Plugin, crate::rwkv4::architecture());

pub use rwkv4::architecture as rwkv4;
