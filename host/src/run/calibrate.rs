//! A short calibration of a plan: of each architecture on each task a few training steps and a group of examples a
//! length, by workers like a run's in a folder that is gone afterwards; and what the plan takes by that.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use longhaul_results::{JournalError, Measurement, Split, Status, TrainingPoint};

use crate::exit::{self, CommandError};
use crate::run::error::RunError;
use crate::run::execute::Outcome;
use crate::run::folder::RunFolder;
use crate::run::forecast::{Point, Reading, Steps, wall_seconds};
use crate::run::materials::possible;
use crate::run::plan::{self, Evaluation, Plan, Training, Unit};
use crate::run::session::{Resources, work_through};
use crate::run::unit::Work;
use crate::worker::rows_at_once;

/// Training steps of a calibration.
pub const STEPS: u64 = 24;
/// Longest length that is read, in tokens.
const LONGEST: usize = 4096;
/// Read where a plan has longer ones, which these lead to.
const LEADING: [usize; 3] = [1024, 2048, LONGEST];

/// Trainings of a plan that differ by seed and learning rate only, so that they take as long.
#[derive(Debug)]
pub struct Case {
    /// Their places in the plan.
    pub places: Vec<usize>,
    /// What one of them is measured on: lengths that its task cannot have are left out.
    pub evaluations: Vec<Evaluation>,
    /// What one of them takes; none where too little of it could be calibrated.
    pub cost: Option<Cost>,
    /// What went wrong in the calibration, in words.
    pub trouble: Option<String>,
}

/// What a training with its evaluations takes.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Seconds of a worker.
    pub seconds: f64,
    /// Peak memory of a worker in bytes, where the system says it.
    pub memory_bytes: Option<u64>,
    /// Lengths with the peak memory in bytes, where it is more than a worker may have.
    pub too_large: Vec<(usize, u64)>,
}

/// The cases of a plan, in its order.
///
/// # Errors
/// A task that cannot be made.
pub fn cases(plan: &Plan) -> Result<Vec<Case>, RunError> {
    let mut numbers = HashMap::<String, usize>::new();
    let mut cases = Vec::<Case>::new();
    for (place, unit) in plan.units.iter().enumerate() {
        let mut same = unit.clone();
        (same.name, same.seed) = (String::new(), 0);
        if let Some(training) = &mut same.training {
            training.learning_rate = 0.0;
        }
        let same = serde_json::to_string(&same).expect("plain data serialises");
        let number = *numbers.entry(same).or_insert(cases.len());
        if let Some(case) = cases.get_mut(number) {
            case.places.push(place);
            continue;
        }
        let task = unit.make_task()?;
        let mut evaluations = unit.evaluations();
        evaluations.retain(|what| possible(task.as_ref(), what.length).is_ok());
        cases.push(Case {
            places: vec![place],
            evaluations,
            cost: None,
            trouble: None,
        });
    }
    Ok(cases)
}

/// Calibrates cases, and says of each what it takes.
///
/// # Errors
/// Ctrl-C; a folder for temporary files that takes none.
pub fn calibrate(
    plan: &Plan,
    cases: &mut [Case],
    resources: &Resources,
    interrupt: &AtomicBool,
) -> Result<(), RunError> {
    let mut works = Works::default();
    for case in cases.iter() {
        works.add(small(plan, case)?);
    }
    let (rows, points, outcome) = carry_out(plan, &works.all, resources, interrupt)?;
    let taken: Vec<Taken> = works
        .all
        .iter()
        .map(|work| Taken::new(work, &rows, &points))
        .collect();
    // A worker's start and what it does between its measurements.
    let well: Vec<&Taken> = taken
        .iter()
        .filter(|taken| taken.trouble.is_none())
        .collect();
    let all = outcome.inside_plugin_s + outcome.outside_plugin_s;
    let named: f64 = well.iter().map(|taken| taken.seconds).sum();
    let beside = ((all - named) / well.len().max(1) as f64).max(0.0);
    for (case, &place) in cases.iter_mut().zip(&works.places) {
        let taken = &taken[place];
        case.trouble.clone_from(&taken.trouble);
        let unit = &plan.units[case.places[0]];
        case.cost = taken.cost(unit, &case.evaluations, beside, resources.memory_bytes);
    }
    Ok(())
}

