//! Needles in a haystack at the level of tokens, with the factors of Huang (arXiv 2407.08112, section
//! 3 and Table 4) and of RULER's niah (arXiv 2404.06654): depth, kind of haystack (repeated noise, varied
//! filler, nothing but other needles), kind of key and value, numbers of keys, of values a key and of
//! questions. The haystack is cut out of an endless text at a random phase, so that what stands before the
//! question has the same law at every length. A needle stands at a place: the haystack's start, a boundary
//! of two sentences, or its end. The questions come last.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Records, Sequence};
use crate::task::{Coordinates, Metric, Sample, Split, Task, TaskSpec};
use crate::tasks::haystack::{
    self, DIGITS, IS, KEY_COUNT, KEYS, MAGIC, Places, Prose, QUESTION, STOP, Sentences, VOCAB,
    WORD_COUNT, WORDS,
};

/// Depths of the grid: 0, 0.1, .. 1.
const DEPTHS: usize = 11;

/// Hexadecimal digits of a uuid, and of its first group.
const UUID: usize = 32;
const GROUP: usize = 8;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "needle",
    title: "Needles in a haystack, token by token",
    source: "Huang, arXiv 2407.08112, section 3; RULER, arXiv 2404.06654, niah",
    length_meaning: "all tokens: haystack, needles, questions and answers",
    scored: "all tokens of the values after the questions, as one answer",
    chance_meaning: "values at random: 1/64 for a word, 1/9000000 for a number, 16^-32 for a uuid, 16^-8 for a group",
    version: 3,
    metric: Metric::ExactMatch,
    options: &[
        OptionSpec {
            name: "depth",
            help: "where the needle is measured, as a fraction of the places; grid: 0, 0.1, .. 1, each as often",
            default: OptionValue::Word("grid"),
            allowed: Allowed::WordOrFloat("grid", 0.0, 1.0),
        },
        OptionSpec {
            name: "train_depth",
            help: "where it is in training; uniform: every place as often",
            default: OptionValue::Word("uniform"),
            allowed: Allowed::WordOrFloat("uniform", 0.0, 1.0),
        },
        OptionSpec {
            name: "haystack",
            help: "repeat: five sentences again and again; varied: sentences of Zipf-distributed words; needles: needles with keys that nobody asks for",
            default: OptionValue::Word("repeat"),
            allowed: Allowed::Words(&["repeat", "varied", "needles"]),
        },
        OptionSpec {
            name: "key",
            help: "word: 1 token of 64; uuid: 32 hexadecimal digits; group: the first 8 of them",
            default: OptionValue::Word("word"),
            allowed: Allowed::Words(&["word", "uuid", "group"]),
        },
        OptionSpec {
            name: "value",
            help: "word: 1 token of 64; number: 7 digits; uuid: 32 hexadecimal digits; group: the first 8 of them",
            default: OptionValue::Word("word"),
            allowed: Allowed::Words(&["word", "number", "uuid", "group"]),
        },
        OptionSpec {
            name: "keys",
            help: "different keys that needles have",
            default: OptionValue::Integer(1),
            allowed: Allowed::Integer(1, 63),
        },
        OptionSpec {
            name: "values",
            help: "needles a key, each with a value of its own; all are asked for, in the order of the text",
            default: OptionValue::Integer(1),
            allowed: Allowed::Integer(1, 16),
        },
        OptionSpec {
            name: "queries",
            help: "keys that are asked for, one after the other; at most `keys`",
            default: OptionValue::Integer(1),
            allowed: Allowed::Integer(1, 63),
        },
    ],
    materials: &[],
    build: |options, _| Needle::new(options).map(|task| Box::new(task) as Box<dyn Task>),
};

/// What a key or a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A token from here on, of so many.
    Word(u32, usize),
    /// Seven digits.
    Number,
    /// So many hexadecimal digits.
    Hexadecimal(usize),
}

impl Kind {
    fn new(word: &str, low: u32, count: usize) -> Self {
        match word {
            "word" => Self::Word(low, count),
            "number" => Self::Number,
            "group" => Self::Hexadecimal(GROUP),
            _ => Self::Hexadecimal(UUID),
        }
    }

