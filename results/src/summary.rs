//! One row a point of a curve: the seeds of a measurement taken together, and what the whole curve
//! says. Selection between learning rates goes by accuracy inside the training length, never beyond
//! it: that would be choosing on the test.

use serde::{Deserialize, Serialize};

use crate::record::{Measurement, Split, Status};
use crate::statistics::{Z95, mean, t_interval, wilson};

/// Share of the in-length accuracy that still counts as carried.
const CARRIED: f64 = 0.9;

/// One row of `summary.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Plugin library.
    pub plugin: String,
    /// Architecture.
    pub architecture: String,
    /// Its options.
    pub options: String,
    /// Name of the checkpoint that was read; empty for models trained here.
    pub checkpoint: String,
    /// Hash of its config and weights.
    pub checkpoint_sha256: String,
    /// Values of all parameters.
    pub parameters: Option<u64>,
    /// Task.
    pub task: String,
    /// Its options.
    pub task_options: String,
    /// Shortest training length, in tokens.
    pub train_length_min: Option<u64>,
    /// Longest training length, in tokens.
    pub train_length: Option<u64>,
    /// Optimiser steps.
    pub train_steps: Option<u64>,
    /// Sequences a step.
    pub batch: Option<u64>,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Steps of linear warm-up.
    pub warmup_steps: Option<u64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
    /// Largest gradient norm.
    pub clip_norm: Option<f64>,
    /// Which examples.
    pub split: Split,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// Empty, or a breakdown.
    pub label: String,
    /// What counts as one answer.
    pub metric: String,
    /// Seeds that were measured.
    pub seeds: u64,
    /// Seeds that were not.
    pub not_ok: u64,
    /// Answers over all seeds.
    pub samples: Option<u64>,
    /// Mean accuracy over seeds.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end of it.
    pub value_high: Option<f64>,
    /// `wilson` with one seed, `t-seeds` (Student's t over seeds) with more.
    pub interval: String,
    /// Worst seed.
    pub value_min: Option<f64>,
    /// Best seed.
    pub value_max: Option<f64>,
    /// Accuracy of guessing.
    pub chance: Option<f64>,
    /// (value - chance) / (1 - chance).
    pub scaled_accuracy: Option<f64>,
    /// Value over the value inside the training length.
    pub retention: Option<f64>,
    /// Largest length up to which every measured length keeps 90 % of the in-length accuracy. Empty
    /// where the in-length accuracy is not above chance. Of the whole curve; breakdowns have none.
    pub effective_length: Option<u64>,
    /// Mean accuracy over log2 of length (trapezoids). Of the whole curve; breakdowns have none.
    pub auc_log2_length: Option<f64>,
    /// Recurrent state of one row, in bytes.
    pub state_bytes: Option<u64>,
    /// Mean tokens a second.
    pub tokens_per_second: Option<f64>,
    /// Largest peak memory, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// `ok` if any seed was measured, else how the first one ended.
    pub status: Status,
}

impl SummaryRow {
    /// Whether two rows are points of one curve.
    pub fn same_curve(&self, other: &Self) -> bool {
        self.same_model(other)
            && self.learning_rate == other.learning_rate
            && self.split == other.split
            && self.label == other.label
    }

    /// Whether two rows are of one architecture with the same options on one task.
    pub fn same_model(&self, other: &Self) -> bool {
        self.plugin == other.plugin
            && self.architecture == other.architecture
            && self.options == other.options
            && self.checkpoint == other.checkpoint
            && self.checkpoint_sha256 == other.checkpoint_sha256
            && self.task == other.task
            && self.task_options == other.task_options
            && self.train_length_min == other.train_length_min
            && self.train_length == other.train_length
            && self.train_steps == other.train_steps
            && self.batch == other.batch
            && self.warmup_steps == other.warmup_steps
            && self.weight_decay == other.weight_decay
            && self.clip_norm == other.clip_norm
    }
}

