//! Why curves break: of each model that has learned its task and does not carry it to the longest length, what the
//! records can say. An explanation is a control: the same seeds under a condition that takes its cause away. It survives
//! where that gives back what was lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::curve::CARRIED;
use crate::metric::Kind;
use crate::record::{Measurement, Probe, Split, Status};
use crate::seeds::SeedScores;
use crate::setting::{Model, Trained, group};
use crate::statistics::{mean, standard_deviation, student};
use crate::summary::SummaryRow;
use crate::text::{paragraph, printable, short_length};
use crate::view::{CurveView, TaskView, depth_of, effective, named, tasks};

/// Share of what was lost that a control has to give back.
const GIVEN_BACK: f64 = 0.5;

/// Places that count as near the question, and as near the beginning: the last and the first fifth.
const NEAR: [f64; 2] = [0.8, 0.2];

/// Options of tasks that say how many things are to be told apart, whatever the length.
const ITEMS: [&str; 6] = ["chains", "items", "keys", "pairs", "stacks", "updates"];

/// Parts of a task that differ in nothing else: in the second there is one key, in the first there are four.
const FEWER: [(&str, &str); 1] = [("niah_multikey_1", "niah_single_2")];

crate::table_row! {
/// A row of `breaks.csv`: an explanation of where a curve breaks, and its control.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BreakRow {
    /// Task.
    pub task: String,
    /// The part of it and its options.
    pub task_options: String,
    /// The architecture or checkpoint, with what tells it apart from others on the task.
    pub name: String,
    /// Architecture.
    pub architecture: String,
    /// Its options.
    pub options: String,
    /// Longest training length, in tokens.
    pub train_length: Option<u64>,
    /// Largest length up to which 90 % of the in-length accuracy are kept, as in `summary.csv`.
    pub effective_length: u64,
    /// Lower end of its 95 % interval.
    pub effective_length_low: Option<u64>,
    /// Upper end.
    pub effective_length_high: Option<u64>,
    /// The next measured length, at which they are not.
    pub break_length: u64,
    /// Evaluation length from there on that this row is of, in tokens: a cause may show where little is lost yet, or only
    /// where much is.
    pub eval_length: u64,
    /// Accuracy at the largest length inside the training length, a mean over seeds.
    pub value_inside: f64,
    /// Accuracy at this length.
    pub value: f64,
    /// What may be the cause: `distance`, that what lies far back is lost; `beginning`, that what came first crowds
    /// out the rest; `interference`, that there are too many things to tell apart; `positions`, positions that were not trained; `window`, how far a query sees; `state`, a
    /// recurrent state that no training sequence started from; `norm`, where a norm stands. Empty where the records
    /// have no control.
    pub explanation: String,
    /// The condition that takes it away; empty likewise.
    pub control: String,
    /// Seeds that were measured with and without it.
    pub seeds: u64,
    /// Accuracy under the control at this length less that without: Student's interval over seeds, never narrower
    /// than Newcombe's of all answers.
    pub difference: Option<f64>,
    /// Lower end of its 95 % interval.
    pub difference_low: Option<f64>,
    /// Upper end.
    pub difference_high: Option<f64>,
    /// The difference over what was lost.
    pub given_back: Option<f64>,
    /// `supported`: the interval lies above 0, and half of what was lost or more is given back. `not-supported`: the
    /// interval lies below that half. Else `undecided`; `not-tested` without a control.
    pub verdict: Verdict,
    /// State norm at this length over the one inside the training length, of the part of the state that grows most;
    /// geometric mean over seeds. Empty where it was not recorded.
    pub state_growth: Option<f64>,
    /// Lower end of its 95 % interval, Student's over the seeds' logarithms.
    pub state_growth_low: Option<f64>,
    /// Upper end.
    pub state_growth_high: Option<f64>,
}
}

/// What a control says of an explanation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It gives back what was lost.
    Supported,
    /// It does not.
    NotSupported,
    /// Seeds and answers do not tell.
    Undecided,
    /// There is none.
    #[default]
    NotTested,
}

/// The other state that these examples, all or those of a part, were read from, by its label.
fn start<'a>(label: &'a str, examples: &str) -> Option<&'a str> {
    let (start, of) = label.split_once(',').unwrap_or((label, ""));
    Some(start).filter(|start| start.starts_with("initial=") && of == examples)
}

