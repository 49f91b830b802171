//! Coded words of which the most frequent are asked for (fwe).

use std::ops::Range;
use std::sync::Arc;

use crate::draws::{Draws, Purpose};
use crate::permutation::Permutation;
use crate::ruler::data::PROMPTS;
use crate::ruler::lists::in_order;
use crate::ruler::prompt::Prompt;
use crate::ruler::units::Source;
use crate::ruler::{Draft, Family, Setting};

/// Frequent words extraction.
pub struct Frequent;

/// The sum of all 1 / rank^2.
const ZETA_2: f64 = std::f64::consts::PI * std::f64::consts::PI / 6.0;

/// Letters of a coded word.
const CODED: usize = 6;

/// Words as frequent as are asked for, after the first, which is a row of dots.
const ASKED: usize = 3;

/// Fewest words that are drawn: from there on no two of the words asked for are as frequent as each other or
/// as the next.
const FEWEST: usize = 53;

/// Tokens of the length that there is a different word for.
const TOKENS_A_WORD: usize = 50;

impl Family for Frequent {
    fn draft<'a>(&'a self, setting: &Setting) -> Box<dyn Draft + 'a> {
        let room = setting
            .at
            .length
            .saturating_sub(PROMPTS.fwe.tokens_to_generate);
        let vocabulary = (room / TOKENS_A_WORD).max(ASKED + 2);
        // So many words at most have a place: one stands in the text once where its rank allows.
        let seen = (room as f64 / ZETA_2).sqrt() as usize + 1;
        let mut draws = setting.draws(Purpose::Plan);
        // Each as its letters, so that a new one is looked for quickly.
        let mut drawn: Vec<[u8; CODED]> = Vec::new();
        while drawn.len() + 1 < vocabulary.min(seen.max(ASKED + 2)) {
            let word = [(); CODED].map(|()| b'a' + draws.below(26) as u8);
            if !drawn.contains(&word) {
                drawn.push(word);
            }
        }
        let drawn = drawn
            .iter()
            .map(|word| word.iter().map(|&letter| char::from(letter)).collect());
        let words: Vec<String> = std::iter::once("...".to_owned()).chain(drawn).collect();
        Box::new(FrequentDraft {
            setting: setting.clone(),
            tokens: words
                .iter()
                .map(|word| setting.pieces.count_word(word))
                .collect(),
            words: Arc::new(words),
            order: setting.draws(Purpose::Order),
        })
    }
}

struct FrequentDraft {
    setting: Setting,
    /// By rank.
    words: Arc<Vec<String>>,
    tokens: Vec<usize>,
    order: Draws,
}

/// Words in random order, each as often as its rank says.
struct Coded {
    words: Arc<Vec<String>>,
    /// Entries of the words up to each, itself included.
    ends: Vec<usize>,
    order: Permutation,
}

impl Coded {
    fn push(&self, entry: usize, text: &mut String) {
        // The first ranks have nearly all entries.
        let rank = self.ends.iter().position(|&end| entry < end);
        text.push(' ');
        text.push_str(&self.words[rank.expect("an entry of a word")]);
    }
}

impl Source for Coded {
    fn write(&self, unit: usize, text: &mut String) {
        self.push(self.order.at(unit), text);
    }

    fn text(&self, units: Range<usize>, give: &mut dyn FnMut(&str)) {
        in_order(&self.order, units, give, |_, entry, text| {
            self.push(entry, text);
        });
    }
}

impl FrequentDraft {
    /// How often the word of a rank, from 0, stands in a text for so many words in all ranks.
    fn often(units: usize, rank: usize) -> usize {
        let rank = (rank + 1) as f64;
        (units as f64 * rank.powi(-2) / ZETA_2) as usize
    }
}

impl Draft for FrequentDraft {
    fn fewest(&self) -> usize {
        FEWEST
    }

    fn hay(&self, units: usize) -> usize {
        let each = self.tokens.iter().enumerate();
        each.map(|(rank, each)| Self::often(units, rank) * each)
            .sum()
    }

    /// A text for so many words in all ranks; those of which there is less than one are left out.
    fn compose(&self, units: usize) -> Prompt {
        let wording = &PROMPTS.fwe.wording;
        let mut end = 0;
        let ends = (0..self.words.len()).map(|rank| {
            end += Self::often(units, rank);
            end
        });
        let ends: Vec<usize> = ends.collect();
        let text = Coded {
            words: Arc::clone(&self.words),
            ends,
            order: Permutation::new(end, &mut self.order.clone()),
        };
        let mut prompt = Prompt::default();
        prompt.push(&wording.head);
        prompt.units_within_text(
            &self.setting.counted(text, Some((end, self.hay(units)))),
            0..end,
        );
        prompt.push(&wording.question);
        prompt.answer_prefix.clone_from(&wording.answer_prefix);
        prompt.references = self.words[1..=ASKED].to_vec();
        prompt
    }
}
