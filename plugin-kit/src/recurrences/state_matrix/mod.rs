//! A state that is a matrix a head, read by a query and written by keys and values:
//!
//! ```text
//! S_t = (D_t - R_t) S_{t-1} + sum over writes of k_t v_tᵀ,    o_t = S_tᵀ q_t,    S [K, V]
//! ```
//!
//! Linear attention, RetNet, GLA, Mamba-2, DeltaNet and RWKV are cases of it, by what decays (D) and what is
//! removed (R). Nothing here scales: callers scale q.

mod device;
pub(super) mod fields;
mod head;
mod log_linear;
mod naive;
mod recurrent;
mod scan;
mod scan_back;

use super::real::Real;
use super::{Carries, Ports, Recurrence, Sequence};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Param, Tensor};
use head::With;
pub use log_linear::LogLinear;

/// Tokens of a chunk.
const CHUNK: usize = 64;

/// Sizes of the heads of a state matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// H.
    pub heads: usize,
    /// G, groups of heads that share queries and keys; divides H.
    pub groups: usize,
    /// K, width of queries and keys.
    pub key: usize,
    /// V, width of values.
    pub value: usize,
    /// Keys and values that are written for every token, in order.
    pub writes: usize,
}

/// D, how a state decays from token to token. Decays come as logarithms, at most 0.
#[derive(Debug, Clone, PartialEq)]
pub enum Decay {
    /// Not at all: D = 1.
    None,
    /// By the same factor for every token: the logarithm for every head, `[H]`.
    Constant(Vec<f64>),
    /// By a factor for every head, `[B, T, H]`.
    Head(Tensor),
    /// By a factor for every head's key channel, `[B, T, H K]`.
    Key(Tensor),
    /// By a factor for every head's value channel, `[B, T, H V]`: `S diag(d)` in place of `D S`, as slots forget that
    /// keys are written to (arXiv 2409.07146, eq. 6).
    Value(Tensor),
}

impl Decay {
    /// The decay where it is an input.
    fn given(&self) -> Option<Tensor> {
        match *self {
            Self::None | Self::Constant(_) => None,
            Self::Head(decay) | Self::Key(decay) | Self::Value(decay) => Some(decay),
        }
    }
}

/// R, what a token removes from the state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Removal {
    /// Nothing.
    None,
    /// The delta rule (arXiv 2102.11174, eq. 24): every write first takes away what the decayed state holds for its
    /// key, and adds as much of the new: `S -= beta k (kᵀ S)`, then `S += beta k vᵀ`; beta `[B, T, writes H]`. Keys
    /// should have length 1, and beta be at most 2, or the state grows without bounds.
    Delta(Tensor),
    /// A diagonal plus a matrix of rank one (arXiv 2503.14456, eq. 17): `(D - b aᵀ) S` in place of `D S`, of which
    /// writes know nothing.
    Pair {
        /// The direction that is read from the state before, `[B, T, H K]`.
        a: Tensor,
        /// Where what was read is taken away, `[B, T, H K]`.
        b: Tensor,
    },
}

/// Which state a token's query reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The one after its writes.
    After,
    /// The same, by so many queries: q is `[B, T, reads G K]`, and o `[B, T, reads H V]` (arXiv 2603.15569, section 3.3).
    Times(usize),
    /// The one before its decay, removal and writes (RWKV-6).
    Before,
}

/// What [`Graph::state_matrix`] records.
#[derive(Debug, Clone, PartialEq)]
pub struct StateMatrix {
    /// Queries, `[B, T, G K]`.
    pub q: Tensor,
    /// Keys, `[B, T, writes G K]`.
    pub k: Tensor,
    /// Values, `[B, T, writes H V]`.
    pub v: Tensor,
    /// Sizes.
    pub heads: Heads,
    /// What decays.
    pub decay: Decay,
    /// What is removed.
    pub removal: Removal,
    /// What a query reads.
    pub read: Read,
}

impl StateMatrix {
    /// The inputs in their order: q, k, v, the decay, then beta or a and b.
    fn inputs(&self) -> Vec<Tensor> {
        let mut inputs = vec![self.q, self.k, self.v];
        inputs.extend(self.decay.given());
        match self.removal {
            Removal::None => {}
            Removal::Delta(beta) => inputs.push(beta),
            Removal::Pair { a, b } => inputs.extend([a, b]),
        }
        inputs
    }

