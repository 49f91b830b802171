//! The configuration of a model, and its options by name.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{ModelConfig, extra};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::OptionValue;

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

    pub(super) fn find(&self, name: &str) -> Option<&OptionValue> {
        let prefixed = format!("{}{name}", self.prefix);
        let mut options = self.config.options.iter();
        options
            .find(|option| option.0 == prefixed)
            .map(|option| &option.1)
    }

    /// The value of an option, which the architecture declares and which `of` knows as `expected`.
    pub(super) fn value<T>(
        &self,
        name: &str,
        expected: &str,
        of: impl Fn(&OptionValue) -> Option<T>,
    ) -> Result<T> {
        let value = self.find(name).ok_or_else(|| self.undeclared(name))?;
        of(value).ok_or_else(|| {
            PluginError::internal(format!(
                "the architecture reads option `{name}` as {expected}, and declares another type: its value is {value}"
            ))
        })
    }

    fn undeclared(&self, name: &str) -> PluginError {
        let prefixed = format!("{}{name}", self.prefix);
        let mut declared: Vec<&str> = self.config.options.iter().map(|o| o.0.as_str()).collect();
        declared.sort_unstable_by_key(|name| (distance(name, &prefixed), *name));
        PluginError::internal(format!(
            "the architecture reads an option `{prefixed}` that it does not declare; its options, the \
             nearest first, are {}",
            declared.join(", ")
        ))
    }
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
