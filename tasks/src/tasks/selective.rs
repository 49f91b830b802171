//! Selective copying as Mamba's appendix E.1 (arXiv 2312.00752): data tokens at random places amid
//! noise, then as many markers, at each of which the next data token is to be said.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "selective-copying",
    title: "Selective copying",
    source: "Mamba, arXiv 2312.00752, section 4.1.1 and appendix E.1",
    length_meaning: "all tokens: noise with the data tokens in it, then one marker a data token",
    scored: "the data tokens in order, one at each marker",
    chance_meaning: "a data token at random: 1 / (vocab - 2)",
    version: 2,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "items",
            help: "data tokens to copy",
            default: OptionValue::Integer(16),
            allowed: Allowed::Integer(1, 4096),
        },
        OptionSpec {
            name: "vocab",
            help: "token ids: 0 is noise, the last is the marker, the rest are data",
            default: OptionValue::Integer(16),
            allowed: Allowed::Integer(4, 65536),
        },
    ],
    materials: &[],
    build: |options, _| {
        let (items, vocab) = (options.integer("items"), options.integer("vocab"));
        let options = options.text();
        Ok(Box::new(Selective {
            key: key(SPEC.name, &options),
            options,
            items,
            vocab,
        }))
    },
};

struct Selective {
    options: String,
    key: u64,
    items: usize,
    vocab: usize,
}

impl Task for Selective {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(1.0 / (self.vocab as f64 - 2.0))
    }

    fn min_length(&self) -> usize {
        2 * self.items
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (4096, 4096)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let noise = at.length - self.items;
        let mut places = draws.distinct(self.items, noise);
        places.sort_unstable();
        let data: Vec<u32> = places
            .iter()
            .map(|_| 1 + draws.below(self.vocab - 2) as u32)
            .collect();
        let mut sequence = Sequence::new(Filler::Constant(0));
        for (place, token) in places.iter().zip(&data) {
            let len = place - sequence.len();
            sequence.filler(0, len, false);
            sequence.literal(vec![*token], false);
        }
        sequence.filler(0, noise - sequence.len(), false);
        sequence.literal(vec![self.vocab as u32 - 1; self.items], false);
        for (offset, token) in data.into_iter().enumerate() {
            sequence.mark(noise + offset, token);
        }
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match token {
            0 => ".".into(),
            marker if marker as usize == self.vocab - 1 => "?".into(),
            data => data.to_string().into(),
        }
    }
}
