//! Accuracy against state: what each model recalls with how many bytes, a row a model and length.

use serde::Serialize;

use crate::metric::Kind;
use crate::summary::SummaryRow;
use crate::view::tasks;

crate::table_row! {
/// A row of that table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CapacityRow {
    /// Task.
    pub task: String,
    /// Its options.
    pub task_options: String,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// Recurrent state of one row at the end, in bytes.
    pub state_bytes: u64,
    /// The architecture or checkpoint, with what tells it apart from others on the task.
    pub name: String,
    /// Values of all parameters.
    pub parameters: Option<u64>,
    /// Longest training length, in tokens.
    pub train_length: Option<u64>,
    /// What is measured of a sample.
    pub metric: String,
    /// Seeds that were measured.
    pub seeds: u64,
    /// Mean over them.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end.
    pub value_high: Option<f64>,
    /// (value - chance) / (1 - chance).
    pub scaled_accuracy: Option<f64>,
    /// Whether no model of the task with as much state or less is better at this length.
    pub frontier: bool,
}
}

/// The table of what is shown of a summary and was measured, by task and length, then by state and name.
pub fn capacity(summary: &[SummaryRow]) -> Vec<CapacityRow> {
    let mut table = Vec::new();
    for task in tasks(summary) {
        for &length in &task.lengths {
            let of_length = task.curves.iter().filter_map(|curve| {
                let row = curve.at(length)?;
                Some(CapacityRow {
                    task: task.task.to_owned(),
                    task_options: task.options.to_owned(),
                    eval_length: length,
                    state_bytes: row.state_bytes?,
                    name: curve.name.clone(),
                    parameters: row.parameters,
                    train_length: row.train_length,
                    metric: row.metric.clone(),
                    seeds: row.seeds,
                    value: row.value?,
                    value_low: row.value_low,
                    value_high: row.value_high,
                    scaled_accuracy: row.scaled_accuracy,
                    frontier: false,
                })
            });
            let mut rows: Vec<CapacityRow> = of_length.collect();
            rows.sort_by(|one, other| {
                let key = |row: &CapacityRow| (row.state_bytes, row.name.clone());
                key(one).cmp(&key(other))
            });
            mark_frontier(&mut rows, task.kind);
            table.extend(rows);
        }
    }
    table
}

/// Marks the rows that none with as much state or less is better than.
fn mark_frontier(rows: &mut [CapacityRow], kind: Kind) {
    let goodness = |value: f64| if kind.is_accuracy() { value } else { -value };
    let marks: Vec<bool> = rows
        .iter()
        .map(|row| {
            let small = rows.iter().filter(|one| one.state_bytes <= row.state_bytes);
            let best = small.map(|one| goodness(one.value));
            goodness(row.value) >= best.fold(f64::NEG_INFINITY, f64::max)
        })
        .collect();
    for (row, mark) in rows.iter_mut().zip(marks) {
        row.frontier = mark;
    }
}
