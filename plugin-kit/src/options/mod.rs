//! Options as a plugin's author declares them, once: of one declaration [`options!`](crate::options!) makes a struct,
//! what the host is told of it, and its reading. The host has checked values against their limits before a model is
//! built; free text is the plugin's to parse.

mod settings;

use std::ops::RangeInclusive;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{OptionKind, OptionSpec, OptionValue};

pub use settings::Settings;

/// Declares options and the words of choices, each once: `name: type = default, limits => "help"`, in the order in which
/// they are listed.
///
/// Types are `usize`, `i64`, `f32`, `f64` with limits, both allowed; `bool`; `String`; a choice, whose words are an enum
/// declared by this macro too; an `Option` of these, which with `None` is not an option of this architecture; and a
/// struct made by this macro, whose options stand in its place. A default that is left out is the type's own, which of a
/// choice is its first word; so is a help that a choice has with its words.
///
/// `specs` gives the options with the struct's values as their defaults, so that a family shares one declaration, and
/// `read` their values in a configuration.
///
/// ```
/// use longhaul_plugin_kit::options;
///
/// options! {
///     /// What decays a state.
///     pub enum Decay => "decay of the state: fixed, or by what is read" {
///         Fixed = "fixed",
///         Data = "data",
///     }
///
///     /// Options of every architecture of the family.
///     pub struct Options {
///         heads: usize = 4, 1..=1024 => "H, heads; divides the model width";
///         scale: f32 = 0.1, 0.0..=1e3 => "factor on queries";
///         decay: Decay;
///         levels: Option<usize> = None, 2..=64 => "levels of the past";
///     }
/// }
///
/// let other = Options { decay: Decay::Data, levels: Some(8), ..Options::default() };
/// assert_eq!(Options::default().specs().len(), 3);
/// assert_eq!(other.specs()[3].kind.limits(), "integer 2..64");
/// ```
#[macro_export]
macro_rules! options {
    () => {};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (
        $(#[$meta:meta])* $visibility:vis enum $name:ident $(=> $help:literal)? {
            $($(#[$word_meta:meta])* $variant:ident = $word:literal),+ $(,)?
        }
        $($rest:tt)*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$word_meta])* #[doc = concat!("`", $word, "`.")] $variant),+
        }

        impl $crate::options::Words for $name {
            const HELP: &'static str = concat!($($help)?);
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl Default for $name {
            fn default() -> Self {
                <Self as $crate::options::Words>::WORDS[0].1
            }
        }

        $crate::options! { $($rest)* }
    };
    (
        $(#[$meta:meta])* $visibility:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty $(= $default:expr $(, $limits:expr)?)? $(=> $help:literal)?;)+
        }
        $($rest:tt)*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $visibility struct $name {
            $($(#[$field_meta])* $(#[doc = $help])? pub $field: $type),+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::options!(@default $($default)?)),+ }
            }
        }

        impl $name {
            /// The options, with these values as their defaults.
            $visibility fn specs(&self) -> Vec<$crate::api::metadata::OptionSpec> {
                let mut specs = Vec::new();
                $(specs.extend($crate::options::Field::specs(
                    &self.$field, stringify!($field), ($($($limits)?)?), concat!($($help)?)
                ));)+
                specs
            }

            /// Their values in a configuration.
            ///
            /// # Errors
            /// The architecture declares other options.
            $visibility fn read(settings: &$crate::options::Settings) -> $crate::Result<Self> {
                Ok(Self { $($field: $crate::options::Field::read(settings, stringify!($field))?),+ })
            }
        }

        impl $crate::options::Field for $name {
            type Limits = ();

            fn specs(&self, _name: &str, (): (), _help: &str) -> Vec<$crate::api::metadata::OptionSpec> {
                self.specs()
            }

            fn read(settings: &$crate::options::Settings, _name: &str) -> $crate::Result<Self> {
                Self::read(settings)
            }
        }

        $crate::options! { $($rest)* }
    };
}

/// What a field of an [`options!`](crate::options!) struct may be: the value of an option, or several options.
pub trait Field: Sized {
    /// What is declared beside the default: a range of numbers, nothing for the rest.
    type Limits;

    /// The field's options, with this as their default.
    fn specs(&self, name: &str, limits: Self::Limits, help: &str) -> Vec<OptionSpec>;

    /// The field in a configuration.
    ///
    /// # Errors
    /// The architecture declares none of that name, or of another type.
    fn read(settings: &Settings, name: &str) -> Result<Self>;
}

impl Field for i64 {
    type Limits = RangeInclusive<i64>;

    fn specs(&self, name: &str, limits: Self::Limits, help: &str) -> Vec<OptionSpec> {
        let (default, (min, max)) = (*self, limits.into_inner());
        spec(name, help, OptionKind::Integer { default, min, max })
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        settings.value(name, "a whole number", |value| match value {
            OptionValue::Integer(value) => Some(*value),
            _ => None,
        })
    }
}

impl Field for usize {
    type Limits = RangeInclusive<usize>;

    fn specs(&self, name: &str, limits: Self::Limits, help: &str) -> Vec<OptionSpec> {
        let limits = *limits.start() as i64..=*limits.end() as i64;
        (*self as i64).specs(name, limits, help)
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        let value = i64::read(settings, name)?;
        Self::try_from(value)
            .map_err(|_| PluginError::bad_option(format!("option `{name}` is negative: {value}")))
    }
}

impl Field for f64 {
    type Limits = RangeInclusive<f64>;

    fn specs(&self, name: &str, limits: Self::Limits, help: &str) -> Vec<OptionSpec> {
        let (default, (min, max)) = (*self, limits.into_inner());
        spec(name, help, OptionKind::Float { default, min, max })
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        settings.value(name, "a number", |value| match value {
            OptionValue::Float(value) => Some(*value),
            _ => None,
        })
    }
}

impl Field for f32 {
    type Limits = RangeInclusive<f64>;

    fn specs(&self, name: &str, limits: Self::Limits, help: &str) -> Vec<OptionSpec> {
        // The decimal that was written, not the nearest float32.
        let written = self.to_string().parse().unwrap_or(f64::from(*self));
        written.specs(name, limits, help)
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        Ok(f64::read(settings, name)? as f32)
    }
}

impl Field for bool {
    type Limits = ();

    fn specs(&self, name: &str, (): (), help: &str) -> Vec<OptionSpec> {
        spec(name, help, OptionKind::Boolean { default: *self })
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        settings.value(name, "true or false", |value| match value {
            OptionValue::Boolean(value) => Some(*value),
            _ => None,
        })
    }
}

impl Field for String {
    type Limits = ();

    fn specs(&self, name: &str, (): (), help: &str) -> Vec<OptionSpec> {
        let default = self.as_str().into();
        spec(name, help, OptionKind::Text { default })
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        settings.value(name, "text", |value| match value {
            OptionValue::Text(value) => Some(value.to_string()),
            _ => None,
        })
    }
}

impl<F: Field> Field for Option<F> {
    type Limits = F::Limits;

    fn specs(&self, name: &str, limits: Self::Limits, help: &str) -> Vec<OptionSpec> {
        self.as_ref()
            .map_or_else(Vec::new, |value| value.specs(name, limits, help))
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        match settings.find(name) {
            Some(_) => F::read(settings, name).map(Some),
            None => Ok(None),
        }
    }
}

/// A choice, an enum made by [`options!`](crate::options!).
pub trait Words: Copy + PartialEq + 'static {
    /// What an option of this type says where its own declaration says nothing.
    const HELP: &'static str;

    /// Each word with its value.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for this.
    fn word(self) -> &'static str {
        let own = Self::WORDS.iter().find(|(_, value)| *value == self);
        own.map_or("", |(word, _)| word)
    }
}

