//! Published figures beside measured ones: which units a target speaks of, and the verdict on it.

use std::path::Path;

use longhaul_results::metric::Kind;
use longhaul_results::{SummaryRow, write_csv};
use longhaul_tasks::{Materials, TargetEntry, parse_task_of};
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
    /// The part of it that it speaks of, of a task that has the examples of several; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub part: String,
    /// Evaluation lengths it speaks of.
    pub lengths: Vec<u64>,
    /// How the training lengths of the models it speaks of are drawn; empty where all are drawn alike.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub train_distribution: String,
    /// What is expected at each of them.
    pub expected: Expected,
}

/// What is expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// This value or more.
    AtLeast(f64),
    /// Less than this value.
    Below(f64),
    /// A higher value than that of this architecture with these options.
    Above(String, String),
}

longhaul_results::table_row! {
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
    /// The part of it that the target speaks of, of a task that has the examples of several; else empty.
    pub part: String,
    /// What is measured of a sample.
    pub metric: String,
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
    /// `reproduced` or `not reproduced` where the intervals are on one side of the target, `undecided`
    /// where one holds it, `not measured` where a length has no value or the model did not learn what
    /// the target says it then loses.
    pub verdict: String,
    /// Why it is none of the first two, or that the model did not learn; else empty.
    pub reason: String,
}
}

/// An architecture's name and options.
type Named = Result<(String, String), RunError>;

/// The targets whose units are there, of tasks made of these materials. `options` gives an architecture's name and
/// options by its text.
///
/// # Errors
/// An architecture or task that cannot be.
pub fn resolve(
    entries: &[TargetEntry],
    units: &[Unit],
    materials: &Materials,
    options: &dyn Fn(&str) -> Named,
) -> Result<Vec<Target>, RunError> {
    let mut targets = Vec::new();
    for entry in entries {
        let task = parse_task_of(&entry.task, materials)?;
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
            part: entry.part.clone().unwrap_or_default(),
            lengths: entry.lengths.iter().map(|&length| length as u64).collect(),
            train_distribution: String::new(),
            expected,
        };
        let drawn = distributions(&target, units);
        let wanted = entry.train_distribution.map(|one| one.to_string());
        let is_wanted = |one: &&String| wanted.as_ref().is_none_or(|wanted| wanted == *one);
        let own = drawn.iter().filter(is_wanted);
        match drawn.len() {
            0 | 1 => targets.extend(own.map(|_| target.clone())),
            _ => targets.extend(own.map(|one| target.of(one))),
        }
    }
    Ok(targets)
}

/// How the training lengths of the units are drawn that a target speaks of.
fn distributions(target: &Target, units: &[Unit]) -> Vec<String> {
    let own = units.iter().filter(|unit| {
        unit.architecture == target.architecture
            && unit.options == target.options
            && unit.task == target.task
            && unit.task_options == target.task_options
    });
    let mut drawn = Vec::new();
    for unit in own {
        let training = unit.training.as_ref();
        let name = training.map_or_else(String::new, |one| one.distribution().to_string());
        if !drawn.contains(&name) {
            drawn.push(name);
        }
    }
    drawn
}

impl Target {
    /// The same of models whose training lengths are drawn so.
    fn of(&self, distribution: &str) -> Self {
        Self {
            claim: format!("{} (training lengths: {distribution})", self.claim),
            train_distribution: distribution.to_owned(),
            ..self.clone()
        }
    }
}

/// The verdict on every target.
pub fn judge(targets: &[Target], summary: &[SummaryRow]) -> Vec<Verdict> {
    // Where no learning rate could be chosen, none of them speaks for the model.
    let rows: Vec<&SummaryRow> = summary
        .iter()
        .filter(|row| row.is_shown() && row.selected == Some(true))
        .collect();
    targets
        .iter()
        .map(|target| judge_one(target, &rows))
        .collect()
}

/// Where a measured interval lies against what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Right,
    Across,
    Wrong,
}

/// One of a target's lengths.
struct Point<'a> {
    row: &'a SummaryRow,
    /// What is expected: `>= 0.99`.
    expected: String,
    /// By how much the value is on the right side.
    margin: f64,
    side: Side,
}

