//! The one font of all figures: a part of Arimo (font/README.md), whose characters are as wide as those of Arial,
//! Helvetica and Liberation Sans. So a figure is laid out alike on every machine, an SVG viewer that has any of
//! these shows it as laid out, and a PDF holds the font itself.

use std::sync::LazyLock;

use ttf_parser::{Face, GlyphId};

/// The file.
pub(crate) const FILE: &[u8] = include_bytes!("font/arimo.ttf");

/// The file as it is read.
pub(crate) static FACE: LazyLock<Face<'static>> =
    LazyLock::new(|| Face::parse(FILE, 0).expect("the font in this folder is one"));

/// The character itself, or U+FFFD where the font has no glyph for it.
pub(crate) fn drawn(character: char) -> char {
    match FACE.glyph_index(character) {
        Some(_) => character,
        None => char::REPLACEMENT_CHARACTER,
    }
}

/// The glyph that a character is drawn as.
pub(crate) fn glyph(character: char) -> GlyphId {
    FACE.glyph_index(drawn(character)).unwrap_or_default()
}

/// How far a character goes, as share of the type size.
pub(crate) fn advance(character: char) -> f64 {
    share(glyph(character))
}

/// How far a glyph goes, as share of the type size.
pub(crate) fn share(glyph: GlyphId) -> f64 {
    let units = FACE.glyph_hor_advance(glyph).unwrap_or(0);
    f64::from(units) / f64::from(FACE.units_per_em())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_what_names_and_axes_are_written_with() {
        let signs = "≥≤−×±…–µéßñłαβθДя".chars();
        for character in (' '..='~').chain(signs) {
            assert_eq!(drawn(character), character);
            assert!((0.1..1.2).contains(&advance(character)), "{character}");
        }
        assert_eq!(drawn('中'), '\u{fffd}');
        assert_ne!(glyph('中'), GlyphId(0));
        // Arial's widths.
        assert_eq!(
            ["a", "W", "1"].map(|text| (1000.0 * crate::drawing::width(text, 1.0)).round()),
            [556.0, 944.0, 556.0]
        );
    }
}
