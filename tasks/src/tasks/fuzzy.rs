//! Fuzzy recall of MAD (Poli et al., arXiv 2403.17844, and `athms/mad-lab`,
//! `mad/data/instances.py`): keys and values of one or several tokens, so that a key is known as a whole or not at
//! all.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::steps::{Stepped, Steps};
use crate::task::{Coordinates, Metric, Sample, Split, Task, TaskSpec};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "fuzzy-recall",
    title: "Values of keys of several tokens that come again",
    source: "MAD, arXiv 2403.17844; athms/mad-lab, mad/data/instances.py",
    length_meaning: "all tokens: keys and their values in turn, pads before them",
    scored: "the value of each key that has come before, as the last has",
    chance_meaning: "different tokens of values at random",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "vocab",
            help: "token ids: half are of keys, half of values, and the last is a pad",
            default: OptionValue::Integer(16),
            allowed: Allowed::Integer(9, 128),
        },
        OptionSpec {
            name: "motif",
            help: "most tokens of a key, as all have where it is measured, and of a value",
            default: OptionValue::Integer(3),
            allowed: Allowed::Integer(1, MOST as u64),
        },
    ],
    materials: &[],
    build: |options, _| Ok(Box::new(Fuzzy::new(options))),
};

/// Most tokens of a key or value.
const MOST: usize = 3;
/// Draws of a key and its value.
const DRAWS: usize = 8;

#[derive(Clone, Copy)]
struct Vocabulary {
    /// Tokens of keys.
    keys: usize,
    /// Tokens of values.
    values: usize,
    motif: usize,
}

impl Vocabulary {
    fn pad(self) -> u32 {
        (self.keys + self.values) as u32
    }

    /// A number of its own for each key, below [`Self::codes`].
    fn code(self, key: &[u32]) -> usize {
        let digits = key.iter().map(|&token| token as usize + 1);
        digits.fold(0, |code, digit| code * (self.keys + 1) + digit)
    }

    fn codes(self) -> usize {
        (self.keys + 1).pow(self.motif as u32)
    }
}

struct Fuzzy {
    options: String,
    key: u64,
    vocabulary: Vocabulary,
}

impl Fuzzy {
    fn new(options: &Options) -> Self {
        let text = options.text();
        let tokens = options.integer("vocab") - 1;
        Self {
            key: key(SPEC.name, &text),
            options: text,
            vocabulary: Vocabulary {
                keys: tokens / 2,
                values: tokens - tokens / 2,
                motif: options.integer("motif"),
            },
        }
    }
}

impl Task for Fuzzy {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.vocabulary.pad() as usize + 1
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        // Values of 1, 2, .. tokens are as likely, and no token comes again in one.
        let Vocabulary { values, motif, .. } = self.vocabulary;
        let share = |place: usize| (motif - place) as f64;
        let right = |place: usize| share(place) / (values - place) as f64;
        Some((0..motif).map(right).sum::<f64>() / (0..motif).map(share).sum::<f64>())
    }

    fn min_length(&self) -> usize {
        6 * self.vocabulary.motif
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (128, 128)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let measured = at.split != Split::Train;
        Box::new(Stepped::new(
            Items::new(self, at, attempt, measured),
            Vec::new(),
        ))
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        let Vocabulary { keys, values, .. } = self.vocabulary;
        match (token as usize).checked_sub(keys) {
            None => format!("k{token}").into(),
            Some(value) if value < values => format!("v{value}").into(),
            Some(_) => "_".into(),
        }
    }
}

/// Keys with their values, one pair after the other.
struct Items {
    vocabulary: Vocabulary,
    len: usize,
    pads: usize,
    /// Whether all keys have the most tokens.
    measured: bool,
    /// The key that is asked for at the end, and from where on it is the next.
    last: Vec<u32>,
    place: usize,
    /// For keys, by pair.
    draws: Draws,
    /// For values, by key.
    values: Draws,
}

