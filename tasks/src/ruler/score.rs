//! RULER's scores of a generated answer (`scripts/eval/evaluate.py` and `scripts/eval/synthetic/constants.py`).

use std::collections::BTreeSet;

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
/// For another metric; of [`Metric::OnlyLabel`] the score is [`names_only`].
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

/// Whether an answer names these targets and no other label, by BABILong's rule (`babilong/metrics.py` of
/// booydar/babilong): in small letters, in its first sentence, before an example or context that the model goes on with. `labels`
/// are in small letters, without those that the question names.
pub fn names_only<T: AsRef<str>, L: AsRef<str>>(answer: &str, targets: &[T], labels: &[L]) -> bool {
    let mut answer = answer.to_lowercase();
    for end in [".", "<context>", "<example>"] {
        if let Some(place) = answer.find(end) {
            answer.truncate(place);
        }
    }
    let labels = labels.iter().map(AsRef::as_ref);
    let named: BTreeSet<&str> = labels.filter(|label| answer.contains(*label)).collect();
    let targets: Vec<String> = targets
        .iter()
        .map(|one| one.as_ref().to_lowercase())
        .collect();
    named.len() == targets.len() && targets.iter().all(|target| named.contains(target.as_str()))
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
    fn an_answer_names_its_label_alone() {
        let labels = ["garden", "kitchen"];
        let right = |answer: &str| names_only(answer, &["Kitchen"], &labels);
        assert!(right("The KITCHEN. Then the garden."));
        assert!(right("kitchen <example> garden") && right("kitchen\n<context>\ngarden"));
        assert!(!right("garden or kitchen") && !right("garden") && !right(". kitchen"));
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
