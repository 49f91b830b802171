//! Typed options of tasks: declared as constants, parsed and checked from text.

use crate::error::{TaskError, nearest};
use crate::materials::{Material, Materials, NONE};
use crate::task::TaskSpec;

/// Stands among the options of every task's text: the version of its definition.
const VERSION: &str = "version";

/// An option's type, default and limits; both limits are allowed values.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The name before the `=`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// The value used when none is given.
    pub default: OptionValue,
    /// What is allowed.
    pub allowed: Allowed,
}

/// A value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptionValue {
    /// A whole number.
    Integer(u64),
    /// A real number.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// One of a fixed set of words.
    Word(&'static str),
}

impl std::fmt::Display for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Word(value) => write!(f, "{value}"),
        }
    }
}

/// What an option allows.
#[derive(Debug, Clone, Copy)]
pub enum Allowed {
    /// Whole numbers between two limits.
    Integer(u64, u64),
    /// Real numbers between two limits.
    Float(f64, f64),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Words(&'static [&'static str]),
    /// The word, or a real number between two limits.
    WordOrFloat(&'static str, f64, f64),
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(min, max) => write!(f, "integer {min}..{max}"),
            Self::Float(min, max) => write!(f, "number {min}..{max}"),
            Self::Boolean => write!(f, "true or false"),
            Self::Words(words) => write!(f, "{}", words.join(" | ")),
            Self::WordOrFloat(word, min, max) => write!(f, "{word} or a number {min}..{max}"),
        }
    }
}

impl OptionSpec {
    fn parse(&self, text: &str) -> Option<OptionValue> {
        let float = |min: f64, max: f64| {
            let value = text
                .parse()
                .ok()
                .filter(|value| (min..=max).contains(value));
            value.map(OptionValue::Float)
        };
        match self.allowed {
            Allowed::Integer(min, max) => {
                let value = text
                    .parse()
                    .ok()
                    .filter(|value| (min..=max).contains(value));
                value.map(OptionValue::Integer)
            }
            Allowed::Float(min, max) => float(min, max),
            Allowed::Boolean => text.parse().ok().map(OptionValue::Boolean),
            Allowed::Words(words) => words
                .iter()
                .find(|word| **word == text)
                .map(|word| OptionValue::Word(word)),
            Allowed::WordOrFloat(word, min, max) => {
                if text == word {
                    Some(OptionValue::Word(word))
                } else {
                    float(min, max)
                }
            }
        }
    }
}

/// Checked values of all options of a task.
#[derive(Debug, Clone)]
pub struct Options {
    values: Vec<(&'static str, OptionValue)>,
    /// What it is made of beside: a material's name, and which.
    materials: Vec<(&'static str, String)>,
}

impl Options {
    /// Checks given values and fills in defaults. A material that is named is the one that is there, or an
    /// error.
    pub fn parse(
        task: &TaskSpec,
        given: &[(String, String)],
        materials: &Materials,
    ) -> Result<Self, TaskError> {
        let of = task.materials.iter();
        let of: Vec<(&'static str, String)> =
            of.map(|of| (of.name(), materials.which(*of))).collect();
        let (specs, version, task) = (task.options, task.version, task.name);
        for (name, value) in given {
            if let Some((material, here)) = of.iter().find(|(material, _)| material == name) {
                if value == here {
                    continue;
                }
                return Err(TaskError::Material {
                    task: task.to_owned(),
                    material,
                    asked: value.clone(),
                    here: here.clone(),
                });
            }
            if name == VERSION {
                if *value == version.to_string() {
                    continue;
                }
                return Err(TaskError::Version {
                    task: task.to_owned(),
                    asked: value.clone(),
                    version,
                });
            }
            if !specs.iter().any(|spec| spec.name == name) {
                let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
                return Err(TaskError::UnknownOption {
                    task: task.to_owned(),
                    option: name.clone(),
                    nearest: nearest(name, names.iter().copied()),
                    known: if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    },
                });
            }
        }
        let value = |spec: &OptionSpec| {
            let Some((_, text)) = given.iter().rev().find(|(name, _)| name == spec.name) else {
                return Ok((spec.name, spec.default));
            };
            let value = spec.parse(text).ok_or_else(|| TaskError::BadOption {
                task: task.to_owned(),
                option: spec.name.to_owned(),
                value: text.clone(),
                allowed: spec.allowed.to_string(),
            })?;
            Ok((spec.name, value))
        };
        let mut values: Vec<_> = specs.iter().map(value).collect::<Result<_, TaskError>>()?;
        values.push((VERSION, OptionValue::Integer(version)));
        Ok(Self {
            values,
            materials: of,
        })
    }

    fn get(&self, name: &str) -> OptionValue {
        let found = self.values.iter().find(|(known, _)| *known == name);
        found.expect("a declared option").1
    }

    /// A declared whole number.
    pub fn integer(&self, name: &str) -> usize {
        match self.get(name) {
            OptionValue::Integer(value) => value as usize,
            other => unreachable!("option `{name}` is declared as an integer, not {other}"),
        }
    }

    /// A declared real number; `None` where it is a word instead.
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            OptionValue::Float(value) => Some(value),
            _ => None,
        }
    }

    /// A declared yes or no.
    pub fn boolean(&self, name: &str) -> bool {
        self.get(name) == OptionValue::Boolean(true)
    }

    /// A declared word.
    pub fn word(&self, name: &str) -> &'static str {
        match self.get(name) {
            OptionValue::Word(word) => word,
            other => unreachable!("option `{name}` is declared as a word, not {other}"),
        }
    }

    /// All options and the version as text, sorted by name, without the materials.
    pub fn chosen_text(&self) -> String {
        join(self.pairs())
    }

    /// All options, materials and the version as text, sorted by name; with the same materials it parses to
    /// the same options.
    pub fn text(&self) -> String {
        let absent = |(name, which): &&(&str, String)| {
            *name == Material::ChatTemplate.name() && which == NONE
        };
        let materials = self.materials.iter().filter(|pair| !absent(pair)).cloned();
        join(self.pairs().chain(materials))
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.values
            .iter()
            .map(|(name, value)| (*name, value.to_string()))
    }
}

fn join(pairs: impl Iterator<Item = (&'static str, String)>) -> String {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by_key(|(name, _)| *name);
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}
