//! What `run` and `eval` share: jobs and limits from the command line, carrying out the work, and the
//! last words.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use longhaul_tasks::{Suite, bounds};

use crate::architecture::ArchSpec;
use crate::cli::{ResourceArgs, RunArgs};
use crate::commands::devices;
use crate::device::Devices;
use crate::exit;
use crate::launch;
use crate::run::command::retry_flags;
use crate::run::error::RunError;
use crate::run::execute::{Outcome, execute};
use crate::run::finish::{Recorded, Report, finish};
use crate::run::folder::RunFolder;
use crate::run::lengths::parse_size;
use crate::run::machine;
use crate::run::manifest::{LimitsRecord, Manifest};
use crate::run::part;
use crate::run::plan::{Evaluation, Plan, Unit};
use crate::run::predictions;
use crate::run::progress::Progress;
use crate::run::targets::Target;
use crate::run::unit::{Settings, Work};
use crate::table::counted;
use crate::worker::models::is_saved;

/// Seconds after which a training is kept, where nobody says otherwise.
pub const SAVE_EVERY_S: u64 = 120;

/// Seconds from which on a limit of time is none: 30,000 years.
const NO_LIMIT: u64 = 1_000_000_000_000;

/// Workers at a time and what each may use.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Where they run.
    pub devices: Devices,
    /// Workers at a time.
    pub jobs: usize,
    /// CPU threads a worker.
    pub threads: u32,
    /// Seconds of its worker's own time for a unit.
    pub time_s: Option<u64>,
    /// Bytes of resident memory for a worker; none where the system does not say how much there is.
    pub memory_bytes: Option<u64>,
    /// Seconds after which a training is kept as it stands, so that it goes on from there.
    pub save_every_s: u64,
}

impl Resources {
    /// Those of `longhaul run` with a suite.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_run(args: &RunArgs, suite: &Suite) -> Result<Self, RunError> {
        let limits = (suite.limits.time_s, suite.limits.memory_bytes);
        let mut resources = Self::new(&args.device, &args.resources, limits)?;
        resources.save_every_s = args.save_every;
        Ok(resources)
    }

    /// From the command line, then `limits` of time in seconds and of memory in bytes, then the machine: on the CPU a
    /// worker a core, on cards a worker a card; nine tenths of the memory.
    ///
    /// # Errors
    /// A device or a size that is none; a number that is 0; a card that is not there.
    pub fn new(
        device: &str,
        args: &ResourceArgs,
        limits: (Option<u64>, Option<u64>),
    ) -> Result<Self, RunError> {
        let devices = Devices::parse(device).map_err(RunError::Input)?;
        devices::require(&devices).map_err(RunError::Input)?;
        let cores = machine::cores();
        let own = if devices.kind() == "cpu" {
            cores
        } else {
            devices.names().len()
        };
        let jobs = args.jobs.unwrap_or(own);
        let time_s = args
            .time_limit
            .or(limits.0)
            .filter(|&time_s| time_s < NO_LIMIT);
        let threads = args
            .threads
            .unwrap_or_else(|| (cores / jobs.max(1)).max(1) as u32);
        if let Some(seconds) = time_s {
            bounds::check("the time limit", seconds, &bounds::TIME_S).map_err(RunError::Input)?;
        }
        let memory_bytes = match (&args.memory_limit, limits.1) {
            (Some(text), _) => Some(parse_size(text)?),
            (None, Some(bytes)) => {
                bounds::check("the memory limit, in bytes,", bytes, &bounds::MEMORY_BYTES)
                    .map_err(RunError::Input)?;
                Some(bytes)
            }
            (None, None) => launch::memory_share(),
        };
        Ok(Self {
            devices,
            jobs,
            threads,
            time_s,
            memory_bytes,
            save_every_s: SAVE_EVERY_S,
        })
    }

    /// What is written down of a plan that is carried out with these.
    pub fn manifest(&self, plan: &Plan) -> Manifest {
        let limits = LimitsRecord {
            time_s: self.time_s,
            memory_bytes: self.memory_bytes,
        };
        Manifest::new(plan, self.jobs, self.threads, limits)
    }
}

/// A handler for Ctrl-C.
///
/// # Errors
/// The system refuses it.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>, RunError> {
    crate::run::interrupt::flag()
        .map_err(RunError::io("handle signals of", Path::new("this process")))
}

/// What a folder's records leave to do of some units: what `evaluations` says is wanted of each, and
/// training where no saved model stands with all its points.
pub fn works(
    folder: &RunFolder,
    units: &[Unit],
    architectures: &[ArchSpec],
    retry: bool,
    evaluations: &dyn Fn(&Unit) -> Vec<Evaluation>,
) -> Vec<Work> {
    let recorded = Recorded::new(&folder.rows, &folder.points);
    let models = folder.path.join("models");
    let mut works = Vec::new();
    for (unit, architecture) in units.iter().zip(architectures) {
        let id = unit.id();
        let left = recorded.left(&id, evaluations(unit), retry);
        if !left.is_empty() {
            let train = unit.training.as_ref().is_some_and(|training| {
                !(recorded.is_trained(&id, training)
                    && is_saved(&models.join(unit.model_name()), &id))
            });
            works.push(Work {
                unit: unit.clone(),
                architecture: architecture.clone(),
                id,
                train,
                evaluations: left,
            });
        }
    }
    works
}

/// Carries out what a plan's folder leaves to do, with [`carry_out`]'s words and errors.
///
/// # Errors
/// Ctrl-C; files that cannot be written.
pub fn carry_out_plan(
    folder: &mut RunFolder,
    plan: &Plan,
    retry: bool,
    resources: Resources,
    interrupt: &AtomicBool,
) -> Result<u8, RunError> {
    let (units, architectures) = (plan.units.as_slice(), plan.architectures.as_slice());
    let works = works(folder, units, architectures, retry, &Unit::evaluations);
    let planned = (units, plan.targets.as_slice());
    carry_out(folder, &plan.run_id, planned, works, resources, interrupt)
}

