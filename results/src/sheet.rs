//! A task's table for a document, whatever it is written as: models down, lengths across, then how far each carries.

use crate::summary::SummaryRow;
use crate::text::short_length;
use crate::view::{CurveView, TaskView, effective, learning};
use crate::words::{brackets, conditions, interval, notes, own, value};

/// A table of one task.
#[derive(Debug)]
pub(crate) struct Sheet<'a> {
    /// Task.
    pub task: &'a str,
    /// Its options.
    pub options: String,
    /// What is measured under which conditions, and what stands in the cells, as sentences.
    pub caption: Vec<String>,
    /// Heads of the lengths.
    pub lengths: Vec<String>,
    /// Heads of what each curve says as a whole.
    pub ends: Vec<&'static str>,
    /// A row a curve.
    pub rows: Vec<SheetRow>,
    /// What marks mean, and what differs between curves.
    pub notes: Vec<String>,
}

/// A curve's row.
#[derive(Debug)]
pub(crate) struct SheetRow {
    /// The curve.
    pub name: String,
    /// A cell a length.
    pub cells: Vec<SheetCell>,
    /// What the curve says as a whole, a text a head.
    pub ends: Vec<String>,
    /// Numbers to sort these by.
    pub order: Vec<Option<f64>>,
}

/// A value with its interval.
#[derive(Debug, Default)]
pub(crate) struct SheetCell {
    /// The value, or how it ended; empty where nothing was planned.
    pub value: String,
    /// The interval in brackets.
    pub interval: String,
    /// Whether no other curve is told apart from it as a better one.
    pub best: bool,
}

/// What curves say as a whole.
struct End {
    head: &'static str,
    /// What the head means.
    words: &'static str,
    /// What a curve says under it, and the number that it says.
    text: fn(&SummaryRow) -> Option<String>,
    number: fn(&SummaryRow) -> Option<f64>,
}

/// A column that all curves leave empty is left out.
const ENDS: [End; 3] = [
    End {
        head: "2x",
        words: "share of the accuracy inside the training length, chance removed, that is left at twice that length, in %",
        text: |row| percent(row.retention_2x),
        number: |row| row.retention_2x,
    },
    End {
        head: "4x",
        words: "at four times",
        text: |row| percent(row.retention_4x),
        number: |row| row.retention_4x,
    },
    End {
        head: "carries to",
        words: "effective length, up to which every length keeps 90 % of it",
        text: carried,
        number: |row| row.effective_length.map(|length| length as f64),
    },
];

impl<'a> Sheet<'a> {
    /// Of a task.
    pub fn new(task: &TaskView<'a>) -> Self {
        let lengths = task.lengths.iter();
        let best: Vec<Vec<bool>> = lengths.map(|&length| unbeaten(task, length)).collect();
        let ends: Vec<End> = ENDS
            .into_iter()
            .filter(|end| {
                task.curves
                    .iter()
                    .any(|curve| (end.text)(curve.first()).is_some())
            })
            .collect();
        let row = |(index, curve): (usize, &CurveView<'_>)| SheetRow {
            name: curve.name.clone(),
            cells: task
                .lengths
                .iter()
                .zip(&best)
                .map(|(&length, best)| cell(curve.at(length), best[index]))
                .collect(),
            ends: ends
                .iter()
                .map(|end| (end.text)(curve.first()).unwrap_or_else(|| "-".to_owned()))
                .collect(),
            order: ends.iter().map(|end| (end.number)(curve.first())).collect(),
        };
        Self {
            task: task.task,
            options: task.options.clone(),
            caption: caption(task, best.iter().flatten().any(|&best| best), &ends),
            lengths: task.lengths.iter().map(|&l| short_length(l)).collect(),
            ends: ends.iter().map(|end| end.head).collect(),
            rows: task.curves.iter().enumerate().map(row).collect(),
            notes: remarks(task),
        }
    }
}

fn cell(row: Option<&SummaryRow>, best: bool) -> SheetCell {
    SheetCell {
        value: row.and_then(value).unwrap_or_default(),
        interval: row.and_then(interval).unwrap_or_default(),
        best,
    }
}

fn caption(task: &TaskView<'_>, bold: bool, ends: &[End]) -> Vec<String> {
    let mut caption = vec![conditions(task), brackets(task)];
    if bold {
        let words = "bold: no other value's interval lies wholly on the better side of this one's";
        caption.push(words.to_owned());
    }
    let ends = ends
        .iter()
        .map(|end| format!("{}: {}", end.head, end.words));
    let ends: Vec<String> = ends.collect();
    if !ends.is_empty() {
        caption.push(ends.join("; "));
    }
    caption.into_iter().map(sentence).collect()
}

/// Words as a sentence.
fn sentence(words: String) -> String {
    let mut characters = words.chars();
    let first = characters.next().map(char::to_uppercase);
    first
        .into_iter()
        .flatten()
        .chain(characters)
        .chain(['.'])
        .collect()
}

/// What the columns do not say: seeds that did not learn, what differs between curves, what marks mean.
fn remarks(task: &TaskView<'_>) -> Vec<String> {
    let of_curve = |curve: &CurveView<'_>| {
        let row = curve.first();
        let some = row
            .seeds_learned
            .is_some_and(|count| count > 0 && count < row.seeds);
        let mut parts: Vec<String> = learning(row).filter(|_| some).into_iter().collect();
        parts.extend(own(task, curve));
        (!parts.is_empty()).then(|| sentence(format!("{}: {}", curve.name, parts.join("; "))))
    };
    let curves = task.curves.iter().filter_map(of_curve);
    curves.chain(notes(task)).collect()
}

/// Which curves have a value at a length that no other is told apart from as better. None of a single curve:
/// it has nothing to be better than.
fn unbeaten(task: &TaskView<'_>, length: u64) -> Vec<bool> {
    let more = task.kind.is_accuracy();
    let ends: Vec<Option<(f64, f64)>> = task
        .curves
        .iter()
        .map(|curve| {
            let row = curve.at(length)?;
            row.value?;
            let (low, high) = row.value_low.zip(row.value_high)?;
            // Of losses less is better: turned over, the worse end comes first for both.
            Some(if more { (low, high) } else { (-high, -low) })
        })
        .collect();
    let highest = ends.iter().flatten().map(|ends| ends.0).reduce(f64::max);
    let alone = ends.iter().flatten().count() < 2;
    ends.iter()
        .map(|ends| !alone && ends.zip(highest).is_some_and(|(ends, best)| ends.1 >= best))
        .collect()
}

/// A share in whole percent.
fn percent(share: Option<f64>) -> Option<String> {
    Some(format!("{:.0}", 100.0 * share?))
}

/// How far a curve carries, or why that has no number.
fn carried(row: &SummaryRow) -> Option<String> {
    let length = effective(row).map(|length| length.replace(">=", "≥"));
    length.or_else(|| learning(row).filter(|_| row.learned == Some(false)))
}
