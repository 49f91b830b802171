//! `longhaul collect`: the parts of a run taken together, or what they still lack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::commands::print;
use crate::device;
use crate::exit::{self, CommandError};
use crate::run::collect::{PartRecords, Parts};
use crate::run::command::quote;
use crate::run::error::RunError;
use crate::run::finish::finish;
use crate::run::plan::environment;
use crate::run::session::{interrupt_flag, measured, what_is_where};
use crate::slurm;
use crate::table::columns;

/// `longhaul collect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The folder then is that of a run as any other: its files are those that one
machine would have written, but for times and memory. Models are linked, not
copied, where the disk allows it. Parts stay as they are.

Examples:
  longhaul collect runs/my-sweep
  longhaul collect runs/my-sweep --partial
  longhaul collect runs/my-sweep --out runs/my-sweep-whole")]
pub struct CollectArgs {
    /// Folder of a run in parts: the --out of `longhaul submit` or `run --part`
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Folder for the whole run [default: FOLDER itself]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Take together what there is; what is missing is recorded as not run
    #[arg(long)]
    pub partial: bool,
}

/// Runs the command.
///
/// # Errors
/// Folders that are no run in parts, parts of other runs, files that cannot be written.
pub fn run(args: &CollectArgs) -> Result<u8, CommandError> {
    Ok(collect(args)?)
}

fn collect(args: &CollectArgs) -> Result<u8, RunError> {
    let parts = Parts::read(&args.folder)?;
    let lacking = lacking(&parts);
    if let (Some(lacking), false) = (&lacking, args.partial) {
        let text = format!(
            "{lacking}Nothing was written. What there is: longhaul collect {} --partial\n",
            quote(args.folder.as_os_str())
        );
        return print(&text)
            .map(|()| exit::FAILED)
            .map_err(RunError::Command);
    }
    for note in notes(&parts) {
        tracing::warn!("{note}");
    }
    let interrupt = interrupt_flag()?;
    let mut folder = parts.open_whole(args.out.as_deref())?;
    let (units, targets) = (parts.manifest.units.clone(), parts.manifest.targets.clone());
    let count = parts.parts.len();
    parts.put_into(&mut folder)?;
    let report = finish(&mut folder, (&units, &targets), &interrupt)?;
    let mut text = measured(&report, &folder.path);
    text.push_str(&format!(
        ", of {count} parts.\n{}",
        what_is_where(&folder.path)
    ));
    text.push_str(&lacking.unwrap_or_default());
    print(&text).map_err(RunError::Command)?;
    Ok(match report.not_ok > 0 {
        true => exit::FAILED,
        false => exit::OK,
    })
}

/// What is to be known of parts that make one run.
fn notes(parts: &Parts) -> Vec<String> {
    let processors: Vec<&str> = parts.processors().into_iter().collect();
    let different = (processors.len() > 1).then(|| {
        format!(
            "the parts ran on different processors ({}), whose last digits may differ",
            processors.join("; ")
        )
    });
    different.into_iter().collect()
}

/// Which parts have not measured everything, what becomes of them, and how to go on; `None` where all have.
fn lacking(parts: &Parts) -> Option<String> {
    let count = parts.parts.len();
    let left: Vec<(usize, &PartRecords)> = (1..)
        .zip(&parts.parts)
        .filter(|(_, part)| !part.is_done())
        .collect();
    if left.is_empty() {
        return None;
    }
    let script = script(&parts.run);
    let queue = script.as_deref().and_then(slurm::queue);
    let known = queue.is_some();
    let queue = queue.unwrap_or_default();
    let mut by_state: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, part) in &left {
        let state = queue.get(index).cloned();
        by_state
            .entry(state.unwrap_or_else(|| state_of(part)))
            .or_default()
            .push(*index);
    }
    let mut text = format!("{} of {count} parts are done.\n", count - left.len());
    let rows: Vec<Vec<String>> = by_state
        .iter()
        .map(|(state, parts)| vec![format!("  {state}"), slurm::ranges(parts)])
        .collect();
    text.push_str(&columns(&rows));
    let idle: Vec<usize> = left
        .iter()
        .map(|(index, _)| *index)
        .filter(|index| !queue.contains_key(index))
        .collect();
    if idle.is_empty() {
        return Some(text);
    }
    match script {
        Some(script) => {
            let which = match known {
                true => "Those that are not in the queue",
                false => "Those that are not in the queue any more (see squeue --me)",
            };
            text.push_str(&format!(
                "{which} go on where they stopped by:\n  sbatch --array={} {}\n",
                slurm::ranges(&idle),
                quote(script.as_os_str())
            ));
        }
        None => text.push_str(&format!(
            "Each goes on with the command of the run, --resume and its own --part K/{count}; one was begun by\n  {}\n",
            parts
                .manifest
                .command_here(&environment(device::kind(&parts.manifest.device)))
        )),
    }
    Some(text)
}

/// The batch script of a run's folder, as Slurm knows it.
fn script(run: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(run.join(slurm::SCRIPT)).ok()?;
    path.is_file().then_some(path)
}

/// What becomes of a part that is not in the queue.
fn state_of(part: &PartRecords) -> String {
    if part.processor.is_none() {
        return "not begun".to_owned();
    }
    match part.left.len() == part.planned {
        true => "stopped, nothing measured".to_owned(),
        false => "stopped, not all measured".to_owned(),
    }
}
