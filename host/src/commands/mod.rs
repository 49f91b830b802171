//! The commands, one file each: from arguments to output.

pub mod audit;
pub mod bench;
pub mod check;
pub mod checkpoint;
pub mod checkpoint_convert;
pub mod checkpoint_eval;
pub mod cite;
pub mod collect;
pub mod compare;
pub mod data;
pub mod devices;
pub mod eval;
pub mod export;
pub mod list;
pub mod manual;
pub mod new;
pub mod plan;
pub mod report;
pub mod reproduce;
pub mod ruler;
pub mod run;
pub mod schema;
pub mod show;
pub mod submit;
pub mod suites;
pub mod tasks;
pub mod watch;

use std::io::Write;
use std::path::Path;

use longhaul_results::{Measurement, read_csv};

use crate::exit::CommandError;
use crate::run::manifest::Manifest;
use crate::run::part;
use crate::text::visible;

/// Writes a command's result to standard output, where no text of others steers the terminal. A closed
/// pipe ends the process quietly, as a reader that has seen enough expects.
///
/// # Errors
/// Any other refusal of the system.
pub fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match out
        .write_all(visible(text).as_bytes())
        .and_then(|()| out.flush())
    {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CommandError::environment(format!(
            "standard output: {error}"
        ))),
    }
}

/// A refusal of the system in words: what cannot be done with which path.
pub fn cannot(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    let place = format!("cannot {what} {}", path.display());
    move |error| CommandError::environment(format!("{place}: {error}"))
}

/// The rows of a run's `results.csv` as they were written, without touching the folder, and a sentence where the last line is
/// torn.
///
/// # Errors
/// A file that is not there, as of a run in parts that are not taken together yet; one of another form.
pub fn read_records(run: &Path) -> Result<(Vec<Measurement>, Option<String>), CommandError> {
    let path = run.join("results.csv");
    if path.symlink_metadata().is_err() {
        if let Ok(manifest) = Manifest::read(run) {
            part::refuse_apart(run, &manifest)?;
        }
        let why = match run.exists() {
            true => "is not the folder of a run: it has no results.csv",
            false => "is not there",
        };
        return Err(CommandError::usage(format!(
            "{} {why}; give the --out folder of a `longhaul run`",
            run.display()
        )));
    }
    let read = read_csv(&path);
    let (rows, torn) = read.map_err(CommandError::usage)?;
    let torn = (torn > 0).then(|| {
        format!(
            "{}: the last line of results.csv is torn ({torn} bytes) and does not count",
            run.display()
        )
    });
    Ok((rows, torn))
}
