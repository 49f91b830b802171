//! The flip-flop language (Liu et al., "Exposing Attention Glitches", arXiv 2306.00946, definition 1; data
//! `synthseq/flipflop`): instructions write, read and ignore, each with a bit; the bit of a read is that of the
//! last write.

use std::borrow::Cow;
use std::sync::Arc;

use crate::automaton::{Automaton, Scored, read};
use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence, Written};
use crate::task::{Coordinates, Metric, Sample, Split, Task, TaskSpec};

const WRITE: u32 = 0;
const READ: u32 = 1;
const IGNORE: u32 = 2;
const BITS: u32 = 3;
const PAD: u32 = 5;

/// What `ignore=grid` goes over: the source's dense examples, those of its training, and its sparse ones.
const GRID: [f64; 3] = [0.1, 0.8, 0.98];

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "flip-flop",
    title: "Flip-flop language: the bit written last",
    source: "Attention Glitches, arXiv 2306.00946, definition 1; synthseq/flipflop",
    length_meaning: "all tokens, two an instruction; an odd length has one pad before",
    scored: "the bit of each read",
    chance_meaning: "1 / 2",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "ignore",
            help: "share of ignore among measured instructions, the rest write and read by halves; grid: 0.1, 0.8 and 0.98 in turn",
            default: OptionValue::Float(0.8),
            allowed: Allowed::WordOrFloat("grid", 0.0, 0.999),
        },
        OptionSpec {
            name: "train_ignore",
            help: "the same in training and validation",
            default: OptionValue::Float(0.8),
            allowed: Allowed::Float(0.0, 0.999),
        },
    ],
    materials: &[],
    build: |options, _| Ok(Box::new(FlipFlop::new(options))),
};

struct FlipFlop {
    options: String,
    key: u64,
    /// None goes over the grid.
    ignore: Option<f64>,
    train_ignore: f64,
    automaton: Arc<dyn Automaton>,
}

impl FlipFlop {
    fn new(options: &Options) -> Self {
        let text = options.text();
        Self {
            key: key(SPEC.name, &text),
            options: text,
            ignore: options.float("ignore"),
            train_ignore: options.float("train_ignore").unwrap_or(0.8),
            automaton: Arc::new(Memory),
        }
    }
}

impl Task for FlipFlop {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        6
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(0.5)
    }

    fn min_length(&self) -> usize {
        4
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (512, 512)
    }

    fn label_cycle(&self) -> u64 {
        match self.ignore {
            Some(_) => 1,
            None => GRID.len() as u64,
        }
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let in_turn = GRID[(at.index % GRID.len() as u64) as usize];
        let ignore = match at.split {
            Split::Test => self.ignore.unwrap_or(in_turn),
            Split::Train | Split::Validation => self.train_ignore,
        };
        let count = at.length / 2;
        let mut sequence = Sequence::new(Filler::Written(Arc::new(Instructions {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            count,
            ignore,
        })));
        sequence.literal(vec![PAD; at.length % 2], false);
        sequence.filler(0, 2 * count, false);
        if self.ignore.is_none() {
            sequence.label("ignore", ignore.to_string());
        }
        read(sequence, &self.automaton, Scored::All)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        ["w", "r", "i", "0", "1", "_"][token as usize].into()
    }
}

/// Instructions, each with its bit.
struct Instructions {
    /// Two draws an instruction.
    draws: Draws,
    count: usize,
    ignore: f64,
}

impl Instructions {
    /// The instruction at the place of the draws, and a bit of its own.
    fn drawn(&self, index: usize, draws: &mut Draws) -> (u32, u32) {
        let (kind, bit) = (draws.unit(), BITS + draws.below(2) as u32);
        let instruction = if index == 0 {
            WRITE
        } else if index + 1 == self.count {
            READ
        } else if kind < self.ignore {
            IGNORE
        } else if kind < (1.0 + self.ignore) / 2.0 {
            WRITE
        } else {
            READ
        };
        (instruction, bit)
    }

    /// The bit of the last write before an instruction. Writes are as frequent as reads, so that over all reads
    /// this looks at about as many instructions as there are.
    fn written_before(&self, index: usize) -> u32 {
        let mut draws = self.draws.clone();
        let mut writes = (0..index).rev().filter_map(|before| {
            draws.seek(2 * before);
            let (instruction, bit) = self.drawn(before, &mut draws);
            (instruction == WRITE).then_some(bit)
        });
        writes.next().expect("the first instruction writes")
    }
}

impl Written for Instructions {
    fn write(&self, from: usize, tokens: &mut [u32]) {
        let mut draws = self.draws.clone();
        let mut last = None;
        let first = from / 2;
        draws.seek(2 * first);
        for index in first..(from + tokens.len()).div_ceil(2) {
            let (instruction, mut bit) = self.drawn(index, &mut draws);
            match instruction {
                WRITE => last = Some(bit),
                READ => bit = *last.get_or_insert_with(|| self.written_before(index)),
                _ => {}
            }
            for (place, token) in [(2 * index, instruction), (2 * index + 1, bit)] {
                let inside = place.checked_sub(from);
                if let Some(inside) = inside.and_then(|inside| tokens.get_mut(inside)) {
                    *inside = token;
                }
            }
        }
    }
}

/// The bit written last. A state is 2 kind + bit, where the kind is of an instruction whose bit has not been read
/// yet: none, write, read.
struct Memory;

impl Automaton for Memory {
    fn states(&self) -> usize {
        6
    }

    fn step(&self, state: u32, token: u32) -> u32 {
        let (kind, bit) = (state / 2, state % 2);
        match token {
            WRITE => 2 + bit,
            READ => 4 + bit,
            IGNORE | PAD => bit,
            data if kind == 1 => data - BITS,
            _ => bit,
        }
    }

    fn answer(&self, state: u32) -> Option<u32> {
        (state / 2 == 2).then_some(BITS + state % 2)
    }
}