/// Seconds that a run of the plan takes by its cases' costs; what has none is left out.
pub fn run_seconds(plan: &Plan, cases: &[Case], jobs: usize) -> f64 {
    let mut works = Vec::new();
    let mut seconds = HashMap::new();
    for case in cases {
        let Some(cost) = &case.cost else { continue };
        for &place in &case.places {
            let unit = &plan.units[place];
            let id = unit.id();
            seconds.insert(id.clone(), Duration::from_secs_f64(cost.seconds));
            works.push((place, id, &case.evaluations));
        }
    }
    works.sort_by_key(|(place, ..)| *place);
    let works = works.into_iter().map(|(place, id, evaluations)| Work {
        unit: plan.units[place].clone(),
        architecture: plan.architectures[place].clone(),
        id,
        train: true,
        evaluations: evaluations.clone(),
    });
    wall_seconds(works.collect(), jobs, &|work| seconds[&work.id])
}

/// The small piece of a case that is done: the first of its trainings, cut short.
fn small(plan: &Plan, case: &Case) -> Result<Work, RunError> {
    let place = case.places[0];
    let mut unit = plan.units[place].clone();
    let planned: Vec<usize> = case.evaluations.iter().map(|what| what.length).collect();
    let mut lengths: Vec<usize> = planned
        .iter()
        .copied()
        .filter(|&length| length <= LONGEST)
        .collect();
    if planned.iter().any(|&length| length > LONGEST) {
        let task = unit.make_task()?;
        let can = |length: &usize| possible(task.as_ref(), *length).is_ok();
        lengths.extend(LEADING.into_iter().filter(can));
    }
    if lengths.is_empty() {
        // A task of long sequences only.
        lengths.extend(planned.iter().min());
    }
    lengths.sort_unstable();
    lengths.dedup();
    let samples = unit.samples;
    let evaluation = |&length: &usize| Evaluation {
        split: Split::Test,
        length,
        samples: rows_at_once(length, samples, 0),
    };
    let evaluations = lengths.iter().map(evaluation).collect();
    if let Some(training) = &mut unit.training {
        // Of a curriculum the first steps say little of the others: its piece is the one of uniform lengths.
        *training = training.without_curriculum();
        training.steps = training.steps.min(STEPS);
        training.warmup_steps = training.warmup_steps.min(training.steps);
    }
    (unit.lengths, unit.validation) = (lengths, Vec::new());
    Ok(Work {
        id: unit.id(),
        architecture: plan.architectures[place].clone(),
        train: true,
        evaluations,
        unit,
    })
}

/// Small pieces, each once: trainings that differ in what is cut off have the same one.
#[derive(Default)]
struct Works {
    all: Vec<Work>,
    /// The place in `all` of each case's.
    places: Vec<usize>,
}

impl Works {
    /// Adds a case's. One that is there already reads the lengths of both.
    fn add(&mut self, work: Work) {
        let there = self.all.iter().position(|there| there.id == work.id);
        self.places.push(there.unwrap_or(self.all.len()));
        let Some(there) = there else {
            return self.all.push(work);
        };
        let there = &mut self.all[there];
        there.evaluations.extend(work.evaluations);
        // Of each length the most examples.
        there
            .evaluations
            .sort_by_key(|what| (what.length, std::cmp::Reverse(what.samples)));
        there.evaluations.dedup_by_key(|what| what.length);
        there.unit.lengths = there.evaluations.iter().map(|what| what.length).collect();
    }
}

