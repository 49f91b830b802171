//! Accuracy by depth and length as SVG: where tasks differ in the option `depth` alone, or results are broken down by it,
//! a map a model, the depths down and the lengths across. The same rows give the same bytes.

use std::collections::BTreeSet;

use crate::drawing::{
    Anchor, BLACK, COLUMN, Drawing, GREY, LINE, PAGE, Place, SIZE, Stroke, width,
};
use crate::figure::heading;
use crate::setting::group;
use crate::summary::SummaryRow;
use crate::text::short_length;
use crate::view::{self, CurveView, TaskView, options_of_part};

/// Left of the cells.
const LEFT: f64 = 32.0;
/// Height of a figure that a page of 240 mm still holds with its caption.
pub(crate) const HIGHEST: f64 = 620.0;
/// Height of a cell, and how wide one is between.
pub(crate) const HIGH: f64 = 12.0;
pub(crate) const WIDE: (f64, f64) = (17.0, 32.0);

/// Colours of 0 and of 1: light to dark, so that it prints in grey.
const ENDS: [[f64; 3]; 2] = [[247.0, 251.0, 255.0], [8.0, 48.0, 107.0]];

/// A task whose depth was fixed at several places: for each depth the view at it, the needle at the start first.
pub(crate) struct DepthMap<'a> {
    task: &'a str,
    /// All options but the depth.
    pub options: String,
    /// From 0 to 1.
    pub depths: Vec<(f64, &'a TaskView<'a>)>,
}

/// The depth and the other options of a task at a fixed depth.
fn fixed_depth(options: &str) -> Option<(f64, String)> {
    let (depth, others): (Vec<&str>, Vec<&str>) = options
        .split(',')
        .partition(|option| option.starts_with("depth="));
    let [depth] = depth[..] else { return None };
    let depth: f64 = depth.strip_prefix("depth=")?.parse().ok()?;
    Some((depth, others.join(",")))
}

/// The rows of breakdowns by depth, `depth=0.50` or `PART_depth=0.50` in a task that has the parts of several, as points
/// of tasks at that depth, each with the row that it stands for.
pub(crate) fn by_depth(summary: &[SummaryRow]) -> Vec<(SummaryRow, &SummaryRow)> {
    fn point(row: &SummaryRow) -> Option<(SummaryRow, &SummaryRow)> {
        let (part, depth) = view::by_depth(&row.label)?;
        // At one depth the breakdown says nothing more.
        if fixed_depth(&row.task_options).is_some() {
            return None;
        }
        // In the place of where a grid of depths stands.
        let depth = format!("depth={depth}");
        let others = row.task_options.split(',');
        let others = others.filter(|option| !option.is_empty() && !option.starts_with("depth="));
        let options: Vec<&str> = [depth.as_str()].into_iter().chain(others).collect();
        let point = SummaryRow {
            label: String::new(),
            task_options: options_of_part(part, &options.join(",")),
            ..row.clone()
        };
        Some((point, row))
    }
    let shown = summary.iter().filter(|row| row.is_of_shown());
    shown.filter_map(point).collect()
}

