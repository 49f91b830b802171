//! Griffin and Hawk (arXiv 2402.19427): the real-gated linear recurrent unit (RG-LRU), in Griffin with
//! local multi-query attention. `mixer` says what a layer is, `scan` computes the recurrence and
//! `cuda` does so on a device, `checkpoint` reads RecurrentGemma, [`mod@reference`] is what the recurrence
//! is held against.

mod checkpoint;
mod cuda;
mod mixer;
pub mod reference;
mod scan;

pub use mixer::{griffin, hawk};
#[doc(hidden)] // for the operation's own test
pub use scan::rg_lru;

longhaul_plugin_kit::export!(Plugin, crate::griffin(), crate::hawk(); crate::checkpoint::FORMATS);