    /// Tokens, and draws that they take.
    fn len(self) -> usize {
        match self {
            Self::Word(..) => 1,
            Self::Number => 7,
            Self::Hexadecimal(digits) => digits,
        }
    }

    fn draw(self, draws: &mut Draws) -> Vec<u32> {
        match self {
            Self::Word(low, count) => vec![low + draws.below(count) as u32],
            Self::Number => haystack::number(7, draws),
            Self::Hexadecimal(digits) => (0..digits)
                .map(|_| DIGITS + draws.below(16) as u32)
                .collect(),
        }
    }

    /// So many different ones.
    fn distinct(self, count: usize, draws: &mut Draws) -> Vec<Vec<u32>> {
        if let Self::Word(low, words) = self {
            let chosen = draws.distinct(count, words).into_iter();
            return chosen.map(|word| vec![low + word as u32]).collect();
        }
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        while all.len() < count {
            let one = self.draw(draws);
            if seen.insert(one.clone()) {
                all.push(one);
            }
        }
        all
    }

    /// Probability of guessing one.
    fn chance(self) -> f64 {
        match self {
            Self::Word(_, count) => 1.0 / count as f64,
            Self::Number => 1.0 / 9_000_000.0,
            Self::Hexadecimal(digits) => 16f64.powi(-(digits as i32)),
        }
    }
}

/// Magic, key, is, value, full stop.
fn statement(key: &[u32], value: &[u32]) -> Vec<u32> {
    let parts: [&[u32]; 5] = [&[MAGIC], key, &[IS], value, &[STOP]];
    parts.concat()
}

/// A haystack of needles, none of which has a key that other needles have.
struct Distractors {
    draws: Draws,
    key: Kind,
    value: Kind,
    /// Keys that stand elsewhere, sorted.
    taken: Vec<Vec<u32>>,
}

impl Records for Distractors {
    fn len(&self) -> usize {
        3 + self.key.len() + self.value.len()
    }

    fn write(&self, index: usize, record: &mut [u32]) {
        let mut draws = self.draws.clone();
        draws.seek(index * (self.key.len() + self.value.len()));
        let key = match self.key {
            Kind::Word(low, count) => {
                let mut word = low + draws.below(count - self.taken.len()) as u32;
                // The words that are left, in order.
                for taken in &self.taken {
                    word += u32::from(taken[0] <= word);
                }
                vec![word]
            }
            kind => {
                let mut key = kind.draw(&mut draws);
                // Two uuids of 128 bits are never equal by chance, two groups may be.
                while self.taken.contains(&key) {
                    let last = key.last_mut().expect("a key has digits");
                    *last = DIGITS + (*last - DIGITS + 1) % 16;
                }
                key
            }
        };
        record.copy_from_slice(&statement(&key, &self.value.draw(&mut draws)));
    }
}

struct Needle {
    options: String,
    seed: u64,
    /// Where it is measured; `None` is the grid.
    depth: Option<f64>,
    /// Where it is in training; `None` is every place.
    train_depth: Option<f64>,
    /// `None` is needles with other keys.
    haystack: Option<Prose>,
    key: Kind,
    value: Kind,
    keys: usize,
    values: usize,
    queries: usize,
}

impl Needle {
    fn new(options: &Options) -> Result<Self, TaskError> {
        let (keys, queries) = (options.integer("keys"), options.integer("queries"));
        if queries > keys {
            return Err(TaskError::BadCombination {
                task: SPEC.name.to_owned(),
                reason: format!(
                    "{queries} queries need as many keys, not {keys}; use keys={queries}"
                ),
            });
        }
        Ok(Self {
            options: options.text(),
            seed: key(SPEC.name, &options.text()),
            depth: options.float("depth"),
            train_depth: options.float("train_depth"),
            haystack: Prose::of(options.word("haystack")),
            key: Kind::new(options.word("key"), KEYS, KEY_COUNT),
            value: Kind::new(options.word("value"), WORDS, WORD_COUNT),
            keys,
            values: options.integer("values"),
            queries,
        })
    }

    /// Tokens of a needle.
    fn needle_len(&self) -> usize {
        3 + self.key.len() + self.value.len()
    }

