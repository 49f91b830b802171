//! A needle in a haystack at the level of tokens, with the factors of Huang (arXiv 2407.08112, section
//! 3 and Table 4): depth, kind of haystack (repeated noise against varied filler), kind of value
//! (word, number, uuid). The needle stands at a sentence boundary; the question comes at the end.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue, Options};
use crate::sequence::{Filler, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

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

/// Words a sentence of the varied haystack, without the full stop.
static SENTENCES: [usize; 5] = [6, 9, 4, 11, 7];

const DEPTHS: usize = 11;

pub(crate) const SPEC: TaskSpec = TaskSpec {
    name: "needle",
    title: "Needle in a haystack, token by token",
    source: "Huang, arXiv 2407.08112, section 3; RULER, arXiv 2404.06654, niah",
    length_meaning: "all tokens: haystack, needles, question and answer",
    scored: "all tokens of the value after the question, as one answer",
    chance_meaning: "a value at random: 1/64 for a word, 1/9000000 for a number, 16^-32 for a uuid",
    metric: Metric::ExactMatch,
    options: &[
        OptionSpec {
            name: "depth",
            help: "place of the needle as a fraction of the haystack; random: 0, 0.1, .. 1 in turn",
            default: OptionValue::Word("random"),
            allowed: Allowed::WordOrFloat("random", 0.0, 1.0),
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
    build: |options| Ok(Box::new(Needle::new(options))),
};

struct Needle {
    options: String,
    key: u64,
    depth: Option<f64>,
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

    /// Sentence boundaries of the haystack: the first is 0, the last at or before `len`.
    fn boundary(&self, index: usize) -> usize {
        let lengths: &[usize] = if self.varied {
            &SENTENCES
        } else {
            &[4, 4, 4, 3, 4]
        };
        let period: usize = lengths.iter().map(|length| length + 1).sum();
        let within: usize = lengths[..index % lengths.len()]
            .iter()
            .map(|length| length + 1)
            .sum();
        index / lengths.len() * period + within
    }

    /// Number of whole sentences in `len` tokens of haystack.
    fn sentences(&self, len: usize) -> usize {
        let mut low = 0;
        let mut high = len + 1;
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.boundary(middle) <= len {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn filler(&self, at: &Coordinates) -> Filler {
        if !self.varied {
            return Filler::Cycle(&REPEATED);
        }
        Filler::Sentences {
            draws: Draws::new(self.key, at, Purpose::Filler),
            lengths: &SENTENCES,
            stop: STOP,
            low: FILLER,
            cumulative: zipf(),
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
        &crate::tasks::ALL[7]
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn chance(&self) -> f64 {
        match self.value {
            "word" => 1.0 / WORD_COUNT as f64,
            "number" => 1.0 / 9_000_000.0,
            _ => 16f64.powi(-32),
        }
    }

    fn min_length(&self) -> usize {
        // Two sentences of haystack at least, so that there is a depth.
        self.boundary(2) + self.keys * self.needle_len() + self.question_len()
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        let length = self.min_length().next_power_of_two().max(128);
        (length, length)
    }

    fn make(&self, at: &Coordinates) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, Purpose::Plan);
        let hay = at.length - self.keys * self.needle_len() - self.question_len();
        let sentences = self.sentences(hay);
        // Depth 0..1 goes over the boundaries 0..=sentences, as the paper places its needle.
        let depth = self
            .depth
            .unwrap_or((at.index % DEPTHS as u64) as f64 / (DEPTHS - 1) as f64);
        let keys = draws.distinct(self.keys, KEY_COUNT);
        let mut needles: Vec<(usize, usize)> = (0..self.keys)
            .map(|needle| match needle {
                0 => ((sentences as f64 * depth) as usize, 0),
                other => (draws.below(sentences + 1), other),
            })
            .collect();
        needles.sort_unstable();
        let values: Vec<Vec<u32>> = keys.iter().map(|_| self.draw_value(&mut draws)).collect();
        let mut sequence = Sequence::new(self.filler(at));
        let mut read = 0;
        for (boundary, needle) in needles {
            let position = self.boundary(boundary);
            sequence.filler(read, position - read, false);
            read = position;
            let mut tokens = vec![MAGIC, KEYS + keys[needle] as u32, IS];
            tokens.extend(&values[needle]);
            tokens.push(STOP);
            sequence.literal(tokens, false);
        }
        sequence.filler(read, hay - read, false);
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