/// Measured rows of a curve at a length.
type Cells<'a> = HashMap<(Trained<'a>, u64), Vec<&'a Measurement>>;

/// The table of what is shown of a summary, by task and curve; of a curve what is supported first.
pub fn breaks(rows: &[Measurement], probes: &[Probe], summary: &[SummaryRow]) -> Vec<BreakRow> {
    let mut cells = Cells::new();
    let measured = rows
        .iter()
        .filter(|row| row.split == Split::Test && row.status == Status::Ok);
    for row in measured {
        let key = (row.trained(), row.eval_length);
        cells.entry(key).or_default().push(row);
    }
    let norms = group(
        probes.iter().filter(|probe| probe.probe == "state_norm"),
        |probe| probe.unit.as_str(),
    );
    let norms: HashMap<&str, Vec<&Probe>> = norms
        .into_iter()
        .map(|norms| (norms[0].unit.as_str(), norms))
        .collect();
    let mut table = Vec::new();
    let tasks = tasks(summary);
    for task in tasks.iter().filter(|task| task.kind == Kind::ZeroOne) {
        for curve in &task.curves {
            let lengths = Break::of((&tasks, task), curve, &cells).unwrap_or_default();
            let broken = lengths.first().map_or(0, |first| first.broken);
            table.extend(
                lengths
                    .iter()
                    .flat_map(|length| length.rows(broken, &norms)),
            );
        }
    }
    table
}

/// A curve that breaks, at a length behind its effective one.
struct Break<'a> {
    tasks: &'a [TaskView<'a>],
    task: &'a TaskView<'a>,
    curve: &'a CurveView<'a>,
    cells: &'a Cells<'a>,
    /// The largest length inside the training length, the effective one, and this one of those behind it.
    inside: u64,
    held: u64,
    broken: u64,
}

