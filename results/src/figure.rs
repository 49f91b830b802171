//! A metric of one task against length or position, a column wide: a curve a model with its intervals, and lines for
//! chance and for the training length. The same rows give the same bytes.

use std::collections::BTreeSet;

use crate::axis::Axis;
use crate::drawing::{Anchor, BLACK, COLUMN, Drawing, GREY, LINE, SIZE, lines};
use crate::metric::Kind;
use crate::panel::{Level, Mark, Panel, Series, Spread, legend};
use crate::style::Style;
use crate::summary::SummaryRow;
use crate::text::short_length;
use crate::view::{CurveView, TaskView, learning};
use crate::words::curriculum;

/// Height of the scales.
const HIGH: f64 = 132.0;
/// Type size of a figure's title.
pub(crate) const TITLE: f64 = 9.0;

/// What a figure's points are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Across {
    /// Lengths of examples.
    Length,
    /// Positions inside examples.
    Position,
    /// Lengths of the examples with the needle at one depth.
    Depth,
}

/// The plot of a task; `styles` has one for each of its curves.
pub(crate) fn figure(task: &TaskView<'_>, across: Across, styles: &[Style]) -> Drawing {
    let mut drawing = Drawing::new(COLUMN);
    let options = task.options.replace(',', ", ");
    let top = heading(&mut drawing, task.task, &options);
    let panel = panel(task, across, styles);
    let head = panel.head(COLUMN);
    let end = panel.draw(&mut drawing, (0.0, top), COLUMN, head, HIGH);
    let alike = task.common(|curve| curve.first().learning_rate).is_some();
    let words = task.curves.iter().map(|curve| said(curve, alike, true));
    let entries: Vec<(Style, String)> = styles.iter().copied().zip(words).collect();
    let y = legend(&mut drawing, &entries, (2.0, end + LINE), COLUMN - 4.0);
    let mut notes = vec![of_seeds(task.common(CurveView::seeds), task.kind)];
    notes.push("Marks stand beside each other, and above where they coincide".to_owned());
    notes.extend(conditions(task));
    let notes = format!("{}.", notes.join(". "));
    let y = drawing.lines((2.0, y + 2.0), COLUMN - 4.0, GREY, &notes);
    drawing.height = y - LINE + 4.0;
    drawing
}

/// A title, and grey words under it. Returns where they end.
pub(crate) fn heading(drawing: &mut Drawing, title: &str, words: &str) -> f64 {
    let (room, mut y) = (drawing.width - 4.0, TITLE + 1.0);
    for line in lines(title, room, TITLE) {
        drawing.sized((2.0, y), Anchor::Start, TITLE, BLACK, &line);
        y += LINE + 0.5;
    }
    if !words.is_empty() {
        y = drawing.lines((2.0, y), room, GREY, words);
    }
    y - SIZE + 1.0
}

/// The axes, lines and curves of a task, without a title.
pub(crate) fn panel(task: &TaskView<'_>, across: Across, styles: &[Style]) -> Panel {
    let trained = training_lengths(task).0;
    let points = task.curves.iter().flat_map(|curve| &curve.points);
    let ends = points.flat_map(|row| [row.value_low.or(row.value), row.value_high.or(row.value)]);
    let words = match across {
        Across::Length | Across::Depth => "length in tokens",
        Across::Position => "position in tokens, end of its bucket",
    };
    let mark = |row: &SummaryRow| {
        let seeds = [row.value_min, row.value_median, row.value_max];
        Some(Mark {
            across: row.eval_length as f64,
            up: row.value?,
            ends: row.value_low.zip(row.value_high),
            rings: seeds
                .into_iter()
                .flatten()
                .filter(|_| row.seeds > 1)
                .collect(),
            bare: false,
        })
    };
    Panel {
        title: String::new(),
        across: Axis::lengths(&task.lengths, trained.iter().copied(), words),
        up: Axis::values(task.kind, ends.flatten(), &task.metric),
        marked: marked(&trained),
        // Named at its end, where its words stand.
        level: task.chance.last().map(|&(_, last)| {
            let places = task.chance.iter();
            let places = places.map(|&(length, chance)| (length as f64, chance));
            Level {
                places: places.collect(),
                label: ["chance".to_owned(), format!("{:.1} %", 100.0 * last)],
            }
        }),
        spread: Spread::Columns,
        series: series(task, styles, |curve| {
            curve.points.iter().filter_map(|row| mark(row)).collect()
        }),
    }
}

