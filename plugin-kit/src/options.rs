//! Options as a plugin's author declares and reads them. The host has checked them against their
//! limits before a model is built; free text is the plugin's to parse.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{ModelConfig, extra};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{OptionKind, OptionSpec, OptionValue};

/// A whole-number option.
pub fn integer(name: &str, default: i64, min: i64, max: i64, help: &str) -> OptionSpec {
    spec(name, help, OptionKind::Integer { default, min, max })
}

/// A real-number option.
pub fn float(name: &str, default: f64, min: f64, max: f64, help: &str) -> OptionSpec {
    spec(name, help, OptionKind::Float { default, min, max })
}

/// A yes-or-no option.
pub fn boolean(name: &str, default: bool, help: &str) -> OptionSpec {
    spec(name, help, OptionKind::Boolean { default })
}

/// An option with a fixed set of words.
pub fn choice(name: &str, default: &str, choices: &[&str], help: &str) -> OptionSpec {
    let choices = choices.iter().map(|&choice| choice.into()).collect();
    spec(
        name,
        help,
        OptionKind::Choice {
            default: default.into(),
            choices,
        },
    )
}

/// A free-text option.
pub fn text(name: &str, default: &str, help: &str) -> OptionSpec {
    spec(
        name,
        help,
        OptionKind::Text {
            default: default.into(),
        },
    )
}

fn spec(name: &str, help: &str, kind: OptionKind) -> OptionSpec {
    OptionSpec {
        name: name.into(),
        help: help.into(),
        kind,
    }
}

/// The configuration of a model with its options by name.
#[derive(Clone)]
pub struct Settings {
    /// The configuration as the host sent it.
    pub config: ModelConfig,
    prefix: String,
}

impl Settings {
    /// Reads options of a configuration.
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            config: config.clone(),
            prefix: String::new(),
        }
    }

    /// The same configuration with options read as `prefix.name`: the view of a part of a hybrid.
    pub fn part(&self, prefix: &str) -> Self {
        Self {
            config: self.config.clone(),
            prefix: format!("{}{prefix}.", self.prefix),
        }
    }

    /// The same configuration with options read by their full names: the view of a whole model.
    pub fn whole(&self) -> Self {
        Self::new(&self.config)
    }

    /// Whether the model is asked for in its reference form.
    pub fn wants_reference(&self) -> bool {
        extra::has(&self.config.extra, extra::REFERENCE_FORM)
    }

    /// D, the model width.
    pub fn d_model(&self) -> usize {
        self.config.d_model as usize
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.config.layers as usize
    }

    fn value(&self, name: &str) -> Result<&OptionValue> {
        let prefixed = format!("{}{name}", self.prefix);
        let options = self.config.options.iter();
        options
            .into_iter()
            .find(|option| option.0 == prefixed)
            .map(|option| &option.1)
            .ok_or_else(|| {
                let mut declared: Vec<&str> =
                    self.config.options.iter().map(|o| o.0.as_str()).collect();
                declared.sort_unstable_by_key(|name| (distance(name, &prefixed), *name));
                PluginError::internal(format!(
                    "the architecture reads an option `{prefixed}` that it does not declare; its options, the \
                     nearest first, are {}",
                    declared.join(", ")
                ))
            })
    }

    /// A whole number.
    ///
    /// # Errors
    /// If the architecture declares none of that name, or of another type.
    pub fn integer(&self, name: &str) -> Result<i64> {
        match self.value(name)? {
            OptionValue::Integer(value) => Ok(*value),
            other => Err(wrong_type(name, "a whole number", other)),
        }
    }

    /// A whole number that is a size.
    ///
    /// # Errors
    /// As [`Settings::integer`]; a negative one.
    pub fn size(&self, name: &str) -> Result<usize> {
        let value = self.integer(name)?;
        usize::try_from(value)
            .map_err(|_| PluginError::bad_option(format!("option `{name}` is negative: {value}")))
    }

    /// A real number.
    ///
    /// # Errors
    /// If the architecture declares none of that name, or of another type.
    pub fn float(&self, name: &str) -> Result<f64> {
        match self.value(name)? {
            OptionValue::Float(value) => Ok(*value),
            other => Err(wrong_type(name, "a number", other)),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// As [`Settings::integer`].
    pub fn boolean(&self, name: &str) -> Result<bool> {
        match self.value(name)? {
            OptionValue::Boolean(value) => Ok(*value),
            other => Err(wrong_type(name, "true or false", other)),
        }
    }

    /// A word or text.
    ///
    /// # Errors
    /// If the architecture declares none of that name, or of another type.
    pub fn text(&self, name: &str) -> Result<&str> {
        match self.value(name)? {
            OptionValue::Text(value) => Ok(value.as_str()),
            other => Err(wrong_type(name, "text", other)),
        }
    }
}

fn wrong_type(name: &str, expected: &str, got: &OptionValue) -> PluginError {
    PluginError::internal(format!(
        "the architecture reads option `{name}` as {expected}, and declares another type: its value is {got}"
    ))
}

/// How many letters have to be put in, left out or changed to make one name of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let change = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j].min(corner) + 1);
        }
    }
    row[to.len()]
}