impl<'a> Point<'a> {
    /// Of a row that has a value, and of the one it is compared with; `None` where either has none.
    fn new(row: &'a SummaryRow, expected: &Expected, other: Option<&SummaryRow>) -> Option<Self> {
        let (value, low, high) = interval(row)?;
        // The target as an interval, and whether more is better.
        let (expected, target, low_limit, high_limit, more) = match expected {
            Expected::AtLeast(limit) => (format!(">= {limit}"), *limit, *limit, *limit, true),
            Expected::Below(limit) => (format!("< {limit}"), *limit, *limit, *limit, false),
            Expected::Above(..) => {
                let (other, low, high) = interval(other?)?;
                (format!("> {other:.3}"), other, low, high, true)
            }
        };
        let side = if high < low_limit {
            Side::Wrong
        } else if low >= high_limit {
            Side::Right
        } else {
            Side::Across
        };
        let (margin, side) = match (more, side) {
            (true, side) => (value - target, side),
            (false, Side::Right) => (target - value, Side::Wrong),
            (false, Side::Wrong) => (target - value, Side::Right),
            (false, Side::Across) => (target - value, Side::Across),
        };
        Some(Self {
            row,
            expected,
            margin,
            side,
        })
    }
}

/// A value with its 95 % interval; the value alone where there is no interval.
fn interval(row: &SummaryRow) -> Option<(f64, f64, f64)> {
    let value = row.value?;
    let low = row.value_low.unwrap_or(value);
    Some((value, low, row.value_high.unwrap_or(value)))
}

fn judge_one(target: &Target, rows: &[&SummaryRow]) -> Verdict {
    let own = curve(rows, target, &target.architecture, &target.options);
    let other = match &target.expected {
        Expected::Above(other, options) => curve(rows, target, other, options),
        _ => Vec::new(),
    };
    let points: Vec<Option<Point<'_>>> = target
        .lengths
        .iter()
        .map(|&length| {
            let at =
                |curve: &[&'_ SummaryRow]| curve.iter().position(|row| row.eval_length == length);
            let other = at(&other).map(|index| other[index]);
            Point::new(own[at(&own)?], &target.expected, other)
        })
        .collect();
    let (verdict, reason) = word(target, &points, not_learned(&own));
    let worst = points
        .iter()
        .flatten()
        .min_by(|a, b| a.margin.total_cmp(&b.margin));
    let row = worst.map(|point| point.row);
    Verdict {
        claim: target.claim.clone(),
        source: target.source.clone(),
        architecture: target.architecture.clone(),
        options: target.options.clone(),
        task: target.task.clone(),
        task_options: target.task_options.clone(),
        part: target.part.clone(),
        metric: own
            .first()
            .map_or_else(String::new, |row| row.metric.clone()),
        eval_length: row.map(|row| row.eval_length),
        target: worst.map_or_else(String::new, |point| point.expected.clone()),
        value: row.and_then(|row| row.value),
        value_low: row.and_then(|row| row.value_low),
        value_high: row.and_then(|row| row.value_high),
        verdict: verdict.to_owned(),
        reason,
    }
}

/// The rows of an architecture on a target's task.
fn curve<'a>(
    rows: &[&'a SummaryRow],
    target: &Target,
    architecture: &str,
    options: &str,
) -> Vec<&'a SummaryRow> {
    let own = rows.iter().copied().filter(|row| {
        row.architecture == architecture
            && row.options == options
            && row.task == target.task
            && row.task_options == target.task_options
            && row.part().unwrap_or_default() == target.part
            && (target.train_distribution.is_empty()
                || row.train_distribution == target.train_distribution)
    });
    own.collect()
}

/// Why a model cannot be said to lose beyond its training length: it has nothing to lose. Of a loss that is
/// not known, as it has no chance to be above.
fn not_learned(curve: &[&SummaryRow]) -> Option<String> {
    if curve.iter().any(|row| !Kind::of(&row.metric).is_accuracy()) {
        return None;
    }
    let inside = |row: &&&SummaryRow| row.train_length.is_some_and(|most| row.eval_length <= most);
    let Some(row) = curve
        .iter()
        .filter(inside)
        .max_by_key(|row| row.eval_length)
    else {
        return Some("no length inside the training length was asked for".to_owned());
    };
    match (row.learned, row.value) {
        (Some(true), _) => None,
        (Some(false), Some(value)) => Some(format!(
            "not learned: {:.1} % at {} tokens, inside the training length",
            100.0 * value,
            row.eval_length
        )),
        _ => Some(format!("no value at {} tokens", row.eval_length)),
    }
}

