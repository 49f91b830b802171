//! `longhaul compare`: two models on the same examples, length by length.

use std::path::{Path, PathBuf};

use longhaul_results::{
    Measurement, Side, compare_models, csv_text, latest, outcomes, render_comparison,
};

use crate::cli::CompareArgs;
use crate::commands::{print, read_records};
use crate::exit::{self, CommandError};
use crate::table::width;

/// Compares two models and prints what was found.
///
/// # Errors
/// A run that cannot be read, a model that it does not have, or nothing that can be compared.
pub fn run(args: &CompareArgs) -> Result<u8, CommandError> {
    let other_run: &PathBuf = args.with.as_ref().unwrap_or(&args.run);
    let rows = [read(&args.run)?, read(other_run)?];
    let one = args.one.as_str();
    let other = match (&args.other, &args.with) {
        (Some(other), _) => other.as_str(),
        (None, Some(_)) => one,
        (None, None) => {
            return Err(CommandError::usage(
                "a model is compared with another: name it, or give another run of the same model by --with RUN",
            ));
        }
    };
    let sides = [
        Side {
            name: one,
            rows: &rows[0],
        },
        Side {
            name: other,
            rows: &rows[1],
        },
    ];
    let mut load = |first: bool, unit: &str| {
        let run = if first { &args.run } else { other_run };
        match outcomes::path(run, unit) {
            Some(path) => outcomes::read(&path),
            None => Ok(outcomes::OfUnit::new()),
        }
    };
    let found = compare_models([&sides[0], &sides[1]], &mut load).map_err(CommandError::usage)?;
    if found.rows.is_empty() {
        let notes = found.notes.join("\n");
        return Err(CommandError::usage(format!(
            "nothing of {one} and {other} can be compared.\n{notes}"
        )));
    }
    if args.csv {
        for note in &found.notes {
            tracing::warn!("{note}");
        }
        print(&csv_text(&found.rows))?;
    } else {
        print(&render_comparison(&found, width()))?;
    }
    Ok(exit::OK)
}

/// The last row of each measurement of a run.
fn read(run: &Path) -> Result<Vec<Measurement>, CommandError> {
    let (rows, torn) = read_records(run)?;
    if let Some(torn) = torn {
        tracing::warn!("{torn}");
    }
    let cells = latest(rows).into_iter();
    Ok(cells.flat_map(|(_, rows)| rows).collect())
}
