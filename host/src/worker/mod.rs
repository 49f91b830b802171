//! The worker's side of a run: one process a unit, in which one plugin is loaded, trained and
//! evaluated. It talks to the host by [`protocol`] and decides nothing: no limits, no records, no
//! retries.

pub mod batches;
mod blind;
mod clock;
mod evaluate;
mod generate;
mod initial;
mod job;
pub mod models;
mod observe;
pub mod pipe;
mod prompts;
pub mod protocol;
mod resume;
pub mod tally;
mod train;

pub use evaluate::{CHUNK, rows_at_once};
pub use job::work;
