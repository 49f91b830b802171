//! Accuracy against length as SVG: a line an architecture with its interval, the chance line, the
//! training-length line. The same rows give the same bytes.

use std::path::{Path, PathBuf};

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::summary::{SummaryRow, best_learning_rates};
use crate::table::{model_name, model_of, short_length};

/// Why there is no plot.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// Nothing to draw.
    #[error("no measured value of task `{task}` to plot")]
    Empty {
        /// The task.
        task: String,
    },
    /// The drawing library refused.
    #[error("plot of task `{task}`: {reason}")]
    Draw {
        /// The task.
        task: String,
        /// The library's words.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Okabe and Ito's colours, which the colour-blind tell apart.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 120, 40),
];

const WIDTH: u32 = 760;
const LEGEND: u32 = 210;
const HEIGHT: u32 = 420;

struct Curve<'a> {
    name: String,
    points: Vec<&'a SummaryRow>,
}

/// The plot of one task (best learning rates, whole cells) as SVG text.
///
/// # Errors
/// Nothing measured; the drawing library's refusal.
pub fn plot_accuracy(
    summary: &[SummaryRow],
    task: &str,
    task_options: &str,
) -> Result<String, PlotError> {
    let rows: Vec<&SummaryRow> = best_learning_rates(summary)
        .into_iter()
        .filter(|row| row.task == task && row.task_options == task_options)
        .filter(|row| row.label.is_empty() && row.value.is_some())
        .collect();
    if rows.is_empty() {
        return Err(PlotError::Empty {
            task: task.to_owned(),
        });
    }
    let curves = curves(&rows);
    let mut text = String::new();
    draw(&rows, &curves, &mut text).map_err(|reason| PlotError::Draw {
        task: task.to_owned(),
        reason,
    })?;
    Ok(text)
}

fn curves<'a>(rows: &[&'a SummaryRow]) -> Vec<Curve<'a>> {
    let mut models: Vec<(&str, &str, &str)> = Vec::new();
    for row in rows {
        let model = model_of(row);
        if !models.contains(&model) {
            models.push(model);
        }
    }
    let curve = |model: &(&str, &str, &str)| {
        let mut points: Vec<&SummaryRow> = rows
            .iter()
            .filter(|row| model_of(row) == *model)
            .copied()
            .collect();
        points.sort_by_key(|row| row.eval_length);
        Curve {
            name: model_name(*model, &models),
            points,
        }
    };
    models.iter().map(curve).collect()
}

fn draw(rows: &[&SummaryRow], curves: &[Curve<'_>], text: &mut String) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let first = rows[0];
    let log = |length: u64| (length as f64).log2();
    let low = rows
        .iter()
        .map(|row| row.eval_length)
        .min()
        .unwrap_or(1)
        .min(first.train_length.unwrap_or(u64::MAX));
    let high = rows
        .iter()
        .map(|row| row.eval_length)
        .max()
        .unwrap_or(1)
        .max(first.train_length.unwrap_or(0));
    let (left, right) = (log(low) - 0.35, log(high) + 0.35);
    let root = SVGBackend::with_string(text, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| words(&error))?;
    let (main, legend) = root.split_horizontally(WIDTH - LEGEND);
    let mut chart = ChartBuilder::on(&main)
        .margin(14)
        .caption(title(first), ("sans-serif", 17))
        .x_label_area_size(46)
        .y_label_area_size(58)
        .build_cartesian_2d(left..right, 0.0..1.0)
        .map_err(|error| words(&error))?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("length (tokens)")
        .y_desc(first.metric.replace('_', " "))
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&|value| format!("{value:.1}"))
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .draw()
        .map_err(|error| words(&error))?;
    length_ticks(&main, &chart, rows).map_err(|error| words(&error))?;
    let grey = RGBColor(110, 110, 110);
    let mut vertical = Vec::new();
    if let Some(length) = first.train_length {
        for piece in 0..25 {
            let from = f64::from(piece) / 25.0;
            vertical.push([(log(length), from), (log(length), from + 0.02)]);
        }
    }
    for line in vertical {
        let line = PathElement::new(line.to_vec(), grey.stroke_width(1));
        chart.draw_series([line]).map_err(|error| words(&error))?;
    }
    if let Some(chance) = first.chance {
        let step = (right - left) / 40.0;
        for piece in 0..40 {
            let from = left + f64::from(piece) * step;
            let line = vec![(from, chance), (from + 0.5 * step, chance)];
            let line = PathElement::new(line, grey.stroke_width(1));
            chart.draw_series([line]).map_err(|error| words(&error))?;
        }
    }
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let line = curve
            .points
            .iter()
            .map(|row| (log(row.eval_length), row.value.unwrap_or(0.0)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))
            .map_err(|error| words(&error))?;
        // Bars of curves that coincide stand beside each other.
        let shift = (index as f64 - (curves.len() as f64 - 1.0) / 2.0) * 0.018;
        for row in &curve.points {
            let x = log(row.eval_length) + shift;
            if let (Some(low), Some(high)) = (row.value_low, row.value_high) {
                let bar = PathElement::new(vec![(x, low), (x, high)], colour.stroke_width(1));
                chart.draw_series([bar]).map_err(|error| words(&error))?;
            }
            let place = chart.backend_coord(&(log(row.eval_length), row.value.unwrap_or(0.0)));
            marker(&root, index, place, colour).map_err(|error| words(&error))?;
        }
    }
    draw_legend(&legend, &root, curves, first).map_err(|error| words(&error))?;
    root.present().map_err(|error| words(&error))?;
    Ok(())
}

