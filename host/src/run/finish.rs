//! The end of a run: records in the plan's order, so that their bytes do not depend on which worker
//! was first, then the summary, the plots and the table.

use std::collections::HashMap;

use longhaul_results::{
    Measurement, MeasurementKey, Status, TrainingPoint, plot_all, render_tables, summarise,
    write_csv,
};

use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::plan::Unit;
use crate::run::targets::{self, Target};

/// Width of the table where the terminal does not say.
const WIDTH: usize = 80;

/// What a finished folder holds.
#[derive(Debug)]
pub struct Report {
    /// The table.
    pub table: String,
    /// Measurements that did not end well, breakdowns not counted.
    pub not_ok: usize,
    /// All measurements, breakdowns not counted.
    pub all: usize,
}

/// Writes everything that is made of the records.
///
/// # Errors
/// Files that cannot be written; `results.csv` is then as it was or whole.
pub fn finish(folder: &RunFolder, units: &[Unit], targets: &[Target]) -> Result<Report, RunError> {
    let rows = in_order(folder.rows.clone(), units);
    write_csv(&folder.path.join("results.csv"), &rows)?;
    let points = points_in_order(folder.points.clone(), units);
    if !points.is_empty() {
        write_csv(&folder.path.join("training.csv"), &points)?;
    }
    let summary = summarise(&rows);
    write_csv(&folder.path.join("summary.csv"), &summary)?;
    plot_all(&summary, &folder.path.join("plots"))?;
    let mut table = render_tables(&summary, WIDTH);
    let verdicts = targets::judge(targets, &summary);
    table.push_str(&targets::report(&verdicts, &folder.path)?);
    let cells = || rows.iter().filter(|row| row.label.is_empty());
    Ok(Report {
        table,
        not_ok: cells().filter(|row| row.status != Status::Ok).count(),
        all: cells().count(),
    })
}

/// The last row of each measurement, in the order of units, lengths and breakdowns.
pub fn in_order(rows: Vec<Measurement>, units: &[Unit]) -> Vec<Measurement> {
    let places: HashMap<_, usize> = units
        .iter()
        .enumerate()
        .map(|(place, unit)| (unit_key(unit), place))
        .collect();
    let mut latest: HashMap<MeasurementKey, Measurement> = HashMap::new();
    for row in rows {
        // A cell that failed leaves no breakdowns of an earlier try behind.
        if row.label.is_empty() && row.status != Status::Ok {
            latest.retain(|key, _| !same_cell(key, &row.key()));
        }
        latest.insert(row.key(), row);
    }
    let mut rows: Vec<Measurement> = latest.into_values().collect();
    rows.sort_by_cached_key(|row| {
        let place = places.get(&row_key(row)).copied().unwrap_or(usize::MAX);
        (place, row_key(row), row.eval_length, row.label.clone())
    });
    rows
}

fn same_cell(one: &MeasurementKey, other: &MeasurementKey) -> bool {
    MeasurementKey {
        label: String::new(),
        ..one.clone()
    } == MeasurementKey {
        label: String::new(),
        ..other.clone()
    }
}

fn points_in_order(points: Vec<TrainingPoint>, units: &[Unit]) -> Vec<TrainingPoint> {
    let places: HashMap<_, usize> = units
        .iter()
        .enumerate()
        .map(|(place, unit)| (unit_key(unit), place))
        .collect();
    let mut latest = HashMap::new();
    for point in points {
        let unit = (
            (point.architecture.clone(), point.options.clone()),
            (point.task.clone(), point.task_options.clone()),
            point.seed,
            point.learning_rate.to_bits(),
        );
        let place = places.get(&unit).copied().unwrap_or(usize::MAX);
        latest.insert((place, unit, point.step), point);
    }
    let mut points: Vec<_> = latest.into_iter().collect();
    points.sort_by(|one, other| one.0.cmp(&other.0));
    points.into_iter().map(|(_, point)| point).collect()
}