impl Items {
    fn new(task: &Fuzzy, at: &Coordinates, attempt: u64, measured: bool) -> Self {
        let vocabulary = task.vocabulary;
        let mut items = Self {
            vocabulary,
            len: at.length,
            pads: 0,
            measured,
            last: Vec::new(),
            place: 0,
            draws: Draws::new(task.key, at, attempt, Purpose::Filler),
            values: Draws::new(task.key, at, attempt, Purpose::Plan),
        };
        let mut draws = Draws::new(task.key, at, attempt, Purpose::Order);
        items.last = items.drawn_key(&mut draws);
        items.place = draws.below(items.end() - 2 * vocabulary.motif + 1);
        let mut walk = Walk::default();
        while walk.used < items.end() {
            items.go_on(&mut walk);
        }
        items.pads = items.len - walk.used - items.last_pair().len();
        items
    }

    /// Where the pair of the end begins at the latest if another were before it.
    fn end(&self) -> usize {
        self.len - self.last_pair().len() - 2 * self.vocabulary.motif
    }

    fn last_pair(&self) -> Vec<u32> {
        self.with_value(self.last.clone())
    }

    /// Different tokens of keys.
    fn drawn_key(&self, draws: &mut Draws) -> Vec<u32> {
        let Vocabulary { keys, motif, .. } = self.vocabulary;
        let drawn = 1 + draws.below(motif);
        let size = if self.measured { motif } else { drawn };
        let tokens = draws.distinct(size, keys).into_iter();
        tokens.map(|token| token as u32).collect()
    }

    /// A key followed by its value, which is the same wherever the key stands.
    fn with_value(&self, mut key: Vec<u32>) -> Vec<u32> {
        let Vocabulary {
            keys,
            values,
            motif,
        } = self.vocabulary;
        let mut draws = self.values.clone();
        draws.seek(DRAWS * self.vocabulary.code(&key));
        let size = 1 + draws.below(motif);
        let tokens = draws.distinct(size, values).into_iter();
        key.extend(tokens.map(|token| (keys + token) as u32));
        key
    }

    /// Goes to the next pair. At the first boundary from its place on that has the key of the end.
    fn go_on(&self, walk: &mut Walk) {
        let mut draws = self.draws.clone();
        draws.seek(DRAWS * walk.index);
        let drawn = self.drawn_key(&mut draws);
        let due = !walk.last_has_come && walk.used >= self.place;
        let at_end = walk.used >= self.end();
        let key = if due || at_end {
            self.last.clone()
        } else {
            drawn
        };
        walk.key_len = key.len();
        walk.code = self.vocabulary.code(&key);
        walk.last_has_come |= key == self.last;
        walk.pair = self.with_value(key);
        walk.index += 1;
        walk.used += walk.pair.len();
    }
}

/// How far the pairs are.
#[derive(Clone, Default)]
struct Walk {
    /// Pairs so far, and their tokens.
    index: usize,
    used: usize,
    last_has_come: bool,
    /// The pair that was reached last, its key's tokens and code.
    pair: Vec<u32>,
    key_len: usize,
    code: usize,
    /// Codes of the keys that have come, where they are kept.
    seen: Vec<u64>,
    /// Whether the key of the pair is one of them.
    asked: bool,
    /// The next token of the pair.
    within: usize,
}

impl Steps for Items {
    type State = Walk;

    fn len(&self) -> usize {
        self.len
    }

    fn spacing(&self) -> usize {
        512.max(self.vocabulary.codes() / 8)
    }

    fn start(&self) -> Walk {
        Walk {
            seen: vec![0; self.vocabulary.codes().div_ceil(64)],
            ..Walk::default()
        }
    }

    fn advance(&self, walk: &mut Walk, from: usize, tokens: &mut [u32], targets: &mut [i32]) {
        for (position, (token, target)) in (from..).zip(tokens.iter_mut().zip(targets)) {
            if position < self.pads {
                (*token, *target) = (self.vocabulary.pad(), -1);
                continue;
            }
            if walk.within == walk.pair.len() {
                self.go_on(walk);
                let (word, bit) = (walk.code / 64, 1 << (walk.code % 64));
                walk.asked = walk.seen[word] & bit != 0;
                walk.seen[word] |= bit;
                walk.within = 0;
            }
            *token = walk.pair[walk.within];
            walk.within += 1;
            let next = walk.pair.get(walk.within);
            let next = next.filter(|_| walk.asked && walk.within >= walk.key_len);
            *target = next.map_or(-1, |&next| next as i32);
        }
    }
}
