//! Published figures beside measured ones: which units a target speaks of, and the verdict on it.

use longhaul_results::metric::Kind;
use longhaul_results::{Difference, Measurement, SeedScores, SummaryRow, depth_of};
use longhaul_tasks::{Materials, TargetEntry, parse_task_of};
use serde::{Deserialize, Serialize};

use crate::run::error::RunError;
use crate::run::plan::Unit;
use crate::table::wrap;

/// The file of verdicts.
pub const VERDICTS: &str = "verdicts.csv";

/// A published figure and the curve it is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What was found, in a sentence.
    pub claim: String,
    /// Of which architecture, part or training lengths, where it is said of several; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
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
    /// Whether of the mean over them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mean: bool,
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
    /// More than this, seed by seed.
    Above(Compared),
}

/// What a target is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Architecture and options as the suite gives them; empty where they are the target's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Its options.
    pub options: String,
    /// The part of the task; empty where there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub part: String,
    /// Evaluation length, where it is not the target's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Where the needle lies in the target's examples, and in those that it is held against; nothing: of all.
    #[serde(default)]
    pub depths: (Vec<f64>, Vec<f64>),
}

impl Compared {
    /// In words, what is not the target's own.
    fn words(&self, target: &Target) -> String {
        let mut words = Vec::new();
        words.extend(Some(self.name.clone()).filter(|name| !name.is_empty()));
        if self.part != target.part {
            words.push(self.part.clone());
        }
        words.extend(self.length.map(|length| format!("{length} tokens")));
        if !self.depths.1.is_empty() {
            let depths = self
                .depths
                .1
                .iter()
                .map(|depth| format!("{}", (depth * 100.0).round()));
            words.push(format!("depth {} %", depths.collect::<Vec<_>>().join(", ")));
        }
        words.join(", ")
    }

    /// In words, with the length also where that is the target's own.
    fn at(&self, target: &Target, length: u64) -> String {
        let words = self.words(target);
        match self.length {
            Some(_) => words,
            None => format!("{words} at {length} tokens"),
        }
    }
}

longhaul_results::table_row! {
/// One row of `verdicts.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was found, in a sentence.
    pub claim: String,
    /// Of which architecture, part or training lengths, where it is said of several; else empty.
    pub of: String,
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
    /// The length that decides: of those asked for, the one furthest on the wrong side; empty where their mean is asked for.
    pub eval_length: Option<u64>,
    /// What is expected there: `>= 0.99`; of the mean `mean over 40 to 256 tokens >= 0.95`; of what is held against another
    /// value, that: `> 0.412`.
    pub target: String,
    /// What was measured there.
    pub value: Option<f64>,
    /// Lower end of its 95 % interval.
    pub value_low: Option<f64>,
    /// Upper end of it.
    pub value_high: Option<f64>,
    /// What is compared with what: empty, or the other value's architecture, part, length or depths.
    pub other: String,
    /// The value less the other one, over seeds that were measured of both; empty without another.
    pub difference: Option<f64>,
    /// Lower end of its 95 % interval: Student's over seeds, never narrower than Newcombe's of all answers.
    pub difference_low: Option<f64>,
    /// Upper end of it.
    pub difference_high: Option<f64>,
    /// `reproduced` or `not reproduced` where the interval (of the difference, where there is one) is on one side of the
    /// target, `undecided` where it holds it, `not measured` where a length has no value or the model did not learn what
    /// the target says it then loses.
    pub verdict: String,
    /// Why it is none of the first two, or that the model did not learn; else empty.
    pub reason: String,
}
}

