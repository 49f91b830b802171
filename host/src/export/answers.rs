//! The generated answers that a run kept, held against its records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use longhaul_results::statistics::mean;
use longhaul_results::{Measurement, Status, files};
use longhaul_tasks::ruler::score::score;
use longhaul_tasks::spec_of;
use serde::Deserialize;

use super::Run;
use crate::exit::CommandError;
use crate::run::plan::{Unit, file_word};
use crate::run::predictions;

/// Most bytes of the answers at one length.
const MOST: u64 = 1 << 30;

/// The answers of a model to one task at one length.
pub struct Answers {
    /// The model, as a file name.
    pub model: String,
    /// Task.
    pub task: String,
    /// All its options.
    pub task_options: String,
    /// In tokens.
    pub length: u64,
    /// The file as it was kept, which is RULER's form.
    pub bytes: Vec<u8>,
    /// Its lines.
    pub lines: Vec<Line>,
    /// What each scored.
    pub scores: Vec<f64>,
}

/// A line of a predictions file.
#[derive(Deserialize)]
pub struct Line {
    pub index: u64,
    pub pred: String,
    /// The prompt; empty where it is long.
    pub input: String,
    pub outputs: Vec<String>,
    /// Tokens of the prompt.
    pub length: u64,
}

/// Reads the answers of all cells that were measured. What has none is told in `left_out`.
pub fn read(run: &Run, left_out: &mut BTreeSet<String>) -> Result<Vec<Answers>, CommandError> {
    let units: BTreeMap<String, &Unit> = run
        .manifest
        .units
        .iter()
        .map(|unit| (unit.id(), unit))
        .collect();
    let mut seeds: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for row in &run.rows {
        seeds.entry(name(row)).or_default().insert(row.seed);
    }
    let mut all = Vec::new();
    for row in run.rows.iter().filter(|row| row.is_reported_cell()) {
        let spec = spec_of(&row.task).map_err(CommandError::usage)?;
        if !spec.metric.is_string_match() {
            left_out.insert(format!(
                "{} has no generated answers that references alone score, which this form is of",
                row.task
            ));
            continue;
        }
        if row.status != Status::Ok {
            let (name, status) = (name(row), row.status.name());
            left_out.insert(format!(
                "{name} on {} at {}: {status}",
                row.task, row.eval_length
            ));
            continue;
        }
        let unit = units.get(&row.unit).ok_or_else(|| {
            CommandError::usage(format!(
                "{}: run.toml has no unit {}, of which there are records",
                run.folder.display(),
                row.unit
            ))
        })?;
        let several = seeds[name(row)].len() > 1;
        let seed = if several {
            format!("-seed{}", row.seed)
        } else {
            String::new()
        };
        let path = run
            .folder
            .join(predictions::FOLDER)
            .join(predictions::file_name(&unit.name, row.eval_length as usize));
        all.push(Answers {
            model: file_word(name(row)) + &seed,
            ..of_cell(row, &path)?
        });
    }
    Ok(all)
}

/// What a model is called.
fn name(row: &Measurement) -> &str {
    match row.checkpoint.as_str() {
        "" => &row.architecture,
        checkpoint => checkpoint,
    }
}

/// The answers in a file, which must give the value that is recorded.
fn of_cell(row: &Measurement, path: &Path) -> Result<Answers, CommandError> {
    let wrong = |why: String| CommandError::usage(format!("{}: {why}", path.display()));
    let bytes = files::read(path, MOST).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(format!(
            "it is not there: the answers to {} at {} tokens were not kept, and its scores alone have not this form",
            row.task, row.eval_length
        )),
        _ => wrong(error.to_string()),
    })?;
    let lines: Vec<Line> = serde_json::Deserializer::from_slice(&bytes)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    let metric = spec_of(&row.task).map_err(CommandError::usage)?.metric;
    let scores: Vec<f64> = lines
        .iter()
        .map(|line| score(metric, &line.pred, &line.outputs))
        .collect();
    let (made, recorded) = (mean(&scores), row.value);
    let same = made
        .zip(recorded)
        .is_some_and(|(made, recorded)| (made - recorded).abs() < 1e-9);
    if row.samples != Some(lines.len() as u64) || !same {
        let text = |value: Option<f64>| value.map_or("none".to_owned(), |value| value.to_string());
        return Err(wrong(format!(
            "its {} answers score {}, and results.csv has {} of {}: they are of another evaluation",
            lines.len(),
            text(made),
            text(recorded),
            row.samples.unwrap_or(0)
        )));
    }
    Ok(Answers {
        model: String::new(),
        task: row.task.clone(),
        task_options: row.task_options.clone(),
        length: row.eval_length,
        bytes,
        lines,
        scores,
    })
}
