//! A phone book and a name to look up, at the level of tokens: the form of Jelassi et al. (arXiv 2402.01032, section
//! 4.2), with names of two tokens and numbers of ten digits. Two entries are asked for and answered first, as
//! examples of the question; the third is scored.

use std::borrow::Cow;
use std::sync::Arc;

use crate::draws::{Draws, Purpose, key};
use crate::permutation::Permutation;
use crate::sequence::{Filler, Records, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

const COLON: u32 = 1;
const LINE: u32 = 2;
const QUESTION: u32 = 3;
const DIGITS: u32 = 4;
const FIRST: u32 = 14;
/// First names, and as many last names: their pairs suffice for the entries of a million tokens.
const NAMES: usize = 288;
const LAST: u32 = FIRST + NAMES as u32;
const VOCAB: usize = LAST as usize + NAMES;
/// Digits of a number, the first of them 6 to 9.
const NUMBER: usize = 10;
/// Tokens of an entry: first and last name, colon, number, end of the line.
const ENTRY: usize = 4 + NUMBER;
/// Entries that are asked for.
const ASKED: usize = 3;
/// Tokens of a question with its answer, but for the last, which has no end of the line.
const ASK: usize = 1 + ENTRY;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "phonebook",
    title: "A name to look up in a phone book, token by token",
    source: "Jelassi et al., arXiv 2402.01032, section 4.2",
    length_meaning: "all tokens: entries of 14, of which the last may be cut, two questions with answers, the third question and its answer",
    scored: "the ten digits of the third, as one answer",
    chance_meaning: "digits at random, the first 6 to 9: 1 / (4 x 10^9)",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[],
    materials: &[],
    build: |options, _| {
        let options = options.text();
        Ok(Box::new(Phonebook {
            key: key(SPEC.name, &options),
            options,
        }))
    },
};

/// All entries, each computed from its place.
struct Entries {
    draws: Draws,
    names: Permutation,
}

impl Entries {
    fn name(&self, index: usize) -> [u32; 2] {
        let name = self.names.at(index);
        [FIRST + (name / NAMES) as u32, LAST + (name % NAMES) as u32]
    }

    fn number(&self, index: usize) -> [u32; NUMBER] {
        let mut draws = self.draws.clone();
        draws.seek(index * NUMBER);
        std::array::from_fn(|place| {
            let (low, count) = if place == 0 { (6, 4) } else { (0, 10) };
            DIGITS + low + draws.below(count) as u32
        })
    }
}

impl Records for Entries {
    fn len(&self) -> usize {
        ENTRY
    }

    fn write(&self, index: usize, record: &mut [u32]) {
        record[..2].copy_from_slice(&self.name(index));
        record[2] = COLON;
        record[3..ENTRY - 1].copy_from_slice(&self.number(index));
        record[ENTRY - 1] = LINE;
    }
}

struct Phonebook {
    options: String,
    key: u64,
}

impl Task for Phonebook {
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
        Some(1.0 / 4e9)
    }

    fn min_length(&self) -> usize {
        ASKED * ENTRY + ASKED * ASK - 1
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (256, 256)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let book = at.length - (ASKED * ASK - 1);
        let entries = Entries {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            names: Permutation::new(NAMES * NAMES, &mut draws),
        };
        let count = book / ENTRY;
        let asked = draws.distinct(ASKED, count);
        let questions: Vec<(Vec<u32>, Vec<u32>)> = asked
            .iter()
            .map(|&index| {
                let [first, last] = entries.name(index);
                let number = entries.number(index).to_vec();
                (vec![QUESTION, first, last, COLON], number)
            })
            .collect();
        let mut sequence = Sequence::new(Filler::Records(Arc::new(entries)));
        sequence.filler(0, book, false);
        for (place, (question, number)) in questions.into_iter().enumerate() {
            let is_scored = place + 1 == ASKED;
            sequence.literal(question, false);
            sequence.literal(number, is_scored);
            if !is_scored {
                sequence.literal(vec![LINE], false);
            }
        }
        let depth = asked[ASKED - 1] as f64 / (count - 1) as f64;
        sequence.label("depth", format!("{depth:.1}"));
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match token {
            0 => "_".into(),
            COLON => ":".into(),
            LINE => "/".into(),
            QUESTION => "?".into(),
            DIGITS..FIRST => (token - DIGITS).to_string().into(),
            FIRST..LAST => format!("a{}", token - FIRST).into(),
            last => format!("b{}", last - LAST).into(),
        }
    }
}
