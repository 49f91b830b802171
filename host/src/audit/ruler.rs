//! RULER's predictions and summaries (`scripts/pred/call_api.py` and `scripts/eval/evaluate.py` of NVIDIA/RULER).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use longhaul_results::statistics::mean;
use longhaul_tasks::ruler::score::{is_null, score};
use longhaul_tasks::{Metric, registry};
use serde::Deserialize;
use serde_json::Value;

use super::prompt::Begins;
use super::{Audited, Entry, Score, each_line, missing_below, percent, same, stem};
use crate::exit::CommandError;

/// RULER rounds a score in percent to two digits after the point.
const ROUNDING: f64 = 0.5e-4;

/// A line of predictions.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    index: Value,
    #[serde(default)]
    pred: Option<String>,
    #[serde(default)]
    input: String,
    #[serde(default)]
    outputs: Vec<String>,
    #[serde(default)]
    truncation: Value,
}

/// A file of predictions.
pub struct Predictions {
    pub audited: Audited,
    folder: PathBuf,
    task: String,
    /// Mean over the items of the share of references that was found.
    shares: Option<f64>,
}

/// What was counted on the way through a file.
#[derive(Default)]
struct Counted {
    scores: Vec<f64>,
    shares: Vec<f64>,
    nulls: usize,
    cut: usize,
    prompts: usize,
    without_prefix: usize,
    without_reference: usize,
    doubled: usize,
    seen: HashSet<u64>,
    indices: BTreeSet<u64>,
    begins: Begins,
}

impl Counted {
    fn take(&mut self, line: &Line, metric: Metric, ends: &[&str]) {
        let pred = line.pred.as_deref().unwrap_or_default();
        self.scores.push(score(metric, pred, &line.outputs));
        let share = score(Metric::StringMatchAll, pred, &line.outputs);
        self.shares.push(share);
        self.nulls += usize::from(is_null(pred));
        self.cut += usize::from(says_cut(&line.truncation));
        self.without_reference += usize::from(line.outputs.is_empty());
        if !line.input.is_empty() {
            self.prompts += 1;
            let prompt = line.input.trim_end();
            let has = ends.is_empty() || ends.iter().any(|end| prompt.ends_with(end));
            self.without_prefix += usize::from(!has);
            self.begins.count(&line.input);
        }
        let mut hasher = DefaultHasher::new();
        (line.index.to_string(), &line.input, &line.outputs).hash(&mut hasher);
        self.doubled += usize::from(!self.seen.insert(hasher.finish()));
        self.indices.extend(line.index.as_u64());
    }

    fn findings(&self, task: &str, ends: &[&str]) -> Vec<String> {
        let all = self.scores.len();
        let some = |count: usize, words: String| (count > 0).then_some(words);
        let missing = match self.indices.last() {
            // In needle files an index is a place in the text, not a number of an item.
            Some(last) if !task.starts_with("niah") => {
                missing_below(*last, self.indices.len()) as usize
            }
            _ => 0,
        };
        let prefix = ends.first().unwrap_or(&"");
        let found = [
            some(
                self.cut,
                format!("{} of {all} prompts were cut (`truncation`)", self.cut),
            ),
            some(
                self.without_prefix,
                format!(
                    "{} of {} prompts do not end with RULER's answer prefix (`... {prefix}`): its own prediction script \
                     left it out until July 2026 (NVIDIA/RULER issue 107), and scores without it are lower",
                    self.without_prefix, self.prompts
                ),
            ),
            some(
                missing,
                format!(
                    "indices below the last that are not there: {missing}; these items left the denominator"
                ),
            ),
            some(
                self.doubled,
                format!(
                    "lines that stand there twice: {}; these items count more than others",
                    self.doubled
                ),
            ),
            some(
                self.without_reference,
                format!(
                    "{} of {all} lines have no reference; they count as wrong",
                    self.without_reference
                ),
            ),
        ];
        let found = found.into_iter().flatten();
        found
            .chain(self.begins.findings(self.prompts, true))
            .collect()
    }
}

