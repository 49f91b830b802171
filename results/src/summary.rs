//! One row a point of a curve: the seeds of a measurement taken together, and what the whole curve says.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::choice::mark_selected;
use crate::curve::{self, Effective, Floor, Point};
use crate::metric::{Kind, Scores};
use crate::record::{Measurement, Split, Status};
use crate::setting::group;
use crate::statistics::{mean, median, seeds_interval, standard_deviation, student};
use crate::uncertainty;

crate::table_row! {
/// One row of `summary.csv`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Plugin library.
    pub plugin: String,
    /// Architecture.
    pub architecture: String,
    /// Its options.
    pub options: String,
    /// Name of the checkpoint that was read; empty for models trained here.
    pub checkpoint: String,
    /// Hash of its config and weights; empty likewise.
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
    /// How training lengths were drawn; empty of a checkpoint.
    pub train_distribution: String,
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
    /// Whether this learning rate was chosen on validation examples, or was the only one. Empty where there
    /// are several and nothing to choose by.
    pub selected: Option<bool>,
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
    /// Mean over the seeds that were measured.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end of it.
    pub value_high: Option<f64>,
    /// `wilson` of one seed: how far its answers determine this model's accuracy. `gaffke` of more: how far
    /// the seeds determine the mean over all seeds, never narrower than Wilson's of all their answers. Of a
    /// loss `student`, over the samples of one seed or over the seeds. Empty where there is none.
    pub interval: String,
    /// Lowest seed: of accuracies the worst, of losses the best.
    pub value_min: Option<f64>,
    /// Median seed.
    pub value_median: Option<f64>,
    /// Highest seed.
    pub value_max: Option<f64>,
    /// Mean over seeds of the mean negative log likelihood, in nats.
    pub nll: Option<f64>,
    /// Accuracy of guessing.
    pub chance: Option<f64>,
    /// (value - chance) / (1 - chance).
    pub scaled_accuracy: Option<f64>,
    /// Whether the model has learned its task: at the largest length inside the training length the scaled
    /// accuracy is at least 0.5, and the answers are above chance. Of the whole curve, as all that follow.
    pub learned: Option<bool>,
    /// Seeds that have learned it, by the same rule for each.
    pub seeds_learned: Option<u64>,
    /// Place of its value among those of all models of the task and training length at this length, 1 the
    /// best; of what tables show, where there are two and more.
    pub rank: Option<u64>,
    /// Best place, at the lower end of its 95 % interval.
    pub rank_low: Option<u64>,
    /// Worst place, at the upper end.
    pub rank_high: Option<u64>,
    /// Scaled accuracy over the one at the largest length inside the training length, of a model that has
    /// learned.
    pub retention: Option<f64>,
    /// Lower end of its 95 % interval.
    pub retention_low: Option<f64>,
    /// Upper end.
    pub retention_high: Option<f64>,
    /// Of the curve: retention at twice the training length, where that was measured.
    pub retention_2x: Option<f64>,
    /// At four times.
    pub retention_4x: Option<f64>,
    /// Largest length up to which every planned length was measured and keeps 90 % of the in-length scaled
    /// accuracy, of a model that has learned.
    pub effective_length: Option<u64>,
    /// Whether that is a lower bound, because no longer length was measured.
    pub effective_length_censored: Option<bool>,
    /// Lower end of its 95 % interval; empty where the model may not have learned.
    pub effective_length_low: Option<u64>,
    /// Upper end.
    pub effective_length_high: Option<u64>,
    /// Whether the upper end is a lower bound.
    pub effective_length_high_censored: Option<bool>,
    /// The same up to which every length keeps a scaled accuracy of 0.5.
    pub effective_length_absolute: Option<u64>,
    /// Whether that is a lower bound.
    pub effective_length_absolute_censored: Option<bool>,
    /// Lower end of its 95 % interval; empty where the model may not have learned.
    pub effective_length_absolute_low: Option<u64>,
    /// Upper end.
    pub effective_length_absolute_high: Option<u64>,
    /// Whether the upper end is a lower bound.
    pub effective_length_absolute_high_censored: Option<bool>,
    /// Least effective length of the seeds that have learned.
    pub effective_length_min: Option<u64>,
    /// Greatest of them.
    pub effective_length_max: Option<u64>,
    /// Mean scaled accuracy over log2 of length (trapezoids), over `auc_lengths`; empty where the model was
    /// not measured at one of them.
    pub auc_log2_length: Option<f64>,
    /// The lengths that all models of this task and training length were to be measured at; empty of breakdowns and
    /// of validation examples.
    pub auc_lengths: String,
    /// Recurrent state of one row, in bytes.
    pub state_bytes: Option<u64>,
    /// Mean tokens a second.
    pub tokens_per_second: Option<f64>,
    /// Largest peak memory, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// `ok` if any seed was measured, else how the first one ended.
    pub status: Status,
}
}

