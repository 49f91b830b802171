//! A needle in a haystack at the level of tokens, with the factors of Huang (arXiv 2407.08112, section
//! 3 and Table 4): depth, kind of haystack (repeated noise against varied filler), kind of value
//! (word, number, uuid). The haystack is cut out of an endless text at a random phase, so that what
//! stands before the question has the same law at every length. The needle stands at a place: the
//! haystack's start, a boundary of two sentences, or its end. The question comes last.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Split, Task, TaskSpec};

// One vocabulary for every choice of options, so that models are comparable.
const STOP: u32 = 1;
const MAGIC: u32 = 2;
const QUESTION: u32 = 3;
const IS: u32 = 4;
const DIGITS: u32 = 5; // 16 hexadecimal digits; numbers use the first ten
const KEYS: u32 = 21;
const KEY_COUNT: usize = 64;
const WORDS: u32 = 85;
const WORD_COUNT: usize = 64;
const NOISE: u32 = 149;
const FILLER: u32 = 168;
const FILLER_COUNT: usize = 128;
const VOCAB: usize = 296;

/// "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.", the
/// repeated noise of RULER and of the paper, a token a word.
static REPEATED: [u32; 24] = [
    NOISE,
    NOISE + 1,
    NOISE + 2,
    NOISE + 3,
    STOP,
    NOISE,
    NOISE + 4,
    NOISE + 2,
    NOISE + 5,
    STOP,
    NOISE,
    NOISE + 6,
    NOISE + 2,
    NOISE + 7,
    STOP,
    NOISE + 8,
    NOISE + 9,
    NOISE + 10,
    STOP,
    NOISE + 11,
    NOISE + 12,
    NOISE + 13,
    NOISE + 14,
    STOP,
];

const NOISE_WORDS: [&str; 15] = [
    "The", "grass", "is ", "green", "sky", "blue", "sun", "yellow", "Here", "we", "go", "There",
    "and", "back", "again",
];

/// Words a sentence, without the full stop, of the repeated and of the varied haystack.
static REPEATED_SENTENCES: [usize; 5] = [4, 4, 4, 3, 4];
static VARIED_SENTENCES: [usize; 5] = [6, 9, 4, 11, 7];

/// Depths of the grid: 0, 0.1, .. 1.
const DEPTHS: usize = 11;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "needle",
    title: "Needle in a haystack, token by token",
    source: "Huang, arXiv 2407.08112, section 3; RULER, arXiv 2404.06654, niah",
    length_meaning: "all tokens: haystack, needles, question and answer",
    scored: "all tokens of the value after the question, as one answer",
    chance_meaning: "a value at random: 1/64 for a word, 1/9000000 for a number, 16^-32 for a uuid",
    version: 2,
    metric: Metric::ExactMatch,
    options: &[
        OptionSpec {
            name: "depth",
            help: "where the needle is measured, as a fraction of the places; grid: 0, 0.1, .. 1, each as often",
            default: OptionValue::Word("grid"),
            allowed: Allowed::WordOrFloat("grid", 0.0, 1.0),
        },
        OptionSpec {
            name: "train_depth",
            help: "where it is in training; uniform: every place as often",
            default: OptionValue::Word("uniform"),
            allowed: Allowed::WordOrFloat("uniform", 0.0, 1.0),
        },
        OptionSpec {
            name: "haystack",
            help: "repeat: five sentences again and again; varied: sentences of Zipf-distributed words",
            default: OptionValue::Word("repeat"),
            allowed: Allowed::Words(&["repeat", "varied"]),
        },
        OptionSpec {
            name: "value",
            help: "word: 1 token of 64; number: 7 digits; uuid: 32 hexadecimal digits",
            default: OptionValue::Word("word"),
            allowed: Allowed::Words(&["word", "number", "uuid"]),
        },
        OptionSpec {
            name: "keys",
            help: "needles with different keys, one of them asked for",
            default: OptionValue::Integer(1),
            allowed: Allowed::Integer(1, 64),
        },
    ],
    build: |options, _| Ok(Box::new(Needle::new(options))),
};

