//! RWKV-4 (arXiv 2305.13048), RWKV-6 (arXiv 2404.05892) and RWKV-7 (arXiv 2503.14456).
//!
//! `rwkv4`, `rwkv6` and `rwkv7` say what the architectures are; `shift` and `channel_mix` are what the
//! family shares, `heads`, `bonus` and `removal` what surrounds the kit's state matrix. RWKV-4's recurrence has a
//! file that plans it over rows and channels (`wkv4`) and one that computes a unit of it (`wkv4_scan`);
//! [`mod@reference`] is what all is held against.
//! An operation's form for a device is its child `cuda`, with kernels in `kernels/`.

mod bonus;
mod channel_mix;
mod checkpoint;
mod heads;
mod initial;
mod part;
pub mod reference;
mod removal;
mod rwkv4;
mod rwkv6;
mod rwkv7;
mod shift;
#[cfg(test)]
mod tests;
mod wkv4;
mod wkv4_scan;

longhaul_plugin_kit::plugin!(
    Plugin,
    crate::rwkv4::architecture(),
    crate::rwkv6::architecture(),
    crate::rwkv7::architecture();
    crate::checkpoint::FORMATS
);

pub use rwkv4::architecture as rwkv4;
pub use rwkv6::architecture as rwkv6;
pub use rwkv7::architecture as rwkv7;
