//! `longhaul eval`: the saved models of a run, read again at other lengths, without training. Records
//! go into the same folder.

use std::path::Path;

use crate::architecture::ArchSpec;
use crate::catalogue::Catalogue;
use crate::cli::EvalArgs;
use crate::device;
use crate::exit::CommandError;
use crate::run::error::RunError;
use crate::run::finish::recorded;
use crate::run::folder::RunFolder;
use crate::run::lengths::parse_lengths;
use crate::run::manifest::{Manifest, differences};
use crate::run::plan::{Environment, Unit, check_length, environment};
use crate::run::session::{Resources, carry_out, interrupt_flag};
use crate::run::unit::Work;
use crate::worker::models::is_saved;

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
    let manifest = Manifest::read(&args.run).map_err(|error| match error {
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
    let chosen = choose(&manifest.units, args)?;
    for unit in &chosen {
        let task = longhaul_tasks::parse_task(&unit.task_text())?;
        lengths
            .iter()
            .try_for_each(|&length| check_length(task.as_ref(), length))?;
    }
    let time_s = args.time_limit.or(manifest.limits.time_s);
    let memory = (args.memory_limit.as_deref(), None);
    let resources = Resources::new(&args.device, args.jobs, args.threads, time_s, memory)?;
    same_environment(&manifest, resources.devices.kind(), &args.run)?;
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let interrupt = interrupt_flag()?;
    let (mut folder, manifest) = RunFolder::existing(&args.run)?;
    let works = works(&manifest, &chosen, &folder, &lengths, args, &catalogue)?;
    if works.is_empty() {
        tracing::warn!("nothing to evaluate: these lengths have their records already");
    }
    let id = manifest.run_id.as_str();
    let units = (manifest.units.as_slice(), manifest.targets.as_slice());
    carry_out(&mut folder, id, units, works, resources, &interrupt)
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
fn choose(units: &[Unit], args: &EvalArgs) -> Result<Vec<Unit>, RunError> {
    for text in &args.tasks {
        let task = longhaul_tasks::parse_task(text)?;
        if !units
            .iter()
            .any(|unit| is_task(unit, text, &task.options_text()))
        {
            let known = listed(units.iter().map(Unit::task_text));
            return Err(RunError::Input(format!(
                "the run has no task `{text}`; it has {known}"
            )));
        }
    }
    for text in &args.architectures {
        if !units.iter().any(|unit| is_architecture(unit, text)) {
            let names = units.iter().map(|unit| unit.architecture.clone());
            return Err(RunError::Input(format!(
                "the run has no architecture `{text}`; it has {}",
                listed(names)
            )));
        }
    }
    let wanted = |unit: &&Unit| {
        let task = args.tasks.is_empty()
            || args.tasks.iter().any(|text| {
                let options = longhaul_tasks::parse_task(text).map(|task| task.options_text());
                options.is_ok_and(|options| is_task(unit, text, &options))
            });
        let architecture = args.architectures.is_empty()
            || args
                .architectures
                .iter()
                .any(|text| is_architecture(unit, text));
        task && architecture
    };
    Ok(units.iter().filter(wanted).cloned().collect())
}

/// Whether a unit's task is meant: by its name alone, or with exactly these options.
fn is_task(unit: &Unit, text: &str, options: &str) -> bool {
    match text.split_once(':') {
        None => unit.task == text,
        Some((name, _)) => unit.task == name && unit.task_options == options,
    }
}

/// Whether a unit's architecture is meant: by its name, and by every option that is given.
fn is_architecture(unit: &Unit, text: &str) -> bool {
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let own: Vec<&str> = unit.options.split(',').collect();
    unit.architecture == name
        && options
            .split(',')
            .filter(|pair| !pair.is_empty())
            .all(|pair| own.contains(&pair))
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// What is left to evaluate. A unit without a saved model is named and left out.
fn works(
    manifest: &Manifest,
    chosen: &[Unit],
    folder: &RunFolder,
    lengths: &[usize],
    args: &EvalArgs,
    catalogue: &Catalogue,
) -> Result<Vec<Work>, RunError> {
    let mut works = Vec::new();
    for unit in &manifest.units {
        if !chosen.iter().any(|other| other.name == unit.name) {
            continue;
        }
        let recorded = recorded(&folder.rows, unit, args.retry_failed);
        let evaluations: Vec<(usize, u64)> = lengths
            .iter()
            .filter(|length| !recorded.contains(length))
            .map(|&length| (length, args.samples.unwrap_or(unit.samples)))
            .collect();
        if evaluations.is_empty() {
            continue;
        }
        let file = folder.path.join(&unit.model);
        if !is_saved(&file, &unit.identity()) {
            tracing::warn!(
                "{} on {} seed {} has no saved model ({}), so it is left out; `longhaul run ... --resume --retry-failed` trains it again",
                unit.architecture,
                unit.task,
                unit.seed,
                file.display()
            );
            continue;
        }
        let architecture =
            ArchSpec::parse(&unit.architecture_text(), catalogue).map_err(RunError::Command)?;
        if architecture.plugin_sha256 != unit.plugin_sha256 {
            tracing::warn!(
                "{} was built anew since its models were trained; the records name the new one",
                unit.plugin
            );
        }
        works.push(Work {
            identity: unit.identity(),
            train: false,
            evaluations,
            unit: Unit {
                plugin_version: architecture.plugin_version.clone(),
                plugin_sha256: architecture.plugin_sha256.clone(),
                ..unit.clone()
            },
            architecture,
        });
    }
    Ok(works)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::tests::unit;

    #[test]
    fn units_are_chosen_by_name_and_options() {
        let unit = Unit {
            task: "needle".into(),
            task_options: "depth=random,haystack=repeat".into(),
            options: "d_model=64,layers=2,state=8".into(),
            ..unit(1)
        };
        assert!(is_task(&unit, "needle", ""));
        assert!(is_task(
            &unit,
            "needle:haystack=repeat",
            "depth=random,haystack=repeat"
        ));
        assert!(!is_task(
            &unit,
            "needle:haystack=varied",
            "depth=random,haystack=varied"
        ));
        assert!(!is_task(&unit, "parity", ""));
        assert!(is_architecture(&unit, "arch"));
        assert!(is_architecture(&unit, "arch:state=8"));
        assert!(!is_architecture(&unit, "arch:state=16"));
        assert!(!is_architecture(&unit, "other"));
    }
}
