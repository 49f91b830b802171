//! Tables as Markdown (GitHub's form), a section a task. Names of any kind appear as they are.

use std::fmt::Write;

use crate::sheet::{Sheet, SheetCell};
use crate::summary::SummaryRow;
use crate::text::printable;
use crate::view::tasks;

/// A section with a table for each task of a summary.
pub fn markdown_tables(summary: &[SummaryRow]) -> String {
    let mut text = String::new();
    for task in tasks(summary) {
        let sheet = Sheet::new(&task);
        let _ = writeln!(text, "## {}\n", escape(sheet.task));
        if !sheet.options.is_empty() {
            let _ = writeln!(text, "{}\n", escape(&sheet.options.replace(',', ", ")));
        }
        let caption: Vec<String> = sheet.caption.iter().map(|line| escape(line)).collect();
        let _ = writeln!(text, "{}\n", caption.join(" "));
        body(&sheet, &mut text);
        for note in &sheet.notes {
            let _ = writeln!(text, "{}\n", escape(note));
        }
    }
    text
}

fn body(sheet: &Sheet<'_>, text: &mut String) {
    let ends = sheet.ends.iter().map(|&end| end.to_owned());
    let heads = sheet.lengths.iter().cloned().chain(ends);
    let mut rows = vec![
        std::iter::once(String::new())
            .chain(heads)
            .collect::<Vec<_>>(),
    ];
    rows.push(vec!["---:".to_owned(); rows[0].len()]);
    rows[1][0] = "---".to_owned();
    for row in &sheet.rows {
        let mut cells = vec![escape(&row.name)];
        cells.extend(row.cells.iter().map(cell));
        cells.extend(row.ends.iter().map(|end| escape(end)));
        rows.push(cells);
    }
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text.push('\n');
}

fn cell(cell: &SheetCell) -> String {
    let (mut value, interval) = (escape(&cell.value), escape(&cell.interval));
    if cell.best {
        value = format!("**{value}**");
    }
    match interval.is_empty() {
        true => value,
        false => format!("{value} {interval}"),
    }
}

/// Text that Markdown and the HTML within it take as text, on one line.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in printable(text).chars() {
        match c {
            '\n' => escaped.push(' '),
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' | '!' => {
                escaped.extend(['\\', c]);
            }
            _ => escaped.push(c),
        }
    }
    escaped
}
