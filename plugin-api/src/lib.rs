//! The stable ABI between the Longhaul host and its architecture plugins, on [`abi_stable`]: types
//! and functions only, no compute.
//!
//! * [`author`] is what a plugin's author implements: plain Rust traits and one export macro.
//! * [`metadata`], [`data`] and [`checkpoint`] are the plain data that crosses; [`error`] is the one
//!   error type.
//! * [`abi`] is what really crosses: the root module, the model and session objects, the probe.
//! * `load` (feature `load`) is the host's side: opening a library with a clear error for each way
//!   in which that can fail.
//!
//! # Evolution
//!
//! This crate's major version is the generation of the ABI ([`abi::ABI_GENERATION`]). Within one:
//!
//! | may be done in a minor version | how |
//! |---|---|
//! | add a function to [`abi::PluginModule`] or [`abi::Host`] | at the end; the other side sees `Option` |
//! | add a method to [`abi::ModelAbi`] or [`abi::SessionAbi`] | at the end, with a default body: an older plugin answers with that |
//! | add a fact to a struct that has `extra` | as a named pair; readers ignore names they do not know |
//! | let a plugin answer less than it must | only where the host asks for it by such a pair, as [`data::extra::REPORT_EVERY`] does: who does not know it answers in full |
//! | add a capability | as a word in [`metadata::ArchitectureInfo::capabilities`] |
//!
//! What breaks, and so needs a new generation: removing, reordering or changing a field, a variant,
//! a method or a signature; adding a field to a struct or a variant to an enum. abi_stable's layout
//! check finds such a change when a library is opened, and the [`abi::Probe`], whose own layout
//! never changes, lets the host say in a sentence which version the plugin was built for.
//!
//! The tests in `tests/abi.rs` of the workspace hold this to account: a plugin built against a
//! smaller module and one built against a larger one both load and run.

#[doc(hidden)]
pub use abi_stable;

pub mod abi;
pub mod author;
pub mod checkpoint;
#[cfg(feature = "load")]
pub mod client;
pub mod data;
pub mod error;
pub mod kernels;
#[cfg(feature = "load")]
pub mod load;
pub mod metadata;
pub mod panics;
pub mod variables;
