//! Inputs as a head sees them, and the way back from buffers by head. Nothing here computes.

use super::{Decay, Heads, Read, Removal, StateMatrix};
use crate::engine::operation::{Rows, Run, View, ViewMut};
use crate::simd::add_into;

/// A head's columns of a matrix, from a token on.
#[derive(Clone, Copy)]
pub(in crate::recurrences) struct Part<'a> {
    pub data: &'a [f32],
    /// Values from one token to the next.
    pub stride: usize,
    /// Columns of the head.
    pub count: usize,
    /// Values from one write to the next.
    pub step: usize,
}

impl<'a> Part<'a> {
    /// `count` columns from `column` on of the rows from `row` on.
    pub fn new(rows: Rows<'a>, row: usize, column: usize, count: usize) -> Self {
        let rows = rows.from_row(row);
        Self {
            data: &rows.data[column.min(rows.data.len())..],
            stride: rows.stride,
            count,
            step: 0,
        }
    }

    /// A token's values of a write.
    #[inline(always)]
    pub fn row(self, t: usize, write: usize) -> &'a [f32] {
        &self.data[t * self.stride + write * self.step..][..self.count]
    }

    /// The same in an array; values past the last are 0.
    #[inline(always)]
    pub fn load<const W: usize>(self, t: usize, write: usize) -> [f32; W] {
        let row = self.row(t, write);
        match row.try_into() {
            Ok(row) => row,
            Err(_) => {
                let mut values = [0.0; W];
                values[..row.len()].copy_from_slice(row);
                values
            }
        }
    }
}

/// A head's decay.
#[derive(Clone, Copy)]
pub(super) enum DecayPart<'a> {
    /// The same factor for every token.
    Fixed(f32),
    /// Logarithms `[T, 1]`.
    Head(Part<'a>),
    /// Logarithms `[T, K]`.
    Key(Part<'a>),
    /// Logarithms `[T, V]`; nothing is removed.
    Value(Part<'a>),
}

/// What a head reads from a token on.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// `[T, K]`.
    pub q: Part<'a>,
    /// `[T, writes, K]`.
    pub k: Part<'a>,
    /// `[T, writes, V]`.
    pub v: Part<'a>,
    pub decay: DecayPart<'a>,
    /// `[T, writes, 1]`.
    pub beta: Option<Part<'a>>,
    /// a and b, `[T, K]` each.
    pub pair: Option<[Part<'a>; 2]>,
    pub writes: usize,
    pub reads_after: bool,
    /// Tokens.
    pub length: usize,
}

impl Given<'_> {
    /// Whether anything is removed.
    pub fn removes(&self) -> bool {
        self.beta.is_some() || self.pair.is_some()
    }
}

/// The inputs of a run, borrowed.
pub(super) struct Views<'a>(Vec<View<'a>>);

impl<'a> Views<'a> {
    pub fn new(run: &Run<'a>, what: &StateMatrix) -> Self {
        Self(what.inputs().into_iter().map(|x| run.value(x)).collect())
    }

    pub fn sources<'s>(&'s self, what: &'s StateMatrix) -> Sources<'s> {
        let mut rest = self.0[3..].iter().map(View::get);
        Sources {
            q: self.0[0].get(),
            k: self.0[1].get(),
            v: self.0[2].get(),
            decay: what.decay.given().and_then(|_| rest.next()),
            removal: [rest.next(), rest.next()],
            what,
        }
    }
}

/// The inputs of a run as threads share them.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    decay: Option<Rows<'a>>,
    /// beta, or a and b.
    removal: [Option<Rows<'a>>; 2],
    what: &'a StateMatrix,
}

