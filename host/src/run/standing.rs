//! How far a run is, read off its records alone.

use std::collections::{HashMap, HashSet};

use longhaul_results::metric::Kind;
use longhaul_results::{Cell, Measurement, Split, Status, TrainingPoint};

use crate::run::plan::{Evaluation, Training, Unit};

/// Rows that are shown of what was measured last.
const LAST: usize = 6;

/// How far a run is.
#[derive(Debug, Default)]
pub struct Standing {
    /// Planned measurements, whole cells.
    pub planned: usize,
    /// Of them, those that have a record.
    pub measured: usize,
    /// Of them, those that did not end well.
    pub not_ok: usize,
    /// Of them, those that were not run, for a reason that stands in the record.
    pub not_run: usize,
    /// Models whose every measurement has a record.
    pub over: usize,
    /// Models of which nothing is recorded yet.
    pub waiting: usize,
    /// The others, the one that was heard of last first, each in words.
    pub at_work: Vec<String>,
    /// Seconds that the rest takes at the pace so far, with all workers.
    pub seconds_left: Option<f64>,
    /// What was measured, in the order of the file.
    pub rows: Vec<Said>,
}

/// A measurement, for the eye.
#[derive(Debug)]
pub struct Said {
    /// Of what.
    pub cell: Cell,
    /// How it ended.
    pub status: Status,
    /// What was measured.
    pub words: String,
}

/// What is recorded of one unit.
#[derive(Default)]
struct Seen<'a> {
    point: Option<&'a TrainingPoint>,
    cells: HashSet<Cell>,
    seconds: f64,
    /// Place in the files of what was recorded last.
    place: usize,
}

impl Standing {
    /// Of the plan of a run with so many workers, and of its records in the order in which they were written.
    pub fn new(
        units: &[Unit],
        jobs: usize,
        rows: &[Measurement],
        points: &[TrainingPoint],
    ) -> Self {
        let mut seen: HashMap<&str, Seen<'_>> = HashMap::new();
        for (place, point) in points.iter().enumerate() {
            let of = seen.entry(&point.unit).or_default();
            of.point = Some(point);
            of.place = place;
        }
        let whole = || rows.iter().filter(|row| row.label.is_empty());
        let mut states: HashMap<Cell, Status> = HashMap::new();
        for row in whole() {
            let of = seen.entry(&row.unit).or_default();
            if of.cells.insert(row.cell()) {
                of.seconds += row.seconds.unwrap_or(0.0);
            }
            states.insert(row.cell(), row.status);
        }
        let several_rates = has_several_rates(units);
        let mut found = Self {
            rows: whole().map(|row| Said::new(row, several_rates)).collect(),
            ..Self::default()
        };
        let mut at_work = Vec::new();
        let mut paces = Paces::default();
        for unit in units {
            let id = unit.id();
            let evaluations = unit.evaluations();
            let status = |what: &Evaluation| states.get(&what.cell(&id)).copied();
            let statuses: Vec<Status> = evaluations.iter().filter_map(status).collect();
            let count = |what| statuses.iter().filter(|&&status| status == what).count();
            let not_run = count(Status::NotRun);
            found.planned += evaluations.len();
            found.measured += statuses.len();
            found.not_run += not_run;
            found.not_ok += statuses.len() - not_run - count(Status::Ok);
            let of = seen.remove(id.as_str());
            let over = statuses.len() == evaluations.len();
            found.over += usize::from(over);
            found.waiting += usize::from(of.is_none() && !over);
            let of = of.unwrap_or_default();
            let (done, left) = tokens(unit, &id, &of);
            paces.add(
                &unit.architecture,
                done,
                if over { 0.0 } else { left },
                of.seconds_spent(),
            );
            if !over && (of.point.is_some() || !of.cells.is_empty()) {
                let rate = unit
                    .training
                    .as_ref()
                    .map(|training| training.learning_rate);
                let title = title(
                    (&unit.architecture, &unit.task, unit.seed),
                    rate.filter(|_| several_rates),
                );
                let counts = (statuses.len(), evaluations.len());
                at_work.push((of.place, words(title, unit, &of, counts)));
            }
        }
        at_work.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        found.at_work = at_work.into_iter().map(|(_, words)| words).collect();
        found.seconds_left = paces.left().map(|seconds| seconds / jobs.max(1) as f64);
        found
    }

    /// Whether every planned measurement has its record.
    pub fn is_complete(&self) -> bool {
        self.measured == self.planned
    }

