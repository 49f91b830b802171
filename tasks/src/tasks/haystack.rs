//! The haystacks of the token tasks and their one vocabulary, so that models are comparable: an endless
//! text of sentences, out of which a piece is cut, and the places in it where something can stand.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::draws::{Draws, Purpose};
use crate::sequence::{Filler, Sequence};
use crate::task::Coordinates;

pub const STOP: u32 = 1;
pub const MAGIC: u32 = 2;
pub const QUESTION: u32 = 3;
pub const IS: u32 = 4;
/// 16 hexadecimal digits; numbers use the first ten.
pub const DIGITS: u32 = 5;
pub const KEYS: u32 = 21;
pub const KEY_COUNT: usize = 64;
pub const WORDS: u32 = 85;
pub const WORD_COUNT: usize = 64;
const NOISE: u32 = 149;
pub const VARIABLE: u32 = 164;
const FILLER: u32 = 168;
const FILLER_COUNT: usize = 128;
pub const VOCAB: usize = 296;

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

/// An endless text: sentences of these numbers of words in turn, each with a full stop.
#[derive(Clone)]
pub struct Sentences(Vec<usize>);

impl Sentences {
    /// Sentences that are all of this many tokens, the full stop counted.
    pub fn equal(tokens: usize) -> Self {
        Self(vec![tokens - 1])
    }

    /// Tokens after which the lengths of sentences come again.
    pub fn period(&self) -> usize {
        self.0.iter().map(|words| words + 1).sum()
    }

    /// Position of the start of a sentence, counted from 0.
    pub fn start(&self, sentence: usize) -> usize {
        let within = &self.0[..sentence % self.0.len()];
        let within: usize = within.iter().map(|words| words + 1).sum();
        sentence / self.0.len() * self.period() + within
    }

    /// Number of sentences that start before a position.
    fn starts_before(&self, position: usize) -> usize {
        let whole = position / self.period() * self.0.len();
        let rest =
            (whole..whole + self.0.len()).filter(|&sentence| self.start(sentence) < position);
        whole + rest.count()
    }
}

/// A haystack of words, as the options of tasks name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prose {
    /// Five sentences again and again.
    Repeated,
    /// Sentences of Zipf-distributed words: that of rank r with a probability proportional to 1 / r.
    Varied,
}

impl Prose {
    /// Of an option's word; `None` of one that names no prose.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "repeat" => Some(Self::Repeated),
            "varied" => Some(Self::Varied),
            _ => None,
        }
    }

    /// Its sentences.
    pub fn sentences(self) -> Sentences {
        let lengths = match self {
            Self::Repeated => &REPEATED_SENTENCES,
            Self::Varied => &VARIED_SENTENCES,
        };
        Sentences(lengths.to_vec())
    }

    /// Its words in an example of the task with this key.
    pub fn filler(self, key: u64, at: &Coordinates, attempt: u64) -> Filler {
        match self {
            Self::Repeated => Filler::Cycle(&REPEATED),
            Self::Varied => Filler::Sentences {
                draws: Draws::new(key, at, attempt, Purpose::Filler),
                lengths: &VARIED_SENTENCES,
                stop: STOP,
                low: FILLER,
                cumulative: zipf(),
            },
        }
    }
}

/// Where something can stand in `len` tokens of a text from `phase` on.
pub struct Places {
    text: Sentences,
    phase: usize,
    len: usize,
    /// The first sentence that starts inside.
    first: usize,
    /// Sentences that start inside.
    inside: usize,
}

impl Places {
    /// The places of a piece of a text.
    pub fn new(text: Sentences, phase: usize, len: usize) -> Self {
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
    pub fn count(&self) -> usize {
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

    /// Adds the haystack to a sequence over its filler, with statements at their places, which ascend.
    pub fn write(&self, statements: Vec<(usize, Vec<u32>)>, sequence: &mut Sequence) {
        let mut read = 0;
        for (place, tokens) in statements {
            let position = self.position(place);
            sequence.filler(self.phase + read, position - read, false);
            read = position;
            sequence.literal(tokens, false);
        }
        sequence.filler(self.phase + read, self.len - read, false);
    }
}

/// A number of so many digits, the first of them not 0.
pub fn number(digits: usize, draws: &mut Draws) -> Vec<u32> {
    let first = DIGITS + 1 + draws.below(9) as u32;
    let rest = (1..digits).map(|_| DIGITS + draws.below(10) as u32);
    std::iter::once(first).chain(rest).collect()
}

/// Cumulative probabilities of `FILLER_COUNT` words, times 2^32.
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

/// A token of this vocabulary in readable form.
pub fn symbol(token: u32) -> Cow<'static, str> {
    match token {
        0 => "_".into(),
        STOP => ".".into(),
        MAGIC => "MAGIC".into(),
        QUESTION => "?".into(),
        IS => "is".into(),
        DIGITS..KEYS => format!("{:x}", token - DIGITS).into(),
        KEYS..WORDS => format!("key{}", token - KEYS).into(),
        WORDS..NOISE => format!("word{}", token - WORDS).into(),
        VARIABLE => "VAR".into(),
        NOISE..FILLER => match NOISE_WORDS.get((token - NOISE) as usize) {
            Some(word) => (*word).into(),
            None => "_".into(),
        },
        filler => format!("w{}", filler - FILLER + 1).into(),
    }
}
