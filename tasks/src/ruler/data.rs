//! The benchmark's prompts and word lists, from `tasks/data/`, where source and licence stand.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde::Deserialize;

/// A task's prompt: head, context, question, answer prefix.
#[derive(Deserialize)]
pub struct Wording {
    /// Before the context.
    pub head: String,
    /// After it.
    pub question: String,
    /// The beginning of the answer; part of the prompt.
    pub answer_prefix: String,
}

/// A task with one wording.
#[derive(Deserialize)]
pub struct Template {
    /// Tokens that are generated at most; they count in the length.
    pub tokens_to_generate: usize,
    #[serde(flatten)]
    pub wording: Wording,
}

/// niah's wordings.
#[derive(Deserialize)]
pub struct NiahTemplate {
    /// As of [`Template`].
    pub tokens_to_generate: usize,
    /// A needle.
    pub needle: String,
    /// Where one value is asked for.
    pub one: Wording,
    /// Where several are.
    pub several: Wording,
}

/// All prompts.
#[derive(Deserialize)]
pub struct Prompts {
    /// The line of which the haystack `noise` is made.
    pub noise: String,
    pub niah: NiahTemplate,
    pub vt: Template,
    pub cwe: Template,
    pub fwe: Template,
    pub qa: Template,
}

/// The prompts.
pub static PROMPTS: LazyLock<Prompts> = LazyLock::new(|| {
    toml::from_str(include_str!("../../data/ruler.toml")).expect("data/ruler.toml is whole")
});

/// A template with its `{name}`s replaced where there is a value.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(2 * template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let (name, next) = after.split_once('}').expect("a name ends");
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => text.push_str(value),
            None => text.extend(["{", name, "}"]),
        }
        rest = next;
    }
    text.push_str(rest);
    text
}

/// The word lists, each word once, in the order of the file.
pub struct Words {
    pub adjectives: Vec<&'static str>,
    pub nouns: Vec<&'static str>,
    pub verbs: Vec<&'static str>,
    /// All of them, each once.
    pub all: Vec<&'static str>,
}

/// The word lists.
pub static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let file = include_str!("../../data/wonderwords.txt");
    let section = |name: &str| {
        let from = file.lines().skip_while(|line| *line != name).skip(1);
        let lines = from.take_while(|line| !line.starts_with('['));
        unique(lines)
    };
    let (adjectives, nouns, verbs) = (
        section("[adjectives]"),
        section("[nouns]"),
        section("[verbs]"),
    );
    let all = unique([&nouns, &adjectives, &verbs].into_iter().flatten().copied());
    Words {
        adjectives,
        nouns,
        verbs,
        all,
    }
});

fn unique(words: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut seen = HashSet::new();
    words.filter(|word| seen.insert(*word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_whole() {
        assert_eq!(
            (WORDS.nouns.len(), WORDS.verbs.len()),
            (6782, 1041),
            "as the package has them"
        );
        assert!(WORDS.all.len() > 8000 && WORDS.adjectives.len() > 900);
        assert!(
            WORDS
                .all
                .iter()
                .all(|word| word.trim() == *word && !word.is_empty())
        );
    }

    #[test]
    fn wordings_hold_only_known_names() {
        let known = ["{type}", "{key}", "{value}", "{query}", "{count}"];
        let text = include_str!("../../data/ruler.toml");
        let body = text.lines().filter(|line| !line.starts_with('#'));
        for line in body {
            let mut line = line.to_owned();
            known.iter().for_each(|name| line = line.replace(name, ""));
            assert!(!line.contains(['{', '}']), "{line}");
        }
        assert_eq!(PROMPTS.niah.tokens_to_generate, 128);
    }
}
