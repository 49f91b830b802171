//! The long short-term memory network (Hochreiter and Schmidhuber 1997, with the forget gate of Gers
//! et al. 2000): the classic recurrent baseline, on the kit's recurrent cell.

mod mixer;

pub use mixer::architecture;

longhaul_plugin_kit::plugin!(Plugin, crate::architecture());
