//! Plots of a summary as files: one a task, of losses one by position, of needles at several depths one map, written
//! whole or not at all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::capacity::capacity;
use crate::drawing::Drawing;
use crate::figure::{Across, figure};
use crate::files;
use crate::grid::{Training, grids};
use crate::heat::{DepthMap, by_depth, depth_maps};
use crate::names::{self, Names};
use crate::pdf::pdf;
use crate::ranked::{MOST_CURVES, Ranked};
use crate::record::{Measurement, TrainingPoint};
use crate::style::Styles;
use crate::summary::SummaryRow;
use crate::svg::svg;
use crate::view::{CurveView, TaskView, tasks};

/// Why a plot could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct PlotError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    pub source: std::io::Error,
}

/// A plot of each task with measured values: the name of its file, and SVG text.
pub fn plots(summary: &[SummaryRow]) -> Vec<(String, String)> {
    let styles = Styles::new(summary);
    let drawn = of_tasks(summary, &tasks(summary), &styles);
    let written = drawn
        .iter()
        .map(|(name, drawing)| (format!("{name}.svg"), svg(drawing)));
    written.collect()
}

/// The figures of a report, each as SVG and as PDF, by the names of their files: the plots of each task, and all
/// tasks in one figure a measure, `grid-MEASURE`. `rows` and `training` are what `summary` is made of, and what was
/// recorded on the way.
pub fn figures(
    rows: &[Measurement],
    summary: &[SummaryRow],
    training: &[TrainingPoint],
) -> Vec<(String, Vec<u8>)> {
    let styles = Styles::new(summary);
    let tasks = tasks(summary);
    let mut drawn = of_tasks(summary, &tasks, &styles);
    let on_the_way = Training::new(rows, training);
    for grid in grids(&tasks, &capacity(summary), &on_the_way, &styles) {
        for (page, drawing) in grid.draw().into_iter().enumerate() {
            let name = match page {
                0 => format!("grid-{}", grid.name),
                _ => format!("grid-{}-{}", grid.name, page + 1),
            };
            drawn.push((name, drawing));
        }
    }
    let written = drawn.par_iter().flat_map_iter(|(name, drawing)| {
        let text = svg(drawing).into_bytes();
        [
            (format!("{name}.svg"), text),
            (format!("{name}.pdf"), pdf(drawing)),
        ]
    });
    written.collect()
}

/// The plots of each task, by their names.
fn of_tasks(
    summary: &[SummaryRow],
    by_length: &[TaskView<'_>],
    styles: &Styles,
) -> Vec<(String, Drawing)> {
    let mut plots = plots_of(by_length, Across::Length, styles);
    let positions = by_position(summary);
    plots.extend(plots_of(&tasks(&positions), Across::Position, styles));
    let labelled: Vec<SummaryRow> = by_depth(summary).into_iter().map(|(row, _)| row).collect();
    let labelled = tasks(&labelled);
    let maps: Vec<DepthMap<'_>> = depth_maps(by_length)
        .into_iter()
        .chain(depth_maps(&labelled))
        .collect();
    plots.extend(maps_of(&maps));
    plots
}

/// Each map of depth and length that anything was measured of.
fn maps_of(maps: &[DepthMap<'_>]) -> Vec<(String, Drawing)> {
    let mut names = Names::default();
    maps.iter()
        .filter(|map| map.is_measured())
        .map(|map| {
            let alone = maps
                .iter()
                .filter(|other| other.task() == map.task())
                .count()
                == 1;
            let name = names.take(map.task(), if alone { "" } else { &map.options });
            (format!("depth-{name}"), map.draw())
        })
        .collect()
}

/// The longest evaluation of each curve as points by position: rows of position buckets whose length is the
/// end of the bucket.
pub(crate) fn by_position(summary: &[SummaryRow]) -> Vec<SummaryRow> {
    let end = |row: &SummaryRow| -> Option<u64> {
        let (_, end) = row.label.strip_prefix("position=")?.split_once("..")?;
        end.parse().ok()
    };
    let mut buckets: Vec<(u64, &SummaryRow)> = summary
        .iter()
        .filter(|row| row.is_of_shown())
        .filter_map(|row| Some((end(row)?, row)))
        .collect();
    let mut longest = HashMap::new();
    for (_, row) in &buckets {
        let known = longest.entry(row.trained()).or_insert(row.eval_length);
        *known = row.eval_length.max(*known);
    }
    buckets.retain(|(_, row)| longest[&row.trained()] == row.eval_length);
    let point = |(end, row): (u64, &SummaryRow)| SummaryRow {
        label: String::new(),
        eval_length: end,
        ..row.clone()
    };
    buckets.into_iter().map(point).collect()
}

/// A plot of each of these tasks.
fn plots_of(tasks: &[TaskView<'_>], across: Across, styles: &Styles) -> Vec<(String, Drawing)> {
    let mut plots = Vec::new();
    for (task, name) in tasks.iter().zip(names::of_tasks(tasks)) {
        let mut points = task.curves.iter().flat_map(|curve| &curve.points);
        if points.all(|row| row.value.is_none()) {
            continue;
        }
        let firsts: Vec<&SummaryRow> = task.curves.iter().map(CurveView::first).collect();
        let what = match (across, task.kind.is_accuracy()) {
            (Across::Position, _) => "position",
            (_, true) => "accuracy",
            (_, false) => "loss",
        };
        let figure = match across {
            Across::Length if task.kind.is_accuracy() && firsts.len() > MOST_CURVES => {
                Ranked::new(task).draw()
            }
            _ => figure(task, across, &styles.of(&firsts)),
        };
        plots.push((format!("{what}-{name}"), figure));
    }
    plots
}

/// Writes the plots of each task with measured values, `accuracy-TASK.svg`, or `loss-TASK.svg` and
/// `position-TASK.svg`, and `depth-TASK.svg` of tasks with needles at several depths, and returns the files.
///
/// # Errors
/// The system's refusal. Each file is whole or as it was.
pub fn plot_all(summary: &[SummaryRow], folder: &Path) -> Result<Vec<PathBuf>, PlotError> {
    let write = |(name, text): (String, String)| {
        let path = folder.join(name);
        match files::write_whole(&path, text.as_bytes()) {
            Ok(()) => Ok(path),
            Err(source) => Err(PlotError { path, source }),
        }
    };
    plots(summary).into_iter().map(write).collect()
}
