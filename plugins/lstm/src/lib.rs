//! The long short-term memory network (Hochreiter and Schmidhuber 1997, with the forget gate of Gers
//! et al. 2000): the classic recurrent baseline. `mixer` says what a layer is, `cpu` and `cuda`
//! compute the recurrence, [`mod@reference`] is what it is held against.

mod cpu;
mod cuda;
mod mixer;
mod recurrence;

pub use mixer::architecture;

longhaul_plugin_kit::export!(Plugin, crate::architecture());
