//! Does a short probe predict long behaviour? Rank correlations, over the models of a run, of what is seen at short lengths
//! with the accuracy far beyond the training length.

use std::collections::HashMap;

use serde::Serialize;

use crate::bootstrap;
use crate::random::Random;
use crate::setting::{Model, group};
use crate::summary::SummaryRow;
use crate::text::{paragraph, printable};
use crate::view::{CurveView, TaskView, named, tasks};

/// Fewest trainings whose models are ranked.
const FEWEST: usize = 8;

/// Replicates of the bootstrap.
const REPLICATES: usize = 2000;

/// Probes of an accuracy that are shown.
const SHOWN: usize = 4;

/// Where its random numbers begin.
const SEED: u64 = 0x7072_6f62_6573;

crate::table_row! {
/// A row of `prediction.csv`: how a probe ranks models, against how a longer length does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionRow {
    /// Task of the probe.
    pub probe_task: String,
    /// The part of it and its options.
    pub probe_options: String,
    /// What is seen: `accuracy`, or `nll`, the negative log likelihood of scored tokens, of which less is better.
    pub probe: String,
    /// Its length over the training length of its task.
    pub probe_multiple: f64,
    /// Task whose accuracy is predicted.
    pub task: String,
    /// The part of it and its options.
    pub task_options: String,
    /// Its length over its training length.
    pub multiple: f64,
    /// Models that were measured on both, and have learned the task that is predicted.
    pub models: u64,
    /// Spearman's rank correlation, ties at their mean rank; empty where a side ranks nothing.
    pub spearman: Option<f64>,
    /// Lower end of its 95 % interval: percentiles of 2,000 draws of as many trained models, with replacement, those that
    /// are read in several ways (`eval.`) together; draws where a side ranks nothing are left out.
    pub spearman_low: Option<f64>,
    /// Upper end.
    pub spearman_high: Option<f64>,
}
}

/// What of a point is ranked, more being better.
type Seen = fn(&SummaryRow) -> Option<f64>;

/// The table: probes at up to twice the training length, accuracies at four times and more.
pub fn predictions(summary: &[SummaryRow]) -> Vec<PredictionRow> {
    let seen: [(&str, Seen); 2] = [
        ("accuracy", |row| row.value),
        ("nll", |row| Some(-row.nll?)),
    ];
    let tasks = tasks(summary);
    let tasks: Vec<&TaskView<'_>> = tasks
        .iter()
        .filter(|task| task.kind.is_accuracy())
        .collect();
    let mut table = Vec::new();
    for late in &tasks {
        for (length, multiple) in multiples(late).filter(|&(_, multiple)| multiple >= 4.0) {
            for early in &tasks {
                let probes = multiples(early).filter(|&(_, multiple)| multiple <= 2.0);
                for (probe_length, probe_multiple) in probes {
                    for (name, of_point) in seen {
                        let trainings = pairs((early, probe_length, of_point), (late, length));
                        let pairs = trainings.concat();
                        if trainings.len() < FEWEST {
                            continue;
                        }
                        let interval = interval(&trainings);
                        table.push(PredictionRow {
                            probe_task: early.task.to_owned(),
                            probe_options: early.options.clone(),
                            probe: name.to_owned(),
                            probe_multiple,
                            task: late.task.to_owned(),
                            task_options: late.options.clone(),
                            multiple,
                            models: pairs.len() as u64,
                            spearman: spearman(&pairs),
                            spearman_low: interval.map(|ends| ends.0),
                            spearman_high: interval.map(|ends| ends.1),
                        });
                    }
                }
            }
        }
    }
    table
}

/// The lengths of a task whose models were all trained at one, each with how many times that it is.
fn multiples(task: &TaskView<'_>) -> impl Iterator<Item = (u64, f64)> {
    let trained = task.common(|curve| curve.first().train_length).flatten();
    let lengths = task.lengths.clone().into_iter();
    lengths.filter_map(move |length| Some((length, length as f64 / trained? as f64)))
}

/// What tells models apart whatever the task.
fn model<'a>(curve: &CurveView<'a>) -> [&'a str; 5] {
    let row = curve.first();
    [
        &row.plugin,
        &row.architecture,
        &row.options,
        &row.checkpoint,
        &row.checkpoint_sha256,
    ]
}

