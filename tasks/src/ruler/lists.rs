//! Lists of words of which the most common are asked for (cwe).

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::draws::{Draws, Purpose};
use crate::permutation::Permutation;
use crate::ruler::data::{PROMPTS, WORDS};
use crate::ruler::pieces::Pieces;
use crate::ruler::prompt::Prompt;
use crate::ruler::units::{PART, Source, Units};
use crate::ruler::{Draft, Family, Setting};

/// Words that are common, and asked for.
const COMMON: usize = 10;

/// From this length on words are repeated more often, and the example is longer.
pub const HARD: usize = 4096;

/// How often words stand in a list.
#[derive(Debug, Clone, Copy)]
struct Repeats {
    common: usize,
    other: usize,
}

/// A difficulty of cwe: the list's repeats, and those and the different words of the example in front.
struct Difficulty {
    list: Repeats,
    example: Repeats,
    example_words: usize,
}

const EASY: Difficulty = Difficulty {
    list: Repeats {
        common: 6,
        other: 1,
    },
    example: Repeats {
        common: 3,
        other: 1,
    },
    example_words: 20,
};

const HARDER: Difficulty = Difficulty {
    list: Repeats {
        common: 30,
        other: 3,
    },
    example: Repeats {
        common: 10,
        other: 3,
    },
    example_words: 40,
};

/// Common words extraction.
pub struct Common {
    /// Whether the difficulty of short lengths is that of all.
    fixed: bool,
    counted: Arc<Counted>,
}

impl Common {
    pub fn new(fixed: bool) -> Self {
        Self {
            fixed,
            counted: Arc::default(),
        }
    }
}

/// Tokens of what lists are made of, which all examples share.
struct Counted {
    /// Of all numbers up to so many, from 0.
    numbers: Mutex<Vec<u32>>,
    /// Of each word of the lists with the space before; 0 is not known.
    words: Vec<AtomicU32>,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            numbers: Mutex::new(vec![0]),
            words: WORDS.all.iter().map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl Counted {
    /// Tokens of a word with the space before.
    fn word(&self, word: Word, pieces: &Pieces) -> u32 {
        let known = self.words.get(word.0 as usize);
        let count = known.map_or(0, |known| known.load(Ordering::Relaxed));
        if count > 0 {
            return count;
        }
        let count = pieces.count(&format!(" {word}"), false) as u32;
        if let Some(known) = known.filter(|_| pieces.sound()) {
            known.store(count, Ordering::Relaxed);
        }
        count
    }

    /// Tokens of the numbers from 1 on, with the space before all but the first.
    fn numbers(&self, numbers: usize, pieces: &Pieces) -> usize {
        let mut tokens = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        while tokens.len() <= numbers {
            let space = if tokens.len() > 1 { " " } else { "" };
            let text = format!("{space}{}.", tokens.len());
            let next = tokens[tokens.len() - 1] + pieces.count(&text, false) as u32;
            tokens.push(next);
        }
        tokens[numbers] as usize
    }
}

/// Different words in random order: those of the lists, and after the last of them pairs of adjective and noun.
struct Shuffled {
    words: Permutation,
    pairs: Permutation,
}

impl Shuffled {
    fn new(draws: &mut Draws) -> Self {
        Self {
            words: Permutation::new(WORDS.all.len(), draws),
            pairs: Permutation::new(WORDS.adjectives.len() * WORDS.nouns.len(), draws),
        }
    }

