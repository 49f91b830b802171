//! `longhaul plan`: what a suite will take in time and memory, by a short calibration on this machine.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use clap::Args;
use longhaul_tasks::{Suite, TrainDistribution};

use crate::cli::RunArgs;
use crate::commands::print;
use crate::commands::run::{fits, make_plan};
use crate::exit::{self, CommandError};
use crate::number::size;
use crate::run::calibrate::{Case, STEPS, calibrate, cases, run_seconds, tokens};
use crate::run::error::RunError;
use crate::run::machine;
use crate::run::plan::{Plan, Unit};
use crate::run::session::{Resources, interrupt_flag};
use crate::table::{columns, counted, width, wrap};

/// `longhaul plan`.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("out", |arg| arg.hide(true)),
    mut_arg("resume", |arg| arg.hide(true)),
    mut_arg("retry_failed", |arg| arg.hide(true)),
    mut_arg("dry_run", |arg| arg.hide(true)),
    after_help = "\
Of each architecture on each task 24 steps are trained and some examples of each
length read, up to 4,096 tokens, by as many workers as the run would have; what
longer ones take is extrapolated. Nothing is kept. `time` is a worker's, of all
trainings of a line; `memory` is the most that one worker takes of the machine's,
a card's own not counted. Other work on the machine makes all of it longer.

Exit code 1: something went wrong in the calibration, as it would in the run.

