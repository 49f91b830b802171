//! Published figures beside measured ones: which units a target speaks of, and the verdict on it.

use std::path::Path;

use longhaul_results::{SummaryRow, best_learning_rates, write_csv};
use longhaul_tasks::{TargetEntry, parse_task};
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::plan::Unit;
use crate::table::columns;

/// A published figure and the curve it is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What was found, in a sentence.
    pub claim: String,
    /// Where it stands.
    pub source: String,
    /// Architecture.
    pub architecture: String,
    /// Its options, as the records have them.
    pub options: String,
    /// Task.
    pub task: String,
    /// Its options.
    pub task_options: String,
    /// Evaluation lengths it speaks of.
    pub lengths: Vec<u64>,
    /// What is expected at each of them.
    pub expected: Expected,
}

/// What is expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// This accuracy or more.
    AtLeast(f64),
    /// Less than this accuracy.
    Below(f64),
    /// More than the accuracy of this architecture with these options.
    Above(String, String),
}

/// One row of `verdicts.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was found, in a sentence.
    pub claim: String,
    /// Where it stands.
    pub source: String,
    /// Architecture.
    pub architecture: String,
    /// Its options.
    pub options: String,
    /// Task.
    pub task: String,
    /// Its options.
    pub task_options: String,
    /// The length that decides: of those asked for, the one furthest on the wrong side.
    pub eval_length: Option<u64>,
    /// What is expected there: `>= 0.99`.
    pub target: String,
    /// What was measured there.
    pub value: Option<f64>,
    /// Lower end of its 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end of it.
    pub value_high: Option<f64>,
    /// `reproduced`, `not reproduced`, or `not measured` where a length has no value.
    pub verdict: String,
}

/// An architecture's name and options.
type Named = Result<(String, String), RunError>;

/// The targets whose units are there. `options` gives an architecture's name and options by its text.
///
/// # Errors
/// An architecture or task that cannot be.
pub fn resolve(
    entries: &[TargetEntry],
    units: &[Unit],
    options: &dyn Fn(&str) -> Named,
) -> Result<Vec<Target>, RunError> {
    let mut targets = Vec::new();
    for entry in entries {
        let task = parse_task(&entry.task)?;
        let (architecture, own) = options(&entry.architecture)?;
        let expected = match (entry.at_least, entry.below, &entry.above) {
            (Some(value), ..) => Expected::AtLeast(value),
            (_, Some(value), _) => Expected::Below(value),
            (_, _, Some(other)) => {
                let (other, others) = options(other)?;
                Expected::Above(other, others)
            }
            _ => continue,
        };
        let target = Target {
            claim: entry.claim.clone(),
            source: entry.source.clone(),
            architecture,
            options: own,
            task: task.spec().name.to_owned(),
            task_options: task.options_text(),
            lengths: entry.lengths.iter().map(|&length| length as u64).collect(),
            expected,
        };
        let planned = units.iter().any(|unit| {
            unit.architecture == target.architecture
                && unit.options == target.options
                && unit.task == target.task
                && unit.task_options == target.task_options
        });
        if planned {
            targets.push(target);
        }
    }
    Ok(targets)
}

/// The verdict on every target.
pub fn judge(targets: &[Target], summary: &[SummaryRow]) -> Vec<Verdict> {
    let rows: Vec<&SummaryRow> = best_learning_rates(summary)
        .into_iter()
        .filter(|row| row.label.is_empty())
        .collect();
    targets
        .iter()
        .map(|target| judge_one(target, &rows))
        .collect()
}

