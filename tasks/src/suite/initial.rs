//! What recurrent state a sequence starts from: an axis of training and of evaluation (arXiv 2507.02782,
//! section 4).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A policy for the state before the first token. It is about state of a fixed size; caches are empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum InitialState {
    /// The architecture's own.
    #[default]
    Zero,
    /// Each value from a normal distribution of mean 0 and this deviation.
    Noise(f64),
    /// Each value from a normal distribution with the mean and deviation that the values of its part of its
    /// layer have after training sequences.
    Fitted,
    /// The state after another training sequence.
    Passed,
}

/// Largest deviation of noise.
const MOST: f64 = 1e3;

impl InitialState {
    /// Whether it is the architecture's own.
    pub fn is_zero(&self) -> bool {
        *self == Self::Zero
    }
}

impl fmt::Display for InitialState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => write!(f, "zero"),
            Self::Noise(deviation) => write!(f, "noise:{deviation}"),
            Self::Fitted => write!(f, "fitted"),
            Self::Passed => write!(f, "passed"),
        }
    }
}

impl FromStr for InitialState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "an initial state is `zero`, `fitted`, `passed` or `noise:DEVIATION` with a number above 0 and \
                 at most {MOST}, not `{}`",
                text.escape_debug()
            )
        };
        match text {
            "zero" => Ok(Self::Zero),
            "fitted" => Ok(Self::Fitted),
            "passed" => Ok(Self::Passed),
            _ => {
                let deviation = text
                    .strip_prefix("noise:")
                    .and_then(|text| text.parse().ok());
                let deviation = deviation.filter(|&deviation| deviation > 0.0 && deviation <= MOST);
                deviation.map(Self::Noise).ok_or_else(refused)
            }
        }
    }
}

impl TryFrom<String> for InitialState {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<InitialState> for String {
    fn from(state: InitialState) -> Self {
        state.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for state in [
            InitialState::Zero,
            InitialState::Noise(0.1),
            InitialState::Fitted,
            InitialState::Passed,
        ] {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        for text in [
            "",
            "none",
            "noise",
            "noise:",
            "noise:0",
            "noise:-1",
            "noise:NaN",
            "noise:1e9",
        ] {
            let refused = text.parse::<InitialState>().unwrap_err();
            assert!(refused.contains("noise:DEVIATION"), "{text}: {refused}");
        }
    }
}
