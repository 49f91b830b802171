//! Linear attention and what grew from it: a matrix a head that keys and values are written to and queries read.
//! The recurrence is the kit's (`Graph::state_matrix`); an architecture is what stands in front of it and behind,
//! and has a file of its own. `heads` is what they share.

mod based;
mod gla;
mod gsa;
mod heads;
mod hgrn2;
mod lightning;
mod linear;
mod raven;
mod retnet;

pub use based::architecture as based;
pub use gla::architecture as gla;
pub use gsa::architecture as gsa;
pub use hgrn2::architecture as hgrn2;
pub use lightning::architecture as lightning;
pub use linear::architecture as linear_attention;
pub use raven::architecture as raven;
pub use retnet::architecture as retnet;

longhaul_plugin_kit::plugin!(
    Plugin,
    crate::linear_attention(),
    crate::retnet(),
    crate::lightning(),
    crate::gla(),
    crate::hgrn2(),
    crate::based(),
    crate::gsa(),
    crate::raven()
);