/// Carries out small pieces in a temporary folder, and returns their records.
fn carry_out(
    plan: &Plan,
    works: &[Work],
    resources: &Resources,
    interrupt: &AtomicBool,
) -> Result<(Vec<Measurement>, Vec<TrainingPoint>, Outcome), RunError> {
    let place = std::env::temp_dir();
    let folder = tempfile::tempdir().map_err(RunError::io("make a folder in", &place))?;
    let units: Vec<Unit> = works.iter().map(|work| work.unit.clone()).collect();
    let small = Plan {
        run_id: plan::run_id(resources.devices.kind(), &plan.environment, &units),
        units,
        architectures: works.iter().map(|work| work.architecture.clone()).collect(),
        targets: Vec::new(),
        part: None,
        ..plan.clone()
    };
    let manifest = resources.manifest(&small);
    let mut run = RunFolder::for_plan(folder.path(), &small, &manifest, false)
        .map_err(|error| in_place(error, &place))?;
    let outcome = work_through(
        &mut run,
        &small.run_id,
        works.to_vec(),
        resources,
        interrupt,
    );
    let outcome = outcome.map_err(|error| in_place(error, &place))?;
    if outcome.interrupted {
        return Err(RunError::Command(CommandError {
            code: exit::INTERRUPTED,
            message: "interrupted; a calibration leaves nothing behind".to_owned(),
        }));
    }
    let rows = std::mem::take(&mut run.rows);
    Ok((rows, std::mem::take(&mut run.points), outcome))
}

/// What the system refused a calibration, of which nothing is kept that could be gone on with.
fn in_place(error: RunError, place: &Path) -> RunError {
    let reason = match error {
        RunError::Worker(reason) => reason,
        RunError::Journal(JournalError::Full { path, source, .. }) => {
            format!("no room in {}: {source}", path.display())
        }
        error @ (RunError::Journal(_) | RunError::Lock(_) | RunError::Io { .. }) => {
            error.to_string()
        }
        other => return other,
    };
    RunError::Command(CommandError::environment(format!(
        "{reason}: the calibration works in {}; TMPDIR names another place",
        place.display()
    )))
}

/// What a small piece took.
struct Taken {
    steps: Option<Steps>,
    reading: Option<Reading>,
    /// Seconds of its training and its evaluations.
    seconds: f64,
    /// Most memory at any of its lengths, in bytes.
    memory_bytes: Option<u64>,
    trouble: Option<String>,
}

impl Taken {
    fn new(work: &Work, rows: &[Measurement], points: &[TrainingPoint]) -> Self {
        let rows = rows
            .iter()
            .filter(|row| row.unit == work.id && row.is_reported_cell());
        let mut read: Vec<Point> = rows.clone().filter_map(|row| point(row, work)).collect();
        read.sort_by_key(|point| point.length);
        let mut steps: Vec<(u64, f64)> = points
            .iter()
            .filter(|point| point.unit == work.id)
            .filter_map(|point| Some((point.step, point.seconds?)))
            .collect();
        steps.sort_by_key(|(step, _)| *step);
        let is_whole = work
            .unit
            .training
            .as_ref()
            .is_some_and(|training| steps.len() as u64 == training.steps);
        let steps: Vec<f64> = steps.into_iter().map(|(_, seconds)| seconds).collect();
        let trouble = rows
            .clone()
            .find(|row| !matches!(row.status, Status::Ok | Status::NotRun))
            .map(|row| match is_whole {
                false => format!("training {}: {}", row.status.name(), row.reason),
                true => format!(
                    "{} at {} tokens: {}",
                    row.status.name(),
                    row.eval_length,
                    row.reason
                ),
            });
        Self {
            seconds: steps.last().copied().unwrap_or(0.0)
                + passes(&work.unit) * read.iter().map(|point| point.seconds).sum::<f64>(),
            memory_bytes: read.iter().filter_map(|point| point.peak_bytes).max(),
            steps: Steps::new(&steps).filter(|_| is_whole),
            reading: Reading::new(read),
            trouble,
        }
    }

