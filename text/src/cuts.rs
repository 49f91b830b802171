//! Where a `tokenizer.json` certainly cuts.
//!
//! Models (BPE, Unigram, WordPiece) see the pieces of the pre-tokenizer one by one, so tokens never cross a place
//! where that certainly cuts. Such a place is known by the two characters beside it: if no match of the splitting
//! expression can hold a character of the one class followed by one of the other, and each character of the first
//! class is always part of some match, then a match ends between them, whatever else the text holds. This is read
//! off the expression's syntax tree. What is not understood counts as uncertain.

use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind};
use serde_json::Value;

use crate::shape::{Shape, singles};

/// GPT-2's expression, which `ByteLevel` has built in (openai/gpt-2 `src/encoder.py`).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Classes of characters by which cuts are told: letters, numbers, others that show, space, line feed, and the
/// rest of white space, beside which no cut is looked for.
pub(crate) const CLASSES: [&str; 6] = [
    r"\p{L}",
    r"\p{N}",
    r"[^\s\p{L}\p{N}]",
    " ",
    r"\n",
    r"[\s--[ \n]]",
];
const SPACE: usize = 3;
const NEWLINE: usize = 4;
const BLANK: usize = 5;

/// What a stage of the pre-tokenizer does between two characters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It cuts there, always.
    Cut,
    /// It may or may not; its other cuts do not depend on it.
    Neutral,
    /// Not known.
    Unsure,
}

/// The certain cuts of a tokenizer.
pub(crate) struct Cuts {
    /// `table[left][right]` by class.
    table: [[bool; 6]; 6],
    /// Only characters of ASCII are known to stay what they are in normalisation.
    ascii: bool,
    sets: Vec<ClassUnicode>,
}

impl Cuts {
    /// Reads them off a definition's `normalizer`, `pre_tokenizer` and `added_tokens`.
    pub(crate) fn of(definition: &Value) -> Self {
        let sets = CLASSES.map(set).to_vec();
        let mut cuts = Self {
            table: [[false; 6]; 6],
            ascii: !definition["normalizer"].is_null(),
            sets,
        };
        let Some(newlines) = normalizer(&definition["normalizer"]) else {
            return cuts;
        };
        let Some(stages) = stages(&definition["pre_tokenizer"], &cuts.sets) else {
            return cuts;
        };
        for left in 0..SPACE {
            for right in 0..BLANK {
                let certain = certain(&stages, left, right) && (newlines || right != NEWLINE);
                cuts.table[left][right] = certain;
            }
        }
        cuts.without_added(&definition["added_tokens"]);
        cuts
    }

    /// Added tokens are found before anything is cut: where one could reach over a cut or look past it, there is
    /// none.
    fn without_added(&mut self, tokens: &Value) {
        for token in tokens.as_array().into_iter().flatten() {
            let text = token["content"].as_str().unwrap_or("");
            let chars: Vec<usize> = text.chars().map(|c| self.class(c)).collect();
            for pair in chars.windows(2) {
                self.table[pair[0]][pair[1]] = false;
            }
            let (Some(&first), Some(&last)) = (chars.first(), chars.last()) else {
                continue;
            };
            if token["single_word"] != false {
                self.table[last] = [false; 6];
                self.table.iter_mut().for_each(|row| row[first] = false);
            }
            if token["rstrip"] != false {
                self.table[last][SPACE] = false;
                self.table[last][NEWLINE] = false;
            }
            if self.ascii && !text.is_ascii() {
                self.table = [[false; 6]; 6];
            }
        }
    }

    fn class(&self, c: char) -> usize {
        match c {
            'a'..='z' | 'A'..='Z' => 0,
            '0'..='9' => 1,
            ' ' => SPACE,
            '\n' => NEWLINE,
            '!'..='~' => 2,
            _ if c.is_whitespace() => BLANK,
            _ if contains(&self.sets[0], c) => 0,
            _ if contains(&self.sets[1], c) => 1,
            _ => 2,
        }
    }

    fn is_cut(&self, left: char, right: char) -> bool {
        let known = |c: char| !self.ascii || c == ' ' || c == '\n' || c.is_ascii_graphic();
        known(left) && known(right) && self.table[self.class(left)][self.class(right)]
    }

    /// The last cut inside a text, in bytes.
    pub(crate) fn last(&self, text: &str) -> Option<usize> {
        let mut chars = text.char_indices().rev();
        let (mut at, mut right) = chars.next()?;
        for (before, left) in chars {
            if self.is_cut(left, right) {
                return Some(at);
            }
            (at, right) = (before, left);
        }
        None
    }
}

/// One of [`CLASSES`] as a set.
fn set(class: &str) -> ClassUnicode {
    match regex_syntax::parse(class).map(Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(set))) => set,
        Ok(HirKind::Literal(one)) => {
            let text = String::from_utf8_lossy(&one.0).into_owned();
            let ranges = text
                .chars()
                .map(|c| regex_syntax::hir::ClassUnicodeRange::new(c, c));
            ClassUnicode::new(ranges)
        }
        _ => unreachable!("the classes are constants of one character each"),
    }
}

