//! Language modelling of whole documents, to see the loss by position (arXiv 2507.02782, section 3): trained on
//! windows of some documents, measured on windows of others that may be far longer.

use std::borrow::Cow;
use std::sync::Arc;

use crate::corpus::{Corpus, Place};
use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::materials::{Material, Materials};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::task::{Coordinates, Label, Metric, Sample, Split, Task, TaskSpec};

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "books",
    title: "Language modelling of documents",
    source: "loss by position on held-out text, arXiv 2507.02782, section 3",
    length_meaning: "tokens read, of one document where one is as long, else of several in a row",
    scored: "what follows each token, but not the mark between two documents",
    chance_meaning: "none: a loss",
    version: 1,
    metric: Metric::BitsPerByte,
    options: &[OptionSpec {
        name: "held_out",
        help: "share of the text that is held out for test, in whole documents, and as much for validation",
        default: OptionValue::Float(0.1),
        allowed: Allowed::Float(0.01, 0.4),
    }],
    materials: &[Material::Texts, Material::Tokenizer],
    build,
};

fn build(options: &Options, materials: &Materials) -> Result<Box<dyn Task>, TaskError> {
    let held_out = options.float("held_out").expect("a number");
    let corpus = Corpus::of(materials, held_out).map_err(|reason| TaskError::BadCombination {
        task: SPEC.name.to_owned(),
        reason,
    })?;
    let options = options.text();
    Ok(Box::new(Books {
        key: key(SPEC.name, &options),
        options,
        corpus,
        materials: materials.clone(),
    }))
}

struct Books {
    options: String,
    key: u64,
    corpus: Arc<Corpus>,
    materials: Materials,
}

impl Task for Books {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        self.materials.tokenizer.vocab()
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        None
    }

    fn min_length(&self) -> usize {
        2
    }

    /// One token less than there are, because what follows the last one is scored too.
    fn max_length(&self) -> usize {
        (1 << 20).min(self.corpus.longest().saturating_sub(1))
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (2048, 2048)
    }

    /// To train on, any window is as likely as any other. Held-out windows are laid evenly over all there are,
    /// however many are asked for: the next is the golden section of all further.
    fn make(&self, at: &Coordinates, _attempt: u64) -> Box<dyn Sample> {
        let tokens = at.length + 1;
        let windows = self.corpus.windows(at.split, tokens) as u128;
        let draw = |index| {
            let place = Coordinates { index, ..*at };
            let mut draws = Draws::new(self.key, &place, 0, Purpose::Plan);
            (draws.below(1 << 31) as u64) << 33 | (draws.below(1 << 31) as u64) << 2
        };
        let fraction = match at.split {
            Split::Train => draw(at.index),
            Split::Validation | Split::Test => {
                draw(0).wrapping_add(at.index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            }
        };
        let window = (u128::from(fraction) * windows) >> 64;
        let place = self.corpus.place(at.split, tokens, window as usize);
        Box::new(Window::new(Arc::clone(&self.corpus), at, place))
    }

    /// A document is of one split as a whole, so every window of a split belongs to it.
    fn sample(&self, at: &Coordinates) -> Result<Box<dyn Sample>, TaskError> {
        self.check_length(at.length)?;
        Ok(self.make(at, 0))
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match self.materials.tokenizer.decode(&[token]) {
            Ok(text) if !text.contains(|c: char| c.is_control() || c == '\u{fffd}') => text.into(),
            _ => format!("<{token}>").into(),
        }
    }
}

/// Some tokens in a row of a split.
struct Window {
    corpus: Arc<Corpus>,
    split: Split,
    start: usize,
    len: usize,
    labels: Vec<Label>,
}

impl Window {
    fn new(corpus: Arc<Corpus>, at: &Coordinates, place: Place) -> Self {
        let joined = place.joined.then(|| Label {
            key: "documents",
            value: "joined".to_owned(),
        });
        Self {
            corpus,
            split: at.split,
            start: place.start,
            len: at.length,
            labels: joined.into_iter().collect(),
        }
    }
}

impl Sample for Window {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn write(&self, start: usize, tokens: &mut [u32], targets: &mut [i32]) {
        assert!(
            start + tokens.len() <= self.len && targets.len() == tokens.len(),
            "a write past the sample"
        );
        let Some(last) = tokens.len().checked_sub(1) else {
            return;
        };
        let from = self.start + start;
        self.corpus.read(self.split, from, tokens);
        let mut next = [0];
        self.corpus.read(self.split, from + last + 1, &mut next);
        let following = tokens[1..].iter().chain(&next);
        for (offset, (target, &token)) in targets.iter_mut().zip(following).enumerate() {
            let is_mark = self.corpus.is_mark(self.split, from + offset + 1);
            *target = if is_mark { -1 } else { token as i32 };
        }
    }

    fn write_bytes(&self, start: usize, bytes: &mut [u32]) {
        assert!(start + bytes.len() <= self.len, "a write past the sample");
        // A target is the token that follows.
        let from = self.start + start + 1;
        self.corpus.read_bytes(self.split, from, bytes);
    }
}
