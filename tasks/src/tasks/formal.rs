//! Regular languages with a counted answer at the end: parity, and modular arithmetic without
//! brackets (Delétang et al., arXiv 2207.02098, appendix A; settings of Grazzi et al., arXiv 2411.12537,
//! section 5.1: trained on lengths 3 to 40, tested to 256).

use std::borrow::Cow;

use crate::chance::remembered;
use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue};
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
        let options = options.text();
        Ok(Box::new(Parity {
            key: key(PARITY.name, &options),
            options,
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
        let modulus = options.integer("modulus");
        let options = options.text();
        Ok(Box::new(Arithmetic {
            key: key(ARITHMETIC.name, &options),
            options,
            modulus,
        }))
    },
};

/// Tokens read at a time while the answer is computed.
const BLOCK: usize = 4096;

struct Parity {
    options: String,
    key: u64,
}

impl Task for Parity {
    fn spec(&self) -> &'static TaskSpec {
        &PARITY
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        3
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(0.5)
    }

    fn min_length(&self) -> usize {
        1
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (3, 40)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let filler = Filler::Uniform {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            low: 1,
            count: 2,
            replaced: Vec::new(),
        };
        let mut ones = 0;
        let mut block = [0; BLOCK];
        for start in (0..at.length).step_by(BLOCK) {
            let bits = &mut block[..BLOCK.min(at.length - start)];
            filler.write(start, bits);
            ones += bits.iter().filter(|&&bit| bit == 2).count();
        }
        let mut sequence = Sequence::new(filler);
        sequence.filler(0, at.length, false);
        sequence.mark(at.length - 1, 1 + (ones % 2) as u32);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match token {
            0 => "_".into(),
            bit => (bit - 1).to_string().into(),
        }
    }
}

struct Arithmetic {
    options: String,
    key: u64,
    modulus: usize,
}

impl Arithmetic {
    /// Tokens: pad 0, digits 1..=modulus, then + - * and =.
    fn plus(&self) -> u32 {
        self.modulus as u32 + 1
    }

    /// The value of the expression of `count` digits drawn from the filler stream.
    fn value(&self, draws: &mut Draws, count: usize) -> usize {
        let m = self.modulus as i64;
        draws.seek(0);
        let (mut sum, mut product) = (0, draws.below(self.modulus) as i64);
        for _ in 1..count {
            let operator = draws.below(3);
            let digit = draws.below(self.modulus) as i64;
            match operator {
                0 => (sum, product) = ((sum + product) % m, digit),
                1 => (sum, product) = ((sum + product) % m, (m - digit) % m),
                _ => product = product * digit % m,
            }
        }
        ((sum + product) % m) as usize
    }
}

/// Probability of the likeliest value of an expression of `digits` digits, all equally likely as are the
/// operators: the law of (sum so far, last product) goes from digit to digit. It is settled, to float64,
/// long before 200 digits.
fn likeliest_value(m: usize, digits: usize) -> f64 {
    let uniform = 1.0 / m as f64;
    let mut law = vec![0.0; m * m];
    law[..m].fill(uniform);
    for _ in 1..digits.min(200) {
        let mut next = vec![0.0; m * m];
        for (sum, row) in law.chunks(m).enumerate() {
            for (product, &mass) in row.iter().enumerate() {
                for digit in 0..m {
                    // `+` leaves a digit as it is, `-` negates it, and both are as likely.
                    next[(sum + product) % m * m + digit] += mass * uniform * 2.0 / 3.0;
                    next[sum * m + product * digit % m] += mass * uniform / 3.0;
                }
            }
        }
        law = next;
    }
    let mut values = vec![0.0; m];
    for (sum, row) in law.chunks(m).enumerate() {
        for (product, mass) in row.iter().enumerate() {
            values[(sum + product) % m] += mass;
        }
    }
    values.into_iter().fold(0.0, f64::max)
}

impl Task for Arithmetic {
    fn spec(&self) -> &'static TaskSpec {
        &ARITHMETIC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.modulus + 5
    }

    fn chance(&self, length: usize) -> Option<f64> {
        let (modulus, digits) = (self.modulus, (length / 2).max(1));
        let known = (ARITHMETIC.name, [modulus as u64, digits as u64, 0]);
        Some(remembered(known, || likeliest_value(modulus, digits)))
    }

    fn min_length(&self) -> usize {
        2
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (3, 40)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let digits = at.length / 2;
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Filler);
        let value = self.value(&mut draws, digits);
        draws.seek(0);
        let (modulus, plus) = (self.modulus as u32, self.plus());
        let mut sequence = Sequence::new(Filler::Alternating {
            draws,
            low: [1, plus],
            count: [modulus, 3],
        });
        sequence.literal(vec![0; at.length - 2 * digits], false);
        sequence.filler(0, 2 * digits - 1, false);
        sequence.literal(vec![plus + 3], false);
        sequence.mark(at.length - 1, 1 + value as u32);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        const SIGNS: [&str; 4] = ["+", "-", "*", "="];
        match token {
            0 => "_".into(),
            digit if digit <= self.modulus as u32 => (digit - 1).to_string().into(),
            sign => SIGNS[((sign - self.plus()) as usize).min(3)].into(),
        }
    }
}
