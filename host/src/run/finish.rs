//! The end of a run: records in the plan's order, so that their bytes do not depend on which worker
//! was first, then the summary, the plots and the table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use longhaul_results::{
    Cell, Measurement, Probe, Status, TrainingPoint, files, latest, plot_all, render_tables,
    summarise, write_csv,
};

use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::plan::{Evaluation, Training, Unit};
use crate::run::targets::{self, Target, VERDICTS};
use crate::table;

/// What a finished folder holds.
#[derive(Debug)]
pub struct Report {
    /// The table; empty of a part of a run.
    pub table: String,
    /// Measurements that did not end well, breakdowns not counted, and neither are those that were not run.
    pub not_ok: usize,
    /// Measurements that were not run, for a reason that their records state.
    pub not_run: usize,
    /// All measurements, breakdowns not counted.
    pub all: usize,
}

/// Writes everything that is made of the records, which it takes out of the folder: there may be many. Of a part of
/// a run it puts the records in order, and no more: learning rates are chosen, and models ranked, among all of them.
///
/// # Errors
/// Ctrl-C; files that cannot be written; `results.csv` is then as it was or whole.
pub fn finish(
    folder: &mut RunFolder,
    (units, targets): (&[Unit], &[Target]),
    interrupt: &AtomicBool,
) -> Result<Report, RunError> {
    let go_on = || match interrupt.load(Ordering::Relaxed) {
        true => Err(RunError::interrupted()),
        false => Ok(()),
    };
    let places = Places::new(units);
    let rows = in_order(std::mem::take(&mut folder.rows), &places);
    go_on()?;
    write_csv(&folder.path.join("results.csv"), &rows)?;
    let points = points_in_order(std::mem::take(&mut folder.points), &places);
    if !points.is_empty() {
        write_csv(&folder.path.join("training.csv"), &points)?;
    }
    let probes = probes_in_order(std::mem::take(&mut folder.probes), &rows, &places);
    if !probes.is_empty() {
        write_csv(&folder.path.join("probes.csv"), &probes)?;
    }
    go_on()?;
    let table = match folder.part {
        Some(_) => String::new(),
        None => draw(folder, &rows, targets, &go_on)?,
    };
    let cells = || rows.iter().filter(|row| row.is_reported_cell());
    let not_run = cells().filter(|row| row.status == Status::NotRun).count();
    let ok = cells().filter(|row| row.status == Status::Ok).count();
    let all = cells().count();
    Ok(Report {
        table,
        not_ok: all - ok - not_run,
        not_run,
        all,
    })
}

/// Writes what is made of records in order: summary, plots, verdicts and the table, which it returns.
fn draw(
    folder: &RunFolder,
    rows: &[Measurement],
    targets: &[Target],
    go_on: &dyn Fn() -> Result<(), RunError>,
) -> Result<String, RunError> {
    let summary = summarise(rows);
    write_csv(&folder.path.join("summary.csv"), &summary)?;
    go_on()?;
    plot_all(&summary, &folder.path.join("plots"))?;
    go_on()?;
    let mut table = render_tables(&summary, table::OF_FILES);
    let verdicts = targets::judge(targets, &summary, rows);
    if !verdicts.is_empty() {
        write_csv(&folder.path.join(VERDICTS), &verdicts)?;
        table.push_str(&targets::render(&verdicts, table::OF_FILES));
    }
    let kept = folder.path.join("table.txt");
    files::write_whole(&kept, table.as_bytes()).map_err(RunError::io("write", &kept))?;
    Ok(table)
}

/// The places of a plan's units, by id.
pub struct Places(HashMap<String, usize>);

impl Places {
    /// Of the units in order.
    pub fn new(units: &[Unit]) -> Self {
        let places = units.iter().enumerate();
        Self(places.map(|(place, unit)| (unit.id(), place)).collect())
    }

    fn of(&self, unit: &str) -> usize {
        self.0.get(unit).copied().unwrap_or(usize::MAX)
    }
}

/// The last row of each measurement, in the order of units, splits, lengths and breakdowns.
pub fn in_order(rows: Vec<Measurement>, places: &Places) -> Vec<Measurement> {
    let mut cells = latest(rows);
    cells.sort_by_cached_key(|(cell, _)| (places.of(&cell.unit), cell.clone()));
    cells.into_iter().flat_map(|(_, rows)| rows).collect()
}

