//! `run.toml`: the plan, the versions, the plugins, the machine and the command. Written once, before
//! work begins; `--resume` and `eval` go by it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use longhaul_plugin_api::variables;
use longhaul_results::files;
use longhaul_tasks::{TaskError, recorded_task};
use serde::{Deserialize, Serialize};

use crate::device;
use crate::run::command::{by_this_program, quote};
use crate::run::error::RunError;
use crate::run::machine::Machine;
use crate::run::part::Part;
use crate::run::plan::{Environment, Plan, Training, Unit, run_id};
use crate::run::targets::Target;

/// The file's name in a run folder.
pub const FILE: &str = "run.toml";
/// Most bytes of it that are read: a million units.
const MOST: u64 = 1 << 30;

/// What stands in `run.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Hash of the plan; of a part, that of the whole plan.
    pub run_id: String,
    /// Which part of the plan this is, of a folder of `parts/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// How many parts the plan is carried out in, of the folder that has `parts/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
    /// The suite's name or path.
    pub suite: String,
    /// Devices.
    pub device: String,
    /// The command line.
    pub command: String,
    /// Workers at the same time.
    pub jobs: usize,
    /// CPU threads a worker.
    pub threads: u32,
    /// Limits of a unit.
    pub limits: LimitsRecord,
    /// Variables that change what is computed, such as `LONGHAUL_PRODUCTS`.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// Versions.
    pub versions: Versions,
    /// The machine.
    pub machine: Machine,
    /// The plugins.
    #[serde(rename = "plugin")]
    pub plugins: Vec<PluginRecord>,
    /// The trainings.
    #[serde(rename = "unit")]
    pub units: Vec<Unit>,
    /// Published figures to hold the results against.
    #[serde(default, rename = "target", skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
}

/// Limits of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// Seconds of a worker's own time, where they are limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_s: Option<u64>,
    /// Bytes of resident memory.
    pub memory_bytes: Option<u64>,
}

/// Versions of what ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// The host.
    pub longhaul: String,
    /// The ABI.
    pub plugin_api: String,
    /// The columns of the tables beside it ([`longhaul_results::schema`]).
    #[serde(default = "first_schema")]
    pub schema: u32,
}

/// Runs from before it was written down have the first one.
fn first_schema() -> u32 {
    1
}

/// A plugin's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PluginRecord {
    /// The library's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Hash of its file.
    pub sha256: String,
    /// Where it was; below the folder the command ran in, from there.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
}