fn title(row: &SummaryRow) -> String {
    let mut title = row.task.clone();
    let shown: Vec<&str> = row
        .task_options
        .split(',')
        .filter(|option| !option.is_empty())
        .collect();
    if !shown.is_empty() {
        title = format!("{title} ({})", shown.join(", "));
    }
    if title.chars().count() > 62 {
        title = title.chars().take(61).collect::<String>() + "…";
    }
    title
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;
type DrawResult = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A tick and its label under every measured length; where they are dense, every second.
fn length_ticks(area: &Area<'_>, chart: &Chart<'_, '_>, rows: &[&SummaryRow]) -> DrawResult {
    let mut lengths: Vec<u64> = rows.iter().map(|row| row.eval_length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let every = lengths.len().div_ceil(11);
    let style = ("sans-serif", 13)
        .into_font()
        .color(&BLACK)
        .pos(Pos::new(HPos::Center, VPos::Top));
    for length in lengths.iter().step_by(every) {
        let (x, y) = chart.backend_coord(&((*length as f64).log2(), 0.0));
        area.draw(&PathElement::new(
            vec![(x, y), (x, y + 5)],
            BLACK.stroke_width(1),
        ))?;
        area.draw(&Text::new(short_length(*length), (x, y + 8), style.clone()))?;
    }
    Ok(())
}

/// Circle, square, triangle or diamond by index.
fn marker(area: &Area<'_>, index: usize, (x, y): (i32, i32), colour: RGBColor) -> DrawResult {
    match index % 4 {
        0 => area.draw(&Circle::new((x, y), 4, colour.filled())),
        1 => area.draw(&Rectangle::new(
            [(x - 4, y - 4), (x + 4, y + 4)],
            colour.filled(),
        )),
        2 => area.draw(&TriangleMarker::new((x, y), 6, colour.filled())),
        _ => {
            let corners = vec![(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)];
            area.draw(&Polygon::new(corners, colour.filled()))
        }
    }
}

fn draw_legend(
    legend: &Area<'_>,
    root: &Area<'_>,
    curves: &[Curve<'_>],
    row: &SummaryRow,
) -> DrawResult {
    let _ = legend;
    let left = (WIDTH - LEGEND) as i32 + 8;
    let style = ("sans-serif", 14)
        .into_font()
        .color(&BLACK)
        .pos(Pos::new(HPos::Left, VPos::Center));
    let mut y = 52;
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        root.draw(&PathElement::new(
            vec![(left, y), (left + 26, y)],
            colour.stroke_width(2),
        ))?;
        marker(root, index, (left + 13, y), colour)?;
        for line in wrap(&curve.name, 23) {
            root.draw(&Text::new(line, (left + 34, y), style.clone()))?;
            y += 18;
        }
        y += 6;
    }
    let small = ("sans-serif", 12).into_font().color(&RGBColor(90, 90, 90));
    let small = small.pos(Pos::new(HPos::Left, VPos::Center));
    y += 8;
    let mut notes = Vec::new();
    if let Some(length) = row.train_length {
        notes.push(format!("| trained at {}", short_length(length)));
    }
    if let Some(chance) = row.chance {
        notes.push(format!("-- chance {chance:.3}"));
    }
    let seeds = row.seeds;
    notes.push(match row.interval.as_str() {
        "wilson" => "bars: Wilson 95 %, 1 seed".to_owned(),
        _ => format!("bars: 95 % t over {seeds} seeds"),
    });
    for note in notes {
        root.draw(&Text::new(note, (left, y), small.clone()))?;
        y += 18;
    }
    Ok(())
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters
        .chunks(width)
        .map(|line| line.iter().collect())
        .collect()
}

/// Writes a plot for every task and returns the files.
///
/// # Errors
/// The drawing library's or the system's refusal. A task without measured values has no plot.
pub fn plot_all(summary: &[SummaryRow], folder: &Path) -> Result<Vec<PathBuf>, PlotError> {
    let mut tasks: Vec<(&str, &str)> = Vec::new();
    for row in summary {
        let task = (row.task.as_str(), row.task_options.as_str());
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let mut files = Vec::new();
    for (task, options) in &tasks {
        let alone = tasks.iter().filter(|other| other.0 == *task).count() == 1;
        let name = if alone {
            format!("accuracy-{task}.svg")
        } else {
            format!("accuracy-{task}-{}.svg", slug(options))
        };
        match plot_accuracy(summary, task, options) {
            Ok(text) => {
                let path = folder.join(name);
                crate::files::write_whole(&path, text.as_bytes()).map_err(|source| {
                    PlotError::Write {
                        path: path.clone(),
                        source,
                    }
                })?;
                files.push(path);
            }
            Err(PlotError::Empty { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// Options as part of a file name.
fn slug(options: &str) -> String {
    options
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect()
}
