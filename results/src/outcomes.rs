//! What each example of a cell scored, so that models can be compared on identical examples long after they were
//! measured: a CSV file a unit, a line a cell, written whole.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::journal::{JournalError, io, write_csv};
use crate::metric::Kind;
use crate::record::Split;

/// The folder of these files in a run's.
pub const FOLDER: &str = "outcomes";

/// Most examples of a cell whose outcomes are kept: a mean over more is settled by their number.
pub const MOST_EXAMPLES: u64 = 100_000;

/// Most bytes of a unit's file: some hundred cells of as many examples as are kept.
const MOST: u64 = 1 << 28;

/// The examples of a cell, in order of their index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Outcomes {
    /// What each example counts: answers that were scored, of a loss bytes of text, else 1.
    answers: Vec<f64>,
    /// What each scored: right answers, its share, of a loss its bits.
    scores: Vec<f64>,
}

/// The same as text: numbers separated by spaces, one where all are equal.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    examples: u64,
    answers: String,
    scores: String,
}

impl Outcomes {
    /// Of `(answers, score)` an example, in order of their index.
    ///
    /// # Errors
    /// Numbers that are not from 0 on, or other than 1 to [`MOST_EXAMPLES`] examples.
    pub fn new(examples: impl IntoIterator<Item = (f64, f64)>) -> Result<Self, String> {
        let (answers, scores): (Vec<f64>, Vec<f64>) = examples.into_iter().unzip();
        let count = answers.len() as u64;
        if !(1..=MOST_EXAMPLES).contains(&count) {
            return Err(format!("{count} examples; there are 1 to {MOST_EXAMPLES}"));
        }
        let all = answers.iter().chain(&scores);
        match all.copied().find(|&one| !(one.is_finite() && one >= 0.0)) {
            Some(one) => Err(format!("{one}, where all numbers are from 0 on")),
            None => Ok(Self { answers, scores }),
        }
    }

    /// What each example counts.
    pub fn answers(&self) -> &[f64] {
        &self.answers
    }

    /// What each scored.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Whether they can be of this kind: of accuracies no score is more than its answers, of answers that are
    /// right or wrong both are whole, and a share counts once.
    pub fn are(&self, kind: Kind) -> bool {
        let can_be = |(&answers, &score): (&f64, &f64)| match kind {
            Kind::ZeroOne => score <= answers && score.fract() == 0.0 && answers.fract() == 0.0,
            Kind::Share => score <= 1.0 && answers == 1.0,
            Kind::Loss => answers.fract() == 0.0,
        };
        self.answers.iter().zip(&self.scores).all(can_be)
    }

    /// Whether scores and answers add up to these sums, up to rounding.
    pub fn add_up(&self, scores: f64, answers: f64) -> bool {
        let near = |all: &[f64], sum: f64| {
            let own: f64 = all.iter().sum();
            (own - sum).abs() <= 1e-9 * sum.abs()
        };
        near(&self.scores, scores) && near(&self.answers, answers)
    }

    /// The mean that the cell's value is: all scores over all answers.
    pub fn mean(&self) -> f64 {
        self.scores.iter().sum::<f64>() / self.answers.iter().sum::<f64>()
    }
}

impl From<Outcomes> for Written {
    fn from(outcomes: Outcomes) -> Self {
        let text = |numbers: &[f64]| {
            let equal = numbers.iter().all(|one| *one == numbers[0]);
            let shown = if equal { &numbers[..1] } else { numbers };
            let shown: Vec<String> = shown.iter().map(f64::to_string).collect();
            shown.join(" ")
        };
        Self {
            examples: outcomes.scores.len() as u64,
            answers: text(&outcomes.answers),
            scores: text(&outcomes.scores),
        }
    }
}

impl TryFrom<Written> for Outcomes {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if written.examples > MOST_EXAMPLES {
            return Err(format!("{} examples", written.examples));
        }
        let count = written.examples as usize;
        let numbers = |what: &str, text: &str| -> Result<Vec<f64>, String> {
            let all: Result<Vec<f64>, _> = text.split(' ').map(str::parse).collect();
            let all = all.map_err(|error| format!("{what}: {error}"))?;
            match all.len() {
                1 => Ok(vec![all[0]; count]),
                found if found == count => Ok(all),
                found => Err(format!("{found} {what} of {count} examples")),
            }
        };
        let answers = numbers("answers", &written.answers)?;
        let scores = numbers("scores", &written.scores)?;
        Self::new(answers.into_iter().zip(scores))
    }
}

crate::table_row! {
/// A line of a unit's file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// Which examples.
    pub split: Split,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// What is measured of a sample.
    pub metric: String,
    /// Examples; of more than 100,000 no line is kept.
    pub examples: u64,
    /// What each example counts, in order of its index and separated by spaces; one number where all are equal.
    pub answers: String,
    /// What each scored, likewise.
    pub scores: String,
}
}

/// A cell of a unit.
pub type Key = (Split, u64);

