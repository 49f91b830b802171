//! `--arch mamba2:state=128,layers=4`: from text to an architecture of the catalogue with a checked
//! value for every option.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::data::{Device, ModelConfig};
use longhaul_plugin_api::metadata::OptionValue;
use longhaul_tasks::{Named, bounds};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Architecture, Catalogue, Plugin};
use crate::exit::CommandError;

/// An architecture that was found, with checked options; travels to workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchSpec {
    /// The plugin's file.
    #[serde(with = "crate::path_text")]
    pub library: PathBuf,
    /// The library's own name.
    pub plugin: String,
    /// Its version.
    pub plugin_version: String,
    /// Hash of its file.
    pub plugin_sha256: String,
    /// Name inside the library.
    pub architecture: String,
    /// A value for every option, as text that the option's own parser accepts.
    pub values: Vec<(String, Value)>,
    /// Options that were given and are not the default, sorted.
    pub options: Vec<(String, String)>,
    /// Model width, where the text gave one.
    pub d_model: Option<u32>,
    /// Layers, where the text gave them.
    pub layers: Option<u32>,
    /// Kinds of device it can run on.
    pub devices: Vec<String>,
}

/// A checked value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A real number.
    Float(f64),
    /// Yes or no.
    Boolean(bool),
    /// A word or text.
    Text(String),
}

/// Sizes of a model that do not belong to its architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSize {
    /// Token ids.
    pub vocab: u32,
    /// D.
    pub d_model: u32,
    /// Layers.
    pub layers: u32,
    /// Longest training sequence, in tokens.
    pub max_train_length: u64,
}

impl ArchSpec {
    /// Finds and checks `name:option=value,option=value`; `library/name` chooses among the libraries
    /// with an architecture of one name, by a library's own name or by its file.
    ///
    /// # Errors
    /// An unknown name, with the nearest; an option's value that is not allowed, with its limits.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, CommandError> {
        let Named { name, options } = Named::parse(text).map_err(CommandError::usage)?;
        let (plugin, architecture) = find(&name, catalogue)?;
        Self::from_parts(plugin, architecture, options)
    }

    /// Whether a text means this architecture: by its name, its library where the text has one, and the
    /// value of every option that the text gives.
    ///
    /// # Errors
    /// Text that is none; an option or value that this architecture does not have.
    pub fn is_meant(&self, text: &str, catalogue: &Catalogue) -> Result<bool, CommandError> {
        let Named { name, options } = Named::parse(text).map_err(CommandError::usage)?;
        let (library, name) = split_library(&name);
        let own = |(plugin, architecture): &(&Plugin, &Architecture)| {
            plugin.path == self.library && architecture.name == self.architecture
        };
        let Some((plugin, architecture)) = catalogue.architectures().find(own) else {
            return Ok(false);
        };
        if name != self.architecture || !library.is_none_or(|library| is_library(plugin, library)) {
            return Ok(false);
        }
        let given = |name: &str| options.iter().any(|(option, _)| option == name);
        let other = Self::from_parts(plugin, architecture, options.clone())?;
        let mut pairs = self.values.iter().zip(&other.values);
        Ok(pairs.all(|(own, other)| own == other || !given(&own.0))
            && (self.d_model == other.d_model || !given("d_model"))
            && (self.layers == other.layers || !given("layers")))
    }

    fn from_parts(
        plugin: &Plugin,
        architecture: &Architecture,
        mut given: Vec<(String, String)>,
    ) -> Result<Self, CommandError> {
        let d_model = take_size(&mut given, "d_model", &bounds::D_MODEL)?;
        let layers = take_size(&mut given, "layers", &bounds::LAYERS)?;
        let known: Vec<&str> = architecture
            .options
            .iter()
            .map(|o| o.name.as_str())
            .collect();
        if let Some((unknown, _)) = given
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            let all: Vec<&str> = known.iter().copied().chain(["d_model", "layers"]).collect();
            return Err(CommandError::usage(format!(
                "architecture `{}` has no option `{unknown}`{}; it has {}",
                architecture.name,
                did_you_mean(unknown, all.iter().copied()),
                all.join(", ")
            )));
        }
        let (mut values, mut options) = (Vec::new(), Vec::new());
        for option in &architecture.options {
            let spec = option.spec();
            let default = spec.kind.default_value();
            let text = given.iter().rev().find(|(name, _)| *name == option.name);
            let value = match text {
                None => default.clone(),
                Some((_, text)) => spec.parse(text).map_err(|error| {
                    CommandError::usage(format!("architecture `{}`: {error}", architecture.name))
                })?,
            };
            if value != default {
                options.push((option.name.clone(), value.to_string()));
            }
            values.push((option.name.clone(), Value::from(&value)));
        }
        options.sort();
        Ok(Self {
            library: plugin.path.clone(),
            plugin: plugin.name.clone(),
            plugin_version: plugin.version.clone(),
            plugin_sha256: plugin.sha256.clone(),
            architecture: architecture.name.clone(),
            values,
            options,
            d_model,
            layers,
            devices: architecture.devices.clone(),
        })
    }

    /// Name and options as `--arch` takes them.
    pub fn text(&self) -> String {
        let pairs: Vec<String> = self
            .options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if pairs.is_empty() {
            self.architecture.clone()
        } else {
            format!("{}:{}", self.architecture, pairs.join(","))
        }
    }

    /// Refuses a kind of device that it does not run on.
    ///
    /// # Errors
    /// What it runs on.
    pub fn runs_on(&self, kind: &str) -> Result<(), String> {
        if self.devices.iter().any(|device| device == kind) {
            return Ok(());
        }
        Err(format!(
            "architecture `{}` of {} does not run on {kind}; it runs on {}",
            self.architecture,
            self.plugin,
            self.devices.join(", ")
        ))
    }

    /// The configuration that crosses the boundary.
    pub fn config(&self, size: ModelSize, seed: u64, device: Device) -> ModelConfig {
        let options = self.values.iter().map(|(name, value)| {
            let value = match value {
                Value::Integer(value) => OptionValue::Integer(*value),
                Value::Float(value) => OptionValue::Float(*value),
                Value::Boolean(value) => OptionValue::Boolean(*value),
                Value::Text(value) => OptionValue::Text(value.as_str().into()),
            };
            Tuple2(name.as_str().into(), value)
        });
        ModelConfig {
            architecture: self.architecture.as_str().into(),
            options: options.collect(),
            vocab: size.vocab,
            d_model: self.d_model.unwrap_or(size.d_model),
            layers: self.layers.unwrap_or(size.layers),
            max_train_length: size.max_train_length,
            seed,
            device,
            extra: Vec::new().into(),
        }
    }
}

