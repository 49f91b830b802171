//! Chains of assignments in a haystack at the level of tokens: RULER's variable tracking
//! (arXiv 2404.06654, vt). `VAR a is 12345 .` and `VAR b is VAR a .` stand at places of the haystack in the
//! order of their chain; asked for are all variables that have the number.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::Sequence;
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};
use crate::tasks::haystack::{
    self, DIGITS, IS, KEY_COUNT, KEYS, Places, Prose, QUESTION, STOP, VARIABLE, VOCAB,
};

/// Digits of a number.
const NUMBER: usize = 5;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "variable-tracking",
    title: "Variable tracking, token by token",
    source: "RULER, arXiv 2404.06654, vt",
    length_meaning: "all tokens: haystack, assignments, question and answer",
    scored: "all variables that have the number, in the order of their chain, as one answer",
    chance_meaning: "different variables at random, of 64",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[
        OptionSpec {
            name: "chains",
            help: "chains, each with a number of its own; one is asked for",
            default: OptionValue::Integer(1),
            allowed: Allowed::Integer(1, 32),
        },
        OptionSpec {
            name: "hops",
            help: "assignments of a variable to a variable in a chain",
            default: OptionValue::Integer(4),
            allowed: Allowed::Integer(1, 31),
        },
        OptionSpec {
            name: "haystack",
            help: "repeat: five sentences again and again; varied: sentences of Zipf-distributed words",
            default: OptionValue::Word("repeat"),
            allowed: Allowed::Words(&["repeat", "varied"]),
        },
    ],
    materials: &[],
    build: |options, _| Tracking::new(options).map(|task| Box::new(task) as Box<dyn Task>),
};

struct Tracking {
    options: String,
    key: u64,
    chains: usize,
    hops: usize,
    haystack: Prose,
}

impl Tracking {
    fn new(options: &Options) -> Result<Self, TaskError> {
        let (chains, hops) = (options.integer("chains"), options.integer("hops"));
        let variables = chains * (hops + 1);
        if variables > KEY_COUNT {
            return Err(TaskError::BadCombination {
                task: SPEC.name.to_owned(),
                reason: format!(
                    "{chains} chains of {hops} hops have {variables} variables, and there are {KEY_COUNT}; use fewer"
                ),
            });
        }
        Ok(Self {
            options: options.text(),
            key: key(SPEC.name, &options.text()),
            chains,
            hops,
            haystack: Prose::of(options.word("haystack")).expect("all its words are of prose"),
        })
    }

    /// Tokens of all assignments, and of question and answer.
    fn fixed_len(&self) -> usize {
        let chain = 4 + NUMBER + 6 * self.hops;
        self.chains * chain + 2 + NUMBER + self.hops + 1
    }
}

impl Task for Tracking {
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
        let guesses = (0..=self.hops).map(|hop| 1.0 / (KEY_COUNT - hop) as f64);
        Some(guesses.product())
    }

    fn min_length(&self) -> usize {
        self.haystack.sentences().start(2) + self.fixed_len()
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.min_length().next_power_of_two().max(128);
        (length, length)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let text = self.haystack.sentences();
        let phase = draws.below(text.period());
        let places = Places::new(text, phase, at.length - self.fixed_len());
        let variables: Vec<u32> = draws
            .distinct(self.chains * (self.hops + 1), KEY_COUNT)
            .into_iter()
            .map(|variable| KEYS + variable as u32)
            .collect();
        // Numbers from 10000 to 99999, all different.
        let numbers: Vec<Vec<u32>> = draws
            .distinct(self.chains, 90_000)
            .into_iter()
            .map(|number| digits(number + 10_000))
            .collect();
        let mut statements = Vec::new();
        for (chain, number) in variables.chunks(self.hops + 1).zip(&numbers) {
            let mut own: Vec<usize> = chain.iter().map(|_| draws.below(places.count())).collect();
            own.sort_unstable();
            for (hop, place) in own.into_iter().enumerate() {
                let mut tokens = vec![VARIABLE, chain[hop], IS];
                match hop.checked_sub(1) {
                    None => tokens.extend(number),
                    Some(before) => tokens.extend([VARIABLE, chain[before]]),
                }
                tokens.push(STOP);
                statements.push((place, tokens));
            }
        }
        // Stable, so that assignments of a chain at one place keep their order.
        statements.sort_by_key(|(place, _)| *place);
        let mut sequence = Sequence::new(self.haystack.filler(self.key, at, attempt));
        places.write(statements, &mut sequence);
        sequence.literal([&[QUESTION], numbers[0].as_slice(), &[IS]].concat(), false);
        sequence.literal(variables[..=self.hops].to_vec(), true);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        haystack::symbol(token)
    }
}

/// The digits of a number.
fn digits(number: usize) -> Vec<u32> {
    let mut digits = vec![0; NUMBER];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS + (rest % 10) as u32;
        rest /= 10;
    }
    digits
}