/// The maps that these tasks give: of accuracies at two depths at least.
pub(crate) fn depth_maps<'a>(tasks: &'a [TaskView<'a>]) -> Vec<DepthMap<'a>> {
    let fixed = tasks.iter().filter(|task| task.kind.is_accuracy());
    let fixed = fixed.filter_map(|task| {
        let (depth, others) = fixed_depth(&task.options)?;
        Some((task, depth, others))
    });
    group(fixed, |(task, _, others)| (task.task, others.clone()))
        .into_iter()
        .filter(|group| group.len() > 1)
        .map(|mut group| {
            group.sort_by(|one, other| one.1.total_cmp(&other.1));
            DepthMap {
                task: group[0].0.task,
                options: group[0].2.clone(),
                depths: group
                    .iter()
                    .map(|&(task, depth, _)| (depth, task))
                    .collect(),
            }
        })
        .collect()
}

impl<'a> DepthMap<'a> {
    /// Name of the task.
    pub fn task(&self) -> &'a str {
        self.task
    }

    /// Whether anything was measured.
    pub fn is_measured(&self) -> bool {
        let mut points = self.curves().flat_map(|curve| &curve.points);
        points.any(|row| row.value.is_some())
    }

    fn curves(&self) -> impl Iterator<Item = &'a CurveView<'a>> {
        self.depths.iter().flat_map(|(_, task)| &task.curves)
    }

    /// The figure: a column wide, or, where its lengths want more or its maps more height than a page has, as wide as a
    /// page's text, or wider.
    pub fn draw(&self) -> Drawing {
        let of_depths = self.depths.iter().flat_map(|(_, task)| &task.lengths);
        let lengths: BTreeSet<u64> = of_depths.copied().collect();
        let lengths: Vec<u64> = lengths.into_iter().collect();
        let least = lengths
            .iter()
            .map(|&length| width(&short_length(length), SIZE) + 3.0);
        let least = least.fold(WIDE.0, f64::max);
        let needed = LEFT + least * lengths.len() as f64 + 2.0;
        let whole = [COLUMN, PAGE].into_iter().find(|&wide| needed <= wide);
        let whole = whole.unwrap_or(needed);
        let mut drawing = self.arranged(&lengths, least, whole, 1);
        // As few beside each other as keep to the height, or as many as there is room for.
        for beside in 2..=(PAGE / needed.max(COLUMN / 2.0)) as usize {
            if drawing.height <= HIGHEST {
                break;
            }
            drawing = self.arranged(&lengths, least, PAGE, beside);
        }
        drawing
    }

    /// The figure with so many maps beside each other.
    fn arranged(&self, lengths: &[u64], least: f64, whole: f64, beside: usize) -> Drawing {
        let mut drawing = Drawing::new(whole);
        let room = whole / beside as f64;
        let cell = (room - LEFT - 2.0) / lengths.len() as f64;
        let cell = cell.clamp(least, least.max(WIDE.1));
        let mut words = self.options.replace(',', ", ");
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(&format!(
            "{} by depth of the needle (down) and length in tokens (across)",
            self.depths[0].1.metric
        ));
        let mut y = heading(&mut drawing, self.task, &words);
        let mut names: Vec<&str> = Vec::new();
        for curve in self.curves() {
            if !names.contains(&curve.name.as_str()) {
                names.push(&curve.name);
            }
        }
        for row in names.chunks(beside) {
            let places = (0..).map(|column| (room * f64::from(column), y + 5.0));
            let ends = places.zip(row);
            let ends =
                ends.map(|(at, name)| self.panel(&mut drawing, name, lengths, cell, at, room));
            y = ends.fold(y, f64::max);
        }
        drawing.height = y;
        drawing
    }

    /// The map of one model, its corner at a place. Returns where it ends.
    fn panel(
        &self,
        drawing: &mut Drawing,
        name: &str,
        lengths: &[u64],
        wide: f64,
        (x, mut y): Place,
        room: f64,
    ) -> f64 {
        let found = |task: &'a TaskView<'a>| task.curves.iter().find(|curve| curve.name == name);
        let trained = self
            .depths
            .iter()
            .find_map(|(_, task)| found(task)?.first().train_length);
        let title = match trained {
            Some(length) => format!("{name}, trained at {}", short_length(length)),
            None => name.to_owned(),
        };
        y = drawing.lines((x + 2.0, y + SIZE), room - 4.0, BLACK, &title) - LINE + 4.0;
        for &(depth, task) in &self.depths {
            let label = format!("{} %", (1e4 * depth).round() / 1e2);
            drawing.text((x + LEFT - 3.0, y + 8.8), Anchor::End, BLACK, &label);
            for (column, &length) in lengths.iter().enumerate() {
                let place = (x + LEFT + wide * column as f64, y);
                if let Some(row) = found(task).and_then(|curve| curve.at(length)) {
                    cell(drawing, place, wide, row, task);
                }
            }
            y += HIGH;
        }
        for (column, &length) in lengths.iter().enumerate() {
            let middle = (x + LEFT + wide * (column as f64 + 0.5), y + SIZE + 1.0);
            drawing.text(middle, Anchor::Middle, BLACK, &short_length(length));
        }
        y + LINE + 2.0
    }
}

/// A cell with its value, or how it ended where there is none.
pub(crate) fn cell(
    drawing: &mut Drawing,
    (x, y): Place,
    wide: f64,
    row: &SummaryRow,
    task: &TaskView<'_>,
) {
    let outline = format!("M0 0H{wide:.2}V{HIGH}H0Z");
    let middle = (x + wide / 2.0, y + 8.8);
    let Some(value) = row.value else {
        let edge = Stroke::whole("#c0c0c0", 0.5);
        drawing.outline((x, y), 1.0, &outline, None, Some(edge));
        return drawing.text(middle, Anchor::Middle, GREY, row.status.short());
    };
    let channel = |channel: usize| {
        let [none, all] = ENDS.map(|end| end[channel]);
        (none + (all - none) * value).round() as u8
    };
    let paper = [channel(0), channel(1), channel(2)];
    let colour = format!("#{:02x}{:02x}{:02x}", paper[0], paper[1], paper[2]);
    let edge = Stroke::whole("#ffffff", 0.5);
    drawing.outline((x, y), 1.0, &outline, Some(&colour), Some(edge));
    drawing.text(
        middle,
        Anchor::Middle,
        ink(paper),
        &task.kind.show_short(value),
    );
}

/// Black or white, what stands out more: one of them always does by 4.5 to 1.
fn ink(paper: [u8; 3]) -> &'static str {
    // Contrast with black is (L + 0.05) / 0.05, with white 1.05 / (L + 0.05).
    if (luminance(paper) + 0.05).powi(2) < 1.05 * 0.05 {
        "#ffffff"
    } else {
        BLACK
    }
}

/// Relative luminance (WCAG 2.1).
fn luminance(colour: [u8; 3]) -> f64 {
    let linear = colour.map(|channel| match f64::from(channel) / 255.0 {
        share if share <= 0.040_45 => share / 12.92,
        share => ((share + 0.055) / 1.055).powf(2.4),
    });
    0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_out_from_every_colour() {
        for percent in 0..=100 {
            let paper = [0, 1, 2].map(|channel: usize| {
                let [none, all] = ENDS.map(|end| end[channel]);
                (none + (all - none) * f64::from(percent) / 100.0).round() as u8
            });
            let ink = if ink(paper) == BLACK { 0.0 } else { 1.0 };
            let (light, dark) = (luminance(paper).max(ink), luminance(paper).min(ink));
            assert!((light + 0.05) / (dark + 0.05) >= 4.5, "{percent} %");
        }
    }
}
