//! A model a head whose weights learn while it reads: `f(x) = x W + b` is trained to give each token's target for its
//! key, by gradients that all tokens of a mini-batch take at the weights that it began with, and a token's query is
//! answered by the weights that its own step has left. Test-time training (arXiv 2407.04620, sections 2.4 and 2.5) and
//! Titans' neural memory (arXiv 2501.00663, section 3) are cases of it, by the inner loss and by what the steps do.

mod chunk;
mod device;
mod loss;
mod mixture;
mod naive;
mod operation;

use super::real::Real;
use super::{Carries, Ports, Recurrence, Sequence};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Param, Tensor};

/// What [`Graph::fast_weights`] records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FastWeights {
    /// Queries, `[B, T, H K]`.
    pub q: Tensor,
    /// Keys, `[B, T, H K]`.
    pub k: Tensor,
    /// What the model is to give for the keys, `[B, T, H V]`.
    pub target: Tensor,
    /// Learning rates, `[B, T, H]`.
    pub rate: Tensor,
    /// W before the first token, `[H, K, V]`.
    pub start: Param,
    /// b before the first token, `[H, V]`; without it there is no b.
    pub bias: Option<Param>,
    /// The inner loss l.
    pub loss: Loss,
    /// What is done with gradients.
    pub update: Update,
    /// Tokens whose gradients are taken at the same weights; the first is at a position that it divides.
    pub mini_batch: usize,
}

/// The loss of a token's key, with z = f(k).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// `|z - target|² / 2`.
    Squares,
    /// `|LayerNorm(z) - target|² / 2`.
    Normal {
        /// The LayerNorm's weight, H V values.
        weight: Param,
        /// Its bias, H V values.
        bias: Param,
        /// Added to the variance.
        epsilon: f32,
    },
}

/// How the weights of a token come about, r being its learning rate and g its gradient at the mini-batch's first W.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Update {
    /// `W_i = W - c_i sum over the mini-batch's j <= i of r_j g_j` with `c_i = max(1 / i + shares_i, 0)`, i from 1.
    Descent {
        /// `[mini_batch]`.
        shares: Param,
    },
    /// `S_t = momentum_t S_{t-1} - r_t g_t`, `W_t = keep_t W_{t-1} + S_t`.
    Momentum {
        /// `[B, T, H]`, 1 where there is none.
        keep: Option<Tensor>,
        /// `[B, T, H]`, 0 where there is none.
        momentum: Option<Tensor>,
    },
}

/// Sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    /// H.
    heads: usize,
    /// K.
    key: usize,
    /// K, and one more where there is a b: the last row of W, whose input is 1.
    rows: usize,
    /// V.
    value: usize,
    /// Matrices that are carried.
    matrices: usize,
}

impl Sizes {
    /// Values of a matrix.
    fn matrix(self) -> usize {
        self.rows * self.value
    }

    /// Values that a head carries: W of the mini-batch's beginning less where it began, then of
    /// [`Update::Descent`] the sum of its r g, of [`Update::Momentum`] W as it is now less where it began, and S.
    fn carried(self) -> usize {
        self.matrices * self.matrix()
    }
}

impl FastWeights {
    fn sizes(&self) -> Sizes {
        let heads = self.rate.cols();
        let key = self.q.cols() / heads;
        let has_momentum = self.momentum().is_some();
        Sizes {
            heads,
            key,
            rows: key + usize::from(self.bias.is_some()),
            value: self.target.cols() / heads,
            matrices: 2 + usize::from(has_momentum),
        }
    }

    /// Of each token and head, where there is one.
    fn keep(&self) -> Option<Tensor> {
        match self.update {
            Update::Momentum { keep, .. } => keep,
            Update::Descent { .. } => None,
        }
    }

    fn momentum(&self) -> Option<Tensor> {
        match self.update {
            Update::Momentum { momentum, .. } => momentum,
            Update::Descent { .. } => None,
        }
    }

    fn shares(&self) -> Option<Param> {
        match self.update {
            Update::Descent { shares } => Some(shares),
            Update::Momentum { .. } => None,
        }
    }

    /// The LayerNorm's weight and bias.
    fn norm(&self) -> Option<[Param; 2]> {
        match self.loss {
            Loss::Squares => None,
            Loss::Normal { weight, bias, .. } => Some([weight, bias]),
        }
    }
}

impl Recurrence for FastWeights {
    fn name(&self) -> &'static str {
        "fast_weights"
    }

    fn ports(&self) -> Ports {
        let sizes = self.sizes();
        let inputs = [self.q, self.k, self.target, self.rate];
        let inputs = inputs.into_iter().chain(self.keep()).chain(self.momentum());
        let params = [self.start].into_iter().chain(self.bias);
        let params = params.chain(self.norm().into_iter().flatten());
        Ports {
            inputs: inputs.collect(),
            params: params.chain(self.shares()).collect(),
            cols: self.target.cols(),
            carries: Carries::State {
                values: sizes.heads * sizes.carried(),
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        naive::naive(self, given, state)
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(operation::record(graph, *self))
    }
}

impl Graph {
    /// Records weights that learn; the result is `f(q)`, `[B, T, H V]`, the state two matrices `[K, V]` a head
    /// (`[K + 1, V]` with b), three with momentum.
    ///
    /// # Panics
    /// If sizes do not fit.
    #[track_caller]
    pub fn fast_weights(&mut self, what: FastWeights) -> Tensor {
        let Sizes {
            heads, key, value, ..
        } = what.sizes();
        assert!(what.mini_batch > 0, "a mini-batch of no token");
        for (name, tensor, width) in [
            ("queries", what.q, key),
            ("keys", what.k, key),
            ("targets", what.target, value),
        ] {
            let fits = tensor.cols() == heads * width && !tensor.is_constant();
            assert!(fits, "{} columns of {name} of {heads} heads", tensor.cols());
        }
        for tensor in [Some(what.rate), what.keep(), what.momentum()] {
            let fits = tensor.is_none_or(|it| it.cols() == heads && !it.is_constant());
            assert!(fits, "rates, keep and momentum are of {heads} heads");
        }
        assert_eq!(self.param_shape(what.start), [heads, key, value], "W");
        let sized = |param: Option<Param>, values: usize, name: &str| {
            let given = param.map(|param| self.param_shape(param).iter().product::<usize>());
            assert!(
                given.is_none_or(|given| given == values),
                "{name} of {values} values"
            );
        };
        sized(what.bias, heads * value, "b");
        let [weight, bias] = what.norm().map_or([None, None], |norm| norm.map(Some));
        sized(weight, heads * value, "the LayerNorm's weight");
        sized(bias, heads * value, "the LayerNorm's bias");
        sized(what.shares(), what.mini_batch, "shares");
        self.record(what)
    }
}
