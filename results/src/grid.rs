//! All tasks in one figure, a panel a task, with one legend: values, retention, value against state, throughput and
//! memory by length, and losses on the way of training. As wide as a page's text; of one task a column.

use std::collections::{BTreeMap, HashMap};

use crate::axis::Axis;
use crate::capacity::CapacityRow;
use crate::drawing::{COLUMN, Drawing, GREY, LINE, PAGE};
use crate::figure::{Across, heading, marked, of_seeds, panel, series, training_lengths};
use crate::panel::{Level, Mark, Panel, Series, Spread, legend};
use crate::record::{Measurement, TrainingPoint};
use crate::setting::{Trained, group};
use crate::style::{Style, Styles};
use crate::summary::SummaryRow;
use crate::view::{CurveView, TaskView};

/// Panels beside each other, and rows of them on a page.
const COLUMNS: usize = 3;
const ROWS: usize = 4;
/// Heights of the scales, beside others and alone.
const HIGH: f64 = 88.0;
const ALONE: f64 = 120.0;
const GAP: f64 = 6.0;
/// Markers on a line that has more points.
const MARKERS: usize = 5;

/// A grid of panels, drawn in as many figures as pages need.
pub(crate) struct Grid {
    /// Part of the files' names.
    pub name: &'static str,
    title: &'static str,
    panels: Vec<Panel>,
    notes: String,
}

