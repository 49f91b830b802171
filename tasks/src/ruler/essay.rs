//! The haystack of prose: words of documents with single spaces between, and where sentences begin. Where no
//! documents are given it is generated, and records say so.

use std::sync::{Arc, LazyLock};

use longhaul_text::Texts;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::ruler::data::WORDS;
use crate::ruler::units::Source;

/// Most words that are taken of documents: the longest prompt has fewer.
const MOST: usize = 1 << 20;

/// Words that are generated; longer haystacks begin again, as RULER's do where its essays end.
const GENERATED: usize = 1 << 17;

/// Sentences of the generated haystack, in which A, N and V stand for an adjective, a noun and a verb.
const PATTERNS: [&str; 8] = [
    "The A N did not V the N, and nobody asked why.",
    "A N that is A will V more than one that is A.",
    "They V, and the N stays A.",
    "In the A N, where the N was A, most people would rather V.",
    "You can V a N, but the A N is what they remember!",
    "Why does the N of a A N seem so A?",
    "It took a N to V it, a N to V it again, and a A N to say so.",
    "What I found in the N was A: one N, two A ones, and the wish to V.",
];

/// What ends with a full stop and no sentence.
const ABBREVIATIONS: [&str; 24] = [
    "mr.", "mrs.", "ms.", "dr.", "st.", "rev.", "prof.", "gen.", "col.", "capt.", "lt.", "sgt.",
    "hon.", "messrs.", "jr.", "sr.", "vs.", "etc.", "e.g.", "i.e.", "no.", "vol.", "p.", "pp.",
];

/// A text as words.
pub struct Essay {
    /// Every word with a space before it.
    text: String,
    /// Where each word's space stands, and the end.
    starts: Vec<u32>,
    /// The first word of each sentence.
    sentences: Vec<u32>,
}

impl Essay {
    /// The words of documents in their order, or generated ones.
    pub fn of(texts: Option<&Texts>) -> Arc<Self> {
        static OWN: LazyLock<Arc<Essay>> = LazyLock::new(|| Arc::new(Essay::generated()));
        match texts {
            None => Arc::clone(&OWN),
            Some(texts) => {
                let documents = texts.documents.iter();
                let words = documents.flat_map(|document| document.text.split_whitespace());
                Arc::new(Self::new(words.take(MOST)))
            }
        }
    }

    fn new<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut essay = Self {
            text: String::new(),
            starts: Vec::new(),
            sentences: vec![0],
        };
        let mut before: Option<&str> = None;
        for word in words {
            if before.is_some_and(|before| ends_sentence(before, word)) {
                essay.sentences.push(essay.starts.len() as u32);
            }
            essay.starts.push(essay.text.len() as u32);
            essay.text.push(' ');
            essay.text.push_str(word);
            before = Some(word);
        }
        essay.starts.push(essay.text.len() as u32);
        essay
    }

    fn generated() -> Self {
        // Any seed serves; it is part of the definition of the tasks that read this text.
        let mut rng = ChaCha8Rng::seed_from_u64(2404_06654);
        let mut below = |count: usize| ((u64::from(rng.next_u32()) * count as u64) >> 32) as usize;
        let mut text = String::new();
        for _ in 0..GENERATED / 8 {
            for word in PATTERNS[below(PATTERNS.len())].split(' ') {
                let (letter, rest) = word.split_at(1);
                let list = match letter {
                    "A" if !rest.starts_with(char::is_alphabetic)
                        && !text.ends_with(['.', '!', '?']) =>
                    {
                        &WORDS.adjectives
                    }
                    "N" if !rest.starts_with(char::is_alphabetic) => &WORDS.nouns,
                    "V" if !rest.starts_with(char::is_alphabetic) => &WORDS.verbs,
                    _ => {
                        text.push(' ');
                        text.push_str(word);
                        continue;
                    }
                };
                text.push(' ');
                text.push_str(list[below(list.len())]);
                text.push_str(rest);
            }
        }
        Self::new(text.split_whitespace().take(GENERATED))
    }

    /// Number of words; from there on they begin again.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// A word, counted on past the end.
    pub fn word(&self, word: usize) -> &str {
        &self.spaced(word)[1..]
    }

    /// A word with the space before it.
    fn spaced(&self, word: usize) -> &str {
        let word = word % self.len();
        &self.text[self.starts[word] as usize..self.starts[word + 1] as usize]
    }

    /// Number of sentences that begin in the first words.
    pub fn sentences(&self, words: usize) -> usize {
        let within = (words % self.len()) as u32;
        let rest = self.sentences.partition_point(|&start| start < within);
        words / self.len() * self.sentences.len() + rest
    }

    /// The first word of a sentence.
    pub fn start(&self, sentence: usize) -> usize {
        let round = sentence / self.sentences.len();
        round * self.len() + self.sentences[sentence % self.sentences.len()] as usize
    }
}