/// The last point of each step, in the order of units and steps.
fn points_in_order(points: Vec<TrainingPoint>, places: &Places) -> Vec<TrainingPoint> {
    let latest: BTreeMap<_, _> = points
        .into_iter()
        .map(|point| {
            (
                (places.of(&point.unit), point.unit.clone(), point.step),
                point,
            )
        })
        .collect();
    latest.into_values().collect()
}

/// The last of each probe of the cells that were measured, in the order of units, splits, lengths and places.
fn probes_in_order(probes: Vec<Probe>, rows: &[Measurement], places: &Places) -> Vec<Probe> {
    let ok = rows
        .iter()
        .filter(|row| row.label.is_empty() && row.status == Status::Ok);
    let measured: HashSet<Cell> = ok.map(Measurement::cell).collect();
    let probes = probes
        .into_iter()
        .filter(|probe| measured.contains(&probe.cell()));
    let key = |probe: &Probe| (places.of(&probe.unit), probe.cell(), probe.place());
    let latest: BTreeMap<_, _> = probes.map(|probe| (key(&probe), probe)).collect();
    latest.into_values().collect()
}

/// What a folder's records say is done.
pub struct Recorded {
    cells: HashMap<Cell, Status>,
    /// The last step of each unit's training.
    trained: HashMap<String, u64>,
}

impl Recorded {
    /// Of the rows and points of a folder.
    pub fn new(rows: &[Measurement], points: &[TrainingPoint]) -> Self {
        let cells = rows.iter().filter(|row| row.label.is_empty());
        let mut trained: HashMap<String, u64> = HashMap::new();
        for point in points {
            match trained.get_mut(&point.unit) {
                Some(last) => *last = point.step.max(*last),
                None => _ = trained.insert(point.unit.clone(), point.step),
            }
        }
        Self {
            cells: cells.map(|row| (row.cell(), row.status)).collect(),
            trained,
        }
    }

    /// What is left of a unit's evaluations; with `retry` also what did not end well.
    pub fn left(&self, id: &str, evaluations: Vec<Evaluation>, retry: bool) -> Vec<Evaluation> {
        let left = |what: &Evaluation| match self.cells.get(&what.cell(id)) {
            None => true,
            Some(status) => retry && *status != Status::Ok,
        };
        evaluations.into_iter().filter(left).collect()
    }

