//! The summary as tables, plots and verdicts show it: tasks, the curves that are compared on each, and the
//! names that tell them apart. Grouped once, for every renderer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::metric::Kind;
use crate::record::Split;
use crate::setting::{Model, group};
use crate::summary::SummaryRow;
use crate::text::short_length;
use crate::words::differing;

/// A task with the curves that are compared on it.
#[derive(Debug)]
pub struct TaskView<'a> {
    /// Task.
    pub task: &'a str,
    /// The part of it that this is, of one that has the parts of several.
    pub part: Option<&'a str>,
    /// The part and its options.
    pub options: String,
    /// What is measured of a sample, in words, with its unit.
    pub metric: String,
    /// The kind of its values.
    pub kind: Kind,
    /// Accuracy of guessing at each length, ascending; at one length alone where it is the same at all.
    pub chance: Vec<(u64, f64)>,
    /// All evaluation lengths, ascending.
    pub lengths: Vec<u64>,
    /// Where the samples become others, not only longer.
    pub steps: Vec<Step>,
    /// A curve a model, in the order of the summary; one for each learning rate where none could be chosen.
    pub curves: Vec<CurveView<'a>>,
    /// Which facts are said with each curve, because they differ.
    pub(crate) differing: [bool; 3],
}

/// A length from which on all samples have another label than those of the length before, as where a task's difficulty
/// steps up.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// That length.
    pub from: u64,
    /// The label from there on, and before.
    pub labels: [String; 2],
}

/// Points of one curve, which is of one model at one learning rate.
#[derive(Debug)]
pub struct CurveView<'a> {
    /// The architecture or checkpoint, with what tells it apart from others on the task.
    pub name: String,
    /// Ascending by length; never empty.
    pub points: Vec<&'a SummaryRow>,
    /// Learning rates that the model was trained with, of which this is one.
    pub rates: usize,
}

impl<'a> CurveView<'a> {
    /// A point for what is the same at all of them.
    pub fn first(&self) -> &'a SummaryRow {
        self.points[0]
    }

    /// The point at a length.
    pub fn at(&self, length: u64) -> Option<&'a SummaryRow> {
        let place = self
            .points
            .binary_search_by_key(&length, |row| row.eval_length);
        place.ok().map(|place| self.points[place])
    }

    /// Seeds that were planned.
    pub fn seeds(&self) -> u64 {
        let planned = self.points.iter().map(|row| row.seeds + row.not_ok);
        planned.max().unwrap_or(0)
    }
}

impl<'a> TaskView<'a> {
    /// Accuracy of guessing in words, in percent: of several lengths the least and the largest.
    pub(crate) fn chance_words(&self) -> Option<String> {
        let values = || self.chance.iter().map(|point| 100.0 * point.1);
        let words = |value: f64| format!("{value:.1}");
        let (low, high) = (
            words(values().reduce(f64::min)?),
            words(values().reduce(f64::max)?),
        );
        Some(match low == high {
            true => format!("{low} %"),
            false => format!("{low} to {high} %"),
        })
    }

    /// What a field is for all curves, where they agree.
    pub fn common<T: PartialEq>(&self, field: impl Fn(&CurveView<'a>) -> T) -> Option<T> {
        let mut values = self.curves.iter().map(field);
        let first = values.next()?;
        values.all(|value| value == first).then_some(first)
    }
}

/// The tasks of a summary with what is shown of them, in its order.
pub fn tasks(summary: &[SummaryRow]) -> Vec<TaskView<'_>> {
    let mut rates: HashMap<Model<'_>, BTreeSet<Option<u64>>> = HashMap::new();
    for row in summary {
        let (model, rate) = row.trained();
        rates.entry(model).or_default().insert(rate);
    }
    let shown = summary.iter().filter(|row| row.is_shown());
    let mut tasks: Vec<Vec<&SummaryRow>> = Vec::new();
    for task in group(shown, |&row| row.model().task) {
        // The whole stands before its parts.
        let (parts, whole): (Vec<_>, Vec<_>) = task.iter().partition(|row| row.part().is_some());
        tasks.extend(Some(whole).filter(|whole| !whole.is_empty()));
        tasks.extend(group(parts, |&row| row.part()));
    }
    let view = |rows: Vec<_>| {
        let mut view = task_view(rows, |row| rates[&row.model()].len());
        view.steps = steps(&view, summary);
        view.differing = differing(&view);
        view
    };
    tasks.into_iter().map(view).collect()
}

