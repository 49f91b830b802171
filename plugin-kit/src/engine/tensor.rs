//! Handles to what a graph holds. They are small copies without lifetimes; the values live in an
//! [`Arena`](super::arena::Arena), in the parameters or in a session's state.

/// Number of values of a buffer as a function of the run's shape, so that one trace serves every
/// batch and chunk size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// `[B, T, cols]`.
    Tokens(usize),
    /// `[B, cols]`.
    Rows(usize),
    /// `[B, ceil(T / chunk), cols]`.
    Chunks {
        /// Tokens a chunk.
        chunk: usize,
        /// Values a chunk.
        cols: usize,
    },
    /// A number of values that does not depend on the shape.
    Fixed(usize),
    /// `[S, cols]` with S the number of positions whose output is wanted.
    Scored(usize),
    /// `[min(S, block), cols]`: room for a block of wanted positions at a time.
    ScoredBlock {
        /// Positions a block.
        block: usize,
        /// Values a position.
        cols: usize,
    },
}

impl Extent {
    /// Number of values for a shape.
    pub fn len(self, shape: Shape) -> usize {
        match self {
            Self::Tokens(cols) => shape.rows * shape.length * cols,
            Self::Rows(cols) => shape.rows * cols,
            Self::Chunks { chunk, cols } => shape.rows * shape.length.div_ceil(chunk) * cols,
            Self::Fixed(values) => values,
            Self::Scored(cols) => shape.scored * cols,
            Self::ScoredBlock { block, cols } => shape.scored.min(block) * cols,
        }
    }

    /// What room of this extent lacks for another, and what of it would stay unused, in values; none where
    /// one is not always the larger of the two.
    pub(crate) fn fit(self, other: Self) -> Option<(usize, usize)> {
        let (room, wanted) = match (self, other) {
            (Self::Tokens(room), Self::Tokens(wanted))
            | (Self::Rows(room), Self::Rows(wanted))
            | (Self::Fixed(room), Self::Fixed(wanted))
            | (Self::Scored(room), Self::Scored(wanted)) => (room, wanted),
            (
                Self::Chunks { chunk, cols: room },
                Self::Chunks {
                    chunk: other,
                    cols: wanted,
                },
            ) if chunk == other => (room, wanted),
            _ => return None,
        };
        Some((wanted.saturating_sub(room), room.saturating_sub(wanted)))
    }
}

/// The shape of one run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    /// B, sequences.
    pub rows: usize,
    /// T, tokens a sequence.
    pub length: usize,
    /// S, positions whose output is wanted, over all rows.
    pub scored: usize,
}

/// A matrix of activations: rows are positions (`[B, T]` or the scored ones), columns are features.
/// It may be a slice of the columns of a wider one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    pub(crate) id: usize,
    pub(crate) start: usize,
    pub(crate) cols: usize,
    pub(crate) stride: usize,
    /// Whether it has one row, which stands for every position.
    pub(crate) constant: bool,
}

impl Tensor {
    /// Number of columns.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Columns `start..start + cols` as a tensor of their own, without a copy.
    ///
    /// # Panics
    /// If the range leaves the tensor.
    #[track_caller]
    pub fn columns(self, start: usize, cols: usize) -> Self {
        assert!(
            start + cols <= self.cols,
            "columns {start}..{} of a tensor with {}",
            start + cols,
            self.cols
        );
        Self {
            start: self.start + start,
            cols,
            ..self
        }
    }

    /// Whether it has one row, which stands for every position, see
    /// [`Graph::constant`](super::graph::Graph::constant).
    pub fn is_constant(self) -> bool {
        self.constant
    }

    /// Whether two share columns, so that their gradients may not be added to by one launch.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let starts_in = |a: Self, b: Self| a.start < b.start + b.cols;
        self.id == other.id && starts_in(self, other) && starts_in(other, self)
    }

    /// Whether it covers its buffer's columns entirely.
    pub(crate) fn is_whole(self) -> bool {
        self.cols == self.stride
    }
}

/// A buffer that an operation keeps from forward to backward; it has no gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    pub(crate) id: usize,
}

/// A buffer of a program, an activation's or a saved one: what an operation
/// [uses](super::operation::Operation::uses).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    pub(crate) id: usize,
}

impl From<Tensor> for Buffer {
    fn from(tensor: Tensor) -> Self {
        Self { id: tensor.id }
    }
}

impl From<Saved> for Buffer {
    fn from(saved: Saved) -> Self {
        Self { id: saved.id }
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    pub(crate) id: usize,
}

/// A slot of recurrent state, carried from chunk to chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub(crate) id: usize,
}

/// What a state slot holds for each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StateSpec {
    /// A fixed number of float32 values, all `initial` at position 0.
    Fixed {
        /// Values a row.
        values: usize,
        /// Value of each at position 0.
        initial: f32,
    },
    /// A cache that grows by `per_token` values a token, up to `window` tokens where there is one.
    Cache {
        /// Values a token.
        per_token: usize,
        /// Most tokens kept.
        window: Option<usize>,
    },
}

impl StateSpec {
    /// Declared bytes of one row after `length` tokens.
    pub fn bytes(self, length: u64) -> u64 {
        let values = match self {
            Self::Fixed { values, .. } => values as u64,
            Self::Cache { per_token, window } => {
                per_token as u64 * window.map_or(length, |window| length.min(window as u64))
            }
        };
        values * size_of::<f32>() as u64
    }
}