    /// The run in lines: what is done, what is being done, what was measured last.
    pub fn lines(&self, running: bool) -> Vec<String> {
        let mut counts = format!("measured  {} of {}", self.measured, self.planned);
        for (count, what) in [(self.not_ok, "not ok"), (self.not_run, "not run")] {
            if count > 0 {
                counts.push_str(&format!(", {count} {what}"));
            }
        }
        let work = if running { "at work" } else { "begun" };
        let mut models = format!("models    {} over", self.over);
        for (count, what) in [(self.at_work.len(), work), (self.waiting, "to come")] {
            if count > 0 {
                models.push_str(&format!(", {count} {what}"));
            }
        }
        let mut lines = vec![counts, models];
        if let Some(seconds) = self.seconds_left.filter(|_| running && !self.is_complete()) {
            let left = std::time::Duration::from_secs(seconds as u64 + 1);
            let left = indicatif::HumanDuration(left);
            lines.push(format!("left      about {left:#} at the pace so far"));
        }
        for (title, all) in [
            (work, self.at_work.iter().take(2 * LAST).collect::<Vec<_>>()),
            (
                "last",
                self.rows
                    .iter()
                    .rev()
                    .take(LAST)
                    .map(|row| &row.words)
                    .collect(),
            ),
        ] {
            for (index, words) in all.into_iter().enumerate() {
                let title = if index == 0 { title } else { "" };
                lines.push(format!("{title:<10}{words}"));
            }
        }
        lines
    }
}

impl Seen<'_> {
    /// Seconds that its training and evaluations took.
    fn seconds_spent(&self) -> f64 {
        self.seconds + self.point.and_then(|point| point.seconds).unwrap_or(0.0)
    }
}

/// Tokens that were read of a unit, and that are left.
fn tokens(unit: &Unit, id: &str, of: &Seen<'_>) -> (f64, f64) {
    let training = unit.training.as_ref();
    let of_training = training.map_or(0.0, Training::tokens);
    let share = training.zip(of.point).map_or(0.0, |(training, point)| {
        (point.step + 1) as f64 / training.steps.max(1) as f64
    });
    let evaluations = unit.evaluations();
    let of_all: f64 = evaluations.iter().map(Evaluation::tokens).sum();
    let read = evaluations
        .iter()
        .filter(|what| of.cells.contains(&what.cell(id)));
    let read: f64 = read.map(Evaluation::tokens).sum();
    let done = share.min(1.0) * of_training + read;
    (done, of_training + of_all - done)
}

/// Seconds a token, by architecture.
#[derive(Default)]
struct Paces<'a>(HashMap<&'a str, Pace>);

#[derive(Default)]
struct Pace {
    done: f64,
    left: f64,
    seconds: f64,
}

impl<'a> Paces<'a> {
    fn add(&mut self, architecture: &'a str, done: f64, left: f64, seconds: f64) {
        let pace = self.0.entry(architecture).or_default();
        pace.done += done;
        pace.left += left;
        pace.seconds += seconds;
    }

    /// Seconds of one worker for all that is left; an architecture of which nothing is done has the pace of all.
    fn left(&self) -> Option<f64> {
        let sum = |get: &dyn Fn(&Pace) -> f64| self.0.values().map(get).sum::<f64>();
        let (seconds, done) = (sum(&|pace| pace.seconds), sum(&|pace| pace.done));
        if seconds < 2.0 || done <= 0.0 {
            return None;
        }
        let left = |pace: &Pace| {
            let own = pace.done > 0.0 && pace.seconds > 0.0;
            let (seconds, done) = if own {
                (pace.seconds, pace.done)
            } else {
                (seconds, done)
            };
            pace.left * seconds / done
        };
        Some(sum(&left))
    }
}

/// Whether a plan has more than one learning rate, which its models then differ by.
fn has_several_rates(units: &[Unit]) -> bool {
    let mut rates = units
        .iter()
        .filter_map(|unit| Some(unit.training.as_ref()?.learning_rate));
    let first = rates.next();
    rates.any(|rate| Some(rate) != first)
}

/// A model and its task, with its learning rate where that is given.
fn title((architecture, task, seed): (&str, &str, u64), rate: Option<f64>) -> String {
    let rate = rate.map_or_else(String::new, |rate| format!(" lr {rate}"));
    format!("{architecture} on {task} seed {seed}{rate}")
}

/// What a unit of this title is at.
fn words(title: String, unit: &Unit, of: &Seen<'_>, (measured, planned): (usize, usize)) -> String {
    match (unit.training.as_ref(), of.point) {
        (Some(training), Some(point)) if point.step + 1 < training.steps && measured == 0 => {
            let loss = point
                .loss
                .map_or_else(String::new, |loss| format!(", loss {loss:.3}"));
            let share = point.accuracy.map_or_else(String::new, |share| {
                format!(", accuracy {:.0} %", 100.0 * share)
            });
            format!(
                "{title}: step {}/{}{loss}{share}",
                point.step + 1,
                training.steps
            )
        }
        _ => format!("{title}: {measured} of {planned} lengths read"),
    }
}

