//! Numbers and words as tables and plots write them.

use std::collections::BTreeSet;

/// 512, 1K, 16K, 1M; other numbers in full.
pub(crate) fn short_length(length: u64) -> String {
    match length {
        0 => "0".to_owned(),
        _ if length.is_multiple_of(1 << 20) => format!("{}M", length >> 20),
        _ if length.is_multiple_of(1 << 10) => format!("{}K", length >> 10),
        _ => length.to_string(),
    }
}

/// Numbers in words, of many the ends.
pub(crate) fn listed(numbers: &BTreeSet<u64>) -> String {
    let all: Vec<String> = numbers.iter().map(u64::to_string).collect();
    match all.len() {
        0..=8 => all.join(", "),
        count => format!("{} to {} ({count})", all[0], all[count - 1]),
    }
}

/// Text without characters that act on a terminal or that XML cannot hold.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        _ if c.is_control() && c != '\n' => '\u{fffd}',
        _ => c,
    };
    text.chars().map(shown).collect()
}

/// Words in lines of at most `width` characters, set in as they are, the later ones further.
pub(crate) fn paragraph(words: &str, width: usize, text: &mut String) {
    let indent = words.len() - words.trim_start().len();
    let lines = wrap_characters(words.trim_start(), width.saturating_sub(indent + 2));
    for (place, line) in lines.iter().enumerate() {
        let indent = if place == 0 { indent } else { indent + 2 };
        text.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

/// Words in lines of at most so much `room`, by what each character takes of it; a longer word is broken.
pub(crate) fn wrap(words: &str, room: f64, taken: impl Fn(char) -> f64) -> Vec<String> {
    // Sums of shares are not exact.
    let fits = |taken: f64| taken <= room + 1e-6;
    let (mut lines, mut used) = (vec![String::new()], 0.0);
    for word in words.split(' ') {
        let gap = if used > 0.0 { taken(' ') } else { 0.0 };
        let whole: f64 = word.chars().map(&taken).sum();
        if fits(used + gap + whole) {
            let line = lines.last_mut().expect("there is a line");
            if gap > 0.0 {
                line.push(' ');
            }
            line.push_str(word);
            used += gap + whole;
            continue;
        }
        if used > 0.0 {
            lines.push(String::new());
            used = 0.0;
        }
        for character in word.chars() {
            if used > 0.0 && !fits(used + taken(character)) {
                lines.push(String::new());
                used = 0.0;
            }
            lines.last_mut().expect("there is a line").push(character);
            used += taken(character);
        }
    }
    lines
}

/// Words in lines of at most so many characters.
pub(crate) fn wrap_characters(words: &str, width: usize) -> Vec<String> {
    wrap(words, width as f64, |_| 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_never_too_wide_and_lose_nothing() {
        assert_eq!(wrap_characters("one two three", 8), ["one two", "three"]);
        assert_eq!(
            wrap_characters("a abcdefghij", 4),
            ["a", "abcd", "efgh", "ij"]
        );
        assert_eq!(wrap_characters("", 4), [""]);
        assert_eq!(wrap_characters("éé éé", 2), ["éé", "éé"]);
    }

    #[test]
    fn lengths_are_short() {
        let short: Vec<String> = [0, 512, 1000, 1024, 16 << 10, 3 << 20]
            .into_iter()
            .map(short_length)
            .collect();
        assert_eq!(short, ["0", "512", "1000", "1K", "16K", "3M"]);
    }
}