Examples:
  longhaul plan quick
  longhaul plan quick --seeds 3 --jobs 1
  longhaul plan my-suite.toml --device cuda:0 --part 1/8"
)]
pub struct PlanArgs {
    /// What to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// Runs the command.
///
/// # Errors
/// A plan that cannot be; Ctrl-C; no place for temporary files.
pub fn run(args: &PlanArgs) -> Result<u8, CommandError> {
    Ok(forecast(&args.run)?)
}

fn forecast(args: &RunArgs) -> Result<u8, RunError> {
    if args.resume || args.retry_failed || args.out.is_some() || args.dry_run {
        return Err(RunError::Input(
            "`longhaul plan` is of a whole run, calibrates and keeps nothing: --out, --resume, --retry-failed and --dry-run \
             are `longhaul run`'s"
                .to_owned(),
        ));
    }
    let suite = Suite::load(&args.suite)?;
    let resources = Resources::of_run(args, &suite)?;
    let mut plan = make_plan(args, &suite, &resources.devices)?;
    if let Some(part) = args.part {
        plan = plan.part(part)?;
    }
    if resources.devices.kind() == "cpu" {
        fits(&plan.units, resources.memory_bytes)?;
    }
    let interrupt = interrupt_flag()?;
    let mut cases = cases(&plan)?;
    if tracing::enabled!(tracing::Level::WARN) {
        // A reader that is gone must not end it.
        let _ = writeln!(
            std::io::stderr(),
            "Calibrating {}, at most {STEPS} steps each:",
            counted(cases.len(), "model")
        );
    }
    calibrate(&plan, &mut cases, &resources, &interrupt)?;
    let wall = run_seconds(&plan, &cases, resources.jobs);
    print(&text(&plan, &cases, &resources, wall)).map_err(RunError::Command)?;
    let well = cases.iter().all(|case| case.trouble.is_none());
    Ok(if well { exit::OK } else { exit::FAILED })
}

/// The table, the total, and what will not go well.
fn text(plan: &Plan, cases: &[Case], resources: &Resources, wall: f64) -> String {
    let names = Names::new(&plan.units);
    let mut rows = vec![
        [
            "model",
            "trainings",
            "    steps",
            "  tokens",
            "    time",
            "  memory",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    let mut all = Sums::default();
    for case in cases {
        let sums = Sums::of(plan, case);
        let name = names.of(&plan.units[case.places[0]]);
        rows.push(sums.row(name, case.cost.is_some()));
        all.add(&sums);
    }
    let is_known = cases.iter().any(|case| case.cost.is_some());
    rows.push(all.row("all".to_owned(), is_known));
    let mut text = columns(&rows);
    text.push('\n');
    let mut say = |words: &str| {
        for line in wrap(words, width()) {
            text.push_str(&line);
            text.push('\n');
        }
    };
    let about = match is_known {
        true => format!("About {}", time(wall)),
        false => "An unknown time".to_owned(),
    };
    say(&format!(
        "{about} with {} on {}, {} each.",
        counted(resources.jobs, "worker"),
        resources.devices.text(),
        counted(resources.threads as usize, "CPU thread")
    ));
    for words in warnings(plan, cases, resources, &names, &all) {
        say(&words);
    }
    text
}

/// What fails, what does not fit, what is not counted, each in a sentence.
fn warnings(
    plan: &Plan,
    cases: &[Case],
    resources: &Resources,
    names: &Names,
    all: &Sums,
) -> Vec<String> {
    let mut words = Vec::new();
    let name = |case: &Case| names.of(&plan.units[case.places[0]]);
    for case in cases {
        if let Some(trouble) = &case.trouble {
            words.push(format!("{}: {trouble}", name(case)));
        }
        let too_large = case.cost.iter().flat_map(|cost| &cost.too_large);
        let too_large: Vec<String> = too_large
            .map(|(length, bytes)| format!("{} at {length} tokens", size(*bytes)))
            .collect();
        if !too_large.is_empty() {
            words.push(format!(
                "{} does not fit: {}, where a worker may have {}",
                name(case),
                too_large.join(", "),
                size(resources.memory_bytes.unwrap_or(0))
            ));
        }
    }
    let uncounted: usize = cases
        .iter()
        .filter(|case| case.cost.is_none())
        .map(|case| case.places.len())
        .sum();
    if uncounted > 0 {
        words.push(format!(
            "The time of {} is not known, and not in the sums.",
            counted(uncounted, "training")
        ));
    }
    let together = all.memory.unwrap_or(0) * resources.jobs.min(plan.units.len()) as u64;
    if let Some(there) = machine::memory_bytes().filter(|&there| together > there) {
        words.push(format!(
            "The largest of {} at a time would take {}, and this machine has {}: lower --jobs.",
            counted(resources.jobs, "worker"),
            size(together),
            size(there)
        ));
    }
    words
}

/// Numbers of a line.
#[derive(Default)]
struct Sums {
    trainings: usize,
    steps: u64,
    tokens: f64,
    seconds: f64,
    memory: Option<u64>,
}

impl Sums {
    fn of(plan: &Plan, case: &Case) -> Self {
        let unit = &plan.units[case.places[0]];
        let trainings = case.places.len();
        let steps = unit.training.as_ref().map_or(0, |training| training.steps);
        let seconds = case.cost.as_ref().map_or(0.0, |cost| cost.seconds);
        Self {
            trainings,
            steps: steps * trainings as u64,
            tokens: tokens(unit, &case.evaluations) * trainings as f64,
            seconds: seconds * trainings as f64,
            memory: case.cost.as_ref().and_then(|cost| cost.memory_bytes),
        }
    }

    fn add(&mut self, other: &Self) {
        self.trainings += other.trainings;
        self.steps += other.steps;
        self.tokens += other.tokens;
        self.seconds += other.seconds;
        self.memory = self.memory.max(other.memory);
    }

    /// What is not known is left empty.
    fn row(&self, name: String, is_known: bool) -> Vec<String> {
        let time = if is_known {
            time(self.seconds)
        } else {
            String::new()
        };
        let memory = self.memory.map(size).unwrap_or_default();
        vec![
            name,
            format!("{:>9}", self.trainings),
            format!("{:>9}", count(self.steps as f64)),
            format!("{:>8}", count(self.tokens)),
            format!("{time:>8}"),
            format!("{memory:>8}"),
        ]
    }
}

/// Architectures and tasks by their names; with options where a plan has a name with several, and training lengths where
/// those of its task are drawn in several ways.
struct Names {
    /// Architectures and tasks that have several options.
    several: HashSet<String>,
    /// Tasks whose training lengths are drawn in several ways.
    by_lengths: HashSet<String>,
}

impl Names {
    fn new(units: &[Unit]) -> Self {
        let names = units.iter().flat_map(|unit| {
            [
                (unit.architecture.clone(), unit.architecture_text()),
                (unit.task.clone(), unit.task_text()),
            ]
        });
        let lengths = units
            .iter()
            .map(|unit| (unit.task_text(), distribution(unit)));
        Self {
            several: with_several(names),
            by_lengths: with_several(lengths),
        }
    }

    /// An architecture on a task.
    fn of(&self, unit: &Unit) -> String {
        let several = |name: &String| self.several.contains(name);
        let mut options = Vec::new();
        if several(&unit.architecture) {
            options.push(unit.options.clone());
        }
        let tell = self.by_lengths.contains(&unit.task_text());
        if let Some(lengths) = distribution(unit).filter(|_| tell) {
            options.push(format!("lengths={lengths}"));
        }
        let mut name = unit.architecture.clone();
        if !options.is_empty() {
            name = format!("{name}:{}", options.join(","));
        }
        let task = match several(&unit.task) {
            true => unit.task_text(),
            false => unit.task.clone(),
        };
        format!("{name} on {task}")
    }
}

/// What has more than one value.
fn with_several<T: PartialEq>(values: impl Iterator<Item = (String, T)>) -> HashSet<String> {
    let mut first = HashMap::new();
    let mut several = HashSet::new();
    for (name, value) in values {
        match first.get(&name) {
            None => {
                first.insert(name, value);
            }
            Some(one) if *one == value => {}
            Some(_) => {
                several.insert(name);
            }
        }
    }
    several
}

/// How a unit's training lengths are drawn.
fn distribution(unit: &Unit) -> Option<TrainDistribution> {
    unit.training
        .as_ref()
        .map(|training| training.distribution())
}

/// A number of at most three digits before its prefix of a thousand.
fn count(number: f64) -> String {
    match number {
        n if n < 1e4 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.0} k", n / 1e3),
        n if n < 1e9 => format!("{:.1} M", n / 1e6),
        n => format!("{:.1} G", n / 1e9),
    }
}

/// Seconds in the unit that suits them.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::unit::tests::work;

    #[test]
    fn lengths_are_told_where_a_task_has_them_in_several_ways() {
        let unit = |task: &str, curriculum| {
            let mut unit = work().unit;
            unit.task = task.to_owned();
            let training = unit.training.as_mut().expect("a training");
            (training.length_min, training.length) = (4, 16);
            training.curriculum = curriculum;
            unit
        };
        let [one, other] = [unit("one", None), unit("other", Some(0.5))];
        let names = Names::new(&[one.clone(), other.clone()]);
        assert!(names.of(&one).ends_with(" on one"), "{}", names.of(&one));
        assert!(!names.of(&one).contains("lengths="));
        let names = Names::new(&[one.clone(), unit("one", Some(0.5)), other.clone()]);
        assert!(
            names.of(&one).contains("lengths=uniform on one"),
            "{}",
            names.of(&one)
        );
        assert!(!names.of(&other).contains("lengths="));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [9999.0, 26_000.0, 3.07e6, 2e10].map(count),
            ["9999", "26 k", "3.1 M", "20.0 G"]
        );
        let times = [0.04, 12.4, 119.0, 330.0, 9000.0, 864_000.0].map(time);
        assert_eq!(
            times,
            ["0.0 s", "12 s", "119 s", "6 min", "2.5 h", "10.0 days"]
        );
    }
}
