//! What a library says of itself. Plain data, readable without building a model.

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec, Tuple2};

/// Facts that a later version may add without changing a layout: name and value.
/// A reader ignores names it does not know.
pub type Pairs = RVec<Tuple2<RString, RString>>;

/// Looks a fact up in [`Pairs`].
pub fn pair<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|pair| pair.0 == name)
        .map(|pair| pair.1.as_str())
}

/// Name of the fact in [`LibraryInfo::extra`] that says why there is no description.
pub const DESCRIBING_FAILED: &str = "describing-failed";

/// A library and the architectures inside it.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct LibraryInfo {
    /// Short name, as used in logs and records: `longhaul-mamba2`.
    pub name: RString,
    /// Semantic version of the plugin.
    pub version: RString,
    /// SPDX licence expression.
    pub licence: RString,
    /// Authors, one an entry.
    pub authors: RVec<RString>,
    /// The architectures, at least one.
    pub architectures: RVec<ArchitectureInfo>,
    /// Later additions.
    pub extra: Pairs,
}

/// The inductive bias, as the field groups architectures.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Softmax attention.
    Attention,
    /// State-space model.
    Ssm,
    /// Linear recurrence over a vector or matrix state.
    LinearRnn,
    /// Non-linear recurrence.
    Rnn,
    /// Long or short convolutions only.
    Convolution,
    /// Several of the above in one model.
    Hybrid,
}

impl Family {
    /// The family's name in lists and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Ssm => "ssm",
            Self::LinearRnn => "linear-rnn",
            Self::Rnn => "rnn",
            Self::Convolution => "convolution",
            Self::Hybrid => "hybrid",
        }
    }
}

/// How the recurrent state grows with the number of tokens read.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateGrowth {
    /// The same size at every length.
    Constant,
    /// Grows up to a window and then stays.
    Window,
    /// Grows with every token.
    Linear,
}

impl StateGrowth {
    /// The growth's name in lists and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Window => "window",
            Self::Linear => "linear",
        }
    }
}

/// One architecture that a library can build.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct ArchitectureInfo {
    /// The name `--arch` takes: `mamba2`.
    pub name: RString,
    /// One line for a list.
    pub title: RString,
    /// Its inductive bias.
    pub family: Family,
    /// BibTeX of the paper that defines it; several entries may follow each other.
    pub citation: RString,
    /// Its options, checked by the host before a model is built.
    pub options: RVec<OptionSpec>,
    /// State growth at the default options; a model reports its own.
    pub state_growth: StateGrowth,
    /// Devices it can run on: `cpu`, `cuda`.
    pub devices: RVec<RString>,
    /// Declared capabilities, see [`capability`].
    pub capabilities: RVec<RString>,
    /// Later additions.
    pub extra: Pairs,
}

/// Names of optional capabilities that an architecture may declare.
pub mod capability {
    /// `train_step` and `loss_and_gradients` work.
    pub const TRAIN: &str = "train";
    /// Sessions can be forked.
    pub const FORK: &str = "fork";
    /// The model can be built in a naive reference form to be compared with, see
    /// [`extra`](crate::data::extra).
    pub const REFERENCE: &str = "reference";
    /// Session state can be exported and imported.
    pub const EXPORT_STATE: &str = "export-state";
    /// A training can be exported between two steps, and imported to go on there.
    pub const EXPORT_TRAINING: &str = "export-training";
    /// Its loss jumps where a choice changes, such as a router's. Gradients are those between jumps.
    pub const JUMPS: &str = "jumps";
}

/// Names that no option may have: they are sizes and settings of every model, given beside its options.
pub const RESERVED: [&str; 9] = [
    "d_model",
    "layers",
    "initial_state",
    "vocab",
    "max_train_length",
    "train_length",
    "seed",
    "device",
    "threads",
];

/// Name of a pair in [`ArchitectureInfo::extra`] whose value is the name of an operation that is computed as it is
/// written, number by number, for want of a fast form; one pair an operation.
pub const NAIVE: &str = "naive";

/// Beginning of a model's note that names the operations which its reference form takes as they are.
pub const WITHOUT_REFERENCE: &str = "without a reference form: ";

