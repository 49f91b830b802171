//! Recurrent networks of gates and little else: minGRU and minLSTM (arXiv 2410.01201), HGRN (arXiv 2311.04823), whose
//! gates do not see the state, on the kit's diagonal scan; and the GRU (arXiv 1406.1078), whose gates do, on its
//! recurrent cell.

mod gru;
mod hgrn;
mod minimal;

pub use gru::gru;
pub use hgrn::hgrn;
pub use minimal::{mingru, minlstm};

longhaul_plugin_kit::plugin!(
    Plugin,
    crate::mingru(),
    crate::minlstm(),
    crate::hgrn(),
    crate::gru()
);