impl From<&OptionValue> for Value {
    fn from(value: &OptionValue) -> Self {
        match value {
            OptionValue::Integer(value) => Self::Integer(*value),
            OptionValue::Float(value) => Self::Float(*value),
            OptionValue::Boolean(value) => Self::Boolean(*value),
            OptionValue::Text(value) => Self::Text(value.to_string()),
        }
    }
}

fn take_size(
    given: &mut Vec<(String, String)>,
    name: &str,
    range: &RangeInclusive<u32>,
) -> Result<Option<u32>, CommandError> {
    let Some(place) = given.iter().position(|(known, _)| known == name) else {
        return Ok(None);
    };
    let (_, text) = given.remove(place);
    let size = text.parse().ok().filter(|size| range.contains(size));
    size.map(Some).ok_or_else(|| {
        CommandError::usage(format!(
            "option `{name}` is integer {}..{}, not `{text}`",
            range.start(),
            range.end()
        ))
    })
}

/// `library/name` in two; a library may be a path.
fn split_library(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('/') {
        Some((library, name)) => (Some(library), name),
        None => (None, text),
    }
}

/// Whether a plugin is meant: by its own name, its file's name, or a path to its file.
fn is_library(plugin: &Plugin, text: &str) -> bool {
    let path = Path::new(text);
    let same_file = || match (path.canonicalize(), plugin.path.canonicalize()) {
        (Ok(given), Ok(own)) => given == own,
        _ => false,
    };
    plugin.name == text
        || plugin.path == path
        || plugin.path.file_name() == Some(path.as_os_str())
        || same_file()
}

