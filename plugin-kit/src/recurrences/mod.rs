//! Recurrences: what mixes the positions of a sequence, each written once as the paper writes it and computed
//! by the fastest form there is. A recurrence declares its ports and a naive form, and may have a fast one.
//! The naive form is generic over its numbers: with float64 it is the reference that everything faster is held
//! to, with numbers on a [tape] it has exact gradients, so that a model trains (slowly) without another.

pub mod cell;
pub mod diagonal;
pub mod fast_weights;
pub mod long_convolution;
pub mod mlstm;
mod naive;
pub mod real;
pub mod state_matrix;
pub mod tape;
mod turns;

use crate::engine::graph::Graph;
use crate::engine::tensor::{Param, Tensor};
use real::Real;

/// A recurrence as it stands in a model; [`Graph::record`] puts it there.
pub trait Recurrence: Send + Sync + Sized + 'static {
    /// Name for profiles, warnings and errors.
    fn name(&self) -> &'static str;

    /// What it reads, gives and carries.
    fn ports(&self) -> Ports;

    /// The recurrence as the paper writes it, over a piece of one sequence: the result `[T, cols]`. `state` is
    /// what it [carries](Ports::carries): what the token before left when it is called, what the last token
    /// leaves when it returns. A sequence may come in pieces of any length, down to single tokens.
    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N>;

    /// Records a fast form with the same result; none where there is none, and then the naive form runs on the
    /// CPU. The devices that its [operations](crate::Operation) have kernels for are those of the model.
    fn fast(&self, _graph: &mut Graph) -> Option<Tensor> {
        None
    }
}

/// What a recurrence reads, gives and carries from token to token.
#[derive(Debug, Clone, PartialEq)]
pub struct Ports {
    /// What it reads of each token, each `[B, T, cols]`.
    pub inputs: Vec<Tensor>,
    /// The parameters it reads.
    pub params: Vec<Param>,
    /// Columns of its result `[B, T, cols]`.
    pub cols: usize,
    /// What it carries.
    pub carries: Carries,
}

/// What the next token needs to know of those before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Carries {
    /// A fixed number of values a sequence, none for what looks at each token alone.
    State {
        /// Number of values.
        values: usize,
        /// Value of each before the first token.
        initial: f32,
    },
    /// All that was read: the naive form is always given the whole sequence from position 0, and no state.
    History,
}

/// A piece of one sequence, as a naive form is given it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence<N = f64> {
    /// Inputs in the order of [`Ports::inputs`], each `[T, cols]`.
    pub inputs: Vec<Vec<N>>,
    /// Parameters in the order of [`Ports::params`].
    pub params: Vec<Vec<N>>,
    /// T.
    pub length: usize,
    /// Tokens of the sequence before this piece.
    pub position: usize,
}

impl<N> Sequence<N> {
    /// Columns of an input at a token of this piece.
    ///
    /// # Panics
    /// If there is no such input or token.
    pub fn token(&self, input: usize, t: usize) -> &[N] {
        let values = &self.inputs[input];
        let cols = values.len() / self.length;
        &values[t * cols..][..cols]
    }
}

impl Graph {
    /// Records a recurrence by the fastest form that it has, or by its naive one where reference forms are
    /// asked for or there is no other. The result is `[B, T, cols]`.
    #[track_caller]
    pub fn record(&mut self, recurrence: impl Recurrence) -> Tensor {
        if !self.wants_reference()
            && let Some(y) = recurrence.fast(self)
        {
            return y;
        }
        if !self.wants_reference() {
            self.program.naive.insert(recurrence.name());
        }
        self.record_naive(recurrence)
    }
}
