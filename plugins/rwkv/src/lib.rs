//! RWKV-4 (arXiv 2305.13048) and RWKV-6 (arXiv 2404.05892). `rwkv4` and `rwkv6` say what the
//! architectures are, `shift` and `channel_mix` are what the family shares. Each recurrence has a file
//! that plans it over rows and channels or heads (`wkv4`, `matrix_state`) and one that computes a
//! unit of it (`wkv4_scan`, `matrix_scan`); [`mod@reference`] is what all is held against.

mod bonus;
mod channel_mix;
mod heads;
mod initial;
mod matrix_scan;
mod matrix_state;
mod part;
pub mod reference;
mod rwkv4;
mod rwkv6;
mod shift;
mod wkv4;
mod wkv4_scan;

longhaul_plugin_kit::export!(
    Plugin,
    crate::rwkv4::architecture(),
    crate::rwkv6::architecture(),
);

pub use rwkv4::architecture as rwkv4;
pub use rwkv6::architecture as rwkv6;
