//! ListOps (Nangia and Bowman, arXiv 1804.06028; long ones as in Long Range Arena, arXiv 2011.04006,
//! `lra_benchmarks/data/listops.py`): nested lists of digits, of which the least, the greatest, the median or
//! the sum modulo 10 is taken.

use std::borrow::Cow;
use std::sync::Arc;

use crate::chance::remembered;
use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence, Written};
use crate::task::{Coordinates, Metric, Sample, Split, Task, TaskSpec};
use crate::tree::{Grammar, Part, Tree};

/// Tokens: digits 0 to 9, the four operators, the end of a list.
const MIN: u32 = 10;
const MAX: u32 = 11;
const MEDIAN: u32 = 12;
const SUM: u32 = 13;
const END: u32 = 14;
const VOCAB: usize = 15;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "listops",
    title: "Value of nested lists of digits",
    source: "ListOps, arXiv 1804.06028; Long Range Arena, arXiv 2011.04006, lra_benchmarks/data/listops.py",
    length_meaning: "all tokens of the list, operators and ends included",
    scored: "the value, at the last end",
    chance_meaning: "the likeliest value, found and measured on lists of at most 256 tokens drawn for this alone",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "depth",
            help: "levels of nesting at most, that of the innermost digits included",
            default: OptionValue::Integer(10),
            allowed: Allowed::Integer(2, 32),
        },
        OptionSpec {
            name: "arguments",
            help: "most elements of a list",
            default: OptionValue::Integer(10),
            allowed: Allowed::Integer(4, 32),
        },
    ],
    materials: &[],
    build: |options, _| Ok(Box::new(ListOps::new(options))),
};

/// Tokens read at a time while the value is computed.
const BLOCK: usize = 4096;

struct ListOps {
    options: String,
    key: u64,
    shape: Shape,
}

/// How lists may be nested.
#[derive(Debug, Clone, Copy)]
struct Shape {
    depth: usize,
    arguments: usize,
}

impl Shape {
    /// Tokens of the longest expression inside of so many others.
    fn longest(self, depth: usize) -> usize {
        let levels = self.depth.saturating_sub(depth + 1);
        (0..levels).fold(1_usize, |inner, _| {
            inner.saturating_mul(self.arguments).saturating_add(2)
        })
    }
}

impl ListOps {
    fn new(options: &Options) -> Self {
        let text = options.text();
        Self {
            key: key(SPEC.name, &text),
            options: text,
            shape: Shape {
                depth: options.integer("depth"),
                arguments: options.integer("arguments"),
            },
        }
    }

    fn list(&self, at: &Coordinates, attempt: u64, purpose: Purpose) -> Tree<Lists> {
        let draws = Draws::new(self.key, at, attempt, purpose);
        let shape = self.shape;
        Tree {
            grammar: Lists { draws, shape },
            len: at.length,
        }
    }

    /// Accuracy of saying the value that is the likeliest among lists of a length, on other lists.
    fn guessed(&self, length: usize) -> f64 {
        const LISTS: u64 = 10_000;
        let count = |lists: std::ops::Range<u64>| {
            let mut values = [0_u32; 10];
            for index in lists {
                let at = Coordinates {
                    split: Split::Train,
                    length,
                    seed: 0,
                    index,
                };
                let list = self.list(&at, 0, Purpose::Chance);
                values[value(&list, length) as usize] += 1;
            }
            values
        };
        let (first, second) = (count(0..LISTS), count(LISTS..2 * LISTS));
        let likeliest = (0..10).max_by_key(|&value| first[value]).unwrap_or(0);
        f64::from(second[likeliest]) / LISTS as f64
    }
}

impl Task for ListOps {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn chance(&self, length: usize) -> Option<f64> {
        // The outermost lists decide: beyond some hundred tokens it is the same.
        let length = length.min(256);
        let known = (SPEC.name, [self.key, length as u64, 0]);
        Some(remembered(known, || self.guessed(length)))
    }

    fn min_length(&self) -> usize {
        4
    }

