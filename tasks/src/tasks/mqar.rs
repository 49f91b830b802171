//! Multi-query associative recall, as Zoology defines it (arXiv 2312.04927, section 3 and
//! `zoology/data/multiquery_ar.py`): keys and values first, then each key once more, where its value
//! is to be said.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

pub(crate) const SPEC: TaskSpec = TaskSpec {
    name: "mqar",
    title: "Multi-query associative recall",
    source: "Zoology, arXiv 2312.04927, zoology/data/multiquery_ar.py",
    length_meaning: "all tokens: 2 x pairs of keys and values, then queries and filler",
    scored: "the value at each of the `pairs` queries",
    chance_meaning: "a value at random among the values of the example: 1 / pairs",
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "pairs",
            help: "key-value pairs, each queried once",
            default: OptionValue::Integer(4),
            allowed: Allowed::Integer(1, 4096),
        },
        OptionSpec {
            name: "vocab",
            help: "token ids; keys are below half, values from half on",
            default: OptionValue::Integer(8192),
            allowed: Allowed::Integer(8, 65536),
        },
        OptionSpec {
            name: "power_a",
            help: "exponent a of the gaps' law p(i) ~ a i^(a-1)",
            default: OptionValue::Float(0.01),
            allowed: Allowed::Float(0.001, 10.0),
        },
        OptionSpec {
            name: "random_filler",
            help: "random tokens instead of 0 between the queries",
            default: OptionValue::Boolean(false),
            allowed: Allowed::Boolean,
        },
    ],
    build: |options| Mqar::new(options).map(|task| Box::new(task) as Box<dyn Task>),
};

struct Mqar {
    options: String,
    key: u64,
    pairs: usize,
    vocab: usize,
    power_a: f64,
    random_filler: bool,
}

impl Mqar {
    fn new(options: &Options) -> Result<Self, TaskError> {
        let (pairs, vocab) = (options.integer("pairs"), options.integer("vocab"));
        // Keys are 1..vocab/2 without 0, the filler; values are vocab/2..vocab.
        if pairs >= vocab / 2 {
            return Err(TaskError::BadCombination {
                task: SPEC.name.to_owned(),
                reason: format!(
                    "{pairs} pairs need more than {pairs} distinct keys, and vocab {vocab} has {}; \
                     use vocab={} or more",
                    vocab / 2 - 1,
                    2 * pairs + 2
                ),
            });
        }
        Ok(Self {
            options: options.text(),
            key: key(SPEC.name, &options.text()),
            pairs,
            vocab,
            power_a: options.float("power_a").unwrap_or(0.01),
            random_filler: options.boolean("random_filler"),
        })
    }

    /// `pairs` distinct gaps in 0..slots, gap i with probability proportional to
    /// `a (i + 1)^(a - 1)`, drawn one after another without replacement.
    fn gaps(&self, slots: usize, draws: &mut Draws) -> Vec<usize> {
        let (a, last) = (self.power_a, slots as f64 + 1.0);
        // The law is discrete; its envelope is the integral of a x^(a-1) over [i+1, i+2), inverted in
        // closed form, and a candidate is kept with the ratio of the two.
        let top = last.powf(a);
        let mut gaps = Vec::with_capacity(self.pairs);
        let mut seen = (self.pairs > 64).then(std::collections::HashSet::new);
        while gaps.len() < self.pairs {
            let x = (1.0 + draws.unit() * (top - 1.0)).powf(1.0 / a);
            let gap = (x as usize).clamp(1, slots) - 1;
            let taken = match &seen {
                Some(seen) => seen.contains(&gap),
                None => gaps.contains(&gap),
            };
            if taken {
                continue;
            }
            let i = gap as f64 + 1.0;
            let mass = i.powf(a - 1.0);
            let envelope = ((i + 1.0).powf(a) - i.powf(a)) / a;
            // For a < 1 the mass is at most i^(a-1) / envelope <= 1 / (2^a - 1) * a of it.
            let bound = if a < 1.0 {
                a / (2f64.powf(a) - 1.0)
            } else {
                1.0
            };
            if draws.unit() * bound < mass / envelope {
                gaps.push(gap);
                if let Some(seen) = &mut seen {
                    seen.insert(gap);
                }
            }
        }
        gaps
    }
}

impl Task for Mqar {
    fn spec(&self) -> &'static TaskSpec {
        &crate::tasks::ALL[0]
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn chance(&self) -> f64 {
        1.0 / self.pairs as f64
    }

    fn min_length(&self) -> usize {
        4 * self.pairs
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = (16 * self.pairs).max(64);
        (length, length)
    }

    fn make(&self, at: &Coordinates) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, Purpose::Plan);
        let half = self.vocab / 2;
        let keys = draws.distinct(self.pairs, half - 1);
        let values = draws.distinct(self.pairs, self.vocab - half);
        let context = 2 * self.pairs;
        // Queries stand at even offsets after the context: one slot is two tokens.
        let gaps = self.gaps((at.length - context) / 2, &mut draws);
        let mut queries: Vec<(usize, usize)> = gaps
            .iter()
            .enumerate()
            .map(|(pair, gap)| (context + 2 * gap, pair))
            .collect();
        queries.sort_unstable();
        let filler = if self.random_filler {
            Filler::Uniform {
                draws: Draws::new(self.key, at, Purpose::Filler),
                low: 0,
                count: self.vocab as u32,
                replaced: Vec::new(),
            }
        } else {
            Filler::Constant(0)
        };
        let mut sequence = Sequence::new(filler);
        let pairs = keys.iter().zip(&values);
        let literal = pairs.flat_map(|(key, value)| [*key as u32 + 1, (half + value) as u32]);
        sequence.literal(literal.collect(), false);
        for (position, pair) in queries {
            let len = position - sequence.len();
            sequence.filler(sequence.len(), len, false);
            sequence.literal(vec![keys[pair] as u32 + 1], false);
            sequence.mark(position, (half + values[pair]) as u32);
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