/// Reads predictions of the task that the file's name has.
pub fn predictions(path: &Path) -> Result<Predictions, CommandError> {
    let task = task_of(&stem(path));
    let metric = metric_of(&task);
    let ends = prefix_ends(&task);
    let mut counted = Counted::default();
    let torn = each_line(path, |line: Line| counted.take(&line, metric, ends))?;
    let mut own = Score::of(&task, metric.name(), &counted.scores);
    own.length = length_of(path);
    let mut findings = counted.findings(&task, ends);
    findings.extend(torn);
    Ok(Predictions {
        audited: Audited {
            path: path.to_owned(),
            tool: "RULER",
            what: format!(
                "RULER predictions, {} lines, {} without an answer",
                counted.scores.len(),
                counted.nulls
            ),
            model: None,
            scores: vec![own],
            findings,
            untold: "whether a server cut prompts and did not say so",
        },
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        task,
        shares: mean(&counted.shares),
    })
}

/// Whether a prediction says that its prompt was cut: `true`, or a number of tokens; -1 is none.
pub fn says_cut(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
        _ => false,
    }
}

/// The task of a name, without the number of a part (`vt-0`).
fn task_of(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((task, part)) if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) => {
            task.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// Questions are scored by the best reference, all other tasks by the share of the references.
pub fn metric_of(task: &str) -> Metric {
    let known = registry().iter().find(|spec| spec.name == task);
    match known {
        Some(spec) if spec.metric.is_string_match() => spec.metric,
        _ if task.contains("qa") => Metric::StringMatchPart,
        _ => Metric::StringMatchAll,
    }
}

/// What prompts of a task end with; nothing where the task is not known.
fn prefix_ends(task: &str) -> &'static [&'static str] {
    let kind = task.split('_').next().unwrap_or_default();
    match kind {
        "niah" => &["in the provided text are", "in the provided text is"],
        "vt" => &["they are:"],
        "cwe" => &["in the list are:"],
        "fwe" => &["appeared words are:"],
        "qa" => &["Answer:"],
        _ => &[],
    }
}

/// RULER keeps predictions in `LENGTH/pred/TASK.jsonl`.
fn length_of(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let mut folders = path.ancestors().skip(1).take(2);
    folders.find_map(|folder| folder.file_name()?.to_str()?.parse().ok())
}

/// A summary.
pub struct Summary {
    pub audited: Audited,
    folder: PathBuf,
    /// Score as a share, and items, by task.
    tasks: BTreeMap<String, (f64, u64)>,
}

/// Whether a CSV file is a summary: its second line begins with `Tasks`.
pub fn is_summary(text: &[u8]) -> bool {
    let mut lines = text.split(|&byte| byte == b'\n');
    lines.nth(1).is_some_and(|line| line.starts_with(b"Tasks,"))
}

/// Reads a summary: a column a task, and the rows `Tasks`, `Score` and `Nulls`.
pub fn summary(path: &Path, text: &[u8]) -> Result<Summary, CommandError> {
    let wrong = |what: String| CommandError::usage(format!("{}: {what}", path.display()));
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let rows: Vec<csv::StringRecord> = reader
        .records()
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    let row = |name: &str| {
        let found = rows.iter().find(|row| row.get(0) == Some(name));
        found.ok_or_else(|| wrong(format!("it has no row `{name}`")))
    };
    let (names, scores, nulls) = (row("Tasks")?, row("Score")?, row("Nulls")?);
    let mut tasks = BTreeMap::new();
    let mut own = Vec::new();
    for (column, name) in names.iter().enumerate().skip(1) {
        let cell = |row: &csv::StringRecord, what: &str| {
            let text = row.get(column).map(str::to_owned);
            text.ok_or_else(|| wrong(format!("`{name}` has no {what}")))
        };
        let (score, of) = (cell(scores, "score")?, cell(nulls, "nulls")?);
        let value: f64 = score
            .parse()
            .map_err(|_| wrong(format!("the score of `{name}` is `{score}`, no number")))?;
        let items = of.split_once('/').and_then(|(_, all)| all.parse().ok());
        let items: u64 =
            items.ok_or_else(|| wrong(format!("the nulls of `{name}` are `{of}`, not k/n")))?;
        let metric = metric_of(name).name();
        let mut score = Score::stated(name, metric, value / 100.0, Some(items));
        score.length = length_of(path);
        own.push(score);
        if tasks
            .insert(name.to_owned(), (value / 100.0, items))
            .is_some()
        {
            return Err(wrong(format!("`{name}` stands there twice")));
        }
    }
    Ok(Summary {
        audited: Audited {
            path: path.to_owned(),
            tool: "RULER",
            what: format!("RULER summary of {} tasks", tasks.len()),
            model: None,
            findings: uneven(
                tasks
                    .iter()
                    .map(|(task, (_, items))| (task.as_str(), *items)),
            ),
            scores: own,
            untold: "the items: give the predictions beside it",
        },
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        tasks,
    })
}

