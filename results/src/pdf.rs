//! A drawing as PDF: a page as large as the figure, lines as lines, texts as text in the figure's font, which the
//! file holds. Nothing in it is of the day or the machine: the same drawing gives the same bytes.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str};

use crate::drawing::{Anchor, Drawing, Item, Stroke, width};
use crate::font;
use crate::text::printable;

/// What the page calls its font, and what the font is called.
const FONT: Name<'static> = Name(b"F");
const FONT_NAME: Name<'static> = Name(b"Arimo");
const SYSTEM: SystemInfo<'static> = SystemInfo {
    registry: Str(b"Adobe"),
    ordering: Str(b"Identity"),
    supplement: 0,
};

/// The whole file.
pub(crate) fn pdf(drawing: &Drawing) -> Vec<u8> {
    let [catalog, pages, page, content, font] = [1, 2, 3, 4, 5].map(Ref::new);
    let size = Rect::new(0.0, 0.0, single(drawing.width), single(drawing.height));
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    let mut on_page = pdf.page(page);
    on_page.parent(pages).media_box(size).contents(content);
    on_page.resources().fonts().pair(FONT, font);
    on_page.finish();
    let mut used = BTreeMap::new();
    let data = deflated(&contents(drawing, &mut used));
    pdf.stream(content, &data).filter(Filter::FlateDecode);
    embed(&mut pdf, font, &used);
    pdf.finish()
}

/// What is drawn. Characters that are used, by their glyphs, go into `used`.
fn contents(drawing: &Drawing, used: &mut BTreeMap<u16, char>) -> Vec<u8> {
    let mut content = Content::new();
    // From above, as everything is laid out.
    content.transform([1.0, 0.0, 0.0, -1.0, 0.0, single(drawing.height)]);
    for item in &drawing.items {
        match item {
            Item::Line { points, stroke } => {
                set(&mut content, stroke);
                for (place, &(x, y)) in points.iter().enumerate() {
                    let (x, y) = (single(x), single(y));
                    match place {
                        0 => content.move_to(x, y),
                        _ => content.line_to(x, y),
                    };
                }
                content.stroke();
            }
            Item::Outline {
                place,
                scale,
                path,
                fill,
                stroke,
            } => {
                if let Some(colour) = fill {
                    let [red, green, blue] = channels(colour);
                    content.set_fill_rgb(red, green, blue);
                }
                if let Some(stroke) = stroke {
                    let width = stroke.width * scale;
                    set(
                        &mut content,
                        &Stroke {
                            width,
                            ..stroke.clone()
                        },
                    );
                }
                trace(&mut content, *place, *scale, path);
                match (fill, stroke) {
                    (Some(_), Some(_)) => content.fill_nonzero_and_stroke(),
                    (Some(_), None) => content.fill_nonzero(),
                    (None, Some(_)) => content.stroke(),
                    (None, None) => content.end_path(),
                };
            }
            Item::Text {
                place,
                anchor,
                size,
                colour,
                turned,
                text,
            } => {
                let text = printable(text);
                let [red, green, blue] = channels(colour);
                let back = match anchor {
                    Anchor::Start => 0.0,
                    Anchor::Middle => width(&text, *size) / 2.0,
                    Anchor::End => width(&text, *size),
                };
                let (x, y) = *place;
                let matrix = match turned {
                    false => [1.0, 0.0, 0.0, -1.0, single(x - back), single(y)],
                    true => [0.0, -1.0, -1.0, 0.0, single(x), single(y + back)],
                };
                let mut glyphs = Vec::new();
                for character in text.chars() {
                    let character = font::drawn(character);
                    let glyph = font::glyph(character).0;
                    used.entry(glyph).or_insert(character);
                    glyphs.extend(glyph.to_be_bytes());
                }
                content.set_fill_rgb(red, green, blue);
                content.begin_text().set_font(FONT, single(*size));
                content
                    .set_text_matrix(matrix)
                    .show(Str(&glyphs))
                    .end_text();
            }
        }
    }
    content.finish().into_vec()
}

fn set(content: &mut Content, stroke: &Stroke) {
    let [red, green, blue] = channels(&stroke.colour);
    content.set_stroke_rgb(red, green, blue);
    content.set_line_width(single(stroke.width));
    content.set_dash_pattern(stroke.dashes.iter().map(|&dash| single(dash)), 0.0);
}

