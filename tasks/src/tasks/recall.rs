//! Recall of MAD (Poli et al., arXiv 2403.17844, and `athms/mad-lab`, `mad/data/instances.py`): keys
//! with values that come again and again, with or without noise between; and values of keys that are the same in
//! every example, which only weights can know.

use std::borrow::Cow;
use std::sync::Arc;

use crate::automaton::{Automaton, Scored, read};
use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::steps::{Stepped, Steps};
use crate::task::{Coordinates, Metric, Sample, Split, Task, TaskSpec};

pub(crate) static IN_CONTEXT: TaskSpec = TaskSpec {
    name: "in-context-recall",
    title: "Values of keys that come again",
    source: "MAD, arXiv 2403.17844; athms/mad-lab, mad/data/instances.py",
    length_meaning: "all tokens: keys and values in turn; an odd length ends with a key (the source's 128 is 127)",
    scored: "the value of each key that has come before, as the last has",
    chance_meaning: "a value at random",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "vocab",
            help: "token ids; of those that are not noise half are keys, half values",
            default: OptionValue::Integer(16),
            allowed: Allowed::Integer(4, 8192),
        },
        OptionSpec {
            name: "noise_vocab",
            help: "token ids of noise among them",
            default: OptionValue::Integer(0),
            allowed: Allowed::Integer(0, 4096),
        },
        OptionSpec {
            name: "noise",
            help: "share of pairs that are noise; the source's noisy recall is vocab=32,noise_vocab=16,noise=0.2",
            default: OptionValue::Float(0.0),
            allowed: Allowed::Float(0.0, 0.99),
        },
    ],
    materials: &[],
    build: |options, _| InContext::new(options).map(|task| Box::new(task) as Box<dyn Task>),
};

pub(crate) static MEMORIZATION: TaskSpec = TaskSpec {
    name: "memorization",
    title: "Values of keys that are the same in every example",
    source: "MAD, arXiv 2403.17844; athms/mad-lab, mad/data/instances.py",
    length_meaning: "all tokens: keys and markers in turn, an odd length has one marker before",
    scored: "the value of the key before each marker",
    chance_meaning: "a value at random",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[OptionSpec {
        name: "vocab",
        help: "token ids: half are keys, half values, and the last is the marker",
        default: OptionValue::Integer(256),
        allowed: Allowed::Integer(5, 65536),
    }],
    materials: &[],
    build: |options, _| Ok(Box::new(Memorization::new(options))),
};

struct InContext {
    options: String,
    key: u64,
    keys: usize,
    values: usize,
    noise_vocab: usize,
    noise: f64,
}

impl InContext {
    fn new(options: &Options) -> Result<Self, TaskError> {
        let (vocab, noise_vocab) = (options.integer("vocab"), options.integer("noise_vocab"));
        let noise = options.float("noise").unwrap_or(0.0);
        let refused = |reason: String| {
            let task = IN_CONTEXT.name.to_owned();
            Err(TaskError::BadCombination { task, reason })
        };
        if vocab < noise_vocab + 4 {
            return refused(format!(
                "of {vocab} token ids {noise_vocab} are noise; use vocab={} for two keys and two values",
                noise_vocab + 4
            ));
        }
        if noise > 0.0 && noise_vocab == 0 {
            return refused("there are no tokens of noise; use noise_vocab=1 or more".to_owned());
        }
        let text = options.text();
        Ok(Self {
            key: key(IN_CONTEXT.name, &text),
            options: text,
            keys: (vocab - noise_vocab) / 2,
            values: (vocab - noise_vocab).div_ceil(2),
            noise_vocab,
            noise,
        })
    }
}

impl Task for InContext {
    fn spec(&self) -> &'static TaskSpec {
        &IN_CONTEXT
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.keys + self.values + self.noise_vocab
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(1.0 / self.values as f64)
    }

    fn min_length(&self) -> usize {
        3
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (127, 127)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut plan = Draws::new(self.key, at, attempt, Purpose::Plan);
        let pairs = at.length.div_ceil(2);
        let never_noise = plan.below(pairs - 1);
        let values = (0..self.keys).map(|_| plan.below(self.values) as u16);
        let recall = Pairs {
            of: values.collect(),
            values: self.values,
            never_noise,
            len: at.length,
            noise_vocab: self.noise_vocab,
            noise: self.noise,
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
        };
        Box::new(Stepped::new(recall, Vec::new()))
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        let token = token as usize;
        match token.checked_sub(self.keys) {
            None => format!("k{token}").into(),
            Some(value) if value < self.values => format!("v{value}").into(),
            Some(_) => ".".into(),
        }
    }
}

