//! Records of a run and what is made of them: the schema ([`Measurement`]), an append-only CSV file
//! that a kill cannot harm ([`Journal`]), statistics, a summary, tables and plots.
//!
//! Data flows one way: measurements, summary, tables and plots. Nothing here trains or evaluates.

mod choice;
mod curve;
mod figure;
pub mod files;
mod heat;
mod journal;
mod lock;
pub mod metric;
mod plot;
mod record;
mod setting;
pub mod statistics;
mod style;
mod summary;
mod svg;
mod table;
mod text;
mod view;

pub use journal::{Journal, JournalError, write_csv};
pub use lock::{LockError, RunLock};
pub use plot::{PlotError, plot_all, plots};
pub use record::{Cell, Measurement, Probe, Record, Split, Status, TrainingPoint};
pub use summary::{SummaryRow, summarise};
pub use table::render_tables;
pub use view::{CurveView, TaskView, tasks};
