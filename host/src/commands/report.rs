//! `longhaul report`: from the records of runs to tables and figures for a paper.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use longhaul_results::{
    Cell, Measurement, Probe, Provenance, Record, RunRecord, Source, SummaryRow, TrainingPoint,
    breaks, capacity, csv_text, factors, figures, files, html_page, latex_document, latex_tables,
    markdown_tables, merge, predictions, read_csv, render_breaks, render_factors,
    render_predictions, render_tables, summarise, write_csv, write_records,
};
use longhaul_tasks::Suite;
use longhaul_text::sha256_of;

use crate::audit::{audit, foreign};
use crate::catalogue::Catalogue;
use crate::cli::ReportArgs;
use crate::commands::run::plan_of;
use crate::commands::{cannot, print, read_records};
use crate::exit::{self, CommandError};
use crate::materials::MaterialArgs;
use crate::run::error::RunError;
use crate::run::manifest::{self, Manifest};
use crate::run::materials::Wanted;
use crate::run::plan::{Overrides, Unit};
use crate::run::targets::{self, Target, VERDICTS};
use crate::table::{OF_FILES, width};
use crate::text::line;

/// Stands in every report's folder and says what it was made of, and what was written.
const FILE: &str = "report.toml";
/// Most bytes of it that are read: a hundred thousand files.
const MOST: u64 = 64 << 20;
/// Its files of records.
const RECORDS: [&str; 4] = ["cells.csv", "breakdowns.csv", "summary.csv", "capacity.csv"];
/// Folders within a report.
const FOLDERS: [&str; 2] = ["tables", "figures"];

/// Reads the runs, writes the report, and prints its tables.
///
/// # Errors
/// Runs that cannot be read or compared, a folder that holds something else, files that cannot be written.
pub fn run(args: &ReportArgs) -> Result<u8, CommandError> {
    refuse_strangers(&args.out)?;
    let published = published(args)?;
    let mut provenance = Provenance {
        longhaul: env!("CARGO_PKG_VERSION").to_owned(),
        ..Provenance::default()
    };
    let (mut sources, mut training, mut probes) = (Vec::new(), Vec::new(), Vec::<Probe>::new());
    for folder in &args.runs {
        let (source, record) = read(folder, &mut provenance.notes)?;
        training.extend(read_beside(folder, "training.csv", &mut provenance.notes));
        probes.extend(read_beside(folder, "probes.csv", &mut provenance.notes));
        sources.push(source);
        provenance.runs.push(record);
    }
    sources.extend(read_foreign(&args.with, &mut provenance)?);
    let merged = merge(sources, args.uneven).map_err(CommandError::usage)?;
    provenance.notes.extend(merged.notes);
    if merged.rows.is_empty() {
        let names: Vec<String> = args
            .runs
            .iter()
            .map(|run| run.display().to_string())
            .collect();
        return Err(CommandError::usage(format!(
            "no measurement is recorded in {} yet, and a report needs one; `longhaul watch` says how far a run is",
            names.join(", ")
        )));
    }
    let summary = summarise(&merged.rows);
    let mut texts = render(
        &merged.rows,
        &merged.origins,
        &summary,
        &training,
        &provenance,
    );
    let broken = breaks(&merged.rows, &probes, &summary);
    let explained = factors(&merged.rows, &summary);
    let predicted = predictions(&summary);
    let why = |width| {
        render_breaks(&broken, &summary, width)
            + &render_factors(&explained, width)
            + &render_predictions(&predicted, width)
    };
    let kept = why(OF_FILES);
    let tables = [
        ("breaks.csv", csv_text(&broken), broken.is_empty()),
        ("factors.csv", csv_text(&explained), explained.is_empty()),
        ("prediction.csv", csv_text(&predicted), predicted.is_empty()),
        ("why.txt", kept.clone(), kept.is_empty()),
    ];
    let verdicts = targets::judge(&published, &summary, &merged.rows);
    let tables = tables
        .into_iter()
        .chain([(VERDICTS, csv_text(&verdicts), verdicts.is_empty())]);
    let made = tables.filter(|(_, _, empty)| !empty);
    texts.extend(made.map(|(name, text, _)| (name.to_owned(), text.into_bytes())));
    write(
        &args.out,
        &merged.rows,
        &summary,
        &texts,
        provenance.clone(),
    )?;
    let mut text =
        render_tables(&summary, width()) + &why(width()) + &targets::render(&verdicts, width());
    for note in &provenance.notes {
        text.push_str(&format!("{note}\n"));
    }
    let out = args.out.display();
    text.push_str(&format!(
        "Page:    {out}/report.html, for a browser\nTables:  {out}/tables.md, tables/\nFigures: {out}/figures/\n\
         Records: {out}/cells.csv, summary.csv, capacity.csv, breakdowns.csv\n"
    ));
    print(&text).map(|()| exit::OK)
}

