//! What most Longhaul plugins link statically: the graph [`engine`] with autograd, fused operations
//! ([`ops`]), the standard [`backbone`] and the export macro. A plugin may ignore it and implement
//! [`longhaul_plugin_api::author`] with any other library.

pub mod backbone;
pub mod checkpoint;
pub mod cuda;
pub mod engine;
pub mod gemm;
mod gemv;
pub mod initial;
pub mod model;
pub mod ops;
pub mod options;
pub mod pattern;
pub mod precision;
pub mod recurrences;
pub mod rows;
pub mod simd;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "testing")]
pub mod testing_ends;
#[cfg(feature = "testing")]
pub mod testing_foreign;
#[cfg(feature = "testing")]
pub mod testing_initial;
#[cfg(feature = "testing")]
pub mod testing_memory;
#[cfg(feature = "testing")]
pub mod testing_nodes;
#[cfg(feature = "testing")]
pub mod testing_speed;
pub mod units;

pub use longhaul_plugin_api as api;

pub use backbone::{Architecture, Block, Mixer};
pub use engine::graph::Graph;
pub use engine::operation::{Operation, Run, View, ViewMut};
pub use engine::params::Init;
pub use engine::tensor::{Buffer, Extent, Param, Saved, State, StateSpec, Tensor};
pub use longhaul_plugin_api::author::Result;
pub use longhaul_plugin_api::error::PluginError;
pub use recurrences::real::Real;
pub use recurrences::{Carries, Ports, Recurrence, Sequence};