/// Tasks that have fewer items than others of one evaluation.
fn uneven<'a>(tasks: impl Iterator<Item = (&'a str, u64)>) -> Vec<String> {
    let tasks: Vec<(&str, u64)> = tasks.collect();
    let most = tasks.iter().map(|(_, items)| *items).max().unwrap_or(0);
    let fewer = tasks.iter().filter(|(_, items)| *items < most);
    let found = fewer.map(|(task, items)| {
        format!(
            "{task} has {items} items, others {most}: {} may have left the denominator",
            most - items
        )
    });
    found.collect()
}

/// Holds summaries against predictions in their folder, and predictions of a folder against each other.
pub fn link(entries: &mut [Entry]) {
    let mut stated: Vec<(PathBuf, String, f64, u64)> = Vec::new();
    let mut folders: BTreeMap<PathBuf, Vec<(String, u64)>> = BTreeMap::new();
    for entry in entries.iter() {
        match entry {
            Entry::RulerSummary(file) => {
                let tasks = file.tasks.iter();
                let own = |(task, (score, items)): (&String, &(f64, u64))| {
                    (file.folder.clone(), task.clone(), *score, *items)
                };
                stated.extend(tasks.map(own));
            }
            Entry::Ruler(file) => {
                let items = file.audited.scores[0].samples.unwrap_or(0);
                let of_folder = folders.entry(file.folder.clone()).or_default();
                of_folder.push((file.task.clone(), items));
            }
            _ => {}
        }
    }
    for entry in entries.iter_mut() {
        let Entry::Ruler(file) = entry else { continue };
        let mut found: Vec<String> = Vec::new();
        let own = |(folder, task, ..): &&(PathBuf, String, f64, u64)| {
            *folder == file.folder && *task == file.task
        };
        match stated.iter().find(own) {
            Some((_, _, score, items)) => {
                file.audited.scores[0].stated = Some(*score);
                found.extend(against(file, *score, *items));
            }
            None => {
                let of_folder = &folders[&file.folder];
                let tasks = of_folder
                    .iter()
                    .map(|(task, items)| (task.as_str(), *items));
                let named = format!("{} has", file.task);
                found.extend(
                    uneven(tasks)
                        .into_iter()
                        .filter(|words| words.starts_with(&named)),
                );
            }
        }
        file.audited.findings.extend(found);
    }
}

/// What a summary says of predictions, and they do not.
fn against(file: &Predictions, stated: f64, items: u64) -> Vec<String> {
    let own = &file.audited.scores[0];
    let samples = own.samples.unwrap_or(0);
    let mut found = Vec::new();
    if items != samples {
        found.push(format!(
            "the summary counts {items} items, and {samples} are here"
        ));
    }
    let value = own.value.unwrap_or(0.0);
    if same(stated, value, ROUNDING) {
        return found;
    }
    let shares = file.shares.unwrap_or(0.0);
    found.push(if metric_of(&file.task) == Metric::StringMatchPart && same(stated, shares, ROUNDING) {
        format!(
            "the summary has the mean over references, {}; RULER's score is the best of them, {}",
            percent(stated),
            percent(value)
        )
    } else {
        format!(
            "the summary says {}, and these predictions give {}",
            percent(stated),
            percent(value)
        )
    });
    found
}
