//! The delta rules: layers whose state is a matrix a head, from which a key removes what it held before its new
//! value is written. `layer` is what they share, the other files say what each architecture is.

mod comba;
mod delta_rule;
mod kda;
mod layer;
mod mesa;
mod mesa_cpu;
mod mesa_cuda;
mod mesa_solve;
#[cfg(test)]
mod tests;

longhaul_plugin_kit::plugin!(
    Plugin,
    crate::delta_rule::deltanet(),
    crate::delta_rule::gated_deltanet(),
    crate::delta_rule::delta_product(),
    crate::kda::kda(),
    crate::kda::gdn2(),
    crate::comba::comba(),
    crate::mesa::mesa_net()
);

pub use comba::comba;
pub use delta_rule::{delta_product, deltanet, gated_deltanet};
pub use kda::{gdn2, kda};
pub use mesa::mesa_net;