impl SummaryRow {
    /// Whether tables and plots show it: a whole cell of test examples, or a part of a task that has the parts of
    /// several, at a learning rate that was chosen or could not be.
    pub fn is_shown(&self) -> bool {
        self.is_of_shown() && self.is_point()
    }

    /// Whether it is of a curve that tables and plots show, as a point of it or as a breakdown.
    pub(crate) fn is_of_shown(&self) -> bool {
        self.split == Split::Test && self.selected != Some(false)
    }

    /// The name of the task whose examples it is of, where its task has those of several: each such part has curves,
    /// tables and plots as a task of its own.
    pub fn part(&self) -> Option<&str> {
        self.label.strip_prefix("task=")
    }

    /// Whether it is a point of a curve, and no breakdown of one.
    fn is_point(&self) -> bool {
        self.label.is_empty() || self.part().is_some()
    }
}

/// Takes the seeds of each measurement together, describes the curves and marks the learning rates that
/// were chosen. Rows come in the order of first appearance; time is linear in the measurements.
pub fn summarise(measurements: &[Measurement]) -> Vec<SummaryRow> {
    let points = group(measurements, |measurement| measurement.point());
    let mut rows: Vec<SummaryRow> = points.iter().map(|seeds| point_row(seeds)).collect();
    mark_selected(&mut rows);
    let curves = whole_curves(&rows);
    describe_curves(&mut rows, &points, &curves);
    uncertainty::describe(&mut rows, &points, &curves);
    rows
}

/// The row of one point, without what the rest of its curve says.
fn point_row(seeds: &[&Measurement]) -> SummaryRow {
    let first = seeds[0];
    let ok: Vec<&Measurement> = seeds
        .iter()
        .filter(|m| m.status == Status::Ok)
        .copied()
        .collect();
    let known = |field: fn(&Measurement) -> Option<f64>| -> Vec<f64> {
        ok.iter().filter_map(|m| field(m)).collect()
    };
    let values = known(|m| m.value);
    let value = mean(&values);
    let chance = seeds.iter().find_map(|m| m.chance);
    let scores = pooled(&ok);
    let interval = interval(first.kind(), &values, scores.as_ref());
    SummaryRow {
        plugin: first.plugin.clone(),
        architecture: first.architecture.clone(),
        options: first.options.clone(),
        checkpoint: first.checkpoint.clone(),
        checkpoint_sha256: first.checkpoint_sha256.clone(),
        parameters: seeds.iter().find_map(|m| m.parameters),
        task: first.task.clone(),
        task_options: first.task_options.clone(),
        train_length_min: first.train_length_min,
        train_length: first.train_length,
        train_distribution: first.train_distribution.clone(),
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
        not_ok: (seeds.len() - ok.len()) as u64,
        samples: scores.map(|scores| scores.samples),
        value,
        value_low: interval.map(|interval| interval.1.0),
        value_high: interval.map(|interval| interval.1.1),
        interval: interval.map_or_else(String::new, |interval| interval.0.to_owned()),
        value_min: values.iter().copied().reduce(f64::min),
        value_median: median(&values),
        value_max: values.iter().copied().reduce(f64::max),
        nll: mean(&known(|m| m.nll)),
        chance,
        scaled_accuracy: scaled(value, chance),
        state_bytes: ok.iter().find_map(|m| m.state_bytes),
        tokens_per_second: mean(&known(|m| m.tokens_per_second)),
        peak_memory_bytes: ok.iter().filter_map(|m| m.peak_memory_bytes).max(),
        status: if ok.is_empty() {
            first.status
        } else {
            Status::Ok
        },
        ..SummaryRow::default()
    }
}

