//! Two models held against each other, cell by cell: on identical examples where these are known, else by their
//! means. What cannot be compared is left out, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::journal::JournalError;
use crate::metric::Kind;
use crate::outcomes::{OfUnit, Outcomes};
use crate::paired::{Pairs, compare};
use crate::record::{Measurement, Split, Status};
use crate::statistics::{holm, unpaired};
use crate::summary::{SummaryRow, summarise};
use crate::text::listed;
use crate::view::{CurveView, tasks};

/// Level of a test, and of the intervals.
const LEVEL: f64 = 0.05;

/// Why a difference may be one of means.
const NOT_KEPT: &str = "Where p is empty, what each example scored was not kept, as in runs of earlier versions: the \
                        difference is one of two means.";

/// One of two models.
#[derive(Debug)]
pub struct Side<'a> {
    /// The model as tables name it, or its architecture or checkpoint.
    pub name: &'a str,
    /// The records of its run.
    pub rows: &'a [Measurement],
}

crate::table_row! {
/// Two models at one length.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Task.
    pub task: String,
    /// Its options.
    pub task_options: String,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// What is measured of a sample.
    pub metric: String,
    /// One model.
    pub one: String,
    /// The other.
    pub other: String,
    /// Seeds that were measured of both.
    pub seeds: u64,
    /// Examples a seed, where both models' outcomes of them are known.
    pub examples: Option<u64>,
    /// Mean of the one over these seeds.
    pub one_value: Option<f64>,
    /// Lower end of its 95 % interval.
    pub one_low: Option<f64>,
    /// Upper end.
    pub one_high: Option<f64>,
    /// Mean of the other.
    pub other_value: Option<f64>,
    /// Lower end of its 95 % interval.
    pub other_low: Option<f64>,
    /// Upper end.
    pub other_high: Option<f64>,
    /// The one less the other.
    pub difference: Option<f64>,
    /// Lower end of its 95 % interval.
    pub difference_low: Option<f64>,
    /// Upper end.
    pub difference_high: Option<f64>,
    /// `paired` on identical examples, `unpaired` by the two intervals.
    pub interval: String,
    /// Examples that the one alone has right, where an example is right or wrong.
    pub only_one: Option<u64>,
    /// Examples that the other alone has right.
    pub only_other: Option<u64>,
    /// `mcnemar` or `sign-flip`; empty where outcomes are not known of both.
    pub test: String,
    /// Of that test.
    pub p_value: Option<f64>,
    /// Corrected over all rows that have one, by Holm.
    pub p_holm: Option<f64>,
    /// Smallest difference that the set would have shown in 80 of 100 tries.
    pub detectable: Option<f64>,
}
}

impl Comparison {
    /// Whether a difference is shown: by the corrected test, which knows these models, and by the interval, which
    /// knows seeds where there are several.
    pub fn differs(&self) -> bool {
        let excluded = self.difference_low.zip(self.difference_high);
        let excluded = excluded.is_some_and(|(low, high)| low > 0.0 || high < 0.0);
        excluded && self.p_holm.is_some_and(|p_value| p_value < LEVEL)
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Compared {
    /// A row a task and length, in the order of the first run.
    pub rows: Vec<Comparison>,
    /// What is not compared, or not on identical examples, and why.
    pub notes: Vec<String>,
}

/// Why two models are not compared at all.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A name that no model has or several have, in words.
    #[error("{0}")]
    Name(String),
    /// Outcomes that cannot be read.
    #[error(transparent)]
    Outcomes(#[from] JournalError),
}

/// Reads the outcomes of a unit; first whether it is of the first side.
pub type Load<'a> = dyn FnMut(bool, &str) -> Result<OfUnit, JournalError> + 'a;

/// Compares two models on every task and length that both were measured on.
///
/// # Errors
/// A name that no model has or several have; what `load` refuses.
pub fn compare_models(
    sides: [&Side<'_>; 2],
    load: &mut Load<'_>,
) -> Result<Compared, CompareError> {
    let summaries = sides.map(|side| summarise(side.rows));
    let [ones, others] = [
        curves(sides[0], &summaries[0])?,
        curves(sides[1], &summaries[1])?,
    ];
    let mut found = Compared::default();
    for (task, one) in &ones {
        match others.iter().find(|(other, _)| other == task) {
            Some((_, other)) => found.task(sides, [one, other], load)?,
            None => {
                let same = others.iter().find(|((name, _), _)| *name == task.0);
                found.notes.push(match same {
                    Some(((_, options), _)) => format!(
                        "{} is left out: it is ({}) of {} and ({options}) of {}, whose examples differ",
                        task.0, task.1, sides[0].name, sides[1].name
                    ),
                    None => format!(
                        "{} is left out: {} was not measured on it",
                        task.0, sides[1].name
                    ),
                });
            }
        }
    }
    let tested: Vec<usize> = (0..found.rows.len())
        .filter(|&place| found.rows[place].p_value.is_some())
        .collect();
    let p_values: Vec<f64> = tested
        .iter()
        .filter_map(|&place| found.rows[place].p_value)
        .collect();
    for (place, p_value) in tested.into_iter().zip(holm(&p_values)) {
        found.rows[place].p_holm = Some(p_value);
    }
    Ok(found)
}

/// A task with its options.
type TaskName<'a> = (&'a str, &'a str);

/// The curve of a side's model on each task.
fn curves<'a>(
    side: &Side<'_>,
    summary: &'a [SummaryRow],
) -> Result<Vec<(TaskName<'a>, CurveView<'a>)>, CompareError> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    // Examples are paired whole, not by their parts.
    for task in tasks(summary)
        .into_iter()
        .filter(|task| task.part.is_none())
    {
        let title = (task.task, task.curves[0].first().task_options.as_str());
        let is_base = |curve: &CurveView<'_>| {
            let row = curve.first();
            side.name == row.architecture || side.name == row.checkpoint
        };
        names.extend(task.curves.iter().map(|curve| curve.name.clone()));
        let exact = |curve: &CurveView<'_>| curve.name == side.name;
        let any_exact = task.curves.iter().any(exact);
        let mut own: Vec<CurveView<'a>> = task.curves;
        own.retain(|curve| {
            if any_exact {
                exact(curve)
            } else {
                is_base(curve)
            }
        });
        if own.len() > 1 {
            let all: Vec<&str> = own.iter().map(|curve| curve.name.as_str()).collect();
            let all = all.join(", ");
            return Err(CompareError::Name(format!(
                "`{}` is several models on {}: {all}. Give one of these names",
                side.name, title.0
            )));
        }
        found.extend(own.pop().map(|curve| (title, curve)));
    }
    if found.is_empty() {
        let names: Vec<String> = names.into_iter().collect();
        let there = match names.is_empty() {
            true => "no measurement is recorded there yet".to_owned(),
            false => format!("it has: {}", names.join(", ")),
        };
        return Err(CompareError::Name(format!(
            "there is no model `{}` in that run; {there}",
            side.name
        )));
    }
    Ok(found)
}

