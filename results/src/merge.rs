//! Records of several runs taken together: what was measured last in each cell, and why runs are not comparable.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::record::{Cell, Measurement, Status};
use crate::setting::{Trained, group};
use crate::text::listed;

/// The records of one run.
#[derive(Debug)]
pub struct Source {
    /// What the run is called in messages: its folder.
    pub name: String,
    /// Rows in the order in which they were written.
    pub rows: Vec<Measurement>,
    /// Whether they are another tool's, whose tasks are none of ours and are held to no conditions.
    pub foreign: bool,
}

/// Records of all runs, and what was noticed.
#[derive(Debug)]
pub struct Merged {
    /// A row a cell and breakdown, in the order of the runs.
    pub rows: Vec<Measurement>,
    /// For each row the place of its run among the sources.
    pub origins: Vec<usize>,
    /// Rows that stood more than once, in words.
    pub notes: Vec<String>,
}

/// Why runs are not put into one table.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// Two runs give different values for what is one measurement by its identity.
    #[error("{} and {} have different values for the same measurement: {difference}. Leave one of the runs out", runs[0], runs[1])]
    Conflict {
        /// The runs.
        runs: [String; 2],
        /// The measurement, and both values.
        difference: String,
    },
    /// Two runs have the same seed of what one table takes for one model, as where a plugin was built anew between them.
    #[error("{} and {} have the same seed of one model twice: {what}. It would count as two; leave one of the runs out", runs[0], runs[1])]
    Twice {
        /// The runs.
        runs: [String; 2],
        /// The model, the seed, the length, and what differs.
        what: String,
    },
    /// One task was measured under other conditions.
    #[error("{} and {} cannot be compared on {task}: {difference}", runs[0], runs[1])]
    Differ {
        /// The runs.
        runs: [String; 2],
        /// Task.
        task: String,
        /// What differs, and what to do.
        difference: String,
    },
}

/// The last row of each cell and breakdown, breakdowns in the order of their labels; cells in the order of
/// first appearance. A cell that did not end well leaves no breakdowns of an earlier try behind.
pub fn latest(rows: Vec<Measurement>) -> Vec<(Cell, Vec<Measurement>)> {
    let mut places: HashMap<Cell, usize> = HashMap::new();
    let mut cells: Vec<(Cell, Vec<Measurement>)> = Vec::new();
    for row in rows {
        let key = row.cell();
        let Some(&place) = places.get(&key) else {
            places.insert(key.clone(), cells.len());
            // Most cells have one row, and a vector that grows begins with room for four.
            cells.push((key, vec![row]));
            continue;
        };
        let rows = &mut cells[place].1;
        if row.label.is_empty() && row.status != Status::Ok {
            rows.clear();
        }
        rows.push(row);
    }
    for (_, rows) in &mut cells {
        rows.sort_by(|one, other| one.label.cmp(&other.label));
        rows.dedup_by(|later, earlier| {
            let again = later.label == earlier.label;
            if again {
                std::mem::swap(later, earlier);
            }
            again
        });
    }
    cells
}

/// A run's cells.
struct Run {
    name: String,
    foreign: bool,
    cells: Vec<(Cell, Vec<Measurement>)>,
}

