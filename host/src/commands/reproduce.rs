//! `longhaul reproduce`: what a run's `run.toml` describes is carried out again in another folder, and its rows are
//! held against those that were kept.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use longhaul_results::{
    Cell, Measurement, agreements, csv_text, files, render_reproduction, reproduced,
};

use crate::architecture::ArchSpec;
use crate::catalogue::Catalogue;
use crate::cli::{PluginArgs, ResourceArgs};
use crate::commands::{print, read_records};
use crate::device;
use crate::exit::{self, CommandError};
use crate::materials::MaterialArgs;
use crate::number::{self, within};
use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::kept::{choose, look_elsewhere, manifest_of, resolved, same_environment};
use crate::run::machine::Machine;
use crate::run::manifest::{self, Manifest};
use crate::run::plan::{Plan, Unit, environment, run_id};
use crate::run::preview::preview;
use crate::run::session::{Resources, interrupt_flag, measure, works};
use crate::table::{width, wrap};

/// The file of verdicts in the new run's folder.
const FILE: &str = "reproduction.csv";

/// `longhaul reproduce`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Trains and measures again what the run's run.toml describes, with the plugins
that are here now, found by name, into a folder of its own, and says of each row
whether it is the same to the bit, agrees within the intervals, or does not.
reproduction.csv there has every row. The kept run is only read.
Exit code 0: every row is identical or agrees; 1: some do not.

Examples:
  longhaul reproduce runs/quick
  longhaul reproduce runs/quick --task induction --arch lstm --max-length 256 \\
      --out runs/a-part")]
