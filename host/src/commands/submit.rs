//! `longhaul submit`: a suite in parts as an array job of a batch scheduler. The plan is made and checked here, so
//! that what cannot be is refused before anything is queued.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Args, Subcommand};
use longhaul_results::files;
use longhaul_tasks::Suite;

use crate::cli::RunArgs;
use crate::commands::print;
use crate::commands::run::{make_plan, out_folder};
use crate::device::Devices;
use crate::exit::{CommandError, OK};
use crate::number::{self, within};
use crate::run::command::quote;
use crate::run::error::RunError;
use crate::run::folder::refuse_strangers;
use crate::run::lengths::parse_size;
use crate::run::manifest::{self, LimitsRecord, Manifest};
use crate::run::part::{self, divide};
use crate::run::plan::{Plan, Unit, file_word};
use crate::slurm::{self, ArrayJob};

/// Tasks where nobody says how many.
const TASKS: usize = 100;

/// `longhaul submit`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  longhaul submit slurm my-suite.toml --out runs/my-sweep --tasks 100
  longhaul submit slurm my-suite.toml --time 8:00:00 --gpus-per-task 1")]
pub struct SubmitArgs {
    /// To what
    #[command(subcommand)]
    pub scheduler: Scheduler,
}

/// Batch schedulers.
#[derive(Debug, Clone, Subcommand)]
pub enum Scheduler {
    /// Slurm: an array job, a part of the suite a task
    Slurm(Box<SlurmArgs>),
}

/// `longhaul submit slurm`.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("part", |arg| arg.hide(true)),
    mut_arg("resume", |arg| arg.hide(true)),
    mut_arg("retry_failed", |arg| arg.help("A task that is begun again tries again what did not end well")),
    after_help = "\
Writes job.sh (to read, edit and hand in by sbatch yourself), run.toml and the
folders parts/ and logs/ into the folder, which all nodes must see, and submits.
Tasks take disjoint parts of the plan. One that is requeued goes on where it was.

Examples:
  longhaul submit slurm my-suite.toml --out runs/my-sweep --time 8:00:00
  longhaul submit slurm my-suite.toml --gpus-per-task 1 --sbatch=--partition=gpu
  longhaul submit slurm smoke --tasks 2 --no-submit --out runs/smoke-parts
  longhaul collect runs/my-sweep"
)]
pub struct SlurmArgs {
    /// What to run
    #[command(flatten)]
    pub run: RunArgs,
    /// Tasks, each a part of the plan [default: one a training, at most 100]
    #[arg(long = "tasks", value_name = "N", help_heading = "Slurm")]
    pub count: Option<usize>,
    /// Longest time of a task as sbatch takes it; a minute before it the task ends in order
    #[arg(long, value_name = "TIME", help_heading = "Slurm")]
    pub time: Option<String>,
    /// Cards of a task; sets --device, --jobs and --threads too
    #[arg(long, value_name = "N", help_heading = "Slurm", value_parser = within(number::JOBS))]
    pub gpus_per_task: Option<usize>,
    /// Processors of a task; sets --jobs and --threads too [default: 1, or one a card]
    #[arg(long, value_name = "N", help_heading = "Slurm", value_parser = within(number::JOBS))]
    pub cpus_per_task: Option<usize>,
    /// Any other option of sbatch, such as --sbatch=--partition=gpu; may be given several times
    #[arg(
        long,
        value_name = "OPTION",
        help_heading = "Slurm",
        allow_hyphen_values = true
    )]
    pub sbatch: Vec<String>,
    /// Write everything and do not submit
    #[arg(long, help_heading = "Slurm")]
    pub no_submit: bool,
}

/// Options of `submit` that the tasks' command does not have, or has with another value.
const OWN: [&str; 9] = [
    "--tasks",
    "--time",
    "--gpus-per-task",
    "--cpus-per-task",
    "--sbatch",
    "--out",
    "--device",
    "--jobs",
    "--threads",
];

/// Runs the command.
///
/// # Errors
/// A plan that cannot be, a folder that holds something, no Slurm, Slurm's refusal.
pub fn run(args: &SubmitArgs) -> Result<u8, CommandError> {
    let Scheduler::Slurm(args) = &args.scheduler;
    Ok(submit(args)?)
}