/// The outcomes of a unit's cells, each with its metric.
pub type OfUnit = BTreeMap<Key, (String, Outcomes)>;

/// The file of a unit in a run's folder; `None` of a name that could lead out of it.
pub fn path(run: &Path, unit: &str) -> Option<PathBuf> {
    let plain = !unit.is_empty() && unit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| run.join(FOLDER).join(format!("{unit}.csv")))
}

/// Reads a unit's file; nothing where there is none.
///
/// # Errors
/// A line that is none; a link or a device; the system's refusal.
pub fn read(path: &Path) -> Result<OfUnit, JournalError> {
    let text = match files::read(path, MOST) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(OfUnit::new()),
        other => other.map_err(io("read", path))?,
    };
    let mut reader = csv::Reader::from_reader(text.as_slice());
    let mut cells = OfUnit::new();
    for (index, line) in reader.deserialize::<Line>().enumerate() {
        let refuse = |reason: String| JournalError::Line {
            path: path.to_owned(),
            line: index + 2,
            reason: reason.escape_debug().to_string(),
        };
        let line = line.map_err(|error| refuse(error.to_string()))?;
        let written = Written {
            examples: line.examples,
            answers: line.answers,
            scores: line.scores,
        };
        let outcomes = Outcomes::try_from(written).map_err(refuse)?;
        if !outcomes.are(Kind::of(&line.metric)) {
            return Err(refuse(format!("scores that no {} has", line.metric)));
        }
        cells.insert((line.split, line.eval_length), (line.metric, outcomes));
    }
    Ok(cells)
}

/// Puts a unit's cells in the place of its file, in order of split and length.
///
/// # Errors
/// The system's refusal; the old file is then as it was.
pub fn write(path: &Path, cells: &OfUnit) -> Result<(), JournalError> {
    let line = |(&(split, eval_length), (metric, outcomes)): (&Key, &(String, Outcomes))| {
        let written = Written::from(outcomes.clone());
        Line {
            split,
            eval_length,
            metric: metric.clone(),
            examples: written.examples,
            answers: written.answers,
            scores: written.scores,
        }
    };
    write_csv(path, &cells.iter().map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(examples: &[(f64, f64)]) -> Outcomes {
        Outcomes::new(examples.iter().copied()).expect("outcomes")
    }

    #[test]
    fn cells_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("u1.csv");
        assert_eq!(read(&path).unwrap(), OfUnit::new());
        let cells = OfUnit::from([
            (
                (Split::Test, 128),
                (
                    "token_accuracy".to_owned(),
                    outcomes(&[(4.0, 3.0), (4.0, 0.0)]),
                ),
            ),
            (
                (Split::Test, 64),
                (
                    "bits_per_byte".to_owned(),
                    outcomes(&[(7.0, 0.1), (9.0, 1e-9)]),
                ),
            ),
            (
                (Split::Validation, 64),
                ("exact_match".to_owned(), outcomes(&[(1.0, 1.0); 3])),
            ),
        ]);
        write(&path, &cells).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "split,eval_length,metric,examples,answers,scores\n\
             validation,64,exact_match,3,1,1\n\
             test,64,bits_per_byte,2,7 9,0.1 0.000000001\n\
             test,128,token_accuracy,2,4,3 0\n"
        );
        assert_eq!(read(&path).unwrap(), cells);
    }

    #[test]
    fn lines_that_no_cell_gives_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("u1.csv");
        for (line, words) in [
            ("test,64,exact_match,3,1,1 0", "2 scores of 3 examples"),
            ("test,64,exact_match,2,1,1 2", "no exact_match has"),
            ("test,64,exact_match,2,1,1 0.5", "no exact_match has"),
            ("test,64,string_match_all,2,2,1 0.5", "no string_match_all"),
            ("test,64,bits_per_byte,1,8,-1", "-1, where"),
            ("test,64,bits_per_byte,1,8,NaN", "NaN, where"),
            ("test,64,bits_per_byte,1,,1", "answers: "),
            ("test,64,exact_match,0,1,1", "0 examples"),
            ("test,64,exact_match,18446744073709551615,1,1", "examples"),
            ("train,64,exact_match,1,1,1", "unknown variant"),
            ("test,64,exact_match,1,1", "fields"),
        ] {
            let head = "split,eval_length,metric,examples,answers,scores";
            std::fs::write(&path, format!("{head}\n{line}\n")).unwrap();
            let refused = read(&path).expect_err(line).to_string();
            assert!(
                refused.contains(words) && refused.contains("u1.csv line 2"),
                "{line}: {refused}"
            );
        }
        std::fs::write(&path, "a,b\n1,2\n").unwrap();
        read(&path).unwrap_err();
    }

    #[test]
    fn names_stay_in_the_folder() {
        let run = Path::new("run");
        let inside = path(run, "u0123abcd").expect("a name");
        assert_eq!(inside, Path::new("run/outcomes/u0123abcd.csv"));
        for name in ["", "..", "../x", "a/b", "a\0", "a.b"] {
            assert_eq!(path(run, name), None, "{name}");
        }
    }
}