impl Manifest {
    /// What is to be written of a plan.
    pub fn new(plan: &Plan, jobs: usize, threads: u32, limits: LimitsRecord) -> Self {
        let mut plugins = Vec::<PluginRecord>::new();
        for found in &plan.architectures {
            let path = below_here(&found.library);
            if !plugins.iter().any(|plugin| plugin.path == path) {
                plugins.push(PluginRecord {
                    name: found.plugin.clone(),
                    version: found.plugin_version.clone(),
                    sha256: found.plugin_sha256.clone(),
                    path,
                });
            }
        }
        Self {
            run_id: plan.run_id.clone(),
            part: plan.part,
            parts: None,
            suite: plan.suite.clone(),
            device: plan.device.clone(),
            command: crate::run::command::this_command(),
            jobs,
            threads,
            limits,
            environment: plan.environment.clone(),
            versions: Versions {
                longhaul: env!("CARGO_PKG_VERSION").to_owned(),
                plugin_api: longhaul_plugin_api::abi::API_VERSION.to_owned(),
                schema: longhaul_results::schema::VERSION,
            },
            machine: Machine::here(),
            plugins,
            units: plan.units.clone(),
            targets: plan.targets.clone(),
        }
    }

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// No run there; a file that is not one.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(FILE);
        let bytes = files::read(&path, MOST).map_err(RunError::io("read", &path))?;
        let refuse = |reason: &str| {
            RunError::Input(format!(
                "{} is not the file of a run of this version: {}",
                path.display(),
                crate::text::line(reason)
            ))
        };
        let text = String::from_utf8(bytes).map_err(|error| refuse(&error.to_string()))?;
        let manifest: Self = toml::from_str(&text).map_err(|error| refuse(error.message()))?;
        manifest.check().map_err(|reason| refuse(&reason))?;
        Ok(manifest)
    }

    /// Refuses what no plan has: names that are not file names or stand twice, and an id that is not its
    /// plan's. The id of a part is its whole plan's, which [`crate::run::collect`] holds it against.
    fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for unit in &self.units {
            let name = unit.name.as_str();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty()
                || name.len() > 200
                || name.starts_with('.')
                || !name.chars().all(plain)
            {
                return Err(format!("`{name}` is not the name of a unit"));
            }
            if !names.insert(name) {
                return Err(format!("two units are named `{name}`"));
            }
            check_task(unit)?;
        }
        let id = run_id(device::kind(&self.device), &self.environment, &self.units);
        if id != self.run_id && self.part.is_none() {
            return Err(format!(
                "its id is {}, and its plan's is {id}: it was changed by hand",
                self.run_id
            ));
        }
        Ok(())
    }

    /// Writes the manifest, whole or not at all.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn write(&self, folder: &Path) -> Result<(), RunError> {
        let path = folder.join(FILE);
        files::write_whole(&path, self.text().as_bytes()).map_err(RunError::io("write", &path))
    }

    /// What stands in the file.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("plain data serialises")
    }

    /// Whether anything is looked at beside answers, for `probes.csv`.
    pub fn looks_at_more(&self) -> bool {
        self.units.iter().any(|unit| !unit.probes.is_none())
    }

    /// Its command for this program, under its own variables where others are set here. The file may be
    /// another person's: what is not one command is not repeated.
    pub fn command_here(&self, here: &Environment) -> String {
        let Some(command) = by_this_program(&self.command) else {
            return "(its run.toml holds no command that Longhaul wrote)".to_owned();
        };
        let unset = here
            .keys()
            .filter(|name| !self.environment.contains_key(*name));
        let unset: String = unset.map(|name| format!("-u {name} ")).collect();
        let set = self.environment.iter().filter(|(name, value)| {
            variables::ALL.contains(&name.as_str()) && here.get(*name) != Some(value)
        });
        let set: String = set
            .map(|(name, value)| format!("{name}={} ", quote(value.as_ref())))
            .collect();
        let env = if unset.is_empty() { "" } else { "env " };
        format!("{env}{unset}{set}{command}")
    }

    /// In which way another plan differs from this one; `None` if it does not.
    pub fn difference(&self, plan: &Plan) -> Option<String> {
        if self.run_id == plan.run_id
            && self.part == plan.part
            && deciding(&self.units) == deciding(&plan.units)
        {
            return None;
        }
        if self.part != plan.part {
            let words = |part: Option<Part>| {
                part.map_or_else(|| "a whole plan".to_owned(), |part| format!("part {part}"))
            };
            let (there, here) = (words(self.part), words(plan.part));
            return Some(format!("it is {there} there and {here} here"));
        }
        let mut found = Vec::new();
        let (there, here) = (device::kind(&self.device), device::kind(&plan.device));
        if there != here {
            found.push(format!("device is {there} there and {here} here"));
        } else {
            found = differences(&self.environment, &plan.environment);
        }
        let (there, here) = (counts(&self.units), counts(&plan.units));
        for (what, there, here) in there.iter().zip(&here).map(|(a, b)| (a.0, &a.1, &b.1)) {
            if there != here {
                found.push(format!(
                    "{what}: {} there and {} here",
                    there.join(" "),
                    here.join(" ")
                ));
            }
        }
        if found.is_empty() {
            let pairs = self.units.iter().zip(&plan.units);
            let fields = pairs.flat_map(|(there, here)| field_differences(there, here));
            let mut seen = BTreeMap::new();
            for (field, words) in fields {
                seen.entry(field).or_insert(words);
            }
            found.extend(seen.into_values());
        }
        if found.is_empty() {
            found.push(format!(
                "its id is {} there and {} here",
                self.run_id, plan.run_id
            ));
        }
        found.truncate(4);
        Some(found.join("; "))
    }
}

/// Units without what decides nothing.
pub fn deciding(units: &[Unit]) -> Vec<Unit> {
    units.iter().map(Unit::deciding).collect()
}

/// Refuses a task that is not there, or of another version. What a text task is made of is opened by those who
/// need it: reading a manifest opens no file that it names.
fn check_task(unit: &Unit) -> Result<(), String> {
    let words = |error: TaskError| error.to_string();
    if unit.materials.is_none() {
        return recorded_task(&unit.task, &unit.task_options)
            .map(drop)
            .map_err(words);
    }
    let version = format!(
        "version={}",
        longhaul_tasks::spec_of(&unit.task).map_err(words)?.version
    );
    if unit.task_options.split(',').any(|option| option == version) {
        return Ok(());
    }
    Err(format!(
        "task `{}` is of another version than {version}",
        unit.task
    ))
}

/// In which variables two environments differ, with words.
pub fn differences(there: &Environment, here: &Environment) -> Vec<String> {
    let names: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let words = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
    names
        .into_iter()
        .map(|name| (name, there.get(name), here.get(name)))
        .filter(|(_, there, here)| there != here)
        .map(|(name, there, here)| {
            format!("{name} is {} there and {} here", words(there), words(here))
        })
        .collect()
}

