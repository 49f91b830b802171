//! Samples: a line an item, scored again where its answer and references are RULER's.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use longhaul_results::statistics::mean;
use longhaul_tasks::Metric;
use longhaul_tasks::ruler::score::score;
use serde_json::{Map, Value};

use super::is_length;
use crate::audit::prompt::Begins;
use crate::audit::ruler::metric_of;
use crate::audit::{Audited, Score, each_line, percent, same, stem};
use crate::exit::CommandError;

/// Keys of a sample that are no metric.
const NO_METRIC: [&str; 11] = [
    "doc_id",
    "doc",
    "target",
    "arguments",
    "resps",
    "filtered_resps",
    "filter",
    "metrics",
    "doc_hash",
    "prompt_hash",
    "target_hash",
];

/// What samples say under one metric and filter.
#[derive(Default)]
pub(super) struct Column {
    /// As they are written, without the -1 of samples of another length.
    pub(super) written: Vec<f64>,
    /// The same with them.
    pub(super) with_missing: Vec<f64>,
    /// Made again, where the answer and its references say how.
    again: Vec<f64>,
    /// Samples whose written score is the mean over references, and lower than the best one.
    mean_of_references: usize,
    /// Samples whose written score is another one, for no reason that is known.
    other: usize,
    /// Samples without a number.
    without: usize,
}

/// A file of samples.
pub struct Samples {
    pub audited: Audited,
    pub(super) folder: PathBuf,
    pub(super) task: String,
    /// By metric and filter, `metric,filter` as results have it.
    pub(super) columns: BTreeMap<String, Column>,
    /// Of RULER's tasks each `max_length`, and how many samples have it.
    pub(super) lengths: BTreeMap<u64, usize>,
    pub(super) items: u64,
}

/// What was seen on the way through a file.
#[derive(Default)]
struct Seen {
    columns: BTreeMap<String, Column>,
    lengths: BTreeMap<u64, usize>,
    items: HashSet<(String, u64)>,
    ids: BTreeSet<u64>,
    doubled: usize,
    prompts: usize,
    without_prefix: usize,
    other_prompt: usize,
    begins: Begins,
}

impl Seen {
    fn take(&mut self, task: &str, line: &Map<String, Value>) {
        let filter = line.get("filter").and_then(Value::as_str).unwrap_or("none");
        let id = line.get("doc_id").and_then(Value::as_u64);
        if let Some(id) = id {
            let new = self.items.insert((filter.to_owned(), id));
            self.doubled += usize::from(!new);
            // A prompt is looked at once, whatever is filtered out of its answer.
            if self.ids.insert(id) {
                self.prompt(line);
            }
        }
        let named: Vec<&str> = match line.get("metrics").and_then(Value::as_array) {
            Some(names) => names.iter().filter_map(Value::as_str).collect(),
            None => {
                let keys = line.keys().map(String::as_str);
                keys.filter(|key| !NO_METRIC.contains(key)).collect()
            }
        };
        let again = scored_again(task, line);
        let own = length(line).map(|length| length.to_string());
        for name in named {
            let column = self.columns.entry(format!("{name},{filter}")).or_default();
            column.take(
                line.get(name),
                is_length(name),
                again.filter(|_| own.as_deref() == Some(name)),
            );
        }
    }

    fn prompt(&mut self, line: &Map<String, Value>) {
        if let Some(length) = length(line) {
            *self.lengths.entry(length).or_default() += 1;
        }
        let Some(prompt) = line.get("arguments").and_then(first_argument) else {
            return;
        };
        self.prompts += 1;
        self.begins.count(prompt);
        let text = |name: &str| line.get("doc").and_then(|doc| doc.get(name)?.as_str());
        let prefix = text("gen_prefix").unwrap_or_default().trim_end();
        self.without_prefix += usize::from(!prompt.trim_end().ends_with(prefix));
        // Only RULER's documents are the prompt itself.
        let input = text("input").filter(|_| length(line).is_some());
        let is_there = input.is_none_or(|input| prompt.contains(input.trim()));
        self.other_prompt += usize::from(!is_there);
    }

    fn findings(&self) -> Vec<String> {
        let prompts = self.prompts;
        let some = |count: usize, words: &str| {
            (count > 0).then(|| format!("{count} of {prompts} prompts {words}"))
        };
        let found = [
            some(
                self.without_prefix,
                "do not end with the task's answer prefix (`gen_prefix`)",
            ),
            some(
                self.other_prompt,
                "do not hold their document whole: they were cut or changed",
            ),
            (self.doubled > 0).then(|| {
                format!(
                    "samples that stand there twice: {}; these items count more than others",
                    self.doubled
                )
            }),
        ];
        let found = found.into_iter().flatten();
        found.chain(self.begins.findings(prompts, false)).collect()
    }
}

