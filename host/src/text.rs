//! Words of others on their way into this program: what a plugin or a worker says is bounded and holds no
//! character that a terminal, a CSV file or an SVG would obey. Done once, where the words come in.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

/// Most characters of a name or a line.
const LINE: usize = 400;
/// Most characters of a text of several lines, such as a compiler's message or a citation.
const BLOCK: usize = 16_000;

/// One line of at most 400 characters: white space is one space, and what cannot be seen is written as its
/// number.
pub fn line(words: &str) -> String {
    let mut shown = String::new();
    let mut left = LINE;
    for (index, word) in words.split_whitespace().enumerate() {
        let before = if index > 0 { " " } else { "" };
        if !push(&mut shown, before, &mut left) || !push(&mut shown, word, &mut left) {
            break;
        }
    }
    shown
}

/// At most 16,000 characters on lines of their own: only ends of lines and tabs are left of the characters that
/// cannot be seen.
pub fn block(words: &str) -> String {
    let mut shown = String::new();
    let mut left = BLOCK;
    push(&mut shown, words, &mut left);
    shown
}

/// All of a text on lines of its own, as [`block`] has it: for what this program prints, in which the words of
/// others may stand.
pub fn visible(words: &str) -> String {
    let (mut shown, mut left) = (String::new(), usize::MAX);
    push(&mut shown, words, &mut left);
    shown
}

/// Whether a character on a line does not show itself.
pub fn is_unseen(c: char) -> bool {
    matches!(c, '\n' | '\t') || !is_plain(c)
}

/// Appends words as they may be shown; `false` where they were cut.
fn push(shown: &mut String, words: &str, left: &mut usize) -> bool {
    for c in words.chars() {
        if *left == 0 {
            shown.push_str("...");
            return false;
        }
        *left -= 1;
        if is_plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    true
}

/// Whether a character shows itself and nothing else. Those that turn the direction of text are among the
/// others, as they make a line read as what it is not.
fn is_plain(c: char) -> bool {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    matches!(c, '\n' | '\t') || !(c.is_control() || turns)
}

/// [`line()`] for a field that is read.
///
/// # Errors
/// The reader's.
pub fn as_line<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(line(&Cow::<str>::deserialize(from)?))
}

/// [`block`] for a field that is read.
///
/// # Errors
/// The reader's.
pub fn as_block<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(block(&Cow::<str>::deserialize(from)?))
}

/// [`line()`] for each entry of a field that is read.
///
/// # Errors
/// The reader's.
pub fn as_lines<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let lines = Vec::<String>::deserialize(from)?;
    Ok(lines.iter().map(|words| line(words)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(line(" a\n  b\tc "), "a b c");
        assert_eq!(line("\u{1b}[2J\u{7}x\0"), r"\u{1b}[2J\u{7}x\u{0}");
        assert_eq!(line("\u{9b}31m\u{202e}"), r"\u{9b}31m\u{202e}");
        assert_eq!(line("é 漢 µ"), "é 漢 µ");
        assert_eq!(block("a\n\tb\r\u{1b}"), "a\n\tb\\u{d}\\u{1b}");
        assert_eq!(visible("a\nb\u{1b}[2J"), "a\nb\\u{1b}[2J");
    }

    #[test]
    fn it_is_bounded() {
        let long = line(&"é".repeat(1 << 20));
        assert_eq!(long.chars().count(), LINE + 3);
        assert!(long.ends_with("é..."));
        assert_eq!(block(&"x".repeat(BLOCK)).len(), BLOCK);
        assert_eq!(block(&"x".repeat(1 << 20)).len(), BLOCK + 3);
        assert!(line(&"a ".repeat(1 << 20)).len() <= LINE + 4);
    }

    #[test]
    fn fields_are_cleaned_as_they_are_read() {
        #[derive(Deserialize)]
        struct Said {
            #[serde(deserialize_with = "as_line")]
            name: String,
            #[serde(deserialize_with = "as_lines")]
            notes: Vec<String>,
        }
        let said = r#"{"name": "\u001b[1m", "notes": ["a\nb", "\u0000"]}"#;
        let said: Said = serde_json::from_str(said).unwrap();
        assert_eq!(said.name, r"\u{1b}[1m");
        assert_eq!(said.notes, ["a b", r"\u{0}"]);
    }
}