    /// What a whole training with its evaluations takes, with so many seconds `beside` both.
    fn cost(
        &self,
        unit: &Unit,
        evaluations: &[Evaluation],
        beside: f64,
        limit: Option<u64>,
    ) -> Option<Cost> {
        let training = unit.training.as_ref()?;
        let of_all = training.without_curriculum().sequence_tokens();
        let share = training.sequence_tokens() / of_all;
        let mut seconds = share * self.steps?.seconds(training.steps) + beside;
        let mut memory_bytes = self.memory_bytes;
        let mut too_large = Vec::new();
        let passes = passes(unit);
        if !evaluations.is_empty() {
            let reading = self.reading.as_ref()?;
            for what in evaluations {
                let (length, samples) = (what.length, what.samples);
                seconds += passes * reading.seconds(length, samples);
                let memory = reading.memory(length, samples);
                memory_bytes = memory_bytes.max(memory);
                if let Some((memory, _)) =
                    memory.zip(limit).filter(|(memory, limit)| memory > limit)
                {
                    too_large.push((length, memory));
                }
            }
        }
        Some(Cost {
            seconds,
            memory_bytes,
            too_large,
        })
    }
}

/// How often every example is read: once, and once from each other state.
fn passes(unit: &Unit) -> f64 {
    1.0 + unit.probes.initial_states.len() as f64
}

/// What a row says of reading; nothing where it did not end well.
fn point(row: &Measurement, work: &Work) -> Option<Point> {
    let length = usize::try_from(row.eval_length).ok()?;
    let samples = work.evaluations.iter().find(|what| what.length == length)?;
    Some(Point {
        length,
        samples: samples.samples,
        seconds: row.seconds.filter(|_| row.status == Status::Ok)?,
        state_bytes: row.state_bytes.unwrap_or(0),
        peak_bytes: row.peak_memory_bytes,
    })
}

/// Tokens that a training with its evaluations reads.
pub fn tokens(unit: &Unit, evaluations: &[Evaluation]) -> f64 {
    let trained = unit
        .training
        .as_ref()
        .map_or(0.0, Training::sequence_tokens);
    let read: f64 = evaluations.iter().map(Evaluation::tokens).sum();
    trained + passes(unit) * read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::unit::tests::work;

    #[test]
    fn a_piece_that_two_cases_have_is_done_once() {
        let with = |seed, lengths: &[(usize, u64)]| {
            let mut work = work();
            work.unit.seed = seed;
            work.id = work.unit.id();
            let one = |&(length, samples)| Evaluation {
                split: Split::Test,
                length,
                samples,
            };
            work.evaluations = lengths.iter().map(one).collect();
            work
        };
        let mut works = Works::default();
        works.add(with(0, &[(40, 8), (80, 8)]));
        works.add(with(1, &[(40, 8)]));
        works.add(with(0, &[(20, 9), (40, 9)]));
        assert_eq!((works.places, works.all.len()), (vec![0, 1, 0], 2));
        let read = works.all[0].evaluations.iter();
        let read: Vec<_> = read.map(|what| (what.length, what.samples)).collect();
        assert_eq!(read, [(20, 9), (40, 9), (80, 8)]);
        assert_eq!(works.all[0].unit.lengths, [20, 40, 80]);
    }

    #[test]
    fn nothing_goes_on_where_nothing_is_kept() {
        let full = RunError::Journal(JournalError::Full {
            path: "/tmp/x/results.csv".into(),
            bytes: 9,
            source: std::io::ErrorKind::StorageFull.into(),
        });
        let words = in_place(full, Path::new("/tmp")).to_string();
        assert!(
            words.contains("results.csv") && words.contains("TMPDIR"),
            "{words}"
        );
        assert!(!words.contains("--resume"), "{words}");
    }
}
