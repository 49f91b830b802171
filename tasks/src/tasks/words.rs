//! Lists of words of which the frequent ones are asked for, at the level of tokens: RULER's extraction of
//! common words and of frequent words (arXiv 2404.06654, cwe and fwe). How often each word stands in the
//! list is fixed, the order is random, and any place is computed without the others.

use std::borrow::Cow;
use std::sync::Arc;

use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::options::{Allowed, OptionSpec, OptionValue};
use crate::permutation::Permutation;
use crate::sequence::{Filler, Records, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

const QUESTION: u32 = 1;
/// The commonest word of `frequent-words`, which is not asked for.
const DOTS: u32 = 2;
const WORDS: u32 = 3;

/// Answers of `frequent-words`: ranks 2 to 4.
const FREQUENT: usize = 3;

pub(crate) static COMMON: TaskSpec = TaskSpec {
    name: "common-words",
    title: "Extraction of common words, token by token",
    source: "RULER, arXiv 2404.06654, cwe",
    length_meaning: "all tokens: the list, the question and the answer",
    scored: "the common words in the order in which they first occur, as one answer",
    chance_meaning: "different words at random",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[
        OptionSpec {
            name: "common",
            help: "common words",
            default: OptionValue::Integer(10),
            allowed: Allowed::Integer(1, 64),
        },
        OptionSpec {
            name: "repeats",
            help: "times that each common word occurs",
            default: OptionValue::Integer(6),
            allowed: Allowed::Integer(2, 64),
        },
        OptionSpec {
            name: "others",
            help: "times that each other word occurs; fewer than `repeats`",
            default: OptionValue::Integer(1),
            allowed: Allowed::Integer(1, 63),
        },
        OptionSpec {
            name: "vocab",
            help: "token ids; all but three are words, and the longest list uses each",
            default: OptionValue::Integer(4096),
            allowed: Allowed::Integer(128, 65536),
        },
    ],
    materials: &[],
    build: |options, _| {
        let (repeats, others) = (options.integer("repeats"), options.integer("others"));
        if others >= repeats {
            return Err(TaskError::BadCombination {
                task: COMMON.name.to_owned(),
                reason: format!(
                    "other words occur {others} times and common ones {repeats}; use others below repeats"
                ),
            });
        }
        Ok(Box::new(Common {
            options: options.text(),
            key: key(COMMON.name, &options.text()),
            common: options.integer("common"),
            repeats,
            others,
            vocab: options.integer("vocab"),
        }))
    },
};

pub(crate) static FREQUENT_WORDS: TaskSpec = TaskSpec {
    name: "frequent-words",
    title: "Extraction of frequent words, token by token",
    source: "RULER, arXiv 2404.06654, fwe",
    length_meaning: "all tokens: the list, the question and the answer",
    scored: "the three most frequent words but for the dots, the most frequent first, as one answer",
    chance_meaning: "different words at random",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[
        OptionSpec {
            name: "alpha",
            help: "exponent of the zeta distribution: the word of rank r occurs in proportion to r^-alpha",
            default: OptionValue::Float(2.0),
            allowed: Allowed::Float(1.1, 4.0),
        },
        OptionSpec {
            name: "vocab",
            help: "token ids; all but three are words",
            default: OptionValue::Integer(128),
            allowed: Allowed::Integer(16, 65536),
        },
    ],
    materials: &[],
    build: |options, _| {
        let alpha = options.float("alpha").unwrap_or(2.0);
        let words = options.integer("vocab") - WORDS as usize;
        // With the dots.
        let total: f64 = (1..=words + 1).map(|rank| (rank as f64).powf(-alpha)).sum();
        let share = |rank: usize| (rank as f64).powf(-alpha) / total;
        let ranks = (2..=words + 1).map(share).collect();
        Ok(Box::new(Frequent {
            options: options.text(),
            key: key(FREQUENT_WORDS.name, &options.text()),
            shares: ranks,
            vocab: options.integer("vocab"),
        }))
    },
};

/// Probability of saying so many different words, in their order, by chance.
fn guessed(answers: usize, words: usize) -> f64 {
    let guesses = (0..answers).map(|said| 1.0 / (words - said) as f64);
    guesses.product()
}

/// A list of words in random order.
struct Shuffled<Word> {
    order: Permutation,
    /// The word of an item before the list is shuffled.
    word: Word,
}

impl<Word: Fn(usize) -> u32 + Send + Sync> Records for Shuffled<Word> {
    fn len(&self) -> usize {
        1
    }

    fn write(&self, index: usize, record: &mut [u32]) {
        record[0] = (self.word)(self.order.at(index));
    }
}

/// The list, the question, and the answer.
fn sample<Word>(list: usize, shuffled: Shuffled<Word>, answer: Vec<u32>) -> Box<dyn Sample>
where
    Word: Fn(usize) -> u32 + Send + Sync + 'static,
{
    let mut sequence = Sequence::new(Filler::Records(Arc::new(shuffled)));
    sequence.filler(0, list, false);
    sequence.literal(vec![QUESTION], false);
    sequence.literal(answer, true);
    Box::new(sequence)
}

fn symbol(token: u32) -> Cow<'static, str> {
    match token {
        0 => "_".into(),
        QUESTION => "?".into(),
        DOTS => "...".into(),
        word => format!("w{}", word - WORDS + 1).into(),
    }
}