    /// The word of a rank.
    fn word(&self, rank: usize) -> Word {
        Word(match rank.checked_sub(WORDS.all.len()) {
            None => self.words.at(rank) as u32,
            Some(pair) => (WORDS.all.len() + self.pairs.at(pair)) as u32,
        })
    }
}

/// A word by its number: those of the lists, then all pairs.
#[derive(Clone, Copy)]
struct Word(u32);

impl Word {
    fn write(self, text: &mut String) {
        let word = self.0 as usize;
        let Some(pair) = word.checked_sub(WORDS.all.len()) else {
            text.push_str(WORDS.all[word]);
            return;
        };
        text.push_str(WORDS.adjectives[pair / WORDS.nouns.len()]);
        text.push('-');
        text.push_str(WORDS.nouns[pair % WORDS.nouns.len()]);
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

/// A numbered list: `1. word 2. word ..`.
struct Numbered {
    /// By rank.
    words: Vec<Word>,
    repeats: Repeats,
    order: Permutation,
}

impl Numbered {
    fn len(words: usize, repeats: Repeats) -> usize {
        COMMON * repeats.common + (words - COMMON) * repeats.other
    }
}

impl Numbered {
    /// Appends the entry that stands at a place.
    fn push(&self, unit: usize, entry: usize, text: &mut String) {
        let common = COMMON * self.repeats.common;
        let rank = match entry.checked_sub(common) {
            None => entry / self.repeats.common,
            Some(other) => COMMON + other / self.repeats.other,
        };
        if unit > 0 {
            text.push(' ');
        }
        push_number(unit + 1, text);
        text.push_str(". ");
        self.words[rank].write(text);
    }
}

impl Source for Numbered {
    fn write(&self, unit: usize, text: &mut String) {
        self.push(unit, self.order.at(unit), text);
    }

    fn text(&self, units: Range<usize>, give: &mut dyn FnMut(&str)) {
        in_order(&self.order, units, give, |unit, entry, text| {
            self.push(unit, entry, text);
        });
    }
}

/// Appends a number.
fn push_number(mut number: usize, text: &mut String) {
    let (mut digits, mut first) = ([0; 20], 20);
    while first == 20 || number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text.extend(digits[first..].iter().map(|&digit| char::from(digit)));
}

/// Gives the text of units in parts; `push` appends that of a unit and of what the order has there.
pub fn in_order(
    order: &Permutation,
    units: Range<usize>,
    give: &mut dyn FnMut(&str),
    push: impl Fn(usize, usize, &mut String),
) {
    let mut text = String::with_capacity(2 * PART);
    let mut unit = units.start;
    order.each(units, |entry| {
        push(unit, entry, &mut text);
        unit += 1;
        if text.len() > PART {
            give(&text);
            text.clear();
        }
    });
    give(&text);
}

impl Family for Common {
    fn draft<'a>(&'a self, setting: &Setting) -> Box<dyn Draft + 'a> {
        let mut draws = setting.draws(Purpose::Plan);
        let difficulty = if self.fixed || setting.at.length < HARD {
            &EASY
        } else {
            &HARDER
        };
        let words = Shuffled::new(&mut draws);
        let example = Numbered {
            words: (0..difficulty.example_words)
                .map(|rank| words.word(rank))
                .collect(),
            repeats: difficulty.example,
            order: Permutation::new(
                Numbered::len(difficulty.example_words, difficulty.example),
                &mut draws,
            ),
        };
        let wording = &PROMPTS.cwe.wording;
        let entries = Numbered::len(difficulty.example_words, difficulty.example);
        let total = setting.pieces.additive().then(|| {
            let tokens = |word: &Word| self.counted.word(*word, &setting.pieces) as usize;
            let (common, others) = example.words.split_at(COMMON);
            let common: usize = common.iter().map(tokens).sum();
            let others: usize = others.iter().map(tokens).sum();
            let words = common * example.repeats.common + others * example.repeats.other;
            (
                entries,
                words + self.counted.numbers(entries, &setting.pieces),
            )
        });
        let mut answered = format!("{}{}", wording.question, wording.answer_prefix);
        for (rank, word) in example.words[..COMMON].iter().enumerate() {
            answered.push_str(&format!(" {}. {word}", rank + 1));
        }
        answered.push('\n');
        answered.push_str(&wording.head);
        Box::new(CommonDraft {
            setting: setting.clone(),
            counted: Arc::clone(&self.counted),
            repeats: difficulty.list,
            fixed: self.fixed,
            example: setting.counted(example, total),
            entries,
            answered,
            words: Shuffled::new(&mut draws),
            known: Mutex::new((Vec::new(), vec![0])),
            order: setting.draws(Purpose::Order),
        })
    }
}

struct CommonDraft {
    setting: Setting,
    counted: Arc<Counted>,
    repeats: Repeats,
    /// Whether they are the same at all lengths.
    fixed: bool,
    /// The list of the example, and how many entries it has.
    example: Arc<Units>,
    entries: usize,
    /// What follows it, up to the list.
    answered: String,
    words: Shuffled,
    /// The first words, and the tokens of so many of them, each once.
    known: Mutex<(Vec<Word>, Vec<u32>)>,
    order: Draws,
}

impl CommonDraft {
    /// Tokens of the first so many words, each once, with the space before.
    fn word_tokens(&self, words: usize) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, tokens) = &mut *known;
        while tokens.len() <= words {
            let word = self.words.word(known.len());
            let count = self.counted.word(word, &self.setting.pieces);
            known.push(word);
            tokens.push(tokens[tokens.len() - 1] + count);
        }
        tokens[words] as usize
    }

    /// The first so many words.
    fn first_words(&self, words: usize) -> Vec<Word> {
        self.word_tokens(words);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0[..words].to_vec()
    }
}

impl Draft for CommonDraft {
    fn fewest(&self) -> usize {
        COMMON
    }

    fn hay(&self, units: usize) -> usize {
        let common = self.word_tokens(COMMON);
        let other = self.word_tokens(units) - common;
        let words = common * self.repeats.common + other * self.repeats.other;
        words
            + self
                .counted
                .numbers(Numbered::len(units, self.repeats), &self.setting.pieces)
    }

    fn compose(&self, units: usize) -> Prompt {
        let (repeats, wording) = (self.repeats, &PROMPTS.cwe.wording);
        let entries = Numbered::len(units, repeats);
        let additive = self.setting.pieces.additive();
        let total = additive.then(|| (entries, self.hay(units)));
        let list = Numbered {
            words: self.first_words(units),
            repeats,
            order: Permutation::new(entries, &mut self.order.clone()),
        };
        let mut prompt = Prompt::default();
        prompt.push(&wording.head);
        prompt.units_within_text(&self.example, 0..self.entries);
        prompt.push(&self.answered);
        prompt.units_within_text(&self.setting.counted(list, total), 0..entries);
        prompt.push(&wording.question);
        prompt.answer_prefix.clone_from(&wording.answer_prefix);
        prompt.repeats = (!self.fixed).then_some(repeats.common);
        prompt.references = self
            .first_words(COMMON)
            .iter()
            .map(Word::to_string)
            .collect();
        prompt
    }
}
