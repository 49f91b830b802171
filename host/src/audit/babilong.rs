//! BABILong's answers and tables (`babilong/metrics.py` and `babilong/collect_results.py` of booydar/babilong).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use longhaul_results::statistics::mean;
use longhaul_tasks::ruler::score::names_only;
use longhaul_tasks::ruler::story::Kind;

use super::{Audited, Entry, Score, missing_below, percent, same, stem, unknown};
use crate::exit::CommandError;

/// The answers that a task has, in small letters; of bAbI's tasks 1 to 20.
fn labels(task: &str) -> Option<&'static [&'static str]> {
    Some(match task {
        "qa1" | "qa2" | "qa3" | "qa4" | "qa11" | "qa12" | "qa13" => Kind::One.labels(),
        "qa5" => Kind::Given.labels(),
        "qa6" | "qa9" | "qa17" | "qa18" => &["no", "yes"],
        "qa7" => &["none", "one", "three", "two"],
        "qa8" => &["apple", "football", "milk", "nothing"],
        "qa10" => &["maybe", "no", "yes"],
        "qa14" => &["bedroom", "cinema", "kitchen", "office", "park", "school"],
        "qa15" => &["cat", "mouse", "sheep", "wolf"],
        "qa16" => &["gray", "green", "white", "yellow"],
        "qa19" => &[
            "e,e", "e,n", "e,s", "n,e", "n,n", "n,w", "s,e", "s,s", "s,w", "w,n", "w,s", "w,w",
        ],
        "qa20" => &[
            "bedroom", "bored", "garden", "hungry", "kitchen", "thirsty", "tired",
        ],
        _ => return None,
    })
}

/// Whether an answer names the target and no other label that the question does not. `cut` ends the answer where the
/// model goes on with a question of its own, as the tool means to and does not: it looks for a capital letter in a
/// text of small ones.
fn is_right(target: &str, output: &str, question: &str, labels: &[&str], cut: bool) -> bool {
    let (mut output, question) = (output.to_lowercase(), question.to_lowercase());
    if cut && let Some(place) = output.find("question") {
        output.truncate(place);
    }
    let labels = labels.iter().filter(|label| !question.contains(**label));
    let labels: Vec<&str> = labels.copied().collect();
    let targets: Vec<&str> = match target.contains(',') && target.len() > 3 {
        true => target.split(',').collect(),
        false => vec![target],
    };
    names_only(&output, &targets, &labels)
}

/// A file of answers.
pub struct Answers {
    pub audited: Audited,
    folder: PathBuf,
    /// Task and length, and how it was asked.
    what: String,
    setup: String,
}

/// Reads a CSV file: answers, or a table of scores.
pub fn read(path: &Path, text: &[u8]) -> Result<Entry, CommandError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let wrong = |error: csv::Error| CommandError::usage(format!("{}: {error}", path.display()));
    let heads = reader.headers().map_err(wrong)?.clone();
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().map_err(wrong)?;
    let place = |name: &str| heads.iter().position(|head| head == name);
    if let (Some(target), Some(output), Some(question)) =
        (place("target"), place("output"), place("question"))
    {
        let torn = !text.ends_with(b"\n");
        return answers(path, &rows, [target, output, question], torn).map(Entry::Answers);
    }
    if heads.iter().any(is_length) {
        return Ok(Entry::Other(table(path, &heads, &rows)));
    }
    Err(unknown(path, "its columns are those of none of them"))
}

