//! A metric against length or position as SVG: a curve a model with its intervals, and lines for chance and
//! for the training length. The same rows give the same bytes.

use std::collections::BTreeSet;

use crate::metric::Kind;
use crate::style::Style;
use crate::summary::SummaryRow;
use crate::svg::{Anchor, Svg};
use crate::text::{short_length, wrap};
use crate::view::{CurveView, TaskView, learning};

// Sizes in pixels. A figure a column wide (some 240 points) shows 13 pixels as 6 points.
pub(crate) const WIDTH: f64 = 520.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 66.0;
const PLOT: f64 = 270.0;
/// Room above and below the scale, so that markers at its ends are whole.
const ROOM: f64 = 11.0;
pub(crate) const LINE: f64 = 16.0;
/// Widest character of a text, as share of its size.
const CHARACTER: f64 = 0.56;
pub(crate) const SIZE: f64 = 13.0;

/// Steps of the scale of values.
const TICKS: u32 = 5;

pub(crate) const GREY: &str = "#606060";

/// What a figure's points are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Across {
    /// Lengths of examples.
    Length,
    /// Positions inside examples.
    Position,
}

/// The plot of one task. Everything is laid out from above; `top` is where the scale ends.
pub(crate) struct Figure<'a> {
    task: &'a TaskView<'a>,
    across: Across,
    styles: Vec<Style>,
    /// Values of the scale's ends.
    scale: (f64, f64),
    /// Known training lengths near the measured ones, which have a line, and the others.
    trained: BTreeSet<u64>,
    outside: BTreeSet<u64>,
    /// Log2 of the shortest and the longest length.
    range: (f64, f64),
    top: f64,
    svg: Svg,
}

impl<'a> Figure<'a> {
    /// Of a task; `styles` has one for each of its curves.
    pub fn new(task: &'a TaskView<'a>, across: Across, styles: Vec<Style>) -> Self {
        let (trained, outside) = training_lengths(task);
        let all = || {
            task.lengths
                .iter()
                .chain(&trained)
                .map(|&length| (length as f64).log2())
        };
        let range = (
            all().fold(f64::INFINITY, f64::min),
            all().fold(0.0, f64::max),
        );
        Self {
            task,
            across,
            styles,
            scale: scale(task),
            trained,
            outside,
            range,
            top: 0.0,
            svg: Svg::default(),
        }
    }

    /// The figure as SVG text.
    pub fn draw(mut self) -> String {
        self.heading();
        self.axes();
        self.chance();
        self.curves();
        let mut y = self.y(self.scale.0) + ROOM + 44.0;
        y = self.legend(y + 16.0);
        y = self.notes(y + 4.0);
        self.svg.finish(WIDTH, y + 4.0)
    }

    /// Middle of a length.
    fn x(&self, length: u64) -> f64 {
        let (low, high) = self.range;
        let (left, right) = (LEFT + 30.0, WIDTH - RIGHT - 30.0);
        if high <= low {
            return (left + right) / 2.0;
        }
        left + ((length as f64).log2() - low) / (high - low) * (right - left)
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.scale;
        self.top + (high - value) / (high - low) * PLOT
    }

    /// Title, options, and the training lengths above their lines.
    fn heading(&mut self) {
        let mut y = 20.0;
        let bold = r#"font-size="15" font-weight="bold""#;
        for line in wrap(self.task.task, characters(WIDTH - 20.0, 15.0)) {
            self.svg.text((10.0, y), Anchor::Start, bold, &line);
            y += 18.0;
        }
        if !self.task.options.is_empty() {
            let options = self.task.options.replace(',', ", ");
            y = self.lines(&options, 10.0, y, WIDTH - 20.0, GREY);
        }
        for length in self.trained.clone() {
            let label = format!("trained at {}", short_length(length));
            self.svg.text(
                (self.x(length), y + 2.0),
                Anchor::Middle,
                &fill(GREY),
                &label,
            );
            y += LINE;
        }
        self.top = y + ROOM - 4.0;
    }