struct Common {
    options: String,
    key: u64,
    common: usize,
    repeats: usize,
    others: usize,
    vocab: usize,
}

impl Common {
    fn words(&self) -> usize {
        self.vocab - WORDS as usize
    }
}

impl Task for Common {
    fn spec(&self) -> &'static TaskSpec {
        &COMMON
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(guessed(self.common, self.words()))
    }

    fn min_length(&self) -> usize {
        self.common * self.repeats + self.others + 1 + self.common
    }

    fn max_length(&self) -> usize {
        let others = (self.words() - self.common) * self.others;
        (self.common * self.repeats + others + 1 + self.common).min(1 << 20)
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.min_length().next_power_of_two();
        (length, length)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let list = at.length - 1 - self.common;
        let order = Permutation::new(list, &mut draws);
        let words = Permutation::new(self.words(), &mut draws);
        let (common, repeats, others) = (self.common, self.repeats, self.others);
        // Items of the common words come first, then those of the others.
        let word = move |item: usize| {
            let rank = match item.checked_sub(common * repeats) {
                None => item / repeats,
                Some(other) => common + other / others,
            };
            WORDS + words.at(rank) as u32
        };
        let first = |rank: usize| {
            let own = rank * repeats..(rank + 1) * repeats;
            own.map(|item| order.place_of(item)).min()
        };
        let mut answer: Vec<usize> = (0..common).collect();
        answer.sort_by_key(|&rank| first(rank));
        let answer = answer.into_iter().map(|rank| word(rank * repeats));
        let answer = answer.collect();
        sample(list, Shuffled { order, word }, answer)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        symbol(token)
    }
}

struct Frequent {
    options: String,
    key: u64,
    /// Share of the list of each word, falling; the dots have the rest.
    shares: Vec<f64>,
    vocab: usize,
}

impl Frequent {
    /// First item after those of each word, the dots' items being the last.
    fn ends(&self, list: usize) -> Vec<usize> {
        let mut end = 0;
        let mut next = |share: &f64| {
            end += (share * list as f64) as usize;
            end
        };
        self.shares.iter().map(&mut next).collect()
    }
}

impl Task for Frequent {
    fn spec(&self) -> &'static TaskSpec {
        &FREQUENT_WORDS
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(guessed(FREQUENT, self.shares.len()))
    }

    fn min_length(&self) -> usize {
        // So long that rounding down makes no two of the asked words, or the next, equally frequent.
        let gaps = self.shares.windows(2).take(FREQUENT);
        let least = gaps.map(|pair| pair[0] - pair[1]).fold(1.0, f64::min);
        (1.0 / least).ceil() as usize + 1 + 1 + FREQUENT
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.min_length().next_power_of_two();
        (length, length)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let list = at.length - 1 - FREQUENT;
        let order = Permutation::new(list, &mut draws);
        let words = Permutation::new(self.shares.len(), &mut draws);
        let ends = self.ends(list);
        let answer = (0..FREQUENT).map(|rank| WORDS + words.at(rank) as u32);
        let answer = answer.collect();
        let word = move |item: usize| {
            let rank = ends.partition_point(|&end| end <= item);
            if rank == ends.len() {
                return DOTS;
            }
            WORDS + words.at(rank) as u32
        };
        sample(list, Shuffled { order, word }, answer)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        symbol(token)
    }
}
