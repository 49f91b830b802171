//! The units of a run that was kept: which are meant, and what they need, as it is here now.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::architecture::ArchSpec;
use crate::catalogue::Catalogue;
use crate::device;
use crate::materials::MaterialArgs;
use crate::run::error::RunError;
use crate::run::manifest::{Manifest, differences};
use crate::run::plan::{Environment, Unit, environment};

/// What describes a run, by its folder.
///
/// # Errors
/// No run there; a `run.toml` that is none.
pub fn manifest_of(run: &Path) -> Result<Manifest, RunError> {
    Manifest::read(run).map_err(|error| match error {
        RunError::Io { .. } => RunError::Input(format!(
            "{} is not the folder of a run ({error}); give the --out folder of a `longhaul run`",
            run.display()
        )),
        other => other,
    })
}

/// Has materials looked for where the command line says.
///
/// # Errors
/// No unit has any; what is there is not what the run names.
pub fn look_elsewhere(
    units: &mut [Unit],
    materials: &MaterialArgs,
    run: &Path,
) -> Result<(), RunError> {
    let mut of_text = units
        .iter_mut()
        .filter(|unit| unit.materials.is_some())
        .peekable();
    if of_text.peek().is_none() {
        return Err(RunError::Input(format!(
            "--tokenizer, --texts and --qa say where that is of which text tasks were made, and {} has none",
            run.display()
        )));
    }
    for unit in of_text {
        let spec = longhaul_tasks::spec_of(&unit.task)?;
        let moved = unit
            .materials
            .as_ref()
            .map(|record| record.moved(spec, materials));
        unit.materials = moved.transpose().map_err(RunError::Input)?;
    }
    Ok(())
}

/// Refuses variables under which a model computes otherwise than its run says. On another kind of device, which
/// the records name, those of the run have no meaning.
///
/// # Errors
/// How they differ.
pub fn same_environment(manifest: &Manifest, kind: &str, run: &Path) -> Result<(), RunError> {
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
        "{} is measured under the variables of its run: {}",
        run.display(),
        differences.join("; ")
    )))
}

/// The units of these tasks and architectures, as `--task` and `--arch` name them; all without them.
///
/// # Errors
/// A task or an architecture that the run does not have.
pub fn choose(
    units: &[Unit],
    tasks: &[String],
    architectures: &[String],
    catalogue: &Catalogue,
) -> Result<Vec<Unit>, RunError> {
    let mut chosen = units.to_vec();
    if !tasks.is_empty() {
        let mut wanted = BTreeSet::new();
        for text in tasks {
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
    if !architectures.is_empty() {
        let mut wanted = BTreeSet::new();
        for text in architectures {
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
///
/// # Errors
/// One that no plugin here has.
pub fn resolved(units: &[Unit], catalogue: &Catalogue) -> Result<Vec<ArchSpec>, RunError> {
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
