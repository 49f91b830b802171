//! A string, then what is to be said of it: the string again (Repeat After Me, arXiv 2402.01032, section 2, and
//! `sjelassi/transformers_ssm_copy`), the same of two letters, of different letters, and in order (Huang et al.,
//! arXiv 2410.02140, and `lacoco-lab/length_generalization`, `algorithmic`), or backwards (Kimi Linear, arXiv
//! 2510.26692, section 5.1).

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

/// What a length counts where a string is copied.
const OF_COPIES: &str =
    "all tokens of $x|x. ; x has (length - 3) / 2 letters, an even length has one pad before";

pub(crate) static COPYING: TaskSpec = TaskSpec {
    name: "copying",
    title: "Copying a string",
    source: "Repeat After Me, arXiv 2402.01032, section 2; sjelassi/transformers_ssm_copy",
    length_meaning: OF_COPIES,
    scored: "the second x and the full stop, as one answer",
    chance_meaning: "a string at random: 0 to every printed digit",
    version: 2,
    metric: Metric::ExactMatch,
    options: &[],
    materials: &[],
    build: |options, _| {
        Ok(Box::new(Strings {
            train_lengths: (13, 103),
            ..Strings::new(&COPYING, options, 26)
        }))
    },
};

pub(crate) static REPEAT_COPY: TaskSpec = TaskSpec {
    name: "repeat-copy",
    title: "Copying a string of few letters",
    source: "arXiv 2410.02140; lacoco-lab/length_generalization, algorithmic",
    length_meaning: OF_COPIES,
    scored: "the second x and the full stop, as one answer",
    chance_meaning: "a string at random: 1 / letters for each",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[OptionSpec {
        name: "letters",
        help: "different letters",
        default: OptionValue::Integer(2),
        allowed: Allowed::Integer(2, 4096),
    }],
    materials: &[],
    build: |options, _| {
        let letters = options.integer("letters");
        Ok(Box::new(Strings::new(&REPEAT_COPY, options, letters)))
    },
};

/// The alphabet of strings without a repetition.
const DIFFERENT: &[OptionSpec] = &[OptionSpec {
    name: "letters",
    help: "different letters, and the most that a string can have",
    default: OptionValue::Integer(150),
    allowed: Allowed::Integer(2, 4096),
}];

pub(crate) static UNIQUE_COPY: TaskSpec = TaskSpec {
    name: "unique-copy",
    title: "Copying a string in which no letter comes again",
    source: "arXiv 2410.02140; lacoco-lab/length_generalization, algorithmic",
    length_meaning: OF_COPIES,
    scored: "the second x and the full stop, as one answer",
    chance_meaning: "different letters at random",
    version: 1,
    metric: Metric::ExactMatch,
    options: DIFFERENT,
    materials: &[],
    build: |options, _| {
        Ok(Box::new(Strings::of_different(
            &UNIQUE_COPY,
            options,
            Order::Same,
        )))
    },
};

pub(crate) static SORT: TaskSpec = TaskSpec {
    name: "sort",
    title: "Sorting different letters",
    source: "arXiv 2410.02140; lacoco-lab/length_generalization, algorithmic",
    length_meaning: "all tokens of $x|y. ; x has (length - 3) / 2 letters, an even length has one pad before",
    scored: "y, the letters of x from the lowest on, and the full stop, as one answer",
    chance_meaning: "so many different letters at random; near 1 where x has nearly all there are",
    version: 1,
    metric: Metric::ExactMatch,
    options: DIFFERENT,
    materials: &[],
    build: |options, _| {
        Ok(Box::new(Strings::of_different(
            &SORT,
            options,
            Order::Sorted,
        )))
    },
};

pub(crate) static PALINDROME: TaskSpec = TaskSpec {
    name: "palindrome",
    title: "A string backwards",
    source: "Kimi Linear, arXiv 2510.26692, section 5.1",
    length_meaning: "all tokens of x|y ; x has (length - 1) / 2 letters, an even length has one pad before",
    scored: "y, which is x backwards, but for its first letter",
    chance_meaning: "a letter at random: 1 / letters",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[OptionSpec {
        name: "letters",
        help: "different letters",
        default: OptionValue::Integer(26),
        allowed: Allowed::Integer(2, 65536),
    }],
    materials: &[],
    build: |options, _| {
        let letters = options.integer("letters");
        Ok(Box::new(Strings {
            order: Order::Reversed,
            train_lengths: (256, 2048),
            ..Strings::new(&PALINDROME, options, letters)
        }))
    },
};

/// What follows the letters in a vocabulary of strings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub letters: usize,
}

impl Marks {
    /// `$`, before a string.
    pub fn start(self) -> u32 {
        self.letters as u32
    }