    /// Tokens of all needles, and of all questions: question, key, is, and the answer.
    fn fixed_len(&self) -> usize {
        let question = 2 + self.key.len() + self.values * self.value.len();
        self.keys * self.values * self.needle_len() + self.queries * question
    }

    /// The endless text's sentences.
    fn sentences(&self) -> Sentences {
        match self.haystack {
            Some(prose) => prose.sentences(),
            None => Sentences::equal(self.needle_len()),
        }
    }

    fn filler(&self, at: &Coordinates, attempt: u64, keys: &[Vec<u32>]) -> Filler {
        match self.haystack {
            Some(prose) => prose.filler(self.seed, at, attempt),
            None => {
                let mut taken = keys.to_vec();
                taken.sort_unstable();
                Filler::Records(Arc::new(Distractors {
                    draws: Draws::new(self.seed, at, attempt, Purpose::Filler),
                    key: self.key,
                    value: self.value,
                    taken,
                }))
            }
        }
    }

    /// Whether one needle is the whole answer, so that its depth describes the example.
    fn is_single(&self) -> bool {
        self.queries * self.values == 1
    }

    /// The place of the needle that is asked for first, of `count` places, and its depth as a label.
    fn place(&self, at: &Coordinates, count: usize, draws: &mut Draws) -> (usize, f64) {
        let last = (count - 1) as f64;
        let depth = match (at.split, self.train_depth, self.depth) {
            (Split::Train, Some(depth), _) => depth,
            (Split::Train, None, _) => draws.below(count) as f64 / last,
            (_, _, Some(depth)) => depth,
            (_, _, None) => self.grid_depth(at),
        };
        ((last * depth).round() as usize, depth)
    }

    /// Each run of eleven examples has every depth once, in an order of its own, so that a number of
    /// examples that is no multiple of eleven favours none.
    fn grid_depth(&self, at: &Coordinates) -> f64 {
        let run = Coordinates {
            index: at.index / DEPTHS as u64,
            ..*at
        };
        let order = Draws::new(self.seed, &run, 0, Purpose::Order).distinct(DEPTHS, DEPTHS);
        order[(at.index % DEPTHS as u64) as usize] as f64 / (DEPTHS - 1) as f64
    }
}

impl Task for Needle {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(
            self.value
                .chance()
                .powi((self.queries * self.values) as i32),
        )
    }

    fn min_length(&self) -> usize {
        // Two sentences of haystack at least, so that there is a depth.
        self.sentences().start(2) + self.fixed_len()
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.min_length().next_power_of_two().max(128);
        (length, length)
    }

    fn label_cycle(&self) -> u64 {
        if self.depth.is_none() && self.is_single() {
            DEPTHS as u64
        } else {
            1
        }
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.seed, at, attempt, Purpose::Plan);
        let hay = at.length - self.fixed_len();
        let text = self.sentences();
        let phase = draws.below(text.period());
        let places = Places::new(text, phase, hay);
        let (place, depth) = self.place(at, places.count(), &mut draws);
        let keys = self.key.distinct(self.keys, &mut draws);
        // Place and number of each needle; those of a key stand together in number.
        let others = (1..self.keys * self.values).map(|other| (draws.below(places.count()), other));
        let mut needles: Vec<(usize, usize)> = std::iter::once((place, 0)).chain(others).collect();
        needles.sort_unstable();
        let mut answers = vec![Vec::new(); self.keys];
        let statements = needles.into_iter().map(|(place, needle)| {
            let key = needle / self.values;
            let value = self.value.draw(&mut draws);
            let tokens = statement(&keys[key], &value);
            answers[key].extend(value);
            (place, tokens)
        });
        let statements = statements.collect();
        let mut sequence = Sequence::new(self.filler(at, attempt, &keys));
        places.write(statements, &mut sequence);
        for (key, answer) in keys.iter().zip(answers).take(self.queries) {
            sequence.literal([&[QUESTION], key.as_slice(), &[IS]].concat(), false);
            sequence.literal(answer, true);
        }
        if self.is_single() {
            sequence.label("depth", format!("{depth:.2}"));
        }
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        haystack::symbol(token)
    }
}
