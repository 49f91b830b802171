//! Plots of a summary as files: one a task, written whole or not at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::figure::Figure;
use crate::files;
use crate::style::Styles;
use crate::summary::SummaryRow;
use crate::view::{CurveView, tasks};

/// Why a plot could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct PlotError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

/// A plot of each task with measured values: a word for its file, and SVG text.
pub fn plots(summary: &[SummaryRow]) -> Vec<(String, String)> {
    let styles = Styles::new(summary);
    let tasks = tasks(summary);
    let mut taken = BTreeSet::new();
    let mut plots = Vec::new();
    for task in &tasks {
        let mut points = task.curves.iter().flat_map(|curve| &curve.points);
        if points.all(|row| row.value.is_none()) {
            continue;
        }
        let alone = tasks.iter().filter(|other| other.task == task.task).count() == 1;
        let word = file_word(task.task, if alone { "" } else { task.options });
        // Words that have become equal are numbered.
        let numbered = (2..).map(|number| format!("{word}-{number}"));
        let free = |word: &String| !taken.contains(word);
        let name = std::iter::once(word.clone()).chain(numbered).find(free);
        let name = name.expect("there are more numbers than tasks");
        taken.insert(name.clone());
        let firsts: Vec<&SummaryRow> = task.curves.iter().map(CurveView::first).collect();
        plots.push((name, Figure::new(task, styles.of(&firsts)).draw()));
    }
    plots
}

/// Writes the plot of each task with measured values, `accuracy-TASK.svg`, and returns the files.
///
/// # Errors
/// The system's refusal. Each file is whole or as it was.
pub fn plot_all(summary: &[SummaryRow], folder: &Path) -> Result<Vec<PathBuf>, PlotError> {
    let write = |(name, text): (String, String)| {
        let path = folder.join(format!("accuracy-{name}.svg"));
        match files::write_whole(&path, text.as_bytes()) {
            Ok(()) => Ok(path),
            Err(source) => Err(PlotError { path, source }),
        }
    };
    plots(summary).into_iter().map(write).collect()
}

/// A task and its options as part of a file name.
fn file_word(task: &str, options: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let words = if options.is_empty() {
        task.to_owned()
    } else {
        format!("{task}-{options}")
    };
    let word = words.chars().map(|c| if plain(c) { c } else { '-' });
    word.take(150).collect()
}
