//! Modular arithmetic with brackets (Delétang et al., arXiv 2207.02098, appendix A; settings of Grazzi et al.,
//! arXiv 2411.12537, section 5.1): sums and differences, each in brackets, of expressions of random lengths.

use std::borrow::Cow;
use std::sync::Arc;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue};
use crate::sequence::{Filler, Sequence, Written};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};
use crate::tree::{Grammar, Part, Tree};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "modular-arithmetic-brackets",
    title: "Modular arithmetic with brackets",
    source: "arXiv 2207.02098, appendix A; settings of arXiv 2411.12537, section 5.1",
    length_meaning: "all tokens: an expression and `=`",
    scored: "the value modulo `modulus` at the `=`",
    chance_meaning: "1 / modulus: sums and differences of uniform digits are uniform",
    version: 1,
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
        let options = options.text();
        Ok(Box::new(Brackets {
            key: key(SPEC.name, &options),
            options,
            signs: Signs { modulus },
        }))
    },
};

/// Tokens read at a time while the value is computed.
const BLOCK: usize = 4096;

/// Tokens after the digits.
#[derive(Debug, Clone, Copy)]
struct Signs {
    modulus: u32,
}

impl Signs {
    fn plus(self) -> u32 {
        self.modulus
    }

    fn minus(self) -> u32 {
        self.modulus + 1
    }

    fn open(self) -> u32 {
        self.modulus + 2
    }

    fn close(self) -> u32 {
        self.modulus + 3
    }

    fn equals(self) -> u32 {
        self.modulus + 4
    }

    /// The value of an expression: every digit counts with a sign, which brackets and minus signs turn.
    fn value(self, expression: &dyn Written, len: usize) -> u32 {
        // Whether what stands in the brackets that are open is subtracted, and the next digit.
        let (mut subtracted, mut minus) = (vec![false], false);
        let (mut sum, mut after_value) = (0, false);
        let mut block = vec![0; BLOCK.min(len)];
        for start in (0..len).step_by(BLOCK) {
            let tokens = &mut block[..BLOCK.min(len - start)];
            expression.write(start, tokens);
            for &token in tokens.iter() {
                let outside = subtracted.last().copied().unwrap_or(false);
                if token < self.modulus {
                    let signed = if minus { self.modulus - token } else { token };
                    sum = (sum + signed) % self.modulus;
                } else if token == self.open() {
                    subtracted.push(minus);
                } else if token == self.close() {
                    subtracted.pop();
                } else if after_value {
                    minus = outside ^ (token == self.minus());
                } else {
                    // A minus sign before a digit.
                    minus = !minus;
                }
                after_value = token < self.modulus || token == self.close();
            }
        }
        sum
    }
}

struct Brackets {
    options: String,
    key: u64,
    signs: Signs,
}

impl Task for Brackets {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.signs.equals() as usize + 1
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(1.0 / f64::from(self.signs.modulus))
    }

    fn min_length(&self) -> usize {
        2
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (3, 40)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let draws = Draws::new(self.key, at, attempt, Purpose::Filler);
        let (signs, len) = (self.signs, at.length - 1);
        let expression = Arc::new(Tree {
            grammar: Sums { draws, signs },
            len,
        });
        let value = signs.value(expression.as_ref(), len);
        let mut sequence = Sequence::new(Filler::Written(expression));
        sequence.filler(0, len, false);
        sequence.literal(vec![signs.equals()], false);
        sequence.mark(len, value);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match token.checked_sub(self.signs.modulus) {
            None => token.to_string().into(),
            Some(sign) => ["+", "-", "(", ")", "="][sign as usize].into(),
        }
    }
}

/// d, -d, (d), (-d), or for five tokens and more (left + right) or (left - right), where every length of the
/// left part is as likely.
struct Sums {
    draws: Draws,
    signs: Signs,
}

/// Draws of an expression that begins at a position.
const DRAWS: usize = 2;

impl Grammar for Sums {
    fn parts(&self, start: usize, len: usize, depth: usize, parts: &mut Vec<Part>) {
        let signs = self.signs;
        let mut draws = self.draws.clone();
        draws.seek(DRAWS * start);
        if len >= 5 {
            let left = 1 + draws.below(len - 4);
            let depth = depth + 1;
            let operator = [signs.plus(), signs.minus()][draws.below(2)];
            let right = len - 3 - left;
            return parts.extend([
                Part::Token(signs.open()),
                Part::Inner { len: left, depth },
                Part::Token(operator),
                Part::Inner { len: right, depth },
                Part::Token(signs.close()),
            ]);
        }
        let digit = draws.below(signs.modulus as usize) as u32;
        let tokens: &[u32] = match len {
            1 => &[digit],
            2 => &[signs.minus(), digit],
            3 => &[signs.open(), digit, signs.close()],
            _ => &[signs.open(), signs.minus(), digit, signs.close()],
        };
        parts.extend(tokens.iter().map(|&token| Part::Token(token)));
    }
}