fn judge_one(target: &Target, rows: &[&SummaryRow]) -> Verdict {
    let find = |architecture: &str, options: &str, length: u64| {
        rows.iter().copied().find(|row| {
            row.architecture == architecture
                && row.options == options
                && row.task == target.task
                && row.task_options == target.task_options
                && row.eval_length == length
        })
    };
    // At each length: the row, what is expected, and by how much it is on the right side.
    let mut points = Vec::new();
    let mut complete = true;
    for &length in &target.lengths {
        let row = find(&target.architecture, &target.options, length);
        let value = row.and_then(|row| row.value);
        let point = match &target.expected {
            Expected::AtLeast(limit) => {
                value.map(|v| (format!(">= {limit}"), v - limit, v >= *limit))
            }
            Expected::Below(limit) => value.map(|v| (format!("< {limit}"), limit - v, v < *limit)),
            Expected::Above(other, options) => {
                let other = find(other, options, length).and_then(|row| row.value);
                value
                    .zip(other)
                    .map(|(v, o)| (format!("> {o:.3}"), v - o, v > o))
            }
        };
        match point {
            Some((expected, margin, holds)) => points.push((length, row, expected, margin, holds)),
            None => complete = false,
        }
    }
    let all = points.iter().all(|point| point.4);
    let verdict = match (complete, all) {
        (true, true) => "reproduced",
        (_, false) => "not reproduced",
        (false, true) => "not measured",
    };
    let worst = points.into_iter().min_by(|a, b| a.3.total_cmp(&b.3));
    let row = worst.as_ref().and_then(|point| point.1);
    Verdict {
        claim: target.claim.clone(),
        source: target.source.clone(),
        architecture: target.architecture.clone(),
        options: target.options.clone(),
        task: target.task.clone(),
        task_options: target.task_options.clone(),
        eval_length: worst.as_ref().map(|point| point.0),
        target: worst
            .as_ref()
            .map_or_else(String::new, |point| point.2.clone()),
        value: row.and_then(|row| row.value),
        value_low: row.and_then(|row| row.value_low),
        value_high: row.and_then(|row| row.value_high),
        verdict: verdict.to_owned(),
    }
}

/// Writes `verdicts.csv` and gives the table.
///
/// # Errors
/// A file that cannot be written.
pub fn report(verdicts: &[Verdict], folder: &Path) -> Result<String, RunError> {
    if verdicts.is_empty() {
        return Ok(String::new());
    }
    write_csv(&folder.join("verdicts.csv"), verdicts)?;
    let percent = |value: Option<f64>| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{:.1}", 100.0 * value))
    };
    let mut rows = vec![
        ["verdict", "target", "measured %", "length", "published"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(verdicts.iter().map(|verdict| {
        vec![
            verdict.verdict.clone(),
            verdict.target.clone(),
            percent(verdict.value),
            verdict
                .eval_length
                .map_or_else(String::new, |l| l.to_string()),
            format!("{} ({})", verdict.claim, verdict.source),
        ]
    }));
    Ok(format!("Published figures\n{}", columns(&rows)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::Common;
    use crate::run::records::tests::unit;
    use crate::worker::protocol::{Evaluated, Score};

    fn summary(correct: &[(usize, u64)]) -> Vec<SummaryRow> {
        let task = parse_task("parity").unwrap();
        let common = Common::new("id", "cpu", task);
        let rows = correct.iter().flat_map(|&(length, correct)| {
            let score = Score {
                label: String::new(),
                samples: 100,
                correct,
                tokens: 100,
                nll_sum: 1.0,
            };
            let evaluated = Evaluated {
                index: 0,
                scores: vec![score],
                state_bytes: 1,
                peak_memory_bytes: None,
                tokens: 1,
                seconds: 1.0,
            };
            common.measured(&unit(1), length, &evaluated)
        });
        longhaul_results::summarise(&rows.collect::<Vec<_>>())
    }

    fn target(lengths: &[u64], expected: Expected) -> Target {
        let unit = unit(1);
        Target {
            claim: "it does".to_owned(),
            source: "here".to_owned(),
            architecture: unit.architecture,
            options: unit.options,
            task: unit.task,
            task_options: unit.task_options,
            lengths: lengths.to_vec(),
            expected,
        }
    }

    #[test]
    fn the_worst_length_decides_and_a_missing_one_is_no_success() {
        let rows = summary(&[(40, 100), (80, 98)]);
        let judge = |lengths: &[u64], expected| {
            let verdict = super::judge(&[target(lengths, expected)], &rows).remove(0);
            (verdict.verdict, verdict.eval_length)
        };
        let said = |verdict: &str, length| (verdict.to_owned(), Some(length));
        let at_least = |limit| Expected::AtLeast(limit);
        assert_eq!(judge(&[40, 80], at_least(0.98)), said("reproduced", 80));
        assert_eq!(judge(&[40, 80], at_least(0.99)), said("not reproduced", 80));
        assert_eq!(judge(&[40], at_least(0.99)), said("reproduced", 40));
        assert_eq!(judge(&[40, 160], at_least(0.99)), said("not measured", 40));
        assert_eq!(
            judge(&[80], Expected::Below(0.98)),
            said("not reproduced", 80)
        );
        assert_eq!(judge(&[80], Expected::Below(0.99)), said("reproduced", 80));
        let other = Expected::Above("none".to_owned(), String::new());
        assert_eq!(judge(&[80], other).0, "not measured");
    }
}
