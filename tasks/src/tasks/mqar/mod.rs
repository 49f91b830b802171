//! Multi-query associative recall, as Zoology defines it (arXiv 2312.04927, section 3 and
//! `zoology/data/multiquery_ar.py`): keys and values first, then each key once more, where its value
//! is to be said. In the forgetting form some keys are said once more with another value, which is the one to say.

mod gaps;

use std::borrow::Cow;

use self::gaps::PowerLaw;
use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "mqar",
    title: "Multi-query associative recall",
    source: "Zoology, arXiv 2312.04927, zoology/data/multiquery_ar.py",
    length_meaning: "all tokens: 2 x pairs of keys and values, then queries and filler",
    scored: "the value at each of the `pairs` queries",
    chance_meaning: "at the k-th query the value of the pair most often asked for k-th, from 160,000 trials (early pairs are asked early); 1 / pairs or more",
    version: 2,
    metric: Metric::TokenAccuracy,
    options: &[pairs(4), VOCAB, POWER_A, RANDOM_FILLER],
    materials: &[],
    build: |options, _| Mqar::new(&SPEC, options, 0).map(|task| Box::new(task) as Box<dyn Task>),
};

pub(crate) static FORGETTING: TaskSpec = TaskSpec {
    name: "forgetting-mqar",
    title: "Multi-query associative recall of what was said last",
    source: "Zoology, arXiv 2312.04927, zoology/data/forgetting_mqar.py",
    length_meaning: "all tokens: 2 x pairs of keys and values, 2 x updates, then queries and filler",
    scored: "the last value at each of the `pairs` queries",
    options: &[pairs(8), UPDATES, VOCAB, POWER_A, RANDOM_FILLER],
    build: |options, _| {
        let updates = options.integer("updates");
        Mqar::new(&FORGETTING, options, updates).map(|task| Box::new(task) as Box<dyn Task>)
    },
    version: 1,
    ..SPEC
};

/// The option `pairs`, by default this many.
const fn pairs(default: u64) -> OptionSpec {
    OptionSpec {
        name: "pairs",
        help: "key-value pairs, each queried once",
        default: OptionValue::Integer(default),
        allowed: Allowed::Integer(1, 4096),
    }
}

const UPDATES: OptionSpec = OptionSpec {
    name: "updates",
    help: "keys that are given another value after all pairs; at most `pairs`",
    default: OptionValue::Integer(4),
    allowed: Allowed::Integer(0, 4096),
};

const VOCAB: OptionSpec = OptionSpec {
    name: "vocab",
    help: "token ids; keys are below half, values from half on",
    default: OptionValue::Integer(8192),
    allowed: Allowed::Integer(8, 65536),
};

const POWER_A: OptionSpec = OptionSpec {
    name: "power_a",
    help: "exponent a of the gaps' law p(i) ~ a i^(a-1)",
    default: OptionValue::Float(0.01),
    allowed: Allowed::Float(0.001, 10.0),
};

const RANDOM_FILLER: OptionSpec = OptionSpec {
    name: "random_filler",
    help: "random tokens instead of 0 between the queries",
    default: OptionValue::Boolean(false),
    allowed: Allowed::Boolean,
};

struct Mqar {
    spec: &'static TaskSpec,
    options: String,
    key: u64,
    pairs: usize,
    /// Keys that are given another value.
    updates: usize,
    vocab: usize,
    power_a: f64,
    random_filler: bool,
}

impl Mqar {
    fn new(spec: &'static TaskSpec, options: &Options, updates: usize) -> Result<Self, TaskError> {
        let (pairs, vocab) = (options.integer("pairs"), options.integer("vocab"));
        // Keys are 1..vocab/2 without 0, the filler; values are vocab/2..vocab.
        let refuse = |reason| {
            Err(TaskError::BadCombination {
                task: spec.name.to_owned(),
                reason,
            })
        };
        if pairs >= vocab / 2 {
            return refuse(format!(
                "{pairs} pairs need more than {pairs} distinct keys, and vocab {vocab} has {}; \
                 use vocab={} or more",
                vocab / 2 - 1,
                2 * pairs + 2
            ));
        }
        if updates > pairs {
            return refuse(format!(
                "{updates} updates need as many pairs, not {pairs}; use updates={pairs} or fewer"
            ));
        }
        if pairs + updates > vocab - vocab / 2 {
            let values = pairs + updates;
            return refuse(format!(
                "{pairs} pairs and {updates} updates need {values} distinct values; use vocab={} or more",
                2 * values
            ));
        }
        Ok(Self {
            spec,
            options: options.text(),
            key: key(spec.name, &options.text()),
            pairs,
            updates,
            vocab,
            power_a: options.float("power_a").unwrap_or(0.01),
            random_filler: options.boolean("random_filler"),
        })
    }

    /// Tokens of the pairs and the updates.
    fn context(&self) -> usize {
        2 * (self.pairs + self.updates)
    }

    /// The law of the gaps at a length. Queries stand at even offsets after the context: one slot is
    /// two tokens.
    fn law(&self, length: usize) -> PowerLaw {
        PowerLaw {
            a: self.power_a,
            slots: (length - self.context()) / 2,
        }
    }
}

impl Task for Mqar {
    fn spec(&self) -> &'static TaskSpec {
        self.spec
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn chance(&self, length: usize) -> Option<f64> {
        Some(self.law(length.max(self.min_length())).chance(self.pairs))
    }

    fn min_length(&self) -> usize {
        self.context() + 2 * self.pairs
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = (8 * self.pairs + 4 * self.context()).max(64);
        (length, length)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let half = self.vocab / 2;
        let keys = draws.distinct(self.pairs, half - 1);
        // Those of the pairs, then those of the updates.
        let values = draws.distinct(self.pairs + self.updates, self.vocab - half);
        let context = self.context();
        let gaps = self.law(at.length).draw(self.pairs, &mut draws);
        let mut queries: Vec<(usize, usize)> = gaps
            .iter()
            .enumerate()
            .map(|(pair, gap)| (context + 2 * gap, pair))
            .collect();
        queries.sort_unstable();
        let filler = if self.random_filler {
            Filler::Uniform {
                draws: Draws::new(self.key, at, attempt, Purpose::Filler),
                low: 0,
                count: self.vocab as u32,
                replaced: Vec::new(),
            }
        } else {
            Filler::Constant(0)
        };
        let mut sequence = Sequence::new(filler);
        let updated = draws.distinct(self.updates, self.pairs);
        let mut last: Vec<usize> = values[..self.pairs].to_vec();
        let mut literal = Vec::with_capacity(context);
        let said = (0..self.pairs).chain(updated).zip(&values);
        for (pair, &value) in said {
            last[pair] = value;
            literal.extend([keys[pair] as u32 + 1, (half + value) as u32]);
        }
        sequence.literal(literal, false);
        for (position, pair) in queries {
            let len = position - sequence.len();
            sequence.filler(sequence.len(), len, false);
            sequence.literal(vec![keys[pair] as u32 + 1], false);
            sequence.mark(position, (half + last[pair]) as u32);
        }
        sequence.filler(sequence.len(), at.length - sequence.len(), false);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        let half = self.vocab as u32 / 2;
        match token {
            0 => ".".into(),
            key if key < half => format!("k{key}").into(),
            value => format!("v{}", value - half).into(),
        }
    }
}
