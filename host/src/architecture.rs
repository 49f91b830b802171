//! `--arch mamba2:state=128,layers=4`: from text to an architecture of the catalogue with a checked
//! value for every option.

use std::path::PathBuf;

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::data::{Device, ModelConfig};
use longhaul_plugin_api::metadata::OptionValue;
use serde::{Deserialize, Serialize};

use crate::catalogue::{Architecture, Catalogue, Plugin};
use crate::exit::CommandError;

/// An architecture that was found, with checked options; travels to workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchSpec {
    /// The plugin's file.
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
    /// Finds and checks `name:option=value,option=value`; `library/name` chooses between two
    /// libraries with an architecture of one name.
    ///
    /// # Errors
    /// An unknown name, with the nearest; an option's value that is not allowed, with its limits.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, CommandError> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let (plugin, architecture) = find(name.trim(), catalogue)?;
        let mut given = Vec::new();
        for pair in rest
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            let (option, value) = pair.split_once('=').ok_or_else(|| {
                CommandError::usage(format!(
                    "`{pair}` in `{text}` is not of the form option=value"
                ))
            })?;
            given.push((option.trim().to_owned(), value.trim().to_owned()));
        }
        Self::from_parts(plugin, architecture, given)
    }

    fn from_parts(
        plugin: &Plugin,
        architecture: &Architecture,
        mut given: Vec<(String, String)>,
    ) -> Result<Self, CommandError> {
        let d_model = take_size(&mut given, "d_model", 1 << 16)?;
        let layers = take_size(&mut given, "layers", 1 << 10)?;
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
    max: u32,
) -> Result<Option<u32>, CommandError> {
    let Some(place) = given.iter().position(|(known, _)| known == name) else {
        return Ok(None);
    };
    let (_, text) = given.remove(place);
    let size = text.parse().ok().filter(|size| (1..=max).contains(size));
    size.map(Some).ok_or_else(|| {
        CommandError::usage(format!("option `{name}` is integer 1..{max}, not `{text}`"))
    })
}

fn find<'a>(
    name: &str,
    catalogue: &'a Catalogue,
) -> Result<(&'a Plugin, &'a Architecture), CommandError> {
    let (library, name) = match name.split_once('/') {
        Some((library, name)) => (Some(library), name),
        None => (None, name),
    };
    let all: Vec<_> = catalogue
        .architectures()
        .filter(|(plugin, _)| library.is_none_or(|library| plugin.name == library))
        .filter(|(_, architecture)| architecture.name == name)
        .collect();
    match all.as_slice() {
        [one] => Ok(*one),
        [] => {
            let names: Vec<&str> = catalogue
                .architectures()
                .map(|(_, a)| a.name.as_str())
                .collect();
            Err(CommandError::usage(format!(
                "no architecture `{name}`{}; there are {}",
                did_you_mean(name, names.iter().copied()),
                names.join(", ")
            )))
        }
        [first, second, ..] => Err(CommandError::usage(format!(
            "architecture `{name}` is in two plugins, {} ({}) and {} ({}); write `{}/{name}` or \
             name one file with --plugin and move the other away",
            first.0.name,
            first.0.path.display(),
            second.0.name,
            second.0.path.display(),
            first.0.name,
        ))),
    }
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