pub struct ReproduceArgs {
    /// Folder of a run, or its run.toml with results.csv beside it
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Folder of the new run [default: RUN-reproduced, in the folder runs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only this task of the run; may be given several times
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,
    /// Only this architecture of the run; may be given several times
    #[arg(long = "arch", value_name = "ARCH")]
    pub architectures: Vec<String>,
    /// Only lengths up to this many tokens
    #[arg(long, value_name = "N", value_parser = within(number::WHOLE_LENGTH))]
    pub max_length: Option<usize>,
    /// Device: cpu, cuda:0, or several cards [default: the run's]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// What workers may take
    #[command(flatten)]
    pub resources: ResourceArgs,
    /// Go on with one that was stopped
    #[arg(long)]
    pub resume: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where that is now of which text tasks were made; its content is the same
    #[command(flatten)]
    pub materials: MaterialArgs,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// Carries a run out again and prints what was found.
///
/// # Errors
/// A run that cannot be read or carried out again; files that cannot be written.
pub fn run(args: &ReproduceArgs) -> Result<u8, CommandError> {
    let of_file = args
        .run
        .file_name()
        .is_some_and(|name| name == manifest::FILE);
    let parent = args.run.parent().filter(|_| of_file);
    let source = match parent {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => &args.run,
    };
    let kept = manifest_of(source)?;
    let (rows, torn) = read_records(source)?;
    if let Some(torn) = torn {
        tracing::warn!("{torn}");
    }
    let out = args.out.clone().unwrap_or_else(|| default_folder(source));
    let same = |path: &Path| path.canonicalize().ok();
    if same(&out).is_some_and(|out| Some(out) == same(source)) {
        return Err(CommandError::usage(format!(
            "{} is the run itself, which is only read. Give another folder with --out",
            out.display()
        )));
    }
    Ok(reproduce(args, source, &kept, rows, &out)?)
}

fn reproduce(
    args: &ReproduceArgs,
    source: &Path,
    kept: &Manifest,
    rows: Vec<Measurement>,
    out: &Path,
) -> Result<u8, RunError> {
    let mut units = kept.units.clone();
    refuse_checkpoints(&units, kept, source)?;
    if !args.materials.is_none() {
        look_elsewhere(&mut units, &args.materials, source)?;
    }
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let mut chosen = choose(&units, &args.tasks, &args.architectures, &catalogue)?;
    if let Some(most) = args.max_length {
        chosen
            .iter_mut()
            .for_each(|unit| unit.lengths.retain(|&length| length <= most));
        chosen.retain(|unit| !unit.lengths.is_empty());
    }
    if chosen.is_empty() {
        return Err(RunError::Input(format!(
            "{} has no measurement at so few tokens; give a larger --max-length",
            source.display()
        )));
    }
    let device = args.device.as_deref().unwrap_or(&kept.device);
    let resources = Resources::new(device, &args.resources, (kept.limits.time_s, None))?;
    same_environment(kept, resources.devices.kind(), source)?;
    let architectures = resolved(&chosen, &catalogue)?;
    let plan = plan(kept, &chosen, architectures, &resources);
    if args.dry_run {
        let text = preview(&plan.units, true, out, &resources);
        return print(&text).map(|()| exit::OK).map_err(RunError::Command);
    }
    let manifest = resources.manifest(&plan);
    let interrupt = interrupt_flag()?;
    let mut folder = RunFolder::for_plan(out, &plan, &manifest, args.resume)?;
    let works = works(
        &folder,
        &plan.units,
        &plan.architectures,
        false,
        &Unit::evaluations,
    );
    let planned = (plan.units.as_slice(), plan.targets.as_slice());
    measure(
        &mut folder,
        &plan.run_id,
        planned,
        works,
        resources,
        &interrupt,
    )?;
    let differences = conditions(kept, &manifest);
    conclude(&chosen, &plan.units, rows, out, &differences)
}

/// Refuses what is not trained here.
fn refuse_checkpoints(units: &[Unit], kept: &Manifest, source: &Path) -> Result<(), RunError> {
    if units.iter().all(|unit| unit.checkpoint.is_none()) {
        return Ok(());
    }
    Err(RunError::Input(format!(
        "{} holds evaluations of checkpoints, which are found by their paths. Measure them again by the run's own \
         command, with another --out, and hold both by `longhaul compare`:\n  {}",
        source.display(),
        kept.command_here(&environment(device::kind(&kept.device)))
    )))
}

/// The plan of the chosen units with the plugins that are here.
fn plan(
    kept: &Manifest,
    chosen: &[Unit],
    architectures: Vec<ArchSpec>,
    resources: &Resources,
) -> Plan {
    let here = |(unit, architecture): (&Unit, &ArchSpec)| {
        let mut unit = Unit {
            plugin_version: architecture.plugin_version.clone(),
            plugin_sha256: architecture.plugin_sha256.clone(),
            ..unit.clone()
        };
        // A name ends with the beginning of its unit's id.
        if let Some((words, _)) = unit.name.rsplit_once('-') {
            unit.name = format!("{words}-{}", &unit.id()[..9]);
        }
        unit
    };
    let units: Vec<Unit> = chosen.iter().zip(&architectures).map(here).collect();
    let environment = environment(resources.devices.kind());
    let whole = units.len() == kept.units.len()
        && units
            .iter()
            .zip(&kept.units)
            .all(|(one, other)| one.lengths == other.lengths);
    Plan {
        run_id: run_id(resources.devices.kind(), &environment, &units),
        suite: kept.suite.clone(),
        device: resources.devices.text(),
        environment,
        units,
        architectures,
        targets: kept.targets.iter().filter(|_| whole).cloned().collect(),
        part: None,
    }
}

/// Under which conditions both were measured, in words: plugins by their files' hashes, versions, machine.
fn conditions(kept: &Manifest, here: &Manifest) -> Vec<String> {
    let start = |hash: &str| hash.chars().take(12).collect::<String>();
    let mut said = Vec::new();
    for plugin in &here.plugins {
        let (name, hash) = (&plugin.name, start(&plugin.sha256));
        let there = kept.plugins.iter().filter(|other| other.name == *name);
        let hashes: Vec<&str> = there.map(|other| other.sha256.as_str()).collect();
        said.push(if hashes.contains(&plugin.sha256.as_str()) {
            format!("{name} {}: the same file ({hash})", plugin.version)
        } else {
            let hashes: Vec<String> = hashes.into_iter().map(start).collect();
            format!(
                "{name}: another build ({} kept, {hash} here)",
                hashes.join(" and ")
            )
        });
    }
    let parts = |machine: &Machine| format!("{} on {}", machine.cpu, machine.os);
    for (what, there, now) in [
        ("device", kept.device.clone(), here.device.clone()),
        (
            "longhaul",
            kept.versions.longhaul.clone(),
            here.versions.longhaul.clone(),
        ),
        ("machine", parts(&kept.machine), parts(&here.machine)),
    ] {
        if there != now {
            said.push(format!("{what}: {there} kept, {now} here"));
        }
    }
    said
}

/// Holds the rows of both runs against each other, writes every verdict and prints them.
fn conclude(
    chosen: &[Unit],
    again: &[Unit],
    rows: Vec<Measurement>,
    out: &Path,
    conditions: &[String],
) -> Result<u8, RunError> {
    let units = chosen.iter().zip(again);
    let ids: Vec<(String, String)> = units.map(|(one, other)| (one.id(), other.id())).collect();
    let cells: HashSet<Cell> = chosen.iter().flat_map(Unit::cells).collect();
    let planned = rows.into_iter().filter(|row| cells.contains(&row.cell()));
    let (new, _) = read_records(out).map_err(RunError::Command)?;
    let found = reproduced(&ids, planned.collect(), new);
    let path = out.join(FILE);
    files::write_whole(&path, csv_text(&found).as_bytes()).map_err(RunError::io("write", &path))?;
    let lines = conditions.iter().flat_map(|said| wrap(said, width()));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    text.push_str("\n\n");
    text.push_str(&render_reproduction(&found, width()));
    let [identical, agree, differ, missing] = agreements(&found);
    let verdict = match (agree, differ + missing) {
        (0, 0) => "Reproduced to the bit".to_owned(),
        (_, 0) => {
            format!("Reproduced: {identical} rows to the bit, {agree} within their intervals")
        }
        (_, wrong) => format!("Not reproduced: {wrong} of {} rows", found.len()),
    };
    text.push_str(&format!("{verdict}.\nEvery row: {}\n", path.display()));
    print(&text).map_err(RunError::Command)?;
    Ok(if differ + missing == 0 {
        exit::OK
    } else {
        exit::FAILED
    })
}

/// `runs/NAME-reproduced`.
fn default_folder(source: &Path) -> PathBuf {
    let name = source.canonicalize().ok();
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .unwrap_or_default();
    let mut name = name.to_owned();
    name.push("-reproduced");
    Path::new("runs").join(name)
}
