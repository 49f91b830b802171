//! Accuracy by length of more models than curves can be told apart: a row a model, the best at the longest length first,
//! the lengths across. The same rows give the same bytes.

use crate::drawing::{
    Anchor, BLACK, COLUMN, Drawing, GREY, LINE, PAGE, Place, SIZE, Stroke, lines, width,
};
use crate::figure::{conditions, count_of_seeds, heading, said, training_lengths};
use crate::heat::{HIGH, HIGHEST, WIDE, cell};
use crate::text::short_length;
use crate::view::{CurveView, TaskView};

/// More curves than this are drawn so.
pub(crate) const MOST_CURVES: usize = 12;
/// Least room for a model's name.
const NAME: f64 = 90.0;
/// Between two lists beside each other.
const APART: f64 = 8.0;

/// A task of which nothing but accuracy is shown.
pub(crate) struct Ranked<'a> {
    task: &'a TaskView<'a>,
    /// What stands for each curve, the best first.
    rows: Vec<(String, &'a CurveView<'a>)>,
    /// Width of a cell.
    wide: f64,
}

/// Where the rows stand.
struct Layout {
    whole: f64,
    /// Lists beside each other.
    beside: usize,
}

impl Layout {
    /// Width of a list.
    fn list(&self) -> f64 {
        (self.whole - 4.0 - APART * (self.beside - 1) as f64) / self.beside as f64
    }
}

impl<'a> Ranked<'a> {
    pub fn new(task: &'a TaskView<'a>) -> Self {
        let alike = task.common(|curve| curve.first().learning_rate).is_some();
        // Long names break between options.
        let words = |curve| {
            said(curve, alike, false)
                .replace(',', ", ")
                .replace(",  ", ", ")
        };
        let rows = task.curves.iter().map(|curve| (words(curve), curve));
        let mut rows: Vec<(String, &CurveView<'_>)> = rows.collect();
        let value = |curve: &CurveView<'_>, length: u64| {
            let value = curve.at(length).and_then(|row| row.value);
            value.unwrap_or(f64::NEG_INFINITY)
        };
        rows.sort_by(|(_, one), (_, other)| {
            let lengths = task.lengths.iter().rev();
            lengths
                .map(|&length| value(other, length).total_cmp(&value(one, length)))
                .fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        let heads = task.lengths.iter();
        let heads = heads.map(|&length| width(&short_length(length), SIZE) + 3.0);
        Self {
            task,
            rows,
            wide: heads.fold(WIDE.0, f64::max),
        }
    }

    /// The figure: a column wide, or as a page's text where its names or its height want more.
    pub fn draw(&self) -> Drawing {
        let cells = self.wide * self.task.lengths.len() as f64;
        let layouts = [(COLUMN, 1), (PAGE, 2), (PAGE, 1)];
        let drawn = layouts
            .map(|(whole, beside)| Layout { whole, beside })
            .into_iter()
            .filter(|layout| layout.list() >= cells + NAME)
            .map(|layout| self.arranged(&layout));
        // The first that a page holds, or the lowest.
        let beyond = |drawing: &Drawing| (drawing.height - HIGHEST).max(0.0);
        let best = drawn.min_by(|one, other| beyond(one).total_cmp(&beyond(other)));
        best.unwrap_or_else(|| {
            let whole = cells + NAME + 4.0;
            self.arranged(&Layout { whole, beside: 1 })
        })
    }

    /// The training length, where all have one.
    fn trained(&self) -> Option<u64> {
        let trained = training_lengths(self.task).0;
        trained.first().copied().filter(|_| trained.len() == 1)
    }

    fn arranged(&self, layout: &Layout) -> Drawing {
        let mut drawing = Drawing::new(layout.whole);
        let room = layout.whole - 4.0;
        let top = heading(
            &mut drawing,
            self.task.task,
            &self.task.options.replace(',', ", "),
        );
        let mut words = format!(
            "{} by length in tokens (across), the best at {} first",
            self.task.metric,
            short_length(self.task.lengths[self.task.lengths.len() - 1])
        );
        if let Some(chance) = self.task.chance_words() {
            words.push_str(&format!("; chance {chance}"));
        }
        if let Some(length) = self.trained() {
            words.push_str(&format!(
                "; line: trained at {}, left of it lengths up to that",
                short_length(length)
            ));
        }
        let y = drawing.lines((2.0, top + SIZE), room, GREY, &words) - LINE + 5.0;
        let most = self.rows.len().div_ceil(layout.beside);
        let left = (0..).map(|list| 2.0 + (layout.list() + APART) * f64::from(list));
        let ends = left
            .zip(self.rows.chunks(most))
            .map(|(x, rows)| self.list(&mut drawing, rows, (x, y), layout.list()));
        let end = ends.fold(y, f64::max);
        let seeds = count_of_seeds(self.task.common(CurveView::seeds));
        let mut notes = vec![seeds, "Intervals stand in the tables".to_owned()];
        notes.extend(conditions(self.task));
        let notes = format!("{}.", notes.join(". "));
        let end = drawing.lines((2.0, end + LINE + 2.0), room, GREY, &notes);
        drawing.height = end - LINE + 4.0;
        drawing
    }

    /// Some of the rows under the heads of their columns. Returns where they end.
    fn list(
        &self,
        drawing: &mut Drawing,
        rows: &[(String, &CurveView<'_>)],
        (x, top): Place,
        room: f64,
    ) -> f64 {
        let lengths = &self.task.lengths;
        let left = x + room - self.wide * lengths.len() as f64;
        let column = |place: usize| left + self.wide * place as f64;
        for (place, &length) in lengths.iter().enumerate() {
            let middle = (column(place) + self.wide / 2.0, top + SIZE);
            drawing.text(middle, Anchor::Middle, BLACK, &short_length(length));
        }
        let start = top + LINE + 2.0;
        let mut y = start;
        for (words, curve) in rows {
            let name = lines(words, left - x - 4.0, SIZE);
            for (line, text) in name.iter().enumerate() {
                let place = (x, y + 8.8 + LINE * line as f64);
                drawing.text(place, Anchor::Start, BLACK, text);
            }
            for (place, &length) in lengths.iter().enumerate() {
                if let Some(row) = curve.at(length) {
                    cell(drawing, (column(place), y), self.wide, row, self.task);
                }
            }
            y += HIGH + LINE * name.len().saturating_sub(1) as f64;
        }
        if let Some(length) = self.trained() {
            let inside = lengths.iter().filter(|&&other| other <= length).count();
            let line = vec![(column(inside), start), (column(inside), y)];
            drawing.line(line, Stroke::whole(BLACK, 1.0));
        }
        y
    }
}