/// The scores of all these measurements as of one model. The deviation is known of one alone.
fn pooled(measured: &[&Measurement]) -> Option<Scores> {
    if let [one] = measured {
        return one.scores();
    }
    let all = measured.iter().filter_map(|m| m.scores());
    let (samples, sum) = all.fold((0, 0.0), |(samples, sum), one| {
        (samples + one.samples, sum + one.mean * one.samples as f64)
    });
    (samples > 0).then(|| Scores {
        samples,
        mean: sum / samples as f64,
        sd: None,
    })
}

/// The interval's name and ends.
fn interval(
    kind: Kind,
    values: &[f64],
    scores: Option<&Scores>,
) -> Option<(&'static str, (f64, f64))> {
    let of_samples = scores.and_then(|scores| kind.interval(scores));
    if values.len() < 2 {
        return of_samples;
    }
    if !kind.is_accuracy() {
        let sd = standard_deviation(values)?;
        let (low, high) = student(mean(values)?, sd, values.len() as u64)?;
        return Some(("student", (low.max(0.0), high)));
    }
    let (low, high) = seeds_interval(values)?;
    let (least, most) = of_samples.map_or((low, high), |(_, ends)| ends);
    Some(("gaffke", (low.min(least), high.max(most))))
}

fn scaled(value: Option<f64>, chance: Option<f64>) -> Option<f64> {
    curve::scaled(value?, chance?)
}

/// Whether the answers of these measurements are above chance, all taken as of one model.
fn above_chance(measured: &[&Measurement], chance: Option<f64>) -> bool {
    let scores = pooled(measured).zip(measured.first());
    let interval = scores.and_then(|(scores, first)| first.kind().interval(&scores));
    interval
        .zip(chance)
        .is_some_and(|((_, (low, _)), chance)| low > chance)
}

/// What a whole curve says.
struct Said {
    /// Scaled accuracy at the in-length point of a model that has learned.
    base: Option<f64>,
    learned: Option<bool>,
    seeds_learned: Option<u64>,
    effective: Option<Effective>,
    absolute: Option<Effective>,
    /// Least and greatest effective length of its seeds.
    of_seeds: Option<(u64, u64)>,
    area: Option<f64>,
}

/// Places of the rows of each curve of test cells, whole ones and parts, ascending by length.
fn whole_curves(rows: &[SummaryRow]) -> Vec<Vec<usize>> {
    let whole = |row: &SummaryRow| row.split == Split::Test && row.is_point();
    let places = (0..rows.len()).filter(|&place| whole(&rows[place]));
    let mut curves = group(places, |&place| (rows[place].trained(), rows[place].part()));
    for curve in &mut curves {
        curve.sort_by_key(|&place| rows[place].eval_length);
    }
    curves
}

