//! Tables for a terminal: per task, architectures down and lengths across, in percent. Plain text.

use crate::summary::{SummaryRow, best_learning_rates};

/// Width of a length's column.
const CELL: usize = 10;

/// Tables of the best learning rates' whole cells, `width` columns at most where names allow it.
/// Lengths that do not fit go into further blocks.
pub fn render_tables(summary: &[SummaryRow], width: usize) -> String {
    let rows: Vec<&SummaryRow> = best_learning_rates(summary)
        .into_iter()
        .filter(|row| row.label.is_empty())
        .collect();
    let mut tasks: Vec<(&str, &str, Option<u64>)> = Vec::new();
    for row in &rows {
        let task = (
            row.task.as_str(),
            row.task_options.as_str(),
            row.train_length,
        );
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let mut text = String::new();
    for (task, options, train_length) in tasks {
        let of_task: Vec<&SummaryRow> = rows
            .iter()
            .filter(|row| {
                row.task == task && row.task_options == options && row.train_length == train_length
            })
            .copied()
            .collect();
        render_task(&of_task, width, &mut text);
    }
    text
}

fn render_task(rows: &[&SummaryRow], width: usize, text: &mut String) {
    let first = rows[0];
    let title = if first.task_options.is_empty() {
        first.task.clone()
    } else {
        format!("{} ({})", first.task, first.task_options)
    };
    let chance = first.chance.map_or_else(String::new, |chance| {
        format!(", chance {:.1} %", 100.0 * chance)
    });
    text.push_str(&format!(
        "{}\n  {} in % by length{}{chance}\n",
        shorten(&title, width),
        first.metric.replace('_', " "),
        first
            .train_length
            .map_or_else(String::new, |length| format!(
                "; trained at {}",
                short_length(length)
            ))
    ));
    let mut lengths: Vec<u64> = rows.iter().map(|row| row.eval_length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut models: Vec<(&str, &str, &str)> = Vec::new();
    for row in rows {
        let model = model_of(row);
        if !models.contains(&model) {
            models.push(model);
        }
    }
    let names: Vec<String> = models
        .iter()
        .map(|model| model_name(*model, &models))
        .collect();
    let name_width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0);
    let name_width = name_width.min(width.saturating_sub(2 * CELL)).max(12);
    let columns = (width.saturating_sub(name_width + 2) / CELL).max(1);
    for block in lengths.chunks(columns) {
        text.push_str(&format!("  {:name_width$}", ""));
        for length in block {
            text.push_str(&format!("{:>CELL$}", short_length(*length)));
        }
        text.push('\n');
        for (model, name) in models.iter().zip(&names) {
            text.push_str(&format!("  {:name_width$}", shorten(name, name_width)));
            for length in block {
                let row = rows
                    .iter()
                    .find(|row| model_of(row) == *model && row.eval_length == *length);
                text.push_str(&format!(
                    "{:>CELL$}",
                    row.map_or_else(String::new, |row| cell(row))
                ));
            }
            text.push('\n');
        }
    }
    text.push('\n');
}

/// Value and half-width of its interval, or how it ended.
fn cell(row: &SummaryRow) -> String {
    match (row.value, row.value_low, row.value_high) {
        (Some(value), Some(low), Some(high)) => {
            format!("{:.1}±{:.1}", 100.0 * value, 50.0 * (high - low))
        }
        (Some(value), ..) => format!("{:.1}", 100.0 * value),
        _ => row.status.short().to_owned(),
    }
}

/// What tells the models of a table or plot apart.
pub(crate) fn model_of(row: &SummaryRow) -> (&str, &str, &str) {
    (&row.architecture, &row.options, &row.checkpoint)
}

/// A model's name in a table or legend: its checkpoint's, or its architecture with the options only
/// where they tell two apart.
pub(crate) fn model_name(model: (&str, &str, &str), all: &[(&str, &str, &str)]) -> String {
    let (architecture, options, checkpoint) = model;
    if !checkpoint.is_empty() {
        return checkpoint.to_owned();
    }
    let alone = all.iter().filter(|other| other.0 == architecture).count() == 1;
    if alone || options.is_empty() {
        architecture.to_owned()
    } else {
        format!("{architecture}:{options}")
    }
}

/// 512, 1K, 16K, 1M; other numbers in full.
pub(crate) fn short_length(length: u64) -> String {
    match length {
        0 => "0".to_owned(),
        _ if length.is_multiple_of(1 << 20) => format!("{}M", length >> 20),
        _ if length.is_multiple_of(1 << 10) => format!("{}K", length >> 10),
        _ => length.to_string(),
    }
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}
