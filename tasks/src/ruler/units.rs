//! Long stretches of a prompt as numbered units (a line, a word, a document) that are written anew whenever
//! they are needed, so that a prompt is small whatever its length.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ruler::pieces::Pieces;

/// Units between two places whose position is kept.
const EVERY: usize = 8;

/// The text of units by their number. Each begins at a cut ([`Pieces`]): with a space, or on a new line.
pub trait Source: Send + Sync {
    /// Appends the text of a unit.
    fn write(&self, unit: usize, text: &mut String);

    /// Whether all units are the same.
    fn uniform(&self) -> bool {
        false
    }

    /// Gives the text of units, in parts.
    fn text(&self, units: Range<usize>, give: &mut dyn FnMut(&str)) {
        let mut text = String::new();
        for unit in units {
            self.write(unit, &mut text);
            if text.len() > 1 << 15 {
                give(&text);
                text.clear();
            }
        }
        give(&text);
    }
}

/// Units with the positions of their tokens.
pub struct Units {
    source: Box<dyn Source>,
    pieces: Arc<Pieces>,
    /// Tokens before each unit whose number is a multiple of [`EVERY`], as far as was asked; of uniform units
    /// those of one.
    starts: Mutex<Vec<u32>>,
    /// Tokens of so many units from the first on, where that is known.
    total: Option<(usize, usize)>,
}

impl Units {
    /// Units of a source; `total` is the tokens of so many of them, where somebody has counted.
    pub fn new(
        source: impl Source + 'static,
        pieces: Arc<Pieces>,
        total: Option<(usize, usize)>,
    ) -> Self {
        Self {
            source: Box::new(source),
            pieces,
            starts: Mutex::default(),
            total,
        }
    }

    /// Gives the text of units, in parts.
    pub fn text(&self, units: Range<usize>, give: &mut dyn FnMut(&str)) {
        self.source.text(units, give);
    }

    /// Number of tokens of the units before this one.
    pub fn before(&self, unit: usize) -> usize {
        if self.source.uniform() {
            return unit * self.one();
        }
        match self.total {
            Some((units, tokens)) if units == unit => tokens,
            Some((units, tokens)) if units == unit + 1 => {
                tokens - self.count_one(unit, &mut String::new())
            }
            _ => {
                let start = self.start(unit / EVERY);
                start + self.count(unit / EVERY * EVERY..unit)
            }
        }
    }

    /// The unit among these that holds a token, and the number of tokens before it; both counted from the
    /// first unit of all.
    pub fn find(&self, among: Range<usize>, token: usize) -> (usize, usize) {
        if self.source.uniform() {
            let unit = token / self.one();
            return (unit, unit * self.one());
        }
        let (mut low, mut high) = (among.start / EVERY, among.end.div_ceil(EVERY));
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.start(middle) <= token {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (mut unit, mut start) = (low * EVERY, self.start(low));
        let mut text = String::new();
        loop {
            let after = start + self.count_one(unit, &mut text);
            if after > token {
                return (unit, start);
            }
            (unit, start) = (unit + 1, after);
        }
    }

    /// The tokens of a unit.
    pub fn tokens(&self, unit: usize) -> Vec<u32> {
        let mut text = String::new();
        self.source.write(unit, &mut text);
        self.pieces.tokens(&text, false)
    }

    /// Tokens of each of uniform units.
    fn one(&self) -> usize {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if starts.is_empty() {
            starts.push(self.count_one(0, &mut String::new()) as u32);
        }
        starts[0] as usize
    }

    /// Tokens before the unit `EVERY * index`.
    fn start(&self, index: usize) -> usize {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if starts.is_empty() {
            starts.push(0);
        }
        while starts.len() <= index {
            let from = (starts.len() - 1) * EVERY;
            let next = starts[starts.len() - 1] + self.count(from..from + EVERY) as u32;
            starts.push(next);
        }
        starts[index] as usize
    }

    fn count(&self, units: Range<usize>) -> usize {
        let mut text = String::new();
        units.map(|unit| self.count_one(unit, &mut text)).sum()
    }

    fn count_one(&self, unit: usize, text: &mut String) -> usize {
        text.clear();
        self.source.write(unit, text);
        self.pieces.count(text, false)
    }
}
