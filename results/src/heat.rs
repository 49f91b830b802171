//! Accuracy by depth and length as SVG: where tasks differ in the option `depth` alone, a map a model, the depths down and
//! the lengths across. The same rows give the same bytes.

use crate::figure::{GREY, LINE, SIZE, WIDTH, characters, fill};
use crate::setting::group;
use crate::summary::SummaryRow;
use crate::svg::{Anchor, Svg};
use crate::text::{short_length, wrap};
use crate::view::{CurveView, TaskView};

// Sizes in pixels.
const LEFT: f64 = 64.0;
const CELL: (f64, f64) = (64.0, 26.0);

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

/// The maps that these tasks give: of accuracies at two depths at least.
pub(crate) fn depth_maps<'a>(tasks: &'a [TaskView<'a>]) -> Vec<DepthMap<'a>> {
    let fixed = tasks.iter().filter(|task| task.kind.is_accuracy());
    let fixed = fixed.filter_map(|task| {
        let (depth, others) = fixed_depth(task.options)?;
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

    /// The figure as SVG text.
    pub fn draw(&self) -> String {
        let mut lengths: Vec<u64> = self
            .depths
            .iter()
            .flat_map(|(_, task)| task.lengths.clone())
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        // A column wide at least, that the heading has room.
        let wide = (LEFT + CELL.0 * lengths.len() as f64 + 10.0).max(WIDTH);
        let mut svg = Svg::default();
        let bold = r#"font-size="15" font-weight="bold""#;
        svg.text((10.0, 20.0), Anchor::Start, bold, self.task);
        let mut y = 38.0;
        let what = format!(
            "{} by depth of the needle and length",
            self.depths[0].1.metric
        );
        for words in [self.options.replace(',', ", "), what] {
            for line in wrap(&words, characters(wide - 20.0, SIZE)) {
                svg.text((10.0, y), Anchor::Start, &fill(GREY), &line);
                y += LINE;
            }
        }
        let mut names: Vec<&str> = Vec::new();
        for curve in self.curves() {
            if !names.contains(&curve.name.as_str()) {
                names.push(&curve.name);
            }
        }
        for name in names {
            y = self.panel(&mut svg, name, &lengths, y + 10.0);
        }
        svg.finish(wide, y + 6.0)
    }

    /// The map of one model. Returns where it ends.
    fn panel(&self, svg: &mut Svg, name: &str, lengths: &[u64], mut y: f64) -> f64 {
        let found = |task: &'a TaskView<'a>| task.curves.iter().find(|curve| curve.name == name);
        let trained = self
            .depths
            .iter()
            .find_map(|(_, task)| found(task)?.first().train_length);
        let trained = trained.map(|length| format!(", trained at {}", short_length(length)));
        let title = format!("{name}{}", trained.unwrap_or_default());
        svg.text(
            (10.0, y + 6.0),
            Anchor::Start,
            r#"font-weight="bold""#,
            &title,
        );
        y += 16.0;
        for &(depth, task) in &self.depths {
            let label = format!("{} %", (1e4 * depth).round() / 1e2);
            svg.text((LEFT - 8.0, y + 17.5), Anchor::End, "", &label);
            for (column, &length) in lengths.iter().enumerate() {
                let place = (LEFT + CELL.0 * column as f64, y);
                if let Some(row) = found(task).and_then(|curve| curve.at(length)) {
                    cell(svg, place, row, task);
                }
            }
            y += CELL.1;
        }
        for (column, &length) in lengths.iter().enumerate() {
            let middle = LEFT + CELL.0 * (column as f64 + 0.5);
            svg.text(
                (middle, y + 15.0),
                Anchor::Middle,
                "",
                &short_length(length),
            );
        }
        y + 22.0
    }
}

/// A cell with its value, or how it ended where there is none.
fn cell(svg: &mut Svg, (x, y): (f64, f64), row: &SummaryRow, task: &TaskView<'_>) {
    let outline = format!("M0 0H{}V{}H0Z", CELL.0, CELL.1);
    let words = (x + CELL.0 / 2.0, y + 17.5);
    let Some(value) = row.value else {
        svg.outline((x, y), &outline, r##"fill="none" stroke="#c0c0c0""##);
        return svg.text(words, Anchor::Middle, &fill(GREY), row.status.short());
    };
    let part = |channel: usize| {
        let [none, all] = ENDS.map(|end| end[channel]);
        (none + (all - none) * value).round() as u8
    };
    let colour = format!("#{:02x}{:02x}{:02x}", part(0), part(1), part(2));
    svg.outline(
        (x, y),
        &outline,
        &format!(r#"fill="{colour}" stroke="white""#),
    );
    let ink = if value > 0.5 { "white" } else { "black" };
    svg.text(
        words,
        Anchor::Middle,
        &fill(ink),
        &task.kind.show_short(value),
    );
}
