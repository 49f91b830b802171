//! `longhaul run`: a suite and the command line become a plan; the plan is checked and written down,
//! then carried out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use longhaul_tasks::Suite;

use crate::architecture::{ArchSpec, ModelSize};
use crate::catalogue::Catalogue;
use crate::cli::RunArgs;
use crate::commands::print;
use crate::device::Devices;
use crate::exit::{CommandError, OK};
use crate::memory::{self, Purpose};
use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::lengths::{parse_lengths, parse_range};
use crate::run::materials::{Stock, Wanted};
use crate::run::part;
use crate::run::plan::{self, Overrides, Plan, Probes, Unit};
use crate::run::preview::preview;
use crate::run::session::{Resources, carry_out_plan, interrupt_flag};

/// Runs the command.
///
/// # Errors
/// Anything that keeps the run from beginning or its records from being kept.
pub fn run(args: &RunArgs) -> Result<u8, CommandError> {
    Ok(run_plan(args)?)
}

fn run_plan(args: &RunArgs) -> Result<u8, RunError> {
    if args.retry_failed && !args.resume {
        return Err(RunError::Input(
            "--retry-failed goes with --resume: it tries again what an earlier run left".to_owned(),
        ));
    }
    let suite = Suite::load(&args.suite)?;
    let resources = Resources::of_run(args, &suite)?;
    let whole = make_plan(args, &suite, &resources.devices)?;
    let run = out_folder(args);
    let (plan, out) = match args.part {
        None => (whole.clone(), run.clone()),
        Some(part) => (whole.part(part)?, part::folder(&run, part.index)),
    };
    if !args.resume && resources.devices.kind() == "cpu" {
        fits(&plan.units, resources.memory_bytes)?;
    }
    if args.dry_run {
        let text = preview(&plan.units, true, &out, &resources);
        return print(&text).map(|()| OK).map_err(RunError::Command);
    }
    let interrupt = interrupt_flag()?;
    if let Some(part) = args.part {
        part::share(&run, &whole, &resources.manifest(&whole), part.of)?;
    }
    let mut folder = RunFolder::for_plan(&out, &plan, &resources.manifest(&plan), args.resume)?;
    carry_out_plan(&mut folder, &plan, args.retry_failed, resources, &interrupt)
}

/// The whole plan of a command line and its suite.
///
/// # Errors
/// Plugins, materials, architectures, tasks and numbers that cannot be.
pub fn make_plan(args: &RunArgs, suite: &Suite, devices: &Devices) -> Result<Plan, RunError> {
    let overrides = overrides(args)?;
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let wanted = Wanted::new(&args.materials, Some(&suite.materials), None);
    plan_of(
        suite,
        &args.suite,
        &overrides,
        &devices.text(),
        &wanted,
        &catalogue,
    )
}

/// The plan of a suite of this name, with what is said beside it, of these materials and plugins.
///
/// # Errors
/// Materials, architectures, tasks and numbers that cannot be.
pub fn plan_of(
    suite: &Suite,
    name: &str,
    overrides: &Overrides,
    devices: &str,
    wanted: &Wanted,
    catalogue: &Catalogue,
) -> Result<Plan, RunError> {
    let resolve = |text: &str| ArchSpec::parse(text, catalogue).map_err(RunError::Command);
    let stock = Stock::open(wanted).map_err(RunError::Input)?;
    plan::make(suite, name, overrides, devices, &stock, &resolve)
}

/// Where a run's results go: `--out`, or `runs/SUITE`.
pub fn out_folder(args: &RunArgs) -> PathBuf {
    args.out
        .clone()
        .unwrap_or_else(|| default_folder(&args.suite))
}

/// Refuses trainings that no worker's memory can hold, before anything is written.
///
/// # Errors
/// The first of them, with what it needs and what there is.
pub fn fits(units: &[Unit], limit: Option<u64>) -> Result<(), RunError> {
    let mut seen = BTreeSet::new();
    for unit in units {
        let task = unit.task_text();
        let Some(training) = &unit.training else {
            continue;
        };
        let (batch, length) = (training.batch, training.length);
        if !seen.insert((unit.d_model, unit.layers, task.clone(), batch, length)) {
            continue;
        }
        let size = ModelSize {
            vocab: unit.make_task()?.vocab() as u32,
            d_model: unit.d_model,
            layers: unit.layers,
            max_train_length: length as u64,
        };
        let purpose = Purpose::Training { batch, length };
        memory::check(size, None, purpose, limit).map_err(|refusal| {
            RunError::Input(format!("{} on {task}: {refusal}", unit.architecture))
        })?;
    }
    Ok(())
}

fn overrides(args: &RunArgs) -> Result<Overrides, RunError> {
    Ok(Overrides {
        architectures: args.architectures.clone(),
        tasks: args.tasks.clone(),
        lengths: args.lengths.as_deref().map(parse_lengths).transpose()?,
        train_length: args.train_length.as_deref().map(parse_range).transpose()?,
        seeds: args.seeds,
        first_seed: args.first_seed,
        learning_rates: args.learning_rates.clone(),
        train_distributions: args.train_distributions.clone(),
        steps: args.steps,
        batch: args.batch,
        d_model: args.d_model,
        layers: args.layers,
        samples: args.samples,
        probes: Probes::from(&args.probes),
    })
}

/// `runs/<suite>`; of a suite's file, its name without ending.
fn default_folder(suite: &str) -> PathBuf {
    let name = Path::new(suite).file_stem().unwrap_or_default();
    Path::new("runs").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_after_the_suite() {
        assert_eq!(default_folder("quick"), Path::new("runs/quick"));
        assert_eq!(default_folder("suites/mine.toml"), Path::new("runs/mine"));
    }
}