    fn axes(&mut self) {
        let (left, right) = (LEFT, WIDTH - RIGHT);
        let (low, high) = self.scale;
        let (top, bottom) = (self.y(high) - ROOM, self.y(low) + ROOM);
        for tick in 0..=TICKS {
            let value = low + (high - low) * f64::from(tick) / f64::from(TICKS);
            let y = self.y(value);
            self.svg
                .line(&[(left, y), (right, y)], r##"stroke="#e8e8e8""##);
            let place = (left - 7.0, y + 4.5);
            let label = match self.task.kind {
                Kind::Loss if high < 1e4 => format!("{value:.1}"),
                Kind::Loss => format!("{value:.1e}"),
                kind => kind.show_short(value),
            };
            self.svg.text(place, Anchor::End, "", &label);
        }
        for length in self.trained.clone() {
            let x = self.x(length);
            let style = format!(r#"stroke="{GREY}" stroke-dasharray="4 3""#);
            self.svg.line(&[(x, top), (x, bottom)], &style);
        }
        let frame = [(left, top), (left, bottom), (right, bottom)];
        self.svg.line(&frame, r#"stroke="black""#);
        let mut free = f64::NEG_INFINITY;
        for &length in &self.task.lengths {
            let (x, label) = (self.x(length), short_length(length));
            self.svg
                .line(&[(x, bottom), (x, bottom + 5.0)], r#"stroke="black""#);
            let half = width(&label) / 2.0;
            if x - half >= free {
                self.svg
                    .text((x, bottom + 19.0), Anchor::Middle, "", &label);
                free = x + half + 6.0;
            }
        }
        let middle = (left + right) / 2.0;
        self.svg.text(
            (middle, bottom + 38.0),
            Anchor::Middle,
            "",
            match self.across {
                Across::Length => "length in tokens",
                Across::Position => "position in tokens, the end of its bucket",
            },
        );
        let place = (15.0, (top + bottom) / 2.0);
        let turned = format!(r#"transform="rotate(-90 {} {})""#, place.0, place.1);
        let metric = &self.task.metric;
        self.svg.text(place, Anchor::Middle, &turned, metric);
    }

    /// The line of guessing with its words at the end, outside the plot.
    fn chance(&mut self) {
        let Some(chance) = self.task.chance else {
            return;
        };
        let (y, right) = (self.y(chance), WIDTH - RIGHT);
        let style = format!(r#"stroke="{GREY}" stroke-dasharray="1 3""#);
        self.svg.line(&[(LEFT, y), (right, y)], &style);
        let words = ["chance".to_owned(), format!("{:.1} %", 100.0 * chance)];
        for (place, word) in words.iter().enumerate() {
            let at = (right + 5.0, y - 2.0 + 14.0 * place as f64);
            self.svg.text(at, Anchor::Start, &fill(GREY), word);
        }
    }

    /// Where each curve is drawn at each length: the curves stand side by side, and values that coincide
    /// above each other, so that none hides another.
    fn places(&self) -> Vec<Vec<(&'a SummaryRow, f64, f64)>> {
        let (count, lengths) = (self.task.curves.len() as f64, &self.task.lengths);
        let gaps = lengths
            .windows(2)
            .map(|pair| self.x(pair[1]) - self.x(pair[0]));
        let gap = gaps.fold(WIDTH / 3.0, f64::min);
        let aside = (0.5 * gap / count).min(8.0);
        let mut places: Vec<Vec<(&SummaryRow, f64, f64)>> = Vec::new();
        for (index, curve) in self.task.curves.iter().enumerate() {
            let shift = (index as f64 - (count - 1.0) / 2.0) * aside;
            let points = curve
                .points
                .iter()
                .filter_map(|&row| Some((row, row.value?)));
            let place = |(row, value): (&'a SummaryRow, f64)| {
                (row, self.x(row.eval_length) + shift, self.y(value))
            };
            places.push(points.map(place).collect());
        }
        for &length in lengths {
            let mut here: Vec<&mut f64> = places
                .iter_mut()
                .flatten()
                .filter(|place| place.0.eval_length == length)
                .map(|place| &mut place.2)
                .collect();
            here.sort_by(|one, other| one.total_cmp(other));
            for heap in here.chunk_by_mut(|one, other| **other - **one < 2.0) {
                let last = heap.len() as f64 - 1.0;
                let step = (2.0 * ROOM - 6.0).min(2.2 * last) / last.max(1.0);
                for (rank, y) in heap.iter_mut().enumerate() {
                    **y += (rank as f64 - last / 2.0) * step;
                }
            }
        }
        places
    }

    fn curves(&mut self) {
        let places = self.places();
        let styles = self.styles.clone();
        for (points, style) in places.iter().zip(&styles) {
            let line: Vec<(f64, f64)> = points.iter().map(|&(_, x, y)| (x, y)).collect();
            let dashes = format!(
                r#"stroke="{}" stroke-width="1.6" stroke-dasharray="{}""#,
                style.colour, style.dashes
            );
            self.svg.line(&line, &dashes);
            let thin = format!(r#"stroke="{}" stroke-opacity="0.6""#, style.colour);
            for &(row, x, y) in points {
                // The bar and the seeds move with their marker.
                let at = |value: f64| y + self.y(value) - self.y(row.value.unwrap_or(value));
                let ends = row
                    .value_low
                    .zip(row.value_high)
                    .map(|(low, high)| (at(low), at(high)));
                let seeds =
                    [row.value_min, row.value_median, row.value_max].map(|seed| seed.map(at));
                if let Some((low, high)) = ends {
                    self.svg.line(&[(x, low), (x, high)], &thin);
                    for end in [low, high] {
                        self.svg.line(&[(x - 2.5, end), (x + 2.5, end)], &thin);
                    }
                }
                if row.seeds > 1 {
                    for seed in seeds.into_iter().flatten() {
                        let ring = "M-1.6 0A1.6 1.6 0 1 0 1.6 0A1.6 1.6 0 1 0 -1.6 0Z";
                        let ring_style = format!(r#"fill="white" stroke="{}""#, style.colour);
                        self.svg.outline((x, seed), ring, &ring_style);
                    }
                }
            }
        }
        // Markers last: no line or bar covers one.
        for (points, style) in places.iter().zip(&styles) {
            for &(_, x, y) in points {
                self.marker((x, y), style);
            }
        }
    }

    fn marker(&mut self, place: (f64, f64), style: &Style) {
        let look = format!(
            r#"fill="{}" stroke="white" stroke-width="0.7""#,
            style.colour
        );
        self.svg.outline(place, style.marker, &look);
    }

    /// A sample of each curve with its name and what it says, below the plot. Returns where it ends.
    fn legend(&mut self, mut y: f64) -> f64 {
        let alike = self.task.common(|curve| curve.first().learning_rate);
        for (index, curve) in self.task.curves.iter().enumerate() {
            let style = self.styles[index];
            let sample = format!(
                r#"stroke="{}" stroke-width="1.6" stroke-dasharray="{}""#,
                style.colour, style.dashes
            );
            self.svg.line(&[(12.0, y - 4.0), (46.0, y - 4.0)], &sample);
            self.marker((29.0, y - 4.0), &style);
            let row = curve.first();
            let mut words = vec![curve.name.clone()];
            words.extend(learning(row));
            if alike.is_none() && row.selected == Some(true) {
                words.extend(
                    row.learning_rate
                        .map(|rate| format!("learning rate {rate}")),
                );
            }
            if curve.points.iter().all(|row| row.value.is_none()) {
                words.push(row.status.name().to_owned());
            }
            y = self.lines(&words.join(", "), 54.0, y, WIDTH - 64.0, "black");
        }
        y
    }

    /// Seeds, steps and what the bars are. Returns where they end.
    fn notes(&mut self, y: f64) -> f64 {
        let row = |field: fn(&SummaryRow) -> Option<String>| {
            self.task.common(|curve| field(curve.first())).flatten()
        };
        let mut notes = Vec::new();
        notes.extend(match self.task.common(CurveView::seeds) {
            Some(1) => {
                Some("One seed: an anecdote, no comparison. Bars: 95 % by its samples".to_owned())
            }
            Some(seeds) => Some(format!(
                "Mean of {seeds} seeds. Bars: its 95 % interval over all seeds; rings: {}",
                self.task.kind.seeds()
            )),
            None => {
                Some("Mean of the seeds, whose numbers differ. Bars: 95 % intervals".to_owned())
            }
        });
        notes.extend(row(|row| {
            row.train_steps.map(|steps| format!("{steps} steps"))
        }));
        notes.extend(row(|row| {
            row.learning_rate
                .map(|rate| format!("Learning rate {rate}"))
        }));
        let outside = self.outside.iter();
        notes.extend(outside.map(|&length| format!("Trained at {}", short_length(length))));
        let missing = self.task.curves.iter().flat_map(|curve| &curve.points);
        if missing
            .into_iter()
            .any(|row| row.not_ok > 0 && row.value.is_some())
        {
            notes.push("Some means lack seeds that failed: see the table".to_owned());
        }
        if self
            .task
            .curves
            .iter()
            .any(|curve| curve.first().selected.is_none())
        {
            notes.push("No learning rate could be chosen: all are shown".to_owned());
        }
        let text = format!("{}.", notes.join(". "));
        self.lines(&text, 10.0, y, WIDTH - 20.0, GREY)
    }

    /// Words in lines from `y` on, `room` wide. Returns where they end.
    fn lines(&mut self, words: &str, x: f64, mut y: f64, room: f64, colour: &str) -> f64 {
        for line in wrap(words, characters(room, SIZE)) {
            self.svg.text((x, y), Anchor::Start, &fill(colour), &line);
            y += LINE;
        }
        y
    }
}

/// Known training lengths near the measured ones, and the others.
pub(crate) fn training_lengths(task: &TaskView<'_>) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (shortest, longest) = (task.lengths[0], task.lengths[task.lengths.len() - 1]);
    let near = |length: &u64| *length >= shortest.div_ceil(4) && *length / 4 <= longest;
    let curves = task.curves.iter();
    let trained = curves.filter_map(|curve| curve.first().train_length);
    trained.partition(near)
}

/// Values of the ends of a task's scale: all that accuracies can be, or tenths that hold all losses.
fn scale(task: &TaskView<'_>) -> (f64, f64) {
    if task.kind.is_accuracy() {
        return (0.0, 1.0);
    }
    let points = || task.curves.iter().flat_map(|curve| &curve.points);
    let low = points().filter_map(|row| row.value_low.or(row.value));
    let high = points().filter_map(|row| row.value_high.or(row.value));
    let low = low.fold(f64::INFINITY, f64::min);
    let high = high.fold(f64::NEG_INFINITY, f64::max);
    // So that ticks have one decimal: steps of tenths. A step that is lost in what it is added to leads nowhere.
    let step = ((high - low) / f64::from(TICKS) * 10.0).ceil().max(1.0) / 10.0;
    let step = step.max(high * 1e-9);
    let low = (low / step).floor() * step;
    // As low went down to a tick, the top may lie above the last one: then ticks are farther apart.
    let span = step * f64::from(TICKS);
    (low, low + span * ((high - low) / span).ceil().max(1.0))
}

pub(crate) fn fill(colour: &str) -> String {
    format!(r#"fill="{colour}""#)
}

/// Characters that fit into so many pixels.
pub(crate) fn characters(room: f64, size: f64) -> usize {
    (room / (CHARACTER * size)) as usize
}

/// Pixels that a text takes.
fn width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER * SIZE
}
