//! Results: what tasks and groups state.

use std::path::{Path, PathBuf};

use longhaul_results::statistics::mean;
use serde_json::{Map, Value};

use super::is_length;
use crate::audit::ruler::metric_of;
use crate::audit::{Audited, Score, percent, same};

/// A file of results.
pub struct Results {
    pub audited: Audited,
    pub(super) folder: PathBuf,
    pub(super) value: Value,
}

/// Reads results.
pub fn results(path: &Path, value: Value) -> Results {
    let model = value["model_name"]
        .as_str()
        .or_else(|| value["config"]["model"].as_str());
    let tasks = value["results"].as_object().map_or(0, Map::len);
    let mut findings = limited(&value);
    findings.extend(averaged_missing(&value));
    Results {
        audited: Audited {
            path: path.to_owned(),
            tool: "lm-evaluation-harness",
            what: format!("lm-evaluation-harness results of {tasks} tasks"),
            model: model.map(str::to_owned),
            scores: stated(&value),
            findings,
            untold: "the items: give the samples beside it",
        },
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        value,
    }
}

/// The values of a task, `metric,filter` and a number; not standard errors.
fn values(of_task: &Value) -> impl Iterator<Item = (&str, f64)> {
    let values = of_task.as_object().into_iter().flatten();
    values.filter_map(|(name, value)| {
        let metric = name.split(',').next()?;
        let is_value = name.contains(',') && !metric.ends_with("_stderr");
        Some((name.as_str(), value.as_f64()?)).filter(|_| is_value)
    })
}

/// The scores of all tasks that are measured; groups are means of these.
fn stated(value: &Value) -> Vec<Score> {
    let mut scores = Vec::new();
    let groups = value["groups"].as_object();
    for (task, of_task) in value["results"].as_object().into_iter().flatten() {
        if groups.is_some_and(|groups| groups.contains_key(task)) {
            continue;
        }
        let measured: Vec<(&str, f64)> = values(of_task).collect();
        let is_missing = |name: &str, value: f64| {
            value == -1.0 && is_length(name.split(',').next().unwrap_or_default())
        };
        let lengths = measured
            .iter()
            .filter(|(name, value)| !is_missing(name, *value))
            .count();
        for (name, number) in measured {
            if is_missing(name, number) {
                continue;
            }
            let metric = name.split(',').next().unwrap_or(name);
            let length: Option<u64> = metric.parse().ok();
            // Items of several lengths are counted together.
            let items = value["n-samples"][task]["effective"].as_u64();
            let items = items.filter(|_| length.is_none() || lengths == 1);
            let called = length.map_or(name, |_| metric_of(task).name());
            let mut own = Score::stated(task, called, number, items);
            own.length = length;
            scores.push(own);
        }
    }
    scores
}

/// Tasks of which not all items were taken.
fn limited(value: &Value) -> Vec<String> {
    let counts = value["n-samples"].as_object().into_iter().flatten();
    let fewer = counts.filter_map(|(task, count)| {
        let (all, taken) = (count["original"].as_u64()?, count["effective"].as_u64()?);
        (taken < all).then(|| {
            format!("{task}: {taken} of {all} items were taken (`limit`): the others left the denominator")
        })
    });
    fewer.collect()
}

/// Groups whose mean counts the -1 of a task that was not measured as a score.
fn averaged_missing(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (group, of_group) in value["groups"].as_object().into_iter().flatten() {
        for (name, stated) in values(of_group) {
            let members = value["group_subtasks"][group]
                .as_array()
                .into_iter()
                .flatten();
            let members = members.filter_map(|task| {
                let task = task.as_str()?;
                let weight = value["n-samples"][task]["effective"].as_f64();
                Some((
                    value["results"][task][name].as_f64()?,
                    weight.unwrap_or(1.0),
                ))
            });
            let members: Vec<(f64, f64)> = members.collect();
            let (there, missing): (Vec<_>, Vec<_>) =
                members.iter().partition(|(value, _)| *value != -1.0);
            let weighted = |members: &[(f64, f64)]| {
                let all: f64 = members.iter().map(|(_, weight)| weight).sum();
                members
                    .iter()
                    .map(|(value, weight)| value * weight)
                    .sum::<f64>()
                    / all
            };
            let plain: Vec<f64> = members.iter().map(|(value, _)| *value).collect();
            let with = mean(&plain).is_some_and(|mean| same(stated, mean, 0.0))
                || same(stated, weighted(&members), 0.0);
            if missing.is_empty() || there.is_empty() || stated == -1.0 || !with {
                continue;
            }
            let there: Vec<f64> = there.iter().map(|(value, _)| *value).collect();
            found.push(format!(
                "{group}, {name}: {} of {} tasks have -1, which is not measured, and the mean of {} counts that; without it \
                 it is {}",
                missing.len(),
                members.len(),
                percent(stated),
                percent(mean(&there).unwrap_or(0.0))
            ));
        }
    }
    found
}
