//! What decides accuracy: of models that were trained in all combinations of architecture, size and budget, the share of
//! the variance that each of the three explains, at each length.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::record::{Measurement, Split, Status};
use crate::setting::{Trained, group};
use crate::statistics::{mean, standard_deviation, student};
use crate::summary::SummaryRow;
use crate::text::{paragraph, printable, short_length};
use crate::view::{CurveView, TaskView, named, tasks};

crate::table_row! {
/// A row of `factors.csv`: how much of the variance of accuracy a factor explains at a length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FactorRow {
    /// Task.
    pub task: String,
    /// The part of it and its options.
    pub task_options: String,
    /// Longest training length, in tokens.
    pub train_length: Option<u64>,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// `architecture`; `parameters`: small or large, of each architecture by its own number of them; `training`: sequences
    /// that it was trained on; `rest`: how these act together, and chance.
    pub factor: String,
    /// How many architectures, sizes or budgets there are; empty of the rest.
    pub levels: Option<u64>,
    /// Models in all combinations.
    pub models: u64,
    /// Seeds that were measured of all of them, and in which they are not all alike.
    pub seeds: u64,
    /// Share of the sum of squares of accuracies around their mean, a mean over seeds: of a factor what its levels' means
    /// have, of the rest what remains.
    pub share: Option<f64>,
    /// Lower end of its 95 % interval, Student's over seeds; empty of one seed.
    pub share_low: Option<f64>,
    /// Upper end.
    pub share_high: Option<f64>,
}
}

/// Options that say how large a model is.
const SIZES: [&str; 2] = ["d_model", "layers"];

/// What explains, and what nothing of it does.
const FACTORS: [&str; 4] = ["architecture", "parameters", "training", "rest"];

/// Places of a model: of its architecture, its size among those of its architecture, and its budget.
type Place = [usize; 3];

/// Models and where they stand.
type Models<'a, 'b> = Vec<(Place, &'b CurveView<'a>)>;

