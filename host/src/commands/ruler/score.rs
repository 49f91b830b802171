//! `longhaul ruler score`: a file of predictions against the file of samples that they answer, line by line. The
//! field `index` is not looked at: in RULER's own needle files it is a place in a text, not a number of a sample.

use std::path::{Path, PathBuf};

use longhaul_results::metric::{Kind, Scores};
use longhaul_results::statistics::{mean, standard_deviation};
use longhaul_tasks::ruler::score::{is_null, score};
use longhaul_tasks::{Metric, TaskSpec, registry};
use serde::Deserialize;
use serde_json::Value;

use crate::audit::says_cut;
use crate::cli::RulerScoreArgs;
use crate::commands::print;
use crate::exit::CommandError;
use crate::export::ruler::{Column, summary};
use crate::json_lines::Lines;

/// Samples of other lines that are looked at for the one that a prediction answers.
const REMEMBERED: usize = 100_000;

/// A sample, as far as scores need it.
#[derive(Deserialize)]
struct Sample {
    input: String,
    outputs: Vec<String>,
    #[serde(default)]
    answer_prefix: String,
}

/// A prediction as RULER writes it. An answer that is not there is a null.
#[derive(Deserialize)]
struct Prediction {
    #[serde(default)]
    pred: Option<String>,
    #[serde(default)]
    input: Option<String>,
    #[serde(default)]
    outputs: Option<Vec<String>>,
    #[serde(default)]
    truncation: Value,
}

/// What was counted.
#[derive(Default)]
struct Counted {
    scores: Vec<f64>,
    nulls: usize,
    truncated: usize,
}

/// Scores a file and says the result; `--summary` writes it in RULER's form too.
///
/// # Errors
/// A task that is none of RULER's; a file that cannot be read; a line that is no prediction; lines that are
/// missing, doubled or in another order, with file and line.
pub fn run(args: &RulerScoreArgs) -> Result<u8, CommandError> {
    let spec = task(args)?;
    let counted = count(args, spec.metric)?;
    let value = mean(&counted.scores)
        .ok_or_else(|| CommandError::usage(format!("{}: it has no line", args.data.display())))?;
    let text = said(spec, &counted, value);
    if let Some(path) = &args.summary {
        let column = Column {
            task: spec.name,
            value,
            nulls: counted.nulls,
            samples: counted.scores.len(),
        };
        std::fs::write(path, summary(&[column]))
            .map_err(|error| CommandError::environment(format!("{}: {error}", path.display())))?;
    }
    print(&text).map(|()| 0)
}

/// Scores each line of the predictions against the same line of the data.
fn count(args: &RulerScoreArgs, metric: Metric) -> Result<Counted, CommandError> {
    let mut data = Lines::open(&args.data)?;
    let mut predictions = Lines::open(&args.predictions)?;
    let mut counted = Counted::default();
    loop {
        let (sample, prediction) = (
            data.next_object::<Sample>()?,
            predictions.next_object::<Prediction>()?,
        );
        let (sample, prediction) = match (sample, prediction) {
            (Some(sample), Some(prediction)) => (sample, prediction),
            (None, None) => return Ok(counted),
            (Some(_), None) => {
                return Err(predictions.error(format!(
                    "the file ends, and {} has more lines; a prediction for each is needed",
                    args.data.display()
                )));
            }
            (None, Some(_)) => {
                return Err(predictions.error(format!(
                    "a prediction too many: {} has {} lines; one may be doubled",
                    args.data.display(),
                    data.number - 1
                )));
            }
        };
        match answers(&prediction, &sample) {
            Some(true) => {}
            Some(false) => return Err(wrong_line(args, &predictions, &prediction)),
            None => {
                return Err(predictions.error(
                    "it has neither `outputs` nor `input`, so nothing says which sample it answers",
                ));
            }
        }
        let pred = prediction.pred.unwrap_or_default();
        counted.scores.push(score(metric, &pred, &sample.outputs));
        counted.nulls += usize::from(is_null(&pred));
        counted.truncated += usize::from(says_cut(&prediction.truncation));
    }
}

