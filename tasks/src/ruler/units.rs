//! Long stretches of a prompt as numbered units (a line, a word, a document) that are written anew whenever
//! they are needed, so that a prompt is small whatever its length.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ruler::pieces::Pieces;

/// Bytes of text after which a part is given.
pub const PART: usize = 1 << 15;

/// The text of units by their number. Each begins at a cut ([`Pieces`]): with a space, or on a new line.
pub trait Source: Send + Sync {
    /// Appends the text of a unit.
    fn write(&self, unit: usize, text: &mut String);

    /// Whether all units are the same.
    fn uniform(&self) -> bool {
        false
    }

    /// Units between two places whose position is kept.
    fn every(&self) -> usize {
        8
    }

    /// Gives the number of tokens of each of these units in turn.
    fn counts(&self, units: Range<usize>, pieces: &Pieces, give: &mut dyn FnMut(usize)) {
        let mut text = String::new();
        for unit in units {
            text.clear();
            self.write(unit, &mut text);
            give(pieces.count(&text, false));
        }
    }

    /// Gives the text of units, in parts.
    fn text(&self, units: Range<usize>, give: &mut dyn FnMut(&str)) {
        let mut text = String::with_capacity(2 * PART);
        for unit in units {
            self.write(unit, &mut text);
            if text.len() > PART {
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
    /// Tokens before each unit whose number is a multiple of [`Source::every`], as far as was asked; of uniform
    /// units those of one.
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
            Some((units, tokens)) if units == unit + 1 => tokens - self.count(unit..units),
            _ => {
                let every = self.source.every();
                self.start(unit / every) + self.count(unit / every * every..unit)
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
        let every = self.source.every();
        let (mut low, mut high) = (among.start / every, among.end.div_ceil(every));
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.start(middle) <= token {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (mut unit, mut start) = (low * every, self.start(low));
        loop {
            let after = start + self.count(unit..unit + 1);
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
            starts.push(self.count(0..1) as u32);
        }
        starts[0] as usize
    }

    /// Tokens before the unit `every * index`.
    fn start(&self, index: usize) -> usize {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if starts.is_empty() {
            starts.push(0);
        }
        if let last = starts.len() - 1
            && last < index
        {
            let every = self.source.every();
            let (mut tokens, mut counted) = (starts[last], 0);
            let units = last * every..index * every;
            self.source.counts(units, &self.pieces, &mut |count| {
                tokens += count as u32;
                counted += 1;
                if counted % every == 0 {
                    starts.push(tokens);
                }
            });
        }
        starts[index] as usize
    }

    fn count(&self, units: Range<usize>) -> usize {
        let mut sum = 0;
        if !units.is_empty() {
            let mut add = |count| sum += count;
            self.source.counts(units, &self.pieces, &mut add);
        }
        sum
    }
}
