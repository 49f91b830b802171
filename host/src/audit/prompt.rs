//! What is seen of a prompt's text alone.

/// Words that stand for a sequence's begin in widespread tokenizers.
const BEGINS: [&str; 7] = [
    "<s>",
    "<|begin_of_text|>",
    "<bos>",
    "<|startoftext|>",
    "<BOS_TOKEN>",
    "<|endoftext|>",
    "<｜begin▁of▁sentence｜>",
];

/// How often a prompt begins with the word that stands for a sequence's begin, and the word.
pub fn begins(prompt: &str) -> (usize, &'static str) {
    let count = |word: &str| {
        let (mut rest, mut count) = (prompt.trim_start(), 0);
        while let Some(after) = rest.strip_prefix(word) {
            (rest, count) = (after.trim_start(), count + 1);
        }
        count
    };
    let counts = BEGINS.iter().map(|word| (count(word), *word));
    counts.max_by_key(|(count, _)| *count).unwrap_or((0, ""))
}

/// Prompts of a file by how often they begin so.
#[derive(Debug, Default)]
pub struct Begins {
    once: (usize, &'static str),
    twice: (usize, &'static str),
}

impl Begins {
    /// Counts a prompt.
    pub fn count(&mut self, prompt: &str) {
        let (count, word) = begins(prompt);
        let counted = match count {
            0 => return,
            1 => &mut self.once,
            _ => &mut self.twice,
        };
        *counted = (counted.0 + 1, word);
    }

    /// What is wrong with them. `once_counts`: what reads such a prompt may put another in front.
    pub fn findings(&self, all: usize, once_counts: bool) -> impl Iterator<Item = String> {
        let some = |(count, word): (usize, &str), words: &str| {
            (count > 0).then(|| format!("{count} of {all} prompts begin with `{word}`{words}"))
        };
        let twice = some(self.twice, " twice: models are trained on one");
        let once = some(
            self.once,
            " as text: a server or tokenizer that adds its own, as most do, reads two",
        );
        let once = once.filter(|_| once_counts);
        twice.into_iter().chain(once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_are_counted() {
        assert_eq!(begins("<s><s> text <s>"), (2, "<s>"));
        assert_eq!(begins("<|begin_of_text|>\n<|start|>").0, 1);
        assert_eq!(begins("text <s>").0, 0);
    }
}
