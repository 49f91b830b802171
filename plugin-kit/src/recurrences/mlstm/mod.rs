//! A state matrix with exponential gates, the mLSTM (arXiv 2405.04517, equations 19 to 27):
//!
//! ```text
//! m_t = max(f_t + m_{t-1}, i_t)
//! C_t = exp(f_t + m_{t-1} - m_t) C_{t-1} + exp(i_t - m_t) v_t k_tᵀ
//! n_t = exp(f_t + m_{t-1} - m_t) n_{t-1} + exp(i_t - m_t) k_t
//! h_t = C_t q_t / (max(|n_tᵀ q_t|, exp(-m_t)) + epsilon)
//! ```
//!
//! with the logarithms f and i of forget and input gate, a number a head each. The stabiliser m keeps every exponent at
//! or below 0 and cancels from h. The fast form is the kit's [state matrix](super::state_matrix) between three small
//! operations: `gates` makes the decay and what is written of m, `values` puts n beside C as one more column of
//! values, which is 1, and divides by it.

mod gates;
mod values;

use super::real::Real;
use super::state_matrix::{Decay, Heads, Read, Removal, StateMatrix};
use super::{Carries, Ports, Recurrence, Sequence};
use crate::cuda::device::KernelSource;
use crate::engine::graph::Graph;
use crate::engine::tensor::Tensor;

static MLSTM: KernelSource = KernelSource {
    file: "mlstm.cu",
    text: include_str!("../../../kernels/mlstm.cu"),
    params: &[
        gates::MlstmGates::CPP,
        gates::MlstmGatesBackward::CPP,
        values::MlstmValues::CPP,
    ],
};

/// What [`Graph::mlstm`] records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mlstm {
    /// Queries, `[B, T, H K]`. Nothing here scales: callers scale q.
    pub q: Tensor,
    /// Keys, `[B, T, H K]`.
    pub k: Tensor,
    /// Values, `[B, T, H V]`.
    pub v: Tensor,
    /// Logarithms of the input gates, `[B, T, H]`: of any size.
    pub input: Tensor,
    /// Logarithms of the forget gates, `[B, T, H]`: of any size.
    pub forget: Tensor,
    /// Added to what is divided by.
    pub epsilon: f32,
}

impl Mlstm {
    /// Sizes of the state matrix, n being one of the values.
    fn heads(&self) -> Heads {
        let heads = self.input.cols();
        Heads {
            heads,
            groups: heads,
            key: self.k.cols() / heads,
            value: self.v.cols() / heads + 1,
            writes: 1,
        }
    }
}

impl Recurrence for Mlstm {
    fn name(&self) -> &'static str {
        "mlstm"
    }

    fn ports(&self) -> Ports {
        let Heads {
            heads, key, value, ..
        } = self.heads();
        Ports {
            inputs: vec![self.q, self.k, self.v, self.input, self.forget],
            params: Vec::new(),
            cols: self.v.cols(),
            carries: Carries::State {
                values: heads * (1 + key * value),
                initial: 0.0,
            },
        }
    }

    /// `state` is m of every head, then C `[V, K]` and n `[K]` of every head.
    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let Heads {
            heads, key, value, ..
        } = self.heads();
        let (m, matrices) = state.split_at_mut(heads);
        let mut h = Vec::with_capacity(given.length * self.v.cols());
        for t in 0..given.length {
            let part = |input: usize, head: usize, width: usize| {
                &given.token(input, t)[head * width..][..width]
            };
            for (head, matrix) in matrices.chunks_exact_mut(value * key).enumerate() {
                let [q, k] = [0, 1].map(|input| part(input, head, key));
                let v = part(2, head, value - 1);
                let (i, f) = (given.token(3, t)[head], given.token(4, t)[head]);
                let before = m[head];
                m[head] = (f + before).max(i);
                let (f, i) = ((f + before - m[head]).exp(), (i - m[head]).exp());
                let one = [N::from(1.0)];
                for (row, &v) in matrix.chunks_exact_mut(key).zip(v.iter().chain(&one)) {
                    for (c, &k) in row.iter_mut().zip(k) {
                        *c = f * *c + i * v * k;
                    }
                }
                let read = |row: &[N]| row.iter().zip(q).map(|(&c, &q)| c * q).sum::<N>();
                let mut rows: Vec<N> = matrix.chunks_exact(key).map(read).collect();
                let sum = rows.pop().expect("the row of n");
                let by = sum.abs().max((-m[head]).exp()) + f64::from(self.epsilon);
                h.extend(rows.into_iter().map(|row| row / by));
            }
        }
        h
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let gates = gates::record(graph, self.input, self.forget);
        let v = values::widen(graph, self.v, gates.write);
        let read = graph.state_matrix(StateMatrix {
            q: self.q,
            k: self.k,
            v,
            heads: self.heads(),
            decay: Decay::Head(gates.decay),
            removal: Removal::None,
            read: Read::After,
        });
        Some(values::normalise(
            graph,
            read,
            gates.stabiliser,
            self.epsilon,
        ))
    }
}

impl Graph {
    /// Records a state matrix with exponential gates; the result is h, `[B, T, H V]`, the state `H (1 + K (V + 1))`
    /// values.
    ///
    /// # Panics
    /// If sizes do not fit.
    #[track_caller]
    pub fn mlstm(&mut self, what: Mlstm) -> Tensor {
        let heads = what.input.cols();
        assert_eq!(
            what.forget.cols(),
            heads,
            "an mLSTM has a forget gate a head"
        );
        assert_eq!(what.q.cols(), what.k.cols(), "queries and keys of an mLSTM");
        for (name, tensor) in [("keys", what.k), ("values", what.v)] {
            assert!(
                tensor.cols().is_multiple_of(heads),
                "{heads} heads in {} columns of {name}",
                tensor.cols()
            );
        }
        self.record(what)
    }
}
