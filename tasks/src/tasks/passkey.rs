//! A passkey in repeated noise, at the level of tokens: one number of five digits, said twice in a row, as in
//! Landmark Attention (arXiv 2305.16300) and Stuffed Mamba (arXiv 2410.07145, section 3), of any depth.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::sequence::Sequence;
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};
use crate::tasks::haystack::{self, IS, MAGIC, Places, Prose, QUESTION, STOP, VOCAB};

const DIGITS: usize = 5;
/// Tokens of the statement, and of question and answer.
const STATEMENT: usize = 6 + 2 * DIGITS;
const QUESTION_LEN: usize = 3 + DIGITS;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "passkey",
    title: "A passkey in repeated noise, token by token",
    source: "Landmark Attention, arXiv 2305.16300; Stuffed Mamba, arXiv 2410.07145",
    length_meaning: "all tokens: noise, the statement, question and answer",
    scored: "the five digits, as one answer",
    chance_meaning: "digits at random, the first not 0: 1/90000",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[],
    materials: &[],
    build: |options, _| {
        let options = options.text();
        Ok(Box::new(Passkey {
            key: key(SPEC.name, &options),
            options,
        }))
    },
};

struct Passkey {
    options: String,
    key: u64,
}

impl Task for Passkey {
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
        Some(1.0 / 90_000.0)
    }

    fn min_length(&self) -> usize {
        // Two sentences of noise at least, so that there is a depth.
        Prose::Repeated.sentences().start(2) + STATEMENT + QUESTION_LEN
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (128, 128)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let noise = Prose::Repeated;
        let text = noise.sentences();
        let phase = draws.below(text.period());
        let places = Places::new(text, phase, at.length - STATEMENT - QUESTION_LEN);
        let place = draws.below(places.count());
        let digits = haystack::number(DIGITS, &mut draws);
        let parts: [&[u32]; 6] = [
            &[MAGIC, IS],
            &digits,
            &[STOP],
            &digits,
            &[IS, MAGIC],
            &[STOP],
        ];
        let mut sequence = Sequence::new(noise.filler(self.key, at, attempt));
        let depth = place as f64 / (places.count() - 1) as f64;
        places.write(vec![(place, parts.concat())], &mut sequence);
        sequence.literal(vec![QUESTION, MAGIC, IS], false);
        sequence.literal(digits, true);
        sequence.label("depth", format!("{depth:.1}"));
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        haystack::symbol(token)
    }
}
