//! A panel: axes, lines for chance and for training lengths, and series of marks, of which none hides another.

use std::collections::BTreeMap;

use crate::axis::Axis;
use crate::drawing::{Anchor, BLACK, Drawing, GREY, LINE, PALE, Place, SIZE, Stroke, lines, width};
use crate::style::Style;

/// Room above and below the scale, so that marks at its ends are whole.
const ROOM: f64 = 7.0;
/// Room for the label of the level's line, right of the panel.
const ASIDE: f64 = 32.0;
/// Widths of a curve's line and of its intervals' bars.
pub(crate) const CURVE: f64 = 0.9;
const BAR: f64 = 0.4;

/// What a panel shows.
#[derive(Debug)]
pub(crate) struct Panel {
    pub title: String,
    pub across: Axis,
    pub up: Axis,
    /// Upright lines with their labels above, as of training lengths.
    pub marked: Vec<(f64, String)>,
    /// A line behind the marks, as of chance.
    pub level: Option<Level>,
    pub spread: Spread,
    pub series: Vec<Series>,
}

/// A line through places (across, up), level before the first and after the last, with its label in two lines.
#[derive(Debug)]
pub(crate) struct Level {
    pub places: Vec<(f64, f64)>,
    pub label: [String; 2],
}

/// How marks that lie on one another are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Series stand side by side at each value across, and above each other where they are equal.
    Columns,
    /// Marks that touch stand side by side.
    Touching,
    /// Not at all.
    Never,
}

/// Marks of one style.
#[derive(Debug)]
pub(crate) struct Series {
    pub name: String,
    pub style: Style,
    /// Whether a line joins the marks.
    pub joined: bool,
    pub marks: Vec<Mark>,
}

/// A value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mark {
    pub across: f64,
    pub up: f64,
    /// Ends of its interval.
    pub ends: Option<(f64, f64)>,
    /// The seeds.
    pub rings: Vec<f64>,
    /// Whether it has no marker: a point of a line alone.
    pub bare: bool,
}

