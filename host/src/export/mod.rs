//! A run's records in the forms of other tools, for their readers: RULER's predictions and summary,
//! lm-evaluation-harness' results and samples, BABILong's table. What stands in them is what the run recorded. What it
//! lacks is said, never made up. `audit/` reads these forms again.

mod answers;
mod babilong;
mod lm_eval;
pub mod ruler;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::ValueEnum;
use longhaul_results::Measurement;

use crate::exit::CommandError;
use crate::run::manifest::Manifest;

/// Forms of other tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// results_DATE.json and samples_TASK_DATE.jsonl of each model
    LmEval,
    /// LENGTH/pred/TASK.jsonl and summary.csv of each model
    Ruler,
    /// all_results.csv, a row a model and task
    Babilong,
}

/// A run as it was read.
#[derive(Debug)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// Its plan.
    pub manifest: Manifest,
    /// The last row of each measurement.
    pub rows: Vec<Measurement>,
    /// When its records were written last.
    pub written: SystemTime,
}

/// A file to write.
#[derive(Debug)]
pub struct File {
    /// Its place in the folder that is written.
    pub path: PathBuf,
    /// What stands in it.
    pub bytes: Vec<u8>,
}

/// What a run looks like in a form.
#[derive(Debug)]
pub struct Exported {
    /// The files.
    pub files: Vec<File>,
    /// What of the run is not in them and why, a sentence each.
    pub left_out: BTreeSet<String>,
}

/// Makes the files of a form.
///
/// # Errors
/// A run of which nothing has that form; answers that are not there, or are not those of the records; two of one name.
pub fn export(run: &Run, form: Form) -> Result<Exported, CommandError> {
    let mut left_out = BTreeSet::new();
    let files = match form {
        Form::LmEval => lm_eval::files(run, &answers::read(run, &mut left_out)?),
        Form::Ruler => ruler::files(&answers::read(run, &mut left_out)?),
        Form::Babilong => babilong::files(run, &mut left_out),
    };
    if files.is_empty() {
        let why: Vec<&str> = left_out.iter().map(String::as_str).collect();
        return Err(CommandError::usage(format!(
            "nothing of {} has this form: {}",
            run.folder.display(),
            if why.is_empty() {
                "nothing was measured".to_owned()
            } else {
                why.join("; ")
            }
        )));
    }
    let mut paths: BTreeSet<&Path> = BTreeSet::new();
    if let Some(twice) = files.iter().find(|file| !paths.insert(&file.path)) {
        return Err(CommandError::usage(format!(
            "two of {} would be {}: the form has one of a name, a task and a length. Export runs of one \
             definition of a task each",
            run.folder.display(),
            twice.path.display()
        )));
    }
    Ok(Exported { files, left_out })
}
