//! Results of HELMET (`eval.py` of princeton-nlp/HELMET).

use std::path::Path;

use longhaul_results::statistics::mean;
use serde_json::{Map, Value};

use super::prompt::Begins;
use super::{Audited, Score, percent, same};
use crate::exit::CommandError;

/// Columns that count tokens or answers, and are no scores.
const NO_SCORE: [&str; 3] = ["input_len", "output_len", "num_preds"];

/// Reads results: the scores of the items, and the averages that stand beside them.
pub fn read(path: &Path, value: &Value) -> Result<Audited, CommandError> {
    let wrong = |what: &str| CommandError::usage(format!("{}: {what}", path.display()));
    let items = value["data"]
        .as_array()
        .ok_or_else(|| wrong("it has no list `data`"))?;
    let averages = value["averaged_metrics"]
        .as_object()
        .ok_or_else(|| wrong("it has no `averaged_metrics`"))?;
    let (args, metrics) = (&value["args"], &value["metrics"]);
    let dataset = args["datasets"].as_str().unwrap_or("its dataset");
    let mut findings = items_findings(args, items);
    let mut scores = Vec::new();
    for (metric, average) in averages {
        if NO_SCORE.contains(&metric.as_str()) {
            continue;
        }
        let written: Vec<f64> = numbers(&metrics[metric]);
        let mut own = Score::of(dataset, metric, &written);
        own.stated = average.as_f64().map(|average| average / 100.0);
        own.length = args["input_max_length"].as_u64();
        if written.len() != items.len() {
            findings.push(format!(
                "{metric}: {} scores of {} items; the average is of these alone",
                written.len(),
                items.len()
            ));
        }
        findings.extend(average_findings(metric, &own));
        let again: Option<Vec<[f64; 2]>> = items
            .iter()
            .map(|item| again(metric, dataset, item))
            .collect();
        if let Some(again) = again.filter(|again| again.len() == written.len() && !again.is_empty())
        {
            let best: Vec<f64> = again.iter().map(|scores| scores[0]).collect();
            findings.extend(scored_findings(metric, &written, &again));
            own = Score {
                stated: own.stated,
                length: own.length,
                ..Score::of(dataset, metric, &best)
            };
        }
        scores.push(own);
    }
    let model = args["model_name_or_path"].as_str();
    Ok(Audited {
        path: path.to_owned(),
        tool: "HELMET",
        what: format!("HELMET results of {dataset}, {} items", items.len()),
        model: model.map(str::to_owned),
        scores,
        findings,
        untold: "what a judge or a ROUGE scorer would say again: such scores are taken as written",
    })
}

/// The numbers of a list; true is 1.
fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().into_iter().flatten();
    let number = |value: &Value| match value {
        Value::Bool(right) => Some(f64::from(u8::from(*right))),
        value => value.as_f64(),
    };
    list.filter_map(number).collect()
}

/// What is wrong with the items and their prompts.
fn items_findings(args: &Value, items: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(most) = args["max_test_samples"].as_u64()
        && (items.len() as u64) < most
    {
        found.push(format!(
            "{} items of the {most} that were asked for (`max_test_samples`): answers that failed are left out of the \
             denominator, if the dataset has as many",
            items.len()
        ));
    }
    let room = args["input_max_length"]
        .as_u64()
        .zip(args["generation_max_length"].as_u64());
    if let Some((length, generated)) = room {
        // A context is cut at the end of a token, which may give one or two tokens back.
        let full = |item: &&Value| {
            let tokens = item["input_len"].as_u64().unwrap_or(0);
            tokens + generated + 2 >= length
        };
        let cut = items.iter().filter(full).count();
        if cut > 0 {
            found.push(format!(
                "{cut} of {} prompts fill all of their {length} tokens less {generated} to generate: contexts that are \
                 longer are cut to that",
                items.len()
            ));
        }
    }
    let mut begins = Begins::default();
    let prompts = items.iter().filter_map(|item| item["input_text"].as_str());
    let count = prompts.map(|prompt| begins.count(prompt)).count();
    // The text is decoded from what the model read, so one is as it should be.
    found.extend(begins.findings(count, false));
    found
}

/// What is wrong with an average of scores.
fn average_findings(metric: &str, own: &Score) -> Option<String> {
    let (stated, value) = (own.stated?, own.value?);
    (!same(stated, value, 0.0)).then(|| {
        format!(
            "{metric}: the average says {}, and its scores give {}",
            percent(stated),
            percent(value)
        )
    })
}

/// What is wrong with the scores of items, by what each is when it is made again, and the mean over references.
fn scored_findings(metric: &str, written: &[f64], again: &[[f64; 2]]) -> Vec<String> {
    let differ = || {
        written
            .iter()
            .zip(again)
            .filter(|(own, [best, _])| !same(**own, *best, 0.0))
    };
    let means = differ()
        .filter(|(own, [_, mean])| same(**own, *mean, 0.0))
        .count();
    let others = differ().count() - means;
    let best: Vec<f64> = again.iter().map(|scores| scores[0]).collect();
    let value = |scores: &[f64]| percent(mean(scores).unwrap_or(0.0));
    let mut found = Vec::new();
    if means > 0 {
        found.push(format!(
            "{metric}: {means} of {} items have the mean over their references for a score, not the best of them, which \
             makes {} of {}",
            written.len(),
            value(&best),
            value(written)
        ));
    }
    if others > 0 {
        found.push(format!(
            "{metric}: {others} of {} items have another score than their answer gives",
            written.len()
        ));
    }
    found
}

/// The score of an item by its answer, and the mean over its references, of the metrics that need no other software.
fn again(metric: &str, dataset: &str, item: &Value) -> Option<[f64; 2]> {
    let item: &Map<String, Value> = item.as_object()?;
    let references = references(item.get("answer")?);
    let output = item.get("output")?.as_str()?;
    let parsed = item.get("parsed_output").and_then(Value::as_str);
    match metric {
        "ruler_recall" => {
            let output = output.to_lowercase();
            let found = references
                .iter()
                .filter(|reference| output.contains(&reference.to_lowercase()));
            let share = found.count() as f64 / references.len() as f64;
            Some([share, share])
        }
        // Questions with choices are scored by rules of their own.
        "substring_exact_match" if !item.contains_key("options") => {
            let mut answers = vec![normal(parsed.unwrap_or(output))];
            if !dataset.starts_with("icl") {
                answers.push(normal(output));
            }
            let holds = |reference: &String| {
                let reference = normal(reference);
                answers.iter().any(|answer| answer.contains(&reference))
            };
            let found = references
                .iter()
                .filter(|reference| holds(reference))
                .count();
            let best = f64::from(u8::from(found > 0));
            Some([best, found as f64 / references.len() as f64])
        }
        _ => None,
    }
}

/// The references of an answer: one, several, or several of several.
fn references(answer: &Value) -> Vec<String> {
    match answer {
        Value::Array(parts) => parts.iter().flat_map(references).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

/// A text as SQuAD's scores compare it: small letters, no punctuation, no articles, single spaces.
fn normal(text: &str) -> String {
    let plain = text
        .to_lowercase()
        .replace(|c: char| c.is_ascii_punctuation(), "");
    // Articles are words of word characters, which may stand beside others.
    let mut words: Vec<&str> = Vec::new();
    for word in plain.split_whitespace() {
        if !["a", "an", "the"].contains(&word) {
            words.push(word);
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_as_squad_does() {
        assert_eq!(normal("The  quick, brown Fox's\n an"), "quick brown foxs");
        assert_eq!(
            references(&serde_json::json!([["a", "b"], "c"])),
            ["a", "b", "c"]
        );
    }
}
