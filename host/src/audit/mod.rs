//! Result files of other tools, read as they were written: scores made again from their items, intervals put on,
//! and what is wrong with the numbers that stand in them. Nothing is corrected in silence: a number that is another
//! one than the file says is a finding.

mod babilong;
pub mod foreign;
mod helmet;
mod lm_eval;
mod longbench;
mod prompt;
mod ruler;

use std::io::Read;
use std::path::{Path, PathBuf};

use longhaul_results::metric::{Kind, Scores};
use longhaul_results::statistics::{mean, standard_deviation};
use serde_json::Value;

pub use ruler::says_cut;

use crate::exit::CommandError;
use crate::json_lines::{Lines, parse};

/// Most bytes of a file that is read as a whole.
const MOST_BYTES: u64 = 1 << 30;

/// A file, its scores, and what was found.
#[derive(Debug)]
pub struct Audited {
    /// The file.
    pub path: PathBuf,
    /// Who writes such a file.
    pub tool: &'static str,
    /// What it holds, in words.
    pub what: String,
    /// The model, where the file names it.
    pub model: Option<String>,
    /// Its scores.
    pub scores: Vec<Score>,
    /// What is wrong, a sentence each.
    pub findings: Vec<String>,
    /// What such a file cannot tell.
    pub untold: &'static str,
}

/// The score of a task.
#[derive(Debug, Clone)]
pub struct Score {
    /// Task, as the tool calls it.
    pub task: String,
    /// Length in tokens, where the file says it.
    pub length: Option<u64>,
    /// Metric, as the tool calls it.
    pub metric: String,
    /// Items that count.
    pub samples: Option<u64>,
    /// Mean over them, made again; what the file says where it has no items.
    pub value: Option<f64>,
    /// Its 95 % interval, and how that was made.
    pub interval: Option<(&'static str, (f64, f64))>,
    /// What a file of the tool says, as a number of the same kind.
    pub stated: Option<f64>,
    /// Whether `value` was made of items.
    pub of_items: bool,
}

impl Score {
    /// Of the scores of items.
    fn of(task: &str, metric: &str, scores: &[f64]) -> Self {
        let samples = scores.len() as u64;
        let value = mean(scores);
        let zero_one = scores.iter().all(|&score| score == 0.0 || score == 1.0);
        let share = scores.iter().all(|score| (0.0..=1.0).contains(score));
        let kind = match (zero_one, share) {
            (true, _) => Kind::ZeroOne,
            (_, true) => Kind::Share,
            _ => Kind::Loss,
        };
        let interval = value.and_then(|mean| {
            kind.interval(&Scores {
                samples,
                mean,
                sd: standard_deviation(scores),
            })
        });
        Self {
            task: task.to_owned(),
            length: None,
            metric: metric.to_owned(),
            samples: Some(samples),
            value,
            interval,
            stated: None,
            of_items: true,
        }
    }