/// The tables of all tasks whose models are such a grid.
pub fn factors(rows: &[Measurement], summary: &[SummaryRow]) -> Vec<FactorRow> {
    let mut parameters: HashMap<Trained<'_>, u64> = HashMap::new();
    let mut cells: HashMap<(Trained<'_>, &str, u64), BTreeMap<u64, f64>> = HashMap::new();
    for row in rows {
        parameters.extend(row.parameters.map(|count| (row.trained(), count)));
        let value = row
            .value
            .filter(|_| row.split == Split::Test && row.status == Status::Ok);
        if let Some(value) = value {
            let cell = (row.trained(), row.label.as_str(), row.eval_length);
            cells.entry(cell).or_default().insert(row.seed, value);
        }
    }
    let mut table = Vec::new();
    for task in tasks(summary) {
        if !task.kind.is_accuracy() {
            continue;
        }
        let Some((levels, grid)) = grid(&task, &parameters) else {
            continue;
        };
        for &length in &task.lengths {
            let measured: Option<Vec<_>> = grid
                .iter()
                .map(|(place, curve)| {
                    let first = curve.first();
                    let cell = (first.trained(), first.label.as_str(), length);
                    Some((*place, cells.get(&cell)?))
                })
                .collect();
            let Some(measured) = measured else { continue };
            let seeds: BTreeSet<u64> = measured
                .iter()
                .flat_map(|cell| cell.1.keys())
                .copied()
                .collect();
            let shares = seeds.into_iter().filter_map(|seed| {
                let values: Option<Vec<(Place, f64)>> = measured
                    .iter()
                    .map(|(place, of_seeds)| Some((*place, *of_seeds.get(&seed)?)))
                    .collect();
                shares(&values?, levels)
            });
            let shares: Vec<[f64; 4]> = shares.collect();
            for (factor, name) in FACTORS.into_iter().enumerate() {
                if levels.get(factor).is_some_and(|&levels| levels < 2) {
                    continue;
                }
                let own: Vec<f64> = shares.iter().map(|shares| shares[factor]).collect();
                let centre = mean(&own);
                let sd = standard_deviation(&own);
                let ends = centre
                    .zip(sd)
                    .and_then(|(centre, sd)| student(centre, sd, own.len() as u64));
                table.push(FactorRow {
                    task: task.task.to_owned(),
                    task_options: task.options.clone(),
                    train_length: grid[0].1.first().train_length,
                    eval_length: length,
                    factor: name.to_owned(),
                    levels: levels.get(factor).map(|&levels| levels as u64),
                    models: grid.len() as u64,
                    seeds: own.len() as u64,
                    share: centre,
                    share_low: ends.map(|ends| ends.0.max(0.0)),
                    share_high: ends.map(|ends| ends.1.min(1.0)),
                });
            }
        }
    }
    table
}

/// The models of a task that are there in every size and with every budget, and how many levels each factor has: of
/// several such grids the one with most models. `None` where two of the factors do not vary.
fn grid<'a, 'b>(
    task: &'b TaskView<'a>,
    parameters: &HashMap<Trained<'_>, u64>,
) -> Option<([usize; 3], Models<'a, 'b>)> {
    // What is read in another way than it was trained for is no architecture of its own.
    let is_plain = |curve: &&CurveView<'_>| {
        let row = curve.first();
        row.trained_options() == row.options
    };
    let architectures = group(task.curves.iter().filter(is_plain), |curve| {
        let row = curve.first();
        let options = row.options.split(',').filter(|pair| {
            let name = pair.split('=').next().unwrap_or(pair);
            !SIZES.contains(&name)
        });
        let options: Vec<&str> = options.collect();
        (
            row.plugin.clone(),
            row.architecture.clone(),
            options.join(","),
            lengths_and_decay(row),
        )
    });
    // Of each architecture the size and the budget of its models.
    let places = architectures.into_iter().filter_map(|curves| {
        let size = |curve: &CurveView<'_>| parameters.get(&curve.first().trained()).copied();
        let budget = |curve: &CurveView<'_>| {
            let row = curve.first();
            Some(row.train_steps? * row.batch?)
        };
        let models: Option<Vec<(u64, u64)>> = curves
            .iter()
            .map(|curve| Some((size(curve)?, budget(curve)?)))
            .collect();
        let models = models?;
        let settings = lengths_and_decay(curves[0].first());
        let sizes: BTreeSet<u64> = models.iter().map(|model| model.0).collect();
        let budgets: BTreeSet<u64> = models.iter().map(|model| model.1).collect();
        let distinct: BTreeSet<(u64, u64)> = models.iter().copied().collect();
        let is_whole =
            models.len() == sizes.len() * budgets.len() && distinct.len() == models.len();
        let own: Vec<_> = models
            .into_iter()
            .zip(curves)
            .map(|((size, budget), curve)| {
                let place = sizes.range(..size).count();
                (place, budgets.range(..budget).count(), curve)
            })
            .collect();
        is_whole.then_some(((sizes.len(), budgets, settings), own))
    });
    let grids = group(places, |(same, _)| same.clone());
    // The first of those with most models.
    let most = grids.into_iter().rev();
    let grid = most.max_by_key(|grid| grid.len() * grid[0].1.len())?;
    let (sizes, budgets, _) = &grid[0].0;
    let levels = [grid.len(), *sizes, budgets.len()];
    let varied = levels.iter().filter(|&&levels| levels > 1).count();
    let models = grid
        .into_iter()
        .enumerate()
        .flat_map(|(architecture, (_, own))| {
            own.into_iter()
                .map(move |(size, budget, curve)| ([architecture, size, budget], curve))
        });
    (varied >= 2).then(|| (levels, models.collect()))
}

/// What of a training is no factor: models of one grid have it in common.
fn lengths_and_decay(row: &SummaryRow) -> (Option<u64>, Option<u64>, String, [Option<u64>; 2]) {
    (
        row.train_length_min,
        row.train_length,
        row.train_distribution.clone(),
        [row.weight_decay, row.clip_norm].map(|value| value.map(f64::to_bits)),
    )
}