/// Where a panel's scales are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Panel {
    /// How much stands above the scales of a panel of this width.
    pub fn head(&self, width: f64) -> f64 {
        let title = if self.title.is_empty() {
            0
        } else {
            lines(&self.title, width - 2.0, SIZE).len()
        };
        LINE * (title + self.marked.len()) as f64 + 3.0
    }

    /// Draws it from a corner on, in so much width, with so much above its scales and scales so high. Returns where
    /// it ends.
    pub fn draw(
        &self,
        drawing: &mut Drawing,
        (left, top): Place,
        wide: f64,
        head: f64,
        high: f64,
    ) -> f64 {
        let aside = if self.level.is_some() { ASIDE } else { 8.0 };
        let frame = Frame {
            left: left + LINE + 4.0 + self.up.label_width() + 4.0,
            right: left + wide - aside,
            top: top + head,
            bottom: top + head + high,
        };
        if !self.title.is_empty() {
            drawing.lines((left + 2.0, top + SIZE), wide - 2.0, BLACK, &self.title);
        }
        self.scales(drawing, frame, left);
        self.lines(drawing, frame, (left, left + wide));
        let places = self.places(frame);
        for (series, places) in self.series.iter().zip(&places) {
            self.series(drawing, frame, series, places);
        }
        // Markers last: no line or bar covers one.
        for (series, places) in self.series.iter().zip(&places) {
            for (mark, &place) in series.marks.iter().zip(places) {
                if !mark.bare {
                    series.style.mark(drawing, place);
                }
            }
        }
        frame.bottom + 11.0 + LINE + 3.0
    }

    fn x(&self, frame: Frame, value: f64) -> f64 {
        let aside = if self.spread == Spread::Never {
            0.0
        } else {
            0.1 * (frame.right - frame.left)
        };
        let (left, right) = (frame.left + aside, frame.right - aside);
        left + self.across.share(value) * (right - left)
    }

    fn y(&self, frame: Frame, value: f64) -> f64 {
        let (top, bottom) = (frame.top + ROOM, frame.bottom - ROOM);
        bottom - self.up.share(value) * (bottom - top)
    }

    fn scales(&self, drawing: &mut Drawing, frame: Frame, left: f64) {
        let Frame {
            left: start,
            right,
            top,
            bottom,
        } = frame;
        for (value, label) in &self.up.ticks {
            let y = self.y(frame, *value);
            drawing.line(vec![(start, y), (right, y)], Stroke::whole(PALE, 0.5));
            drawing.text((start - 4.0, y + 2.8), Anchor::End, BLACK, label);
        }
        let line = Stroke::whole(BLACK, 0.5);
        drawing.line(
            vec![(start, top), (start, bottom), (right, bottom)],
            line.clone(),
        );
        let mut free = f64::NEG_INFINITY;
        for (value, label) in &self.across.ticks {
            let x = self.x(frame, *value);
            drawing.line(vec![(x, bottom), (x, bottom + 2.5)], line.clone());
            let half = width(label, SIZE) / 2.0;
            if x - half >= free {
                drawing.text((x, bottom + 11.0), Anchor::Middle, BLACK, label);
                free = x + half + 3.0;
            }
        }
        let middle = ((start + right) / 2.0, bottom + 11.0 + LINE);
        drawing.text(middle, Anchor::Middle, BLACK, &self.across.words);
        drawing.turned((left + SIZE + 1.5, (top + bottom) / 2.0), &self.up.words);
    }

    /// Lines of the training lengths, and of chance, with their labels; `ends` is what these may fill.
    fn lines(&self, drawing: &mut Drawing, frame: Frame, ends: (f64, f64)) {
        let rows = self.marked.len();
        for (row, (value, label)) in self.marked.iter().enumerate() {
            let x = self.x(frame, *value);
            let dashes = Stroke::dashed(GREY, 0.6, &[2.5, 1.5]);
            drawing.line(vec![(x, frame.top), (x, frame.bottom)], dashes);
            let half = width(label, SIZE) / 2.0;
            let middle = x.max(ends.0 + half).min(ends.1 - half);
            let y = frame.top - 3.0 - LINE * (rows - 1 - row) as f64;
            drawing.text((middle, y), Anchor::Middle, GREY, label);
        }
        if let Some(Level { places, label }) = &self.level
            && let (Some(first), Some(last)) = (places.first(), places.last())
        {
            let y = self.y(frame, last.1);
            let dots = Stroke::dashed(GREY, 0.6, &[0.6, 1.4]);
            let mut line = vec![(frame.left, self.y(frame, first.1))];
            if places.len() > 1 {
                let inner = places.iter();
                line.extend(inner.map(|&(x, y)| (self.x(frame, x), self.y(frame, y))));
            }
            line.push((frame.right, y));
            drawing.line(line, dots);
            for (row, word) in label.iter().enumerate() {
                let place = (frame.right + 3.0, y - 1.5 + (LINE - 1.0) * row as f64);
                drawing.text(place, Anchor::Start, GREY, word);
            }
        }
    }

    /// Where each mark is drawn.
    fn places(&self, frame: Frame) -> Vec<Vec<Place>> {
        let place = |mark: &Mark| (self.x(frame, mark.across), self.y(frame, mark.up));
        let of_series = |series: &Series| series.marks.iter().map(place).collect();
        let mut places: Vec<Vec<Place>> = self.series.iter().map(of_series).collect();
        match self.spread {
            Spread::Columns => self.columns(frame, &mut places),
            Spread::Touching => self.side_by_side(&mut places),
            Spread::Never => {}
        }
        places
    }

    /// Series side by side at each value across; of values that coincide each a little above the one before.
    fn columns(&self, frame: Frame, places: &mut [Vec<Place>]) {
        let ticks: Vec<f64> = self
            .across
            .ticks
            .iter()
            .map(|tick| self.x(frame, tick.0))
            .collect();
        let gaps = ticks.windows(2).map(|pair| pair[1] - pair[0]);
        let gap = gaps.fold((frame.right - frame.left) / 3.0, f64::min);
        let count = places.len() as f64;
        let aside = (0.55 * gap / count).min(3.7);
        let mut columns: BTreeMap<u64, Vec<&mut f64>> = BTreeMap::new();
        for (index, (series, places)) in self.series.iter().zip(places).enumerate() {
            let shift = (index as f64 - (count - 1.0) / 2.0) * aside;
            for (mark, place) in series.marks.iter().zip(places) {
                place.0 += shift;
                columns
                    .entry(mark.across.to_bits())
                    .or_default()
                    .push(&mut place.1);
            }
        }
        for mut column in columns.into_values() {
            column.sort_by(|one, other| one.total_cmp(other));
            for heap in column.chunk_by_mut(|one, other| **other - **one < 0.9) {
                let last = heap.len() as f64 - 1.0;
                let step = (2.0 * ROOM - 4.2).min(1.2 * last) / last.max(1.0);
                for (rank, y) in heap.iter_mut().enumerate() {
                    **y += (rank as f64 - last / 2.0) * step;
                }
            }
        }
    }

    /// Moves marks that touch to stand side by side.
    fn side_by_side(&self, places: &mut [Vec<Place>]) {
        const APART: f64 = 4.4;
        let mut heaps: BTreeMap<(i64, i64), Vec<&mut f64>> = BTreeMap::new();
        for (series, places) in self.series.iter().zip(places) {
            for (mark, (x, y)) in series.marks.iter().zip(places) {
                let cell = |place: f64| (place / APART).round() as i64;
                if !mark.bare {
                    heaps.entry((cell(*x), cell(*y))).or_default().push(x);
                }
            }
        }
        for heap in heaps.into_values() {
            let last = heap.len() as f64 - 1.0;
            for (rank, x) in heap.into_iter().enumerate() {
                *x += (rank as f64 - last / 2.0) * APART;
            }
        }
    }

    /// Lines, bars and rings of a series.
    fn series(&self, drawing: &mut Drawing, frame: Frame, series: &Series, places: &[Place]) {
        if series.joined {
            drawing.line(places.to_vec(), series.style.stroke(CURVE));
        }
        let thin = Stroke::whole(series.style.colour, BAR);
        for (mark, &(x, y)) in series.marks.iter().zip(places) {
            // The bar and the seeds move with their marker.
            let at = |value: f64| y + self.y(frame, value) - self.y(frame, mark.up);
            if let Some((low, high)) = mark.ends {
                drawing.line(vec![(x, at(low)), (x, at(high))], thin.clone());
                for end in [at(low), at(high)] {
                    drawing.line(vec![(x - 1.2, end), (x + 1.2, end)], thin.clone());
                }
            }
            for &ring in &mark.rings {
                let path = "M-0.8 0C-0.8 -0.44 -0.44 -0.8 0 -0.8C0.44 -0.8 0.8 -0.44 0.8 0C0.8 0.44 0.44 0.8 0 0.8C-0.44 0.8 -0.8 0.44 -0.8 0Z";
                drawing.outline(
                    (x, at(ring)),
                    1.0,
                    path,
                    Some("#ffffff"),
                    Some(thin.clone()),
                );
            }
        }
    }
}

/// A sample of each series with what it is, in as many columns as there is room for. Returns where they end.
pub(crate) fn legend(
    drawing: &mut Drawing,
    entries: &[(Style, String)],
    (left, top): Place,
    room: f64,
) -> f64 {
    const SAMPLE: f64 = 30.0;
    const GAP: f64 = 8.0;
    let widest = entries
        .iter()
        .map(|(_, words)| width(words, SIZE) + SAMPLE + GAP);
    let widest = widest.fold(1.0, f64::max).min(room + GAP);
    let columns = (((room + GAP) / widest) as usize).clamp(1, entries.len().max(1));
    let (wide, mut y) = ((room + GAP) / columns as f64, top);
    for row in entries.chunks(columns) {
        let mut end = y;
        for (column, (style, words)) in row.iter().enumerate() {
            let x = left + wide * column as f64;
            let middle = y - 2.7;
            drawing.line(
                vec![(x, middle), (x + SAMPLE - 5.0, middle)],
                style.stroke(CURVE),
            );
            style.mark(drawing, (x + (SAMPLE - 5.0) / 2.0, middle));
            end = end.max(drawing.lines((x + SAMPLE, y), wide - SAMPLE - GAP, BLACK, words));
        }
        y = end;
    }
    y
}