/// An architecture's name and options; `None` of one that is not here and need not be.
type Named = Result<Option<(String, String)>, RunError>;

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
        let whole = [String::new()];
        let parts = if entry.part.is_empty() {
            &whole
        } else {
            &entry.part[..]
        };
        for (name, part) in entry
            .architecture
            .iter()
            .flat_map(|name| parts.iter().map(move |part| (name, part)))
        {
            let Some((architecture, own)) = options(name)? else {
                continue;
            };
            let expected = match (entry.at_least, entry.below, &entry.above) {
                (Some(value), ..) => Expected::AtLeast(value),
                (_, Some(value), _) => Expected::Below(value),
                (_, _, Some(other)) => {
                    let named = match &other.architecture {
                        Some(other) => options(other)?,
                        None => Some((architecture.clone(), own.clone())),
                    };
                    let Some((architecture, options)) = named else {
                        continue;
                    };
                    Expected::Above(Compared {
                        name: other.architecture.clone().unwrap_or_default(),
                        architecture,
                        options,
                        part: other.part.clone().unwrap_or_else(|| part.clone()),
                        length: other.length.map(|length| length as u64),
                        depths: (entry.depths.clone(), other.depths.clone()),
                    })
                }
                _ => continue,
            };
            // What it is said of, where that is more than one.
            let of_several = [(name, entry.architecture.len()), (part, entry.part.len())];
            let of_several = of_several.into_iter().filter(|(_, count)| *count > 1);
            let of_several: Vec<&str> = of_several.map(|(of, _)| of.as_str()).collect();
            let target = Target {
                claim: entry.claim.clone(),
                of: of_several.join(", "),
                source: entry.source.clone(),
                architecture,
                options: own,
                task: task.spec().name.to_owned(),
                task_options: task.options_text(),
                part: part.clone(),
                lengths: entry.lengths.iter().map(|&length| length as u64).collect(),
                mean: entry.mean,
                train_distribution: String::new(),
                expected,
            };
            let drawn = distributions(&target, units);
            let wanted = entry.train_distribution.map(|one| one.to_string());
            let is_wanted = |one: &&String| wanted.as_ref().is_none_or(|wanted| wanted == *one);
            let own = drawn.iter().filter(is_wanted);
            match drawn.len() {
                // Rows of another run may be of other distributions than the plan's one.
                0 | 1 => targets.extend(own.map(|_| Target {
                    train_distribution: wanted.clone().unwrap_or_default(),
                    ..target.clone()
                })),
                _ => targets.extend(own.map(|one| target.of(one))),
            }
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
        let of = [
            self.of.as_str(),
            &format!("training lengths: {distribution}"),
        ];
        let of: Vec<&str> = of.into_iter().filter(|words| !words.is_empty()).collect();
        Self {
            of: of.join(", "),
            train_distribution: distribution.to_owned(),
            ..self.clone()
        }
    }
}

/// The verdict on every target.
pub fn judge(targets: &[Target], summary: &[SummaryRow], rows: &[Measurement]) -> Vec<Verdict> {
    // Where no learning rate could be chosen, none of them speaks for the model.
    let summary = summary.iter();
    let shown = summary.filter(|row| row.is_shown() && row.selected == Some(true));
    let seen = Seen {
        summary: shown.collect(),
        rows,
    };
    targets.iter().map(|target| seen.judge(target)).collect()
}

/// What was measured.
struct Seen<'a> {
    /// Points that speak for their models.
    summary: Vec<&'a SummaryRow>,
    rows: &'a [Measurement],
}

/// Where a measured interval lies against what is expected, what decides first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Wrong,
    Across,
    Right,
}

/// One of a target's lengths, or their mean.
struct Point {
    length: Option<u64>,
    /// What is expected: `>= 0.99`.
    expected: String,
    /// The value and its interval, where it has one.
    value: (f64, Option<(f64, f64)>),
    difference: Option<Difference>,
    /// By how much the value is on the right side.
    margin: f64,
    side: Side,
}