/// Its words as units.
impl Source for Arc<Essay> {
    fn write(&self, unit: usize, text: &mut String) {
        text.push_str(self.spaced(unit));
    }

    fn text(&self, units: std::ops::Range<usize>, give: &mut dyn FnMut(&str)) {
        let mut from = units.start;
        while from < units.end {
            let first = from % self.len();
            let last = (first + units.end - from).min(self.len());
            give(&self.text[self.starts[first] as usize..self.starts[last] as usize]);
            from += last - first;
        }
    }
}

/// Whether a sentence ends between two words: after `.`, `!` or `?` and closing marks, before a word that does
/// not begin small, and not after an abbreviation or an initial.
fn ends_sentence(word: &str, next: &str) -> bool {
    const CLOSING: [char; 7] = ['"', '\'', ')', ']', '”', '’', '»'];
    let bare = word.trim_end_matches(CLOSING);
    if !bare.ends_with(['.', '!', '?']) {
        return false;
    }
    let opened = next.trim_start_matches(|c: char| !c.is_alphanumeric());
    if opened.starts_with(char::is_lowercase) {
        return false;
    }
    let name = bare.trim_start_matches(|c: char| !c.is_alphanumeric());
    let initial = name.len() == 2 && name.starts_with(char::is_uppercase) && name != "I.";
    let lower = name.to_lowercase();
    !(bare.ends_with('.') && (initial || ABBREVIATIONS.contains(&lower.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_begin_where_they_do() {
        let text = "Mr. J. Smith said: \"Go on!\" He did. \"Why?\" asked Dr. Who (on p. 3 of vol. 2). 7 went, e.g. Ann.";
        let essay = Essay::new(text.split_whitespace());
        let starts: Vec<&str> = essay
            .sentences
            .iter()
            .map(|&word| essay.word(word as usize))
            .collect();
        assert_eq!(starts, ["Mr.", "He", "\"Why?\"", "7"]);
        // A word and a sentence past the end are the first ones again.
        let words = essay.len();
        assert_eq!(essay.word(words + 1), "J.");
        assert_eq!(essay.start(4), words);
        assert_eq!(essay.sentences(words), 4);
        assert_eq!(essay.sentences(words + 1), 5);
        assert_eq!(essay.sentences(1), 1);
        let mut all = String::new();
        Source::text(&Arc::new(essay), 2..2 * words + 3, &mut |some| {
            all.push_str(some)
        });
        let wanted: Vec<&str> = text
            .split_whitespace()
            .cycle()
            .skip(2)
            .take(2 * words + 1)
            .collect();
        assert_eq!(all, format!(" {}", wanted.join(" ")));
    }

    #[test]
    fn a_generated_essay_is_prose_of_its_own() {
        let essay = Essay::of(None);
        assert_eq!(essay.len(), GENERATED);
        let words: Vec<&str> = (0..40).map(|word| essay.word(word)).collect();
        println!("{}", words.join(" "));
        assert!(words.iter().all(|word| !word.contains(char::is_whitespace)));
        let per_sentence = essay.len() / essay.sentences.len();
        assert!(
            (8..16).contains(&per_sentence),
            "{per_sentence} words a sentence"
        );
    }
}
