//! `longhaul report`: from the records of runs to tables and figures for a paper.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use longhaul_results::{
    Cell, Measurement, Source, SummaryRow, capacity, files, latex_document, latex_tables,
    markdown_tables, merge, plot_all, render_tables, summarise, write_csv, write_records,
};
use serde::Serialize;

use crate::cli::ReportArgs;
use crate::commands::{cannot, print, read_records};
use crate::exit::{self, CommandError};
use crate::run::manifest::{self, Manifest};
use crate::run::plan::Unit;
use crate::table::width;

/// Stands in every report's folder and says what it was made of.
const FILE: &str = "report.toml";

/// What stands in `report.toml`.
#[derive(Debug, Serialize)]
struct Provenance {
    /// The program that made the report.
    longhaul: &'static str,
    /// What was noticed on the way.
    notes: Vec<String>,
    /// The runs.
    #[serde(rename = "run")]
    runs: Vec<RunRecord>,
}

/// A run that a report is made of.
#[derive(Debug, Default, Serialize)]
struct RunRecord {
    folder: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suite: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longhaul: Option<String>,
}

/// Reads the runs, writes the report, and prints its tables.
///
/// # Errors
/// Runs that cannot be read or compared, a folder that holds something else, files that cannot be written.
pub fn run(args: &ReportArgs) -> Result<u8, CommandError> {
    refuse_strangers(&args.out)?;
    let mut provenance = Provenance {
        longhaul: env!("CARGO_PKG_VERSION"),
        notes: Vec::new(),
        runs: Vec::new(),
    };
    let mut sources = Vec::new();
    for folder in &args.runs {
        let (source, record) = read(folder, &mut provenance.notes)?;
        sources.push(source);
        provenance.runs.push(record);
    }
    let merged = merge(sources, args.uneven).map_err(CommandError::usage)?;
    provenance.notes.extend(merged.notes);
    if merged.rows.is_empty() {
        return Err(CommandError::usage(
            "no measurement is recorded there yet: a report needs one",
        ));
    }
    let summary = summarise(&merged.rows);
    write(&args.out, &merged.rows, &summary, &provenance)?;
    let mut text = render_tables(&summary, width());
    for note in &provenance.notes {
        text.push_str(&format!("{note}\n"));
    }
    text.push_str(&format!("The report is in {}\n", args.out.display()));
    print(&text).map(|()| exit::OK)
}

/// Refuses a folder that holds anything but an earlier report.
fn refuse_strangers(out: &Path) -> Result<(), CommandError> {
    let Ok(mut entries) = std::fs::read_dir(out) else {
        return Ok(());
    };
    if entries.next().is_none() || out.join(FILE).is_file() {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "{} is not empty and holds no earlier report. Give another folder with --out",
        out.display()
    )))
}

/// The records of a run's folder and what made them. What is wrong and does not matter becomes a note.
fn read(folder: &Path, notes: &mut Vec<String>) -> Result<(Source, RunRecord), CommandError> {
    let name = folder.display().to_string();
    let (rows, torn) = read_records(folder)?;
    notes.extend(torn);
    let mut record = RunRecord {
        folder: name.clone(),
        ..RunRecord::default()
    };
    match Manifest::read(folder) {
        Ok(Manifest {
            part: Some(part), ..
        }) => {
            return Err(CommandError::usage(format!(
                "{name} is part {part} of a run; take its parts together first, with `longhaul collect`"
            )));
        }
        Ok(manifest) => {
            notes.extend(unfinished(&name, &manifest, &rows));
            record = RunRecord {
                folder: name.clone(),
                run_id: Some(manifest.run_id),
                suite: Some(manifest.suite),
                command: Some(manifest.command),
                device: Some(manifest.device),
                longhaul: Some(manifest.versions.longhaul),
            };
        }
        Err(error) => notes.push(format!(
            "{name}: {} cannot be read, so nobody knows what was planned ({error})",
            manifest::FILE
        )),
    }
    Ok((Source { name, rows }, record))
}

/// What is planned and has no record, in words.
fn unfinished(name: &str, manifest: &Manifest, rows: &[Measurement]) -> Option<String> {
    let there: HashSet<Cell> = rows.iter().map(Measurement::cell).collect();
    let planned = manifest.units.iter().flat_map(Unit::cells);
    let (found, missing): (Vec<Cell>, Vec<Cell>) = planned.partition(|cell| there.contains(cell));
    (!missing.is_empty()).then(|| {
        format!(
            "{name}: {} of {} planned measurements have no record: the run is not finished. Go on with it by --resume",
            missing.len(),
            missing.len() + found.len()
        )
    })
}

/// Writes all files of a report. Each is whole or as it was.
fn write(
    out: &Path,
    rows: &[Measurement],
    summary: &[SummaryRow],
    provenance: &Provenance,
) -> Result<(), CommandError> {
    let make = |folder: &Path| std::fs::create_dir_all(folder).map_err(cannot("make", folder));
    let put = |path: PathBuf, text: &str| {
        files::write_whole(&path, text.as_bytes()).map_err(cannot("write", &path))
    };
    make(out)?;
    let text = toml::to_string(provenance).expect("plain texts serialise");
    put(out.join(FILE), &text)?;
    for (name, whole) in [("cells.csv", true), ("breakdowns.csv", false)] {
        let rows = rows.iter().filter(|row| row.label.is_empty() == whole);
        write_records(&out.join(name), rows).map_err(CommandError::environment)?;
    }
    write_csv(&out.join("summary.csv"), summary).map_err(CommandError::environment)?;
    write_csv(&out.join("capacity.csv"), &capacity(summary)).map_err(CommandError::environment)?;
    put(out.join("tables.md"), &markdown_tables(summary))?;
    let tables = latex_tables(summary);
    make(&out.join("tables"))?;
    for (name, text) in &tables {
        put(out.join("tables").join(name), text)?;
    }
    let inputs: Vec<String> = tables
        .iter()
        .map(|(name, _)| format!("tables/{name}"))
        .collect();
    let document = latex_document(inputs.iter().map(String::as_str));
    put(out.join("tables.tex"), &document)?;
    make(&out.join("figures"))?;
    plot_all(summary, &out.join("figures")).map_err(CommandError::environment)?;
    Ok(())
}