/// Labels that all lengths of a task have one value of each, where that changes.
fn steps(task: &TaskView<'_>, summary: &[SummaryRow]) -> Vec<Step> {
    let mut values: BTreeMap<&str, BTreeMap<u64, BTreeSet<&str>>> = BTreeMap::new();
    let first = task.curves[0].first();
    let own = |row: &&SummaryRow| row.model().task == first.model().task && task.part.is_none();
    for row in summary
        .iter()
        .filter(own)
        .filter(|row| row.split == Split::Test)
    {
        if let Some((key, value)) = row.label.split_once('=') {
            let of_length = values.entry(key).or_default().entry(row.eval_length);
            of_length.or_default().insert(value);
        }
    }
    values.retain(|_, lengths| {
        lengths.len() == task.lengths.len() && lengths.values().all(|values| values.len() == 1)
    });
    let mut steps = Vec::new();
    for (key, lengths) in &values {
        let values: Vec<(u64, &str)> = lengths
            .iter()
            .flat_map(|(&length, values)| values.iter().map(move |value| (length, *value)))
            .collect();
        let changes = values.windows(2).filter(|pair| pair[0].1 != pair[1].1);
        steps.extend(changes.map(|pair| Step {
            from: pair[1].0,
            labels: [pair[1].1, pair[0].1].map(|value| format!("{key}={value}")),
        }));
    }
    steps
}

/// The options of a task, or of a part of it.
pub(crate) fn options_of_part(part: Option<&str>, options: &str) -> String {
    match part {
        None => options.to_owned(),
        Some(part) if options.is_empty() => format!("part={part}"),
        Some(part) => format!("part={part},{options}"),
    }
}

/// The part that a breakdown by depth is of, if it is of one, and the depth as it stands there: `depth=0.50`, or
/// `PART_depth=0.50` in a task that has the parts of several.
pub(crate) fn by_depth(label: &str) -> Option<(Option<&str>, &str)> {
    let (key, depth) = label.split_once('=')?;
    let part = match key.strip_suffix("depth")? {
        "" => None,
        part => Some(part.strip_suffix('_')?),
    };
    Some((part, depth))
}

/// The depth, from 0 to 1, that a breakdown of a task or of a part of it is at.
pub fn depth_of(label: &str, part: Option<&str>) -> Option<f64> {
    let (own, depth) = by_depth(label)?;
    depth.parse().ok().filter(|_| own == part)
}

/// The task, or the part of one that these options are of, in words.
pub(crate) fn named(task: &str, options: &str) -> String {
    let part = options
        .split(',')
        .find_map(|pair| pair.strip_prefix("part="));
    part.map_or_else(|| task.to_owned(), |part| format!("{part} of {task}"))
}

fn task_view<'a>(rows: Vec<&'a SummaryRow>, rates: impl Fn(&SummaryRow) -> usize) -> TaskView<'a> {
    let first = rows[0];
    let lengths: BTreeSet<u64> = rows.iter().map(|row| row.eval_length).collect();
    let chance = rows.iter().rev();
    let chance = chance.filter_map(|row| Some((row.eval_length, row.chance?)));
    let chance: BTreeMap<u64, f64> = chance.collect();
    let mut chance: Vec<(u64, f64)> = chance.into_iter().collect();
    if chance.iter().all(|point| point.1 == chance[0].1) {
        chance.truncate(1);
    }
    let mut curves = group(rows, |&row| row.trained());
    for points in &mut curves {
        points.sort_by_key(|row| row.eval_length);
    }
    let kind = Kind::of(&first.metric);
    let names = names(&curves.iter().map(|points| points[0]).collect::<Vec<_>>());
    let part = first.part();
    TaskView {
        task: &first.task,
        part,
        options: options_of_part(part, &first.task_options),
        metric: kind.words(&first.metric),
        kind,
        chance,
        lengths: lengths.into_iter().collect(),
        steps: Vec::new(),
        differing: Default::default(),
        curves: names
            .into_iter()
            .zip(curves)
            .map(|(name, points)| CurveView {
                name,
                rates: rates(points[0]),
                points,
            })
            .collect(),
    }
}