struct Needle {
    options: String,
    key: u64,
    /// Where it is measured; `None` is the grid.
    depth: Option<f64>,
    /// Where it is in training; `None` is every place.
    train_depth: Option<f64>,
    varied: bool,
    value: &'static str,
    keys: usize,
}

impl Needle {
    fn new(options: &Options) -> Self {
        Self {
            options: options.text(),
            key: key(SPEC.name, &options.text()),
            depth: options.float("depth"),
            train_depth: options.float("train_depth"),
            varied: options.word("haystack") == "varied",
            value: options.word("value"),
            keys: options.integer("keys"),
        }
    }

    fn value_len(&self) -> usize {
        match self.value {
            "word" => 1,
            "number" => 7,
            _ => 32,
        }
    }

    /// A needle sentence: magic, key, is, value, full stop.
    fn needle_len(&self) -> usize {
        4 + self.value_len()
    }

    /// Question, key, is, and the answer.
    fn question_len(&self) -> usize {
        3 + self.value_len()
    }

    fn draw_value(&self, draws: &mut Draws) -> Vec<u32> {
        match self.value {
            "word" => vec![WORDS + draws.below(WORD_COUNT) as u32],
            "number" => {
                let first = DIGITS + 1 + draws.below(9) as u32;
                let rest = (1..7).map(|_| DIGITS + draws.below(10) as u32);
                std::iter::once(first).chain(rest).collect()
            }
            _ => (0..32).map(|_| DIGITS + draws.below(16) as u32).collect(),
        }
    }

    /// The endless text's sentences.
    fn sentences(&self) -> Sentences {
        Sentences(if self.varied {
            &VARIED_SENTENCES
        } else {
            &REPEATED_SENTENCES
        })
    }

    /// The place of the needle that is asked for, of `count` places, and its depth as a label.
    fn place(&self, at: &Coordinates, count: usize, draws: &mut Draws) -> (usize, f64) {
        let last = (count - 1) as f64;
        let depth = match (at.split, self.train_depth, self.depth) {
            (Split::Train, Some(depth), _) => depth,
            (Split::Train, None, _) => draws.below(count) as f64 / last,
            (_, _, Some(depth)) => depth,
            (_, _, None) => self.grid_depth(at),
        };
        ((last * depth).round() as usize, depth)
    }

    /// Each run of eleven examples has every depth once, in an order of its own, so that a number of
    /// examples that is no multiple of eleven favours none.
    fn grid_depth(&self, at: &Coordinates) -> f64 {
        let run = Coordinates {
            index: at.index / DEPTHS as u64,
            ..*at
        };
        let order = Draws::new(self.key, &run, 0, Purpose::Order).distinct(DEPTHS, DEPTHS);
        order[(at.index % DEPTHS as u64) as usize] as f64 / (DEPTHS - 1) as f64
    }

    fn filler(&self, at: &Coordinates, attempt: u64) -> Filler {
        if !self.varied {
            return Filler::Cycle(&REPEATED);
        }
        Filler::Sentences {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            lengths: &VARIED_SENTENCES,
            stop: STOP,
            low: FILLER,
            cumulative: zipf(),
        }
    }
}

