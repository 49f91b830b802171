//! The graph engine: a model is traced once ([`graph`]) and replayed over buffers ([`arena`]), for
//! gradients ([`train`]) or for recurrent inference ([`session`]). It knows no architecture.

pub mod arena;
mod contract;
pub(crate) mod given_state;
pub mod graph;
pub mod operation;
pub mod optimizer;
pub mod params;
pub mod session;
mod slots;
pub mod tensor;
pub mod train;
