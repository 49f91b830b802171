//! A run that was carried out again, against its own records, row by row: what is the same to the bit, what agrees
//! within the intervals of both, and what does not.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::merge::latest;
use crate::metric::Kind;
use crate::record::{Measurement, Split, Status};
use crate::statistics::unpaired;
use crate::text::{printable, wrap_characters};

/// What became of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// Everything that was measured is the same to the bit, times and memory apart.
    Identical,
    /// The 95 % interval of the difference holds 0.
    Agrees,
    /// It does not, or one of both did not end well.
    Differs,
    /// One of both has no such row.
    #[default]
    Missing,
}

crate::table_row! {
/// A row of `reproduction.csv`. `kept` is the run that was there before, `again` the one that was made of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reproduced {
    /// Architecture.
    pub architecture: String,
    /// Options that are not the default, and the model's size.
    pub options: String,
    /// Task.
    pub task: String,
    /// All its options.
    pub task_options: String,
    /// Seed of initialisation and data.
    pub seed: u64,
    /// How training lengths were drawn; empty of a checkpoint.
    pub train_distribution: String,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Which examples.
    pub split: Split,
    /// Evaluation length, in tokens.
    pub eval_length: u64,
    /// Empty for the whole cell, else a breakdown.
    pub label: String,
    /// What is measured of a sample.
    pub metric: String,
    /// How the measurement ended; empty where there is no row.
    pub kept_status: Option<Status>,
    /// The same of the other.
    pub again_status: Option<Status>,
    /// Its value.
    pub kept_value: Option<f64>,
    /// The same of the other.
    pub again_value: Option<f64>,
    /// `again` less `kept`.
    pub difference: Option<f64>,
    /// Lower end of its 95 % interval, from the intervals of both.
    pub difference_low: Option<f64>,
    /// Upper end of it.
    pub difference_high: Option<f64>,
    /// The verdict.
    pub agreement: Agreement,
}
}

/// Holds the rows of a run against those that were measured again. `units` are the ids of each model, in the kept
/// run and in the new one: another build of its plugin gives it another. Rows of other models do not count. The
/// order is that of the kept rows; rows that only the new run has stand last.
pub fn reproduced(
    units: &[(String, String)],
    kept: Vec<Measurement>,
    again: Vec<Measurement>,
) -> Vec<Reproduced> {
    type Key = (String, Split, u64, String);
    let keyed = |rows: Vec<Measurement>, name: &dyn Fn(&str) -> Option<String>| {
        let rows = latest(rows).into_iter().flat_map(|(_, rows)| rows);
        let keyed = rows.filter_map(|row| {
            let unit = name(&row.unit)?;
            Some(((unit, row.split, row.eval_length, row.label.clone()), row))
        });
        keyed.collect::<Vec<(Key, Measurement)>>()
    };
    let new: HashMap<&str, &str> = units
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let kept = keyed(kept, &|unit| new.get(unit).map(|&unit| unit.to_owned()));
    let own: HashSet<&str> = units.iter().map(|(_, new)| new.as_str()).collect();
    let again = keyed(again, &|unit| own.contains(unit).then(|| unit.to_owned()));
    let order: Vec<Key> = again.iter().map(|(key, _)| key.clone()).collect();
    let mut again: HashMap<Key, Measurement> = again.into_iter().collect();
    let mut found = Vec::new();
    for (key, row) in kept {
        let other = again.remove(&key);
        found.push(held(Some(&row), other.as_ref()));
    }
    let left = order.iter().filter_map(|key| again.get(key));
    found.extend(left.map(|row| held(None, Some(row))));
    found
}

