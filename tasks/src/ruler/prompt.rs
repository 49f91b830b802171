//! A prompt: literal texts and ranges of units, its tokens by position, and the largest that fits.

use std::ops::Range;
use std::sync::Arc;

use longhaul_text::Chat;

use crate::ruler::pieces::Pieces;
use crate::ruler::units::Units;

/// A stretch of a prompt.
enum Part {
    /// This text.
    Text(String),
    /// These units.
    Units(Arc<Units>, Range<usize>),
}

/// A place in a prompt: before a byte of a literal text.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    part: usize,
    byte: usize,
}

/// A prompt without the answer prefix, and what is wanted of it.
#[derive(Default)]
pub struct Prompt {
    parts: Vec<Part>,
    /// The end of the prompt, where the answer begins.
    pub answer_prefix: String,
    /// What an answer is held against.
    pub references: Vec<String>,
    /// Words that an answer may be, but for those of the question, where it may name only one.
    pub labels: Vec<String>,
    /// Where the first reference stands, in tasks that have one such place.
    pub answer: Option<Place>,
    /// Where the needle that is asked for stands, as a fraction.
    pub depth: Option<f64>,
    /// How often each word that is asked for stands in a list, in tasks where that steps up with length.
    pub repeats: Option<usize>,
}

impl Prompt {
    /// Adds a text at the end.
    pub fn push(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(before)) => before.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// Adds units at the end.
    pub fn units(&mut self, units: &Arc<Units>, range: Range<usize>) {
        if !range.is_empty() {
            self.parts.push(Part::Units(Arc::clone(units), range));
        }
    }

    /// Adds units after which the text does not go on at a cut: the last of them becomes a part of that text.
    pub fn units_within_text(&mut self, units: &Arc<Units>, range: Range<usize>) {
        if let Some(last) = range.clone().next_back() {
            self.units(units, range.start..last);
            units.text(last..last + 1, &mut |text| self.push(text));
        }
    }

    /// Puts what a chat template has around a message around what is there so far.
    pub fn frame(&mut self, chat: &Chat) {
        let (before, after) = (&chat.before, &chat.after);
        if chat.trims
            && let Some(Part::Text(last)) = self.parts.last_mut()
        {
            last.truncate(last.trim_end().len());
        }
        self.push(after);
        match self.parts.first_mut() {
            Some(Part::Text(first)) => {
                let white = first.len() - first.trim_start().len();
                let cut = if chat.trims { white } else { 0 };
                first.replace_range(..cut, before);
                if let Some(place) = self.answer.as_mut().filter(|place| place.part == 0) {
                    place.byte = place.byte + before.len() - cut;
                }
            }
            _ => {
                self.parts.insert(0, Part::Text(before.clone()));
                if let Some(place) = &mut self.answer {
                    place.part += 1;
                }
            }
        }
    }

    /// The end of what is there so far, which is a text.
    pub fn here(&self) -> Place {
        let byte = match self.parts.last() {
            Some(Part::Text(text)) => text.len(),
            _ => 0,
        };
        Place {
            part: self.parts.len().saturating_sub(1),
            byte,
        }
    }

    /// Gives the text without the answer prefix, in parts.
    pub fn text(&self, give: &mut dyn FnMut(&str)) {
        for part in &self.parts {
            match part {
                Part::Text(text) => give(text),
                Part::Units(units, range) => units.text(range.clone(), give),
            }
        }
    }

    /// All of the text, answer prefix included.
    pub fn whole(&self) -> String {
        let mut whole = String::new();
        self.text(&mut |text| whole.push_str(text));
        whole.push_str(&self.answer_prefix);
        whole
    }

    /// The text before a place.
    fn text_before(&self, place: Place) -> String {
        let mut text = String::new();
        for (index, part) in self.parts[..=place.part].iter().enumerate() {
            match part {
                Part::Text(all) if index == place.part => text.push_str(&all[..place.byte]),
                Part::Text(all) => text.push_str(all),
                Part::Units(units, range) => {
                    units.text(range.clone(), &mut |more| text.push_str(more));
                }
            }
        }
        text
    }

    /// Number of tokens, answer prefix included.
    pub fn count(&self, pieces: &Pieces) -> usize {
        if !pieces.additive() {
            return pieces.whole(&self.whole()).len();
        }
        let last = self.parts.len() - 1;
        let parts = self.parts.iter().enumerate();
        let count = |(index, part): (usize, &Part)| match part {
            Part::Text(text) if index == last => {
                pieces.count(&format!("{text}{}", self.answer_prefix), index == 0)
            }
            Part::Text(text) => pieces.count(text, index == 0),
            Part::Units(units, range) => units.before(range.end) - units.before(range.start),
        };
        parts.map(count).sum()
    }

    /// Number of tokens of the text before a place.
    pub fn count_before(&self, place: Place, pieces: &Pieces) -> usize {
        if !pieces.additive() {
            return pieces.whole(&self.text_before(place)).len();
        }
        let parts = self.parts[..=place.part].iter().enumerate();
        let count = |(index, part): (usize, &Part)| match part {
            Part::Text(text) if index == place.part => {
                pieces.count(&text[..place.byte], index == 0)
            }
            Part::Text(text) => pieces.count(text, index == 0),
            Part::Units(units, range) => units.before(range.end) - units.before(range.start),
        };
        parts.map(count).sum()
    }