/// What is seen of each model, and its accuracy, those of one training together. Between tasks a model that was trained in
/// several ways on one of them is left out: which of these belongs to which of the other's nothing says.
fn pairs(
    (early, probe_length, seen): (&TaskView<'_>, u64, Seen),
    (late, length): (&TaskView<'_>, u64),
) -> Vec<Vec<(f64, f64)>> {
    let (probes, trained) = (by_model(early), by_model(late));
    let probe_of = |curve: &CurveView<'_>| {
        if std::ptr::eq(early, late) {
            return seen(curve.at(probe_length)?);
        }
        let alone = |curves: &[_]| curves.len() == 1;
        let probes = probes.get(&model(curve)).filter(|curves| alone(curves))?;
        trained.get(&model(curve)).filter(|curves| alone(curves))?;
        seen(probes[0].at(probe_length)?)
    };
    let learned = late
        .curves
        .iter()
        .filter(|curve| curve.first().learned == Some(true));
    let pairs = learned.filter_map(|curve| {
        let pair = (probe_of(curve)?, curve.at(length)?.value?);
        Some((curve.first(), curve.first().trained_options(), pair))
    });
    let pairs: Vec<(&SummaryRow, String, (f64, f64))> = pairs.collect();
    let trainings = group(&pairs, |(row, options, _)| {
        let (model, rate) = row.trained();
        (Model { options, ..model }, rate)
    });
    let values =
        |training: Vec<&(_, _, (f64, f64))>| training.iter().map(|(_, _, pair)| *pair).collect();
    trainings.into_iter().map(values).collect()
}

/// A task's curves of each model.
fn by_model<'a, 'b>(task: &'b TaskView<'a>) -> HashMap<[&'a str; 5], Vec<&'b CurveView<'a>>> {
    let mut curves: HashMap<_, Vec<_>> = HashMap::new();
    for curve in &task.curves {
        curves.entry(model(curve)).or_default().push(curve);
    }
    curves
}

/// Spearman's correlation: Pearson's of the ranks; `None` where all ranks of a side are equal.
fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    let one = ranks(pairs.iter().map(|pair| pair.0));
    let other = ranks(pairs.iter().map(|pair| pair.1));
    let centre = (pairs.len() as f64 + 1.0) / 2.0;
    let product = |one: &[f64], other: &[f64]| -> f64 {
        let both = one.iter().zip(other);
        both.map(|(one, other)| (one - centre) * (other - centre))
            .sum()
    };
    let spread = (product(&one, &one) * product(&other, &other)).sqrt();
    (spread > 0.0).then(|| product(&one, &other) / spread)
}

/// Ranks from 1, of equal values their mean.
fn ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&one, &other| values[one].total_cmp(&values[other]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&one, &other| values[one] == values[other]) {
        let shared = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&place| ranks[place] = shared);
        before += equal.len();
    }
    ranks
}

fn interval(trainings: &[Vec<(f64, f64)>]) -> Option<(f64, f64)> {
    let mut random = Random::new(SEED);
    let mut draw = || -> Option<f64> {
        let drawn = trainings
            .iter()
            .flat_map(|_| &trainings[random.below(trainings.len())]);
        spearman(&drawn.copied().collect::<Vec<_>>())
    };
    let mut drawn: Vec<f64> = (0..REPLICATES).filter_map(|_| draw()).collect();
    drawn.sort_by(f64::total_cmp);
    bootstrap::interval(&drawn)
}

