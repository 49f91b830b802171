//! The letter that occurs most often (Huang et al., arXiv 2410.02140, and
//! `lacoco-lab/length_generalization`): `$x|a.` over 26 letters or over two.

use std::borrow::Cow;
use std::sync::Arc;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::parts::ATTEMPTS;
use crate::permutation::Permutation;
use crate::sequence::{Filler, Sequence, Written};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};
use crate::tasks::copying::Marks;

pub(crate) static MAJORITY: TaskSpec = TaskSpec {
    name: "majority",
    title: "The most frequent letter",
    source: "arXiv 2410.02140; lacoco-lab/length_generalization, algorithmic",
    length_meaning: "all tokens of $x|a. ; x has length - 4 letters",
    scored: "the letter that occurs most often in x, and the full stop, as one answer",
    chance_meaning: "a letter at random: 1 / letters",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[OptionSpec {
        name: "letters",
        help: "different letters, all as likely; strings without a single most frequent one are left out",
        default: OptionValue::Integer(26),
        allowed: Allowed::Integer(2, 256),
    }],
    materials: &[],
    build: |options, _| {
        let letters = options.integer("letters");
        Ok(Box::new(Majority::new(&MAJORITY, options, letters)))
    },
};

pub(crate) static BIN_MAJORITY: TaskSpec = TaskSpec {
    name: "bin-majority",
    title: "The more frequent of two bits",
    source: "arXiv 2410.02140; lacoco-lab/length_generalization, algorithmic",
    length_meaning: "all tokens of $x|a. ; x has length - 4 bits",
    scored: "the bit that occurs more often in x, and the full stop, as one answer",
    chance_meaning: "1 / 2",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[],
    materials: &[],
    build: |options, _| {
        Ok(Box::new(Majority {
            bits: true,
            ..Majority::new(&BIN_MAJORITY, options, 2)
        }))
    },
};

/// Letters counted at a time.
const BLOCK: usize = 4096;

struct Majority {
    spec: &'static TaskSpec,
    options: String,
    key: u64,
    marks: Marks,
    /// Whether any number of ones is as likely, in place of each letter.
    bits: bool,
}

impl Majority {
    fn new(spec: &'static TaskSpec, options: &Options, letters: usize) -> Self {
        let options = options.text();
        Self {
            spec,
            key: key(spec.name, &options),
            options,
            marks: Marks { letters },
            bits: false,
        }
    }

    /// So many bits in random order, of which any number but the half are ones, and the more frequent.
    fn bits(&self, count: usize, at: &Coordinates, attempt: u64) -> (Filler, u32) {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let ones = if count.is_multiple_of(2) {
            let drawn = draws.below(count);
            drawn + usize::from(drawn >= count / 2)
        } else {
            draws.below(count + 1)
        };
        let order = Permutation::new(count, &mut draws);
        let bits = Shuffled { count, ones, order };
        (Filler::Written(Arc::new(bits)), u32::from(2 * ones > count))
    }

    /// Uniform letters of which one is the most frequent, and that one: the first that are drawn so.
    fn letters(&self, count: usize, at: &Coordinates, attempt: u64) -> (Filler, u32) {
        let drawn = (0..).map(|again| {
            let filler = Filler::Uniform {
                draws: Draws::new(self.key, at, attempt + ATTEMPTS * again, Purpose::Filler),
                low: 0,
                count: self.marks.letters as u32,
                replaced: Vec::new(),
            };
            let most = self.most_frequent(&filler, count);
            most.map(|letter| (filler, letter))
        });
        let mut found = drawn.flatten();
        found.next().expect("endless attempts")
    }

    /// The letter that occurs more often than any other.
    fn most_frequent(&self, filler: &Filler, count: usize) -> Option<u32> {
        let mut counts = vec![0_usize; self.marks.letters];
        let mut block = vec![0; BLOCK.min(count)];
        for start in (0..count).step_by(BLOCK) {
            let letters = &mut block[..BLOCK.min(count - start)];
            filler.write(start, letters);
            for &letter in letters.iter() {
                counts[letter as usize] += 1;
            }
        }
        let most = counts.iter().copied().max()?;
        let mut with_most = (0..).zip(&counts).filter(|(_, count)| **count == most);
        let (letter, _) = with_most.next()?;
        with_most.next().is_none().then_some(letter)
    }
}

impl Task for Majority {
    fn spec(&self) -> &'static TaskSpec {
        self.spec
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.marks.vocab()
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        // No letter differs from another in the law.
        Some(1.0 / self.marks.letters as f64)
    }

    fn min_length(&self) -> usize {
        5
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (5, 54)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let count = at.length - 4;
        let (filler, most) = if self.bits {
            self.bits(count, at, attempt)
        } else {
            self.letters(count, at, attempt)
        };
        let mut sequence = Sequence::new(filler);
        sequence.literal(vec![self.marks.start()], false);
        sequence.filler(0, count, false);
        sequence.literal(vec![self.marks.bar()], false);
        sequence.literal(vec![most, self.marks.stop()], true);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        self.marks.symbol(token, self.bits)
    }
}

/// Ones before zeros, in random order.
struct Shuffled {
    count: usize,
    ones: usize,
    order: Permutation,
}

impl Written for Shuffled {
    fn write(&self, from: usize, tokens: &mut [u32]) {
        let places = from..(from + tokens.len()).min(self.count);
        let mut tokens = tokens.iter_mut();
        self.order.each(places, |item| {
            if let Some(token) = tokens.next() {
                *token = u32::from(item < self.ones);
            }
        });
    }
}