fn submit(args: &SlurmArgs) -> Result<u8, RunError> {
    let refuse = |words: &str| Err(RunError::Input(words.to_owned()));
    if args.run.resume || args.run.part.is_some() {
        return refuse(
            "--resume and --part are the tasks' own: `longhaul collect FOLDER` says which parts of a folder are not done, and how they go on",
        );
    }
    let share = Share::of(args)?;
    let suite = Suite::load(&args.run.suite)?;
    let plan = make_plan(&args.run, &suite, &share.devices)?;
    let tasks = args.count.unwrap_or(plan.units.len().min(TASKS));
    part::check_count(&plan.units, tasks)?;
    let out = out_folder(&args.run);
    let job = job(args, &plan, tasks, &share, &out)?;
    let script = job.script().map_err(RunError::Input)?;
    if args.run.dry_run {
        let text = format!(
            "{script}\n{}Nothing was written or submitted.\n",
            words(&plan, tasks)
        );
        return print(&text).map(|()| OK).map_err(RunError::Command);
    }
    if !args.no_submit {
        slurm::require_sbatch()
            .map_err(|words| RunError::Command(CommandError::environment(words)))?;
    }
    refuse_submitted(&out, &plan)?;
    let limits = LimitsRecord {
        time_s: args.run.resources.time_limit.or(suite.limits.time_s),
        memory_bytes: match &args.run.resources.memory_limit {
            Some(text) => Some(parse_size(text)?),
            None => suite.limits.memory_bytes,
        },
    };
    let manifest = Manifest::new(&plan, share.jobs, share.threads, limits);
    let there = out.exists();
    write(&out, &plan, &manifest, tasks, &script)?;
    let path = out.join(slurm::SCRIPT);
    let path = std::path::absolute(&path).map_err(RunError::io("find", &path))?;
    let mut text = words(&plan, tasks);
    if args.no_submit {
        text.push_str(&format!(
            "Submit it with:\n  sbatch {}\n",
            quote(path.as_os_str())
        ));
    } else {
        let number = slurm::sbatch(&path).map_err(|words| {
            take_back(&out, there);
            RunError::Command(CommandError::environment(words))
        })?;
        text.push_str(&format!(
            "Submitted as job {number}; it stands in {}.\n",
            path.display()
        ));
    }
    text.push_str(&format!(
        "When it is over, and to see what is left:\n  longhaul collect {}\n",
        quote(out.as_os_str())
    ));
    print(&text).map(|()| OK).map_err(RunError::Command)
}

/// What of a node a task takes.
struct Share {
    devices: Devices,
    jobs: usize,
    threads: u32,
    cpus: usize,
}

impl Share {
    /// What is given counts; else a worker a card or a processor, and a thread a worker.
    fn of(args: &SlurmArgs) -> Result<Self, RunError> {
        let devices = match args.gpus_per_task {
            Some(cards) if args.run.device == "cpu" => {
                let names: Vec<String> = (0..cards).map(|card| format!("cuda:{card}")).collect();
                names.join(",")
            }
            _ => args.run.device.clone(),
        };
        let devices = Devices::parse(&devices).map_err(RunError::Input)?;
        let threads = args.run.resources.threads;
        let jobs = args
            .run
            .resources
            .jobs
            .unwrap_or_else(|| match devices.kind() {
                "cpu" => args.cpus_per_task.unwrap_or(1) / threads.unwrap_or(1) as usize,
                _ => devices.names().len(),
            });
        let jobs = jobs.max(1);
        let own = args.cpus_per_task.unwrap_or(jobs) / jobs;
        let threads = threads.unwrap_or(own.max(1) as u32);
        Ok(Self {
            cpus: args.cpus_per_task.unwrap_or(jobs * threads as usize),
            devices,
            jobs,
            threads,
        })
    }
}

/// The array job of a command line.
fn job(
    args: &SlurmArgs,
    plan: &Plan,
    tasks: usize,
    share: &Share,
    out: &Path,
) -> Result<ArrayJob, RunError> {
    let here = std::env::current_dir().map_err(RunError::io("find", Path::new(".")))?;
    let program = std::env::current_exe().map_err(RunError::io("find", Path::new("longhaul")))?;
    let folder = std::path::absolute(out).map_err(RunError::io("find", out))?;
    let mut options = vec![
        "--ntasks=1".to_owned(),
        format!("--cpus-per-task={}", share.cpus),
    ];
    options.extend(
        args.gpus_per_task
            .map(|cards| format!("--gpus-per-task={cards}")),
    );
    if let Some(time) = &args.time {
        options.push(format!("--time={time}"));
        options.push("--signal=B:TERM@60".to_owned());
    }
    options.extend(args.sbatch.iter().cloned());
    let mut words: Vec<OsString> = vec!["--resume".into(), "--out".into(), out.into()];
    for (name, value) in [
        ("--device", share.devices.text()),
        ("--jobs", share.jobs.to_string()),
        ("--threads", share.threads.to_string()),
    ] {
        words.extend([name.into(), value.into()]);
    }
    words.extend(run_words(std::env::args_os().skip(1)));
    let plugins = std::env::var_os("LONGHAUL_PLUGIN_PATH").filter(|path| !path.is_empty());
    let mut variables: Vec<(String, OsString)> = plan
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), value.into()))
        .collect();
    variables.extend(plugins.map(|path| ("LONGHAUL_PLUGIN_PATH".to_owned(), path)));
    Ok(ArrayJob {
        about: about(plan, tasks),
        name: format!("longhaul-{}", suite_word(&plan.suite)),
        tasks,
        options,
        folder: folder.into(),
        here: here.into(),
        variables,
        program: program.into(),
        words,
    })
}