impl<'a> Break<'a> {
    fn of(
        (tasks, task): (&'a [TaskView<'a>], &'a TaskView<'a>),
        curve: &'a CurveView<'a>,
        cells: &'a Cells<'a>,
    ) -> Option<Vec<Self>> {
        let first = curve.first();
        let held = first.effective_length?;
        if first.effective_length_censored != Some(false) {
            return None;
        }
        let lengths = || curve.points.iter().map(|row| row.eval_length);
        let inside = lengths()
            .take_while(|length| Some(*length) <= first.train_length)
            .last()?;
        // Where a curve comes back there is nothing to give back.
        let scaled = |length: u64| curve.at(length).and_then(|row| row.scaled_accuracy);
        let least = CARRIED * scaled(inside)?;
        let lost = move |length: &u64| scaled(*length).is_some_and(|value| value < least);
        let broken = lengths().filter(move |&length| length > held).filter(lost);
        let of_length = move |broken| Self {
            tasks,
            task,
            curve,
            cells,
            inside,
            held,
            broken,
        };
        Some(broken.map(of_length).collect())
    }

    /// What was measured of a curve at a length.
    fn measured(
        &self,
        curve: &CurveView<'a>,
        length: u64,
    ) -> impl Iterator<Item = &'a Measurement> + use<'a> {
        let cell = (curve.first().trained(), length);
        self.cells.get(&cell).into_iter().flatten().copied()
    }

    /// The scores of a curve at a length under the labels that are wanted.
    fn scores(
        &self,
        curve: &CurveView<'a>,
        length: u64,
        wanted: impl Fn(&str) -> bool,
    ) -> SeedScores {
        let rows = self.measured(curve, length);
        SeedScores::of(rows.filter(|row| wanted(&row.label)))
    }

    /// Explanations that the records have a control for: name, control, scores under it.
    fn controls(&self) -> Vec<(&'static str, String, SeedScores)> {
        let depth = |label: &str| depth_of(label, self.task.part);
        let [late, early] = NEAR;
        let at = |wanted: &dyn Fn(&str) -> bool| self.scores(self.curve, self.broken, wanted);
        let mut controls = vec![
            (
                "distance",
                format!("depth >= {late}"),
                at(&|label| depth(label).is_some_and(|depth| depth >= late)),
            ),
            (
                "beginning",
                format!("depth <= {early}"),
                at(&|label| depth(label).is_some_and(|depth| depth <= early)),
            ),
        ];
        let whole = self.curve.first().label.as_str();
        let mut starts: Vec<&str> = self
            .measured(self.curve, self.broken)
            .filter_map(|row| start(&row.label, whole))
            .collect();
        starts.sort_unstable();
        starts.dedup();
        for from in starts {
            let own = at(&|label| start(label, whole) == Some(from));
            controls.push(("state", from.to_owned(), own));
        }
        for other in self.tasks {
            let Some(fewer) = fewer(self.task, other) else {
                continue;
            };
            let same = |curve: &&CurveView<'a>| {
                let (own, others) = (self.curve.first(), curve.first());
                let task = others.model().task;
                let own_there = Model {
                    task,
                    ..own.model()
                };
                others.model() == own_there
                    && others.learned == Some(true)
                    && same_rate(self.curve, curve)
            };
            if let Some(curve) = other.curves.iter().find(same) {
                let label = &curve.first().label;
                let scores = self.scores(curve, self.broken, |of| of == label);
                controls.push(("interference", fewer, scores));
            }
        }
        let whole = &self.curve.first().label;
        let others = self.task.curves.iter();
        for other in others.filter(|other| same_rate(self.curve, other)) {
            if let Some(cause) = cause(self.curve.first(), other.first()) {
                let scores = self.scores(other, self.broken, |label| label == *whole);
                controls.push((cause, other.name.clone(), scores));
            }
        }
        controls
    }

    fn rows(&self, break_length: u64, norms: &HashMap<&str, Vec<&Probe>>) -> Vec<BreakRow> {
        let first = self.curve.first();
        let whole = &self.curve.first().label;
        let own = self.scores(self.curve, self.broken, |label| label == *whole);
        let inside = self.scores(self.curve, self.inside, |label| label == *whole);
        let (Some(value), Some(value_inside)) = (own.mean(), inside.mean()) else {
            return Vec::new();
        };
        let growth = self.state_growth(norms);
        let row = BreakRow {
            task: self.task.task.to_owned(),
            task_options: self.task.options.clone(),
            name: self.curve.name.clone(),
            architecture: first.architecture.clone(),
            options: first.options.clone(),
            train_length: first.train_length,
            effective_length: self.held,
            effective_length_low: first.effective_length_low,
            effective_length_high: first.effective_length_high,
            break_length,
            eval_length: self.broken,
            value_inside,
            value,
            seeds: own.seeds(),
            state_growth: growth.map(|growth| growth.0),
            state_growth_low: growth.and_then(|growth| Some(growth.1?.0)),
            state_growth_high: growth.and_then(|growth| Some(growth.1?.1)),
            ..BreakRow::default()
        };
        let lost = value_inside - value;
        let held_against = |(cause, control, scores): (&str, String, SeedScores)| {
            let less = scores.less(&own)?;
            let given_back = less.value / lost;
            let verdict = match () {
                () if less.low > 0.0 && given_back >= GIVEN_BACK => Verdict::Supported,
                () if less.high < GIVEN_BACK * lost => Verdict::NotSupported,
                () => Verdict::Undecided,
            };
            Some(BreakRow {
                explanation: cause.to_owned(),
                control,
                seeds: less.seeds,
                difference: Some(less.value),
                difference_low: Some(less.low),
                difference_high: Some(less.high),
                given_back: Some(given_back),
                verdict,
                ..row.clone()
            })
        };
        let controls = self.controls().into_iter();
        let mut rows: Vec<BreakRow> = controls.filter_map(held_against).collect();
        rows.sort_by(|one, other| {
            let key = |row: &BreakRow| {
                (
                    row.verdict != Verdict::Supported,
                    -row.difference.unwrap_or(0.0),
                )
            };
            key(one)
                .partial_cmp(&key(other))
                .expect("finite differences")
        });
        if rows.is_empty() {
            rows.push(row);
        }
        rows
    }

    /// How much the state is larger at the break length than inside the training length, where it grows most.
    fn state_growth(
        &self,
        norms: &HashMap<&str, Vec<&Probe>>,
    ) -> Option<(f64, Option<(f64, f64)>)> {
        let units = self.measured(self.curve, self.broken);
        let mut units: Vec<&str> = units.map(|row| row.unit.as_str()).collect();
        units.sort_unstable();
        units.dedup();
        let mut grown: BTreeMap<(Option<u32>, &str), Vec<f64>> = BTreeMap::new();
        for norms in units.iter().filter_map(|unit| norms.get(unit)) {
            let at = |length: u64| {
                norms.iter().filter(move |norm| {
                    norm.split == Split::Test
                        && norm.eval_length == length
                        && norm.position == length
                })
            };
            for late in at(self.broken) {
                let part = (late.layer, late.state.as_str());
                let mut early =
                    at(self.inside).filter(|norm| (norm.layer, norm.state.as_str()) == part);
                let ratio = early.next().map(|early| (late.value / early.value).ln());
                grown
                    .entry(part)
                    .or_default()
                    .extend(ratio.filter(|ratio| ratio.is_finite()));
            }
        }
        let of_part = |ratios: Vec<f64>| {
            let centre = mean(&ratios)?;
            let sd = standard_deviation(&ratios);
            let ends = sd.and_then(|sd| student(centre, sd, ratios.len() as u64));
            Some((
                centre.exp(),
                ends.map(|(low, high)| (low.exp(), high.exp())),
            ))
        };
        let parts = grown.into_values().filter_map(of_part);
        parts.max_by(|one, other| one.0.total_cmp(&other.0))
    }
}