/// What names a unit in the records.
type UnitKey = ((String, String), (String, String), u64, u64);

fn unit_key(unit: &Unit) -> UnitKey {
    (
        (unit.architecture.clone(), unit.options.clone()),
        (unit.task.clone(), unit.task_options.clone()),
        unit.seed,
        unit.learning_rate.to_bits(),
    )
}

fn row_key(row: &Measurement) -> UnitKey {
    (
        (row.architecture.clone(), row.options.clone()),
        (row.task.clone(), row.task_options.clone()),
        row.seed,
        row.learning_rate.to_bits(),
    )
}

/// Lengths of a unit that have a record; with `retry` only those that ended well.
pub fn recorded(rows: &[Measurement], unit: &Unit, retry: bool) -> Vec<usize> {
    let mut latest = HashMap::new();
    let own = rows.iter().filter(|row| {
        row.label.is_empty()
            && row_key(row) == unit_key(unit)
            && row.train_length == unit.train_length as u64
            && row.train_steps == unit.steps
    });
    for row in own {
        latest.insert(row.eval_length as usize, row.status);
    }
    let mut lengths: Vec<usize> = latest
        .into_iter()
        .filter(|&(_, status)| !retry || status == Status::Ok)
        .map(|(length, _)| length)
        .collect();
    lengths.sort_unstable();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::Common;
    use crate::run::records::tests::unit;
    use crate::worker::protocol::{Evaluated, Score};

    fn common() -> Common {
        let task = longhaul_tasks::parse_task("parity").unwrap();
        Common::new("id", "cpu", task)
    }

    fn good(unit: &Unit, length: usize) -> Vec<Measurement> {
        let score = |label: &str| Score {
            label: label.into(),
            samples: 4,
            correct: 2,
            tokens: 4,
            nll_sum: 1.0,
        };
        let evaluated = Evaluated {
            index: 0,
            scores: vec![score("a=1"), score("")],
            state_bytes: 1,
            peak_memory_bytes: None,
            tokens: 4,
            seconds: 1.0,
        };
        common().measured(unit, length, &evaluated)
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let first = unit(10);
        let second = Unit {
            seed: 1,
            ..unit(10)
        };
        let units = [first.clone(), second.clone()];
        let mut rows = Vec::new();
        for (unit, length) in [(&second, 80), (&first, 80), (&second, 40), (&first, 40)] {
            rows.extend(good(unit, length));
        }
        let forward = in_order(rows.clone(), &units);
        rows.reverse();
        assert_eq!(in_order(rows, &units), forward);
        let order: Vec<_> = forward
            .iter()
            .map(|r| (r.seed, r.eval_length, r.label.as_str()))
            .collect();
        assert_eq!(order[..3], [(0, 40, ""), (0, 40, "a=1"), (0, 80, "")]);
        assert_eq!(order.len(), 8);
    }

    #[test]
    fn the_last_word_counts() {
        let unit = unit(10);
        let mut rows = vec![common().unmeasured(&unit, 40, Status::Crashed, "x")];
        rows.push(common().unmeasured(&unit, 80, Status::NotRun, "y"));
        assert_eq!(recorded(&rows, &unit, false), [40, 80]);
        assert_eq!(recorded(&rows, &unit, true), [0_usize; 0]);
        rows.extend(good(&unit, 40));
        assert_eq!(recorded(&rows, &unit, true), [40]);
        let ordered = in_order(rows.clone(), std::slice::from_ref(&unit));
        assert_eq!(ordered.len(), 3);
        assert_eq!(ordered[0].status, Status::Ok);
        // A later failure takes the breakdowns of the earlier success with it.
        rows.push(common().unmeasured(&unit, 40, Status::Failed, "z"));
        assert_eq!(in_order(rows, std::slice::from_ref(&unit)).len(), 2);
        let other = Unit {
            steps: 11,
            ..unit.clone()
        };
        assert!(recorded(&good(&unit, 40), &other, false).is_empty());
    }
}
