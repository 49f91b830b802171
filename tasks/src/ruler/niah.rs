//! Needles in a haystack: RULER's eight variants, and the fixed depth of Huang's ablation (arXiv 2407.08112).

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::draws::{Draws, Purpose};
use crate::ruler::data::{PROMPTS, WORDS, Wording, fill};
use crate::ruler::essay::Essay;
use crate::ruler::pieces::Pieces;
use crate::ruler::prompt::Prompt;
use crate::ruler::units::{PART, Source, Units};
use crate::ruler::{Draft, Family, Setting};

/// Depths at which needles stand in an essay: 40, evenly from 0 to 100, rounded to whole percent.
const DEPTHS: usize = 40;

/// Draws kept for each line of the haystack `needle`.
const DRAWS_A_LINE: usize = 16;

/// What keys and values are.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// An adjective, a hyphen, a noun.
    Word,
    /// Seven digits, the first not 0.
    Number,
    /// A random UUID (version 4).
    Uuid,
}

/// What needles are hidden in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haystack {
    /// One line again and again.
    Noise,
    /// Prose.
    Essay,
    /// Needles with other keys.
    Needle,
}

/// A variant.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    pub haystack: Haystack,
    pub key: Kind,
    pub value: Kind,
    /// Keys, values of each, and keys that are asked for.
    pub keys: usize,
    pub values: usize,
    pub queries: usize,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Word => "word",
            Self::Number => "number",
            Self::Uuid => "uuid",
        }
    }

    /// Draws that one takes.
    fn draws(self) -> usize {
        match self {
            Self::Word => 2,
            Self::Number => 1,
            Self::Uuid => 4,
        }
    }

    fn draw(self, draws: &mut Draws) -> String {
        let mut text = String::new();
        self.write(draws, &mut text);
        text
    }

    /// Appends one.
    fn write(self, draws: &mut Draws, text: &mut String) {
        match self {
            Self::Word => {
                text.push_str(WORDS.adjectives[draws.below(WORDS.adjectives.len())]);
                text.push('-');
                text.push_str(WORDS.nouns[draws.below(WORDS.nouns.len())]);
            }
            Self::Number => push_digits(1_000_000 + draws.below(9_000_000), 7, 10, text),
            Self::Uuid => {
                let [a, b, c, d] = [(); 4].map(|()| draws.below(1 << 32));
                let (version, variant) = (b & 0x0fff | 0x4000, c >> 16 & 0x3fff | 0x8000);
                let parts = [
                    (a, 8),
                    (b >> 16, 4),
                    (version, 4),
                    (variant, 4),
                    (c & 0xffff, 4),
                ];
                for (part, (value, digits)) in parts.into_iter().enumerate() {
                    if part > 0 {
                        text.push('-');
                    }
                    push_digits(value, digits, 16, text);
                }
                push_digits(d, 8, 16, text);
            }
        }
    }
}

/// Appends a number as so many digits, 8 at most.
fn push_digits(mut number: usize, digits: usize, base: usize, text: &mut String) {
    let mut all = [0; 8];
    for place in all[..digits].iter_mut().rev() {
        *place = b"0123456789abcdef"[number % base];
        number /= base;
    }
    text.extend(all[..digits].iter().map(|&digit| char::from(digit)));
}

/// A variant with its haystack.
pub struct Niah {
    variant: Variant,
    /// Where needles stand, as a fraction of the haystack; none: at random.
    depth: Option<f64>,
    /// The lines or words, but for those that differ from example to example.
    hay: Option<Arc<Units>>,
    essay: Option<Arc<Essay>>,
    line: Arc<Line>,
}

impl Niah {
    pub fn new(
        variant: Variant,
        depth: Option<f64>,
        essay: Option<Arc<Essay>>,
        setting: &Setting,
    ) -> Self {
        let hay = match (variant.haystack, &essay) {
            (Haystack::Noise, _) => Some(setting.units(Noise)),
            (_, Some(essay)) => Some(setting.units(Arc::clone(essay))),
            _ => None,
        };
        Self {
            variant,
            depth,
            hay,
            essay,
            line: Arc::new(Line::new(variant)),
        }
    }
}

impl Family for Niah {
    fn draft<'a>(&'a self, setting: &Setting) -> Box<dyn Draft + 'a> {
        let variant = self.variant;
        let mut draws = setting.draws(Purpose::Plan);
        let keys: Vec<String> = (0..variant.keys)
            .map(|_| variant.key.draw(&mut draws))
            .collect();
        let values: Vec<Vec<String>> = keys
            .iter()
            .map(|_| {
                (0..variant.values)
                    .map(|_| variant.value.draw(&mut draws))
                    .collect()
            })
            .collect();
        let all = variant.keys * variant.values;
        let hay = match &self.hay {
            Some(hay) => Arc::clone(hay),
            None => setting.units(Lines {
                draws: setting.draws(Purpose::Filler),
                line: Arc::clone(&self.line),
            }),
        };
        Box::new(NiahDraft {
            niah: self,
            order: draws.distinct(all, all),
            asked: draws.distinct(variant.queries, variant.keys),
            keys,
            values,
            hay,
            places: setting.draws(Purpose::Order),
        })
    }
}