/// What says that another task is the same with fewer things to tell apart; `None` where it is not.
fn fewer(task: &TaskView<'_>, other: &TaskView<'_>) -> Option<String> {
    let [own, others] = [task, other].map(|of| of.curves[0].first());
    if own.task != others.task {
        return None;
    }
    if let (Some(part), Some(less)) = (task.part, other.part) {
        let known = own.task_options == others.task_options && FEWER.contains(&(part, less));
        return known.then(|| less.to_owned());
    }
    let pairs = |row: &SummaryRow| -> BTreeSet<String> {
        row.task_options.split(',').map(str::to_owned).collect()
    };
    let [own, others] = [pairs(own), pairs(others)];
    let only: Vec<&String> = own.symmetric_difference(&others).collect();
    let number = |pairs: &BTreeSet<String>| {
        let pair = only.iter().find(|pair| pairs.contains(**pair))?;
        let (name, number) = pair.split_once('=')?;
        ITEMS
            .contains(&name)
            .then_some((name.to_owned(), number.parse::<u64>().ok()?))
    };
    let ((name, more), (same, less)) = number(&own).zip(number(&others))?;
    (only.len() == 2 && name == same && less < more).then(|| format!("{name}={less}"))
}

/// What alone differs between a model and another that was measured in the same way; `None` where that is
/// nothing, more than one thing, or something else.
fn cause(one: &SummaryRow, other: &SummaryRow) -> Option<&'static str> {
    let but_options = |row: &SummaryRow| SummaryRow {
        options: String::new(),
        ..row.clone()
    };
    if but_options(one).model() != but_options(other).model() || other.learned != Some(true) {
        return None;
    }
    let [own, others] = [one, other].map(|row| {
        let pairs = row.options.split(',').filter(|pair| !pair.is_empty());
        pairs.collect::<Vec<_>>()
    });
    let only = |these: &[&str], those: &[&str]| -> Vec<&'static str> {
        let differ = these.iter().filter(|pair| !those.contains(pair));
        differ
            .map(|pair| cause_of(pair.split('=').next().unwrap_or(pair)))
            .collect()
    };
    let mut causes = only(&own, &others);
    causes.extend(only(&others, &own));
    let first = *causes.first()?;
    (!first.is_empty() && causes.iter().all(|cause| *cause == first)).then_some(first)
}

/// Whether two models were trained at one rate, or each at the best of several.
fn same_rate(one: &CurveView<'_>, other: &CurveView<'_>) -> bool {
    let chosen = |curve: &CurveView<'_>| curve.rates > 1 && curve.first().selected == Some(true);
    one.first().learning_rate == other.first().learning_rate || (chosen(one) && chosen(other))
}