/// Carries out the work of a folder, then writes and prints what is made of its records. Returns the
/// process's exit code.
///
/// # Errors
/// Ctrl-C; files that cannot be written.
pub fn carry_out(
    folder: &mut RunFolder,
    run_id: &str,
    planned: (&[Unit], &[Target]),
    works: Vec<Work>,
    resources: Resources,
    interrupt: &AtomicBool,
) -> Result<u8, RunError> {
    let (report, spent) = measure(folder, run_id, planned, works, resources, interrupt)?;
    let text = last_words(&report, &spent, folder);
    crate::commands::print(&text).map_err(RunError::Command)?;
    Ok(if report.not_ok > 0 {
        exit::FAILED
    } else {
        exit::OK
    })
}

/// What all units of a folder share.
///
/// # Errors
/// A folder that cannot be found.
fn settings(folder: &RunFolder, run_id: &str, resources: &Resources) -> Result<Settings, RunError> {
    let absolute = std::path::absolute(&folder.path);
    Ok(Settings {
        // A plugin may change its worker's folder.
        folder: absolute.map_err(RunError::io("find", &folder.path))?,
        run_id: run_id.to_owned(),
        devices: resources.devices.clone(),
        threads: resources.threads,
        time_s: resources.time_s,
        memory_bytes: resources.memory_bytes,
        save_every_s: resources.save_every_s,
    })
}

/// Lets workers do some work of a folder, and shows how far they are.
///
/// # Errors
/// A folder that cannot be found; records that cannot be written; workers that cannot be started.
pub fn work_through(
    folder: &mut RunFolder,
    run_id: &str,
    works: Vec<Work>,
    resources: &Resources,
    interrupt: &AtomicBool,
) -> Result<Outcome, RunError> {
    let settings = settings(folder, run_id, resources)?;
    let jobs = resources.jobs;
    let mut progress = Progress::new(&works, jobs);
    let outcome = execute(works, jobs, &settings, folder, &mut progress, interrupt);
    progress.finish();
    outcome
}

/// What carrying out some work took.
#[derive(Debug)]
pub struct Spent {
    outcome: Outcome,
    to_train: usize,
    read_back: usize,
    seconds: f64,
}

/// Carries out the work of a folder and writes what is made of its records.
///
/// # Errors
/// Ctrl-C; files that cannot be written.
pub fn measure(
    folder: &mut RunFolder,
    run_id: &str,
    planned: (&[Unit], &[Target]),
    works: Vec<Work>,
    resources: Resources,
    interrupt: &AtomicBool,
) -> Result<(Report, Spent), RunError> {
    for repair in &folder.repairs {
        tracing::warn!("{repair}");
    }
    let begun = std::time::Instant::now();
    let to_train = works.iter().filter(|work| work.train).count();
    let read_back = works.len() - to_train;
    let outcome = work_through(folder, run_id, works, &resources, interrupt)?;
    if outcome.interrupted {
        return Err(RunError::interrupted());
    }
    let report = finish(folder, planned, interrupt)?;
    let spent = Spent {
        outcome,
        to_train,
        read_back,
        seconds: begun.elapsed().as_secs_f64(),
    };
    Ok((report, spent))
}

/// The table, and what the run was.
fn last_words(report: &Report, spent: &Spent, folder: &RunFolder) -> String {
    let mut text = measured(report, &folder.path);
    if report.not_ok > 0 {
        text.push_str(&format!("; {} tries them again", retry_flags()));
    }
    if let Some(part) = folder.part {
        text = format!("Part {part}: {text}");
    }
    text.push_str(&format!(
        ".\n{} trained{}, {} read back, in {:.0} s",
        counted(spent.outcome.trained, "model"),
        match spent.to_train.saturating_sub(spent.outcome.trained) {
            0 => String::new(),
            failed => format!(", {failed} not to the end"),
        },
        spent.read_back,
        spent.seconds
    ));
    if let Some(outside) = spent.outcome.outside_fraction() {
        text.push_str(&format!(
            ";\n{:.1} % of the workers' time outside the plugins",
            100.0 * outside
        ));
    }
    text.push_str(".\n");
    match part::whole_of(&folder.path).filter(|_| folder.part.is_some()) {
        Some(whole) => text.push_str(&format!(
            "All parts together: {}\n",
            part::collect_command(whole)
        )),
        None => text.push_str(&what_is_where(&folder.path)),
    }
    text
}

/// A finished folder's table, and how many measurements it has.
pub fn measured(report: &Report, folder: &Path) -> String {
    let mut text = report.table.trim_end().to_owned();
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(&counted(report.all, "measurement"));
    let some = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let both = [
        some(report.not_ok, "not ok"),
        some(report.not_run, "not run"),
    ];
    let both: Vec<String> = both.into_iter().flatten().collect();
    if !both.is_empty() {
        let both = both.join(", ");
        text.push_str(&format!(
            ", of which {both}: status and reason are in\n{}/results.csv",
            folder.display()
        ));
    }
    text
}

/// Where the files of a finished folder are.
pub fn what_is_where(folder: &Path) -> String {
    let path = folder.display();
    let mut text = format!(
        "Records: {path}/results.csv, training.csv, summary.csv, table.txt\nCurves:  {path}/plots/\nModels:  {path}/models/\n"
    );
    if folder.join(predictions::FOLDER).is_dir() {
        text.push_str(&format!("Answers: {path}/{}/\n", predictions::FOLDER));
    }
    text
}