/// The grids of everything that was measured; of values none where there is one task, which has its own figure.
pub(crate) fn grids(
    tasks: &[TaskView<'_>],
    capacity: &[CapacityRow],
    training: &Training<'_>,
    styles: &Styles<'_>,
) -> Vec<Grid> {
    let styled: Vec<(&TaskView<'_>, Vec<Style>)> = tasks
        .iter()
        .map(|task| {
            let firsts: Vec<&SummaryRow> = task.curves.iter().map(CurveView::first).collect();
            (task, styles.of(&firsts))
        })
        .collect();
    let grid = |name, title, notes: String, panel: &dyn Fn(&TaskView<'_>, &[Style]) -> Panel| {
        let alone =
            |task: &TaskView<'_>| tasks.iter().filter(|other| other.task == task.task).count() == 1;
        let titled = |(task, styles): &(&TaskView<'_>, Vec<Style>)| {
            let options = task.options.replace(',', ", ");
            let title = match alone(task) {
                true => task.task.to_owned(),
                false => format!("{}: {options}", task.task),
            };
            Panel {
                title,
                ..panel(task, styles)
            }
        };
        let mut panels: Vec<Panel> = styled.iter().map(titled).collect();
        panels.retain(|panel| panel.series.iter().any(|series| !series.marks.is_empty()));
        Grid {
            name,
            title,
            panels,
            notes,
        }
    };
    let seeds = tasks.iter().map(|task| task.common(CurveView::seeds));
    let same = tasks.first().and_then(|task| task.common(CurveView::seeds));
    let seeds = same.filter(|_| seeds.into_iter().all(|seeds| seeds == same));
    let bars = tasks
        .first()
        .map(|task| format!("{}.", of_seeds(seeds, task.kind)));
    let bars = format!("{}{}", bars.unwrap_or_default(), missing(tasks));
    let accuracies = tasks.iter().filter(|task| task.kind.is_accuracy());
    let title = match accuracies.count() {
        0 => "Loss by length",
        count if count == tasks.len() => "Accuracy by length",
        _ => "Accuracy and loss by length",
    };
    let retained = "Share of the accuracy inside the training length, chance removed, that is left; of models that \
                    have learned. Bars: 95 % intervals.";
    let states = "At the longest length of each task; grey: what no model with as much state or less is better than.";
    let mut grids = vec![
        grid("values", title, bars, &|task, styles| {
            panel(task, Across::Length, styles)
        }),
        grid(
            "retention",
            "Retention by length",
            retained.to_owned(),
            &retention,
        ),
        grid(
            "state",
            "Accuracy against recurrent state",
            states.to_owned(),
            &|task, styles| state(task, styles, capacity),
        ),
        grid(
            "throughput",
            "Tokens read a second, by length",
            "Mean of the seeds.".to_owned(),
            &throughput,
        ),
        grid(
            "memory",
            "Most memory of a worker, by length",
            "The largest of the seeds.".to_owned(),
            &memory,
        ),
        grid(
            "training",
            "Loss of training batches",
            "A line a seed.".to_owned(),
            &|task, styles| training.panel(task, styles),
        ),
    ];
    grids.retain(|grid| grid.panels.len() > usize::from(grid.name == "values"));
    grids
}

/// Which curves have no value at all, and why, as a sentence.
fn missing(tasks: &[TaskView<'_>]) -> String {
    const NAMED: usize = 5;
    let of_task = |task: &TaskView<'_>| -> Vec<String> {
        let curves = task.curves.iter();
        let none = curves.filter(|curve| curve.points.iter().all(|row| row.value.is_none()));
        let said = |curve: &CurveView<'_>| {
            format!(
                "{} on {} ({})",
                curve.name,
                task.task,
                curve.first().status.name()
            )
        };
        none.map(said).collect()
    };
    let all: Vec<String> = tasks.iter().flat_map(of_task).collect();
    if all.is_empty() {
        return String::new();
    }
    let more = all.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!(
        " Without a value: {}{more}.",
        all[..all.len().min(NAMED)].join(", ")
    )
}

impl Grid {
    /// Its figures.
    pub fn draw(&self) -> Vec<Drawing> {
        self.panels
            .chunks(COLUMNS * ROWS)
            .map(|panels| self.page(panels))
            .collect()
    }

    fn page(&self, panels: &[Panel]) -> Drawing {
        let (wide, high) = if self.panels.len() == 1 {
            (COLUMN, ALONE)
        } else {
            (PAGE, HIGH)
        };
        let columns = self.panels.len().min(COLUMNS) as f64;
        let mut drawing = Drawing::new(wide);
        let room = (wide - GAP * (columns - 1.0)) / columns;
        let mut y = heading(&mut drawing, self.title, "") + 2.0;
        for row in panels.chunks(COLUMNS) {
            let heads = row.iter().map(|panel| panel.head(room));
            let head = heads.fold(0.0, f64::max);
            let mut end = y;
            for (column, panel) in row.iter().enumerate() {
                let left = (room + GAP) * column as f64;
                end = panel.draw(&mut drawing, (left, y), room, head, high);
            }
            y = end + GAP;
        }
        y = legend(
            &mut drawing,
            &entries(panels),
            (2.0, y + LINE - GAP),
            wide - 4.0,
        );
        y = drawing.lines((2.0, y + 2.0), wide - 4.0, GREY, &self.notes);
        drawing.height = y - LINE + 4.0;
        drawing
    }
}

/// A sample of everything that is drawn, once.
fn entries(panels: &[Panel]) -> Vec<(Style, String)> {
    let all = panels.iter().flat_map(|panel| &panel.series);
    let named = all.filter(|series| !series.name.is_empty() && !series.marks.is_empty());
    let once = group(named, |series| {
        (
            series.name.as_str(),
            series.style.colour,
            series.style.marker,
        )
    });
    once.iter()
        .map(|same| (same[0].style, same[0].name.clone()))
        .collect()
}

/// A panel by length.
fn by_length(task: &TaskView<'_>, up: Axis, series: Vec<Series>) -> Panel {
    let trained = training_lengths(task).0;
    Panel {
        title: String::new(),
        across: Axis::lengths(&task.lengths, trained.iter().copied(), "length in tokens"),
        up,
        marked: marked(&trained),
        level: None,
        spread: Spread::Columns,
        series,
    }
}

/// A value of each point as marks.
fn marks(curve: &CurveView<'_>, value: impl Fn(&SummaryRow) -> Option<f64>) -> Vec<Mark> {
    let mark = |row: &&SummaryRow| {
        Some(Mark {
            across: row.eval_length as f64,
            up: value(row).filter(|value| value.is_finite())?,
            ..Mark::default()
        })
    };
    curve.points.iter().filter_map(mark).collect()
}

fn retention(task: &TaskView<'_>, styles: &[Style]) -> Panel {
    let series = series(task, styles, |curve| {
        let marks = marks(curve, |row| row.retention);
        let with = curve.points.iter().filter(|row| row.retention.is_some());
        let ends = with.map(|row| row.retention_low.zip(row.retention_high));
        marks
            .into_iter()
            .zip(ends)
            .map(|(mark, ends)| Mark { ends, ..mark })
            .collect()
    });
    let all = series.iter().flat_map(|series| &series.marks);
    let highest = all.map(|mark| mark.ends.map_or(mark.up, |ends| ends.1.max(mark.up)));
    let highest = highest.fold(1.0, f64::max);
    let high = (highest.min(2.0) * 5.0 - 1e-9).ceil() / 5.0;
    let series = series
        .into_iter()
        .map(|series| within(series, high))
        .collect();
    let level = Some(Level {
        places: vec![(0.0, 0.9)],
        label: ["carried".to_owned(), "90 %".to_owned()],
    });
    Panel {
        level,
        ..by_length(task, Axis::percent(high, "retention in %"), series)
    }
}

/// Values and intervals that end where the scale, from 0 to `high`, does.
fn within(mut series: Series, high: f64) -> Series {
    for mark in &mut series.marks {
        let inside = |value: f64| value.clamp(0.0, high);
        mark.up = inside(mark.up);
        mark.ends = mark.ends.map(|(low, top)| (inside(low), inside(top)));
    }
    series
}

fn throughput(task: &TaskView<'_>, styles: &[Style]) -> Panel {
    let rate = |row: &SummaryRow| row.tokens_per_second.filter(|&rate| rate > 0.0);
    let series = series(task, styles, |curve| marks(curve, rate));
    let values = series
        .iter()
        .flat_map(|series| series.marks.iter().map(|mark| mark.up));
    by_length(task, Axis::rates(values, "tokens a second"), series)
}

fn memory(task: &TaskView<'_>, styles: &[Style]) -> Panel {
    let bytes = |row: &SummaryRow| Some(row.peak_memory_bytes? as f64);
    let series = series(task, styles, |curve| marks(curve, bytes));
    let values = series
        .iter()
        .flat_map(|series| series.marks.iter().map(|mark| mark.up));
    by_length(task, Axis::bytes(values, "memory in bytes"), series)
}

/// Values at the longest length by state, with a line through those that none with less state is better than.
fn state(task: &TaskView<'_>, styles: &[Style], capacity: &[CapacityRow]) -> Panel {
    let longest = task.lengths[task.lengths.len() - 1];
    let own = |row: &&CapacityRow| {
        row.task == task.task && row.task_options == *task.options && row.eval_length == longest
    };
    let rows: Vec<&CapacityRow> = capacity.iter().filter(own).collect();
    let by_name: HashMap<&str, &CapacityRow> =
        rows.iter().map(|row| (row.name.as_str(), *row)).collect();
    let mark = |row: &CapacityRow| Mark {
        across: row.state_bytes.max(1) as f64,
        up: row.value,
        ends: row.value_low.zip(row.value_high),
        ..Mark::default()
    };
    let mut series = series(task, styles, |curve| {
        let row = by_name.get(curve.name.as_str());
        row.map(|row| mark(row)).into_iter().collect()
    });
    let frontier = rows.iter().filter(|row| row.frontier);
    let grey = Style {
        colour: GREY,
        dashes: "2 2",
        marker: "",
    };
    let line = |row: &&CapacityRow| Mark {
        ends: None,
        bare: true,
        ..mark(row)
    };
    let marks: Vec<Mark> = frontier.map(line).collect();
    if marks.len() > 1 {
        series.push(Series {
            name: String::new(),
            style: grey,
            joined: true,
            marks,
        });
    }
    let values = rows
        .iter()
        .flat_map(|row| [row.value_low, Some(row.value), row.value_high]);
    let up = Axis::values(task.kind, values.flatten(), &task.metric);
    let across = Axis::bytes(
        rows.iter().map(|row| row.state_bytes as f64),
        "state in bytes",
    );
    Panel {
        title: String::new(),
        across,
        up,
        marked: Vec::new(),
        // At the longest length, as the accuracies are.
        level: task.chance.last().map(|&(_, chance)| Level {
            places: vec![(0.0, chance)],
            label: ["chance".to_owned(), format!("{:.1} %", 100.0 * chance)],
        }),
        spread: Spread::Touching,
        series,
    }
}

/// The losses of each seed with its unit, by step.
type Seeds<'a> = BTreeMap<(u64, &'a str), BTreeMap<u64, f64>>;