    /// Gives every input, and `more`, a tensor of its own where gradients are written in one launch.
    fn apart<'a>(&'a mut self, graph: &mut Graph, more: Option<&'a mut Tensor>) {
        let decay = match &mut self.decay {
            Decay::Head(decay) | Decay::Key(decay) | Decay::Value(decay) => Some(decay),
            Decay::None | Decay::Constant(_) => None,
        };
        let removal = match &mut self.removal {
            Removal::None => vec![],
            Removal::Delta(beta) => vec![beta],
            Removal::Pair { a, b } => vec![a, b],
        };
        let inputs = [&mut self.q, &mut self.k, &mut self.v].into_iter();
        graph.apart(inputs.chain(decay).chain(removal).chain(more).collect());
    }

    /// Queries a token.
    fn reads(&self) -> usize {
        match self.read {
            Read::After | Read::Before => 1,
            Read::Times(reads) => reads,
        }
    }

    /// Whether it is computed by matrix products: heads decay as a whole or not at all, and nothing is removed but by
    /// the delta rule, of which devices have the token-by-token form only, as of several writes.
    fn is_by_head(&self, graph: &Graph) -> bool {
        let fits = match self.removal {
            Removal::None => !graph.wants_device() || self.heads.writes * self.reads() == 1,
            Removal::Delta(_) => !graph.wants_device(),
            Removal::Pair { .. } => false,
        };
        let by_channel = matches!(self.decay, Decay::Key(_) | Decay::Value(_));
        fits && !by_channel && self.read != Read::Before
    }

    /// Whether there is a token-by-token form: values do not decay by themselves where something is removed, and
    /// several queries a token are a device's.
    fn is_by_token(&self, graph: &Graph) -> bool {
        let takes = self.heads.key <= scan::WIDEST && self.heads.writes <= scan::WRITES;
        let decays = self.removal == Removal::None || !matches!(self.decay, Decay::Value(_));
        let reads = self.reads() == 1 || (graph.wants_device() && self.reads() <= scan::WRITES);
        takes && decays && reads
    }

    /// # Panics
    /// With what does not fit.
    #[track_caller]
    fn check(&self) {
        let Heads {
            heads,
            groups,
            key,
            value,
            writes,
        } = self.heads;
        assert!(
            heads > 0 && groups > 0 && key > 0 && value > 0 && writes > 0 && self.reads() > 0,
            "a state matrix of nothing: {:?}, read {:?}",
            self.heads,
            self.read
        );
        assert!(
            heads.is_multiple_of(groups),
            "{groups} groups of queries and keys must divide {heads} heads"
        );
        let check = |name: &str, tensor: Tensor, what: &str, cols: usize| {
            assert_eq!(
                tensor.cols(),
                cols,
                "`{name}` of a state matrix must have {what} columns ({:?})",
                self.heads
            );
            assert!(
                !tensor.is_constant(),
                "`{name}` of a state matrix is a constant: it must have a row for every position"
            );
        };
        let queries = self.reads() * groups * key;
        check("q", self.q, "reads * groups * key", queries);
        check("k", self.k, "writes * groups * key", writes * groups * key);
        check(
            "v",
            self.v,
            "writes * heads * value",
            writes * heads * value,
        );
        match &self.decay {
            Decay::None => {}
            Decay::Constant(logs) => {
                assert_eq!(logs.len(), heads, "a constant decay has a logarithm a head");
                let odd = logs.iter().find(|log| log.is_nan() || **log > 0.0);
                assert!(odd.is_none(), "the logarithm of a decay is {odd:?}, over 0");
            }
            Decay::Head(decay) => check("decay", *decay, "heads", heads),
            Decay::Key(decay) => check("decay", *decay, "heads * key", heads * key),
            Decay::Value(decay) => check("decay", *decay, "heads * value", heads * value),
        }
        match self.removal {
            Removal::None => {}
            Removal::Delta(beta) => check("beta", beta, "writes * heads", writes * heads),
            Removal::Pair { a, b } => {
                check("a", a, "heads * key", heads * key);
                check("b", b, "heads * key", heads * key);
            }
        }
    }
}

