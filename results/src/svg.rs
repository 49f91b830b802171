//! A little SVG: lines, outlines and texts, with everything escaped that a name may hold.

use std::fmt::Write;

use crate::text::printable;

/// Where a text stands at its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that grows. Coordinates are pixels from the upper left.
#[derive(Debug, Default)]
pub(crate) struct Svg {
    body: String,
}

impl Svg {
    /// A line through points; `style` holds attributes.
    pub fn line(&mut self, points: &[(f64, f64)], style: &str) {
        if points.is_empty() {
            return;
        }
        let places: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.2},{y:.2}"))
            .collect();
        let places = places.join(" ");
        let _ = writeln!(
            self.body,
            r#"<polyline points="{places}" fill="none" {style}/>"#
        );
    }

    /// An outline around a place.
    pub fn outline(&mut self, (x, y): (f64, f64), path: &str, style: &str) {
        let place = format!("translate({x:.2} {y:.2})");
        let _ = writeln!(
            self.body,
            r#"<path transform="{place}" d="{path}" {style}/>"#
        );
    }

    /// A text whose base line is at `y`.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, style: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.2}" y="{y:.2}" text-anchor="{anchor}" {style}>{text}</text>"#
        );
    }

    /// The whole file.
    pub fn finish(self, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"Helvetica, Arial, sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// Text as XML has it.
fn escape(text: &str) -> String {
    let text = printable(text).replace('&', "&amp;");
    text.replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