/// A name for each of these rows, which are of different curves: the architecture or checkpoint, with as
/// many settings as tell it apart from others of that name.
fn names(rows: &[&SummaryRow]) -> Vec<String> {
    let base = |row: &SummaryRow| match row.checkpoint.as_str() {
        "" => row.architecture.clone(),
        checkpoint => checkpoint.to_owned(),
    };
    let mut names: Vec<String> = rows.iter().map(|row| base(row)).collect();
    let settings: Vec<Vec<Setting>> = rows.iter().map(|row| settings(row)).collect();
    for places in group(0..rows.len(), |&place| names[place].clone()) {
        let mut order: Vec<(&str, bool)> = Vec::new();
        for (name, _, is_option) in places.iter().flat_map(|&place| &settings[place]) {
            if !order.contains(&(name, *is_option)) {
                order.push((name, *is_option));
            }
        }
        let value = |place: usize, setting: &str| {
            let found = settings[place].iter().find(|(name, ..)| name == setting);
            found.map(|(_, value, _)| value.as_str())
        };
        let count = |told: &[&str]| {
            let told_apart = |&place: &usize| -> Vec<Option<&str>> {
                told.iter().map(|setting| value(place, setting)).collect()
            };
            places.iter().map(told_apart).collect::<BTreeSet<_>>().len()
        };
        let mut told: Vec<&str> = Vec::new();
        for (setting, is_option) in order {
            let more: Vec<&str> = told.iter().copied().chain([setting]).collect();
            // Every option that differs, as it was given; of the rest what is needed.
            let differs = is_option && count(&[setting]) > 1;
            if differs || count(&more) > count(&told) {
                told = more;
            }
        }
        for place in places {
            let parts: Vec<String> = told
                .iter()
                .filter_map(|setting| Some(format!("{setting}={}", value(place, setting)?)))
                .collect();
            if !parts.is_empty() {
                names[place] = format!("{}:{}", names[place], parts.join(","));
            }
        }
    }
    names
}

impl SummaryRow {
    /// The settings that another row of the model has otherwise: `steps 1000 and 3000`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (own, others) = (settings(self), settings(other));
        let value = |settings: &[Setting], wanted: &str| {
            let found = settings.iter().find(|(name, ..)| name == wanted);
            found.map_or_else(|| "none".to_owned(), |(_, value, _)| value.clone())
        };
        let mut names: Vec<&str> = Vec::new();
        for (name, ..) in own.iter().chain(&others) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let pairs = names
            .iter()
            .map(|name| (name, value(&own, name), value(&others, name)));
        let differing = pairs.filter(|(_, one, other)| one != other);
        let words = differing.map(|(name, one, other)| format!("{name} {one} and {other}"));
        words.collect()
    }
}

/// A setting's name and value, and whether it is an option of the architecture.
type Setting = (String, String, bool);

/// All that two curves on a task can differ in, what is told first in front.
fn settings(row: &SummaryRow) -> Vec<Setting> {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let real = |value: Option<f64>| value.map(|value| value.to_string());
    let length = row.train_length.map(short_length);
    let distribution = Some(row.train_distribution.clone()).filter(|name| !name.is_empty());
    let options = row
        .options
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned(), true));
    let others = [
        ("lr", real(row.learning_rate)),
        ("weight decay", real(row.weight_decay)),
        ("trained at", length),
        ("lengths", distribution),
        ("trained from", number(row.train_length_min)),
        ("steps", number(row.train_steps)),
        ("batch", number(row.batch)),
        ("warm-up", number(row.warmup_steps)),
        ("clip", real(row.clip_norm)),
        ("plugin", Some(row.plugin.clone())),
        ("architecture", Some(row.architecture.clone())),
        ("sha256", row.checkpoint_sha256.get(..8).map(str::to_owned)),
    ];
    let others = others
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?, false)));
    options.chain(others).collect()
}

/// The effective length of a curve with its interval, where that has other ends; `>=` where one is a lower
/// bound.
pub(crate) fn effective(row: &SummaryRow) -> Option<String> {
    let bound = |length: u64, censored: bool| {
        let mark = if censored { ">= " } else { "" };
        format!("{mark}{}", short_length(length))
    };
    let length = row.effective_length?;
    let own = bound(length, row.effective_length_censored == Some(true));
    let (low, high) = (row.effective_length_low, row.effective_length_high?);
    if low == Some(length) && high == length {
        return Some(own);
    }
    let censored = row.effective_length_high_censored == Some(true);
    let low = low.map_or("not learned".to_owned(), |low| {
        bound(low, censored && low == high)
    });
    Some(format!("{own} [{low}, {}]", bound(high, censored)))
}

/// What a curve says on learning, in words: `learned`, `not learned`, `2 of 3 seeds learned`.
pub(crate) fn learning(row: &SummaryRow) -> Option<String> {
    let seeds = row.seeds_learned?;
    Some(match (row.learned?, seeds) {
        (false, 0) => "not learned".to_owned(),
        (true, 0) => "learned".to_owned(),
        _ if seeds == row.seeds => "learned".to_owned(),
        _ => format!("{seeds} of {} seeds learned", row.seeds),
    })
}