fn about(plan: &Plan, tasks: usize) -> Vec<String> {
    vec![
        format!(
            "Written by longhaul submit: {} trainings in {tasks} parts. Edit it and hand it in by",
            plan.units.len()
        ),
        "sbatch at will, but leave the number of tasks, which divides the plan. A task that"
            .to_owned(),
        "was stopped goes on where it was: sbatch --array=3,7-9 begins these again.".to_owned(),
    ]
}

fn suite_word(suite: &str) -> String {
    let name = Path::new(suite).file_stem().unwrap_or_default();
    file_word(&name.to_string_lossy())
}

/// The words of this command line that are `longhaul run`'s too.
fn run_words(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut names = ["submit", "slurm"].into_iter().peekable();
    let mut words = words;
    while let Some(word) = words.next() {
        if names.peek().is_some_and(|name| word == OsStr::new(name)) {
            names.next();
        } else if OWN.iter().any(|own| word == OsStr::new(own)) {
            words.next();
        } else if !is_own(&word) {
            kept.push(word);
        }
    }
    kept
}

/// Whether a word is a flag of `submit`, or one of its options with its value.
fn is_own(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    let with_value = |own: &&str| {
        bytes
            .strip_prefix(own.as_bytes())
            .is_some_and(|rest| rest.starts_with(b"="))
    };
    bytes == b"--no-submit" || bytes == b"--dry-run" || OWN.iter().any(with_value)
}

/// How the plan is divided, in words.
fn words(plan: &Plan, tasks: usize) -> String {
    let work =
        |places: &Vec<usize>| -> f64 { places.iter().map(|&at| Unit::work(&plan.units[at])).sum() };
    let parts = divide(&plan.units, tasks);
    let sizes = || parts.iter().map(Vec::len);
    let (fewest, most_units) = (sizes().min(), sizes().max());
    let (fewest, most_units) = (fewest.unwrap_or_default(), most_units.unwrap_or_default());
    let each = match fewest == most_units {
        true => fewest.to_string(),
        false => format!("{fewest} to {most_units}"),
    };
    let most = parts.iter().map(work).fold(0.0, f64::max);
    let mean = parts.iter().map(work).sum::<f64>() / tasks as f64;
    format!(
        "{} trainings with their evaluations in {tasks} parts, {each} each;\nthe largest has {:.2} times the mean work.\n",
        plan.units.len(),
        most / mean
    )
}

/// Refuses a folder that holds anything.
fn refuse_submitted(out: &Path, plan: &Plan) -> Result<(), RunError> {
    if out.join(manifest::FILE).symlink_metadata().is_err() {
        return match out.exists() {
            true => refuse_strangers(out),
            false => Ok(()),
        };
    }
    let there = Manifest::read(out)?;
    let (folder, id) = (out.display(), &there.run_id);
    Err(RunError::Input(
        match (there.difference(plan), there.parts) {
            (Some(difference), _) => format!(
                "{folder} holds another run ({id}): {difference}. Give another folder with --out"
            ),
            (None, Some(_)) => format!(
                "{folder} was submitted already, or written to be ({id}). `longhaul collect {}` says what is done, and by which sbatch the rest goes on",
                quote(out.as_os_str())
            ),
            (None, None) => format!(
                "{folder} already holds this run ({id}), not in parts. Give another folder with --out"
            ),
        },
    ))
}

fn write(
    out: &Path,
    plan: &Plan,
    manifest: &Manifest,
    tasks: usize,
    script: &str,
) -> Result<(), RunError> {
    part::share(out, plan, manifest, tasks)?;
    for folder in [part::FOLDER, slurm::LOGS].map(|name| out.join(name)) {
        files::make_folder(&folder).map_err(RunError::io("make the folder", &folder))?;
    }
    let path = out.join(slurm::SCRIPT);
    files::write_whole(&path, script.as_bytes()).map_err(RunError::io("write", &path))
}

/// Removes what was written for a job that Slurm refused, so that the command can be given again.
fn take_back(out: &Path, there: bool) {
    for file in [manifest::FILE, slurm::SCRIPT] {
        let _ = std::fs::remove_file(out.join(file));
    }
    for folder in [part::FOLDER, slurm::LOGS] {
        let _ = std::fs::remove_dir(out.join(folder));
    }
    if !there {
        let _ = std::fs::remove_dir(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_get_the_options_of_run() {
        let words = |line: &str| {
            let kept = run_words(line.split_whitespace().map(OsString::from));
            let kept: Vec<String> = kept
                .iter()
                .map(|word| word.to_string_lossy().into())
                .collect();
            kept.join(" ")
        };
        assert_eq!(
            words(
                "-v submit slurm quick --tasks 4 --lr 1e-3 --sbatch --partition=gpu --sbatch=--qos=x --out a --no-submit --device=cuda --seeds 3 --time 1:00"
            ),
            "-v quick --lr 1e-3 --seeds 3"
        );
        // A suite may be called as the scheduler is.
        assert_eq!(words("submit slurm slurm --jobs 3"), "slurm");
        assert_eq!(words("submit slurm x --retry-failed"), "x --retry-failed");
        assert_eq!(words("submit slurm --time-limit 9 x"), "--time-limit 9 x");
    }
}