/// Every architecture that `name` or `library/name` means; at least one.
///
/// # Errors
/// An unknown library or architecture, with the nearest and with all there are.
pub fn find_all<'a>(
    text: &str,
    catalogue: &'a Catalogue,
) -> Result<Vec<(&'a Plugin, &'a Architecture)>, CommandError> {
    let (library, name) = split_library(text);
    let in_library = |plugin: &Plugin| library.is_none_or(|library| is_library(plugin, library));
    if let Some(library) = library.filter(|_| !catalogue.plugins.iter().any(in_library)) {
        let names = || catalogue.plugins.iter().map(|plugin| plugin.name.as_str());
        return Err(CommandError::usage(format!(
            "no plugin `{library}`{}; there are {}, and --plugin FILE names another",
            did_you_mean(library, names()),
            listed(names())
        )));
    }
    let all = || {
        let all = catalogue.architectures();
        all.filter(|(plugin, _)| in_library(plugin))
    };
    let found: Vec<_> = all().filter(|(_, found)| found.name == name).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names = || all().map(|(_, architecture)| architecture.name.as_str());
    let (near, known) = (did_you_mean(name, names()), listed(names()));
    Err(CommandError::usage(match library {
        Some(library) => {
            format!("plugin `{library}` has no architecture `{name}`{near}; it has {known}")
        }
        None => format!(
            "no architecture `{name}`{near}; there are {known}; --plugin FILE adds those of another library"
        ),
    }))
}

/// The one architecture that `name` or `library/name` means. Of several the one in the place that is
/// looked at first counts: a file that the user names comes before what lies beside the program.
fn find<'a>(
    text: &str,
    catalogue: &'a Catalogue,
) -> Result<(&'a Plugin, &'a Architecture), CommandError> {
    let mut found = find_all(text, catalogue)?;
    let first = found.iter().map(|(plugin, _)| plugin.place).min();
    found.retain(|(plugin, _)| Some(plugin.place) == first);
    let [(plugin, architecture), others @ ..] = found.as_slice() else {
        unreachable!("at least one is found");
    };
    let Some((other, _)) = others.first() else {
        return Ok((plugin, architecture));
    };
    let name = &architecture.name;
    let (path, other_path) = (plugin.path.display(), other.path.display());
    let choice = if plugin.name == other.name {
        path.to_string()
    } else {
        plugin.name.clone()
    };
    Err(CommandError::usage(format!(
        "architecture `{name}` is in two plugins, {} ({path}) and {} ({other_path}); write \
         `{choice}/{name}` for the first, or name one file with --plugin",
        plugin.name, other.name,
    )))
}

/// Names with commas, each once.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    names.join(", ")
}

