//! The file of Debian's `bible` (package bible-kjv-text), a King James Bible.

use super::lzw;

/// The books of the file of Debian's `bible` by number and name: verses as lines, without the name of their book. The
/// file has a head, the number of its windows, where each begins and the last ends, and windows by `compress`, each with
/// a table of its own.
pub(super) fn books(file: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    /// Bytes of the head, and of a number.
    const HEAD: usize = 84;
    const NUMBER: usize = 4;
    /// Most bytes of a window's text.
    const WINDOW: usize = 1 << 16;
    if !file.starts_with(b"EC02") {
        return None;
    }
    let number = |index: usize| {
        let four = file.get(HEAD + NUMBER * index..)?.first_chunk()?;
        Some(u32::from_be_bytes(*four) as usize)
    };
    let mut text = Vec::new();
    for window in 0..number(1)? {
        let codes = file.get(number(2 + window)?..number(3 + window)?)?;
        text.extend(lzw::decode(codes, WINDOW)?);
    }
    let text = String::from_utf8(text).ok()?;
    let mut books: Vec<(&str, String)> = Vec::new();
    // The first line is a title.
    for line in text.lines().skip(1) {
        let place = line.split_once(':')?.0;
        let (book, chapter) =
            place.split_at(place.trim_end_matches(|c: char| c.is_ascii_digit()).len());
        if books.last().is_none_or(|(last, _)| *last != book) {
            books.push((book, String::new()));
        }
        let verses = &mut books.last_mut()?.1;
        verses.push_str(chapter);
        verses.push_str(&line[place.len()..]);
        verses.push('\n');
    }
    let named = books.into_iter().enumerate();
    let named = named
        .map(|(number, (book, text))| (format!("{:02}-{book}.txt", number + 1), text.into_bytes()));
    Some(named.collect())
}