/// What an option decides, whether in training or in evaluations, of a whole model or of a kind of layer.
fn cause_of(option: &str) -> &'static str {
    match option.rsplit('.').next().unwrap_or(option) {
        "positions" => "positions",
        name if name.starts_with("rope_") => "positions",
        "window" => "window",
        "initial_state" => "state",
        name if name.contains("norm") => "norm",
        _ => "",
    }
}

/// The table in words, `width` columns at most: a curve with what survives its control, then what does not.
pub fn render_breaks(table: &[BreakRow], summary: &[SummaryRow], width: usize) -> String {
    let mut text = String::new();
    let views = tasks(summary);
    let of_task = |row: &&BreakRow| (row.task.clone(), row.task_options.clone());
    for task in group(table, of_task) {
        let curves = views.iter().filter(|view| {
            (view.task, &view.options) == (task[0].task.as_str(), &task[0].task_options)
        });
        let curves: Vec<&CurveView<'_>> = curves.flat_map(|view| &view.curves).collect();
        let mut say = |indent: usize, words: &str| {
            paragraph(&format!("{:indent$}{words}", ""), width, &mut text);
        };
        say(
            0,
            &format!(
                "Where curves on {} break, and what gives back at least half of what is lost there",
                named(&task[0].task, &task[0].task_options)
            ),
        );
        for curve in group(task, |row| row.name.clone()) {
            render_curve(&curve, &curves, &mut say);
        }
        text.push('\n');
    }
    printable(&text)
}

