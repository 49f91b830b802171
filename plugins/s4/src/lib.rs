//! Linear time-invariant state spaces whose state matrix is a complex diagonal: S4D (arXiv 2206.11893), S5
//! (arXiv 2208.04933) and the linear recurrent unit (arXiv 2303.06349), on the kit's diagonal scan.

mod glu;
mod hippo;
mod lru;
mod s4d;
mod s5;

#[doc(hidden)] // for the test of initial values
pub use hippo::angles;
pub use lru::lru;
pub use s4d::s4d;
pub use s5::s5;

longhaul_plugin_kit::plugin!(Plugin, crate::s4d(), crate::s5(), crate::lru());
