//! The runs kept in `results/reference`: records that this version reads, and what it makes of them.

use std::fs;
use std::path::{Path, PathBuf};

use longhaul_results::{
    Measurement, Probe, Record, TrainingPoint, csv_text, factors, plots, predictions,
    render_factors, render_tables, summarise, write_csv,
};

/// Folders that are read here.
const READ: [&str; 25] = [
    "books",
    "huang2025",
    "huang2025-grid/narrow",
    "huang2025-grid/narrow-transformer",
    "huang2025-grid/short",
    "needles",
    "positions",
    "published",
    "published-small",
    "quick",
    "smollm2/ablation",
    "smollm2/plain16k",
    "smollm2/ruler",
    "smollm2/yarn16k",
    "state-tracking/curriculum",
    "state-tracking/curriculum-automata",
    "state-tracking/curriculum-groups",
    "state-tracking/curriculum-s4",
    "state-tracking/curriculum-seeds",
    "state-tracking/fixed",
    "state-tracking/uniform",
    "state-tracking/uniform-automata",
    "state-tracking/uniform-mamba2",
    "state-tracking/uniform-ranges",
    "state-tracking/uniform-seeds",
];

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn records<R: Record>(path: &Path) -> Result<Vec<R>, String> {
    let text = text(path);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut all = Vec::new();
    for record in reader.deserialize() {
        let record: R = record.map_err(|error| error.to_string())?;
        record.validate()?;
        all.push(record);
    }
    Ok(all)
}

/// Reads records, which written again are the same bytes.
fn round_trip<R: Record>(path: &Path) -> Vec<R> {
    let records = records(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_same(path, &written(&records));
    records
}

fn written<T: serde::Serialize>(rows: &[T]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.csv");
    write_csv(&path, rows).expect("written");
    text(&path)
}

fn assert_same(kept: &Path, made: &str) {
    let text = text(kept);
    let mut lines = text.lines().zip(made.lines());
    let differs = lines.position(|(one, other)| one != other);
    assert!(
        text == made,
        "{} differs at line {differs:?}, counted from 0; the example redraw makes it",
        kept.display()
    );
}

#[test]
fn every_kept_run_is_read_here() {
    let mut found = Vec::new();
    for path in entries(&reference()) {
        let inner = if path.is_dir() {
            entries(&path)
        } else {
            Vec::new()
        };
        found.extend(
            inner
                .into_iter()
                .chain([path])
                .filter(|path| path.join("results.csv").exists()),
        );
    }
    let name = |path: &PathBuf| {
        path.strip_prefix(reference())
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    let mut found: Vec<String> = found.iter().map(name).collect();
    found.sort();
    assert_eq!(found, READ);
}

#[test]
fn summaries_tables_and_plots_of_kept_runs_can_be_made_again() {
    for folder in READ.map(|name| reference().join(name)) {
        let rows: Vec<Measurement> = round_trip(&folder.join("results.csv"));
        let optional = |name: &str| Some(folder.join(name)).filter(|path| path.exists());
        if let Some(path) = optional("training.csv") {
            round_trip::<TrainingPoint>(&path);
        }
        if let Some(path) = optional("probes.csv") {
            round_trip::<Probe>(&path);
        }
        let summary = summarise(&rows);
        if let Some(path) = optional("summary.csv") {
            assert_same(&path, &written(&summary));
        }
        if let Some(path) = optional("prediction.csv") {
            assert_same(&path, &csv_text(&predictions(&summary)));
        }
        assert_same(&folder.join("table.txt"), &render_tables(&summary, 80));
        let plots = plots(&summary);
        let kept = entries(&folder)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "svg"));
        for path in kept {
            let plot = plots.iter().find(|(name, _)| path.ends_with(name));
            assert_same(&path, plot.map_or("no such plot", |(_, plot)| plot));
        }
    }
}

/// The grid's corners are runs of their own.
#[test]
fn what_decides_is_made_of_the_corners_of_the_grid() {
    let grid = reference().join("huang2025-grid");
    let corners = READ.iter().filter(|name| name.starts_with("huang2025"));
    let rows: Vec<Measurement> = corners
        .flat_map(|name| round_trip(&reference().join(name).join("results.csv")))
        .collect();
    let table = factors(&rows, &summarise(&rows));
    assert_same(&grid.join("factors.csv"), &csv_text(&table));
    let kept = text(&grid.join("factors.txt"));
    assert!(
        kept.contains(render_factors(&table, 80).trim()),
        "factors.txt"
    );
}