/// What is drawn of an example before the size of its haystack is known.
struct NiahDraft<'a> {
    niah: &'a Niah,
    keys: Vec<String>,
    values: Vec<Vec<String>>,
    /// The needles in the order of their places.
    order: Vec<usize>,
    /// The keys that are asked for.
    asked: Vec<usize>,
    hay: Arc<Units>,
    places: Draws,
}

impl NiahDraft<'_> {
    /// For each needle in their order, how much hay stands before it (lines, or sentences) and its depth.
    fn places(&self, count: usize) -> Vec<(usize, f64)> {
        let needles = self.order.len();
        let at = |depth: f64| (count as f64 * depth) as usize;
        let mut draws = self.places.clone();
        let mut places: Vec<(usize, f64)> = match (self.niah.depth, self.niah.essay.is_some()) {
            (Some(depth), _) => vec![(at(depth), depth); needles],
            (None, true) => {
                let drawn = draws.distinct(needles, DEPTHS).into_iter();
                let percent = drawn.map(|depth| (100.0 * depth as f64 / 39.0).round() / 100.0);
                percent.map(|depth| (at(depth), depth)).collect()
            }
            (None, false) => {
                let lines = draws.distinct(needles, count).into_iter();
                lines
                    .map(|line| (line, line as f64 / count as f64))
                    .collect()
            }
        };
        places.sort_by_key(|place| place.0);
        places
    }

    /// Adds a needle, and marks where the first answer stands.
    fn push_needle(&self, needle: usize, depth: f64, prompt: &mut Prompt) {
        let (key, value) = (
            needle / self.niah.variant.values,
            needle % self.niah.variant.values,
        );
        let kind = self.niah.variant.value.name();
        let template = fill(
            &PROMPTS.niah.needle,
            &[("type", kind), ("key", &self.keys[key])],
        );
        let (before, after) = template
            .split_once("{value}")
            .expect("a needle has a value");
        prompt.push(before);
        if key == self.asked[0] && value == 0 {
            prompt.answer = Some(prompt.here());
            prompt.depth = (prompt.references.len() == 1).then_some(depth);
        }
        prompt.push(&self.values[key][value]);
        prompt.push(after);
    }

    /// Needles on lines of their own, each before a line or after the last.
    fn push_lines(&self, lines: usize, prompt: &mut Prompt) {
        let mut read = 0;
        for (&needle, (line, depth)) in self.order.iter().zip(self.places(lines)) {
            prompt.units(&self.hay, read..line);
            read = line;
            self.push_needle(needle, depth, prompt);
            prompt.push("\n");
        }
        prompt.units(&self.hay, read..lines);
    }

    /// Stretches of prose with a needle after each but the last, joined by spaces as RULER joins them: an empty
    /// stretch leaves its space.
    fn push_essay(&self, essay: &Essay, words: usize, prompt: &mut Prompt) {
        let sentences = essay.sentences(words);
        let mut read = 0;
        for (index, (&needle, (sentence, depth))) in
            self.order.iter().zip(self.places(sentences)).enumerate()
        {
            let to = if sentence == sentences {
                words
            } else {
                essay.start(sentence)
            };
            match (index, to) {
                (0, 0) => {}
                (0, _) => {
                    prompt.push(essay.word(0));
                    prompt.units(&self.hay, 1..to);
                }
                _ => self.push_stretch(read..to, prompt),
            }
            read = to;
            prompt.push(" ");
            self.push_needle(needle, depth, prompt);
        }
        if read == words {
            prompt.push(" ");
        }
        prompt.units_within_text(&self.hay, read..words);
        prompt.push("\n");
    }

    /// A space and a stretch of prose.
    fn push_stretch(&self, words: Range<usize>, prompt: &mut Prompt) {
        if words.is_empty() {
            prompt.push(" ");
        }
        prompt.units(&self.hay, words);
    }
}