/// Losses on the way of training: of each model the steps of each unit, which is a seed.
#[derive(Default)]
pub(crate) struct Training<'a>(HashMap<Trained<'a>, Seeds<'a>>);

impl<'a> Training<'a> {
    /// Of what was recorded on the way; points whose unit has no measurement are of no model.
    pub fn new(rows: &'a [Measurement], points: &'a [TrainingPoint]) -> Self {
        let units: HashMap<&str, &Measurement> =
            rows.iter().map(|row| (row.unit.as_str(), row)).collect();
        let mut models: HashMap<_, Seeds<'_>> = HashMap::new();
        for point in points {
            let loss = point.loss.filter(|loss| loss.is_finite());
            if let Some((row, loss)) = units.get(point.unit.as_str()).zip(loss) {
                let seeds = models.entry(row.trained()).or_default();
                let steps = seeds.entry((row.seed, row.unit.as_str())).or_default();
                steps.insert(point.step, loss);
            }
        }
        Self(models)
    }

    fn panel(&self, task: &TaskView<'_>, styles: &[Style]) -> Panel {
        let mut all = Vec::new();
        for (curve, &style) in task.curves.iter().zip(styles) {
            let seeds = self.0.get(&curve.first().trained());
            for steps in seeds.into_iter().flat_map(BTreeMap::values) {
                let every = steps.len().div_ceil(MARKERS);
                let point = |(place, (&step, &loss)): (usize, (&u64, &f64))| Mark {
                    across: step as f64,
                    up: loss,
                    // Each model's markers at other steps than those of the model before.
                    bare: (place + every * all.len() / (styles.len() + 1)) % every != every / 2,
                    ..Mark::default()
                };
                let marks = steps.iter().enumerate().map(point).collect();
                all.push(Series {
                    name: curve.name.clone(),
                    style,
                    joined: true,
                    marks,
                });
            }
        }
        let values = || all.iter().flat_map(|series: &Series| &series.marks);
        let last = values().map(|mark| mark.across).fold(0.0, f64::max);
        let losses = values().map(|mark| mark.up).chain([0.0]);
        Panel {
            title: String::new(),
            across: Axis::counts(last, "step"),
            up: Axis::losses(losses, "loss in nats"),
            marked: Vec::new(),
            level: None,
            spread: Spread::Never,
            series: all,
        }
    }
}