/// What each curve of a task shows as marks that a line joins.
pub(crate) fn series<'a>(
    task: &TaskView<'a>,
    styles: &[Style],
    marks: impl Fn(&CurveView<'a>) -> Vec<Mark>,
) -> Vec<Series> {
    let series = |(curve, &style): (&CurveView<'a>, &Style)| Series {
        name: curve.name.clone(),
        style,
        joined: true,
        marks: marks(curve),
    };
    task.curves.iter().zip(styles).map(series).collect()
}

/// Training lengths as a panel marks them.
pub(crate) fn marked(trained: &BTreeSet<u64>) -> Vec<(f64, String)> {
    let label = |&length: &u64| {
        (
            length as f64,
            format!("trained at {}", short_length(length)),
        )
    };
    trained.iter().map(label).collect()
}

/// What stands beside a curve's sample: also that it learned, or only that it did not.
pub(crate) fn said(curve: &CurveView<'_>, alike: bool, also_learned: bool) -> String {
    let row = curve.first();
    let mut words = vec![curve.name.clone()];
    words.extend(learning(row).filter(|words| also_learned || words != "learned"));
    if !alike && row.selected == Some(true) {
        let rate = row.learning_rate;
        words.extend(rate.map(|rate| format!("learning rate {rate}")));
    }
    if curve.points.iter().all(|row| row.value.is_none()) {
        words.push(row.status.name().to_owned());
    }
    words.join(", ")
}

/// How many seeds there are.
pub(crate) fn count_of_seeds(seeds: Option<u64>) -> String {
    match seeds {
        Some(1) => "One seed: an anecdote, no comparison".to_owned(),
        Some(seeds) => format!("Mean of {seeds} seeds"),
        None => "Mean of the seeds, whose numbers differ".to_owned(),
    }
}

/// How many seeds there are, and what the bars are.
pub(crate) fn of_seeds(seeds: Option<u64>, kind: Kind) -> String {
    let bars = match seeds {
        Some(1) => "95 % by its samples".to_owned(),
        Some(_) => format!("its 95 % interval over all seeds; rings: {}", kind.seeds()),
        None => "95 % intervals".to_owned(),
    };
    format!("{}. Bars: {bars}", count_of_seeds(seeds))
}

/// How the models were trained, and what is left out, as sentences.
pub(crate) fn conditions(task: &TaskView<'_>) -> Vec<String> {
    let common = |field: fn(&SummaryRow) -> Option<String>| {
        task.common(|curve| field(curve.first())).flatten()
    };
    let mut notes = Vec::new();
    notes.extend(common(|row| {
        row.train_steps.map(|steps| format!("{steps} steps"))
    }));
    notes.extend(common(|row| {
        curriculum(row).map(|name| format!("Training lengths by {name}"))
    }));
    notes.extend(common(|row| {
        let rate = row.learning_rate;
        rate.map(|rate| format!("Learning rate {rate}"))
    }));
    let outside = training_lengths(task).1;
    let outside = outside.into_iter().map(short_length);
    notes.extend(outside.map(|length| format!("Trained at {length}")));
    let mut points = task.curves.iter().flat_map(|curve| &curve.points);
    if points.any(|row| row.not_ok > 0 && row.value.is_some()) {
        notes.push("Some means lack seeds that failed: see the table".to_owned());
    }
    let mut firsts = task.curves.iter().map(CurveView::first);
    if firsts.any(|row| row.selected.is_none()) {
        notes.push("No learning rate could be chosen: all are shown".to_owned());
    }
    notes
}

/// Known training lengths near the measured ones, and the others.
pub(crate) fn training_lengths(task: &TaskView<'_>) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (shortest, longest) = (task.lengths[0], task.lengths[task.lengths.len() - 1]);
    let near = |length: &u64| *length >= shortest.div_ceil(4) && *length / 4 <= longest;
    let curves = task.curves.iter();
    let trained = curves.filter_map(|curve| curve.first().train_length);
    trained.partition(near)
}
