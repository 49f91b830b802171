//! A figure's lines, outlines and texts, whatever it is written as: SVG (`svg.rs`) or PDF (`pdf.rs`). All sizes
//! are points, 1/72 inch, from the upper left, so that a figure that is included at its own size has type of
//! [`SIZE`] in print.

use crate::font;
use crate::text::wrap;

/// Type size of everything but titles.
pub(crate) const SIZE: f64 = 8.0;
/// From a base line to the next.
pub(crate) const LINE: f64 = 9.8;
/// Widths of a column, 84 mm, and of the text of a page, 174 mm.
pub(crate) const COLUMN: f64 = 84.0 / 25.4 * 72.0;
pub(crate) const PAGE: f64 = 174.0 / 25.4 * 72.0;

pub(crate) const BLACK: &str = "#000000";
/// Of what is said beside: it stands out from white by 6.3 to 1.
pub(crate) const GREY: &str = "#606060";
/// Of the lines behind curves.
pub(crate) const PALE: &str = "#e4e4e4";

/// A place: from the left, and from above.
pub(crate) type Place = (f64, f64);

/// Where a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a line is drawn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stroke {
    /// `#rrggbb`.
    pub colour: String,
    pub width: f64,
    /// Lengths of dashes and gaps; of a whole line none.
    pub dashes: Vec<f64>,
}

impl Stroke {
    /// A whole line.
    pub fn whole(colour: &str, width: f64) -> Self {
        Self {
            colour: colour.to_owned(),
            width,
            dashes: Vec::new(),
        }
    }

    /// A line of dashes and gaps.
    pub fn dashed(colour: &str, width: f64, dashes: &[f64]) -> Self {
        Self {
            dashes: dashes.to_vec(),
            ..Self::whole(colour, width)
        }
    }
}

/// A part of a drawing.
#[derive(Debug)]
pub(crate) enum Item {
    /// A line through points.
    Line { points: Vec<Place>, stroke: Stroke },
    /// An outline around a place, scaled: a path as in SVG, of M, L, H, V, C and Z.
    Outline {
        place: Place,
        scale: f64,
        path: String,
        fill: Option<String>,
        stroke: Option<Stroke>,
    },
    /// A text whose base line is at its place; `turned` reads from below.
    Text {
        place: Place,
        anchor: Anchor,
        size: f64,
        colour: String,
        turned: bool,
        text: String,
    },
}

/// A drawing that grows.
#[derive(Debug, Default)]
pub(crate) struct Drawing {
    pub width: f64,
    pub height: f64,
    pub items: Vec<Item>,
}

impl Drawing {
    /// An empty one, so wide; its height is set when it is known.
    pub fn new(width: f64) -> Self {
        Self {
            width,
            ..Self::default()
        }
    }

    /// A line through points.
    pub fn line(&mut self, points: Vec<Place>, stroke: Stroke) {
        if !points.is_empty() {
            self.items.push(Item::Line { points, stroke });
        }
    }

    /// An outline around a place.
    pub fn outline(
        &mut self,
        place: Place,
        scale: f64,
        path: &str,
        fill: Option<&str>,
        stroke: Option<Stroke>,
    ) {
        self.items.push(Item::Outline {
            place,
            scale,
            path: path.to_owned(),
            fill: fill.map(str::to_owned),
            stroke,
        });
    }

    /// A line of text.
    pub fn text(&mut self, place: Place, anchor: Anchor, colour: &str, text: &str) {
        self.sized(place, anchor, SIZE, colour, text);
    }

    /// A line of text of another size.
    pub fn sized(&mut self, place: Place, anchor: Anchor, size: f64, colour: &str, text: &str) {
        self.items.push(Item::Text {
            place,
            anchor,
            size,
            colour: colour.to_owned(),
            turned: false,
            text: text.to_owned(),
        });
    }

    /// A text that reads from below, its middle at the place.
    pub fn turned(&mut self, place: Place, text: &str) {
        self.items.push(Item::Text {
            place,
            anchor: Anchor::Middle,
            size: SIZE,
            colour: BLACK.to_owned(),
            turned: true,
            text: text.to_owned(),
        });
    }

    /// Words in lines at most `room` wide. Returns the base line that would be next.
    pub fn lines(&mut self, (x, mut y): Place, room: f64, colour: &str, words: &str) -> f64 {
        for line in lines(words, room, SIZE) {
            self.text((x, y), Anchor::Start, colour, &line);
            y += LINE;
        }
        y
    }
}

/// Words in lines at most `room` wide.
pub(crate) fn lines(words: &str, room: f64, size: f64) -> Vec<String> {
    wrap(words, room, |character| font::advance(character) * size)
}

/// How wide a text is.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(font::advance).sum::<f64>() * size
}
