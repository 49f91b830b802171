//! Induction heads as Mamba's appendix E.1 (arXiv 2312.00752): a special token appears once among
//! random ones and again at the end, where the token that followed it is to be said.

use std::borrow::Cow;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "induction",
    title: "Induction heads",
    source: "Mamba, arXiv 2312.00752, section 4.1.2 and appendix E.1",
    length_meaning: "all tokens, the special token at the end included",
    scored: "the token after the special token at the end",
    chance_meaning: "one of the ordinary tokens at random: 1 / (vocab - 1)",
    version: 2,
    metric: Metric::TokenAccuracy,
    options: &[OptionSpec {
        name: "vocab",
        help: "token ids, the last of them special",
        default: OptionValue::Integer(16),
        allowed: Allowed::Integer(3, 65536),
    }],
    materials: &[],
    build: |options, _| {
        let vocab = options.integer("vocab");
        let options = options.text();
        Ok(Box::new(Induction {
            key: key(SPEC.name, &options),
            options,
            vocab,
        }))
    },
};

struct Induction {
    options: String,
    key: u64,
    vocab: usize,
}

impl Task for Induction {
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
        Some(1.0 / (self.vocab as f64 - 1.0))
    }

    fn min_length(&self) -> usize {
        4
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (256, 256)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let ordinary = self.vocab - 1;
        let place = draws.below(at.length - 2);
        let answer = draws.below(ordinary) as u32;
        let mut sequence = Sequence::new(Filler::Uniform {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            low: 0,
            count: ordinary as u32,
            replaced: Vec::new(),
        });
        sequence.filler(0, place, false);
        sequence.literal(vec![ordinary as u32, answer], false);
        sequence.filler(place + 2, at.length - place - 3, false);
        sequence.literal(vec![ordinary as u32], false);
        sequence.mark(at.length - 1, answer);
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        if token as usize == self.vocab - 1 {
            "*".into()
        } else {
            token.to_string().into()
        }
    }
}