fn contains(set: &ClassUnicode, c: char) -> bool {
    let ranges = set.ranges();
    let after = ranges.partition_point(|range| range.start() <= c);
    after > 0 && c <= ranges[after - 1].end()
}

/// Whether a normaliser is one that changes each stretch between ASCII characters by itself, and then whether it
/// leaves a line feed as it is.
fn normalizer(value: &Value) -> Option<bool> {
    if value.is_null() {
        return Some(true);
    }
    match value["type"].as_str()? {
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "StripAccents" => Some(true),
        "BertNormalizer" => Some(false),
        "Sequence" => {
            let mut all = true;
            for one in value["normalizers"].as_array()? {
                all &= normalizer(one)?;
            }
            Some(all)
        }
        _ => None,
    }
}

/// A stage of the pre-tokenizer as a function of the classes left and right.
type Stage = Box<dyn Fn(usize, usize) -> Effect>;

fn stages(value: &Value, sets: &[ClassUnicode]) -> Option<Vec<Stage>> {
    if value["type"] != "Sequence" {
        return Some(vec![stage(value, sets)?]);
    }
    let list = value["pretokenizers"].as_array()?;
    // A Metaspace looks for the very beginning of the text, also behind other stages.
    if list.iter().any(|one| one["type"] == "Metaspace") {
        return None;
    }
    list.iter().map(|one| stage(one, sets)).collect()
}

/// `None` is a stage of which nothing is known, not even whether what comes before it still holds.
fn stage(value: &Value, sets: &[ClassUnicode]) -> Option<Stage> {
    let isolates = value["behavior"] == "Isolated" || value["behavior"] == "Removed";
    Some(match value["type"].as_str()? {
        "Digits" => Box::new(|_, _| Effect::Neutral),
        "Whitespace" | "WhitespaceSplit" | "BertPreTokenizer" => Box::new(|_, right| match right {
            SPACE | NEWLINE => Effect::Cut,
            _ => Effect::Unsure,
        }),
        "Metaspace" => {
            let splits = value["split"] != false;
            // Only in front of a space is no space put.
            Box::new(move |_, right| match right {
                SPACE if splits => Effect::Cut,
                _ => Effect::Unsure,
            })
        }
        "ByteLevel" => {
            let prefixes = value["add_prefix_space"] != false;
            let regex = value["use_regex"] != false;
            let inner = if regex {
                matches(GPT2, sets)?
            } else {
                Box::new(|_, _| Effect::Neutral)
            };
            Box::new(move |left, right| match right {
                SPACE => inner(left, right),
                _ if prefixes => Effect::Unsure,
                _ => inner(left, right),
            })
        }
        "Split" if isolates => {
            let literal = value["pattern"]["String"]
                .as_str()
                .map(regex_syntax::escape);
            let regex = value["pattern"]["Regex"].as_str().map(str::to_string);
            matches(&regex.or(literal)?, sets).unwrap_or_else(|| Box::new(|_, _| Effect::Unsure))
        }
        "Split" | "Punctuation" | "CharDelimiterSplit" => Box::new(|_, _| Effect::Unsure),
        _ => return None,
    })
}

/// A stage that cuts around the matches of an expression. `None` where it holds what looks around, but for the
/// `(?!\S)` after `\s+` of GPT-2 and its heirs: that looks one character past the end of white space only, and
/// leaving it out makes the expression match more.
fn matches(expression: &str, sets: &[ClassUnicode]) -> Option<Stage> {
    // Such repetitions give nothing back: they match less than the same without the sign.
    let possessive = |signs: &[u8]| match signs {
        [_, b'+' | b'*' | b'?', b'+'] => true,
        [last, b'}', b'+'] => last.is_ascii_digit() || *last == b',',
        _ => false,
    };
    if expression.as_bytes().windows(3).any(possessive) {
        return None;
    }
    let plain = expression.replace(r"\s+(?!\S)", r"\s+");
    let hir = regex_syntax::parse(&plain).ok()?;
    let shape = Shape::of(&hir, sets)?;
    let single = singles(&hir);
    let covered: Vec<bool> = sets
        .iter()
        .map(|set| {
            let mut missing = set.clone();
            missing.difference(&single);
            missing.ranges().is_empty()
        })
        .collect();
    Some(Box::new(move |left, right| {
        match (shape.joins(left, right), covered[left]) {
            (true, _) => Effect::Unsure,
            (false, true) => Effect::Cut,
            (false, false) => Effect::Neutral,
        }
    }))
}

/// Whether some stage cuts and all before it do not mind. Behind the cut, stages see either side by itself.
fn certain(stages: &[Stage], left: usize, right: usize) -> bool {
    for stage in stages {
        match stage(left, right) {
            Effect::Cut => return true,
            Effect::Neutral => {}
            Effect::Unsure => return false,
        }
    }
    false
}
