//! Softmax attention (arXiv 1706.03762) with the position schemes that decide how it extrapolates:
//! rotary, ALiBi, none, learned absolute, Hard-ALiBi; gated, forgetting, differential and PaTH attention. `mixer` says what a
//! layer is; the operation is the kit's, and [`mod@reference`] is what the whole layer is held against.

mod architectures;
pub mod checkpoint;
mod mixer;
mod path;
pub mod reference;

pub use architectures::{architecture, differential, fox, gated};
pub use path::path;

longhaul_plugin_kit::plugin!(
    Plugin,
    crate::architecture(),
    crate::gated(),
    crate::fox(),
    crate::differential(),
    crate::path();
    crate::checkpoint::FORMATS
);