    /// Its tokens by position, after `bos`.
    pub fn tokens(&self, bos: Option<u32>, pieces: &Pieces) -> Tokens {
        let mut tokens = Tokens::default();
        tokens.push(bos.into_iter().collect());
        if !pieces.additive() {
            tokens.push(pieces.whole(&self.whole()));
            return tokens;
        }
        let last = self.parts.len() - 1;
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) if index == last => {
                    let text = format!("{text}{}", self.answer_prefix);
                    tokens.push(pieces.tokens(&text, index == 0));
                }
                Part::Text(text) => tokens.push(pieces.tokens(text, index == 0)),
                Part::Units(units, range) => tokens.units(units, range.clone()),
            }
        }
        tokens
    }
}

/// Tokens by position.
#[derive(Default)]
pub struct Tokens {
    len: usize,
    stretches: Vec<Stretch>,
}

/// A stretch of tokens.
struct Stretch {
    /// Position of its first token.
    start: usize,
    len: usize,
    source: TokenSource,
}

enum TokenSource {
    Literal(Vec<u32>),
    /// These units, and the number of tokens before them, counted from the first unit of all.
    Units(Arc<Units>, Range<usize>, usize),
}

impl Tokens {
    fn push(&mut self, tokens: Vec<u32>) {
        self.add(tokens.len(), TokenSource::Literal(tokens));
    }

    fn units(&mut self, units: &Arc<Units>, range: Range<usize>) {
        let before = units.before(range.start);
        let len = units.before(range.end) - before;
        self.add(len, TokenSource::Units(Arc::clone(units), range, before));
    }

    fn add(&mut self, len: usize, source: TokenSource) {
        if len > 0 {
            let start = self.len;
            self.stretches.push(Stretch { start, len, source });
            self.len += len;
        }
    }

    /// Writes the tokens of the positions from `start` on.
    ///
    /// # Panics
    /// If the positions leave the prompt.
    pub fn write(&self, start: usize, tokens: &mut [u32]) {
        let end = start + tokens.len();
        assert!(end <= self.len, "a write past the sample");
        let first = self
            .stretches
            .partition_point(|stretch| stretch.start + stretch.len <= start);
        for stretch in &self.stretches[first..] {
            if stretch.start >= end {
                break;
            }
            let from = stretch.start.max(start);
            let to = (stretch.start + stretch.len).min(end);
            let inside = &mut tokens[from - start..to - start];
            let offset = from - stretch.start;
            match &stretch.source {
                TokenSource::Literal(all) => {
                    inside.copy_from_slice(&all[offset..offset + inside.len()]);
                }
                TokenSource::Units(units, range, before) => {
                    write_units(units, range.clone(), before + offset, inside);
                }
            }
        }
    }
}

/// Writes the tokens of units from the token `from` on, counted from the first unit of all.
fn write_units(units: &Units, range: Range<usize>, from: usize, tokens: &mut [u32]) {
    let (mut unit, start) = units.find(range, from);
    let mut skip = from - start;
    let mut written = 0;
    while written < tokens.len() {
        let of_unit = units.tokens(unit);
        let some = &of_unit[skip.min(of_unit.len())..];
        let count = some.len().min(tokens.len() - written);
        tokens[written..written + count].copy_from_slice(&some[..count]);
        written += count;
        (unit, skip) = (unit + 1, 0);
    }
}

/// The largest number of units, from `fewest` on, whose prompt has at most `room` tokens; none where even
/// the fewest have more. `count` gives the tokens of a prompt of so many units, and grows with them.
pub fn largest(fewest: usize, room: usize, mut count: impl FnMut(usize) -> usize) -> Option<usize> {
    let least = count(fewest);
    if least > room {
        return None;
    }
    // Two guesses, by the slope at the start and by that up to the first guess.
    let slope = (count(fewest + 16).saturating_sub(least)).max(1);
    let first = fewest + (room - least) * 16 / slope;
    let slope = (count(first) - least) as f64 / (first - fewest).max(1) as f64;
    let guess = fewest + ((room - least) as f64 / slope.max(1e-3)) as usize;
    Some(largest_near(guess, fewest, room, count))
}

/// As [`largest`] where the fewest fit, by way of a guess: steps that double until it is between two numbers,
/// then halves.
pub fn largest_near(
    guess: usize,
    fewest: usize,
    room: usize,
    mut count: impl FnMut(usize) -> usize,
) -> usize {
    let (mut low, mut step) = (fewest, 1);
    let mut high = guess + 1;
    if count(guess) <= room {
        low = guess;
        while count(high) <= room {
            low = high;
            step *= 2;
            high += step;
        }
    } else {
        high = guess;
        while high > low + step && count(high - step) > room {
            high -= step;
            step *= 2;
        }
        low = low.max(high.saturating_sub(step));
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        if count(middle) <= room {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits_is_found() {
        for (base, each) in [(10, 7), (0, 1), (100, 30)] {
            for room in (base..base + 5000).step_by(13) {
                for bend in [0, 40, 300] {
                    // A count that does not grow evenly.
                    let count = |n: usize| base + each * n + n.min(bend) * 3;
                    let found = largest(3, room, count);
                    let wanted = (3..6000).take_while(|&n| count(n) <= room).last();
                    assert_eq!(found, wanted, "{base} {each} {room} {bend}");
                    for guess in [3, 40, 5000].into_iter().filter(|_| wanted.is_some()) {
                        let found = largest_near(guess, 3, room, count);
                        assert_eq!(Some(found), wanted, "{base} {each} {room} {bend} {guess}");
                    }
                }
            }
        }
    }
}