/// Pairs of a key and its value, or of two tokens of noise.
struct Pairs {
    /// The value of each key.
    of: Vec<u16>,
    /// Number of values.
    values: usize,
    /// A pair that is none of noise whatever is drawn, so that there is a key for the last to be.
    never_noise: usize,
    len: usize,
    noise_vocab: usize,
    noise: f64,
    /// Four draws a pair.
    draws: Draws,
}

/// Which keys have come, and the pair that is being written.
#[derive(Clone)]
struct Seen {
    keys: Vec<u64>,
    pair: [u32; 2],
    asked: bool,
}

impl Pairs {
    fn next(&self, index: usize, seen: &mut Seen, draws: &mut Draws) {
        let keys = self.of.len();
        let (kind, drawn) = (draws.unit(), draws.below(keys));
        let noise = [0; 2].map(|_| (keys + self.values + draws.below(self.noise_vocab)) as u32);
        let last = index + 1 == self.len.div_ceil(2);
        if !last && index != self.never_noise && kind < self.noise {
            (seen.pair, seen.asked) = (noise, false);
            return;
        }
        // The last key is one that has come: the first such from the drawn one on.
        let has_come = |key: &usize| seen.keys[key / 64] >> (key % 64) & 1 == 1;
        let key = match last {
            true => (drawn..keys).chain(0..drawn).find(has_come),
            false => None,
        };
        let key = key.unwrap_or(drawn);
        seen.asked = has_come(&key);
        seen.keys[key / 64] |= 1 << (key % 64);
        seen.pair = [key as u32, (keys + usize::from(self.of[key])) as u32];
    }
}

/// Draws of a pair.
const DRAWS: usize = 4;

impl Steps for Pairs {
    type State = Seen;

    fn len(&self) -> usize {
        self.len
    }

    fn start(&self) -> Seen {
        Seen {
            keys: vec![0; self.of.len().div_ceil(64)],
            pair: [0; 2],
            asked: false,
        }
    }

    fn advance(&self, seen: &mut Seen, from: usize, tokens: &mut [u32], targets: &mut [i32]) {
        let mut draws = self.draws.clone();
        draws.seek(DRAWS * from.div_ceil(2));
        for (position, (token, target)) in (from..).zip(tokens.iter_mut().zip(targets)) {
            let part = position % 2;
            if part == 0 {
                self.next(position / 2, seen, &mut draws);
            }
            *token = seen.pair[part];
            *target = if part == 0 && seen.asked {
                seen.pair[1] as i32
            } else {
                -1
            };
        }
    }
}

struct Memorization {
    options: String,
    key: u64,
    keys: usize,
    values: usize,
    automaton: Arc<dyn Automaton>,
}

impl Memorization {
    fn new(options: &Options) -> Self {
        let vocab = options.integer("vocab");
        let (text, keys) = (options.text(), (vocab - 1) / 2);
        let values = vocab - 1 - keys;
        let key = key(MEMORIZATION.name, &text);
        let at = Coordinates {
            split: Split::Train,
            length: 0,
            seed: 0,
            index: 0,
        };
        let of = Draws::new(key, &at, 0, Purpose::Plan).distinct(keys, values);
        Self {
            key,
            options: text,
            keys,
            values,
            automaton: Arc::new(Known {
                values: of.into_iter().map(|value| value as u32).collect(),
            }),
        }
    }
}

impl Task for Memorization {
    fn spec(&self) -> &'static TaskSpec {
        &MEMORIZATION
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.keys + self.values + 1
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(1.0 / self.values as f64)
    }

    fn min_length(&self) -> usize {
        2
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (32, 32)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let marker = (self.keys + self.values) as u32;
        let mut sequence = Sequence::new(Filler::Alternating {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            low: [0, marker],
            count: [self.keys as u32, 1],
        });
        sequence.literal(vec![marker; at.length % 2], false);
        sequence.filler(0, at.length / 2 * 2, false);
        read(sequence, &self.automaton, Scored::All)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        let token = token as usize;
        match token.checked_sub(self.keys) {
            None => format!("k{token}").into(),
            Some(value) if value < self.values => format!("v{value}").into(),
            Some(_) => "?".into(),
        }
    }
}

/// The value of the key that was read last, at a marker. States: nothing is known yet, a key, a key and then a
/// marker.
struct Known {
    /// The value of each key.
    values: Vec<u32>,
}

impl Automaton for Known {
    fn states(&self) -> usize {
        1 + 2 * self.values.len()
    }

    fn step(&self, state: u32, token: u32) -> u32 {
        let keys = self.values.len() as u32;
        match state {
            _ if token < keys => 1 + token,
            0 => 0,
            key if key <= keys => key + keys,
            marked => marked,
        }
    }

    fn answer(&self, state: u32) -> Option<u32> {
        let keys = self.values.len();
        let key = (state as usize).checked_sub(1 + keys)?;
        Some(keys as u32 + self.values[key])
    }
}
