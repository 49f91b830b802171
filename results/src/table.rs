//! Tables for a terminal: per task, models down and lengths across. Plain text, whose cells
//! stand apart whatever they hold.

use crate::metric::Kind;
use crate::summary::SummaryRow;
use crate::text::{printable, short_length, wrap};
use crate::view::{CurveView, TaskView, effective, learning, tasks};

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
        false => wrap(&title.replace(',', ", "), width.saturating_sub(4)),
    };
    text.push_str(&lines.join("\n    "));
    text.push('\n');
    let mut parts = vec![format!("{} by length", task.metric)];
    for fact in FACTS {
        parts.extend(task.common(fact).flatten());
    }
    let chance = task.chance;
    parts.extend(chance.map(|chance| format!("chance {:.1} %", 100.0 * chance)));
    if !task.kind.is_accuracy() {
        parts.push("less is better".to_owned());
    }
    paragraph(&parts.join("; "), width, text);
    paragraph(&brackets(task), width, text);
}

/// What the lines of a curve are.
fn brackets(task: &TaskView<'_>) -> String {
    let many = task.kind.seeds();
    let checkpoints = task
        .curves
        .iter()
        .all(|curve| !curve.first().checkpoint.is_empty());
    let law = if task.kind.is_accuracy() {
        "Wilson"
    } else {
        "Student"
    };
    match task.common(CurveView::seeds) {
        Some(1) if checkpoints => {
            format!("in brackets how far the samples determine the mean ({law}, 95 %)")
        }
        Some(1) => format!(
            "one seed, so an anecdote and no comparison of architectures; in brackets how far its \
             samples determine this one model's mean ({law}, 95 %)"
        ),
        Some(seeds) => format!(
            "mean of {seeds} seeds, in brackets its 95 % interval over all seeds, then {}",
            if seeds > 3 { many } else { "the seeds" }
        ),
        None => {
            format!("mean of the seeds, in brackets its 95 % interval, then the seeds, or {many}")
        }
    }
}

/// What stands in the head where all curves agree, else with each curve.
const FACTS: [fn(&CurveView<'_>) -> Option<String>; 2] = [training, learning_rate];

/// Longest training length and steps, where they are known.
fn training(curve: &CurveView<'_>) -> Option<String> {
    let row = curve.first();
    let length = row
        .train_length
        .map(|length| format!("trained at {}", short_length(length)));
    let steps = row.train_steps.map(|steps| format!("{steps} steps"));
    let parts: Vec<String> = [length, steps].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The learning rate and how it was chosen.
fn learning_rate(curve: &CurveView<'_>) -> Option<String> {
    let row = curve.first();
    let rate = row.learning_rate?;
    Some(match row.selected {
        Some(true) if curve.rates > 1 => {
            format!(
                "learning rate {rate}, the best of {} on validation examples",
                curve.rates
            )
        }
        _ => format!("learning rate {rate}"),
    })
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

/// The value, marked where seeds are missing from it, or how it ended.
fn value(row: &SummaryRow) -> Option<String> {
    let mark = if row.not_ok > 0 { "*" } else { "" };
    Some(row.value.map_or_else(
        || row.status.short().to_owned(),
        |value| format!("{}{mark}", Kind::of(&row.metric).show(value)),
    ))
}

fn interval(row: &SummaryRow) -> Option<String> {
    let kind = Kind::of(&row.metric);
    let end = |value: f64| {
        let text = kind.show(value);
        text.strip_suffix(".0").unwrap_or(&text).to_owned()
    };
    let (low, high) = row.value_low.zip(row.value_high)?;
    Some(format!("[{}, {}]", end(low), end(high)))
}

/// Up to three seeds from the worst to the best; of more the worst, the median and the best.
fn seeds(row: &SummaryRow) -> Option<String> {
    let all = [row.value_min, row.value_median, row.value_max];
    let shown = match row.seeds {
        0 | 1 => &all[..row.seeds as usize],
        2 => &[row.value_min, row.value_max],
        _ => &all[..],
    };
    let kind = Kind::of(&row.metric);
    let show = |value: &Option<f64>| value.map(|value| kind.show_short(value));
    let shown: Vec<String> = shown.iter().filter_map(show).collect();
    (!shown.is_empty()).then(|| shown.join("/"))
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
                paragraph(own, width, text);
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
    let own: Vec<_> = FACTS
        .into_iter()
        .filter(|&fact| task.common(fact).is_none())
        .collect();
    let seeds_differ = task.common(CurveView::seeds).is_none();
    for curve in &task.curves {
        let row = curve.first();
        let mut parts: Vec<String> = learning(row).into_iter().collect();
        parts.extend(effective(row).map(|length| format!("effective length {length}")));
        if seeds_differ {
            let count = curve.seeds();
            parts.push(format!("{count} seed{}", if count == 1 { "" } else { "s" }));
        }
        parts.extend(own.iter().filter_map(|fact| fact(curve)));
        if !parts.is_empty() {
            paragraph(
                &format!("{}: {}", curve.name, parts.join("; ")),
                width,
                text,
            );
        }
    }
    let points = || task.curves.iter().flat_map(|curve| &curve.points);
    if points().any(|row| row.not_ok > 0 && row.value.is_some()) {
        let note =
            "* seeds that were not measured are missing from this mean; results.csv says why";
        paragraph(note, width, text);
    }
    if points().any(|row| row.selected.is_none()) {
        let note = "No learning rate could be chosen, as none was measured on validation examples inside the \
                    training length: all are shown.";
        paragraph(note, width, text);
    }
}

/// Words in lines of at most `width` characters, the later ones set in.
fn paragraph(words: &str, width: usize, text: &mut String) {
    for (place, line) in wrap(words, width.saturating_sub(4)).iter().enumerate() {
        let indent = if place == 0 { 2 } else { 4 };
        text.push_str(&format!("{:indent$}{line}\n", ""));
    }
}