impl Recurrence for StateMatrix {
    fn name(&self) -> &'static str {
        "state_matrix"
    }

    fn ports(&self) -> Ports {
        let Heads {
            heads, key, value, ..
        } = self.heads;
        Ports {
            inputs: self.inputs(),
            params: Vec::new(),
            cols: self.reads() * heads * value,
            carries: Carries::State {
                values: heads * value * key,
                initial: 0.0,
            },
        }
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        naive::naive(self, given, state)
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let by_head = self.is_by_head(graph);
        if !by_head && !self.is_by_token(graph) {
            return None;
        }
        let mut what = self.clone();
        what.apart(graph, None);
        if !by_head {
            return Some(recurrent::record(graph, what));
        }
        let with = With {
            scale: None,
            skip: None,
            chunk: CHUNK,
        };
        Some(head::record(graph, what, with))
    }
}

impl Graph {
    /// Records a state matrix; the result is o, `[B, T, H V]`, or `[B, T, reads H V]`. Fast forms take at most 16 writes, and K up to 256.
    ///
    /// # Panics
    /// If sizes do not fit.
    #[track_caller]
    pub fn state_matrix(&mut self, what: StateMatrix) -> Tensor {
        what.check();
        self.record(what)
    }

    /// Records a state space; the result is o, `[B, T, H V]`.
    ///
    /// # Panics
    /// If sizes do not fit, or its state matrix is more than it says.
    #[track_caller]
    pub fn state_space(&mut self, what: StateSpace) -> Tensor {
        what.matrix.check();
        let (heads, scale) = (what.matrix.heads.heads, what.scale);
        assert_eq!(scale.cols(), heads, "a state space has a scale a head");
        assert!(
            !scale.is_constant(),
            "the scale of a state space is a constant"
        );
        assert_eq!(
            self.param_shape(what.skip),
            [heads],
            "a state space has a skip a head"
        );
        assert!(what.chunk > 0, "chunks of no tokens");
        let matrix = &what.matrix;
        let once = matrix.removal == Removal::None && matrix.heads.writes * matrix.reads() == 1;
        assert!(
            once && what.matrix.is_by_head(self),
            "a state space decays by head, removes nothing, writes once and is read after"
        );
        self.record(what)
    }
}

/// A state matrix that decays by head and removes nothing, with the scale of what it writes and what goes past it:
/// `S_t = D_t S_{t-1} + c_t k_t v_tᵀ`, `o_t = S_tᵀ q_t + d v_t` (arXiv 2405.21060). By ordinary operations around a state
/// matrix it is the same and moves more memory.
#[derive(Debug, Clone, PartialEq)]
pub struct StateSpace {
    /// Without c and d.
    pub matrix: StateMatrix,
    /// c, `[B, T, H]`.
    pub scale: Tensor,
    /// d, `[H]`.
    pub skip: Param,
    /// Tokens of a chunk on a CPU: changes speed, not results.
    pub chunk: usize,
}

impl Recurrence for StateSpace {
    fn name(&self) -> &'static str {
        "state_space"
    }

    fn ports(&self) -> Ports {
        let mut ports = self.matrix.ports();
        ports.inputs.push(self.scale);
        ports.params.push(self.skip);
        ports
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let (scale, value) = (given.inputs.len() - 1, self.matrix.heads.value);
        let mut written = given.clone();
        for (v, &scale) in written.inputs[2]
            .chunks_exact_mut(value)
            .zip(&given.inputs[scale])
        {
            v.iter_mut().for_each(|v| *v *= scale);
        }
        let mut o = self.matrix.naive(&written, state);
        let heads = o
            .chunks_exact_mut(value)
            .zip(given.inputs[2].chunks_exact(value));
        for ((o, v), &skip) in heads.zip(given.params[0].iter().cycle()) {
            o.iter_mut().zip(v).for_each(|(o, &v)| *o += skip * v);
        }
        o
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let (mut what, mut scale) = (self.matrix.clone(), self.scale);
        what.apart(graph, Some(&mut scale));
        let with = With {
            scale: Some(scale),
            skip: Some(self.skip),
            chunk: self.chunk,
        };
        Some(head::record(graph, what, with))
    }
}
