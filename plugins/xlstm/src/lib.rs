//! xLSTM (arXiv 2405.04517): `mlstm` has the matrix memory in the blocks of the paper and of xLSTM-7B (arXiv
//! 2503.13427), `slstm` the scalar memory, `mixed` both by a pattern. The recurrences are the kit's (`Graph::mlstm`,
//! `Graph::recurrent_cell`).

pub mod checkpoint;
mod mixed;
mod mlstm;
mod slstm;
mod starts;

pub use mixed::architecture as xlstm;
pub use mlstm::architecture as mlstm;
pub use slstm::architecture as slstm;

longhaul_plugin_kit::plugin!(
    Plugin,
    crate::mlstm(),
    crate::slstm(),
    crate::xlstm();
    crate::checkpoint::FORMATS
);