/// The verdict on one row; one of both is there.
fn held(kept: Option<&Measurement>, again: Option<&Measurement>) -> Reproduced {
    let Some(named) = kept.or(again) else {
        return Reproduced::default();
    };
    let value = |row: Option<&Measurement>| row.and_then(|row| row.value);
    let (one, other) = (value(again), value(kept));
    let ends = |row: Option<&Measurement>| {
        let row = row?;
        Some((row.value?, row.value_low?, row.value_high?))
    };
    let interval = ends(again).zip(ends(kept)).map(|(a, b)| unpaired(a, b));
    let agreement = match (kept, again) {
        (Some(kept), Some(again)) if measured(kept) == measured(again) => Agreement::Identical,
        (Some(_), Some(_)) if interval.is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high) => {
            Agreement::Agrees
        }
        (Some(_), Some(_)) => Agreement::Differs,
        _ => Agreement::Missing,
    };
    Reproduced {
        architecture: named.architecture.clone(),
        options: named.options.clone(),
        task: named.task.clone(),
        task_options: named.task_options.clone(),
        seed: named.seed,
        train_distribution: named.train_distribution.clone(),
        learning_rate: named.learning_rate,
        split: named.split,
        eval_length: named.eval_length,
        label: named.label.clone(),
        metric: named.metric.clone(),
        kept_status: kept.map(|row| row.status),
        again_status: again.map(|row| row.status),
        kept_value: other,
        again_value: one,
        difference: one.zip(other).map(|(one, other)| one - other),
        difference_low: interval.map(|ends| ends.0),
        difference_high: interval.map(|ends| ends.1),
        agreement,
    }
}

/// All that is measured of a row but for times and memory of the process, which no run has twice.
fn measured(row: &Measurement) -> impl PartialEq + use<> {
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    (
        (row.status, row.samples, row.correct, row.state_bytes),
        [row.value, row.value_sd, row.nll].map(bits),
    )
}

/// How many rows each verdict has, in the order of [`Agreement`].
pub fn agreements(rows: &[Reproduced]) -> [usize; 4] {
    let count = |what| rows.iter().filter(|row| row.agreement == what).count();
    [
        Agreement::Identical,
        Agreement::Agrees,
        Agreement::Differs,
        Agreement::Missing,
    ]
    .map(count)
}

/// Most rows that a terminal names one by one.
const NAMED: usize = 12;

/// The verdicts for a terminal, `width` columns at most: a line a model and task, then what does not agree.
pub fn render_reproduction(rows: &[Reproduced], width: usize) -> String {
    let mut text = line(
        ["rows", "identical", "agree", "differ", "missing"].map(str::to_owned),
        "",
    );
    let mut models: Vec<(String, Vec<&Reproduced>)> = Vec::new();
    for row in rows {
        let name = format!("{} on {}", row.architecture, row.task);
        let title = |row: &Reproduced| (row.options.clone(), row.task_options.clone());
        let same = |(other, of): &&mut (String, Vec<&Reproduced>)| {
            *other == name && title(of[0]) == title(row)
        };
        match models.iter_mut().find(same) {
            Some((_, of)) => of.push(row),
            None => models.push((name, vec![row])),
        }
    }
    for (name, of) in &models {
        let of: Vec<Reproduced> = of.iter().map(|&row| row.clone()).collect();
        text.push_str(&counts(&of, name));
    }
    if models.len() > 1 {
        text.push_str(&counts(rows, "all"));
    }
    let wrong =
        |row: &&Reproduced| matches!(row.agreement, Agreement::Differs | Agreement::Missing);
    let wrong: Vec<&Reproduced> = rows.iter().filter(wrong).collect();
    let mut notes: Vec<String> = wrong.iter().take(NAMED).map(|row| sentence(row)).collect();
    if wrong.len() > NAMED {
        notes.push(format!("... and {} rows more", wrong.len() - NAMED));
    }
    if rows.iter().any(|row| row.agreement != Agreement::Identical) {
        notes.push(
            "identical: to the bit. agree: the 95 % interval of the difference over the examples holds 0. How far two \
             trainings of one seed are apart that are not the same to the bit is not in that interval."
                .to_owned(),
        );
    }
    for note in notes {
        for part in wrap_characters(&note, width) {
            text.push_str(&format!("{part}\n"));
        }
    }
    printable(&text)
}

fn counts(rows: &[Reproduced], name: &str) -> String {
    let [identical, agree, differ, missing] = agreements(rows);
    let counts = [rows.len(), identical, agree, differ, missing];
    line(counts.map(|count| count.to_string()), name)
}

/// A line of the table: a name, and numbers flush right.
fn line(cells: [String; 5], name: &str) -> String {
    let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
    let short: String = name.chars().take(28).collect();
    format!("{short:<28}{cells}\n")
}

