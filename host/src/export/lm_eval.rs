//! Results and samples of lm-evaluation-harness (`lm_eval/loggers/evaluation_tracker.py`, `lm_eval/evaluator.py` and
//! `lm_eval/tasks/ruler/` of EleutherAI/lm-evaluation-harness), with its hashes and its names of RULER's tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use longhaul_results::statistics::mean;
use longhaul_text::sha256_of;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answers::{Answers, Line};
use super::{File, Run};

/// The filter of answers that nothing is taken out of.
const FILTER: &str = "none";
/// What samples have under the lengths that they are not of.
const OTHER_LENGTH: f64 = -1.0;

/// A document.
#[derive(Serialize)]
struct Doc<'a> {
    index: u64,
    /// The prompt, the answer prefix in it; empty where it is long.
    input: &'a str,
    outputs: &'a [String],
    length: u64,
    max_length: u64,
    gen_prefix: &'static str,
}

/// A line of samples.
#[derive(Serialize)]
struct Sample<'a> {
    doc_id: usize,
    doc: Doc<'a>,
    target: &'a str,
    arguments: Value,
    resps: [[&'a str; 1]; 1],
    filtered_resps: [&'a str; 1],
    filter: &'static str,
    metrics: Vec<String>,
    doc_hash: String,
    prompt_hash: String,
    target_hash: String,
    #[serde(flatten)]
    scores: BTreeMap<String, f64>,
}

/// `MODEL/results_DATE.json` and `MODEL/samples_TASK_DATE.jsonl`.
pub(super) fn files(run: &Run, answers: &[Answers]) -> Vec<File> {
    let mut models: BTreeMap<&str, BTreeMap<String, Vec<&Answers>>> = BTreeMap::new();
    for own in answers {
        let tasks = models.entry(&own.model).or_default();
        tasks.entry(task_name(&own.task)).or_default().push(own);
    }
    let seconds = run.written.duration_since(UNIX_EPOCH);
    let seconds = seconds.map_or(0, |since| since.as_secs());
    let date = date(seconds);
    let mut files = Vec::new();
    for (model, tasks) in models {
        let folder = PathBuf::from(model);
        let mut hashes = Map::new();
        for (task, of_lengths) in &tasks {
            let (bytes, hash) = samples(of_lengths);
            hashes.insert(task.clone(), hash.into());
            files.push(File {
                path: folder.join(format!("samples_{task}_{date}.jsonl")),
                bytes,
            });
        }
        let mut value = results(run, model, &tasks);
        value["task_hashes"] = hashes.into();
        value["date"] = (seconds as f64).into();
        let mut bytes = serde_json::to_vec_pretty(&value).expect("plain data");
        bytes.push(b'\n');
        files.push(File {
            path: folder.join(format!("results_{date}.json")),
            bytes,
        });
    }
    files
}

/// The task as the harness calls it.
fn task_name(task: &str) -> String {
    match task {
        "vt" | "cwe" | "fwe" => format!("ruler_{task}"),
        "qa_1" => "ruler_qa_squad".to_owned(),
        "qa_2" => "ruler_qa_hotpot".to_owned(),
        other => other.to_owned(),
    }
}

/// Samples of a task, all lengths in one file, and the hash of them all.
fn samples(of_lengths: &[&Answers]) -> (Vec<u8>, String) {
    let lengths: BTreeSet<u64> = of_lengths.iter().map(|own| own.length).collect();
    let (mut bytes, mut hashes, mut doc_id) = (Vec::new(), String::new(), 0);
    for own in of_lengths {
        for (line, &score) in own.lines.iter().zip(&own.scores) {
            let sample = sample(doc_id, line, own.length, score, &lengths);
            for hash in [&sample.doc_hash, &sample.prompt_hash, &sample.target_hash] {
                hashes.push_str(hash);
            }
            serde_json::to_writer(&mut bytes, &sample).expect("plain data");
            bytes.push(b'\n');
            doc_id += 1;
        }
    }
    (bytes, sha256_of(hashes.as_bytes()))
}

fn sample<'a>(
    doc_id: usize,
    line: &'a Line,
    length: u64,
    score: f64,
    lengths: &BTreeSet<u64>,
) -> Sample<'a> {
    let doc = Doc {
        index: line.index,
        input: &line.input,
        outputs: &line.outputs,
        length: line.length,
        max_length: length,
        gen_prefix: "",
    };
    let target = line.outputs.first().map_or("", String::as_str);
    let score_at = |&at: &u64| {
        let score = if at == length { score } else { OTHER_LENGTH };
        (at.to_string(), score)
    };
    // The harness hashes a document as Python writes it with an indent of two, which is as serde_json does.
    let text = serde_json::to_string_pretty(&doc).expect("plain data");
    Sample {
        doc_id,
        target,
        arguments: json!({"gen_args_0": {
            "arg_0": line.input,
            "arg_1": {"until": [], "do_sample": false},
        }}),
        resps: [[&line.pred]],
        filtered_resps: [&line.pred],
        filter: FILTER,
        metrics: lengths.iter().map(u64::to_string).collect(),
        doc_hash: sha256_of(text.as_bytes()),
        prompt_hash: sha256_of(line.input.as_bytes()),
        target_hash: sha256_of(target.as_bytes()),
        scores: lengths.iter().map(score_at).collect(),
        doc,
    }
}

