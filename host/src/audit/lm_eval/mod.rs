//! Results and samples of lm-evaluation-harness (`lm_eval/loggers/evaluation_tracker.py`, `lm_eval/result_schema.py`),
//! each by itself, and against each other where both are there.

mod results;
mod samples;

use std::path::PathBuf;

use longhaul_results::statistics::mean;
use serde_json::Value;

pub use results::{Results, results};
pub use samples::{Samples, samples};

use super::{Entry, percent, same};

/// Whether a metric is a length, as those of RULER's tasks are.
fn is_length(metric: &str) -> bool {
    !metric.is_empty() && metric.bytes().all(|byte| byte.is_ascii_digit())
}

/// Holds results against samples of the same folder.
pub fn link(entries: &mut [Entry]) {
    let mut all: Vec<(PathBuf, Value)> = Vec::new();
    for entry in entries.iter() {
        if let Entry::Results(file) = entry {
            all.push((file.folder.clone(), file.value.clone()));
        }
    }
    let mut told: Vec<(PathBuf, String)> = Vec::new();
    for entry in entries.iter_mut() {
        let Entry::Samples(file) = entry else {
            continue;
        };
        let own = all.iter().find(|(folder, value)| {
            *folder == file.folder && value["results"].get(&file.task).is_some()
        });
        if let Some((folder, value)) = own {
            against(file, value);
            told.push((folder.clone(), file.task.clone()));
        }
    }
    for entry in entries.iter_mut() {
        let Entry::Results(file) = entry else {
            continue;
        };
        let is_told = |task: &str| {
            told.iter()
                .any(|(folder, own)| *folder == file.folder && own == task)
        };
        file.audited.scores.retain(|score| !is_told(&score.task));
    }
}

/// What results say of samples, and they do not.
fn against(file: &mut Samples, value: &Value) {
    let audited = &mut file.audited;
    audited.untold = "whether a prompt was longer than the model reads, but for RULER's tasks";
    let model = value["model_name"].as_str();
    audited.model = model.map(str::to_owned);
    let of_task = &value["results"][&file.task];
    for score in &mut audited.scores {
        let length = score.length.map(|length| length.to_string());
        let name = |key: &&String| match &length {
            Some(length) => key.split(',').next() == Some(length),
            None => **key == score.metric,
        };
        let Some(key) = file.columns.keys().find(name) else {
            continue;
        };
        let (column, stated) = (&file.columns[key], of_task[key].as_f64());
        score.stated = stated;
        let Some(stated) = stated else { continue };
        let written = mean(&column.written).unwrap_or(0.0);
        if same(stated, written, 0.0) {
            continue;
        }
        let with_missing = mean(&column.with_missing).unwrap_or(0.0);
        audited.findings.push(if same(stated, with_missing, 0.0) {
            format!(
                "{key}: the results say {}, which counts the -1 of {} samples of other lengths; without these it is {}",
                percent(stated),
                column.with_missing.len() - column.written.len(),
                percent(written)
            )
        } else {
            format!(
                "{key}: the results say {}, and these samples give {}",
                percent(stated),
                percent(written)
            )
        });
    }
    if let Some(count) = value["n-samples"][&file.task]["effective"].as_u64()
        && count != file.items
    {
        audited.findings.push(format!(
            "the results count {count} items, and {} are here",
            file.items
        ));
    }
    if let Some(most) = value["max_length"].as_u64() {
        let longer = file.lengths.range(most + 1..);
        let longer: usize = longer.map(|(_, count)| count).sum();
        if longer > 0 {
            audited.findings.push(format!(
                "{longer} of {} prompts are of lengths above the {most} tokens that the model was given (`max_length`): \
                 they were cut from the left",
                file.items
            ));
        }
    }
}
