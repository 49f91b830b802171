//! The one form of sample: literal pieces, filler that is recomputed from its position, and a few
//! targets. Its size does not depend on its length.

use std::sync::Arc;

use crate::draws::Draws;
use crate::task::{Label, Sample};

/// Filler of records that are all of one length, each computed from its index alone.
pub trait Records: Send + Sync {
    /// Tokens a record.
    fn len(&self) -> usize;
    /// Writes a record, of [`Records::len`] tokens.
    fn write(&self, index: usize, record: &mut [u32]);
}

/// Filler that writes itself from any index on.
pub trait Written: Send + Sync {
    /// Writes the tokens of indices `from..`.
    fn write(&self, from: usize, tokens: &mut [u32]);
}

/// What a stretch of tokens is made of.
#[derive(Clone)]
pub enum Source {
    /// These tokens.
    Literal(Vec<u32>),
    /// The filler from an index on.
    Filler(usize),
    /// The filler from an index down to those before it: the index is one past the first token.
    Reversed(usize),
}

/// Filler by its index.
#[derive(Clone)]
pub enum Filler {
    /// Always the same token.
    Constant(u32),
    /// Uniform over `low..low + count`, with some indices replaced (sorted by index).
    Uniform {
        /// The draws, one an index.
        draws: Draws,
        /// Lowest token.
        low: u32,
        /// Number of tokens.
        count: u32,
        /// `(index, token)`, sorted.
        replaced: Vec<(usize, u32)>,
    },
    /// Two kinds in turn, each uniform over `low..low + count`.
    Alternating {
        /// The draws, one an index.
        draws: Draws,
        /// Lowest token at even and odd indices.
        low: [u32; 2],
        /// Number of tokens at even and odd indices.
        count: [u32; 2],
    },
    /// A fixed cycle.
    Cycle(&'static [u32]),
    /// Sentences whose words follow a distribution.
    Sentences {
        /// The draws, one an index.
        draws: Draws,
        /// Words a sentence without its full stop, as a cycle.
        lengths: &'static [usize],
        /// Token of the full stop.
        stop: u32,
        /// Lowest word.
        low: u32,
        /// Cumulative probabilities of the words, times 2^32.
        cumulative: &'static [u64],
    },
    /// One record after the other.
    Records(Arc<dyn Records>),
    /// What writes itself.
    Written(Arc<dyn Written>),
}

impl Filler {
    /// Writes the filler of indices `from..`.
    pub fn write(&self, from: usize, tokens: &mut [u32]) {
        match self {
            Self::Constant(token) => tokens.fill(*token),
            Self::Records(records) => write_records(records.as_ref(), from, tokens),
            Self::Written(written) => written.write(from, tokens),
            Self::Cycle(cycle) => {
                for (offset, token) in tokens.iter_mut().enumerate() {
                    *token = cycle[(from + offset) % cycle.len()];
                }
            }
            Self::Alternating { draws, low, count } => {
                let mut draws = draws.clone();
                draws.seek(from);
                for (offset, token) in tokens.iter_mut().enumerate() {
                    let kind = (from + offset) % 2;
                    *token = low[kind] + draws.below(count[kind] as usize) as u32;
                }
            }
            Self::Uniform {
                draws,
                low,
                count,
                replaced,
            } => {
                let mut draws = draws.clone();
                draws.seek(from);
                for token in tokens.iter_mut() {
                    *token = low + draws.below(*count as usize) as u32;
                }
                let first = replaced.partition_point(|(index, _)| *index < from);
                for (index, token) in &replaced[first..] {
                    match tokens.get_mut(index - from) {
                        Some(place) => *place = *token,
                        None => break,
                    }
                }
            }
            Self::Sentences {
                draws,
                lengths,
                stop,
                low,
                cumulative,
            } => {
                let mut draws = draws.clone();
                draws.seek(from);
                let period: usize = lengths.iter().map(|length| length + 1).sum();
                let mut within = from % period;
                let mut sentence = 0;
                while within > lengths[sentence] {
                    within -= lengths[sentence] + 1;
                    sentence += 1;
                }
                for token in tokens.iter_mut() {
                    let draw = draws.below(1 << 31) as u64 * 2;
                    if within == lengths[sentence] {
                        *token = *stop;
                        within = 0;
                        sentence = (sentence + 1) % lengths.len();
                    } else {
                        let rank = cumulative.partition_point(|limit| *limit <= draw);
                        *token = low + rank.min(cumulative.len() - 1) as u32;
                        within += 1;
                    }
                }
            }
        }
    }
}

/// Writes the tokens from an index on of records that stand one after the other.
fn write_records(records: &dyn Records, from: usize, tokens: &mut [u32]) {
    let len = records.len();
    let mut record = vec![0; len];
    let (mut index, mut within, mut done) = (from / len, from % len, 0);
    while done < tokens.len() {
        records.write(index, &mut record);
        let count = (len - within).min(tokens.len() - done);
        tokens[done..done + count].copy_from_slice(&record[within..within + count]);
        (index, within, done) = (index + 1, 0, done + count);
    }
}

/// A stretch of a sequence.
#[derive(Clone)]
struct Piece {
    start: usize,
    len: usize,
    source: Source,
    /// Whether each of its tokens is the target of the position before.
    scored: bool,
}

/// A sample made of pieces.
pub struct Sequence {
    len: usize,
    pieces: Vec<Piece>,
    filler: Filler,
    /// `(position, target)` beside what scored pieces say, sorted by position.
    marks: Vec<(usize, i32)>,
    labels: Vec<Label>,
}

impl Sequence {
    /// An empty sequence over a filler.
    pub fn new(filler: Filler) -> Self {
        Self {
            len: 0,
            pieces: Vec::new(),
            filler,
            marks: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Adds given tokens at the end.
    pub fn literal(&mut self, tokens: Vec<u32>, scored: bool) {
        let len = tokens.len();
        self.push(len, Source::Literal(tokens), scored);
    }

    /// Adds `len` tokens of the filler, from an index on, at the end.
    pub fn filler(&mut self, from: usize, len: usize, scored: bool) {
        self.push(len, Source::Filler(from), scored);
    }

    /// Adds the `len` tokens of the filler that stand before an index, the last first, at the end.
    pub fn reversed(&mut self, before: usize, len: usize, scored: bool) {
        self.push(len, Source::Reversed(before), scored);
    }

    fn push(&mut self, len: usize, source: Source, scored: bool) {
        if len > 0 {
            self.pieces.push(Piece {
                start: self.len,
                len,
                source,
                scored,
            });
            self.len += len;
        }
    }

    /// Scores a position against a token that does not follow in the sequence itself. Calls go up
    /// in position.
    pub fn mark(&mut self, position: usize, target: u32) {
        self.marks.push((position, target as i32));
    }

    /// Adds a label.
    pub fn label(&mut self, key: &'static str, value: String) {
        self.labels.push(Label { key, value });
    }

    /// Writes tokens of a piece, from its `offset`-th on.
    fn write_inside(&self, piece: &Piece, offset: usize, tokens: &mut [u32]) {
        match &piece.source {
            Source::Literal(literal) => {
                tokens.copy_from_slice(&literal[offset..][..tokens.len()]);
            }
            Source::Filler(index) => self.filler.write(index + offset, tokens),
            Source::Reversed(index) => {
                self.filler.write(index - offset - tokens.len(), tokens);
                tokens.reverse();
            }
        }
    }

    /// Pieces from the one that holds a position on.
    fn pieces_from(&self, position: usize) -> &[Piece] {
        let first = self
            .pieces
            .partition_point(|piece| piece.start + piece.len <= position);
        &self.pieces[first..]
    }
}

impl Sample for Sequence {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn write(&self, start: usize, tokens: &mut [u32], targets: &mut [i32]) {
        let end = start + tokens.len();
        assert!(
            end <= self.len && targets.len() == tokens.len(),
            "a write past the sample"
        );
        targets.fill(-1);
        // One token more than asked for: the last position's target may be the one after.
        for piece in self.pieces_from(start) {
            if piece.start > end {
                break;
            }
            let from = piece.start.max(start);
            let to = (piece.start + piece.len).min(end);
            let inside = &mut tokens[from - start..to.max(from) - start];
            self.write_inside(piece, from - piece.start, inside);
            if !piece.scored {
                continue;
            }
            for position in from.max(start + 1)..to {
                targets[position - 1 - start] = tokens[position - start] as i32;
            }
            if end < piece.start + piece.len && end > start {
                let mut next = [0];
                self.write_inside(piece, end - piece.start, &mut next);
                targets[end - 1 - start] = next[0] as i32;
            }
        }
        let first = self
            .marks
            .partition_point(|(position, _)| *position < start);
        for (position, target) in &self.marks[first..] {
            match targets.get_mut(position - start) {
                Some(place) => *place = *target,
                None => break,
            }
        }
    }
}