impl Said {
    /// Of a row; with its learning rate where a plan has several.
    fn new(row: &Measurement, several_rates: bool) -> Self {
        let kind = Kind::of(&row.metric);
        let value = match row.value {
            Some(value) if kind.is_accuracy() => format!("{} %", kind.show(value)),
            Some(value) => kind.show(value),
            None if row.reason.is_empty() => row.status.name().to_owned(),
            None => format!("{}: {}", row.status.name(), row.reason),
        };
        let rate = row.learning_rate.filter(|_| several_rates);
        let title = title((&row.architecture, &row.task, row.seed), rate);
        let split = match row.split {
            Split::Validation => " of validation",
            Split::Test => "",
        };
        Self {
            cell: row.cell(),
            status: row.status,
            words: format!("{title} at {}{split}: {value}", row.eval_length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::tests::unit;

    fn point(id: &str, step: u64, seconds: f64) -> TrainingPoint {
        TrainingPoint {
            unit: id.to_owned(),
            step,
            loss: Some(0.25),
            accuracy: Some(0.5),
            seconds: Some(seconds),
            ..TrainingPoint::default()
        }
    }

    #[test]
    fn records_say_how_far_a_run_is() {
        let units: Vec<Unit> = (0..3).map(|seed| Unit { seed, ..unit(100) }).collect();
        let ids: Vec<String> = units.iter().map(Unit::id).collect();
        let row = |id: &str, length: usize, status: Status| Measurement {
            unit: id.to_owned(),
            architecture: "arch".to_owned(),
            task: "parity".to_owned(),
            metric: "exact_match".to_owned(),
            eval_length: length as u64,
            value: (status == Status::Ok).then_some(0.75),
            seconds: Some(1.0),
            status,
            ..Measurement::default()
        };
        let lengths = units[0].lengths.clone();
        let rows: Vec<Measurement> = lengths
            .iter()
            .map(|&length| {
                row(
                    &ids[0],
                    length,
                    if length == lengths[0] {
                        Status::Ok
                    } else {
                        Status::Crashed
                    },
                )
            })
            .collect();
        let points = [point(&ids[0], 99, 10.0), point(&ids[1], 49, 5.0)];
        let found = Standing::new(&units, 2, &rows, &points);
        assert_eq!(found.planned, 3 * lengths.len());
        assert_eq!(
            (found.measured, found.not_ok),
            (lengths.len(), lengths.len() - 1)
        );
        assert_eq!((found.over, found.waiting, found.at_work.len()), (1, 1, 1));
        let text = found.lines(true).join("\n");
        for words in [
            "step 50/100, loss 0.250, accuracy 50 %",
            "75.0 %",
            "crashed",
            "left      about",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!found.is_complete());
        // What is left at the pace so far, by hand: all units are of one architecture.
        let of_training = units[0].training.as_ref().expect("a training").tokens();
        let of_reading: f64 = units[0].evaluations().iter().map(Evaluation::tokens).sum();
        let done = 1.5 * of_training + of_reading;
        let pace = (15.0 + lengths.len() as f64) / done;
        let expected = pace * (3.0 * (of_training + of_reading) - done) / 2.0;
        let left = found.seconds_left.expect("a pace");
        assert!((left - expected).abs() < 1e-9, "{left} {expected}");
        assert_eq!(Standing::new(&units, 2, &[], &[]).seconds_left, None);
    }

    #[test]
    fn measurements_are_told_apart_by_what_a_plan_has_several_of() {
        let with = |learning_rate| {
            let mut unit = unit(100);
            unit.training.as_mut().expect("a training").learning_rate = learning_rate;
            unit
        };
        let row = |unit: &Unit, split| Measurement {
            unit: unit.id(),
            architecture: unit.architecture.clone(),
            task: unit.task.clone(),
            metric: "exact_match".to_owned(),
            split,
            eval_length: 40,
            learning_rate: unit
                .training
                .as_ref()
                .map(|training| training.learning_rate),
            value: Some(0.75),
            status: Status::Ok,
            ..Measurement::default()
        };
        let said = |units: &[Unit]| {
            let splits = |unit| [Split::Validation, Split::Test].map(|split| row(unit, split));
            let rows: Vec<Measurement> = units.iter().flat_map(splits).collect();
            let found = Standing::new(units, 1, &rows, &[]).rows;
            found.into_iter().map(|row| row.words).collect::<Vec<_>>()
        };
        let one = "arch on parity seed 0 at 40";
        let expected = [
            format!("{one} of validation: 75.0 %"),
            format!("{one}: 75.0 %"),
        ];
        assert_eq!(said(&[with(0.001)]), expected);
        let several = said(&[with(0.001), with(0.002)]);
        assert_eq!(
            several[0],
            "arch on parity seed 0 lr 0.001 at 40 of validation: 75.0 %"
        );
        assert_eq!(several[3], "arch on parity seed 0 lr 0.002 at 40: 75.0 %");
    }
}
