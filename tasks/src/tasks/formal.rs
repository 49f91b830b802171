//! Regular languages: uniform letters that a finite automaton reads, whose answer is asked for. Parity, even
//! pairs, cycle navigation and modular arithmetic without brackets (Delétang et al., arXiv 2207.02098, appendix
//! A; settings of Grazzi et al., arXiv 2411.12537, section 5.1: trained on lengths 3 to 40, tested to 256) are
//! this over one automaton each, and so are words over a group (`groups.rs`).

use std::borrow::Cow;
use std::sync::Arc;

use crate::automaton::{Alphabet, Automaton, Scored, likeliest, read};
use crate::chance::remembered;
use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

pub(crate) static PARITY: TaskSpec = TaskSpec {
    name: "parity",
    title: "Parity of a bit string",
    source: "arXiv 2207.02098, appendix A; settings of arXiv 2411.12537, section 5.1",
    length_meaning: "the bits, which are all tokens",
    scored: "whether the number of ones is odd, at the last bit",
    chance_meaning: "1 / 2",
    version: 2,
    metric: Metric::TokenAccuracy,
    options: &[],
    materials: &[],
    build: |options, _| {
        Ok(Box::new(Language {
            alphabets: vec![Alphabet { low: 1, count: 2 }],
            symbols: ["_", "0", "1"].map(str::to_owned).to_vec(),
            ..Language::new(&PARITY, options, Arc::new(Parity))
        }))
    },
};

pub(crate) static EVEN_PAIRS: TaskSpec = TaskSpec {
    name: "even-pairs",
    title: "Even number of unequal neighbours in a bit string",
    source: "arXiv 2207.02098, appendix A; settings of arXiv 2509.22284",
    length_meaning: "the bits, which are all tokens",
    scored: "whether the number of 01 and 10 is odd, at the last bit: whether first and last bit differ",
    chance_meaning: "1 / 2",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[],
    materials: &[],
    build: |options, _| {
        Ok(Box::new(Language {
            alphabets: vec![Alphabet { low: 0, count: 2 }],
            symbols: ["0", "1"].map(str::to_owned).to_vec(),
            min_length: 2,
            ..Language::new(&EVEN_PAIRS, options, Arc::new(EvenPairs))
        }))
    },
};

pub(crate) static CYCLE: TaskSpec = TaskSpec {
    name: "cycle-navigation",
    title: "Place on a circle after a walk",
    source: "arXiv 2207.02098, appendix A; settings of arXiv 2509.22284",
    length_meaning: "the steps, which are all tokens",
    scored: "the place after the last step, from 0 on",
    chance_meaning: "the likeliest place after so many steps, exactly; near 1 / places for many",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[OptionSpec {
        name: "places",
        help: "places on the circle",
        default: OptionValue::Integer(5),
        allowed: Allowed::Integer(2, 64),
    }],
    materials: &[],
    build: |options, _| {
        let places = options.integer("places") as u32;
        let steps = ["stay", "+1", "-1"].map(str::to_owned).into_iter();
        Ok(Box::new(Language {
            alphabets: vec![Alphabet { low: 0, count: 3 }],
            symbols: steps
                .chain((0..places).map(|place| place.to_string()))
                .collect(),
            ..Language::new(&CYCLE, options, Arc::new(Cycle { places }))
        }))
    },
};

pub(crate) static ARITHMETIC: TaskSpec = TaskSpec {
    name: "modular-arithmetic",
    title: "Modular arithmetic without brackets",
    source: "arXiv 2207.02098, appendix A (simple); settings of arXiv 2411.12537, section 5.1",
    length_meaning: "all tokens: digits and operators in turn and `=` at the end, an odd length has one pad before",
    scored: "the value modulo `modulus` at the `=`, with * before + and -",
    chance_meaning: "the likeliest value of so many digits, exactly: 0, because a product with a 0 is 0; near 1 / modulus for many",
    version: 2,
    metric: Metric::TokenAccuracy,
    options: &[OptionSpec {
        name: "modulus",
        help: "digits are 0..modulus - 1",
        default: OptionValue::Integer(5),
        allowed: Allowed::Integer(2, 64),
    }],
    materials: &[],
    build: |options, _| {
        let modulus = options.integer("modulus") as u32;
        let automaton = Arithmetic { modulus };
        let digits = (0..modulus).map(|digit| digit.to_string());
        let before = ["_".to_owned()].into_iter().chain(digits);
        Ok(Box::new(Language {
            alphabets: vec![
                Alphabet {
                    low: 1,
                    count: modulus,
                },
                Alphabet {
                    low: automaton.plus(),
                    count: 3,
                },
            ],
            symbols: before
                .chain(["+", "-", "*", "="].map(str::to_owned))
                .collect(),
            min_length: 2,
            ending: Some(automaton.plus() + 3),
            ..Language::new(&ARITHMETIC, options, Arc::new(automaton))
        }))
    },
};

/// Letters drawn uniformly, read by an automaton.
pub(super) struct Language {
    pub spec: &'static TaskSpec,
    pub options: String,
    pub automaton: Arc<dyn Automaton>,
    /// One alphabet, or two that take turns.
    pub alphabets: Vec<Alphabet>,
    /// Each token in readable form, by its id.
    pub symbols: Vec<String>,
    pub min_length: usize,
    pub train_lengths: (usize, usize),
    /// What follows the letters, whose number is then odd; an odd length has a pad, 0, before them.
    pub ending: Option<u32>,
    pub scored: Scored,
}