/// An outline as its path goes: M, L, H, V, C and Z, each with its own numbers.
fn trace(content: &mut Content, (left, top): (f64, f64), scale: f64, path: &str) {
    let mut at = (0.0, 0.0);
    let starts: Vec<usize> = path
        .match_indices(|c: char| c.is_ascii_alphabetic())
        .map(|(place, _)| place)
        .collect();
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(path.len());
        let numbers: Vec<f64> = path[start + 1..end]
            .split_whitespace()
            .map(|number| number.parse().expect("our own paths hold numbers"))
            .collect();
        let place = |(x, y): (f64, f64)| (single(left + scale * x), single(top + scale * y));
        let to = match (&path[start..=start], &numbers[..]) {
            ("M" | "L", &[x, y]) => (x, y),
            ("H", &[x]) => (x, at.1),
            ("V", &[y]) => (at.0, y),
            ("C", &[x1, y1, x2, y2, x, y]) => {
                let ((x1, y1), (x2, y2), (x3, y3)) =
                    (place((x1, y1)), place((x2, y2)), place((x, y)));
                content.cubic_to(x1, y1, x2, y2, x3, y3);
                at = (x, y);
                continue;
            }
            ("Z", []) => {
                content.close_path();
                continue;
            }
            (other, _) => unreachable!("our own paths have no {other} so"),
        };
        let (x, y) = place(to);
        match &path[start..=start] {
            "M" => content.move_to(x, y),
            _ => content.line_to(x, y),
        };
        at = to;
    }
}

/// The font with what a reader needs to draw and to copy the used characters.
fn embed(pdf: &mut Pdf, id: Ref, used: &BTreeMap<u16, char>) {
    let [cid, descriptor, file, unicode] = [6, 7, 8, 9].map(Ref::new);
    let face = &*font::FACE;
    let thousandths = |units: i16| f32::from(units) * 1000.0 / f32::from(face.units_per_em());
    pdf.type0_font(id)
        .base_font(FONT_NAME)
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(cid)
        .to_unicode(unicode);
    let mut cid_font = pdf.cid_font(cid);
    cid_font
        .subtype(CidFontType::Type2)
        .base_font(FONT_NAME)
        .system_info(SYSTEM)
        .font_descriptor(descriptor)
        .cid_to_gid_map_predefined(Name(b"Identity"));
    let mut widths = cid_font.widths();
    for &glyph in used.keys() {
        let share = font::share(ttf_parser::GlyphId(glyph));
        widths.consecutive(glyph, [single(1000.0 * share)]);
    }
    widths.finish();
    cid_font.finish();
    let bounds = face.global_bounding_box();
    let [left, bottom, right, top] =
        [bounds.x_min, bounds.y_min, bounds.x_max, bounds.y_max].map(thousandths);
    pdf.font_descriptor(descriptor)
        .name(FONT_NAME)
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(left, bottom, right, top))
        .italic_angle(0.0)
        .ascent(thousandths(face.ascender()))
        .descent(thousandths(face.descender()))
        .cap_height(thousandths(
            face.capital_height().unwrap_or(face.ascender()),
        ))
        .stem_v(80.0)
        .font_file2(file);
    let data = deflated(font::FILE);
    let length = i32::try_from(font::FILE.len()).expect("a small file");
    let mut stream = pdf.stream(file, &data);
    stream.filter(Filter::FlateDecode);
    stream.pair(Name(b"Length1"), length);
    stream.finish();
    let mut characters = UnicodeCmap::<u16>::new(Name(b"Custom"), SYSTEM);
    for (&glyph, &character) in used {
        characters.pair(glyph, character);
    }
    pdf.cmap(unicode, &characters.finish());
}

/// `#rrggbb` as shares.
fn channels(colour: &str) -> [f32; 3] {
    [1, 3, 5].map(|start| {
        let channel = colour.get(start..start + 2);
        let channel = channel.and_then(|channel| u8::from_str_radix(channel, 16).ok());
        f32::from(channel.expect("our own colours have six digits")) / 255.0
    })
}

/// To a hundredth, as PDF has numbers.
fn single(value: f64) -> f32 {
    ((value * 100.0).round() / 100.0) as f32
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}