/// What is wrong with one row.
fn sentence(row: &Reproduced) -> String {
    let kind = Kind::of(&row.metric);
    let said = |status: Option<Status>, value: Option<f64>| match (status, value) {
        (None, _) => "no record".to_owned(),
        (Some(Status::Ok), Some(value)) => kind.show(value),
        (Some(status), _) => status.name().to_owned(),
    };
    let label = if row.label.is_empty() {
        String::new()
    } else {
        format!(" ({})", row.label)
    };
    let kept = said(row.kept_status, row.kept_value);
    let again = said(row.again_status, row.again_value);
    let difference = match (row.difference, row.difference_low, row.difference_high) {
        (Some(difference), Some(low), Some(high)) => format!(
            ", difference {} [{}, {}]",
            kind.show(difference),
            kind.show(low),
            kind.show(high)
        ),
        _ => String::new(),
    };
    format!(
        "{} on {} seed {} at {} tokens{label}: {kept} kept, {again} again{difference}",
        row.architecture, row.task, row.seed, row.eval_length
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Scores;

    fn row(unit: &str, length: u64, correct: u64) -> Measurement {
        let scores = Scores {
            samples: 100,
            mean: correct as f64 / 100.0,
            sd: None,
        };
        let (_, (low, high)) = Kind::ZeroOne.interval(&scores).expect("an interval");
        Measurement {
            unit: unit.to_owned(),
            architecture: "lstm".to_owned(),
            task: "mqar".to_owned(),
            metric: "token_accuracy".to_owned(),
            eval_length: length,
            samples: Some(100),
            correct: Some(correct),
            value: Some(scores.mean),
            value_low: Some(low),
            value_high: Some(high),
            nll: Some(0.5),
            status: Status::Ok,
            ..Measurement::default()
        }
    }

    #[test]
    fn every_row_has_its_verdict() {
        let failed = Measurement {
            status: Status::Crashed,
            correct: None,
            value: None,
            samples: None,
            ..row("old", 96, 0)
        };
        let kept = vec![
            row("old", 8, 90),
            row("old", 16, 90),
            row("old", 32, 90),
            row("old", 64, 90),
            failed.clone(),
            row("other", 8, 1),
        ];
        let mut slower = row("new", 8, 90);
        slower.seconds = Some(9.0);
        // As many right, and other likelihoods: another training.
        let mut near = row("new", 16, 90);
        near.nll = Some(0.500_000_1);
        let again = vec![
            slower,
            near,
            row("new", 32, 60),
            row("new", 96, 50),
            row("new", 128, 9),
        ];
        let units = [("old".to_owned(), "new".to_owned())];
        let found = reproduced(&units, kept, again);
        let verdicts: Vec<(u64, Agreement)> = found
            .iter()
            .map(|row| (row.eval_length, row.agreement))
            .collect();
        let expected = [
            (8, Agreement::Identical),
            (16, Agreement::Agrees),
            (32, Agreement::Differs),
            (64, Agreement::Missing),
            (96, Agreement::Differs),
            (128, Agreement::Missing),
        ];
        assert_eq!(verdicts, expected);
        assert_eq!(agreements(&found), [1, 1, 2, 2]);
        // Newcombe's method 10 by hand from Wilson's (0.8256, 0.9448) of 90 and (0.5020, 0.6906) of 60.
        let low = found[2].difference_low.expect("an interval");
        let high = found[2].difference_high.expect("an interval");
        assert!(
            (low + 0.4078).abs() < 2e-4 && (high + 0.1828).abs() < 2e-4,
            "{low} {high}"
        );
        let text = render_reproduction(&found, 80);
        let counts =
            "lstm on mqar                         6         1         1         2         2\n";
        assert!(text.contains(counts), "{text}");
        let unwrapped = text.replace('\n', " ");
        for words in [
            "at 32 tokens: 90.0 kept, 60.0 again, difference -30.0 [-40.8, -18.3]",
            "at 64 tokens: 90.0 kept, no record again",
            "at 96 tokens: crashed kept, 50.0 again",
        ] {
            assert!(unwrapped.contains(words), "{words}\n{text}");
        }
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
    }
}
