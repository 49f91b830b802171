//! Plain tables and paragraphs for a terminal or a pipe.

/// Width of the lines of files, whose bytes do not depend on a terminal.
pub const OF_FILES: usize = 80;

/// Width of the terminal's lines: `COLUMNS`, or 80; at least 40.
pub fn width() -> usize {
    let columns = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    columns.unwrap_or(80).clamp(40, 200)
}

/// Widest column but for the last.
const WIDEST: usize = 26;

/// Rows in columns; the last column is wrapped at the terminal's width. What is wider than `WIDEST` ends its line, and
/// the row goes on under it.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count.saturating_sub(1))
        .map(|c| {
            rows.iter()
                .filter_map(|row| row.get(c))
                .map(|t| t.chars().count())
                .filter(|&width| width <= WIDEST)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let indent: usize = widths.iter().map(|width| width + 2).sum();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            let before = line.chars().count();
            line.push_str(&format!("{cell:width$}  "));
            if cell.chars().count() > width {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(before + width + 2);
            }
        }
        if let Some(last) = row.get(count - 1) {
            let room = width().saturating_sub(indent).max(24);
            for (index, part) in wrap(last, room).into_iter().enumerate() {
                if index > 0 {
                    text.push_str(line.trim_end());
                    text.push('\n');
                    line = " ".repeat(indent);
                }
                line.push_str(&part);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Lines of at most `width` characters, broken at spaces where there are any, and in longer words after commas.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut put = |part: &str, gap: &str| {
        let line = lines.last_mut().expect("one line");
        let gap = if line.is_empty() { "" } else { gap };
        if line.is_empty() || line.chars().count() + gap.len() + part.chars().count() <= width {
            line.push_str(gap);
            line.push_str(part);
        } else {
            lines.push(part.to_owned());
        }
    };
    for word in text.split_whitespace() {
        if word.chars().count() <= width {
            put(word, " ");
            continue;
        }
        for (index, part) in word.split_inclusive(',').enumerate() {
            put(part, if index == 0 { " " } else { "" });
        }
    }
    lines
}

/// `1 model`, `2 models`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The accuracy of guessing; a loss has none.
pub fn chance(chance: Option<f64>) -> String {
    chance.map_or_else(|| "none".to_owned(), percent)
}

/// A share as people read it: `50.0 %`, with more digits, or an exponent, where it is small.
fn percent(share: f64) -> String {
    let value = 100.0 * share;
    match value {
        0.05.. => format!("{value:.1} %"),
        0.0005.. => format!("{value:.4} %"),
        0.0 => "0 %".to_owned(),
        _ => format!("{value:.1e} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_keep_their_digits() {
        let shares = [0.5, 1.0 / 64.0, 1.0 / 8192.0, 1.0 / 9e6, 0.0];
        let words = shares.map(percent);
        assert_eq!(words, ["50.0 %", "1.6 %", "0.0122 %", "1.1e-5 %", "0 %"]);
    }

    #[test]
    fn words_too_long_are_broken_after_commas() {
        assert_eq!(wrap("a bb,cc,dd,ee f", 8), ["a bb,cc,", "dd,ee f"]);
        assert_eq!(wrap("aa bb,c", 5), ["aa", "bb,c"]);
    }

    #[test]
    fn what_is_too_wide_for_a_column_ends_its_line() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let name = "n".repeat(WIDEST + 1);
        let text = columns(&[row(&["name", "1", "what"]), row(&[&name, "22", "more"])]);
        assert_eq!(text, format!("name  1   what\n{name}\n      22  more\n"));
    }

    #[test]
    fn the_last_column_is_wrapped_under_itself() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let long = "word ".repeat(40);
        let text = columns(&[row(&["name", "what"]), row(&["x", &long])]);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(
            text.lines()
                .nth(2)
                .expect("a wrapped line")
                .starts_with("      word"),
            "{text}"
        );
    }
}
