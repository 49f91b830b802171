//! How the lengths of training sequences are drawn: an axis of training, as published numbers of one task and
//! architecture differ through it by tens of points. arXiv 2207.02098 draws uniformly, and its code has the others.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A distribution of training lengths between a shortest and a longest one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrainDistribution {
    /// Always the longest.
    Fixed,
    /// Each as likely.
    #[default]
    Uniform,
    /// Uniform from the shortest to a longest one that itself grows from the shortest to the longest, by one token
    /// after equal numbers of steps, over this part of the training. It is the `RegularIncreaseCurriculum` over all
    /// lengths so far of the code of arXiv 2207.02098.
    Curriculum(f64),
}

/// The part of a training over which a curriculum grows that does not say otherwise.
const PART: f64 = 0.5;

impl TrainDistribution {
    /// Refuses an empty list, and distributions that are not told apart, as all training sequences have one length; `of` says whose.
    ///
    /// # Errors
    /// A sentence with that length and what to do.
    pub fn check_all(all: &[Self], (min, max): (usize, usize), of: &str) -> Result<(), String> {
        if all.is_empty() {
            return Err(format!(
                "train_distributions of {of} is empty; give at least one"
            ));
        }
        let tells = |one: &Self| matches!(one, Self::Curriculum(_)) || *one != all[0];
        if min < max || !all.iter().any(tells) {
            return Ok(());
        }
        let names: Vec<String> = all.iter().map(Self::to_string).collect();
        Err(format!(
            "{of} has training sequences of {max} tokens only, of which {} are the same; give a range of lengths \
             (train_length_min, --train-length MIN..MAX), or `fixed` alone",
            names.join(", ")
        ))
    }
}

impl fmt::Display for TrainDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed => write!(f, "fixed"),
            Self::Uniform => write!(f, "uniform"),
            Self::Curriculum(part) => write!(f, "curriculum:{part}"),
        }
    }
}

impl FromStr for TrainDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = match text {
            "fixed" => return Ok(Self::Fixed),
            "uniform" => return Ok(Self::Uniform),
            "curriculum" => Some(PART),
            _ => text
                .strip_prefix("curriculum:")
                .and_then(|part| part.parse().ok())
                .filter(|&part| part > 0.0 && part <= 1.0),
        };
        part.map(Self::Curriculum).ok_or_else(|| {
            format!(
                "a distribution of training lengths is `fixed`, `uniform`, `curriculum` or `curriculum:PART` with the \
                 part of the training over which it grows, above 0 and at most 1, not `{}`",
                text.escape_debug()
            )
        })
    }
}

impl TryFrom<String> for TrainDistribution {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TrainDistribution> for String {
    fn from(distribution: TrainDistribution) -> Self {
        distribution.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        use TrainDistribution::{Curriculum, Fixed, Uniform};
        for one in [Fixed, Uniform, Curriculum(0.5), Curriculum(1.0)] {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        assert_eq!("curriculum".parse(), Ok(Curriculum(0.5)));
        for text in [
            "",
            "Fixed",
            "curriculum:",
            "curriculum:0",
            "curriculum:1.1",
            "curriculum:-1",
            "curriculum:NaN",
        ] {
            let refused = text.parse::<TrainDistribution>().unwrap_err();
            assert!(refused.contains("curriculum:PART"), "{text}: {refused}");
        }
    }

    #[test]
    fn one_length_has_one_distribution() {
        use TrainDistribution::{Curriculum, Fixed, Uniform};
        let check = |all: &[_], min| TrainDistribution::check_all(all, (min, 40), "task `parity`");
        assert_eq!(check(&[Fixed, Uniform, Curriculum(0.5)], 3), Ok(()));
        assert_eq!(check(&[Uniform], 40), Ok(()));
        assert_eq!(check(&[Fixed, Fixed], 40), Ok(()));
        for all in [&[Fixed, Uniform][..], &[Curriculum(0.5)]] {
            let refused = check(all, 40).unwrap_err();
            assert!(refused.contains("40 tokens only"), "{refused}");
        }
        assert!(check(&[], 3).unwrap_err().contains("at least one"));
    }
}