/// A curve's lines: how it breaks, and of each explanation the length at which its control gives back most. `views` are
/// the curves of its task.
fn render_curve(curve: &[&BreakRow], views: &[&CurveView<'_>], say: &mut dyn FnMut(usize, &str)) {
    let row = curve[0];
    let own = views.iter().find(|view| view.name == row.name);
    let held = own.and_then(|view| effective(view.first()));
    let percent = |value: Option<f64>| 100.0 * value.unwrap_or(f64::NAN);
    let mut words = format!(
        "{}: carries to {}; {:.1} % inside",
        row.name,
        held.unwrap_or_else(|| short_length(row.effective_length)),
        100.0 * row.value_inside
    );
    for row in group(curve.iter(), |row| row.eval_length) {
        let value = percent(Some(row[0].value));
        let _ = write!(
            words,
            ", {value:.1} % at {}",
            short_length(row[0].eval_length)
        );
    }
    let grown = curve.iter().filter_map(|row| row.state_growth);
    let grown = grown.fold(0.0, f64::max);
    if grown >= 2.0 {
        let _ = write!(words, "; state up to {grown:.1} times as large");
    }
    say(2, &words);
    let (mut undecided, mut not) = (Vec::new(), Vec::new());
    for rows in group(curve.iter(), |row| {
        (row.explanation.clone(), row.control.clone())
    }) {
        let supported = rows.iter().filter(|row| row.verdict == Verdict::Supported);
        let best = supported.max_by(|one, other| {
            let size = |row: &BreakRow| row.difference.unwrap_or(0.0);
            size(one).total_cmp(&size(other))
        });
        let name = rows[0].explanation.as_str();
        match best {
            Some(row) => say(
                4,
                &format!(
                    "{name} ({}): {:+.1} points at {} [{:.1}, {:.1}]",
                    row.control,
                    percent(row.difference),
                    short_length(row.eval_length),
                    percent(row.difference_low),
                    percent(row.difference_high)
                ),
            ),
            None if rows.iter().any(|row| row.verdict == Verdict::Undecided) => {
                undecided.push(name)
            }
            None if !name.is_empty() => not.push(name),
            None => {}
        }
    }
    for (names, words) in [(undecided, "undecided"), (not, "not")] {
        let names: BTreeSet<&str> = names.into_iter().collect();
        if !names.is_empty() {
            let names: Vec<&str> = names.into_iter().collect();
            say(4, &format!("{words}: {}", names.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarise;

    /// A row of a seed: of so many samples so many right.
    fn row(options: &str, seed: u64, length: u64, label: &str, right: f64) -> Measurement {
        Measurement {
            unit: format!("{options}-{seed}"),
            plugin: "p".into(),
            architecture: "arch".into(),
            options: options.into(),
            task: "needle".into(),
            seed,
            train_length: Some(64),
            train_length_min: Some(64),
            learning_rate: Some(1e-3),
            split: Split::Test,
            eval_length: length,
            label: label.into(),
            metric: "exact_match".into(),
            samples: Some(200),
            correct: Some((right * 200.0) as u64),
            value: Some(right),
            chance: Some(0.0),
            status: Status::Ok,
            ..Measurement::default()
        }
    }

    /// Far needles are lost, without positions nothing is; from other states it is as from zeros.
    fn rows() -> Vec<Measurement> {
        let mut rows = Vec::new();
        for seed in 0..3 {
            let noise = 0.01 * seed as f64;
            rows.push(row("", seed, 64, "", 1.0));
            rows.push(row("", seed, 128, "", 0.4 + noise));
            rows.push(row("", seed, 128, "depth=0.00", 0.05));
            rows.push(row("", seed, 128, "depth=1.00", 0.95));
            rows.push(row("", seed, 128, "initial=fitted", 0.4 + noise));
            for length in [64, 128] {
                rows.push(row("positions=nope", seed, length, "", 1.0));
                rows.push(row("positions=nope,window=8", seed, length, "", 1.0));
            }
        }
        rows
    }

    #[test]
    fn an_explanation_survives_where_its_control_gives_back_what_was_lost() {
        let rows = rows();
        let probe = |unit: &str, length: u64, value: f64| Probe {
            unit: unit.into(),
            probe: "state_norm".into(),
            split: Split::Test,
            eval_length: length,
            position: length,
            layer: Some(0),
            value,
            ..Probe::default()
        };
        let probes = [
            probe("-0", 64, 1.0),
            probe("-0", 128, 4.0),
            probe("-1", 64, 2.0),
            probe("-1", 128, 8.0),
        ];
        let summary = summarise(&rows);
        let table = breaks(&rows, &probes, &summary);
        let found: Vec<_> = table
            .iter()
            .map(|row| (row.explanation.as_str(), row.verdict))
            .collect();
        use Verdict::{NotSupported, Supported};
        assert_eq!(
            found,
            [
                ("positions", Supported),
                ("distance", Supported),
                ("state", NotSupported),
                ("beginning", NotSupported)
            ]
        );
        let first = &table[0];
        assert_eq!(
            (first.effective_length, first.break_length, first.seeds),
            (64, 128, 3)
        );
        assert!((first.difference.unwrap() - 0.59).abs() < 1e-12);
        assert!(first.difference_low.unwrap() > 0.5 && first.difference_high.unwrap() < 0.7);
        assert!((first.state_growth.unwrap() - 4.0).abs() < 1e-9);
        let text = render_breaks(&table, &summary, 80);
        for words in [
            "carries to 64",
            ", 41.0 % at 128",
            "4.0 times",
            "positions (arch:positions=nope): +59.0 points at 128",
            "not: beginning, state",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    /// What comes back behind its break is nothing lost, and a control at a rate that was chosen like the model's is one.
    #[test]
    fn only_what_is_lost_is_explained_and_chosen_rates_may_differ() {
        let mut all = Vec::new();
        for seed in 0..3 {
            let noise = 0.01 * seed as f64;
            for (options, rate, best) in [
                ("", 1e-3, true),
                ("", 3e-3, false),
                ("positions=nope", 3e-3, true),
                ("positions=nope", 1e-3, false),
            ] {
                let level = if best { 1.0 } else { 0.7 };
                let lost = if options.is_empty() { 0.4 + noise } else { 1.0 };
                for (split, length, value) in [
                    (Split::Validation, 64, level),
                    (Split::Test, 64, level),
                    (Split::Test, 128, lost * level),
                    (Split::Test, 256, level),
                ] {
                    all.push(Measurement {
                        unit: format!("{options}-{rate}-{seed}"),
                        learning_rate: Some(rate),
                        split,
                        ..row(options, seed, length, "", value)
                    });
                }
            }
        }
        let summary = summarise(&all);
        let table = breaks(&all, &[], &summary);
        let found = table
            .iter()
            .map(|row| (row.eval_length, row.explanation.as_str(), row.verdict));
        let found: Vec<_> = found.collect();
        assert_eq!(found, [(128, "positions", Verdict::Supported)]);
    }

    /// A part's curve has an effective length of its own, whatever the whole's is.
    #[test]
    fn the_words_say_the_parts_own_effective_length() {
        let mut all = Vec::new();
        for (seed, label) in (0..3).flat_map(|seed| [(seed, ""), (seed, "task=niah_single_2")]) {
            for length in [64, 128, 256] {
                let held = if label.is_empty() { 64 } else { 128 };
                let value = if length <= held { 1.0 } else { 0.2 };
                all.push(row("", seed, length, label, value));
            }
        }
        let summary = summarise(&all);
        let text = render_breaks(&breaks(&all, &[], &summary), &summary, 80);
        assert!(text.contains("carries to 64;"), "{text}");
        assert!(text.contains("carries to 128;"), "{text}");
    }

    /// From another state the whole has more right, and its part has not.
    #[test]
    fn a_part_is_held_against_its_own_examples_from_another_state() {
        let part = "task=niah_single_2";
        let mut all = Vec::new();
        for seed in 0..3 {
            for (length, right) in [(64, 1.0), (128, 0.4)] {
                all.push(row("", seed, length, "", right));
                all.push(row("", seed, length, part, right));
            }
            all.push(row("", seed, 128, "initial=fitted", 1.0));
            let own = format!("initial=fitted,{part}");
            all.push(row("", seed, 128, &own, 0.4));
        }
        let table = breaks(&all, &[], &summarise(&all));
        let found: Vec<_> = table
            .iter()
            .filter(|row| row.explanation == "state")
            .map(|row| (row.control.as_str(), row.verdict))
            .collect();
        use Verdict::{NotSupported, Supported};
        assert_eq!(
            found,
            [
                ("initial=fitted", Supported),
                ("initial=fitted", NotSupported)
            ]
        );
    }

    /// Two tasks of each model, one with more pairs, and parts of a third: only the one with fewer is a control.
    #[test]
    fn fewer_things_to_tell_apart_are_a_control_for_interference() {
        let mut rows = Vec::new();
        let tasks = [
            ("mqar", "pairs=4,vocab=64", "", 1.0),
            ("mqar", "pairs=16,vocab=64", "", 0.4),
            ("mqar", "pairs=2,vocab=128", "", 1.0),
            ("mixture", "", "task=niah_multikey_1", 0.5),
            ("mixture", "", "task=niah_single_2", 0.55),
        ];
        for (task, options, label, late) in tasks {
            for (seed, length) in (0..3).flat_map(|seed| [(seed, 64), (seed, 128)]) {
                let value = if length == 64 { 1.0 } else { late };
                rows.push(Measurement {
                    unit: format!("{task}-{options}-{seed}"),
                    task: task.into(),
                    task_options: options.into(),
                    ..row("", seed, length, label, value)
                });
            }
        }
        let table = breaks(&rows, &[], &summarise(&rows));
        let found: Vec<_> = table
            .iter()
            .filter(|row| row.explanation == "interference")
            .map(|row| (row.task.as_str(), row.control.as_str(), row.verdict))
            .collect();
        assert_eq!(
            found,
            [
                ("mqar", "pairs=4", Verdict::Supported),
                ("mixture", "niah_single_2", Verdict::NotSupported)
            ]
        );
    }

    #[test]
    fn what_differs_in_more_than_one_thing_is_no_control() {
        let model = |options: &str| SummaryRow {
            options: options.into(),
            learned: Some(true),
            ..SummaryRow::default()
        };
        let of = |one: &str, other: &str| cause(&model(one), &model(other));
        assert_eq!(
            of(
                "layers=2",
                "eval.rope_factor=16,eval.rope_scaling=yarn,layers=2"
            ),
            Some("positions")
        );
        assert_eq!(of("positions=alibi", "window=64"), None);
        assert_eq!(of("attention.window=64", ""), Some("window"));
        assert_eq!(of("", "state=128"), None);
        assert_eq!(of("", ""), None);
        assert_eq!(of("", "mamba2.norm_before_gate=true"), Some("norm"));
        let unlearned = SummaryRow {
            learned: Some(false),
            ..model("window=8")
        };
        assert_eq!(cause(&model(""), &unlearned), None);
    }
}