impl Compared {
    /// Compares two curves of one task.
    fn task(
        &mut self,
        sides: [&Side<'_>; 2],
        curves: [&CurveView<'_>; 2],
        load: &mut Load<'_>,
    ) -> Result<(), JournalError> {
        let own = [0, 1].map(|side| of_curve(sides[side].rows, curves[side]));
        let planned = own
            .each_ref()
            .map(|rows| -> BTreeSet<u64> { rows.iter().map(|row| row.seed).collect() });
        let task = &curves[0].first().task;
        let shared: BTreeSet<u64> = planned[0].intersection(&planned[1]).copied().collect();
        if shared.is_empty() {
            self.notes.push(format!(
                "{task} is left out: {} has seeds {} and {} has {}, whose examples differ",
                sides[0].name,
                listed(&planned[0]),
                sides[1].name,
                listed(&planned[1])
            ));
            return Ok(());
        }
        if planned[0] != planned[1] {
            self.notes.push(format!(
                "{task}: seeds {} were planned of both and are compared; {} has {} and {} has {}",
                listed(&shared),
                sides[0].name,
                listed(&planned[0]),
                sides[1].name,
                listed(&planned[1])
            ));
        }
        let mut units = [BTreeMap::new(), BTreeMap::new()];
        for (side, units) in units.iter_mut().enumerate() {
            for row in own[side].iter().filter(|row| shared.contains(&row.seed)) {
                if !units.contains_key(&row.unit) {
                    units.insert(row.unit.clone(), load(side == 0, &row.unit)?);
                }
            }
        }
        let lengths = |side: usize| -> BTreeSet<u64> {
            curves[side]
                .points
                .iter()
                .map(|row| row.eval_length)
                .collect()
        };
        for length in lengths(0).intersection(&lengths(1)) {
            let cells = [0, 1].map(|side| cells(&own[side], *length, &shared));
            self.cell([curves[0], curves[1]], cells, &units);
        }
        Ok(())
    }

    /// Compares the seeds of one length that were measured of both.
    fn cell(
        &mut self,
        curves: [&CurveView<'_>; 2],
        mut cells: [BTreeMap<u64, &Measurement>; 2],
        units: &[BTreeMap<String, OfUnit>; 2],
    ) {
        let both: BTreeSet<u64> = cells[0].keys().copied().collect();
        cells[1].retain(|seed, _| both.contains(seed));
        let both: BTreeSet<u64> = cells[1].keys().copied().collect();
        cells[0].retain(|seed, _| both.contains(seed));
        let Some(first) = cells[0].values().next().copied() else {
            return;
        };
        let place = format!("{} at {} tokens", first.task, first.eval_length);
        let other = cells[1].values().next().expect("as many as of the first");
        if first.metric != other.metric {
            return self.notes.push(format!(
                "{place} is left out: its metric is {} of one and {} of the other",
                first.metric, other.metric
            ));
        }
        let samples = |cells: &BTreeMap<u64, &Measurement>| -> Vec<Option<u64>> {
            cells.values().map(|row| row.samples).collect()
        };
        if samples(&cells[0]) != samples(&cells[1]) {
            return self.notes.push(format!(
                "{place} is left out: it has {} samples of one and {} of the other. Measure both with the same --samples",
                first.samples.unwrap_or(0),
                other.samples.unwrap_or(0)
            ));
        }
        let outcomes = [0, 1].map(|side| {
            let of = |row: &&Measurement| {
                let cell = units[side]
                    .get(&row.unit)?
                    .get(&(row.split, row.eval_length));
                cell.map(|(_, outcomes)| outcomes)
            };
            cells[side]
                .values()
                .map(of)
                .collect::<Option<Vec<&Outcomes>>>()
        });
        let mut row = values(&cells);
        (row.one, row.other) = (curves[0].name.clone(), curves[1].name.clone());
        let [Some(ones), Some(others)] = outcomes else {
            if !self.notes.iter().any(|note| note == NOT_KEPT) {
                self.notes.push(NOT_KEPT.to_owned());
            }
            by_means(&mut row);
            return self.rows.push(row);
        };
        let stray = |cells: &BTreeMap<u64, &Measurement>, outcomes: &[&Outcomes]| {
            let mut both = cells.values().zip(outcomes);
            both.any(|(row, outcomes)| {
                let value = row.value.unwrap_or(f64::NAN);
                let near = (outcomes.mean() - value).abs() <= 1e-9 * value.max(1.0);
                !near
            })
        };
        if stray(&cells[0], &ones) || stray(&cells[1], &others) {
            return self.notes.push(format!(
                "{place} is left out: what its examples scored does not add up to its value in results.csv, so one \
                 of the two files is of another run"
            ));
        }
        let pairs: Vec<(&Outcomes, &Outcomes)> = ones.into_iter().zip(others).collect();
        let identical = |(one, other): &(&Outcomes, &Outcomes)| one.answers() == other.answers();
        if !pairs.iter().all(identical) {
            return self.notes.push(format!(
                "{place} is left out: its examples do not have the same answers or bytes in both, as with two tokenizers"
            ));
        }
        on_examples(&mut row, &pairs);
        self.rows.push(row);
    }
}

/// The measurements of a curve.
fn of_curve<'a>(rows: &'a [Measurement], curve: &CurveView<'_>) -> Vec<&'a Measurement> {
    let trained = curve.first().trained();
    let own = rows
        .iter()
        .filter(|row| row.label.is_empty() && row.split == Split::Test && row.trained() == trained);
    own.collect()
}

/// The measured cells of a length, by seed.
fn cells<'a>(
    rows: &[&'a Measurement],
    length: u64,
    seeds: &BTreeSet<u64>,
) -> BTreeMap<u64, &'a Measurement> {
    let there = rows.iter().filter(|row| {
        row.eval_length == length && row.status == Status::Ok && seeds.contains(&row.seed)
    });
    there.map(|row| (row.seed, *row)).collect()
}

/// The values of both over their seeds.
fn values(cells: &[BTreeMap<u64, &Measurement>; 2]) -> Comparison {
    let [one, other] = cells.each_ref().map(|cells| {
        let rows: Vec<Measurement> = cells.values().map(|row| (*row).clone()).collect();
        summarise(&rows).remove(0)
    });
    Comparison {
        task: one.task,
        task_options: one.task_options,
        eval_length: one.eval_length,
        metric: one.metric,
        seeds: one.seeds,
        one_value: one.value,
        one_low: one.value_low,
        one_high: one.value_high,
        other_value: other.value,
        other_low: other.value_low,
        other_high: other.value_high,
        ..Comparison::default()
    }
}

/// The difference of the means, with the interval that follows from theirs.
fn by_means(row: &mut Comparison) {
    row.interval = "unpaired".to_owned();
    row.difference = row
        .one_value
        .zip(row.other_value)
        .map(|(one, other)| one - other);
    let side =
        |value: Option<f64>, low: Option<f64>, high: Option<f64>| Some((value?, low?, high?));
    let one = side(row.one_value, row.one_low, row.one_high);
    let other = side(row.other_value, row.other_low, row.other_high);
    let ends = one.zip(other).map(|(one, other)| unpaired(one, other));
    row.difference_low = ends.map(|(low, _)| low);
    row.difference_high = ends.map(|(_, high)| high);
}

/// The difference on identical examples.
fn on_examples(row: &mut Comparison, pairs: &[(&Outcomes, &Outcomes)]) {
    let seeds: Vec<Pairs<'_>> = pairs
        .iter()
        .map(|(one, other)| Pairs {
            one: one.scores(),
            other: other.scores(),
            weights: one.answers(),
        })
        .collect();
    row.interval = "paired".to_owned();
    row.examples = pairs.first().map(|(one, _)| one.scores().len() as u64);
    let Some(found) = compare(Kind::of(&row.metric), &seeds) else {
        return;
    };
    row.difference = Some(found.value);
    row.difference_low = Some(found.low);
    row.difference_high = Some(found.high);
    row.only_one = found.discordant.map(|(one, _)| one);
    row.only_other = found.discordant.map(|(_, other)| other);
    row.test = found.test.to_owned();
    row.p_value = Some(found.p_value);
    row.detectable = Some(found.detectable);
}
