//! The k-hop induction task (Sanford, Hsu and Telgarsky, arXiv 2402.09268, section 4, and
//! `chsanford/hop-induction-heads`): go back to the last time that this letter stood, take the letter after it,
//! and do the same from there, k times.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::steps::{Stepped, Steps};
use crate::task::{Coordinates, Label, Metric, Sample, Split, Task, TaskSpec};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "k-hop",
    title: "Induction in several hops",
    source: "arXiv 2402.09268, section 4; chsanford/hop-induction-heads",
    length_meaning: "all tokens: the number of hops, then letters",
    scored: "where there is one, the letter that so many hops lead to, at each letter",
    chance_meaning: "a letter at random: 1 / letters",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "hops",
            help: "most hops: examples have 1, 2, .. of them in turn, training any number",
            default: OptionValue::Integer(4),
            allowed: Allowed::Integer(1, 16),
        },
        OptionSpec {
            name: "letters",
            help: "different letters; none follows itself",
            default: OptionValue::Integer(4),
            allowed: Allowed::Integer(3, 256),
        },
    ],
    materials: &[],
    build: |options, _| Ok(Box::new(Hops::new(options))),
};

struct Hops {
    options: String,
    key: u64,
    hops: usize,
    letters: usize,
}

impl Hops {
    fn new(options: &Options) -> Self {
        let text = options.text();
        Self {
            key: key(SPEC.name, &text),
            options: text,
            hops: options.integer("hops"),
            letters: options.integer("letters"),
        }
    }
}

impl Task for Hops {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.letters + self.hops
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        // No letter differs from another in the law.
        Some(1.0 / self.letters as f64)
    }

    fn min_length(&self) -> usize {
        // A hop goes back by as many letters as there are, on average; with twice that hardly any example has none.
        2 + 2 * self.letters * self.hops
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.min_length().max(100);
        (length, length)
    }

    fn label_cycle(&self) -> u64 {
        self.hops as u64
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut plan = Draws::new(self.key, at, attempt, Purpose::Plan);
        let hops = match at.split {
            Split::Train => 1 + plan.below(self.hops),
            _ => 1 + (at.index % self.hops as u64) as usize,
        };
        let label = Label {
            key: "hops",
            value: hops.to_string(),
        };
        let letters = Letters {
            hops,
            letters: self.letters,
            len: at.length,
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
        };
        Box::new(Stepped::new(letters, vec![label]))
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match (token as usize).checked_sub(self.letters) {
            Some(hop) => format!("hops={}", hop + 1).into(),
            None if self.letters > 26 => token.to_string().into(),
            None => char::from(b'a' + token as u8).to_string().into(),
        }
    }
}

/// The number of hops, then letters of which none follows itself.
struct Letters {
    hops: usize,
    letters: usize,
    len: usize,
    /// One draw a position.
    draws: Draws,
}

/// No letter.
const NONE: u16 = u16::MAX;

/// What hops lead to.
#[derive(Clone)]
struct Trail {
    /// The letter before, if any.
    last: u16,
    /// Where 0, 1, .. hops lead from the position after each letter's last place, `hops + 1` letters each.
    after: Vec<u16>,
}

impl Steps for Letters {
    type State = Trail;

    fn len(&self) -> usize {
        self.len
    }

    fn spacing(&self) -> usize {
        512.max(4 * self.letters * (self.hops + 1))
    }

    fn start(&self) -> Trail {
        Trail {
            last: NONE,
            after: vec![NONE; self.letters * (self.hops + 1)],
        }
    }

    fn advance(&self, trail: &mut Trail, from: usize, tokens: &mut [u32], targets: &mut [i32]) {
        let mut draws = self.draws.clone();
        draws.seek(from);
        let width = self.hops + 1;
        let mut leads = vec![NONE; width];
        for (position, (token, target)) in (from..).zip(tokens.iter_mut().zip(targets)) {
            let drawn = draws.below(self.letters - usize::from(trail.last != NONE)) as u16;
            if position == 0 {
                *token = (self.letters + self.hops - 1) as u32;
                *target = -1;
                continue;
            }
            let letter = drawn + u16::from(drawn >= trail.last);
            // No hop stays here, one goes to where this letter stood last and a position on.
            leads[0] = letter;
            let own = usize::from(letter) * width;
            leads[1..].copy_from_slice(&trail.after[own..own + width - 1]);
            if trail.last != NONE {
                let before = usize::from(trail.last) * width;
                trail.after[before..before + width].copy_from_slice(&leads);
            }
            trail.last = letter;
            *token = u32::from(letter);
            *target = match leads[self.hops] {
                NONE => -1,
                letter => i32::from(letter),
            };
        }
    }
}