/// An endless text: sentences of these numbers of words in turn, each with a full stop.
#[derive(Clone, Copy)]
struct Sentences(&'static [usize]);

impl Sentences {
    fn period(self) -> usize {
        self.0.iter().map(|words| words + 1).sum()
    }

    /// Position of the start of a sentence, counted from 0.
    fn start(self, sentence: usize) -> usize {
        let within = &self.0[..sentence % self.0.len()];
        let within: usize = within.iter().map(|words| words + 1).sum();
        sentence / self.0.len() * self.period() + within
    }

    /// Number of sentences that start before a position.
    fn starts_before(self, position: usize) -> usize {
        let whole = position / self.period() * self.0.len();
        let rest =
            (whole..whole + self.0.len()).filter(|&sentence| self.start(sentence) < position);
        whole + rest.count()
    }
}

/// Where a needle can stand in `len` tokens of a text from `phase` on.
struct Places {
    text: Sentences,
    phase: usize,
    len: usize,
    /// The first sentence that starts inside.
    first: usize,
    /// Sentences that start inside.
    inside: usize,
}

impl Places {
    fn new(text: Sentences, phase: usize, len: usize) -> Self {
        let first = text.starts_before(phase + 1);
        let inside = text.starts_before(phase + len) - first;
        Self {
            text,
            phase,
            len,
            first,
            inside,
        }
    }

    /// Both ends, and every boundary of two sentences between.
    fn count(&self) -> usize {
        self.inside + 2
    }

    /// Position of a place in the haystack.
    fn position(&self, place: usize) -> usize {
        match place {
            0 => 0,
            place if place <= self.inside => self.text.start(self.first + place - 1) - self.phase,
            _ => self.len,
        }
    }
}

/// Cumulative probabilities of `FILLER_COUNT` words, word of rank r proportional to 1 / r.
fn zipf() -> &'static [u64] {
    static CUMULATIVE: OnceLock<Vec<u64>> = OnceLock::new();
    CUMULATIVE.get_or_init(|| {
        let total: f64 = (1..=FILLER_COUNT).map(|rank| 1.0 / rank as f64).sum();
        let mut sum = 0.0;
        (1..=FILLER_COUNT)
            .map(|rank| {
                sum += 1.0 / rank as f64 / total;
                (sum * 4_294_967_296.0) as u64
            })
            .collect()
    })
}

impl Task for Needle {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn chance(&self, _length: usize) -> f64 {
        match self.value {
            "word" => 1.0 / WORD_COUNT as f64,
            "number" => 1.0 / 9_000_000.0,
            _ => 16f64.powi(-32),
        }
    }

    fn min_length(&self) -> usize {
        // Two sentences of haystack at least, so that there is a depth.
        self.sentences().start(2) + self.keys * self.needle_len() + self.question_len()
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.min_length().next_power_of_two().max(128);
        (length, length)
    }

    fn label_cycle(&self) -> u64 {
        if self.depth.is_none() {
            DEPTHS as u64
        } else {
            1
        }
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let hay = at.length - self.keys * self.needle_len() - self.question_len();
        let text = self.sentences();
        let phase = draws.below(text.period());
        let places = Places::new(text, phase, hay);
        let (place, depth) = self.place(at, places.count(), &mut draws);
        let keys = draws.distinct(self.keys, KEY_COUNT);
        let others = (1..self.keys).map(|other| (draws.below(places.count()), other));
        let mut needles: Vec<(usize, usize)> = std::iter::once((place, 0)).chain(others).collect();
        needles.sort_unstable();
        let values: Vec<Vec<u32>> = keys.iter().map(|_| self.draw_value(&mut draws)).collect();
        let mut sequence = Sequence::new(self.filler(at, attempt));
        let mut read = 0;
        for (place, needle) in needles {
            let position = places.position(place);
            sequence.filler(phase + read, position - read, false);
            read = position;
            let mut tokens = vec![MAGIC, KEYS + keys[needle] as u32, IS];
            tokens.extend(&values[needle]);
            tokens.push(STOP);
            sequence.literal(tokens, false);
        }
        sequence.filler(phase + read, hay - read, false);
        sequence.literal(vec![QUESTION, KEYS + keys[0] as u32, IS], false);
        sequence.literal(values[0].clone(), true);
        sequence.label("depth", format!("{depth:.2}"));
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match token {
            0 => "_".into(),
            STOP => ".".into(),
            MAGIC => "MAGIC".into(),
            QUESTION => "?".into(),
            IS => "is".into(),
            DIGITS..KEYS => format!("{:x}", token - DIGITS).into(),
            KEYS..WORDS => format!("key{}", token - KEYS).into(),
            WORDS..NOISE => format!("word{}", token - WORDS).into(),
            NOISE..FILLER => match NOISE_WORDS.get((token - NOISE) as usize) {
                Some(word) => (*word).into(),
                None => "_".into(),
            },
            filler => format!("w{}", filler - FILLER + 1).into(),
        }
    }
}