/// The published figures of the suites that are asked for.
fn published(args: &ReportArgs) -> Result<Vec<Target>, CommandError> {
    let mut targets = Vec::new();
    if args.targets.is_empty() {
        return Ok(targets);
    }
    let catalogue = Catalogue::scan(&args.plugins)?;
    for name in &args.targets {
        let suite = Suite::load(name).map_err(RunError::from)?;
        let wanted = Wanted::new(&MaterialArgs::default(), Some(&suite.materials), None);
        let plan = plan_of(
            &suite,
            name,
            &Overrides::default(),
            "cpu",
            &wanted,
            &catalogue,
        )?;
        if plan.targets.is_empty() {
            return Err(CommandError::usage(format!(
                "suite {name} names no published figure: it has no [[target]]"
            )));
        }
        targets.extend(plan.targets);
    }
    Ok(targets)
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
                machine: Some(manifest.machine.words()),
                longhaul: Some(manifest.versions.longhaul),
                plugin_api: Some(manifest.versions.plugin_api),
                ..RunRecord::default()
            };
        }
        Err(error) => notes.push(format!(
            "{name}: {} cannot be read, so nobody knows what was planned ({error})",
            manifest::FILE
        )),
    }
    let source = Source {
        name,
        rows,
        foreign: false,
    };
    Ok((source, record))
}

/// Files of other tools, their scores made again of their items. What was found in them becomes notes.
fn read_foreign(
    paths: &[PathBuf],
    provenance: &mut Provenance,
) -> Result<Vec<Source>, CommandError> {
    let mut sources = Vec::new();
    for file in audit(paths)? {
        let (path, tool) = (&file.path, file.tool);
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(cannot("read", path))?;
        let sha256 = sha256_of(&bytes);
        let (rows, left_out) = foreign::rows(&file, &sha256);
        let notes = &mut provenance.notes;
        notes.extend(left_out.iter().map(|words| line(words)));
        if rows.is_empty() {
            continue;
        }
        let findings = file.findings.iter();
        notes.extend(findings.map(|found| line(&format!("{name}: {found}"))));
        notes.push(format!(
            "{name} is {tool}'s (foreign): its tasks stand in tables of their own, as nothing says that its examples are ours"
        ));
        provenance.runs.push(RunRecord {
            folder: name.clone(),
            foreign: Some(tool.to_owned()),
            sha256: Some(sha256),
            ..RunRecord::default()
        });
        sources.push(Source {
            name,
            rows,
            foreign: true,
        });
    }
    Ok(sources)
}