impl Point {
    /// Of a value and its interval at a length, which should be so much or `more`, or else less.
    fn limited(
        length: u64,
        (value, ends): (f64, Option<(f64, f64)>),
        limit: f64,
        more: bool,
    ) -> Self {
        let (low, high) = ends.unwrap_or((value, value));
        let (below, not_below) = match more {
            true => (Side::Wrong, Side::Right),
            false => (Side::Right, Side::Wrong),
        };
        let side = match () {
            () if high < limit => below,
            () if low >= limit => not_below,
            () => Side::Across,
        };
        let sign = if more { ">=" } else { "<" };
        Self {
            length: Some(length),
            expected: format!("{sign} {limit}"),
            value: (value, ends),
            difference: None,
            margin: if more { value - limit } else { limit - value },
            side,
        }
    }
}

/// Whether a row of these labels is of a part's examples, with the needle at these depths if any are named.
fn is_of(label: &str, part: &str, depths: &[f64]) -> bool {
    if depths.is_empty() {
        return match label.strip_prefix("task=") {
            Some(of) => of == part,
            None => label.is_empty() && part.is_empty(),
        };
    }
    let depth = depth_of(label, Some(part).filter(|part| !part.is_empty()));
    depth.is_some_and(|depth| depths.iter().any(|one| (one - depth).abs() < 0.005))
}

impl<'a> Seen<'a> {
    fn judge(&self, target: &Target) -> Verdict {
        let own = self.curve(target, &target.architecture, &target.options, &target.part);
        let other = match &target.expected {
            Expected::Above(other) => {
                self.curve(target, &other.architecture, &other.options, &other.part)
            }
            _ => Vec::new(),
        };
        let at = |curve: &[&'a SummaryRow], length| {
            curve.iter().find(|row| row.eval_length == length).copied()
        };
        let point = |&length: &u64| {
            let row = at(&own, length)?;
            let limited = |limit, more| Some(Point::limited(length, self.level(row)?, limit, more));
            match &target.expected {
                Expected::AtLeast(limit) => limited(*limit, true),
                Expected::Below(limit) => limited(*limit, false),
                Expected::Above(compared) => {
                    let other = at(&other, compared.length.unwrap_or(length))?;
                    self.compared(row, other, &compared.depths)
                }
            }
        };
        let mut points: Vec<Option<Point>> = match target.mean {
            true => vec![self.mean(target, &own)],
            false => target.lengths.iter().map(point).collect(),
        };
        let has = |curve: &[&'a SummaryRow], length| {
            at(curve, length).is_some_and(|row| row.value.is_some())
        };
        let lacks = |(place, length): &(usize, &u64)| match target.mean {
            true => !has(&own, **length),
            false => points[*place].is_none(),
        };
        let missing = target.lengths.iter().enumerate().find(lacks);
        let missing = missing.map(|(_, &length)| match &target.expected {
            Expected::Above(compared) if has(&own, length) => {
                let there = compared.length.unwrap_or(length);
                match has(&other, there) {
                    true => format!("no seed with both values at {length} tokens"),
                    false => format!("no value of {}", compared.at(target, length)),
                }
            }
            _ => format!("no value at {length} tokens"),
        });
        let none = points.iter().all(Option::is_none);
        let missing = missing.or_else(|| none.then(|| "no seed with all lengths".to_owned()));
        let unlearned = match other.first() {
            Some(first) => self.at_chance(&own).or_else(|| {
                let reason = self.at_chance(&other)?;
                Some(format!("{}: {reason}", first.architecture))
            }),
            None => not_learned(&own),
        };
        let (verdict, reason) = match [&own, &other].iter().find_map(|curve| several(curve)) {
            None => word(target, &points, unlearned, missing),
            Some(reason) => {
                points.clear();
                ("not measured", reason)
            }
        };
        let worst = points.iter().flatten().min_by(|a, b| {
            let sides = a.side.cmp(&b.side);
            sides.then(a.margin.total_cmp(&b.margin))
        });
        let ends = worst.and_then(|point| point.value.1);
        let difference = worst.and_then(|point| point.difference);
        Verdict {
            claim: target.claim.clone(),
            of: target.of.clone(),
            source: target.source.clone(),
            architecture: target.architecture.clone(),
            options: target.options.clone(),
            task: target.task.clone(),
            task_options: target.task_options.clone(),
            part: target.part.clone(),
            metric: own
                .first()
                .map_or_else(String::new, |row| row.metric.clone()),
            eval_length: worst.and_then(|point| point.length),
            target: worst.map_or_else(String::new, |point| point.expected.clone()),
            value: worst.map(|point| point.value.0),
            value_low: ends.map(|ends| ends.0),
            value_high: ends.map(|ends| ends.1),
            other: match &target.expected {
                Expected::Above(other) => other.words(target),
                _ => String::new(),
            },
            difference: difference.map(|difference| difference.value),
            difference_low: difference.map(|difference| difference.low),
            difference_high: difference.map(|difference| difference.high),
            verdict: verdict.to_owned(),
            reason,
        }
    }