/// Every architecture, task, seed, learning rate and distribution of training lengths of some units, for comparison.
fn counts(units: &[Unit]) -> [(&'static str, Vec<String>); 5] {
    let of = |get: &dyn Fn(&Unit) -> String| {
        let mut seen = HashSet::new();
        let mut all: Vec<String> = units.iter().map(get).collect();
        all.retain(|value| seen.insert(value.clone()));
        all
    };
    let trained = |unit: &Unit, words: fn(&Training) -> String| {
        let words = unit.training.as_ref().map(words);
        words.unwrap_or_else(|| "none".to_owned())
    };
    let rate = |unit: &Unit| trained(unit, |training| training.learning_rate.to_string());
    let drawn = |unit: &Unit| trained(unit, |training| training.distribution().to_string());
    [
        (
            "architectures",
            of(&|unit| format!("{}:{}", unit.architecture, unit.options)),
        ),
        ("tasks", of(&Unit::task_text)),
        ("seeds", of(&|unit| unit.seed.to_string())),
        ("learning rates", of(&rate)),
        ("training lengths", of(&drawn)),
    ]
}

/// Fields in which two units differ, with words.
fn field_differences(there: &Unit, here: &Unit) -> Vec<(String, String)> {
    let fields = |unit: &Unit| {
        let mut fields = BTreeMap::new();
        flatten(
            &serde_json::to_value(unit.deciding()).expect("plain data serialises"),
            "",
            &mut fields,
        );
        fields
    };
    let (there, other) = (fields(there), fields(here));
    let none = serde_json::Value::Null;
    there
        .keys()
        .chain(other.keys().filter(|field| !there.contains_key(*field)))
        .filter(|field| field.as_str() != "name")
        .filter_map(|field| {
            let (there, other) = (
                there.get(field).unwrap_or(&none),
                other.get(field).unwrap_or(&none),
            );
            if there == other {
                return None;
            }
            let words = if field == "plugin_sha256" {
                format!("plugin {} was built anew since", here.plugin)
            } else {
                format!(
                    "{field} of {} is {there} there and {other} here",
                    here.architecture
                )
            };
            Some((field.clone(), words))
        })
        .collect()
}

/// The fields of nested data by their own names.
fn flatten(
    value: &serde_json::Value,
    name: &str,
    fields: &mut BTreeMap<String, serde_json::Value>,
) {
    match value {
        serde_json::Value::Object(map) => {
            map.iter()
                .for_each(|(name, value)| flatten(value, name, fields));
        }
        plain => drop(fields.insert(name.to_owned(), plain.clone())),
    }
}

/// `path` as seen from the current folder where it lies below it, so that a published manifest does not
/// tell of a person's home.
fn below_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit {
            architecture: "mamba2".into(),
            ..crate::run::records::tests::unit(400)
        }
    }

    /// A plan of these units.
    pub fn plan(units: Vec<Unit>) -> Plan {
        Plan {
            run_id: run_id("cpu", &Environment::new(), &units),
            suite: "s".into(),
            device: "cpu".into(),
            part: None,
            environment: Environment::new(),
            units,
            architectures: Vec::new(),
            targets: Vec::new(),
        }
    }

    fn manifest(units: Vec<Unit>) -> Manifest {
        let limits = LimitsRecord {
            time_s: Some(60),
            memory_bytes: None,
        };
        Manifest::new(&plan(units), 2, 1, limits)
    }

    #[test]
    fn it_is_read_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = manifest(vec![unit()]);
        written.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), written);
    }

    #[test]
    fn differences_are_named() {
        let manifest = manifest(vec![unit()]);
        assert_eq!(manifest.difference(&plan(vec![unit()])), None);
        let words = |change: &dyn Fn(&mut Unit)| {
            let mut other = unit();
            change(&mut other);
            manifest.difference(&plan(vec![other])).unwrap()
        };
        assert!(
            words(&|unit| unit.training.as_mut().unwrap().steps = 600)
                .contains("steps of mamba2 is 400 there and 600 here")
        );
        assert!(words(&|unit| unit.architecture = "lstm".into()).contains("mamba2"));
        assert!(words(&|unit| unit.plugin_sha256 = "cd".into()).contains("built anew"));
        assert!(words(&|unit| unit.lengths = vec![40]).contains("[40,80] there and [40] here"));
        let mut device = plan(vec![unit()]);
        device.device = "cuda:0".into();
        device.run_id = "x".into();
        assert!(
            manifest
                .difference(&device)
                .unwrap()
                .contains("cpu there and cuda here")
        );
    }

    #[test]
    fn other_products_are_another_run() {
        let manifest = manifest(vec![unit()]);
        let mut other = plan(vec![unit()]);
        let pair = ("LONGHAUL_SIMD".to_owned(), "v3".to_owned());
        other.environment = Environment::from([pair]);
        other.run_id = run_id("cpu", &other.environment, &other.units);
        assert_eq!(
            manifest.difference(&other).unwrap(),
            "LONGHAUL_SIMD is not set there and v3 here"
        );
        assert_eq!(differences(&other.environment, &other.environment), [""; 0]);
        let command = &manifest.command;
        assert_eq!(
            manifest.command_here(&other.environment),
            format!("env -u LONGHAUL_SIMD {command}")
        );
        assert_eq!(manifest.command_here(&Environment::new()), *command);
        let other = Manifest {
            environment: other.environment,
            ..manifest.clone()
        };
        assert_eq!(
            other.command_here(&Environment::new()),
            format!("LONGHAUL_SIMD=v3 {command}")
        );
    }
}