/// Whether a prediction answers a sample, by what it repeats of it. Some software puts the answer prefix at
/// the end of `input`.
fn answers(prediction: &Prediction, sample: &Sample) -> Option<bool> {
    let outputs = prediction
        .outputs
        .as_ref()
        .map(|outputs| *outputs == sample.outputs);
    let input = prediction.input.as_ref().map(|input| {
        let rest = input.strip_prefix(sample.input.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest == sample.answer_prefix)
    });
    match (outputs, input) {
        (None, None) => None,
        (outputs, input) => Some(outputs.unwrap_or(true) && input.unwrap_or(true)),
    }
}

/// The error of a prediction that answers another sample than that of its line, which is looked for.
fn wrong_line(args: &RulerScoreArgs, at: &Lines, prediction: &Prediction) -> CommandError {
    let mut data = match Lines::open(&args.data) {
        Ok(data) => data,
        Err(error) => return error,
    };
    let mut found = None;
    while data.number < REMEMBERED {
        match data.next_object::<Sample>() {
            Ok(Some(sample)) if answers(prediction, &sample) == Some(true) => {
                found = Some(data.number);
                break;
            }
            Ok(Some(_)) => {}
            _ => break,
        }
    }
    let (file, line) = (args.data.display(), at.number);
    at.error(match found {
        Some(other) if other < line => format!(
            "it answers line {other} of {file}, not line {line}: a line is doubled, or the order is another"
        ),
        Some(other) => format!(
            "it answers line {other} of {file}, not line {line}: a line is missing, or the order is another"
        ),
        None => format!("it answers no sample of {file}"),
    })
}

/// The result in words.
fn said(spec: &TaskSpec, counted: &Counted, value: f64) -> String {
    let samples = counted.scores.len();
    let scores = Scores {
        samples: samples as u64,
        mean: value,
        sd: standard_deviation(&counted.scores),
    };
    let interval = Kind::of(spec.metric.name()).interval(&scores);
    let interval = interval.map_or_else(String::new, |(kind, (low, high))| {
        format!(", 95 % {:.2} to {:.2} ({kind})", 100.0 * low, 100.0 * high)
    });
    format!(
        "{}: {} {:.2} %{interval}\n{samples} samples, {} nulls, {} of truncated prompts; all of them count\n",
        spec.name,
        spec.metric.name(),
        100.0 * value,
        counted.nulls,
        counted.truncated
    )
}

/// The task that is named, or whose name the predictions or their folder have.
fn task(args: &RulerScoreArgs) -> Result<&'static TaskSpec, CommandError> {
    let generated = |spec: &&&TaskSpec| spec.metric.is_string_match();
    let find = |name: &str| {
        registry()
            .iter()
            .filter(generated)
            .find(|spec| spec.name == name)
            .copied()
    };
    let known = || {
        let names: Vec<&str> = registry()
            .iter()
            .filter(generated)
            .map(|spec| spec.name)
            .collect();
        names.join(", ")
    };
    if let Some(name) = &args.task {
        return find(name).ok_or_else(|| {
            CommandError::usage(format!(
                "`{name}` is none of RULER's tasks, which are {}",
                known()
            ))
        });
    }
    let names = |path: &PathBuf| {
        let folder = path.parent().and_then(Path::file_name);
        let names = [path.file_stem(), folder].into_iter().flatten();
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    let mut names = names(&args.predictions)
        .into_iter()
        .chain(names(&args.data));
    names.find_map(|name| find(&name)).ok_or_else(|| {
        CommandError::usage(format!(
            "neither {} nor {} has the name of a task; give one with --task: {}",
            args.predictions.display(),
            args.data.display(),
            known()
        ))
    })
}