    /// The scores of each seed at a point, with the needle at these depths if any are named.
    fn scores(&self, row: &SummaryRow, depths: &[f64]) -> SeedScores {
        let part = row.part().unwrap_or_default();
        SeedScores::at(row, self.rows, |label| is_of(label, part, depths))
    }

    /// The mean over a target's lengths.
    fn mean(&self, target: &Target, curve: &[&SummaryRow]) -> Option<Point> {
        let of = |&length: &u64| {
            let row = curve.iter().find(|row| row.eval_length == length)?;
            Some((length, self.scores(row, &[])))
        };
        let lengths: Vec<(u64, SeedScores)> =
            target.lengths.iter().map(of).collect::<Option<_>>()?;
        let (value, low, high) = SeedScores::over_lengths(&lengths).level()?;
        let (limit, more) = match target.expected {
            Expected::AtLeast(limit) => (limit, true),
            Expected::Below(limit) => (limit, false),
            Expected::Above(_) => return None,
        };
        let (first, last) = (lengths[0].0, lengths[lengths.len() - 1].0);
        let point = Point::limited(last, (value, Some((low, high))), limit, more);
        Some(Point {
            length: None,
            expected: format!("mean over {first} to {last} tokens {}", point.expected),
            ..point
        })
    }

    /// The value at a point and its interval, of accuracies as [`SeedScores::level`] has it: the summary's own supposes
    /// nothing of seeds, so that any few of them would leave every claim undecided.
    fn level(&self, row: &SummaryRow) -> Option<(f64, Option<(f64, f64)>)> {
        if !Kind::of(&row.metric).is_accuracy() {
            return Some((row.value?, row.value_low.zip(row.value_high)));
        }
        let (value, low, high) = self.scores(row, &[]).level()?;
        Some((value, Some((low, high))))
    }

    /// A point held against another, seed by seed.
    fn compared(
        &self,
        row: &SummaryRow,
        other: &SummaryRow,
        depths: &(Vec<f64>, Vec<f64>),
    ) -> Option<Point> {
        let own = self.scores(row, &depths.0);
        let others = self.scores(other, &depths.1);
        let difference = own.less(&others)?;
        let (value, low, high) = own.level()?;
        Some(Point {
            length: Some(row.eval_length),
            expected: format!("> {:.3}", others.mean()?),
            value: (value, Some((low, high))),
            difference: Some(difference),
            margin: difference.value,
            side: match (difference.low > 0.0, difference.high < 0.0) {
                (true, _) => Side::Right,
                (_, true) => Side::Wrong,
                _ => Side::Across,
            },
        })
    }

    /// Why a model cannot be said to have more than another: inside the training length its answers, all seeds' together,
    /// are not known to be better than guesses.
    fn at_chance(&self, curve: &[&SummaryRow]) -> Option<String> {
        let Some(row) = inside(curve) else {
            return Some("no length inside the training length was asked for".to_owned());
        };
        let Some((value, low, _)) = self.scores(row, &[]).pooled() else {
            return Some(format!("no value at {} tokens", row.eval_length));
        };
        (low <= row.chance.unwrap_or(0.0)).then(|| {
            format!(
                "not above chance: {:.1} % at {} tokens, inside the training length",
                100.0 * value,
                row.eval_length
            )
        })
    }

