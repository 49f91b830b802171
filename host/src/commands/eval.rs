//! `longhaul eval`: the saved models of a run, read again at other lengths, without training. Records
//! go into the same folder.

use longhaul_results::Split;

use crate::catalogue::Catalogue;
use crate::cli::EvalArgs;
use crate::commands::print;
use crate::exit::{CommandError, OK};
use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::kept::{choose, look_elsewhere, manifest_of, resolved, same_environment};
use crate::run::lengths::parse_lengths;
use crate::run::materials::possible;
use crate::run::plan::{Evaluation, Unit};
use crate::run::preview::preview;
use crate::run::session::{Resources, carry_out, interrupt_flag, works};

/// Runs the command.
///
/// # Errors
/// Anything that keeps it from beginning or its records from being kept.
pub fn run(args: &EvalArgs) -> Result<u8, CommandError> {
    Ok(evaluate(args)?)
}

fn evaluate(args: &EvalArgs) -> Result<u8, RunError> {
    let lengths = parse_lengths(&args.lengths)?;
    if args.samples == Some(0) {
        return Err(RunError::Input(
            "--samples is 0; it is at least 1".to_owned(),
        ));
    }
    let mut manifest = manifest_of(&args.run)?;
    if manifest.units.iter().any(|unit| unit.checkpoint.is_some()) {
        return Err(RunError::Input(format!(
            "{} holds evaluations of checkpoints; give `longhaul checkpoint eval` more --lengths",
            args.run.display()
        )));
    }
    if !args.materials.is_none() {
        look_elsewhere(&mut manifest.units, &args.materials, &args.run)?;
    }
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let chosen = choose(
        &manifest.units,
        &args.tasks,
        &args.architectures,
        &catalogue,
    )?;
    for unit in &chosen {
        let task = unit.make_task()?;
        lengths
            .iter()
            .try_for_each(|&length| possible(task.as_ref(), length))?;
    }
    let limits = (manifest.limits.time_s, None);
    let resources = Resources::new(&args.device, &args.resources, limits)?;
    same_environment(&manifest, resources.devices.kind(), &args.run)?;
    if args.dry_run {
        let units: Vec<Unit> = chosen
            .into_iter()
            .map(|unit| Unit {
                lengths: lengths.clone(),
                samples: args.samples.unwrap_or(unit.samples),
                ..unit
            })
            .collect();
        let text = preview(&units, false, &args.run, &resources);
        return print(&text).map(|()| OK).map_err(RunError::Command);
    }
    let interrupt = interrupt_flag()?;
    let (mut folder, kept) = RunFolder::existing(&args.run)?;
    let architectures = resolved(&chosen, &catalogue)?;
    let wanted = |unit: &Unit| -> Vec<Evaluation> {
        let samples = args.samples.unwrap_or(unit.samples);
        let test = |&length| Evaluation {
            split: Split::Test,
            length,
            samples,
        };
        lengths.iter().map(test).collect()
    };
    let mut works = works(&folder, &chosen, &architectures, args.retry_failed, &wanted);
    for work in &mut works {
        // Nothing is trained here: a model that cannot be read gets a record that says so.
        work.train = false;
        work.unit.plugin_version = work.architecture.plugin_version.clone();
        work.unit.plugin_sha256 = work.architecture.plugin_sha256.clone();
    }
    if works.is_empty() {
        tracing::warn!("nothing to evaluate: these lengths have their records already");
    }
    let id = kept.run_id.as_str();
    let units = (kept.units.as_slice(), kept.targets.as_slice());
    carry_out(&mut folder, id, units, works, resources, &interrupt)
}
