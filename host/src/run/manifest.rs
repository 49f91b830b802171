//! `run.toml`: the plan, the versions, the plugins, the machine and the command. Written once, before
//! work begins; `--resume` and `eval` go by it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use longhaul_plugin_api::variables;
use serde::{Deserialize, Serialize};

use crate::device;
use crate::run::command::{by_this_program, quote};
use crate::run::error::RunError;
use crate::run::machine::Machine;
use crate::run::plan::{Environment, Plan, Unit};
use crate::run::targets::Target;

/// The file's name in a run folder.
pub const FILE: &str = "run.toml";

/// What stands in `run.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Hash of the plan.
    pub run_id: String,
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
        let text = std::fs::read_to_string(&path).map_err(RunError::io("read", &path))?;
        toml::from_str(&text).map_err(|error| {
            RunError::Input(format!(
                "{} is not the file of a run of this version: {}",
                path.display(),
                error.message()
            ))
        })
    }

    /// Writes the manifest, whole or not at all.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn write(&self, folder: &Path) -> Result<(), RunError> {
        let path = folder.join(FILE);
        let text = toml::to_string(self).expect("plain data serialises");
        let mut file =
            tempfile::NamedTempFile::new_in(folder).map_err(RunError::io("write in", folder))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.as_file().sync_data())
            .and_then(|()| {
                let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                file.as_file().set_permissions(readable)
            })
            .map_err(RunError::io("write", &path))?;
        file.persist(&path)
            .map_err(|error| RunError::io("write", &path)(error.error))?;
        Ok(())
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
        if self.run_id == plan.run_id && self.units == plan.units {
            return None;
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

/// Every architecture, task, seed and learning rate of some units, for comparison.
fn counts(units: &[Unit]) -> [(&'static str, Vec<String>); 4] {
    let of = |get: &dyn Fn(&Unit) -> String| {
        let mut all: Vec<String> = Vec::new();
        for value in units.iter().map(get) {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        all
    };
    [
        (
            "architectures",
            of(&|unit| format!("{}:{}", unit.architecture, unit.options)),
        ),
        ("tasks", of(&Unit::task_text)),
        ("seeds", of(&|unit| unit.seed.to_string())),
        ("learning rates", of(&|unit| unit.learning_rate.to_string())),
    ]
}

/// Fields in which two units differ, with words.
fn field_differences(there: &Unit, here: &Unit) -> Vec<(String, String)> {
    let value = |unit: &Unit| serde_json::to_value(unit).expect("plain data serialises");
    let (there_value, here_value) = (value(there), value(here));
    let (Some(a), Some(b)) = (there_value.as_object(), here_value.as_object()) else {
        return Vec::new();
    };
    a.iter()
        .filter(|(field, value)| b.get(*field) != Some(value))
        .filter(|(field, _)| !matches!(field.as_str(), "name" | "model"))
        .map(|(field, value)| {
            let words = if field == "plugin_sha256" {
                format!("plugin {} was built anew since", here.plugin)
            } else {
                format!(
                    "{field} of {} is {value} there and {} here",
                    here.architecture, b[field]
                )
            };
            (field.clone(), words)
        })
        .collect()
}

/// `path` as seen from the current folder where it lies below it, so that a published manifest does not
/// tell of a person's home.
fn below_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::plan::run_id;

    fn unit() -> Unit {
        Unit {
            name: "n".into(),
            model: "models/n.safetensors".into(),
            plugin: "p".into(),
            plugin_version: "0.1.0".into(),
            plugin_sha256: "ab".into(),
            architecture: "mamba2".into(),
            options: "d_model=64,layers=2".into(),
            task: "parity".into(),
            task_options: String::new(),
            train_length_min: 3,
            train_length: 40,
            seed: 0,
            learning_rate: 1e-3,
            steps: 400,
            batch: 32,
            warmup_steps: 40,
            weight_decay: 0.1,
            clip_norm: 1.0,
            samples: 10,
            lengths: vec![40, 80],
            checkpoint: None,
        }
    }

    fn plan(units: Vec<Unit>) -> Plan {
        Plan {
            run_id: run_id("cpu", &Environment::new(), &units),
            suite: "s".into(),
            device: "cpu".into(),
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
            words(&|unit| unit.steps = 600).contains("steps of mamba2 is 400 there and 600 here")
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
