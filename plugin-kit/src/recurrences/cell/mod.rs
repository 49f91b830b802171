//! Recurrent cells whose gates see the h before, `U h + u` beside the input's share: sequential in time, so rows of the
//! batch are what they are wide in. A kind of cell is what [`Kind`] and `steps` say of it, and one struct in
//! `kernels/cell.cu`; the product, the loop over tokens and the state are the same for all.

mod device;
pub mod naive;
mod product;
mod recurrent;
mod steps;

use super::real::Real;
use super::{Carries, Ports, Recurrence, Sequence};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Param, Tensor};

/// A kind of cell. Its gates stand in this order in the columns of what is given and in the rows of U and u.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), x being the
    /// input's share: i, f, o = sigmoid(x + U h + u), g = tanh(x + U h + u), in the order i, f, g, o; c = f c + i g,
    /// h = o tanh(c).
    Lstm,
    /// The gated recurrent unit (arXiv 1406.1078) in the form whose reset gate stands after the product, as cuDNN's and
    /// PyTorch's: r, z = sigmoid(x + U h + u), n = tanh(x + r (U h + u)), in the order r, z, n; h = (1 - z) n + z h.
    Gru,
    /// xLSTM's scalar memory (arXiv 2405.04517, equations 8 to 18), x being the input's share: i, f, z, o are x + U h + u,
    /// in that order; m = max(log sigmoid(f) + m, i), c and n become exp(log sigmoid(f) + m - m') c + exp(i - m') tanh(z)
    /// and the same of n and 1, h = sigmoid(o) c / n. Before the first token, where n is 0, m is i.
    Slstm,
}

impl Kind {
    /// G, values of a cell in U h.
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm | Self::Slstm => 4,
            Self::Gru => 3,
        }
    }

    /// C, values of a cell that are carried from token to token: h, then what else there is.
    pub fn carried(self) -> usize {
        match self {
            Self::Lstm => 2,
            Self::Gru => 1,
            Self::Slstm => 4,
        }
    }

    /// Values of a cell and token that are kept for the gradients: of the LSTM its gates, of the GRU its gates and the
    /// n row of U h + u, of the sLSTM exp(i - m), f, tanh(z) and sigmoid(o).
    fn kept(self) -> usize {
        4
    }
}

impl Graph {
    /// Records a layer of recurrent cells: `gates` `[B, T, G H]` is the input's share of the gates, `weight` is U
    /// `[G H, H]`, `bias` u `[G H]`; the result is h, `[B, T, H]`, the state C H values. With `weight` `[G H, W]` U is
    /// block-diagonal: cells see the h of the W cells of their block.
    ///
    /// # Panics
    /// If the sizes do not fit.
    #[track_caller]
    pub fn recurrent_cell(
        &mut self,
        kind: Kind,
        gates: Tensor,
        weight: Param,
        bias: Param,
    ) -> Tensor {
        let (columns, hidden) = (gates.cols(), gates.cols() / kind.gates());
        assert_eq!(
            columns,
            hidden * kind.gates(),
            "a cell of {} gates",
            kind.gates()
        );
        let shape = self.param_shape(weight);
        let fits = shape.len() == 2 && shape[0] == columns && hidden.is_multiple_of(shape[1]);
        assert!(fits, "U of {hidden} cells is {shape:?}");
        let width = shape[1];
        assert_eq!(self.param_shape(bias), [columns], "u of a cell");
        self.record(Layer {
            kind,
            gates,
            weight,
            bias,
            width,
        })
    }
}

/// A layer of cells as a recurrence.
struct Layer {
    kind: Kind,
    gates: Tensor,
    weight: Param,
    bias: Param,
    /// W, cells of a block.
    width: usize,
}

impl Layer {
    /// H.
    fn hidden(&self) -> usize {
        self.gates.cols() / self.kind.gates()
    }
}

impl Recurrence for Layer {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Lstm => "lstm",
            Kind::Gru => "gru",
            Kind::Slstm => "slstm",
        }
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: vec![self.gates],
            params: vec![self.weight, self.bias],
            cols: self.hidden(),
            carries: Carries::State {
                values: self.kind.carried() * self.hidden(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let (weight, bias) = (&given.params[0], &given.params[1]);
        naive::naive(self.kind, &given.inputs[0], weight, bias, state)
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(recurrent::record(self, graph))
    }
}