fn is_length(head: &str) -> bool {
    let number = head.strip_suffix(['k', 'M']);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Answers of the task, length and set-up that the file's name has: `qa1_4k_instruction_yes_...`.
fn answers(
    path: &Path,
    rows: &[csv::StringRecord],
    [target, output, question]: [usize; 3],
    torn: bool,
) -> Result<Answers, CommandError> {
    let name = stem(path);
    let mut parts = name.splitn(3, '_');
    let (task, length) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let labels = labels(task).filter(|_| is_length(length)).ok_or_else(|| {
        unknown(
            path,
            "its name does not begin with a task and a length, as qa1_4k_ does",
        )
    })?;
    let (mut scores, mut empty, mut uncut) = (Vec::new(), 0, 0);
    let mut indices = BTreeSet::new();
    let mut numbered = 0;
    // A writer that was stopped leaves a last row that is not whole.
    let whole = match rows.last() {
        Some(last) if torn && last.len() <= question.max(output) => &rows[..rows.len() - 1],
        _ => rows,
    };
    for row in whole {
        let cell = |place: usize| row.get(place).unwrap_or_default();
        let right = |cut| is_right(cell(target), cell(output), cell(question), labels, cut);
        scores.push(f64::from(u8::from(right(false))));
        uncut += usize::from(right(false) != right(true));
        empty += usize::from(cell(output).trim().is_empty());
        if let Ok(index) = cell(0).parse::<u64>() {
            indices.insert(index);
            numbered += 1;
        }
    }
    let mut findings = Vec::new();
    let missing = indices
        .last()
        .map_or(0, |&last| missing_below(last, indices.len()));
    if missing > 0 {
        findings.push(format!(
            "rows below the last that are not there: {missing}; these questions left the denominator"
        ));
    }
    if numbered > indices.len() {
        findings.push(format!(
            "rows that stand there twice: {}",
            numbered - indices.len()
        ));
    }
    if uncut > 0 {
        findings.push(format!(
            "{uncut} of {} answers would be judged otherwise if they ended where the model asks a question of its own, \
             as the tool means them to: it looks for `Question` in a text of small letters",
            scores.len()
        ));
    }
    if whole.len() < rows.len() {
        findings.push("the last row is torn and does not count: its writer was stopped".to_owned());
    }
    Ok(Answers {
        audited: Audited {
            path: path.to_owned(),
            tool: "BABILong",
            what: format!(
                "BABILong answers, {} rows, {empty} of them empty",
                scores.len()
            ),
            model: None,
            scores: vec![Score::of(&format!("{task} {length}"), "accuracy", &scores)],
            findings,
            untold: "whether prompts were cut, and how they began",
        },
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        what: format!("{task} {length}"),
        setup: parts.next().unwrap_or_default().to_owned(),
    })
}

/// Tells of questions that were asked in several ways: the tool's tables have the best of these.
pub fn link(entries: &mut [Entry]) {
    let mut setups: BTreeMap<(PathBuf, String), BTreeSet<String>> = BTreeMap::new();
    for entry in entries.iter() {
        if let Entry::Answers(file) = entry {
            let of_question = setups.entry((file.folder.clone(), file.what.clone()));
            of_question.or_default().insert(file.setup.clone());
        }
    }
    for entry in entries.iter_mut() {
        let Entry::Answers(file) = entry else {
            continue;
        };
        let count = setups[&(file.folder.clone(), file.what.clone())].len();
        if count > 1 {
            file.audited.findings.push(format!(
                "{} was asked in {count} ways; the tool's table takes the best of them, chosen on these answers",
                file.what
            ));
        }
    }
}

/// A table of tasks by lengths in percent, of one model, or of several with a column `model_name`; -1 is missing.
fn table(path: &Path, heads: &csv::StringRecord, rows: &[csv::StringRecord]) -> Audited {
    let place = |name: &str| heads.iter().position(|head| head == name);
    let task_place = place("task").unwrap_or(0);
    let model_place = place("model_name");
    let mut models: Vec<(String, Vec<&csv::StringRecord>)> = Vec::new();
    for row in rows {
        let model = model_place
            .and_then(|place| row.get(place))
            .unwrap_or_default();
        match models.iter_mut().find(|(own, _)| own == model) {
            Some((_, rows)) => rows.push(row),
            None => models.push((model.to_owned(), vec![row])),
        }
    }
    let (mut scores, mut findings, mut missing) = (Vec::new(), Vec::new(), 0);
    for (model, rows) in &models {
        let (average, tasks): (Vec<&csv::StringRecord>, Vec<_>) = rows
            .iter()
            .partition(|row| row.get(task_place) == Some("avg"));
        for (column, head) in heads.iter().enumerate().filter(|(_, head)| is_length(head)) {
            let cell = |row: &csv::StringRecord| row.get(column)?.parse::<f64>().ok();
            for row in &tasks {
                match cell(row).filter(|value| *value != -1.0) {
                    None => missing += 1,
                    Some(value) => {
                        let words = [model, row.get(task_place).unwrap_or_default(), head];
                        let task = words.join(" ").trim().to_owned();
                        scores.push(Score::stated(&task, "accuracy", value / 100.0, None));
                    }
                }
            }
            if let Some(stated) = average.first().and_then(|row| cell(row)) {
                let five: Vec<f64> = tasks.iter().take(5).filter_map(|row| cell(row)).collect();
                findings.extend(average_finding(&format!("{model} {head}"), stated, &five));
            }
        }
    }
    Audited {
        path: path.to_owned(),
        tool: "BABILong",
        what: format!(
            "BABILong table, {} scores, {missing} cells not measured",
            scores.len()
        ),
        model: None,
        scores,
        findings,
        untold: "the number of questions, so no interval: give the answers instead",
    }
}

/// What is wrong with an average over the first five tasks.
fn average_finding(what: &str, stated: f64, tasks: &[f64]) -> Option<String> {
    let (there, missing): (Vec<f64>, Vec<f64>) = tasks.iter().partition(|value| **value != -1.0);
    let all = mean(tasks)?;
    let what = what.trim();
    if stated == -1.0 {
        return None;
    }
    if !missing.is_empty() && same(stated, all, 1e-6) {
        return Some(format!(
            "{what}: {} of {} tasks have -1, which is not measured, and the average of {} counts that; without it it is {}",
            missing.len(),
            tasks.len(),
            percent(stated / 100.0),
            percent(mean(&there).unwrap_or(0.0) / 100.0)
        ));
    }
    (!same(stated, all, 1e-6)).then(|| {
        format!(
            "{what}: the average says {}, and its tasks give {}",
            percent(stated / 100.0),
            percent(mean(&there).unwrap_or(0.0) / 100.0)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_as_the_tool_judges_them() {
        let judge = |target: &str, output: &str, question: &str| {
            is_right(target, output, question, Kind::One.labels(), false)
        };
        let question = "Where is Mary?";
        assert!(judge("kitchen", "Mary is in the Kitchen.", question));
        assert!(!judge("kitchen", "The kitchen or the garden", question));
        assert!(judge(
            "kitchen",
            "kitchen. Before it was the garden",
            question
        ));
        assert!(!judge("kitchen", "garden", question));
        let from = "Where was Mary before the garden?";
        assert!(judge("kitchen", "Before the garden: the kitchen", from));
        let things = labels("qa8").unwrap();
        let both = |output| is_right("apple,milk", output, "What does he carry?", things, false);
        assert!(both("milk and apple") && !both("milk") && !both("milk, apple, football"));
        let goes_on = "kitchen\nQuestion: Where is the garden?";
        assert!(!judge("kitchen", goes_on, question));
        assert!(is_right(
            "kitchen",
            goes_on,
            question,
            Kind::One.labels(),
            true
        ));
    }
}
