//! `longhaul schema`: the columns of every table that a run, a report or an audit writes, as JSON.

use clap::Args;
use longhaul_results::schema::{TableSchema, VERSION, table, tables};
use serde::Serialize;

use crate::commands::audit;
use crate::commands::print;
use crate::exit::{self, CommandError};
use crate::run::targets::Verdict;

/// `longhaul schema`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Of each column its type, unit, meaning, and whether it may be empty.

Examples:
  longhaul schema")]
pub struct SchemaArgs {}

/// All tables.
#[derive(Debug, Serialize)]
struct Schema {
    /// Version of all of them together.
    schema: u32,
    tables: Vec<TableSchema>,
}

/// Prints the schema.
///
/// # Errors
/// Standard output that cannot be written.
pub fn run() -> Result<u8, CommandError> {
    let mut tables = tables();
    tables.push(table::<Verdict>(
        &["verdicts.csv"],
        "a published figure, and whether the run bears it out",
    ));
    tables.push(table::<audit::Row>(
        &["longhaul audit --csv"],
        "a score in a result file of another tool, made again",
    ));
    let schema = Schema {
        schema: VERSION,
        tables,
    };
    let text = serde_json::to_string_pretty(&schema).expect("plain data");
    print(&format!("{text}\n")).map(|()| exit::OK)
}