/// ` (did you mean ..?)` where a known name is close.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
        .min()
        .map_or_else(String::new, |(_, known)| {
            format!(" (did you mean `{known}`?)")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{ArchitectureOption, Kind};
    use crate::libraries::Place;

    fn catalogue() -> Catalogue {
        let option = |name: &str, kind| ArchitectureOption {
            name: name.into(),
            help: String::new(),
            kind,
        };
        let architecture = Architecture {
            name: "mamba2".into(),
            title: String::new(),
            family: "ssm".into(),
            citation: String::new(),
            options: vec![
                option(
                    "state",
                    Kind::Integer {
                        default: 64,
                        min: 1,
                        max: 1024,
                    },
                ),
                option(
                    "pattern",
                    Kind::Text {
                        default: String::new(),
                    },
                ),
                option("tied", Kind::Boolean { default: false }),
            ],
            state_growth: "constant".into(),
            devices: vec!["cpu".into()],
            capabilities: Vec::new(),
        };
        let plugin = Plugin {
            path: "libx.so".into(),
            place: Place::Own,
            sha256: "00".into(),
            name: "longhaul-mamba2".into(),
            version: "0.1.0".into(),
            licence: String::new(),
            authors: Vec::new(),
            kit: String::new(),
            api_version: String::new(),
            architectures: vec![architecture],
            model_types: Vec::new(),
        };
        Catalogue {
            plugins: vec![plugin],
        }
    }

    #[test]
    fn options_are_checked_and_only_changes_are_kept() {
        let catalogue = catalogue();
        let spec = ArchSpec::parse(
            "mamba2:tied=true,state=64,layers=3,pattern=a*2+b",
            &catalogue,
        );
        let spec = spec.expect("good options");
        assert_eq!(spec.text(), "mamba2:pattern=a*2+b,tied=true");
        assert_eq!((spec.layers, spec.d_model), (Some(3), None));
        assert_eq!(spec.values.len(), 3);
        assert!(ArchSpec::parse("longhaul-mamba2/mamba2", &catalogue).is_ok());
    }

    #[test]
    fn mistakes_name_what_was_meant() {
        let catalogue = catalogue();
        let error = |text: &str| ArchSpec::parse(text, &catalogue).expect_err(text).message;
        assert!(error("mamba3").contains("did you mean `mamba2`"));
        assert!(error("mamba2:stat=4").contains("did you mean `state`"));
        assert!(error("mamba2:state=0").contains("integer 1..1024, not `0`"));
        assert!(error("mamba2:layers=0").contains("integer 1..1024"));
        assert!(error("mamba2:state").contains("option=value"));
        assert!(error("mamba").contains("--plugin"));
    }

    #[test]
    fn what_is_given_twice_is_said_so() {
        let catalogue = catalogue();
        for option in [
            "state=8,state=16",
            "d_model=8,d_model=8",
            "layers=1,tied=true,layers=2",
        ] {
            let text = format!("mamba2:{option}");
            let message = ArchSpec::parse(&text, &catalogue).expect_err(&text).message;
            assert!(message.contains("twice"), "{message}");
            assert!(!message.contains("did you mean"), "{message}");
        }
    }

    #[test]
    fn a_library_is_named_as_such() {
        let mut catalogue = catalogue();
        catalogue.plugins.push(Plugin {
            name: "mine".into(),
            ..catalogue.plugins[0].clone()
        });
        catalogue.plugins[1].architectures[0].name = "other".into();
        let error = |text: &str| ArchSpec::parse(text, &catalogue).expect_err(text).message;
        let message = error("nolib/mamba2");
        assert!(
            message.contains("no plugin `nolib`; there are longhaul-mamba2, mine"),
            "{message}"
        );
        assert!(error("min/other").contains("did you mean `mine`?"));
        let message = error("mine/mamba2");
        assert!(
            message.contains("plugin `mine` has no architecture `mamba2`"),
            "{message}"
        );
        assert!(message.ends_with("it has other"), "{message}");
    }

    #[test]
    fn an_architecture_is_meant_by_what_a_text_gives() {
        let catalogue = catalogue();
        let spec = ArchSpec::parse("mamba2:state=8,d_model=32,layers=2", &catalogue).unwrap();
        let meant = |text: &str| spec.is_meant(text, &catalogue).unwrap();
        for yes in [
            "mamba2",
            "mamba2:state=8",
            "mamba2:state=08,tied=false",
            "mamba2:layers=2,d_model=32",
            "longhaul-mamba2/mamba2:pattern=",
        ] {
            assert!(meant(yes), "{yes}");
        }
        for no in [
            "mamba",
            "mamba2:state=64",
            "mamba2:tied=true",
            "mamba2:layers=3",
            "mine/mamba2",
        ] {
            assert!(!meant(no), "{no}");
        }
        assert!(spec.is_meant("mamba2:stat=8", &catalogue).is_err());
    }

    #[test]
    fn of_two_files_the_named_one_counts() {
        let mut catalogue = catalogue();
        catalogue.plugins.push(Plugin {
            path: "mine/libx.so".into(),
            place: Place::Named,
            ..catalogue.plugins[0].clone()
        });
        let library = |text: &str, catalogue: &Catalogue| {
            ArchSpec::parse(text, catalogue).map(|spec| spec.library)
        };
        assert_eq!(
            library("mamba2", &catalogue).unwrap(),
            Path::new("mine/libx.so")
        );
        assert_eq!(
            library("longhaul-mamba2/mamba2", &catalogue).unwrap(),
            Path::new("mine/libx.so")
        );
        // In one place the advice is a text that is understood.
        catalogue.plugins[0].place = Place::Named;
        catalogue.plugins[0].path = "a/liby.so".into();
        let message = library("mamba2", &catalogue).unwrap_err().message;
        assert!(message.contains("write `a/liby.so/mamba2`"), "{message}");
        assert_eq!(
            library("liby.so/mamba2", &catalogue).unwrap(),
            Path::new("a/liby.so")
        );
    }

    #[test]
    fn two_libraries_with_one_name_are_told_apart() {
        let mut catalogue = catalogue();
        let mut other = catalogue.plugins[0].clone();
        other.name = "mine".into();
        catalogue.plugins.push(other);
        let error = ArchSpec::parse("mamba2", &catalogue)
            .expect_err("ambiguous")
            .message;
        assert!(error.contains("longhaul-mamba2/mamba2"), "{error}");
        assert_eq!(
            ArchSpec::parse("mine/mamba2", &catalogue)
                .expect("one")
                .plugin,
            "mine"
        );
    }
}