/// Of one seed's values what each factor's means have of their sum of squares, and the rest; `None` where all are alike.
fn shares(values: &[(Place, f64)], levels: [usize; 3]) -> Option<[f64; 4]> {
    let all: Vec<f64> = values.iter().map(|value| value.1).collect();
    let centre = mean(&all)?;
    let total: f64 = all.iter().map(|value| (value - centre).powi(2)).sum();
    // Equal values may differ from their mean by a rounding.
    if total <= 1e-18 * all.len() as f64 {
        return None;
    }
    let mut shares = [0.0; 4];
    for (factor, &levels) in levels.iter().enumerate() {
        for level in 0..levels {
            let own = values.iter().filter(|value| value.0[factor] == level);
            let own: Vec<f64> = own.map(|value| value.1).collect();
            shares[factor] += own.len() as f64 * (mean(&own)? - centre).powi(2) / total;
        }
    }
    shares[3] = (1.0 - shares.iter().sum::<f64>()).max(0.0);
    Some(shares)
}

/// The table in words, `width` columns at most.
pub fn render_factors(table: &[FactorRow], width: usize) -> String {
    let mut text = String::new();
    let of_task = |row: &&FactorRow| (row.task.clone(), row.task_options.clone());
    for task in group(table, of_task) {
        let first = task[0];
        let varied = [
            ("architecture", "architectures"),
            ("parameters", "sizes"),
            ("training", "budgets"),
        ];
        let varied = varied.into_iter().filter_map(|(factor, many)| {
            let row = task.iter().find(|row| row.factor == factor)?;
            Some(format!("{} {many}", row.levels?))
        });
        let head = format!(
            "What decides accuracy on {} ({} in all combinations; share of the variance, 95 %)",
            named(&first.task, &first.task_options),
            varied.collect::<Vec<_>>().join(", "),
        );
        paragraph(&head, width, &mut text);
        for at in group(task, |row| row.eval_length) {
            let shown = at.iter().filter_map(|row| {
                let ends = row.share_low.zip(row.share_high);
                let ends = ends.map_or_else(String::new, |(low, high)| {
                    format!(" [{:.0}, {:.0}]", 100.0 * low, 100.0 * high)
                });
                Some(format!("{} {:.0} %{ends}", row.factor, 100.0 * row.share?))
            });
            let shown: Vec<String> = shown.collect();
            let words = match shown.is_empty() {
                true => "all are alike".to_owned(),
                false => shown.join(", "),
            };
            let length = short_length(at[0].eval_length);
            paragraph(&format!("  at {length}: {words}"), width, &mut text);
        }
        text.push('\n');
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::summarise;

    /// Two architectures in two sizes with two budgets, and one without a second size.
    fn rows(value: impl Fn(usize, usize, usize, u64) -> f64) -> Vec<Measurement> {
        let mut rows = Vec::new();
        for (architecture, size, budget) in (0..8)
            .map(|place| (place / 4, place / 2 % 2, place % 2))
            .chain([(2, 0, 0)])
        {
            for seed in 0..3 {
                let value = value(architecture, size, budget, seed);
                rows.push(Measurement {
                    unit: format!("{architecture}-{size}-{budget}-{seed}"),
                    architecture: format!("arch-{architecture}"),
                    options: format!("d_model={},layers=2", 32 << (size + architecture)),
                    parameters: Some(1000 << (size + architecture)),
                    task: "task".into(),
                    seed,
                    train_length: Some(64),
                    train_steps: Some(100 << budget),
                    batch: Some(8),
                    learning_rate: Some(1e-3),
                    split: Split::Test,
                    eval_length: 128,
                    metric: "exact_match".into(),
                    samples: Some(100),
                    correct: Some((100.0 * value) as u64),
                    value: Some(value),
                    value_low: Some(value),
                    value_high: Some(value),
                    status: Status::Ok,
                    ..Measurement::default()
                });
            }
        }
        rows
    }

    fn found(rows: &[Measurement]) -> Vec<FactorRow> {
        factors(rows, &summarise(rows))
    }

    #[test]
    fn each_factor_has_its_share_by_hand() {
        // Architecture adds 0.4, size 0.2, budget 0.1: squares 16 to 4 to 1.
        let additive = rows(|architecture, size, budget, _| {
            0.1 + 0.4 * (architecture % 2) as f64 + 0.2 * size as f64 + 0.1 * budget as f64
        });
        let table = found(&additive);
        let shares: Vec<f64> = table.iter().map(|row| row.share.unwrap()).collect();
        for (share, expected) in shares.iter().zip([16.0, 4.0, 1.0, 0.0]) {
            assert!((share - expected / 21.0).abs() < 1e-9, "{shares:?}");
        }
        assert_eq!(
            table.iter().map(|row| row.levels).collect::<Vec<_>>(),
            [Some(2), Some(2), Some(2), None]
        );
        assert!(table.iter().all(|row| row.models == 8 && row.seeds == 3));
        // What two do together is the rest.
        let together = rows(|architecture, size, _, _| match (architecture, size) {
            (0, 0) | (1, 1) => 0.75,
            _ => 0.25,
        });
        let shares: Vec<f64> = found(&together)
            .iter()
            .map(|row| row.share.unwrap())
            .collect();
        assert!(shares[..3].iter().all(|share| *share < 1e-9) && (shares[3] - 1.0).abs() < 1e-9);
        let text = render_factors(&table, 80);
        assert!(text.contains("architecture 76 % [76, 76]"), "{text}");
        assert!(
            text.contains("2 architectures, 2 sizes, 2 budgets"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    /// What the longer training does is no architecture's doing.
    #[test]
    fn models_of_other_training_lengths_are_in_no_grid() {
        let mut all = rows(|architecture, size, _, _| 0.1 * (architecture + size) as f64);
        for row in &mut all {
            if row.architecture == "arch-0" {
                row.train_length = Some(256);
            }
        }
        let table = found(&all);
        assert!(!table.is_empty() && table.iter().all(|row| row.models == 4));
        assert!(table.iter().all(|row| row.train_length == Some(256)));
        // Nor are those of one architecture.
        all.iter_mut().for_each(|row| row.train_length = Some(64));
        for row in &mut all {
            if row.unit.starts_with("1-1-1") {
                row.train_distribution = "fixed".into();
            }
        }
        let table = found(&all);
        assert!(!table.is_empty() && table.iter().all(|row| row.models == 4));
    }

    #[test]
    fn seeds_widen_it_and_what_is_alike_has_no_shares() {
        let other = |seed: u64| if seed == 2 { 0.0 } else { 0.4 };
        let table = found(&rows(|architecture, size, _, seed| {
            0.1 + other(seed) * (architecture % 2) as f64 + 0.2 * size as f64
        }));
        let first = &table[0];
        assert!(
            first.share_low.unwrap() < 0.1 && first.share_high.unwrap() > 0.9,
            "{first:?}"
        );
        let alike = found(&rows(|_, _, _, _| 0.5));
        assert!(
            alike
                .iter()
                .all(|row| row.share.is_none() && row.seeds == 0)
        );
        assert!(render_factors(&alike, 80).contains("at 128: all are alike"));
        // A model that is not there leaves no grid of eight.
        let mut fewer = rows(|architecture, _, _, _| 0.1 * architecture as f64);
        fewer.retain(|row| !row.unit.starts_with("1-1-1"));
        let fewer = found(&fewer);
        assert!(fewer.iter().all(|row| row.models == 4));
        // What does not vary explains nothing.
        assert!(
            fewer
                .iter()
                .all(|row| row.levels.is_none_or(|levels| levels == 2))
        );
    }
}