/// Takes runs together. With `uneven` training and seeds may differ between them, seeds also where their models are the same;
/// the definition of a task never may.
///
/// # Errors
/// What makes the runs incomparable, or contradict each other.
pub fn merge(sources: Vec<Source>, uneven: bool) -> Result<Merged, MergeError> {
    let mut notes = Vec::new();
    let mut runs: Vec<Run> = Vec::new();
    for source in sources {
        let all = source.rows.len();
        let cells = latest(source.rows);
        let kept: usize = cells.iter().map(|(_, rows)| rows.len()).sum();
        if kept < all {
            notes.push(format!(
                "{}: {} rows were written again later; the last of each counts",
                source.name,
                all - kept
            ));
        }
        let (name, foreign) = (source.name, source.foreign);
        runs.push(Run {
            name,
            foreign,
            cells,
        });
    }
    comparable(&runs, uneven)?;
    let mut places: HashMap<Cell, (usize, usize)> = HashMap::new();
    let (mut rows, mut origins): (Vec<Measurement>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut twice = 0;
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let foreign: Vec<bool> = runs.iter().map(|run| run.foreign).collect();
    for (run, Run { cells, .. }) in runs.into_iter().enumerate() {
        for (cell, own) in cells {
            match places.get(&cell) {
                None => {
                    places.insert(cell, (run, rows.len()));
                    rows.extend(own);
                    origins.resize(rows.len(), run);
                }
                Some(&(earlier, place)) => {
                    twice += 1;
                    agree(&rows[place], &own[0], [&names[earlier], &names[run]])?;
                }
            }
        }
    }
    let own = rows.iter().zip(origins.iter().copied());
    once(own.filter(|&(_, run)| !foreign[run]), &names)?;
    if twice > 0 {
        notes.push(format!(
            "{twice} cells stand in two runs with the same values; each counts once"
        ));
    }
    Ok(Merged {
        rows,
        origins,
        notes,
    })
}

/// Refuses a seed of two runs that a summary would take for two of one point: a measurement's identity has the plugin's
/// bytes and the checkpoint's folder, and a point has not.
fn once<'a>(
    rows: impl Iterator<Item = (&'a Measurement, usize)>,
    names: &[String],
) -> Result<(), MergeError> {
    let mut known = HashMap::new();
    for (row, run) in rows {
        let (one, first) = *known.entry((row.point(), row.seed)).or_insert((row, run));
        if first == run {
            continue;
        }
        let files = [one, row].map(|row| row.plugin_sha256.chars().take(8).collect::<String>());
        let differs = match files[0] == files[1] {
            true => "by other units".to_owned(),
            false => format!(
                "by the files {} and {} of {}",
                files[0], files[1], row.plugin
            ),
        };
        return Err(MergeError::Twice {
            runs: [first, run].map(|run| names[run].clone()),
            what: format!(
                "{}, {}, seed {}, at {} tokens, {differs}",
                row.architecture, row.task, row.seed, row.eval_length
            ),
        });
    }
    Ok(())
}

/// Refuses two values for one cell.
fn agree(one: &Measurement, other: &Measurement, runs: [&str; 2]) -> Result<(), MergeError> {
    let measured = |row: &Measurement| (row.status, row.samples, row.correct, row.value, row.nll);
    if measured(one) == measured(other) {
        return Ok(());
    }
    let value = |row: &Measurement| {
        let name = || row.status.name().to_owned();
        row.value.map_or_else(name, |value| value.to_string())
    };
    Err(MergeError::Conflict {
        runs: runs.map(str::to_owned),
        difference: format!(
            "unit {} ({}, {}, seed {}) at {} tokens is {} in one and {} in the other",
            one.unit,
            one.architecture,
            one.task,
            one.seed,
            one.eval_length,
            value(one),
            value(other)
        ),
    })
}

/// Refuses runs that measured the same task under other conditions.
fn comparable(runs: &[Run], uneven: bool) -> Result<(), MergeError> {
    let own = runs.iter().filter(|run| !run.foreign);
    let firsts = own.flat_map(|run| {
        let rows = run.cells.iter().filter_map(|(_, rows)| rows.first());
        rows.map(|row| (run.name.as_str(), row))
    });
    for rows in group(firsts, |(_, row)| row.task.as_str()) {
        let task = rows[0].1.task.as_str();
        let by_run: Vec<(&str, Conditions<'_>)> = group(rows, |&(run, _)| run)
            .into_iter()
            .map(|rows| (rows[0].0, Conditions::of(rows.iter().map(|&(_, row)| row))))
            .collect();
        let differ = |one: &str, other: &str, difference| MergeError::Differ {
            runs: [one, other].map(str::to_owned),
            task: task.to_owned(),
            difference,
        };
        let (first, one) = &by_run[0];
        for (second, other) in &by_run[1..] {
            if let Some(difference) = one.difference(other, uneven) {
                return Err(differ(first, second, difference));
            }
        }
        if uneven {
            continue;
        }
        if let Some([one, other]) = uneven_seeds(&by_run) {
            let difference = format!(
                "the first has seeds {} and the second {}. {INSIST}",
                listed(&one.1.seeds),
                listed(&other.1.seeds)
            );
            return Err(differ(one.0, other.0, difference));
        }
    }
    Ok(())
}

/// What to do about runs that were not made alike.
const INSIST: &str = "Measure both alike, or put them side by side all the same with --uneven";

/// Two runs through which models would have different seeds, all runs together: a run's are those of each of its models.
fn uneven_seeds<'a, 'b>(
    runs: &'b [(&'a str, Conditions<'a>)],
) -> Option<[&'b (&'a str, Conditions<'a>); 2]> {
    let mut seeds: HashMap<Trained<'_>, BTreeSet<u64>> = HashMap::new();
    for (_, run) in runs {
        for &model in &run.models {
            seeds.entry(model).or_default().extend(&run.seeds);
        }
    }
    let mut all = seeds.values();
    let first = all.next()?;
    if all.all(|own| own == first) {
        return None;
    }
    let differ = |one: &Conditions<'_>, other: &Conditions<'_>| {
        one.seeds != other.seeds && one.models != other.models
    };
    let pairs = runs.iter().enumerate();
    let mut pairs =
        pairs.flat_map(|(at, one)| runs[at + 1..].iter().map(move |other| [one, other]));
    pairs.find(|[one, other]| differ(&one.1, &other.1))
}

/// What the rows of one run on one task share.
#[derive(Default)]
struct Conditions<'a> {
    /// The version of the task's definition, by its other options.
    versions: BTreeMap<String, String>,
    trainings: BTreeSet<String>,
    seeds: BTreeSet<u64>,
    models: HashSet<Trained<'a>>,
}

impl<'a> Conditions<'a> {
    fn of(rows: impl Iterator<Item = &'a Measurement>) -> Self {
        let mut found = Self::default();
        for rows in group(rows, |&row| row.model()) {
            found.seeds.extend(rows.iter().map(|row| row.seed));
            let row = rows[0];
            found.models.extend(rows.iter().map(|row| row.trained()));
            let options = row.task_options.split(',');
            let (version, options): (Vec<&str>, Vec<&str>) =
                options.partition(|option| option.starts_with("version="));
            found.versions.insert(options.join(","), version.join(","));
            // A checkpoint was trained elsewhere, and not on this task.
            if row.checkpoint.is_empty() {
                found.trainings.insert(training(row));
            }
        }
        found
    }

    /// What cannot be compared, in words.
    fn difference(&self, other: &Self, uneven: bool) -> Option<String> {
        for (options, version) in &self.versions {
            if let Some(found) = other
                .versions
                .get(options)
                .filter(|found| *found != version)
            {
                return Some(format!(
                    "its definition is {version} in the first and {found} in the second, whose examples differ. \
                     Measure one of them again"
                ));
            }
        }
        if uneven {
            return None;
        }
        if !self.trainings.is_empty()
            && !other.trainings.is_empty()
            && self.trainings != other.trainings
        {
            let one = self.trainings.difference(&other.trainings).next();
            let one = one.or_else(|| self.trainings.first())?;
            let found = other.trainings.difference(&self.trainings).next();
            let found = found.or_else(|| other.trainings.first())?;
            return Some(format!(
                "models were trained by {one} in the first and by {found} in the second. {INSIST}"
            ));
        }
        None
    }
}

/// All of a training that architectures are to have in common; the learning rate is chosen for each.
fn training(row: &Measurement) -> String {
    let number = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let real = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    format!(
        "{} steps of {} sequences of {} to {} tokens ({}, warm-up {}, weight decay {}, gradient norm to {})",
        number(row.train_steps),
        number(row.batch),
        number(row.train_length_min),
        number(row.train_length),
        row.train_distribution,
        number(row.warmup_steps),
        real(row.weight_decay),
        real(row.clip_norm),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(architecture: &str, seed: u64, length: u64) -> Measurement {
        Measurement {
            unit: format!("{architecture}-{seed}"),
            architecture: architecture.to_owned(),
            task: "mqar".to_owned(),
            task_options: "pairs=4,version=2".to_owned(),
            seed,
            train_steps: Some(10),
            eval_length: length,
            metric: "token_accuracy".to_owned(),
            samples: Some(10),
            correct: Some(5),
            value: Some(0.5),
            status: Status::Ok,
            ..Measurement::default()
        }
    }

    fn source(name: &str, rows: &[Measurement]) -> Source {
        Source {
            name: name.to_owned(),
            rows: rows.to_vec(),
            foreign: false,
        }
    }

    fn refusal(one: &Measurement, other: &Measurement, uneven: bool) -> Option<String> {
        let sources = ["a", "b"].into_iter().zip([one, other]);
        let sources = sources.map(|(name, row)| source(name, std::slice::from_ref(row)));
        let merged = merge(sources.collect(), uneven);
        merged.err().map(|error| error.to_string())
    }

    #[test]
    fn runs_are_put_side_by_side_and_what_stands_twice_counts_once() {
        let mut later = row("lstm", 0, 64);
        later.value = Some(0.6);
        later.correct = Some(6);
        let one = source(
            "a",
            &[row("lstm", 0, 64), row("lstm", 0, 128), later.clone()],
        );
        let other = source("b", &[row("mamba", 0, 64), later.clone()]);
        let merged = merge(vec![one, other], false).expect("they agree");
        let expected = [later, row("lstm", 0, 128), row("mamba", 0, 64)];
        assert_eq!(merged.rows, expected);
        assert_eq!(merged.origins, [0, 0, 1]);
        assert_eq!(merged.notes.len(), 2, "{:?}", merged.notes);
    }

    #[test]
    fn a_seed_that_two_builds_of_a_plugin_measured_does_not_count_as_two() {
        let one = row("lstm", 0, 64);
        let other = Measurement {
            unit: "another".to_owned(),
            plugin_sha256: "0123456789".to_owned(),
            value: Some(0.6),
            ..one.clone()
        };
        for uneven in [false, true] {
            let refused = refusal(&one, &other, uneven).expect("twice");
            assert!(refused.contains("lstm, mqar, seed 0, at 64"), "{refused}");
            assert!(refused.contains("and 01234567 of"), "{refused}");
        }
        // More seeds of what is there are taken together, whatever built them.
        let next = Measurement { seed: 1, ..other };
        for uneven in [false, true] {
            assert_eq!(refusal(&one, &next, uneven), None);
        }
    }

    /// All runs together: which of them has what does not matter.
    #[test]
    fn every_model_has_the_same_seeds_in_the_end() {
        let run = |name: &str, models: &[&str], seeds: &[u64]| {
            let rows = models
                .iter()
                .flat_map(|model| seeds.iter().map(|&seed| row(model, seed, 64)));
            source(name, &rows.collect::<Vec<_>>())
        };
        let both = ["lstm", "mamba"];
        let even = vec![
            run("a", &both[..1], &[0, 1]),
            run("b", &both[1..], &[0, 1]),
            run("c", &both, &[2]),
        ];
        assert_eq!(merge(even, false).expect("even").rows.len(), 6);
        let uneven = || {
            vec![
                run("a", &both[..1], &[0]),
                run("b", &both[..1], &[1]),
                run("c", &both[1..], &[0]),
            ]
        };
        let refused = merge(uneven(), false).expect_err("one more of the LSTM");
        assert!(
            refused.to_string().contains("seeds 1 and the second 0"),
            "{refused}"
        );
        assert_eq!(merge(uneven(), true).expect("all the same").rows.len(), 3);
        // One of two learning rates.
        let rates = |seeds: &[u64], rates: &[f64]| {
            let rows = seeds.iter().flat_map(|&seed| {
                rates.iter().map(move |&rate| Measurement {
                    unit: format!("{seed}-{rate}"),
                    learning_rate: Some(rate),
                    ..row("lstm", seed, 64)
                })
            });
            source(&format!("{rates:?}"), &rows.collect::<Vec<_>>())
        };
        assert!(merge(vec![rates(&[0], &[0.1, 0.2]), rates(&[1], &[0.2])], false).is_err());
    }

    #[test]
    fn rows_of_other_tools_are_held_to_no_conditions() {
        let mut foreign = row("foreign", 7, 64);
        foreign.task_options = "foreign=RULER".to_owned();
        let mut other = source("b", std::slice::from_ref(&foreign));
        other.foreign = true;
        let merged = merge(vec![source("a", &[row("lstm", 0, 64)]), other], false);
        assert_eq!(merged.expect("side by side").rows[1], foreign);
    }

    #[test]
    fn a_failure_leaves_no_breakdowns_of_an_earlier_try() {
        let part = Measurement {
            label: "depth=0.50".to_owned(),
            ..row("lstm", 0, 64)
        };
        let failed = Measurement {
            status: Status::Crashed,
            ..row("lstm", 0, 64)
        };
        let cells = latest(vec![row("lstm", 0, 64), part, failed.clone()]);
        assert_eq!(cells, [(failed.cell(), vec![failed])]);
    }

    #[test]
    fn contradictions_and_other_conditions_are_refused_with_the_reason() {
        let plain = row("lstm", 0, 64);
        let changed = |change: &dyn Fn(&mut Measurement)| {
            let mut row = row("mamba", 0, 64);
            change(&mut row);
            row
        };
        let mut contradiction = plain.clone();
        contradiction.value = Some(0.7);
        let refused = refusal(&plain, &contradiction, true).expect("a contradiction");
        assert!(refused.contains("lstm, mqar, seed 0"), "{refused}");
        let version = changed(&|row| row.task_options = "pairs=4,version=3".to_owned());
        let refused = refusal(&plain, &version, true).expect("other examples");
        assert!(refused.contains("version=2"), "{refused}");
        for (row, words) in [
            (changed(&|row| row.train_steps = Some(20)), "20 steps"),
            (changed(&|row| row.seed = 7), "seeds 0 and the second 7"),
        ] {
            let refused = refusal(&plain, &row, false).expect("other conditions");
            assert!(refused.contains(words), "{refused}");
            assert_eq!(refusal(&plain, &row, true), None);
        }
        let rate = changed(&|row| row.learning_rate = Some(0.1));
        let checkpoint = changed(&|row| {
            row.checkpoint = "tiny".to_owned();
            row.train_steps = None;
        });
        for row in [rate, checkpoint] {
            assert_eq!(refusal(&plain, &row, false), None);
        }
    }
}
