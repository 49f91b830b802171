//! Records of a run and what is made of them: the schema ([`Measurement`]), an append-only CSV file
//! that a kill cannot harm ([`Journal`]), statistics, a summary, tables and plots.
//!
//! Data flows one way: measurements, summary, tables and plots. Nothing here trains or evaluates.

mod axis;
pub mod bootstrap;
mod breaks;
mod capacity;
mod choice;
mod comparison;
mod comparison_table;
mod curve;
mod drawing;
mod figure;
pub mod files;
mod font;
mod grid;
mod heat;
mod html;
mod journal;
mod latex;
mod lock;
mod markdown;
mod merge;
pub mod metric;
mod names;
pub mod outcomes;
pub mod paired;
mod panel;
mod pdf;
mod plot;
mod prediction;
mod provenance;
pub mod random;
pub mod ranking;
mod record;
mod reproduction;
pub mod schema;
mod setting;
mod sheet;
pub mod statistics;
mod style;
mod summary;
mod svg;
mod table;
mod text;
mod uncertainty;
mod view;
mod words;

pub use breaks::{BreakRow, Verdict, breaks, render_breaks};
pub use capacity::{CapacityRow, capacity};
pub use comparison::{CompareError, Compared, Comparison, Load, Side, compare_models};
pub use comparison_table::render_comparison;
pub use html::html_page;
pub use journal::{Journal, JournalError, csv_text, read_csv, write_csv, write_records};
pub use latex::{latex_document, latex_tables};
pub use lock::{LockError, RunLock, is_held};
pub use markdown::markdown_tables;
pub use merge::{MergeError, Merged, Source, latest, merge};
pub use plot::{PlotError, figures, plot_all, plots};
pub use prediction::{PredictionRow, predictions, render_predictions};
pub use provenance::{Provenance, RunRecord};
pub use record::{Cell, Measurement, Probe, Record, Split, Status, TrainingPoint};
pub use reproduction::{Agreement, Reproduced, agreements, render_reproduction, reproduced};
pub use summary::{SummaryRow, summarise};
pub use table::render_tables;
pub use view::{CurveView, TaskView, tasks};
