//! RULER's folders (`scripts/run.sh`, `scripts/eval/evaluate.py` of NVIDIA/RULER): predictions as they were kept, and
//! the summary that its evaluation makes of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use longhaul_results::statistics::mean;
use longhaul_tasks::ruler::score::is_null;

use super::File;
use super::answers::Answers;

/// The benchmark's folder of RULER's own tasks.
const BENCHMARK: &str = "synthetic";

/// A task's column of a summary.
pub struct Column<'a> {
    /// The task.
    pub task: &'a str,
    /// Mean score, as a share.
    pub value: f64,
    /// Answers without a word.
    pub nulls: usize,
    /// All answers.
    pub samples: usize,
}

/// A summary as pandas writes it: heads that are numbers, then tasks, scores in percent to two digits after the point,
/// and answers without a word.
pub fn summary(columns: &[Column<'_>]) -> String {
    let row = |name: &str, cell: &dyn Fn(&Column<'_>) -> String| {
        let cells = columns.iter().map(cell);
        let cells: Vec<String> = std::iter::once(name.to_owned()).chain(cells).collect();
        cells.join(",") + "\n"
    };
    let heads: Vec<String> = (0..=columns.len()).map(|place| place.to_string()).collect();
    let percent = |column: &Column<'_>| {
        let rounded = (column.value * 10_000.0).round() / 100.0;
        format!("{rounded:?}")
    };
    [
        heads.join(",") + "\n",
        row("Tasks", &|column| column.task.to_owned()),
        row("Score", &percent),
        row("Nulls", &|column| {
            format!("{}/{}", column.nulls, column.samples)
        }),
    ]
    .concat()
}

/// `MODEL/synthetic/LENGTH/pred/TASK.jsonl` and the summary beside, which has the task's name where there is one.
pub(super) fn files(answers: &[Answers]) -> Vec<File> {
    let mut folders: BTreeMap<(&str, u64), Vec<&Answers>> = BTreeMap::new();
    for own in answers {
        let folder = folders.entry((&own.model, own.length)).or_default();
        folder.push(own);
    }
    let mut files = Vec::new();
    for ((model, length), tasks) in folders {
        let folder: PathBuf = [model, BENCHMARK, &length.to_string(), "pred"]
            .iter()
            .collect();
        let columns: Vec<Column<'_>> = tasks.iter().map(|own| column(own)).collect();
        let name = match tasks.as_slice() {
            [one] => format!("summary-{}.csv", one.task),
            _ => "summary.csv".to_owned(),
        };
        files.push(File {
            path: folder.join(name),
            bytes: summary(&columns).into_bytes(),
        });
        files.extend(tasks.iter().map(|own| File {
            path: folder.join(format!("{}.jsonl", own.task)),
            bytes: own.bytes.clone(),
        }));
    }
    files
}

fn column(own: &Answers) -> Column<'_> {
    let nulls = own.lines.iter().filter(|line| is_null(&line.pred));
    Column {
        task: &own.task,
        value: mean(&own.scores).unwrap_or(0.0),
        nulls: nulls.count(),
        samples: own.lines.len(),
    }
}