    /// Of a share that a file states, of so many items where it says so.
    fn stated(task: &str, metric: &str, value: f64, samples: Option<u64>) -> Self {
        let share = (0.0..=1.0).contains(&value);
        let scores = samples.filter(|_| share).map(|samples| Scores {
            samples,
            mean: value,
            sd: None,
        });
        Self {
            task: task.to_owned(),
            length: None,
            metric: metric.to_owned(),
            samples,
            value: Some(value),
            interval: scores.and_then(|scores| Kind::Share.interval(&scores)),
            stated: Some(value),
            of_items: false,
        }
    }
}

/// How many of the numbers from 0 to `last` are missing among so many different ones that it is the largest of.
fn missing_below(last: u64, count: usize) -> u64 {
    // Not `last + 1`, which no number may be left for.
    last - (count as u64).saturating_sub(1)
}

/// A file that was read, with what others beside it are held against.
enum Entry {
    Ruler(ruler::Predictions),
    RulerSummary(ruler::Summary),
    Samples(lm_eval::Samples),
    Results(lm_eval::Results),
    Answers(babilong::Answers),
    Other(Audited),
}

/// Reads files, and holds those of one tool against each other.
///
/// # Errors
/// A file that cannot be read, or is none of the forms that are known.
pub fn audit(paths: &[PathBuf]) -> Result<Vec<Audited>, CommandError> {
    let entries = paths.iter().map(|path| read(path));
    let mut entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    ruler::link(&mut entries);
    lm_eval::link(&mut entries);
    babilong::link(&mut entries);
    let audited = entries.into_iter().map(|entry| match entry {
        Entry::Ruler(file) => file.audited,
        Entry::RulerSummary(file) => file.audited,
        Entry::Samples(file) => file.audited,
        Entry::Results(file) => file.audited,
        Entry::Answers(file) => file.audited,
        Entry::Other(audited) => audited,
    });
    Ok(audited.collect())
}

/// Reads a file in the form that its name's end and its first keys say.
fn read(path: &Path) -> Result<Entry, CommandError> {
    let extension = path.extension().and_then(|end| end.to_str());
    match extension {
        Some("csv") => {
            let text = whole(path)?;
            if ruler::is_summary(&text) {
                ruler::summary(path, &text).map(Entry::RulerSummary)
            } else {
                babilong::read(path, &text)
            }
        }
        Some("jsonl") => {
            let Some(first) = Lines::open(path)?.next_object::<Value>()? else {
                return Err(unknown(path, "it is empty"));
            };
            let has = |names: &[&str]| names.iter().all(|name| first.get(name).is_some());
            if has(&["doc_id", "doc"]) {
                lm_eval::samples(path).map(Entry::Samples)
            } else if has(&["choice_A", "response"]) {
                longbench::read(path).map(Entry::Other)
            } else if has(&["pred", "outputs"]) {
                ruler::predictions(path).map(Entry::Ruler)
            } else {
                Err(unknown(path, "its first line has the keys of none of them"))
            }
        }
        Some("json") => {
            let value: Value = parse(&whole(path)?)
                .map_err(|error| CommandError::usage(format!("{}: {error}", path.display())))?;
            if value.get("averaged_metrics").is_some() {
                helmet::read(path, &value).map(Entry::Other)
            } else if value.get("results").is_some_and(Value::is_object) {
                Ok(Entry::Results(lm_eval::results(path, value)))
            } else {
                Err(unknown(path, "its keys are those of none of them"))
            }
        }
        _ if path.is_dir() => Err(unknown(path, "it is a folder; name the files in it")),
        _ if !path.exists() => Err(unknown(path, "there is no such file")),
        _ => Err(unknown(
            path,
            "its name ends neither in .jsonl, .json nor .csv",
        )),
    }
}

fn unknown(path: &Path, why: &str) -> CommandError {
    CommandError::usage(format!(
        "{}: {why}. Known are RULER's predictions (.jsonl) and summary.csv, lm-evaluation-harness' results (.json) \
         and samples (.jsonl), BABILong's answers and tables (.csv), HELMET's .json and LongBench v2's .jsonl",
        path.display()
    ))
}

/// The bytes of a plain file that is not too large.
fn whole(path: &Path) -> Result<Vec<u8>, CommandError> {
    let read = || {
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("it is not a plain file"));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            let most = format!("it has more than {MOST_BYTES} bytes");
            return Err(std::io::Error::other(most));
        }
        Ok(bytes)
    };
    read().map_err(|error| CommandError::usage(format!("{}: {error}", path.display())))
}

/// Goes through the lines of a file; a sentence where the last one is torn.
fn each_line<T: serde::de::DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(T),
) -> Result<Option<String>, CommandError> {
    let mut lines = Lines::open(path)?;
    loop {
        match lines.next_object() {
            Ok(Some(line)) => take(line),
            Ok(None) => return Ok(None),
            Err(_) if lines.unended => {
                return Ok(Some(format!(
                    "line {}, the last one, is torn and does not count: its writer was stopped",
                    lines.number
                )));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The name of a file without its ending.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// Whether two numbers are the same but for rounding to so much.
fn same(one: f64, other: f64, rounding: f64) -> bool {
    (one - other).abs() <= rounding + 1e-9 * one.abs().max(other.abs())
}

/// A share in percent.
fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_missing_below_the_last() {
        assert_eq!(missing_below(9, 10), 0);
        assert_eq!(missing_below(9, 4), 6);
        assert_eq!(missing_below(u64::MAX, 1), u64::MAX);
    }
}