    /// The rows of an architecture on a part of a target's task.
    fn curve(
        &self,
        target: &Target,
        architecture: &str,
        options: &str,
        part: &str,
    ) -> Vec<&'a SummaryRow> {
        let own = self.summary.iter().copied().filter(|row| {
            row.architecture == architecture
                && row.options == options
                && row.task == target.task
                && row.task_options == target.task_options
                && row.part().unwrap_or_default() == part
                && (target.train_distribution.is_empty()
                    || row.train_distribution == target.train_distribution)
        });
        own.collect()
    }
}

/// Why a curve is no model's: its points are of several trainings, of which none is the one that is meant.
fn several(curve: &[&SummaryRow]) -> Option<String> {
    let first = curve.first()?;
    let other = curve.iter().find(|row| !row.is_trained_as(first))?;
    Some(format!(
        "measured by several trainings ({}), of which none is the one that is meant: leave the others out",
        first.differences(other).join(", ")
    ))
}

/// The point at the largest length inside the training length.
fn inside<'a>(curve: &[&'a SummaryRow]) -> Option<&'a SummaryRow> {
    let inside = |row: &&&SummaryRow| row.train_length.is_some_and(|most| row.eval_length <= most);
    let rows = curve.iter().filter(inside);
    rows.max_by_key(|row| row.eval_length).copied()
}

/// Why a model cannot be said to lose beyond its training length: it has nothing to lose. Of a loss that is
/// not known, as it has no chance to be above.
fn not_learned(curve: &[&SummaryRow]) -> Option<String> {
    if curve.iter().any(|row| !Kind::of(&row.metric).is_accuracy()) {
        return None;
    }
    let Some(row) = inside(curve) else {
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
    points: &[Option<Point>],
    not_learned: Option<String>,
    missing: Option<String>,
) -> (&'static str, String) {
    // Only what was learned can be lost, or be more than another's.
    let needs_learning = !matches!(target.expected, Expected::AtLeast(_));
    if let Some(reason) = not_learned.clone().filter(|_| needs_learning) {
        return ("not measured", reason);
    }
    let any = |side| points.iter().flatten().any(|point| point.side == side);
    if any(Side::Wrong) {
        return ("not reproduced", not_learned.unwrap_or_default());
    }
    if let Some(reason) = missing {
        return ("not measured", reason);
    }
    if any(Side::Across) {
        let reason = "the interval holds the target; more samples or seeds would tell";
        return ("undecided", reason.to_owned());
    }
    ("reproduced", String::new())
}

/// The verdicts under their claims, in lines of at most `width`; nothing where there are none.
pub fn render(verdicts: &[Verdict], width: usize) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let mut text = "Published figures, and what was measured\n".to_owned();
    let claims =
        verdicts.chunk_by(|one, next| (&one.claim, &one.source) == (&next.claim, &next.source));
    for claim in claims {
        let head = format!("{} ({})", claim[0].claim, claim[0].source);
        for line in wrap(&head, width) {
            text.push_str(&format!("{line}\n"));
        }
        for verdict in claim {
            let words = wrap(&said(verdict), width.saturating_sub(INDENT).max(24));
            for (place, line) in words.iter().enumerate() {
                let word = if place == 0 {
                    verdict.verdict.as_str()
                } else {
                    ""
                };
                text.push_str(&format!("  {word:0$}{line}\n", INDENT - 2));
            }
        }
    }
    text
}

/// Columns before what is said of a verdict.
const INDENT: usize = 18;

