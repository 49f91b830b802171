//! Tables for a terminal: per task, models down and lengths across. Plain text, whose cells
//! stand apart whatever they hold.

use crate::summary::SummaryRow;
use crate::text::{paragraph, printable, short_length, wrap_characters};
use crate::view::{CurveView, TaskView, tasks};
use crate::words::{brackets, conditions, interval, notes, said, seeds, value};

/// Narrowest and widest column of names; a name beyond that has a line of its own.
const NAME: (usize, usize) = (10, 24);

/// Tables of what is shown of a summary, `width` columns at most. Lengths that do not fit go into further
/// blocks.
pub fn render_tables(summary: &[SummaryRow], width: usize) -> String {
    let mut text = String::new();
    for task in tasks(summary) {
        head(&task, width, &mut text);
        body(&task, width, &mut text);
        foot(&task, width, &mut text);
        text.push('\n');
    }
    // Names may come from a file that somebody else wrote.
    printable(&text)
}

fn head(task: &TaskView<'_>, width: usize, text: &mut String) {
    let title = if task.options.is_empty() {
        task.task.to_owned()
    } else {
        format!("{} ({})", task.task, task.options)
    };
    // Tasks may differ in the last of their options only: none is left out.
    let lines = match title.chars().count() <= width {
        true => vec![title],
        false => wrap_characters(&title.replace(',', ", "), width.saturating_sub(4)),
    };
    text.push_str(&lines.join("\n    "));
    text.push('\n');
    paragraph(&format!("  {}", conditions(task)), width, text);
    paragraph(&format!("  {}", brackets(task)), width, text);
}

/// The lines of a curve: value, interval, seeds; a cell a length.
fn lines(curve: &CurveView<'_>, lengths: &[u64]) -> Vec<(String, Vec<String>)> {
    let cells = |cell: fn(&SummaryRow) -> Option<String>| -> Vec<String> {
        let row = lengths.iter().map(|&length| curve.at(length));
        row.map(|row| row.and_then(cell).unwrap_or_default())
            .collect()
    };
    let mut lines = vec![
        (curve.name.clone(), cells(value)),
        (String::new(), cells(interval)),
    ];
    if curve.seeds() > 1 {
        lines.push((String::new(), cells(seeds)));
    }
    lines.retain(|(name, cells)| !name.is_empty() || cells.iter().any(|cell| !cell.is_empty()));
    lines
}

fn body(task: &TaskView<'_>, width: usize, text: &mut String) {
    let curves: Vec<_> = task
        .curves
        .iter()
        .map(|curve| lines(curve, &task.lengths))
        .collect();
    let heads: Vec<String> = task
        .lengths
        .iter()
        .map(|&length| short_length(length))
        .collect();
    let characters = |text: &String| text.chars().count();
    let cells = curves
        .iter()
        .flatten()
        .flat_map(|line| &line.1)
        .chain(&heads);
    // A column is a space wider than its widest cell.
    let cell = cells.map(characters).max().unwrap_or(0) + 1;
    let names = curves.iter().flatten().map(|line| characters(&line.0));
    let name = names.max().unwrap_or(0).clamp(NAME.0, NAME.1);
    let columns = (width.saturating_sub(name + 2) / cell).max(1);
    let places: Vec<usize> = (0..heads.len()).collect();
    for block in places.chunks(columns) {
        let mut line = |mut own: &str, cells: &[String]| {
            if own.chars().count() > name {
                paragraph(&format!("  {own}"), width, text);
                own = "";
            }
            let mut line = format!("  {own:name$}");
            for &place in block {
                line.push_str(&format!("{:>cell$}", cells[place]));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        };
        line("", &heads);
        for (name, cells) in curves.iter().flatten() {
            line(name, cells);
        }
    }
}

/// What each curve says as a whole, and what marks mean.
fn foot(task: &TaskView<'_>, width: usize, text: &mut String) {
    for curve in &task.curves {
        let said = said(task, curve);
        if !said.is_empty() {
            paragraph(&format!("  {}: {said}", curve.name), width, text);
        }
    }
    for note in notes(task) {
        paragraph(&format!("  {note}"), width, text);
    }
}
