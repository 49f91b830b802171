//! Records of a run and what is made of them: the schema ([`Measurement`]), an append-only CSV file
//! that a kill cannot harm ([`Journal`]), statistics, a summary, tables and plots.
//!
//! Data flows one way: measurements, summary, tables and plots. Nothing here trains or evaluates.

pub mod files;
mod journal;
mod lock;
mod plot;
mod record;
pub mod statistics;
mod summary;
mod table;

pub use journal::{Journal, JournalError, write_csv};
pub use lock::{LockError, RunLock};
pub use plot::{PlotError, plot_accuracy, plot_all};
pub use record::{Cell, Measurement, Record, Split, Status, TrainingPoint};
pub use summary::{SummaryRow, best_learning_rates, summarise};
pub use table::render_tables;