    fn max_length(&self) -> usize {
        self.shape.longest(0).min(1 << 20)
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let longest = self.max_length();
        (500.min(longest), 2000.min(longest))
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let list = Arc::new(self.list(at, attempt, Purpose::Filler));
        let value = value(list.as_ref(), at.length);
        let mut sequence = Sequence::new(Filler::Written(list));
        sequence.filler(0, at.length, false);
        sequence.mark(at.length - 1, value);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match token {
            MIN => "[MIN".into(),
            MAX => "[MAX".into(),
            MEDIAN => "[MED".into(),
            SUM => "[SM".into(),
            END => "]".into(),
            digit => digit.to_string().into(),
        }
    }
}

/// The value of a list of a length.
fn value(list: &dyn Written, len: usize) -> u32 {
    // Operators and elements of the lists that are open.
    let mut open: Vec<(u32, Vec<u32>)> = Vec::new();
    let mut value = 0;
    let mut block = vec![0; BLOCK.min(len)];
    for start in (0..len).step_by(BLOCK) {
        let tokens = &mut block[..BLOCK.min(len - start)];
        list.write(start, tokens);
        for &token in tokens.iter() {
            if (MIN..END).contains(&token) {
                open.push((token, Vec::new()));
                continue;
            }
            value = match open.pop_if(|_| token == END) {
                Some((operator, elements)) => applied(operator, elements),
                None => token,
            };
            if let Some((_, elements)) = open.last_mut() {
                elements.push(value);
            }
        }
    }
    value
}

/// An operator's value of a list; the median of an even number is the mean of the middle two, rounded down.
fn applied(operator: u32, mut elements: Vec<u32>) -> u32 {
    elements.sort_unstable();
    let count = elements.len();
    match operator {
        MIN => elements[0],
        MAX => elements[count - 1],
        MEDIAN => (elements[(count - 1) / 2] + elements[count / 2]) / 2,
        _ => elements.iter().sum::<u32>() % 10,
    }
}

/// Lists of an exact length. The number of elements is uniform among those that the length allows, and so is how
/// many of them are lists; lists of four tokens and more share what is left, cut at random.
struct Lists {
    draws: Draws,
    shape: Shape,
}

/// Draws of a list that begins at a position: more than any takes.
const DRAWS: usize = 128;

/// Tokens that the shortest list has more than a digit.
const SHORTEST: usize = 3;

impl Lists {
    /// The fewest and the most lists among so many elements, which together are `longer` tokens longer than as
    /// many digits and each at most `most`.
    fn nested(elements: usize, longer: usize, most: usize) -> Option<(usize, usize)> {
        if longer == 0 {
            return Some((0, 0));
        }
        if most < SHORTEST {
            return None;
        }
        let range = (longer.div_ceil(most), elements.min(longer / SHORTEST));
        (range.0 <= range.1).then_some(range)
    }
}

impl Grammar for Lists {
    fn parts(&self, start: usize, len: usize, depth: usize, parts: &mut Vec<Part>) {
        let mut draws = self.draws.clone();
        draws.seek(DRAWS * start);
        let depth = depth + 1;
        let (inside, most) = (len - 2, self.shape.longest(depth) - 1);
        let allowed: Vec<(usize, (usize, usize))> = (2..=self.shape.arguments.min(inside))
            .filter_map(|elements| {
                let lists = Self::nested(elements, inside - elements, most)?;
                Some((elements, lists))
            })
            .collect();
        let (elements, (fewest, many)) = allowed[draws.below(allowed.len())];
        let lists = fewest + draws.below(many - fewest + 1);
        let mut longer = inside - elements;
        let mut lens = vec![1; elements];
        for (done, place) in draws.distinct(lists, elements).into_iter().enumerate() {
            let after = lists - done - 1;
            let low = SHORTEST.max(longer.saturating_sub(most.saturating_mul(after)));
            let high = most.min(longer - after * SHORTEST);
            let own = low + draws.below(high - low + 1);
            lens[place] += own;
            longer -= own;
        }
        parts.push(Part::Token(MIN + draws.below(4) as u32));
        parts.extend(lens.into_iter().map(|len| match len {
            1 => Part::Token(draws.below(10) as u32),
            len => Part::Inner { len, depth },
        }));
        parts.push(Part::Token(END));
    }
}
