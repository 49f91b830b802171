//! Prefix-key lookup as Repeat After Me (arXiv 2402.01032, section 4, and `sjelassi/transformers_ssm_copy`):
//! `$g|x|y.` over 26 letters.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};
use crate::tasks::copying::Marks;

const LETTERS: usize = 26;
const MARKS: Marks = Marks { letters: LETTERS };

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "prefix-lookup",
    title: "Prefix-key n-gram lookup",
    source: "Repeat After Me, arXiv 2402.01032, section 4.2; sjelassi/transformers_ssm_copy",
    length_meaning: "all tokens of $g|x|y. ; x has what g, y and the four marks leave",
    scored: "the `answer` letters after g's only place in x, as one answer",
    chance_meaning: "letters at random: 26^-answer",
    version: 2,
    metric: Metric::ExactMatch,
    options: &[
        OptionSpec {
            name: "ngram",
            help: "letters of the key g",
            default: OptionValue::Integer(3),
            allowed: Allowed::Integer(2, 16),
        },
        OptionSpec {
            name: "answer",
            help: "letters of the answer y",
            default: OptionValue::Integer(1),
            allowed: Allowed::Integer(1, 64),
        },
    ],
    materials: &[],
    build: |options, _| Lookup::new(options).map(|task| Box::new(task) as Box<dyn Task>),
};

struct Lookup {
    options: String,
    key: u64,
    ngram: usize,
    answer: usize,
}

impl Lookup {
    fn new(options: &Options) -> Result<Self, TaskError> {
        Ok(Self {
            options: options.text(),
            key: key(SPEC.name, &options.text()),
            ngram: options.integer("ngram"),
            answer: options.integer("answer"),
        })
    }

    /// Indices of x whose letter must change so that the key stands at `place` only: the last letter
    /// of every other occurrence, or its first where the last belongs to the key's own place.
    fn repairs(&self, x: &Filler, count: usize, place: usize, gram: &[u32]) -> Vec<(usize, u32)> {
        const BLOCK: usize = 4096;
        let n = self.ngram;
        let own = place..place + n + self.answer;
        let mut replaced: Vec<(usize, u32)> = Vec::new();
        let mut window: Vec<u32> = Vec::with_capacity(BLOCK + n);
        let mut block = vec![0; BLOCK];
        for start in (0..count).step_by(BLOCK) {
            let len = BLOCK.min(count - start);
            x.write(start, &mut block[..len]);
            let carried = window.len().saturating_sub(n - 1);
            window.drain(..carried);
            let first = start - window.len();
            window.extend_from_slice(&block[..len]);
            for offset in 0..(window.len() + 1).saturating_sub(n) {
                let at = first + offset;
                if at == place || window[offset..offset + n] != *gram {
                    continue;
                }
                let last = at + n - 1;
                let change = if own.contains(&last) { at } else { last };
                if own.contains(&change) {
                    continue;
                }
                // The next letter that is not in the key at all cannot make a new occurrence.
                let letter = (0..LETTERS as u32).find(|letter| !gram.contains(letter));
                let letter = letter.expect("a key of at most 16 of 26 letters");
                window[change - first] = letter;
                replaced.push((change, letter));
            }
        }
        replaced.sort_unstable();
        replaced
    }
}

impl Task for Lookup {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        MARKS.vocab()
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some((1.0 / LETTERS as f64).powi(self.answer as i32))
    }

    fn min_length(&self) -> usize {
        // x holds at least the key, its answer and one letter more.
        4 + 2 * (self.ngram + self.answer) + 1
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (self.min_length(), self.min_length().max(64))
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let count = at.length - 4 - self.ngram - self.answer;
        let place = Draws::new(self.key, at, attempt, Purpose::Plan)
            .below(count - self.ngram - self.answer + 1);
        let draws = Draws::new(self.key, at, attempt, Purpose::Filler);
        // The key is drawn with all letters different from their neighbours' copies, so that it does
        // not overlap itself inside its own place.
        let uniform = |replaced| Filler::Uniform {
            draws: draws.clone(),
            low: 0,
            count: LETTERS as u32,
            replaced,
        };
        let mut own = vec![0; self.ngram + self.answer];
        uniform(Vec::new()).write(place, &mut own);
        let fixed = without_second_key(&mut own, self.ngram);
        let base: Vec<(usize, u32)> = fixed
            .into_iter()
            .map(|offset| (place + offset, own[offset]))
            .collect();
        let mut replaced = self.repairs(&uniform(base.clone()), count, place, &own[..self.ngram]);
        replaced.extend(base);
        replaced.sort_unstable();
        let mut sequence = Sequence::new(uniform(replaced));
        sequence.literal(vec![MARKS.start()], false);
        sequence.literal(own[..self.ngram].to_vec(), false);
        sequence.literal(vec![MARKS.bar()], false);
        sequence.filler(0, count, false);
        sequence.literal(vec![MARKS.bar()], false);
        sequence.literal(own[self.ngram..].to_vec(), true);
        sequence.literal(vec![MARKS.stop()], false);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        MARKS.symbol(token, false)
    }
}

/// Changes letters after the key until it occurs once only in `own`; returns their offsets.
fn without_second_key(own: &mut [u32], n: usize) -> Vec<usize> {
    let mut changed = Vec::new();
    let absent = (0..LETTERS as u32)
        .find(|letter| !own[..n].contains(letter))
        .expect("26 letters");
    // A key whose end repeats its start could overlap into the answer; a letter outside the key at
    // the end of any second occurrence removes it.
    for offset in 1..(own.len() + 1).saturating_sub(n) {
        if own[offset..offset + n] == own[..n] {
            own[offset + n - 1] = absent;
            changed.push(offset + n - 1);
        }
    }
    changed
}
