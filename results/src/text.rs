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

/// Words in lines of at most `width` characters; a longer word is broken.
pub(crate) fn wrap(words: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().expect("there is a line");
            let used = line.chars().count();
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= width {
                line.extend([' '].iter().take(gap));
                line.extend(&word);
                break;
            }
            if used == 0 {
                line.extend(word.drain(..width));
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_never_too_wide_and_lose_nothing() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("a abcdefghij", 4), ["a", "abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("éé éé", 2), ["éé", "éé"]);
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
