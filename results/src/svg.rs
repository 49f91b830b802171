//! A drawing as SVG, with everything escaped that a name may hold.

use std::fmt::Write;

use crate::drawing::{Anchor, BLACK, Drawing, Item, SIZE, Stroke};
use crate::text::printable;

/// Fonts whose characters are as wide as the layout takes them, then any.
const FONTS: &str = "Arial, Helvetica, Liberation Sans, Arimo, sans-serif";

/// The whole file. Its size is in points, so that it prints as large as it was laid out.
pub(crate) fn svg(drawing: &Drawing) -> String {
    let (width, height) = (number(drawing.width), number(drawing.height));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}pt\" height=\"{height}pt\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"{FONTS}\" font-size=\"{SIZE}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for item in &drawing.items {
        put(&mut text, item);
    }
    text.push_str("</svg>\n");
    text
}

fn put(out: &mut String, item: &Item) {
    let written = match item {
        Item::Line { points, stroke } => {
            let places = points
                .iter()
                .map(|(x, y)| format!("{},{}", number(*x), number(*y)));
            let places: Vec<String> = places.collect();
            let (places, stroke) = (places.join(" "), attributes(stroke));
            writeln!(out, r#"<polyline points="{places}" fill="none" {stroke}/>"#)
        }
        Item::Outline {
            place: (x, y),
            scale,
            path,
            fill,
            stroke,
        } => {
            let fill = fill.as_deref().unwrap_or("none");
            let stroke = stroke.as_ref().map(attributes);
            let stroke = stroke
                .map(|stroke| format!(" {stroke}"))
                .unwrap_or_default();
            let (x, y) = (number(*x), number(*y));
            let scale = if *scale == 1.0 {
                String::new()
            } else {
                format!(" scale({})", number(*scale))
            };
            writeln!(
                out,
                r#"<path transform="translate({x} {y}){scale}" d="{path}" fill="{fill}"{stroke}/>"#
            )
        }
        Item::Text {
            place: (x, y),
            anchor,
            size,
            colour,
            turned,
            text,
        } => {
            let (x, y) = (number(*x), number(*y));
            let mut more = String::new();
            if let Some(anchor) = match anchor {
                Anchor::Start => None,
                Anchor::Middle => Some("middle"),
                Anchor::End => Some("end"),
            } {
                let _ = write!(more, r#" text-anchor="{anchor}""#);
            }
            if *size != SIZE {
                let _ = write!(more, r#" font-size="{}""#, number(*size));
            }
            if colour != BLACK {
                let _ = write!(more, r#" fill="{colour}""#);
            }
            if *turned {
                let _ = write!(more, r#" transform="rotate(-90 {x} {y})""#);
            }
            writeln!(
                out,
                r#"<text x="{x}" y="{y}"{more}>{}</text>"#,
                escape(text)
            )
        }
    };
    written.expect("a text takes everything");
}

/// Attributes of a line.
fn attributes(stroke: &Stroke) -> String {
    let mut text = format!(
        r#"stroke="{}" stroke-width="{}""#,
        stroke.colour,
        number(stroke.width)
    );
    if !stroke.dashes.is_empty() {
        let dashes: Vec<String> = stroke.dashes.iter().map(|&dash| number(dash)).collect();
        let _ = write!(text, r#" stroke-dasharray="{}""#, dashes.join(" "));
    }
    text
}

/// To a hundredth, in as few characters.
fn number(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    // Not -0.
    format!("{}", rounded + 0.0)
}

/// Text as XML has it.
fn escape(text: &str) -> String {
    let text = printable(text).replace('&', "&amp;");
    text.replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