impl Column {
    fn take(&mut self, value: Option<&Value>, of_length: bool, again: Option<[f64; 2]>) {
        let number = match value {
            Some(Value::Bool(right)) => Some(f64::from(u8::from(*right))),
            Some(value) => value.as_f64(),
            None => None,
        };
        let Some(number) = number else {
            self.without += 1;
            return;
        };
        self.with_missing.push(number);
        if of_length && number == -1.0 {
            return;
        }
        self.written.push(number);
        if let Some([best, shares]) = again {
            self.again.push(best);
            if !same(number, best, 0.0) {
                let is_mean = same(number, shares, 0.0);
                self.mean_of_references += usize::from(is_mean);
                self.other += usize::from(!is_mean);
            }
        }
    }

    fn findings(&self, name: &str) -> Vec<String> {
        let all = self.written.len();
        let value = mean(&self.again).unwrap_or(0.0);
        let mut found = Vec::new();
        if self.mean_of_references > 0 {
            found.push(format!(
                "{name}: {} of {all} samples have the mean over their references for a score; RULER's is the best of \
                 them, which makes {} of {}",
                self.mean_of_references,
                percent(value),
                percent(mean(&self.written).unwrap_or(0.0))
            ));
        }
        if self.other > 0 {
            found.push(format!(
                "{name}: {} of {all} samples have another score than their answer gives",
                self.other
            ));
        }
        if self.without > 0 && !self.written.is_empty() {
            found.push(format!(
                "{name}: {} samples have no number and are not counted",
                self.without
            ));
        }
        found
    }

    /// The scores that count.
    fn scores(&self) -> &[f64] {
        match self.again.len() == self.written.len() {
            true => &self.again,
            false => &self.written,
        }
    }
}

/// Reads samples of the task that the file's name has, `samples_TASK_DATE.jsonl`.
pub fn samples(path: &Path) -> Result<Samples, CommandError> {
    let name = stem(path);
    let name = name.strip_prefix("samples_").unwrap_or(&name);
    let task = match name.rsplit_once('_') {
        Some((task, date)) if date.starts_with("20") => task,
        _ => name,
    };
    let mut seen = Seen::default();
    let torn = each_line(path, |line: Map<String, Value>| seen.take(task, &line))?;
    let mut findings = seen.findings();
    let mut scores = Vec::new();
    for (name, column) in &seen.columns {
        if column.written.is_empty() {
            continue;
        }
        let metric = name.split(',').next().unwrap_or(name);
        findings.extend(column.findings(name));
        let length = metric.parse().ok();
        let called = match length {
            Some(_) => metric_of(task).name(),
            None => name,
        };
        let mut own = Score::of(task, called, column.scores());
        own.length = length;
        scores.push(own);
    }
    findings.extend(torn);
    Ok(Samples {
        audited: Audited {
            path: path.to_owned(),
            tool: "lm-evaluation-harness",
            what: format!(
                "lm-evaluation-harness samples of {task}, {} items",
                seen.ids.len()
            ),
            model: None,
            scores,
            findings,
            untold: "how long a prompt was for the model: give the results JSON beside it",
        },
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        task: task.to_owned(),
        columns: seen.columns,
        lengths: seen.lengths,
        items: seen.ids.len() as u64,
    })
}

/// RULER's length of a sample.
fn length(line: &Map<String, Value>) -> Option<u64> {
    let doc = line.get("doc")?;
    doc.get("outputs")?;
    doc.get("max_length")?.as_u64()
}

/// The prompt: the first argument of the first request.
fn first_argument(arguments: &Value) -> Option<&str> {
    let first = match arguments {
        Value::Object(requests) => requests.values().next()?,
        Value::Array(requests) => requests.first()?,
        _ => return None,
    };
    match first {
        Value::Object(arguments) => arguments.get("arg_0")?.as_str(),
        Value::Array(arguments) => arguments.first()?.as_str(),
        other => other.as_str(),
    }
}

/// The score that a sample of RULER's has by its answer, and the share of its references.
fn scored_again(task: &str, line: &Map<String, Value>) -> Option<[f64; 2]> {
    length(line)?;
    let references: Vec<String> = line["doc"]["outputs"]
        .as_array()?
        .iter()
        .filter_map(|reference| reference.as_str().map(str::to_owned))
        .collect();
    let mut answer = line.get("filtered_resps")?;
    while let Value::Array(answers) = answer {
        answer = answers.first()?;
    }
    let answer = answer.as_str()?;
    let by = |metric| score(metric, answer, &references);
    Some([by(metric_of(task)), by(Metric::StringMatchAll)])
}