impl<'a> Sources<'a> {
    /// A head's inputs from a token of `[B, T]` on.
    pub fn given(self, head: usize, start: usize, length: usize) -> Given<'a> {
        let Heads {
            heads,
            groups,
            key,
            value,
            writes,
        } = self.what.heads;
        let group = head / (heads / groups);
        let part = |rows, index: usize, count, step| Part {
            step,
            ..Part::new(rows, start, index * count, count)
        };
        let decay = match (&self.what.decay, self.decay) {
            (Decay::Head(_), Some(rows)) => DecayPart::Head(part(rows, head, 1, 0)),
            (Decay::Key(_), Some(rows)) => DecayPart::Key(part(rows, head, key, 0)),
            (Decay::Value(_), Some(rows)) => DecayPart::Value(part(rows, head, value, 0)),
            (Decay::Constant(logs), _) => DecayPart::Fixed(logs[head].exp() as f32),
            _ => DecayPart::Fixed(1.0),
        };
        let (beta, pair) = match self.removal {
            [Some(beta), None] => (Some(part(beta, head, 1, heads)), None),
            [Some(a), Some(b)] => (None, Some([a, b].map(|x| part(x, head, key, 0)))),
            _ => (None, None),
        };
        Given {
            q: part(self.q, group, key, 0),
            k: part(self.k, group, key, groups * key),
            v: part(self.v, head, value, heads * value),
            decay,
            beta,
            pair,
            writes,
            reads_after: self.what.read != Read::Before,
            length,
        }
    }
}

/// How an input's columns `[writes, units]` of `width` values each belong to heads.
#[derive(Clone, Copy)]
pub(in crate::recurrences) struct Columns {
    pub heads: usize,
    /// Blocks of columns of a write: the heads, or their groups.
    pub blocks: usize,
    pub width: usize,
    pub writes: usize,
}

impl Columns {
    /// Of each input in the order of `StateMatrix::inputs`.
    pub fn of(what: &StateMatrix) -> Vec<Self> {
        let Heads {
            heads,
            groups,
            key,
            value,
            writes,
        } = what.heads;
        let columns = |blocks, width, writes| Self {
            heads,
            blocks,
            width,
            writes,
        };
        let mut all = vec![
            columns(groups, key, what.reads()),
            columns(groups, key, writes),
            columns(heads, value, writes),
        ];
        match what.decay {
            Decay::None | Decay::Constant(_) => {}
            Decay::Head(_) => all.push(columns(heads, 1, 1)),
            Decay::Key(_) => all.push(columns(heads, key, 1)),
            Decay::Value(_) => all.push(columns(heads, value, 1)),
        }
        match what.removal {
            Removal::None => {}
            Removal::Delta(_) => all.push(columns(heads, 1, writes)),
            Removal::Pair { .. } => all.extend([columns(heads, key, 1); 2]),
        }
        all
    }

    /// Values of a head's token.
    pub fn values(self) -> usize {
        self.writes * self.width
    }

    /// Copies, or adds where the place says so, `[B, H, T, writes, width]` into rows `[B, T, writes blocks width]`;
    /// heads of one block are added up.
    pub fn scatter(self, by_head: &[f32], length: usize, mut rows: ViewMut<'_>) {
        let sharing = self.heads / self.blocks;
        let accumulate = rows.accumulate();
        for (index, values) in by_head.chunks_exact(length * self.values()).enumerate() {
            let (row, head) = (index / self.heads, index % self.heads);
            let adds = accumulate || !head.is_multiple_of(sharing);
            let first = head / sharing * self.width;
            for (t, values) in values.chunks_exact(self.values()).enumerate() {
                let row = rows.row_mut(row * length + t);
                for (write, values) in values.chunks_exact(self.width).enumerate() {
                    let start = write * self.blocks * self.width + first;
                    let place = &mut row[start..start + self.width];
                    if adds {
                        add_into(place, values);
                    } else {
                        place.copy_from_slice(values);
                    }
                }
            }
        }
    }
}

/// Some tokens of a sequence.
#[derive(Clone, Copy)]
pub(in crate::recurrences) struct Tokens {
    pub start: usize,
    pub count: usize,
    /// T.
    pub of: usize,
}

impl Tokens {
    /// Their part of values that are all tokens'.
    pub fn of(self, all: &mut [f32]) -> &mut [f32] {
        let each = all.len() / self.of;
        &mut all[self.start * each..][..self.count * each]
    }
}
