//! What is said of a task's table whatever it is written as: the conditions above it, its cells, what each curve says
//! as a whole, and what marks mean.

use crate::metric::Kind;
use crate::summary::SummaryRow;
use crate::text::short_length;
use crate::view::{CurveView, Step, TaskView, effective, learning};

/// The metric, what all curves have in common, and chance.
pub(crate) fn conditions(task: &TaskView<'_>) -> String {
    let mut parts = vec![format!("{} by length", task.metric)];
    for fact in &FACTS[1..] {
        parts.extend(task.common(*fact).flatten());
    }
    let chance = task.chance_words();
    parts.extend(chance.map(|chance| format!("chance {chance}")));
    if !task.kind.is_accuracy() {
        parts.push("less is better".to_owned());
    }
    parts.join("; ")
}

/// What the lines of a curve are.
pub(crate) fn brackets(task: &TaskView<'_>) -> String {
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

/// What stands in the head where all curves agree, else with each curve. The head has more to say of seeds.
const FACTS: [fn(&CurveView<'_>) -> Option<String>; 3] = [seed_count, training, learning_rate];

/// Longest training length, a curriculum that leads to it, and steps, where they are known.
fn training(curve: &CurveView<'_>) -> Option<String> {
    let row = curve.first();
    let length = row
        .train_length
        .map(|length| format!("trained at {}", short_length(length)));
    let curriculum = curriculum(row).map(str::to_owned);
    let steps = row.train_steps.map(|steps| format!("{steps} steps"));
    let parts = [length, curriculum, steps].into_iter().flatten();
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The curriculum of the training lengths, if they had one.
pub(crate) fn curriculum(row: &SummaryRow) -> Option<&str> {
    let name = row.train_distribution.as_str();
    Some(name).filter(|name| name.starts_with("curriculum"))
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

/// The value, marked where seeds are missing from it, or how it ended.
pub(crate) fn value(row: &SummaryRow) -> Option<String> {
    let mark = if row.not_ok > 0 { "*" } else { "" };
    Some(row.value.map_or_else(
        || row.status.short().to_owned(),
        |value| format!("{}{mark}", Kind::of(&row.metric).show(value)),
    ))
}

/// The 95 % interval in brackets.
pub(crate) fn interval(row: &SummaryRow) -> Option<String> {
    let kind = Kind::of(&row.metric);
    let end = |value: f64| {
        let text = kind.show(value);
        text.strip_suffix(".0").unwrap_or(&text).to_owned()
    };
    let (low, high) = row.value_low.zip(row.value_high)?;
    Some(format!("[{}, {}]", end(low), end(high)))
}

/// Up to three seeds from the worst to the best; of more the worst, the median and the best.
pub(crate) fn seeds(row: &SummaryRow) -> Option<String> {
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

/// What a curve says as a whole: whether it learned, how far it carries, and what differs from the other curves.
pub(crate) fn said(task: &TaskView<'_>, curve: &CurveView<'_>) -> String {
    let row = curve.first();
    let mut parts: Vec<String> = learning(row).into_iter().collect();
    parts.extend(effective(row).map(|length| format!("effective length {length}")));
    parts.extend(own(task, curve));
    parts.join("; ")
}

/// What is said of a curve because it differs from the other curves.
pub(crate) fn own(task: &TaskView<'_>, curve: &CurveView<'_>) -> Vec<String> {
    let differing = FACTS.iter().zip(task.differing);
    let differing = differing.filter(|(_, differs)| *differs);
    differing.filter_map(|(fact, _)| fact(curve)).collect()
}

/// Facts that are not the same for all curves of a task.
pub(crate) fn differing(task: &TaskView<'_>) -> [bool; FACTS.len()] {
    FACTS.map(|fact| task.common(fact).is_none())
}

/// Seeds that were planned.
fn seed_count(curve: &CurveView<'_>) -> Option<String> {
    let count = curve.seeds();
    Some(format!("{count} seed{}", if count == 1 { "" } else { "s" }))
}

/// Where samples become others, what marks in a table mean, and what could not be chosen.
pub(crate) fn notes(task: &TaskView<'_>) -> Vec<String> {
    let points = || task.curves.iter().flat_map(|curve| &curve.points);
    let step = |step: &Step| {
        let ([here, before], from) = (&step.labels, short_length(step.from));
        format!("From {from} on the samples are others, not only longer: {here}, before {before}.")
    };
    let mut notes: Vec<String> = task.steps.iter().map(step).collect();
    if points().any(|row| row.not_ok > 0 && row.value.is_some()) {
        let note =
            "* seeds that were not measured are missing from this mean; results.csv says why";
        notes.push(note.to_owned());
    }
    if points().any(|row| row.selected.is_none()) {
        let note = "No learning rate could be chosen, as none was measured on validation examples inside the \
                    training length: all are shown.";
        notes.push(note.to_owned());
    }
    notes
}