    /// `|`, between strings.
    pub fn bar(self) -> u32 {
        self.letters as u32 + 1
    }

    /// `.`, after all.
    pub fn stop(self) -> u32 {
        self.letters as u32 + 2
    }

    /// `*`, before a sequence that would be a token short.
    pub fn pad(self) -> u32 {
        self.letters as u32 + 3
    }

    /// Number of token ids.
    pub fn vocab(self) -> usize {
        self.letters + 4
    }

    /// A token in readable form: letters where there are few and their order is nothing.
    pub fn symbol(self, token: u32, ordered: bool) -> Cow<'static, str> {
        match token.checked_sub(self.start()) {
            Some(mark) => ["$", "|", ".", "*"][mark as usize].into(),
            None if ordered || self.letters > 26 => token.to_string().into(),
            None => char::from(b'a' + token as u8).to_string().into(),
        }
    }
}

/// How the second string follows from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Same,
    Sorted,
    /// Without the marks before and after, which its source does not have.
    Reversed,
}

struct Strings {
    spec: &'static TaskSpec,
    options: String,
    key: u64,
    marks: Marks,
    /// Whether no letter comes again.
    different: bool,
    order: Order,
    train_lengths: (usize, usize),
}

impl Strings {
    /// Strings that are copied; trained as in arXiv 2410.02140, to 50 letters.
    fn new(spec: &'static TaskSpec, options: &Options, letters: usize) -> Self {
        let options = options.text();
        Self {
            spec,
            key: key(spec.name, &options),
            options,
            marks: Marks { letters },
            different: false,
            order: Order::Same,
            train_lengths: (5, 103),
        }
    }

    /// Strings in which no letter comes again, so that none is longer than there are letters.
    fn of_different(spec: &'static TaskSpec, options: &Options, order: Order) -> Self {
        let letters = options.integer("letters");
        Self {
            different: true,
            order,
            train_lengths: (5, 103.min(2 * letters + 3)),
            ..Self::new(spec, options, letters)
        }
    }

    /// Marks of an example.
    fn marked(&self) -> usize {
        match self.order {
            Order::Reversed => 1,
            _ => 3,
        }
    }

    /// Letters of the first string.
    fn count(&self, length: usize) -> usize {
        (length - self.marked()) / 2
    }
}

impl Task for Strings {
    fn spec(&self) -> &'static TaskSpec {
        self.spec
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.marks.vocab()
    }

    fn chance(&self, length: usize) -> Option<f64> {
        let (letters, count) = (self.marks.letters, self.count(length));
        // Of a string without repetitions each letter is one of those that are left; in order, any of the lowest
        // so many is as good as another.
        let guesses = (0..count).map(|said| {
            let left = (letters - if self.different { said } else { 0 }) as f64;
            match self.order {
                Order::Sorted => (count - said) as f64 / left,
                _ => 1.0 / left,
            }
        });
        let chance = match self.order {
            Order::Reversed => 1.0 / letters as f64,
            _ => guesses.product(),
        };
        // What no number of examples can tell from 0.
        Some(if chance < 1e-5 { 0.0 } else { chance })
    }

    fn min_length(&self) -> usize {
        5
    }

    fn max_length(&self) -> usize {
        if self.different {
            2 * self.marks.letters + 3
        } else {
            1 << 20
        }
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        self.train_lengths
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let (marks, count) = (self.marks, self.count(at.length));
        let mut sequence = Sequence::new(Filler::Uniform {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            low: 0,
            count: marks.letters as u32,
            replaced: Vec::new(),
        });
        sequence.literal(
            vec![marks.pad(); at.length - self.marked() - 2 * count],
            false,
        );
        if self.order == Order::Reversed {
            sequence.filler(0, count, false);
            sequence.literal(vec![marks.bar()], false);
            sequence.reversed(count, 1, false);
            sequence.reversed(count - 1, count - 1, true);
            return Box::new(sequence);
        }
        sequence.literal(vec![marks.start()], false);
        if self.different {
            let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
            let drawn = draws.distinct(count, marks.letters).into_iter();
            let first: Vec<u32> = drawn.map(|letter| letter as u32).collect();
            let mut second = first.clone();
            if self.order == Order::Sorted {
                second.sort_unstable();
            }
            sequence.literal(first, false);
            sequence.literal(vec![marks.bar()], false);
            sequence.literal(second, true);
        } else {
            sequence.filler(0, count, false);
            sequence.literal(vec![marks.bar()], false);
            sequence.filler(0, count, true);
        }
        sequence.literal(vec![marks.stop()], true);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        self.marks.symbol(token, self.order == Order::Sorted)
    }
}
