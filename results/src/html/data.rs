//! What a page shows, as it stands in it: the tasks with their tables and curves, the points of these, and all
//! records, each with the point that it is part of.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::column::{Column, Real};
use crate::figure::{Across, training_lengths};
use crate::heat::depth_maps;
use crate::provenance::Provenance;
use crate::record::Measurement;
use crate::setting::{Point, group};
use crate::sheet::{Sheet, SheetCell};
use crate::style::Styles;
use crate::summary::SummaryRow;
use crate::text::short_length;
use crate::view::{CurveView, TaskView, tasks};
use crate::words::{said, seeds};

/// Columns by their names.
type Columns = BTreeMap<&'static str, Column>;

/// All of a page.
#[derive(Serialize)]
pub(crate) struct Data<'a> {
    provenance: &'a Provenance,
    plugins: Vec<Plugin<'a>>,
    tasks: Vec<Task<'a>>,
    depths: Vec<Depths>,
    /// A row a point: those of the first curve of the first task, and so on.
    points: Columns,
    /// Rows of cells.csv; those of breakdowns.csv come after them.
    cells: usize,
    /// Rows of both.
    rows: usize,
    records: Columns,
}

/// A plugin's file, and what was measured of it.
#[derive(Serialize)]
struct Plugin<'a> {
    name: &'a str,
    version: &'a str,
    sha256: &'a str,
    architectures: Vec<&'a str>,
}

/// A task; or the positions inside its longest examples, which have no table; or its examples at one depth, which are
/// shown in a map.
#[derive(Serialize)]
struct Task<'a> {
    task: &'a str,
    options: String,
    metric: String,
    accuracy: bool,
    across: &'static str,
    /// Accuracy of guessing.
    chance: Vec<(u64, f64)>,
    caption: Vec<String>,
    notes: Vec<String>,
    lengths: Vec<u64>,
    /// These as a table heads them.
    heads: Vec<String>,
    /// Training lengths near these, and how a table heads them.
    trained: Vec<(u64, String)>,
    /// Heads of what each curve says as a whole.
    ends: Vec<&'static str>,
    curves: Vec<Curve>,
}

/// A curve.
#[derive(Serialize)]
struct Curve {
    name: String,
    /// What it says as a whole.
    said: String,
    colour: &'static str,
    dashes: &'static str,
    marker: &'static str,
    /// A text a head, and the numbers to sort these by.
    ends: Vec<String>,
    order: Vec<Option<f64>>,
    /// Its points among all.
    points: std::ops::Range<usize>,
}

/// Tasks that differ in the depth of the needle alone.
#[derive(Serialize)]
struct Depths {
    task: String,
    options: String,
    /// A depth from 0 to 1, and the place of its task.
    rows: Vec<(f64, usize)>,
}

/// A point, with its cell in the task's table.
struct Shown<'a> {
    row: &'a SummaryRow,
    cell: SheetCell,
}

/// Breakdowns that are shown as tasks are.
pub(crate) struct Breakdowns<'a> {
    /// Points by position.
    pub positions: &'a [SummaryRow],
    /// Points by depth, and the row that each stands for.
    pub depths: &'a [SummaryRow],
    pub sources: &'a [&'a SummaryRow],
}

impl<'a> Data<'a> {
    /// Of what a report is made of, see [`super::html_page`].
    pub fn new(
        rows: &'a [Measurement],
        origins: &[usize],
        summary: &'a [SummaryRow],
        breakdowns: Breakdowns<'a>,
        provenance: &'a Provenance,
    ) -> Self {
        let Breakdowns {
            positions,
            depths: depth_rows,
            sources,
        } = breakdowns;
        let styles = Styles::new(summary);
        let by_length = tasks(summary);
        let mut points = Vec::new();
        let mut views = Vec::new();
        for task in &by_length {
            views.push(task_data(task, Across::Length, &styles, &mut points));
        }
        let places = points.iter().enumerate();
        let mut places: HashMap<Point<'_>, usize> = places
            .map(|(place, shown)| (shown.row.point(), place))
            .collect();
        let mut maps = depths(&by_length, 0);
        let order = |breakdown: bool| {
            let all = 0..rows.len();
            all.filter(move |&row| rows[row].label.is_empty() != breakdown)
        };
        let order: Vec<usize> = order(false).chain(order(true)).collect();
        for task in &tasks(positions) {
            views.push(task_data(task, Across::Position, &styles, &mut points));
        }
        let at_depths = tasks(depth_rows);
        maps.extend(depths(&at_depths, views.len()));
        let first = points.len();
        for task in &at_depths {
            views.push(task_data(task, Across::Depth, &styles, &mut points));
        }
        let sources = sources.iter().map(|source| source.point());
        let sources: HashMap<Point<'_>, Point<'_>> = depth_rows
            .iter()
            .map(SummaryRow::point)
            .zip(sources)
            .collect();
        let shown = (first..).zip(&points[first..]);
        places.extend(shown.map(|(place, shown)| (sources[&shown.row.point()], place)));
        let records = records(rows, origins, &order, &places);
        Self {
            provenance,
            plugins: plugins(rows),
            depths: maps,
            tasks: views,
            points: point_columns(&points),
            rows: rows.len(),
            cells: rows.iter().filter(|row| row.label.is_empty()).count(),
            records,
        }
    }
}

/// The plugins that anything was measured of, by their files.
fn plugins(rows: &[Measurement]) -> Vec<Plugin<'_>> {
    let mut plugins = Vec::new();
    for rows in group(rows, |row| {
        (row.plugin.as_str(), row.plugin_sha256.as_str())
    }) {
        let names = group(&rows, |row| row.architecture.as_str());
        plugins.push(Plugin {
            name: &rows[0].plugin,
            version: &rows[0].plugin_version,
            sha256: &rows[0].plugin_sha256,
            architectures: names
                .iter()
                .map(|rows| rows[0].architecture.as_str())
                .collect(),
        });
    }
    plugins
}