/// One typed option with its default and limits.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct OptionSpec {
    /// The name before the `=`.
    pub name: RString,
    /// One sentence, with the unit where there is one.
    pub help: RString,
    /// Type, default and limits.
    pub kind: OptionKind,
}

/// Type, default and limits of an option. Both limits are allowed values.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, PartialEq)]
pub enum OptionKind {
    /// A whole number.
    Integer {
        /// Value when the user gives none.
        default: i64,
        /// Smallest allowed value.
        min: i64,
        /// Largest allowed value.
        max: i64,
    },
    /// A real number.
    Float {
        /// Value when the user gives none.
        default: f64,
        /// Smallest allowed value.
        min: f64,
        /// Largest allowed value.
        max: f64,
    },
    /// `true` or `false`.
    Boolean {
        /// Value when the user gives none.
        default: bool,
    },
    /// One of a fixed set of words.
    Choice {
        /// Value when the user gives none.
        default: RString,
        /// Every allowed word.
        choices: RVec<RString>,
    },
    /// Free text that the plugin itself parses and checks when a model is built.
    Text {
        /// Value when the user gives none.
        default: RString,
    },
}

/// The checked value of an option.
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// A whole number.
    Integer(i64),
    /// A real number.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A word of a choice, or free text.
    Text(RString),
}

impl std::fmt::Display for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value}"),
        }
    }
}

impl OptionKind {
    /// The value used when the user gives none.
    pub fn default_value(&self) -> OptionValue {
        match self {
            Self::Integer { default, .. } => OptionValue::Integer(*default),
            Self::Float { default, .. } => OptionValue::Float(*default),
            Self::Boolean { default } => OptionValue::Boolean(*default),
            Self::Choice { default, .. } | Self::Text { default } => {
                OptionValue::Text(default.clone())
            }
        }
    }

    /// The allowed values in words: `integer 1..1024`.
    pub fn limits(&self) -> String {
        match self {
            Self::Integer { min, max, .. } => format!("integer {min}..{max}"),
            Self::Float { min, max, .. } => format!("number {min}..{max}"),
            Self::Boolean { .. } => "true or false".to_owned(),
            Self::Choice { choices, .. } => {
                let words: Vec<&str> = choices.iter().map(|choice| choice.as_str()).collect();
                words.join(" | ")
            }
            Self::Text { .. } => "text".to_owned(),
        }
    }
}

impl OptionSpec {
    /// Parses and checks a value given as text.
    ///
    /// # Errors
    /// One sentence with the option, the text and the limits.
    pub fn parse(&self, text: &str) -> Result<OptionValue, String> {
        let refuse = || {
            format!(
                "option `{}` is {}, not `{text}`",
                self.name,
                self.kind.limits()
            )
        };
        match &self.kind {
            OptionKind::Integer { min, max, .. } => text
                .parse::<i64>()
                .ok()
                .filter(|value| (min..=max).contains(&value))
                .map(OptionValue::Integer)
                .ok_or_else(refuse),
            OptionKind::Float { min, max, .. } => text
                .parse::<f64>()
                .ok()
                .filter(|value| (min..=max).contains(&value))
                .map(OptionValue::Float)
                .ok_or_else(refuse),
            OptionKind::Boolean { .. } => text
                .parse::<bool>()
                .map(OptionValue::Boolean)
                .map_err(|_| refuse()),
            OptionKind::Choice { choices, .. } => choices
                .iter()
                .find(|choice| choice.as_str() == text)
                .map(|choice| OptionValue::Text(choice.clone()))
                .ok_or_else(refuse),
            OptionKind::Text { .. } => Some(text)
                .filter(|text| is_option_text(text))
                .map(|text| OptionValue::Text(text.into()))
                .ok_or_else(refuse),
        }
    }
}

/// Whether a text can be the value of an option: on one line, without the comma that ends a value.
pub fn is_option_text(text: &str) -> bool {
    !text.contains(|c: char| c == ',' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_options_stay_on_their_line() {
        let option = OptionSpec {
            name: "pattern".into(),
            help: "".into(),
            kind: OptionKind::Text { default: "".into() },
        };
        assert!(option.parse("mamba2*3+attention").is_ok() && option.parse("").is_ok());
        for no in ["a\nb", "a\u{1b}[2J", "a,b"] {
            assert!(option.parse(no).is_err(), "{no:?}");
        }
    }
}