/// The results of a model.
fn results(run: &Run, model: &str, tasks: &BTreeMap<String, Vec<&Answers>>) -> Value {
    let by_task = |value: &dyn Fn(&str, &[&Answers]) -> Value| -> Map<String, Value> {
        let entries = tasks.iter();
        entries
            .map(|(task, own)| (task.clone(), value(task, own)))
            .collect()
    };
    let count = |own: &[&Answers]| own.iter().map(|own| own.lines.len()).sum::<usize>();
    json!({
        "results": by_task(&|task, own| {
            let mut values = Map::new();
            values.insert("alias".to_owned(), task.into());
            for own in own {
                let value = mean(&own.scores).unwrap_or(0.0);
                values.insert(format!("{},{FILTER}", own.length), value.into());
                values.insert(format!("{}_stderr,{FILTER}", own.length), "N/A".into());
            }
            values.into()
        }),
        "group_subtasks": by_task(&|_, _| json!([])),
        "configs": by_task(&|task, own| json!({
            "task": task,
            "output_type": "generate_until",
            "num_fewshot": 0,
            "metric_list": own.iter().map(|own| json!({
                "metric": own.length.to_string(), "aggregation": "aggregate_metrics", "higher_is_better": true,
            })).collect::<Vec<Value>>(),
            "metadata": {
                "longhaul_task": format!("{}:{}", own[0].task, own[0].task_options),
                "longhaul_run": run.manifest.run_id,
            },
        })),
        "versions": by_task(&|_, own| version(&own[0].task_options)),
        "n-shot": by_task(&|_, _| 0.into()),
        "higher_is_better": by_task(&|_, own| {
            let lengths = own.iter().map(|own| (own.length.to_string(), true.into()));
            lengths.collect::<Map<String, Value>>().into()
        }),
        "n-samples": by_task(&|_, own| json!({"original": count(own), "effective": count(own)})),
        "config": {
            "model": "longhaul",
            "model_args": format!("pretrained={model}"),
            "device": run.manifest.device,
            "limit": null,
            "gen_kwargs": {"do_sample": false},
        },
        "model_source": "longhaul",
        "model_name": model,
        "model_name_sanitized": model,
        "longhaul_version": run.manifest.versions.longhaul,
    })
}

/// The version of a task's definition, which stands among its options.
fn version(options: &str) -> Value {
    let found = options
        .split(',')
        .find_map(|option| option.strip_prefix("version="));
    let number = found.and_then(|version| version.parse::<u64>().ok());
    number.map_or(Value::Null, Value::from)
}

/// Seconds since 1970 as the harness writes a date into names: `2026-08-21T10-00-00.000000` (UTC).
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that a leap day is the last: 146,097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year}-{month:02}-{day:02}T{:02}-{:02}-{:02}.000000",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00-00-00.000000"),
            (951_782_399, "2000-02-28T23-59-59.000000"),
            (951_782_400, "2000-02-29T00-00-00.000000"),
            (1_787_306_401, "2026-08-21T10-00-01.000000"),
            (4_107_542_400, "2100-03-01T00-00-00.000000"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn tasks_have_the_names_of_the_harness() {
        let names = ["niah_single_1", "vt", "qa_1", "qa_2"].map(task_name);
        assert_eq!(
            names,
            [
                "niah_single_1",
                "ruler_vt",
                "ruler_qa_squad",
                "ruler_qa_hotpot"
            ]
        );
        assert_eq!(version("type=words,version=3"), json!(3));
    }
}