impl<W: Words> Field for W {
    type Limits = ();

    fn specs(&self, name: &str, (): (), help: &str) -> Vec<OptionSpec> {
        let words = Self::WORDS.iter().map(|(word, _)| *word);
        let help = if help.is_empty() { Self::HELP } else { help };
        choice(name, self.word(), words, help)
    }

    fn read(settings: &Settings, name: &str) -> Result<Self> {
        settings.value(name, "one of its words", |value| match value {
            OptionValue::Text(text) => Self::WORDS
                .iter()
                .find(|(word, _)| text == word)
                .map(|(_, value)| *value),
            _ => None,
        })
    }
}

/// An option with a fixed set of words.
pub(crate) fn choice<'a>(
    name: &str,
    default: &str,
    words: impl Iterator<Item = &'a str>,
    help: &str,
) -> Vec<OptionSpec> {
    let kind = OptionKind::Choice {
        default: default.into(),
        choices: words.map(Into::into).collect(),
    };
    spec(name, help, kind)
}

fn spec(name: &str, help: &str, kind: OptionKind) -> Vec<OptionSpec> {
    vec![OptionSpec {
        name: name.into(),
        help: help.into(),
        kind,
    }]
}

/// The options of one kind of layers, which [`Settings::part`] reads.
pub fn part(kind: &str, options: Vec<OptionSpec>) -> impl Iterator<Item = OptionSpec> {
    options.into_iter().map(move |option| OptionSpec {
        name: format!("{kind}.{}", option.name).into(),
        help: format!("{kind} layers: {}", option.help).into(),
        kind: option.kind,
    })
}

/// A size that is given, or the usual one where it is 0.
pub fn or_usual(given: usize, usual: usize) -> usize {
    if given == 0 { usual } else { given }
}