impl Draft for NiahDraft<'_> {
    fn fewest(&self) -> usize {
        // Of prose so much that there is a sentence or two; of lines as many as places are drawn from.
        if self.niah.essay.is_some() {
            25
        } else {
            self.order.len()
        }
    }

    fn hay(&self, units: usize) -> usize {
        self.hay.before(units)
    }

    /// Needles stand on lines of their own; prose is joined to them.
    fn is_even(&self) -> bool {
        self.niah.essay.is_none()
    }

    fn compose(&self, units: usize) -> Prompt {
        let variant = self.niah.variant;
        let template = &PROMPTS.niah;
        let several = variant.queries * variant.values > 1;
        let Wording {
            head,
            question,
            answer_prefix,
        } = if several {
            &template.several
        } else {
            &template.one
        };
        let asked: Vec<&str> = self
            .asked
            .iter()
            .map(|&key| self.keys[key].as_str())
            .collect();
        let query = match asked.split_last() {
            Some((last, before)) if !before.is_empty() => {
                format!("{}, and {last}", before.join(", "))
            }
            _ => asked.concat(),
        };
        let names = [("type", variant.value.name()), ("query", &query)];
        let mut prompt = Prompt::default();
        let references = self.asked.iter().flat_map(|&key| &self.values[key]);
        prompt.references = references.cloned().collect();
        prompt.push(&fill(head, &names));
        match &self.niah.essay {
            Some(essay) => self.push_essay(essay, units, &mut prompt),
            None => self.push_lines(units, &mut prompt),
        }
        prompt.push(fill(question, &names).trim_start_matches('\n'));
        prompt.answer_prefix = fill(answer_prefix, &names);
        prompt
    }
}

/// The haystack `noise`.
pub struct Noise;

impl Source for Noise {
    fn write(&self, _unit: usize, text: &mut String) {
        text.push_str(&PROMPTS.noise);
        text.push('\n');
    }

    fn uniform(&self) -> bool {
        true
    }
}

/// What all lines of the haystack `needle` have in common.
struct Line {
    key: Kind,
    value: Kind,
    /// What stands before the key, between, and after the value.
    between: [String; 3],
    /// Tokens of the first two, but for the spaces at their ends.
    tokens: OnceLock<usize>,
}

impl Line {
    fn new(variant: Variant) -> Self {
        let template = fill(&PROMPTS.niah.needle, &[("type", variant.value.name())]);
        let (before, rest) = template.split_once("{key}").expect("a needle has a key");
        let (between, after) = rest.split_once("{value}").expect("a needle has a value");
        let between = [before.to_owned(), between.to_owned(), format!("{after}\n")];
        Self {
            key: variant.key,
            value: variant.value,
            between,
            tokens: OnceLock::new(),
        }
    }

    /// Spaces before a key and a value and after a key are cuts, so that what stands between counts the same in
    /// all lines.
    fn tokens(&self, pieces: &Pieces) -> usize {
        let count = |text: &String| pieces.count(text.trim_end(), false);
        let counted = || self.between[..2].iter().map(count).sum();
        *self.tokens.get_or_init(counted)
    }
}

/// The haystack `needle`: each line has a key and a value of its own, drawn by its number.
struct Lines {
    draws: Draws,
    line: Arc<Line>,
}

impl Lines {
    /// The draws of these lines in turn, one line's after another.
    fn each(&self, units: Range<usize>, mut line: impl FnMut(&mut Draws)) {
        let mut draws = self.draws.clone();
        draws.seek(units.start * DRAWS_A_LINE);
        for _ in units {
            line(&mut draws);
            let drawn = self.line.key.draws() + self.line.value.draws();
            (drawn..DRAWS_A_LINE).for_each(|_| {
                draws.below(1);
            });
        }
    }
}

impl Source for Lines {
    fn write(&self, unit: usize, text: &mut String) {
        self.text(unit..unit + 1, &mut |line| text.push_str(line));
    }

    /// A line is long, so that keeping the place of each costs little.
    fn every(&self) -> usize {
        1
    }

    fn counts(&self, units: Range<usize>, pieces: &Pieces, give: &mut dyn FnMut(usize)) {
        let line = &*self.line;
        let same = line.tokens(pieces);
        let mut text = String::new();
        self.each(units, |draws| {
            text.clear();
            text.push(' ');
            line.key.write(draws, &mut text);
            let key = pieces.count(&text, false);
            text.truncate(1);
            line.value.write(draws, &mut text);
            text.push_str(&line.between[2]);
            give(same + key + pieces.count(&text, false));
        });
    }

    fn text(&self, units: Range<usize>, give: &mut dyn FnMut(&str)) {
        let line = &*self.line;
        let mut text = String::with_capacity(2 * PART);
        self.each(units, |draws| {
            text.push_str(&line.between[0]);
            line.key.write(draws, &mut text);
            text.push_str(&line.between[1]);
            line.value.write(draws, &mut text);
            text.push_str(&line.between[2]);
            if text.len() > PART {
                give(&text);
                text.clear();
            }
        });
        give(&text);
    }
}