/// Takes the seeds of each measurement together. Rows come in the order of first appearance.
pub fn summarise(measurements: &[Measurement]) -> Vec<SummaryRow> {
    let mut groups: Vec<Vec<&Measurement>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for measurement in measurements {
        let place = *places.entry(setting(measurement)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(measurement);
    }
    let mut rows: Vec<SummaryRow> = groups.iter().map(|group| summarise_group(group)).collect();
    let curves: Vec<SummaryRow> = rows.clone();
    for row in &mut rows {
        let curve: Vec<&SummaryRow> = curves
            .iter()
            .filter(|other| other.same_curve(row))
            .collect();
        describe_curve(row, &curve);
    }
    rows
}

/// All that the seeds of a measurement share, as text.
fn setting(measurement: &Measurement) -> String {
    let m = measurement;
    format!(
        "{:?}",
        (
            (
                &m.plugin,
                &m.architecture,
                &m.options,
                &m.checkpoint,
                &m.checkpoint_sha256
            ),
            (
                &m.task,
                &m.task_options,
                m.train_length_min,
                m.train_length,
                m.train_steps
            ),
            (
                m.batch,
                m.learning_rate,
                m.warmup_steps,
                m.weight_decay,
                m.clip_norm
            ),
            (m.split, m.eval_length, &m.label),
        )
    )
}

fn summarise_group(group: &[&Measurement]) -> SummaryRow {
    let first = group[0];
    let ok: Vec<&&Measurement> = group.iter().filter(|m| m.status == Status::Ok).collect();
    let values: Vec<f64> = ok.iter().filter_map(|m| m.value).collect();
    let value = mean(&values);
    let samples: u64 = ok.iter().filter_map(|m| m.samples).sum();
    let correct: u64 = ok.iter().filter_map(|m| m.correct).sum();
    let (interval, limits) = if values.len() > 1 {
        ("t-seeds", t_interval(&values))
    } else {
        (
            "wilson",
            (samples > 0).then(|| wilson(correct, samples, Z95)),
        )
    };
    let chance = ok.iter().find_map(|m| m.chance);
    let scaled = |value: f64, chance: f64| (value - chance) / (1.0 - chance);
    SummaryRow {
        plugin: first.plugin.clone(),
        architecture: first.architecture.clone(),
        options: first.options.clone(),
        checkpoint: first.checkpoint.clone(),
        checkpoint_sha256: first.checkpoint_sha256.clone(),
        parameters: group.iter().find_map(|m| m.parameters),
        task: first.task.clone(),
        task_options: first.task_options.clone(),
        train_length_min: first.train_length_min,
        train_length: first.train_length,
        train_steps: first.train_steps,
        batch: first.batch,
        learning_rate: first.learning_rate,
        warmup_steps: first.warmup_steps,
        weight_decay: first.weight_decay,
        clip_norm: first.clip_norm,
        split: first.split,
        eval_length: first.eval_length,
        label: first.label.clone(),
        metric: first.metric.clone(),
        seeds: ok.len() as u64,
        not_ok: (group.len() - ok.len()) as u64,
        samples: (samples > 0).then_some(samples),
        value,
        value_low: limits.map(|limits| limits.0),
        value_high: limits.map(|limits| limits.1),
        interval: interval.to_owned(),
        value_min: values.iter().copied().reduce(f64::min),
        value_max: values.iter().copied().reduce(f64::max),
        chance,
        scaled_accuracy: value
            .zip(chance)
            .map(|(value, chance)| scaled(value, chance)),
        retention: None,
        effective_length: None,
        auc_log2_length: None,
        state_bytes: ok.iter().find_map(|m| m.state_bytes),
        tokens_per_second: mean(
            &ok.iter()
                .filter_map(|m| m.tokens_per_second)
                .collect::<Vec<_>>(),
        ),
        peak_memory_bytes: ok.iter().filter_map(|m| m.peak_memory_bytes).max(),
        status: if ok.is_empty() {
            first.status
        } else {
            Status::Ok
        },
    }
}

/// Fills in what depends on the rest of the curve.
fn describe_curve(row: &mut SummaryRow, curve: &[&SummaryRow]) {
    let mut points: Vec<&SummaryRow> = curve.to_vec();
    points.sort_by_key(|point| point.eval_length);
    // The reference is the largest length inside the training length.
    let inside = points.iter().rev().find(|point| {
        point
            .train_length
            .is_some_and(|train| point.eval_length <= train)
    });
    let Some((inside, base)) = inside.and_then(|point| point.value.map(|value| (point, value)))
    else {
        return;
    };
    row.retention = row.value.filter(|_| base > 0.0).map(|value| value / base);
    if !row.label.is_empty() {
        return;
    }
    row.auc_log2_length = auc(&points);
    if inside.value_low.unwrap_or(0.0) <= inside.chance.unwrap_or(0.0) {
        return;
    }
    row.effective_length = points
        .iter()
        .skip_while(|point| point.eval_length < inside.eval_length)
        .take_while(|point| point.value.is_some_and(|value| value >= CARRIED * base))
        .last()
        .map(|point| point.eval_length);
}

/// Mean of the value over log2 of length; `None` of fewer than two measured points.
fn auc(points: &[&SummaryRow]) -> Option<f64> {
    let known: Vec<(f64, f64)> = points
        .iter()
        .filter_map(|point| {
            point
                .value
                .map(|value| ((point.eval_length as f64).log2(), value))
        })
        .collect();
    let (first, last) = (known.first()?, known.last()?);
    let area: f64 = known
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0)
        .sum();
    (last.0 > first.0).then(|| area / (last.0 - first.0))
}

/// Rows of the best learning rate of each architecture on each task, by accuracy inside the training
/// length; equal ones go to the smaller rate.
pub fn best_learning_rates(summary: &[SummaryRow]) -> Vec<&SummaryRow> {
    let inside = |row: &SummaryRow, rate: Option<f64>| -> f64 {
        summary
            .iter()
            .filter(|other| other.same_model(row) && other.learning_rate == rate)
            .filter(|other| other.label.is_empty())
            .filter(|other| {
                other
                    .train_length
                    .is_some_and(|train| other.eval_length <= train)
            })
            .max_by_key(|other| other.eval_length)
            .and_then(|other| other.value)
            .unwrap_or(-1.0)
    };
    let best = |row: &SummaryRow| -> Option<f64> {
        let rates = summary
            .iter()
            .filter(|other| other.same_model(row))
            .map(|o| o.learning_rate);
        rates
            .map(|rate| (inside(row, rate), rate))
            .reduce(|best, next| {
                let better = next.0 > best.0 || (next.0 == best.0 && next.1 < best.1);
                if better { next } else { best }
            })
            .map_or(row.learning_rate, |best| best.1)
    };
    summary
        .iter()
        .filter(|row| row.split == Split::Test && row.learning_rate == best(row))
        .collect()
}