/// A task and its curves, whose points come behind the others.
fn task_data<'a>(
    task: &TaskView<'a>,
    across: Across,
    styles: &Styles<'_>,
    points: &mut Vec<Shown<'a>>,
) -> Task<'a> {
    let sheet = Sheet::new(task);
    let firsts: Vec<&SummaryRow> = task.curves.iter().map(CurveView::first).collect();
    let mut curves = Vec::new();
    for ((curve, row), style) in task.curves.iter().zip(sheet.rows).zip(styles.of(&firsts)) {
        let first = points.len();
        let cells = task.lengths.iter().zip(row.cells);
        points.extend(cells.filter_map(|(&length, cell)| {
            let row = curve.at(length)?;
            Some(Shown { row, cell })
        }));
        curves.push(Curve {
            name: row.name,
            said: said(task, curve).replace(">= ", "≥ "),
            colour: style.colour,
            dashes: style.dashes,
            marker: style.marker,
            ends: row.ends,
            order: row.order,
            points: first..points.len(),
        });
    }
    let caption = match across {
        Across::Length | Across::Depth => sheet.caption,
        Across::Position => vec![format!(
            "{} by position in the longest examples, at the end of each bucket.",
            task.metric
        )],
    };
    let near = training_lengths(task).0.into_iter();
    Task {
        task: task.task,
        options: task.options.clone(),
        metric: task.metric.clone(),
        accuracy: task.kind.is_accuracy(),
        across: match across {
            Across::Length => "length",
            Across::Position => "position",
            Across::Depth => "depth",
        },
        chance: task.chance.clone(),
        caption,
        notes: sheet.notes,
        heads: sheet.lengths,
        lengths: task.lengths.clone(),
        trained: near.map(|length| (length, short_length(length))).collect(),
        ends: sheet.ends,
        curves,
    }
}

/// Which tasks, of which the page has the first at that place, differ in the depth of the needle alone.
fn depths(tasks: &[TaskView<'_>], first: usize) -> Vec<Depths> {
    let place = |task: &TaskView<'_>| tasks.iter().position(|other| std::ptr::eq(task, other));
    let maps = depth_maps(tasks);
    let map = maps.iter().map(|map| Depths {
        task: map.task().to_owned(),
        options: map.options.clone(),
        rows: map
            .depths
            .iter()
            .filter_map(|&(depth, task)| Some((depth, first + place(task)?)))
            .collect(),
    });
    map.collect()
}

fn point_columns(points: &[Shown<'_>]) -> Columns {
    let rows = || points.iter().map(|shown| shown.row);
    let cells = || points.iter().map(|shown| &shown.cell);
    let measured = |shown: &Shown<'_>| shown.row.value.is_some();
    let text = |shown: &'_ Shown<'_>| measured(shown).then(|| shown.cell.value.clone());
    Columns::from([
        ("length", Column::new(rows().map(|row| row.eval_length))),
        ("value", Column::new(points.iter().map(text))),
        ("interval", Column::new(cells().map(|cell| &cell.interval))),
        ("best", Column::new(cells().map(|cell| cell.best))),
        (
            "each",
            Column::new(rows().map(|row| seeds(row).filter(|_| row.seeds > 1))),
        ),
        ("status", Column::new(rows().map(|row| row.status.name()))),
        ("seeds", Column::new(rows().map(|row| row.seeds))),
        ("not_ok", Column::new(rows().map(|row| row.not_ok))),
        ("samples", Column::new(rows().map(|row| row.samples))),
        ("retention", reals(rows().map(|row| row.retention), 3)),
        (
            "tokens_per_second",
            reals(rows().map(|row| row.tokens_per_second), 3),
        ),
        (
            "peak_memory_bytes",
            Column::new(rows().map(|row| row.peak_memory_bytes)),
        ),
        (
            "state_bytes",
            Column::new(rows().map(|row| row.state_bytes)),
        ),
    ])
}

/// A column of numbers to so many digits.
fn reals(values: impl Iterator<Item = Option<f64>>, digits: usize) -> Column {
    Column::new(values.map(|value| Real::digits(value, digits)))
}

/// Columns of records, named as there. What takes most room is rounded: the files beside have all digits.
fn records(
    rows: &[Measurement],
    origins: &[usize],
    order: &[usize],
    points: &HashMap<Point<'_>, usize>,
) -> Columns {
    let rows = || order.iter().map(|&row| &rows[row]);
    let mut columns = Columns::from([
        ("run", Column::new(order.iter().map(|&row| origins[row]))),
        (
            "point",
            Column::new(rows().map(|row| points.get(&row.point()))),
        ),
        ("split", Column::new(rows().map(|row| row.split))),
        ("status", Column::new(rows().map(|row| row.status.name()))),
        (
            "learning_rate",
            Column::new(rows().map(|row| Real::whole(row.learning_rate))),
        ),
        (
            "value",
            Column::new(rows().map(|row| Real::whole(row.value))),
        ),
        ("value_low", reals(rows().map(|row| row.value_low), 6)),
        ("value_high", reals(rows().map(|row| row.value_high), 6)),
        ("seconds", reals(rows().map(|row| row.seconds), 3)),
    ]);
    macro_rules! named {
        ($($field:ident)*) => {
            $(columns.insert(stringify!($field), Column::new(rows().map(|row| &row.$field)));)*
        };
    }
    named!(unit architecture options checkpoint task task_options seed train_length train_distribution train_steps);
    named!(eval_length label metric samples correct interval state_bytes device reason);
    columns
}
