//! RULER's scores of a generated answer (`scripts/eval/evaluate.py` and `scripts/eval/synthetic/constants.py`).

use crate::task::Metric;

/// An answer as it is scored: without white space at its ends, and with control characters as ends of lines.
pub fn postprocess(answer: &str) -> String {
    let printable = |c: char| if c < ' ' { '\n' } else { c };
    let lines: String = answer.trim().chars().map(printable).collect();
    lines.trim().to_owned()
}

/// Whether nothing was answered.
pub fn is_null(answer: &str) -> bool {
    postprocess(answer).is_empty()
}

/// The references that stand in an answer, in any case of letters.
///
/// The share of them that was found, 0 to 1 ([`Metric::StringMatchAll`]), or 1 where any was
/// ([`Metric::StringMatchPart`]). Without references it is 0.
///
/// # Panics
/// For another metric.
pub fn score(metric: Metric, answer: &str, references: &[String]) -> f64 {
    let answer = postprocess(answer).to_lowercase();
    let found = |reference: &&String| answer.contains(&reference.to_lowercase());
    let found = references.iter().filter(found).count();
    match metric {
        Metric::StringMatchAll => found as f64 / references.len().max(1) as f64,
        Metric::StringMatchPart => f64::from(u8::from(found > 0)),
        other => panic!("{} is no score of a text", other.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn all_is_a_share_and_part_is_the_best() {
        let wanted = references(&["Alpha", "beta", "7"]);
        let both = |answer: &str| {
            [Metric::StringMatchAll, Metric::StringMatchPart]
                .map(|metric| score(metric, answer, &wanted))
        };
        assert_eq!(both("alphaBETA 17"), [1.0, 1.0]);
        assert_eq!(both("the ALPHA"), [1.0 / 3.0, 1.0]);
        assert_eq!(both("gamma"), [0.0, 0.0]);
        assert_eq!(both(""), [0.0, 0.0]);
        assert_eq!(score(Metric::StringMatchAll, "x", &[]), 0.0);
    }

    #[test]
    fn control_characters_part_words() {
        assert_eq!(postprocess(" \t a\u{1}b\r\n c \u{0}"), "a\nb\n\n c");
        assert_eq!(
            score(Metric::StringMatchPart, "12\t34", &references(&["1234"])),
            0.0
        );
        assert!(is_null(" \n\u{1}\u{2} "));
        assert!(!is_null("."));
    }
}