/// The verdict and its reason.
fn word(
    target: &Target,
    points: &[Option<Point<'_>>],
    not_learned: Option<String>,
) -> (&'static str, String) {
    // Only what was learned can be lost, or be more than another's.
    let needs_learning = !matches!(target.expected, Expected::AtLeast(_));
    if let Some(reason) = not_learned.clone().filter(|_| needs_learning) {
        return ("not measured", reason);
    }
    let any = |side| points.iter().flatten().any(|point| point.side == side);
    let missing = points.iter().position(Option::is_none);
    if any(Side::Wrong) {
        return ("not reproduced", not_learned.unwrap_or_default());
    }
    if let Some(index) = missing {
        let length = target.lengths[index];
        return ("not measured", format!("no value at {length} tokens"));
    }
    if any(Side::Across) {
        let reason = "the interval holds the target; more samples or seeds would tell";
        return ("undecided", reason.to_owned());
    }
    ("reproduced", String::new())
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
    let measured = |verdict: &Verdict| {
        let kind = Kind::of(&verdict.metric);
        let unit = if kind.is_accuracy() { " %" } else { "" };
        let show = |value| format!("{}{unit}", kind.show(value));
        verdict.value.map_or_else(|| "-".to_owned(), show)
    };
    let mut rows = vec![
        ["verdict", "target", "measured", "length", "published"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(verdicts.iter().map(|verdict| {
        vec![
            verdict.verdict.clone(),
            verdict.target.clone(),
            measured(verdict),
            verdict
                .eval_length
                .map_or_else(String::new, |l| l.to_string()),
            said(verdict),
        ]
    }));
    Ok(format!("Published figures\n{}", columns(&rows)))
}

/// What was published, and why the verdict on it is what it is.
fn said(verdict: &Verdict) -> String {
    let claim = format!("{} ({})", verdict.claim, verdict.source);
    if verdict.reason.is_empty() {
        return claim;
    }
    format!("{claim}. {}", verdict.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::tests::{at, common, unit};
    use crate::worker::protocol::{Evaluated, Score};

    fn summary(correct: &[(usize, u64)]) -> Vec<SummaryRow> {
        let common = common(&unit(1));
        let rows = correct.iter().flat_map(|&(length, correct)| {
            let score = Score {
                tokens: 100,
                nll_sum: 1.0,
                ..Score::answers(100, correct)
            };
            let evaluated = Evaluated {
                index: 0,
                scores: vec![score],
                outcomes: None,
                observations: Vec::new(),
                state_bytes: 1,
                peak_memory_bytes: None,
                tokens: 1,
                seconds: 1.0,
            };
            common.measured(at(length), &evaluated)
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
            part: String::new(),
            lengths: lengths.to_vec(),
            train_distribution: String::new(),
            expected,
        }
    }

    fn judged(correct: &[(usize, u64)], lengths: &[u64], expected: Expected) -> Verdict {
        super::judge(&[target(lengths, expected)], &summary(correct)).remove(0)
    }

    /// Of 100 answers 100, 98 and 90 have the intervals 96.3..100, 93.0..99.4 and 82.6..94.5.
    #[test]
    fn the_worst_length_decides_and_a_missing_one_is_no_success() {
        let rows = [(40, 100), (80, 98)];
        let judge = |lengths: &[u64], expected| {
            let verdict = judged(&rows, lengths, expected);
            (verdict.verdict, verdict.eval_length)
        };
        let said = |verdict: &str, length| (verdict.to_owned(), Some(length));
        let at_least = |limit| Expected::AtLeast(limit);
        assert_eq!(judge(&[40, 80], at_least(0.92)), said("reproduced", 80));
        assert_eq!(
            judge(&[40, 80], at_least(0.995)),
            said("not reproduced", 80)
        );
        assert_eq!(judge(&[40, 80], at_least(0.95)), said("undecided", 80));
        assert_eq!(judge(&[40], at_least(0.99)), said("undecided", 40));
        assert_eq!(judge(&[40, 160], at_least(0.96)), said("not measured", 40));
        assert_eq!(
            judge(&[80], Expected::Below(0.92)),
            said("not reproduced", 80)
        );
        assert_eq!(judge(&[80], Expected::Below(0.98)), said("undecided", 80));
        assert_eq!(judge(&[80], Expected::Below(0.995)), said("reproduced", 80));
        let other = Expected::Above("none".to_owned(), String::new());
        assert_eq!(judge(&[80], other).0, "not measured");
        // Its own curve is not above itself, nor below.
        let unit = unit(1);
        let own = Expected::Above(unit.architecture, unit.options);
        assert_eq!(judge(&[80], own).0, "undecided");
    }

    /// 20 documents with 2 bits a byte and a deviation of 0.2: the interval is 1.906 to 2.094.
    #[test]
    fn losses_are_judged_as_they_are() {
        let mut rows = summary(&[(40, 100), (160, 100)]);
        for row in &mut rows {
            row.metric = "bits_per_byte".to_owned();
            (row.chance, row.learned) = (None, None);
            (row.value, row.value_low, row.value_high) = (Some(2.0), Some(1.906), Some(2.094));
        }
        let judge = |expected| super::judge(&[target(&[160], expected)], &rows).remove(0);
        assert_eq!(judge(Expected::Below(2.1)).verdict, "reproduced");
        assert_eq!(judge(Expected::Below(2.0)).verdict, "undecided");
        assert_eq!(judge(Expected::Below(1.9)).verdict, "not reproduced");
        assert_eq!(judge(Expected::AtLeast(1.9)).verdict, "reproduced");
        let folder = tempfile::tempdir().unwrap();
        let text = report(&[judge(Expected::Below(2.1))], folder.path()).unwrap();
        assert!(text.contains("2.000") && !text.contains('%'), "{text}");
    }

    /// A model trained by a curriculum beside the uniform one, and better.
    #[test]
    fn a_target_speaks_of_one_distribution_of_training_lengths() {
        let mut rows = summary(&[(40, 100), (80, 90)]);
        let better = summary(&[(40, 100), (80, 100)]);
        rows.extend(better.into_iter().map(|row| SummaryRow {
            train_distribution: "curriculum:0.5".to_owned(),
            ..row
        }));
        let judge = |distribution: &str| {
            let target = target(&[80], Expected::AtLeast(0.95));
            let verdict = super::judge(&[target.of(distribution)], &rows).remove(0);
            (verdict.verdict, verdict.claim)
        };
        let said = |verdict: &str, distribution: &str| {
            let claim = format!("it does (training lengths: {distribution})");
            (verdict.to_owned(), claim)
        };
        assert_eq!(judge("uniform"), said("not reproduced", "uniform"));
        assert_eq!(
            judge("curriculum:0.5"),
            said("reproduced", "curriculum:0.5")
        );
        assert_eq!(judge("fixed"), said("not measured", "fixed"));
    }

    #[test]
    fn what_was_not_learned_cannot_be_lost() {
        let below = || Expected::Below(0.65);
        let chance = judged(&[(40, 48), (160, 49)], &[160], below());
        assert_eq!(chance.verdict, "not measured");
        assert!(
            chance.reason.contains("48.0 % at 40 tokens"),
            "{}",
            chance.reason
        );
        let lost = judged(&[(40, 100), (160, 49)], &[160], below());
        assert_eq!(
            (lost.verdict.as_str(), lost.reason.as_str()),
            ("reproduced", "")
        );
        let unknown = judged(&[(160, 49)], &[160], below());
        assert_eq!(unknown.verdict, "not measured");
        // What should be carried and was not even learned is not reproduced, and says so.
        let solved = judged(&[(40, 48), (160, 49)], &[160], Expected::AtLeast(0.9));
        assert_eq!(solved.verdict, "not reproduced");
        assert!(solved.reason.starts_with("not learned"));
    }
}