/// What was recorded beside the measurements of a run: on the way of its trainings, or by probes. A run without has none;
/// what cannot be read becomes a note, as no table of accuracies is made of it.
fn read_beside<R: Record>(folder: &Path, name: &str, notes: &mut Vec<String>) -> Vec<R> {
    let path = folder.join(name);
    if path.symlink_metadata().is_err() {
        return Vec::new();
    }
    let (points, note) = match read_csv(&path) {
        Ok((points, 0)) => (points, None),
        Ok((points, torn)) => (
            points,
            Some(format!("its last line is torn ({torn} bytes)")),
        ),
        Err(error) => (Vec::new(), Some(format!("nothing is made of it ({error})"))),
    };
    notes.extend(note.map(|note| format!("{}: {note}", path.display())));
    points
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

/// The files of a report, but for its records, by their paths from its folder.
fn render(
    rows: &[Measurement],
    origins: &[usize],
    summary: &[SummaryRow],
    training: &[TrainingPoint],
    provenance: &Provenance,
) -> Vec<(String, Vec<u8>)> {
    let tables = latex_tables(summary).into_iter();
    let mut texts: Vec<(String, String)> = tables
        .map(|(name, text)| (format!("tables/{name}"), text))
        .collect();
    let document = latex_document(texts.iter().map(|(name, _)| name.as_str()));
    texts.push(("tables.tex".to_owned(), document));
    texts.push(("tables.md".to_owned(), markdown_tables(summary)));
    let page = html_page(rows, origins, summary, provenance);
    texts.push(("report.html".to_owned(), page));
    let figures = figures(rows, summary, training).into_iter();
    let figures = figures.map(|(name, data)| (format!("figures/{name}"), data));
    let texts = texts
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()));
    texts.chain(figures).collect()
}

/// Writes a report, each file whole or as it was, and removes what an earlier one wrote and this one has not.
fn write(
    out: &Path,
    rows: &[Measurement],
    summary: &[SummaryRow],
    texts: &[(String, Vec<u8>)],
    mut provenance: Provenance,
) -> Result<(), CommandError> {
    std::fs::create_dir_all(out).map_err(cannot("make", out))?;
    for folder in FOLDERS.map(|name| out.join(name)) {
        files::make_folder(&folder).map_err(cannot("make", &folder))?;
    }
    let put = |name: &str, data: &[u8]| {
        let path = out.join(name);
        files::write_whole(&path, data).map_err(cannot("write", &path))
    };
    let list = |provenance: &Provenance| {
        let text = toml::to_string(provenance).expect("plain texts serialise");
        put(FILE, text.as_bytes())
    };
    let texts_names = texts.iter().map(|(name, _)| name.clone());
    let names: Vec<String> = RECORDS
        .map(str::to_owned)
        .into_iter()
        .chain(texts_names)
        .collect();
    let mut stale = earlier(out);
    stale.retain(|name| !names.contains(name));
    // Listed until they are gone, so that a kill in between leaves no file that nobody knows.
    provenance.files = [names.clone(), stale.clone()].concat();
    list(&provenance)?;
    let [cells, breakdowns, points, states] = RECORDS.map(|name| out.join(name));
    for (path, whole) in [(cells, true), (breakdowns, false)] {
        let rows = rows.iter().filter(|row| row.label.is_empty() == whole);
        write_records(&path, rows).map_err(CommandError::environment)?;
    }
    write_csv(&points, summary).map_err(CommandError::environment)?;
    write_csv(&states, &capacity(summary)).map_err(CommandError::environment)?;
    for (name, data) in texts {
        put(name, data)?;
    }
    for path in stale.iter().map(|name| out.join(name)) {
        match std::fs::remove_file(&path).map_err(|error| (error.kind(), error)) {
            // It is gone already, or not what was written.
            Ok(()) | Err((ErrorKind::NotFound | ErrorKind::IsADirectory, _)) => {}
            Err((_, error)) => return Err(cannot("remove", &path)(error)),
        }
    }
    provenance.files = names;
    list(&provenance)
}

/// The files that an earlier report in this folder lists as written. The list may be another person's: nothing
/// in it leads out of a report's own folders. One that cannot be read lists nothing.
fn earlier(out: &Path) -> Vec<String> {
    let text = files::read(&out.join(FILE), MOST).unwrap_or_default();
    let text = String::from_utf8(text).unwrap_or_default();
    let listed = toml::from_str::<Provenance>(&text)
        .unwrap_or_default()
        .files;
    let own = |name: &String| {
        let inside = FOLDERS
            .iter()
            .find_map(|folder| name.strip_prefix(folder)?.strip_prefix('/'));
        let file = inside.unwrap_or(name);
        !file.is_empty() && file != "." && file != ".." && !file.contains('/') && file != FILE
    };
    listed.into_iter().filter(own).collect()
}