impl Language {
    /// A language whose last answer is asked for, still without letters.
    pub fn new(spec: &'static TaskSpec, options: &Options, automaton: Arc<dyn Automaton>) -> Self {
        Self {
            spec,
            options: options.text(),
            automaton,
            alphabets: Vec::new(),
            symbols: Vec::new(),
            min_length: 1,
            train_lengths: (3, 40),
            ending: None,
            scored: Scored::Last,
        }
    }

    fn key(&self) -> u64 {
        key(self.spec.name, &self.options)
    }

    /// Letters of a length.
    fn letters(&self, length: usize) -> usize {
        match self.ending {
            None => length,
            Some(_) => length / 2 * 2 - 1,
        }
    }

    fn filler(&self, draws: Draws) -> Filler {
        match *self.alphabets.as_slice() {
            [first, second] => Filler::Alternating {
                draws,
                low: [first.low, second.low],
                count: [first.count, second.count],
            },
            _ => Filler::Uniform {
                draws,
                low: self.alphabets[0].low,
                count: self.alphabets[0].count,
                replaced: Vec::new(),
            },
        }
    }
}

impl Task for Language {
    fn spec(&self) -> &'static TaskSpec {
        self.spec
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.symbols.len()
    }

    fn chance(&self, length: usize) -> Option<f64> {
        let letters = self.letters(length);
        let known = (self.spec.name, [self.key(), letters as u64, 0]);
        let automaton = self.automaton.as_ref();
        Some(remembered(known, || {
            likeliest(
                automaton,
                &self.alphabets,
                letters,
                self.ending,
                self.scored,
            )
        }))
    }

    fn min_length(&self) -> usize {
        self.min_length
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        self.train_lengths
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let letters = self.letters(at.length);
        let ending: Vec<u32> = self.ending.into_iter().collect();
        let draws = Draws::new(self.key(), at, attempt, Purpose::Filler);
        let mut sequence = Sequence::new(self.filler(draws));
        sequence.literal(vec![0; at.length - letters - ending.len()], false);
        sequence.filler(0, letters, false);
        sequence.literal(ending, false);
        read(sequence, &self.automaton, self.scored)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        self.symbols[token as usize].clone().into()
    }
}

/// Tokens: 1 and 2 for the bits 0 and 1, and for an even and an odd number of ones.
struct Parity;

impl Automaton for Parity {
    fn states(&self) -> usize {
        2
    }

    fn step(&self, state: u32, token: u32) -> u32 {
        state ^ u32::from(token == 2)
    }

    fn answer(&self, state: u32) -> Option<u32> {
        Some(1 + state)
    }
}

/// Tokens: the bits, and for an even and an odd number of unequal neighbours. States: nothing read, or
/// 1 + 2 first bit + last bit.
struct EvenPairs;

impl Automaton for EvenPairs {
    fn states(&self) -> usize {
        5
    }

    fn step(&self, state: u32, token: u32) -> u32 {
        let first = state.checked_sub(1).map_or(token, |bits| bits / 2);
        1 + 2 * first + token
    }

    fn answer(&self, state: u32) -> Option<u32> {
        let bits = state.checked_sub(1)?;
        Some(u32::from(bits / 2 != bits % 2))
    }
}

/// Tokens: stay, forward, back, then the places.
struct Cycle {
    places: u32,
}

impl Automaton for Cycle {
    fn states(&self) -> usize {
        self.places as usize
    }

    fn step(&self, state: u32, token: u32) -> u32 {
        let step = [0, 1, self.places - 1][token as usize];
        (state + step) % self.places
    }

    fn answer(&self, state: u32) -> Option<u32> {
        Some(3 + state)
    }
}

/// Tokens: pad 0, digits 1..=modulus, then + - * and =. A state is what was read last (a digit, one of the
/// operators, `=`), the sum so far and the product that is still open.
struct Arithmetic {
    modulus: u32,
}

impl Arithmetic {
    const DIGIT: u32 = 1;
    const MINUS: u32 = 2;
    const TIMES: u32 = 3;
    const EQUALS: u32 = 4;

    fn plus(&self) -> u32 {
        self.modulus + 1
    }
}

impl Automaton for Arithmetic {
    fn states(&self) -> usize {
        5 * (self.modulus * self.modulus) as usize
    }

    fn step(&self, state: u32, token: u32) -> u32 {
        let m = self.modulus;
        let (last, sum, product) = (state / (m * m), state / m % m, state % m);
        let packed = |last: u32, sum: u32, product: u32| (last * m + sum) * m + product;
        let Some(digit) = token.checked_sub(1) else {
            return state;
        };
        if digit >= m {
            // + is 0, as before the first digit.
            let operator = [0, Self::MINUS, Self::TIMES, Self::EQUALS][(digit - m) as usize];
            return packed(operator, sum, product);
        }
        match last {
            Self::MINUS => packed(Self::DIGIT, (sum + product) % m, (m - digit) % m),
            Self::TIMES => packed(Self::DIGIT, sum, product * digit % m),
            _ => packed(Self::DIGIT, (sum + product) % m, digit),
        }
    }

    fn answer(&self, state: u32) -> Option<u32> {
        let m = self.modulus;
        let ended = state / (m * m) == Self::EQUALS;
        ended.then_some(1 + (state / m % m + state % m) % m)
    }

    fn period(&self) -> usize {
        2
    }
}