/// The table in words, `width` columns at most: for each accuracy the probes that rank models most like it.
pub fn render_predictions(table: &[PredictionRow], width: usize) -> String {
    let mut text = String::new();
    let predicted = |row: &&PredictionRow| {
        (
            row.task.clone(),
            row.task_options.clone(),
            row.multiple.to_bits(),
        )
    };
    for mut rows in group(table, predicted) {
        let last = rows[0];
        let head = format!(
            "What ranks models as their accuracy on {} at {} times the training length does (Spearman, 95 %)",
            named(&last.task, &last.task_options),
            last.multiple
        );
        rows.retain(|row| row.spearman.is_some());
        rows.sort_by(|one, other| {
            let size = |row: &PredictionRow| row.spearman.unwrap_or(0.0).abs();
            size(other).total_cmp(&size(one))
        });
        paragraph(&head, width, &mut text);
        for row in rows.iter().take(SHOWN) {
            let ends = row.spearman_low.zip(row.spearman_high);
            let ends =
                ends.map_or_else(String::new, |(low, high)| format!(" [{low:.2}, {high:.2}]"));
            let words = format!(
                "{:.2}{ends}: {} on {} at {} times, {} models",
                row.spearman.unwrap_or(f64::NAN),
                row.probe,
                named(&row.probe_task, &row.probe_options),
                row.probe_multiple,
                row.models
            );
            paragraph(&format!("  {words}"), width, &mut text);
        }
        if rows.is_empty() {
            paragraph(
                "  nothing: no probe tells the models apart",
                width,
                &mut text,
            );
        }
        text.push('\n');
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Split;

    /// scipy.stats.spearmanr of SciPy: ties at their mean rank.
    #[test]
    fn ranks_correlate_as_in_scipy() {
        let of = |pairs: &[(f64, f64)]| spearman(pairs);
        let found = of(&[(1.0, 5.0), (2.0, 6.0), (3.0, 7.0), (4.0, 8.0), (5.0, 7.0)]);
        assert!(
            (found.unwrap() - 0.820_782_681_668_123_3).abs() < 1e-12,
            "{found:?}"
        );
        assert_eq!(of(&[(1.0, 2.0), (2.0, 1.0)]), Some(-1.0));
        assert_eq!(of(&[(1.0, 2.0), (1.0, 1.0)]), None);
    }

    #[test]
    fn models_are_ranked_by_what_is_seen_early() {
        let row = |model: usize, task: &str, length: u64, value: f64, learned: bool| SummaryRow {
            architecture: format!("model-{model}"),
            task: task.into(),
            train_length: Some(64),
            eval_length: length,
            split: Split::Test,
            metric: "exact_match".into(),
            value: Some(value),
            nll: Some(1.0 - value),
            learned: Some(learned),
            ..SummaryRow::default()
        };
        let mut summary = Vec::new();
        for model in 0..10 {
            let value = 0.05 * model as f64;
            summary.push(row(model, "one", 64, value, true));
            summary.push(row(model, "one", 512, 2.0 * value, true));
            // The last one has not learned it.
            summary.push(row(model, "other", 64, 0.9, model < 9));
            summary.push(row(model, "other", 512, 1.0 - value, model < 9));
        }
        let table = predictions(&summary);
        let find = |probe: &str, kind: &str, task: &str| {
            let mut rows = table
                .iter()
                .filter(|row| row.probe_task == probe && row.probe == kind && row.task == task);
            let found = rows.next().expect("a row");
            assert!(rows.next().is_none() && found.multiple == 8.0 && found.probe_multiple == 1.0);
            (
                found.models,
                found.spearman.map(|value| (value * 1e9).round() / 1e9),
            )
        };
        assert_eq!(find("one", "accuracy", "one"), (10, Some(1.0)));
        assert_eq!(find("one", "nll", "one"), (10, Some(1.0)));
        assert_eq!(find("one", "accuracy", "other"), (9, Some(-1.0)));
        // All were alike inside the training length.
        assert_eq!(find("other", "accuracy", "other"), (9, None));
        assert_eq!(predictions(&summary[..28]), []);
        let text = render_predictions(&table, 80);
        assert!(
            text.contains("1.00 [1.00, 1.00]: accuracy on one at 1 times, 10 models"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    /// A model of two budgets is two within a task, and between tasks nothing says which belong together.
    #[test]
    fn a_model_that_was_trained_twice_is_not_paired_across_budgets() {
        let mut summary = Vec::new();
        for (model, steps) in (0..10).flat_map(|model| [(model, 10), (model, 20)]) {
            let value = 0.05 * f64::from(if steps == 10 { model } else { 19 - model });
            for (task, length) in [("one", 64), ("one", 512), ("other", 64), ("other", 512)] {
                summary.push(SummaryRow {
                    architecture: format!("model-{model}"),
                    task: task.into(),
                    train_length: Some(64),
                    train_steps: Some(steps),
                    eval_length: length,
                    split: Split::Test,
                    metric: "exact_match".into(),
                    value: Some(value),
                    learned: Some(true),
                    ..SummaryRow::default()
                });
            }
        }
        let found = predictions(&summary);
        let found: Vec<_> = found
            .iter()
            .map(|row| (row.probe_task == row.task, row.models, row.spearman))
            .collect();
        assert_eq!(found, [(true, 20, Some(1.0)); 2]);
    }

    /// Ten trainings that are each read in two ways say no more than ten.
    #[test]
    fn models_that_are_read_in_several_ways_are_drawn_together() {
        let rows = |ways: &[&str]| {
            let mut summary = Vec::new();
            for model in 0..10 {
                // Not quite in order.
                let late = f64::from((model * 7) % 10) + f64::from(model);
                for (way, length) in ways.iter().flat_map(|way| [(way, 64), (way, 512)]) {
                    summary.push(SummaryRow {
                        architecture: format!("model-{model}"),
                        options: format!("d_model=64{way},layers=2"),
                        task: "one".into(),
                        train_length: Some(64),
                        eval_length: length,
                        split: Split::Test,
                        metric: "exact_match".into(),
                        value: Some(if length == 64 { f64::from(model) } else { late } / 20.0),
                        learned: Some(true),
                        ..SummaryRow::default()
                    });
                }
            }
            predictions(&summary).remove(0)
        };
        let (one, two) = (rows(&[""]), rows(&["", ",eval.window=64"]));
        assert_eq!((one.models, two.models), (10, 20));
        assert_eq!(
            [one.spearman, one.spearman_low, one.spearman_high],
            [two.spearman, two.spearman_low, two.spearman_high]
        );
        let apart = rows(&["", ",window=64"]);
        assert!(apart.spearman_low > one.spearman_low, "{apart:?} {one:?}");
    }
}