/// Fills in what depends on the rest of the curve. `points` holds the measurements of each row.
fn describe_curves(rows: &mut [SummaryRow], points: &[Vec<&Measurement>], curves: &[Vec<usize>]) {
    // Lengths that all curves have which are compared.
    let mut shared: HashMap<_, BTreeSet<u64>> = HashMap::new();
    for curve in curves {
        let own = || curve.iter().map(|&place| rows[place].eval_length);
        let first = &rows[curve[0]];
        let shared = shared.entry(first.compared());
        let lengths = shared.or_insert_with(|| own().collect());
        *lengths = own().filter(|length| lengths.contains(length)).collect();
    }
    let mut described = Vec::new();
    for curve in curves {
        let first = &rows[curve[0]];
        let lengths = &shared[&first.compared()];
        let lengths: Vec<u64> = lengths.iter().copied().collect();
        let said = describe(rows, points, curve, &lengths);
        described.push((curve, lengths, said));
    }
    for (curve, lengths, said) in described {
        let lengths: Vec<String> = lengths.iter().map(u64::to_string).collect();
        let retention = |row: &SummaryRow| Some(row.scaled_accuracy? / said.base?);
        let at_times = |times: u64| {
            let beyond = rows[curve[0]].train_length?.checked_mul(times)?;
            let mut rows = curve.iter().map(|&place| &rows[place]);
            retention(rows.find(|row| row.eval_length == beyond)?)
        };
        let at_times = [2, 4].map(at_times);
        for &place in curve {
            let row = &mut rows[place];
            row.retention = retention(row);
            [row.retention_2x, row.retention_4x] = at_times;
            row.learned = said.learned;
            row.seeds_learned = said.seeds_learned;
            row.effective_length = said.effective.map(|effective| effective.length);
            row.effective_length_censored = said.effective.map(|effective| effective.censored);
            row.effective_length_absolute = said.absolute.map(|absolute| absolute.length);
            row.effective_length_absolute_censored =
                said.absolute.map(|absolute| absolute.censored);
            row.effective_length_min = said.of_seeds.map(|of_seeds| of_seeds.0);
            row.effective_length_max = said.of_seeds.map(|of_seeds| of_seeds.1);
            row.auc_log2_length = said.area;
            row.auc_lengths = lengths.join(" ");
        }
    }
}

/// What the rows at these places, which ascend by length, say together.
fn describe(
    rows: &[SummaryRow],
    points: &[Vec<&Measurement>],
    curve: &[usize],
    lengths: &[u64],
) -> Said {
    let train_length = rows[curve[0]].train_length;
    let mut mean: Vec<Point> = curve
        .iter()
        .map(|&place| Point {
            length: rows[place].eval_length,
            scaled: rows[place].scaled_accuracy,
            above_chance: above_chance(&points[place], rows[place].chance),
        })
        .collect();
    let first = curve::in_length(&mean, train_length);
    // A mean over fewer seeds than at the in-length point is one over those that survived.
    let all = rows[curve[first.unwrap_or(0)]].seeds;
    for (point, &place) in mean.iter_mut().zip(curve) {
        point.scaled = point.scaled.filter(|_| rows[place].seeds >= all);
    }
    let mut seeds: BTreeMap<u64, Vec<Point>> = BTreeMap::new();
    for &m in curve.iter().flat_map(|&place| &points[place]) {
        seeds.entry(m.seed).or_default().push(Point {
            length: m.eval_length,
            scaled: scaled(m.value, m.chance),
            above_chance: above_chance(&[m], m.chance),
        });
    }
    let effective: Vec<u64> = seeds
        .values()
        .filter_map(|seed| curve::effective_length(seed, train_length, Floor::Relative))
        .map(|effective| effective.length)
        .collect();
    let learned = first.and_then(|first| curve::learned(&mean[first]));
    Said {
        base: first
            .filter(|_| learned == Some(true))
            .and_then(|first| mean[first].scaled),
        learned,
        seeds_learned: learned.map(|_| effective.len() as u64),
        effective: curve::effective_length(&mean, train_length, Floor::Relative),
        absolute: curve::effective_length(&mean, train_length, Floor::Absolute),
        of_seeds: effective
            .iter()
            .copied()
            .min()
            .zip(effective.iter().copied().max()),
        area: curve::area(&mean, lengths),
    }
}
