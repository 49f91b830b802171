//! `--arch mamba2:state=128,layers=4`: from text to an architecture of the catalogue with a checked
//! value for every option.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use longhaul_plugin_api::abi_stable::std_types::Tuple2;
use longhaul_plugin_api::data::{Device, ModelConfig};
use longhaul_plugin_api::metadata::OptionValue;
use longhaul_tasks::{InitialState, Named, bounds};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Architecture, Catalogue, Plugin};
use crate::exit::CommandError;
use crate::find::{did_you_mean, find, is_library, split_library};

/// What an architecture's text says of the state that training sequences start from.
pub const INITIAL_STATE: &str = "initial_state";

/// Before the name of an option in an architecture's text: its value in evaluations, of a model that was trained with
/// another.
pub const IN_EVALUATIONS: &str = "eval.";

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
    /// Options that have another value in evaluations than in training, with that.
    #[serde(default)]
    pub in_evaluations: Vec<(String, Value)>,
    /// Options that were given and are not the default, sorted; those of evaluations with what stands before them.
    pub options: Vec<(String, String)>,
    /// Model width, where the text gave one.
    pub d_model: Option<u32>,
    /// Layers, where the text gave them.
    pub layers: Option<u32>,
    /// What recurrent state training sequences start from, where the text gave that.
    #[serde(default)]
    pub initial_state: Option<InitialState>,
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

