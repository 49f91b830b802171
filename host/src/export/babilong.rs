//! BABILong's table of all models (`save_combined_results` in `babilong/collect_results.py` of booydar/babilong):
//! a row a model and task, a column a length, percent, -1 for what was not measured. Its answers have a question and
//! one label of bAbI's each, which no task here has.

use std::collections::{BTreeMap, BTreeSet};

use longhaul_results::{TaskView, summarise, tasks};

use super::{File, Run};

/// Rows that the table's averages are over; without all of them it has none.
const AVERAGED: usize = 5;
/// What stands for a score that is not there.
const MISSING: f64 = -1.0;

/// A row: a task, and its scores in percent by length.
type Row = (String, BTreeMap<u64, f64>);

/// `all_results.csv`; nothing where no accuracy was measured at a length that the table can name.
pub fn files(run: &Run, left_out: &mut BTreeSet<String>) -> Vec<File> {
    let summary = summarise(&run.rows);
    let views = tasks(&summary);
    let several =
        |view: &TaskView<'_>| views.iter().filter(|own| own.task == view.task).count() > 1;
    let mut lengths: BTreeSet<u64> = BTreeSet::new();
    let mut unnamed: BTreeSet<u64> = BTreeSet::new();
    let mut models: Vec<(&str, Vec<Row>)> = Vec::new();
    for view in &views {
        if !view.kind.is_accuracy() {
            left_out.insert(format!("{} is no accuracy", view.metric));
            continue;
        }
        let task = match several(view) {
            true => format!("{}:{}", view.task, view.options),
            false => view.task.to_owned(),
        };
        for curve in &view.curves {
            let mut scores = BTreeMap::new();
            for row in &curve.points {
                match (head(row.eval_length), row.value) {
                    (None, _) => {
                        unnamed.insert(row.eval_length);
                    }
                    (_, None) => {}
                    (Some(_), Some(value)) => {
                        scores.insert(row.eval_length, 100.0 * value);
                    }
                }
            }
            if scores.is_empty() {
                continue;
            }
            lengths.extend(scores.keys());
            let name = curve.name.as_str();
            match models.iter_mut().find(|(own, _)| *own == name) {
                Some((_, rows)) => rows.push((task.clone(), scores)),
                None => models.push((name, vec![(task.clone(), scores)])),
            }
        }
    }
    if !unnamed.is_empty() {
        let unnamed: Vec<String> = unnamed.iter().map(u64::to_string).collect();
        left_out.insert(format!(
            "lengths {}: the table has whole multiples of 1,024 tokens",
            unnamed.join(", ")
        ));
    }
    if models.is_empty() {
        return Vec::new();
    }
    vec![File {
        path: "all_results.csv".into(),
        bytes: table(&lengths, &models),
    }]
}

/// What a table calls a length.
fn head(length: u64) -> Option<String> {
    match length {
        length if length % (1 << 20) == 0 => Some(format!("{}M", length >> 20)),
        length if length % (1 << 10) == 0 => Some(format!("{}k", length >> 10)),
        _ => None,
    }
}

fn table(lengths: &BTreeSet<u64>, models: &[(&str, Vec<Row>)]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |words: [&str; 2], cells: &mut dyn Iterator<Item = String>| {
        let words = words.iter().map(|word| (*word).to_owned());
        let record: Vec<String> = words.chain(cells).collect();
        writer.write_record(record).expect("memory takes it");
    };
    write(
        ["model_name", "task"],
        &mut lengths.iter().filter_map(|&length| head(length)),
    );
    for (model, rows) in models {
        let score = |scores: &BTreeMap<u64, f64>, length: &u64| {
            scores.get(length).copied().unwrap_or(MISSING)
        };
        for (task, scores) in rows {
            let cells = lengths
                .iter()
                .map(|length| format!("{:?}", score(scores, length)));
            write([model, task], &mut cells.into_iter());
        }
        let average = |length: &u64| {
            let first = rows.iter().take(AVERAGED);
            let first: Vec<f64> = first.map(|(_, scores)| score(scores, length)).collect();
            match first.len() < AVERAGED || first.contains(&MISSING) {
                true => MISSING,
                false => first.iter().sum::<f64>() / first.len() as f64,
            }
        };
        let cells = lengths
            .iter()
            .map(|length| format!("{:?}", average(length)));
        write([model, "avg"], &mut cells.into_iter());
    }
    writer.into_inner().expect("memory takes it")
}
