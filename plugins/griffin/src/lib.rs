//! Griffin and Hawk (arXiv 2402.19427): the real-gated linear recurrent unit (RG-LRU), in Griffin with
//! local multi-query attention. `mixer` says what a layer is, `gate` computes what the
//! kit's diagonal scan is given and `cuda` does so on a device, `checkpoint` reads RecurrentGemma, [`mod@reference`] is
//! what gates and scan are held against.

mod checkpoint;
mod cuda;
mod gate;
mod mixer;
pub mod reference;

#[doc(hidden)] // for the operation's own test
pub use gate::rg_lru;
pub use mixer::{griffin, hawk};

longhaul_plugin_kit::plugin!(Plugin, crate::griffin(), crate::hawk(); crate::checkpoint::FORMATS);