/// Warns once of operations that are computed as they are written.
fn tell_naive(architecture: &Architecture) {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if !architecture.naive.is_empty() && told.insert(architecture.name.clone()) {
        tracing::warn!(
            "architecture `{}` computes `{}` number by number, on the CPU alone: it has no fast form and is \
             for short sequences and small widths",
            architecture.name,
            architecture.naive.join("`, `")
        );
    }
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
        tell_naive(architecture);
        Self::from_parts(plugin, architecture, options)
    }

    /// As [`ArchSpec::parse`], in the library with this hash where it is here: a run may have used several
    /// builds of one.
    ///
    /// # Errors
    /// As [`ArchSpec::parse`].
    pub fn of_build(text: &str, sha256: &str, catalogue: &Catalogue) -> Result<Self, CommandError> {
        let same = catalogue
            .plugins
            .iter()
            .find(|plugin| plugin.sha256 == sha256);
        match same.cloned() {
            Some(plugin) => Self::parse(
                text,
                &Catalogue {
                    plugins: vec![plugin],
                },
            ),
            None => Self::parse(text, catalogue),
        }
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
        let mut read = other.in_evaluations.iter();
        Ok(pairs.all(|(own, other)| own == other || !given(&own.0))
            && read.all(|other| self.in_evaluations.contains(other))
            && (self.d_model == other.d_model || !given("d_model"))
            && (self.layers == other.layers || !given("layers"))
            && (self.initial_state == other.initial_state || !given(INITIAL_STATE)))
    }

    fn from_parts(
        plugin: &Plugin,
        architecture: &Architecture,
        mut given: Vec<(String, String)>,
    ) -> Result<Self, CommandError> {
        let d_model = take_size(&mut given, "d_model", &bounds::D_MODEL)?;
        let layers = take_size(&mut given, "layers", &bounds::LAYERS)?;
        let initial_state = take_initial_state(&mut given)?;
        let known = |given: &str| {
            let mut options = architecture.options.iter();
            options.any(|option| option.name == given)
        };
        let bare = |given: &str| {
            given
                .strip_prefix(IN_EVALUATIONS)
                .unwrap_or(given)
                .to_owned()
        };
        if let Some((unknown, _)) = given.iter().find(|(name, _)| !known(&bare(name))) {
            let own = architecture.options.iter().map(|o| o.name.as_str());
            let all: Vec<&str> = own.chain(["d_model", "layers", INITIAL_STATE]).collect();
            return Err(CommandError::usage(format!(
                "architecture `{}` has no option `{unknown}`{}; it has {}; with `{IN_EVALUATIONS}` in front: in \
                 evaluations alone",
                architecture.name,
                did_you_mean(unknown, all.iter().copied()),
                all.join(", ")
            )));
        }
        let (mut values, mut in_evaluations, mut options) = (Vec::new(), Vec::new(), Vec::new());
        for option in &architecture.options {
            let spec = option.spec();
            let parsed = |name: &str| {
                let text = given.iter().rev().find(|(given, _)| given == name);
                let value = text.map(|(_, text)| spec.parse(text)).transpose();
                value.map_err(|error| {
                    CommandError::usage(format!("architecture `{}`: {error}", architecture.name))
                })
            };
            let default = spec.kind.default_value();
            let value = parsed(&option.name)?.unwrap_or_else(|| default.clone());
            let other = format!("{IN_EVALUATIONS}{}", option.name);
            if let Some(read) = parsed(&other)?.filter(|read| *read != value) {
                options.push((other, read.to_string()));
                in_evaluations.push((option.name.clone(), Value::from(&read)));
            }
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
            in_evaluations,
            options,
            d_model,
            layers,
            initial_state,
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

    /// What its evaluations are made with, where that is another model than the one that is trained.
    pub fn of_evaluations(&self) -> Option<Self> {
        let read = |(name, trained): &(String, Value)| {
            let mut others = self.in_evaluations.iter();
            let other = others.find(|(other, _)| other == name);
            let value = other.map_or_else(|| trained.clone(), |(_, value)| value.clone());
            (name.clone(), value)
        };
        (!self.in_evaluations.is_empty()).then(|| Self {
            values: self.values.iter().map(read).collect(),
            in_evaluations: Vec::new(),
            ..self.clone()
        })
    }

    /// Refuses options of evaluations, where there are none after a training.
    ///
    /// # Errors
    /// Such an option.
    pub fn of_one_model(self) -> Result<Self, CommandError> {
        match self.in_evaluations.first() {
            None => Ok(self),
            Some((name, _)) => Err(CommandError::usage(format!(
                "`{IN_EVALUATIONS}{name}` is for models that are trained and then evaluated (longhaul run); write `{name}`"
            ))),
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

fn take_initial_state(
    given: &mut Vec<(String, String)>,
) -> Result<Option<InitialState>, CommandError> {
    let Some(place) = given.iter().position(|(known, _)| known == INITIAL_STATE) else {
        return Ok(None);
    };
    let (_, text) = given.remove(place);
    let state = text.parse().map(Some);
    state.map_err(|error| CommandError::usage(format!("option `{INITIAL_STATE}`: {error}")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::catalogue::{ArchitectureOption, Kind};
    use crate::libraries::Place;

    /// An architecture of no options, that tests beside this module use.
    pub fn spec() -> ArchSpec {
        ArchSpec {
            library: "lib.so".into(),
            plugin: "p".into(),
            plugin_version: "0.1.0".into(),
            plugin_sha256: "ab".into(),
            architecture: "arch".into(),
            values: Vec::new(),
            in_evaluations: Vec::new(),
            options: Vec::new(),
            d_model: None,
            layers: None,
            initial_state: None,
            devices: vec!["cpu".into()],
        }
    }

    /// One plugin, `longhaul-mamba2`, with one architecture.
    pub fn catalogue() -> Catalogue {
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
            naive: Vec::new(),
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
    fn options_may_have_another_value_in_evaluations() {
        let catalogue = catalogue();
        let spec = |text: &str| ArchSpec::parse(text, &catalogue).expect("good options");
        let own = spec("mamba2:state=32,eval.state=16,eval.tied=false");
        // What is as trained is no difference.
        assert_eq!(own.text(), "mamba2:eval.state=16,state=32");
        let read = own.of_evaluations().expect("another model");
        assert_eq!(read.values, spec("mamba2:state=16").values);
        assert_eq!(own.values, spec("mamba2:state=32").values);
        assert!(spec("mamba2:eval.state=64").of_evaluations().is_none());
        let meant = |text| own.is_meant(text, &catalogue).expect("known options");
        assert!(meant("mamba2:state=32") && meant("mamba2:eval.state=16"));
        assert!(!meant("mamba2:eval.state=8"));
        let refused = own.of_one_model().expect_err("two models").message;
        assert!(refused.contains("eval.state"), "{refused}");
        for (text, word) in [
            ("eval.stat=1", "`eval.stat`"),
            ("eval.state=x", "state"),
            ("eval.d_model=8", "d_model"),
        ] {
            let error = ArchSpec::parse(&format!("mamba2:{text}"), &catalogue);
            let error = error.expect_err("no such option").message;
            assert!(error.contains(word), "{error}");
        }
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
    fn a_build_is_known_by_its_hash() {
        let mut catalogue = catalogue();
        let mut other = catalogue.plugins[0].clone();
        (other.path, other.sha256) = ("liby.so".into(), "11".into());
        catalogue.plugins.push(other);
        for (sha256, library) in [("00", "libx.so"), ("11", "liby.so")] {
            let spec = ArchSpec::of_build("mamba2", sha256, &catalogue).unwrap();
            assert_eq!(spec.library, PathBuf::from(library));
        }
        assert!(ArchSpec::of_build("mamba2", "22", &catalogue).is_err());
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
}
