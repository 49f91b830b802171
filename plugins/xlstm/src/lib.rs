//! xLSTM (arXiv 2405.04517): `mlstm` has the matrix memory in the blocks of the paper and of xLSTM-7B (arXiv
//! 2503.13427). The recurrences are the kit's (`Graph::mlstm`, `Graph::recurrent_cell`).

pub mod checkpoint;
mod mlstm;
mod starts;

pub use mlstm::architecture as mlstm;

longhaul_plugin_kit::export!(Plugin, crate::mlstm(); crate::checkpoint::FORMATS);
