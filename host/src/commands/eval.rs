//! `longhaul eval`: the saved models of a run, read again at other lengths, without training. Records
//! go into the same folder.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use longhaul_results::Split;

use crate::architecture::ArchSpec;
use crate::catalogue::Catalogue;
use crate::cli::EvalArgs;
use crate::commands::print;
use crate::device;
use crate::exit::{CommandError, OK};
use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::lengths::parse_lengths;
use crate::run::manifest::{Manifest, differences};
use crate::run::materials::possible;
use crate::run::plan::{Environment, Evaluation, Unit, environment};
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
    let mut manifest = Manifest::read(&args.run).map_err(|error| match error {
        RunError::Io { .. } => RunError::Input(format!(
            "{} is not the folder of a run ({error}); give the --out folder of a `longhaul run`",
            args.run.display()
        )),
        other => other,
    })?;
    if manifest.units.iter().any(|unit| unit.checkpoint.is_some()) {
        return Err(RunError::Input(format!(
            "{} holds evaluations of checkpoints; give `longhaul checkpoint eval` more --lengths",
            args.run.display()
        )));
    }
    if !args.materials.is_none() {
        look_elsewhere(&mut manifest.units, args)?;
    }
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let chosen = choose(&manifest.units, args, &catalogue)?;
    for unit in &chosen {
        let task = unit.make_task()?;
        lengths
            .iter()
            .try_for_each(|&length| possible(task.as_ref(), length))?;
    }
    let time_s = args.time_limit.or(manifest.limits.time_s);
    let memory = (args.memory_limit.as_deref(), None);
    let resources = Resources::new(&args.device, args.jobs, args.threads, time_s, memory)?;
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

/// Has materials looked for where the command line says.
fn look_elsewhere(units: &mut [Unit], args: &EvalArgs) -> Result<(), RunError> {
    let mut of_text = units
        .iter_mut()
        .filter(|unit| unit.materials.is_some())
        .peekable();
    if of_text.peek().is_none() {
        return Err(RunError::Input(format!(
            "--tokenizer, --texts and --qa say where that is of which text tasks were made, and {} has none",
            args.run.display()
        )));
    }
    for unit in of_text {
        let spec = longhaul_tasks::spec_of(&unit.task)?;
        let moved = unit
            .materials
            .as_ref()
            .map(|record| record.moved(spec, &args.materials));
        unit.materials = moved.transpose().map_err(RunError::Input)?;
    }
    Ok(())
}

/// Refuses variables under which a model computes otherwise than its run says. On another kind of device, which
/// the records name, those of the run have no meaning.
fn same_environment(manifest: &Manifest, kind: &str, run: &Path) -> Result<(), RunError> {
    let here = environment(kind);
    let there = if device::kind(&manifest.device) == kind {
        manifest.environment.clone()
    } else {
        Environment::new()
    };
    let differences = differences(&there, &here);
    if differences.is_empty() {
        return Ok(());
    }
    Err(RunError::Input(format!(
        "{} is evaluated under the variables of its run: {}",
        run.display(),
        differences.join("; ")
    )))
}

/// The units that `--task` and `--arch` name; all without them.
fn choose(units: &[Unit], args: &EvalArgs, catalogue: &Catalogue) -> Result<Vec<Unit>, RunError> {
    let mut chosen = units.to_vec();
    if !args.tasks.is_empty() {
        let mut wanted = BTreeSet::new();
        for text in &args.tasks {
            let mut names = BTreeSet::new();
            for unit in units {
                if is_task(unit, text)? {
                    names.insert(unit.name.clone());
                }
            }
            if names.is_empty() {
                let known = listed(units.iter().map(Unit::task_text));
                return Err(RunError::Input(format!(
                    "the run has no task `{text}`; it has {known}"
                )));
            }
            wanted.extend(names);
        }
        chosen.retain(|unit| wanted.contains(&unit.name));
    }
    if !args.architectures.is_empty() {
        let mut wanted = BTreeSet::new();
        for text in &args.architectures {
            let mut names = BTreeSet::new();
            for unit in units {
                if is_architecture(unit, text, catalogue)? {
                    names.insert(unit.name.clone());
                }
            }
            if names.is_empty() {
                let known = listed(units.iter().map(Unit::architecture_text));
                return Err(RunError::Input(format!(
                    "the run has no architecture `{text}`; it has {known}"
                )));
            }
            wanted.extend(names);
        }
        chosen.retain(|unit| wanted.contains(&unit.name));
    }
    Ok(chosen)
}

/// Whether a unit's task is meant: by its name alone, or with exactly these options.
fn is_task(unit: &Unit, text: &str) -> Result<bool, RunError> {
    if unit.task != longhaul_tasks::spec_of(text)?.name {
        return Ok(false);
    }
    let materials = unit.open_materials()?;
    let options = longhaul_tasks::parse_task_of(text, &materials)?.options_text();
    Ok(!text.contains(':') || unit.task_options == options)
}

/// Whether a unit's architecture is meant, as [`ArchSpec::is_meant`] has it. One of another name need not be
/// in any plugin that is here.
fn is_architecture(unit: &Unit, text: &str, catalogue: &Catalogue) -> Result<bool, RunError> {
    let name = text.split(':').next().unwrap_or(text).trim();
    if name.rsplit('/').next() != Some(&unit.architecture) {
        return Ok(false);
    }
    build_of(unit, catalogue)?
        .is_meant(text, catalogue)
        .map_err(RunError::Command)
}

/// A unit's architecture, of the build that trained it where that is here.
fn build_of(unit: &Unit, catalogue: &Catalogue) -> Result<ArchSpec, RunError> {
    ArchSpec::of_build(&unit.architecture_text(), &unit.plugin_sha256, catalogue)
        .map_err(RunError::Command)
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// The architecture of each unit, as the catalogue has it now.
fn resolved(units: &[Unit], catalogue: &Catalogue) -> Result<Vec<ArchSpec>, RunError> {
    let mut known: HashMap<String, ArchSpec> = HashMap::new();
    for unit in units {
        let Entry::Vacant(place) = known.entry(unit.architecture_text()) else {
            continue;
        };
        let architecture = build_of(unit, catalogue)?;
        if architecture.plugin_sha256 != unit.plugin_sha256 {
            tracing::warn!(
                "{} was built anew since its models were trained; the records name the new one",
                unit.plugin
            );
        }
        place.insert(architecture);
    }
    Ok(units
        .iter()
        .map(|unit| known[&unit.architecture_text()].clone())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::tests::unit;

    #[test]
    fn units_are_chosen_by_task_and_its_options() {
        let unit = Unit {
            task: "needle".into(),
            task_options: longhaul_tasks::parse_task("needle").unwrap().options_text(),
            ..unit(1)
        };
        let is = |text| is_task(&unit, text).unwrap();
        assert!(is("needle") && is("needle:haystack=repeat"));
        assert!(!is("needle:haystack=varied") && !is("parity"));
        is_task(&unit, "needle:haystack=none").unwrap_err();
        is_task(&unit, "needles").unwrap_err();
    }
}