    /// Whether the last step of a unit's training is recorded, as it is when all points are.
    pub fn is_trained(&self, id: &str, training: &Training) -> bool {
        self.trained.get(id) == Some(&training.steps.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::tests::{self as records, at, common, unit};

    fn good(unit: &Unit, length: usize) -> Vec<Measurement> {
        records::good(unit, length, "a=1")
    }

    fn bad(unit: &Unit, length: usize, status: Status) -> Measurement {
        common(unit).unmeasured(at(length), status, "x")
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let first = unit(10);
        let second = Unit {
            seed: 1,
            ..unit(10)
        };
        let places = Places::new(&[first.clone(), second.clone()]);
        let mut rows = Vec::new();
        for (unit, length) in [(&second, 80), (&first, 80), (&second, 40), (&first, 40)] {
            rows.extend(good(unit, length));
        }
        let forward = in_order(rows.clone(), &places);
        rows.reverse();
        assert_eq!(in_order(rows, &places), forward);
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
        let id = unit.id();
        let left = |rows: &[Measurement], retry| -> Vec<usize> {
            let left = Recorded::new(rows, &[]).left(&id, unit.evaluations(), retry);
            left.iter().map(|what| what.length).collect()
        };
        let mut rows = vec![bad(&unit, 40, Status::Crashed)];
        rows.push(bad(&unit, 80, Status::NotRun));
        assert_eq!(left(&rows, false), [0_usize; 0]);
        assert_eq!(left(&rows, true), [40, 80]);
        rows.extend(good(&unit, 40));
        assert_eq!(left(&rows, true), [80]);
        let places = Places::new(std::slice::from_ref(&unit));
        let ordered = in_order(rows.clone(), &places);
        assert_eq!(ordered.len(), 3);
        assert_eq!(ordered[0].status, Status::Ok);
        // A later failure takes the breakdowns of the earlier success with it.
        rows.push(bad(&unit, 40, Status::Failed));
        assert_eq!(in_order(rows, &places).len(), 2);
    }

    #[test]
    fn probes_of_what_was_not_measured_are_left_out_and_the_last_of_each_counts() {
        let unit = unit(10);
        let places = Places::new(std::slice::from_ref(&unit));
        let probe = |eval_length: u64, position: u64, value: f64| Probe {
            unit: unit.id(),
            eval_length,
            probe: "state_norm".into(),
            layer: Some(0),
            position,
            samples: 1,
            value,
            ..Probe::default()
        };
        // A kill between the probes of a cell and its row leaves probes that come once more.
        let probes = vec![
            probe(80, 80, 1.0),
            probe(40, 40, 2.0),
            probe(80, 80, 3.0),
            probe(80, 64, 4.0),
        ];
        let mut rows = good(&unit, 80);
        rows.push(bad(&unit, 40, Status::Crashed));
        let kept = probes_in_order(probes, &rows, &places);
        let kept: Vec<_> = kept
            .iter()
            .map(|p| (p.eval_length, p.position, p.value))
            .collect();
        assert_eq!(kept, [(80, 64, 4.0), (80, 80, 3.0)]);
    }

    /// Every way in which two trainings can differ keeps their rows apart.
    #[test]
    fn rows_of_different_units_never_meet() {
        type Change<'a> = (&'a str, &'a dyn Fn(&mut Unit));
        let changes: [Change<'_>; 15] = [
            ("plugin", &|unit| unit.plugin = "q".into()),
            ("plugin_version", &|unit| unit.plugin_version = "2".into()),
            ("plugin_sha256", &|unit| unit.plugin_sha256 = "cd".into()),
            ("options", &|unit| {
                unit.options = "d_model=32,layers=2".into()
            }),
            ("task_options", &|unit| unit.task_options = "a=1".into()),
            ("seed", &|unit| unit.seed = 7),
            ("length_min", &|unit| {
                unit.training.as_mut().unwrap().length_min = 4
            }),
            ("length", &|unit| {
                unit.training.as_mut().unwrap().length = 41
            }),
            ("curriculum", &|unit| {
                unit.training.as_mut().unwrap().curriculum = Some(0.5)
            }),
            ("steps", &|unit| unit.training.as_mut().unwrap().steps = 11),
            ("batch", &|unit| unit.training.as_mut().unwrap().batch = 5),
            ("learning_rate", &|unit| {
                unit.training.as_mut().unwrap().learning_rate = 2e-3;
            }),
            ("warmup_steps", &|unit| {
                unit.training.as_mut().unwrap().warmup_steps = 1
            }),
            ("weight_decay", &|unit| {
                unit.training.as_mut().unwrap().weight_decay = 0.0
            }),
            ("clip_norm", &|unit| {
                unit.training.as_mut().unwrap().clip_norm = 0.0
            }),
        ];
        let mut units = vec![unit(10)];
        for (what, change) in changes {
            let mut other = unit(10);
            change(&mut other);
            assert_ne!(other.id(), units[0].id(), "{what}");
            units.push(other);
        }
        let rows: Vec<_> = units.iter().flat_map(|unit| good(unit, 40)).collect();
        let recorded = Recorded::new(&rows[..2], &[]);
        assert!(
            recorded
                .left(&units[0].id(), vec![at(40)], false)
                .is_empty()
        );
        for unit in &units[1..] {
            assert_eq!(recorded.left(&unit.id(), vec![at(40)], false).len(), 1);
        }
        assert_eq!(
            in_order(rows.clone(), &Places::new(&units)),
            rows_sorted(rows)
        );
        let point = |unit: &Unit| TrainingPoint {
            unit: unit.id(),
            ..TrainingPoint::default()
        };
        let points: Vec<_> = units.iter().map(point).collect();
        let kept = points_in_order(points.clone(), &Places::new(&units));
        assert_eq!(kept, points);
    }

    /// Cells before their breakdowns, as they are kept.
    fn rows_sorted(rows: Vec<Measurement>) -> Vec<Measurement> {
        rows.chunks(2)
            .flat_map(|pair| [pair[1].clone(), pair[0].clone()])
            .collect()
    }

    #[test]
    fn a_hundred_thousand_rows_take_no_longer_than_their_number() {
        let units: Vec<Unit> = (0..2000).map(|seed| Unit { seed, ..unit(10) }).collect();
        let common: Vec<_> = units.iter().map(common).collect();
        let mut rows = Vec::new();
        for length in 31..=80 {
            for common in &common {
                rows.push(common.unmeasured(at(length), Status::Crashed, "x"));
            }
        }
        let begun = std::time::Instant::now();
        let recorded = Recorded::new(&rows, &[]);
        for unit in &units {
            assert_eq!(recorded.left(&unit.id(), unit.evaluations(), false), []);
        }
        assert_eq!(in_order(rows, &Places::new(&units)).len(), 100_000);
        // Once it was by the square: half an hour.
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
}