/// Of what a claim is said, what was measured of that, and why the verdict is what it is.
fn said(verdict: &Verdict) -> String {
    let kind = Kind::of(&verdict.metric);
    let unit = if kind.is_accuracy() { " %" } else { "" };
    let of = match verdict.of.as_str() {
        "" => &verdict.architecture,
        of => of,
    };
    let mut words = Vec::new();
    if let Some(value) = verdict.value {
        let length = verdict.eval_length;
        let at = length.map_or_else(String::new, |length| format!(" at {length} tokens"));
        words.push(format!("{}{unit}{at}", kind.show(value)));
    }
    let ends = verdict.difference_low.zip(verdict.difference_high);
    if let Some((value, (low, high))) = verdict.difference.zip(ends) {
        let [value, low, high] = [value, low, high].map(|end| format!("{:+.1}", 100.0 * end));
        words.push(format!(
            "{value} points [{low}, {high}] beside {}",
            verdict.other
        ));
    } else if !verdict.target.is_empty() {
        words.push(format!("published {}", verdict.target));
    }
    words.extend(Some(verdict.reason.clone()).filter(|reason| !reason.is_empty()));
    format!("{of}: {}", words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::tests::{at, common, unit};
    use crate::worker::protocol::{Evaluated, Score};

    fn summary(correct: &[(usize, u64)]) -> Vec<SummaryRow> {
        longhaul_results::summarise(&rows(correct))
    }

    fn rows(correct: &[(usize, u64)]) -> Vec<Measurement> {
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
        rows.collect()
    }

    fn target(lengths: &[u64], expected: Expected) -> Target {
        let unit = unit(1);
        Target {
            claim: "it does".to_owned(),
            of: String::new(),
            source: "here".to_owned(),
            architecture: unit.architecture,
            options: unit.options,
            task: unit.task,
            task_options: unit.task_options,
            part: String::new(),
            lengths: lengths.to_vec(),
            mean: false,
            train_distribution: String::new(),
            expected,
        }
    }

    fn compared(architecture: &str, length: Option<u64>) -> Compared {
        Compared {
            name: String::new(),
            architecture: architecture.to_owned(),
            options: unit(1).options,
            part: String::new(),
            length,
            depths: (Vec::new(), Vec::new()),
        }
    }

    fn judged(correct: &[(usize, u64)], lengths: &[u64], expected: Expected) -> Verdict {
        let rows = rows(correct);
        let summary = longhaul_results::summarise(&rows);
        judge(&[target(lengths, expected)], &summary, &rows).remove(0)
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
        let other = Expected::Above(compared("none", None));
        assert_eq!(judge(&[80], other).0, "not measured");
        // Its own curve is not above itself, nor below.
        let own = Expected::Above(compared(&unit(1).architecture, None));
        assert_eq!(judge(&[80], own).0, "undecided");
    }

    /// Of seeds with 100 answers each: three that agree decide, three that differ do not.
    #[test]
    fn seeds_decide_a_limit_by_how_far_they_agree() {
        let judge = |correct: [u64; 3], expected| {
            let seeds = correct.iter().zip(0..).flat_map(|(&correct, seed)| {
                let rows = rows(&[(40, correct)]).into_iter();
                rows.map(move |row| Measurement { seed, ..row })
            });
            let seeds: Vec<Measurement> = seeds.collect();
            let summary = longhaul_results::summarise(&seeds);
            judge(&[target(&[40], expected)], &summary, &seeds).remove(0)
        };
        let verdict = |correct, expected| judge(correct, expected).verdict;
        assert_eq!(
            verdict([99, 100, 100], Expected::AtLeast(0.95)),
            "reproduced"
        );
        assert_eq!(
            verdict([99, 100, 100], Expected::Below(0.95)),
            "not reproduced"
        );
        assert_eq!(verdict([60, 100, 100], Expected::AtLeast(0.5)), "undecided");
        let wide = judge([60, 100, 100], Expected::AtLeast(0.5));
        assert!(wide.value_low.is_some_and(|low| low < 0.3) && wide.value_high == Some(1.0));
    }

    /// Of 100 answers each at two lengths; of more seeds than one Student's interval over them.
    #[test]
    fn a_value_is_held_against_another_seed_by_seed() {
        let name = unit(1).architecture;
        let shorter = || Expected::Above(compared(&name, Some(80)));
        let falls = judged(&[(40, 100), (80, 60)], &[40], shorter());
        assert_eq!(
            (
                falls.verdict.as_str(),
                falls.other.as_str(),
                falls.target.as_str()
            ),
            ("reproduced", "80 tokens", "> 0.600")
        );
        let points = [
            falls.difference,
            falls.difference_low,
            falls.difference_high,
        ];
        let [value, low, high] = points.map(|end| 100.0 * end.expect("a difference"));
        assert!(
            (value - 40.0).abs() < 1e-9 && low > 29.0 && high < 51.0,
            "{low} {high}"
        );
        let rises = judged(&[(40, 90), (80, 100)], &[40], shorter());
        assert_eq!(rises.verdict, "not reproduced");
        let alike = judged(&[(40, 95), (80, 94)], &[40], shorter());
        assert_eq!(alike.verdict, "undecided");
        let unlearned = judged(&[(40, 10), (80, 1)], &[40], shorter());
        assert_eq!(unlearned.verdict, "not measured");
        // The seeds lose 40 points in the mean, and one of them nothing.
        let mut seeds = rows(&[(40, 100), (80, 20)]);
        for row in rows(&[(40, 100), (80, 100)]) {
            seeds.push(Measurement {
                seed: row.seed + 1,
                ..row
            });
        }
        let summary = longhaul_results::summarise(&seeds);
        let verdict = judge(&[target(&[40], shorter())], &summary, &seeds).remove(0);
        assert_eq!(verdict.verdict, "undecided");
        assert_eq!(verdict.difference, Some(0.4));
    }

    /// One that was trained for longer as well, and better: neither is the one that is meant.
    #[test]
    fn several_trainings_of_one_model_are_no_curve() {
        let mut seen = rows(&[(40, 100), (80, 90)]);
        seen.extend(
            rows(&[(40, 100), (80, 100)])
                .into_iter()
                .map(|row| Measurement {
                    train_steps: Some(7),
                    ..row
                }),
        );
        let summary = longhaul_results::summarise(&seen);
        for expected in [Expected::AtLeast(0.95), Expected::Below(0.95)] {
            let verdict = judge(&[target(&[80], expected)], &summary, &seen).remove(0);
            assert_eq!(
                (verdict.verdict.as_str(), verdict.value),
                ("not measured", None)
            );
            assert!(
                verdict.reason.contains("several trainings (steps ")
                    && verdict.reason.contains(" and 7), of which"),
                "{}",
                verdict.reason
            );
        }
    }

    /// Who was not measured inside the training length is not known to have learned.
    #[test]
    fn more_than_another_needs_a_value_inside_the_training_length() {
        let own = Expected::Above(compared(&unit(1).architecture, Some(160)));
        let mut seen = rows(&[(40, 100), (80, 100), (160, 20)]);
        for row in seen.iter_mut().filter(|row| row.eval_length == 40) {
            row.status = longhaul_results::Status::Crashed;
            (row.value, row.correct) = (None, None);
        }
        let summary = longhaul_results::summarise(&seen);
        let verdict = judge(&[target(&[80], own)], &summary, &seen).remove(0);
        assert_eq!(verdict.verdict, "not measured");
        assert_eq!(verdict.reason, "no value at 40 tokens");
    }

    /// 100 % at 40 tokens and 80 % at 80: 90 % in the mean, Wilson's 85.1 to 93.4 % of 200 answers.
    #[test]
    fn a_mean_over_lengths_is_held_as_one_value() {
        let judge = |correct: &[(usize, u64)], expected| {
            let rows = rows(correct);
            let summary = longhaul_results::summarise(&rows);
            let of_mean = Target {
                mean: true,
                ..target(&[40, 80], expected)
            };
            judge(&[of_mean], &summary, &rows).remove(0)
        };
        let seen = [(40, 100), (80, 80)];
        for (expected, word) in [
            (Expected::AtLeast(0.85), "reproduced"),
            (Expected::AtLeast(0.9), "undecided"),
            (Expected::AtLeast(0.95), "not reproduced"),
            (Expected::Below(0.95), "reproduced"),
        ] {
            let verdict = judge(&seen, expected);
            assert_eq!(verdict.verdict, word, "{verdict:?}");
            assert_eq!((verdict.eval_length, verdict.value), (None, Some(0.9)));
            assert!(verdict.target.starts_with("mean over 40 to 80 tokens "));
            assert!(render(&[verdict], 80).contains("90.0 %; published mean over 40 to 80"));
        }
        let short = judge(&seen[..1], Expected::AtLeast(0.5));
        assert_eq!(short.reason, "no value at 80 tokens");
    }

    /// Whose value is missing is said.
    #[test]
    fn what_was_not_measured_is_named() {
        let mut other = compared("another", None);
        other.name = "another:state=8".to_owned();
        let reason = |lengths: &[u64]| {
            let verdict = judged(&[(40, 100)], lengths, Expected::Above(other.clone()));
            assert_eq!(verdict.verdict, "not measured");
            verdict.reason
        };
        assert_eq!(reason(&[40]), "no value of another:state=8 at 40 tokens");
        assert_eq!(reason(&[80]), "no value at 80 tokens");
    }

    #[test]
    fn a_target_speaks_of_a_part_at_some_depths() {
        let of = |label: &str| is_of(label, "niah_single_1", &[0.0, 1.0]);
        assert!(of("niah_single_1_depth=0.00") && of("niah_single_1_depth=1.00"));
        assert!(
            !of("niah_single_1_depth=0.50") && !of("niah_single_2_depth=0.00") && !of("depth=0.00")
        );
        assert!(!of("task=niah_single_1") && !of(""));
        assert!(is_of("task=vt", "vt", &[]) && !is_of("task=vt", "", &[]) && is_of("", "", &[]));
        assert!(is_of("depth=0.30", "", &[0.3]) && !is_of("", "vt", &[]));
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
        let judge = |expected| super::judge(&[target(&[160], expected)], &rows, &[]).remove(0);
        assert_eq!(judge(Expected::Below(2.1)).verdict, "reproduced");
        assert_eq!(judge(Expected::Below(2.0)).verdict, "undecided");
        assert_eq!(judge(Expected::Below(1.9)).verdict, "not reproduced");
        assert_eq!(judge(Expected::AtLeast(1.9)).verdict, "reproduced");
        let text = render(&[judge(Expected::Below(2.1))], 80);
        assert!(text.contains("2.000") && !text.contains('%'), "{text}");
    }

    /// A model trained by a curriculum beside the uniform one, and better.
    #[test]
    fn a_target_speaks_of_one_distribution_of_training_lengths() {
        let mut seen = rows(&[(40, 100), (80, 90)]);
        let better = rows(&[(40, 100), (80, 100)]);
        seen.extend(better.into_iter().map(|row| Measurement {
            train_distribution: "curriculum:0.5".to_owned(),
            ..row
        }));
        let summary = longhaul_results::summarise(&seen);
        let judge = |distribution: &str| {
            let target = target(&[80], Expected::AtLeast(0.95));
            let verdict = super::judge(&[target.of(distribution)], &summary, &seen).remove(0);
            (verdict.verdict, verdict.of)
        };
        let said = |verdict: &str, distribution: &str| {
            let of = format!("training lengths: {distribution}");
            (verdict.to_owned(), of)
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
