//! PaTH attention (arXiv 2505.16381): softmax attention whose keys are turned by every token that comes after them, a
//! Householder-like matrix each, so that what a token knows of its distance to a key is what was written between them.

mod attend;
mod block;
mod cpu;
mod device;
mod gradients;

use crate::engine::graph::Graph;
use crate::engine::tensor::Tensor;
use crate::recurrences::real::Real;
use crate::recurrences::{Carries, Ports, Recurrence, Sequence};

/// What [`Graph::path_attention`] records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PathAttention {
    /// Queries, `[B, T, H K]`.
    pub q: Tensor,
    /// Keys, `[B, T, kv_heads K]`.
    pub k: Tensor,
    /// Values, `[B, T, kv_heads K]`.
    pub v: Tensor,
    /// The directions in which a token turns the keys before it, `[B, T, kv_heads K]`, each of length 1.
    pub w: Tensor,
    /// How far: `k -= beta w (wᵀ k)`, `[B, T, kv_heads]`, from 0 to 2.
    pub beta: Tensor,
    /// What is added to the logits of each key, as in [`Graph::attention_with_key_bias`], `[B, T, 2 H]`.
    pub key_bias: Option<Tensor>,
    /// H, query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// K, width of a head.
    pub head_dim: usize,
    /// Factor on the products, `1 / sqrt(K)` as a rule.
    pub scale: f32,
}

impl Graph {
    /// Records PaTH attention; the result is `[B, T, H K]`. Its state is the values of all tokens, and their keys as
    /// they have been turned so far.
    ///
    /// # Panics
    /// If sizes do not fit.
    #[track_caller]
    pub fn path_attention(&mut self, what: PathAttention) -> Tensor {
        let PathAttention {
            heads,
            kv_heads,
            head_dim,
            ..
        } = what;
        assert!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "{kv_heads} into {heads} heads"
        );
        assert_eq!(what.q.cols(), heads * head_dim, "width of q");
        for (name, tensor) in [("k", what.k), ("v", what.v), ("w", what.w)] {
            assert_eq!(tensor.cols(), kv_heads * head_dim, "width of {name}");
        }
        assert_eq!(what.beta.cols(), kv_heads, "a beta a head");
        let biases = what.key_bias.map_or(2 * heads, |bias| bias.cols());
        assert_eq!(biases, 2 * heads, "two parts for each head");
        self.record(what)
    }
}

impl PathAttention {
    fn inputs(&self) -> Vec<Tensor> {
        let inputs = [self.q, self.k, self.v, self.w, self.beta];
        inputs.into_iter().chain(self.key_bias).collect()
    }
}

impl Recurrence for PathAttention {
    fn name(&self) -> &'static str {
        "path_attention"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: self.inputs(),
            params: Vec::new(),
            cols: self.q.cols(),
            carries: Carries::History,
        }
    }

    /// `softmax(scale q_iᵀ H_i .. H_{j + 1} k_j + bias) v` with `H_t = 1 - beta_t w_t w_tᵀ` (section 3.1): every token
    /// turns all keys before it, then is asked.
    fn naive<N: Real>(&self, given: &Sequence<N>, _state: &mut [N]) -> Vec<N> {
        let (heads, width) = (self.heads, self.head_dim);
        let dot = |a: &[N], b: &[N]| -> N { a.iter().zip(b).map(|(&a, &b)| a * b).sum() };
        let mut keys: Vec<Vec<N>> = Vec::with_capacity(given.length);
        let mut result = Vec::with_capacity(given.length * heads * width);
        for t in 0..given.length {
            for (kv, &beta) in given.token(4, t).iter().enumerate() {
                let w = &given.token(3, t)[kv * width..][..width];
                for key in &mut keys {
                    let key = &mut key[kv * width..][..width];
                    let along = beta * dot(w, key);
                    key.iter_mut().zip(w).for_each(|(k, &w)| *k -= along * w);
                }
            }
            keys.push(given.token(1, t).to_vec());
            for head in 0..heads {
                let kv = head * self.kv_heads / heads * width;
                let q = &given.token(0, t)[head * width..][..width];
                let logits = keys.iter().enumerate().map(|(j, key)| {
                    let logit = dot(q, &key[kv..][..width]) * f64::from(self.scale);
                    match self.key_bias {
                        Some(_) => {
                            logit + given.token(5, j)[head] + given.token(5, j)[heads + head]
                        }
                        None => logit,
                    }
                });
                let logits: Vec<N> = logits.collect();
                let values = logits.iter().map(|logit| logit.value());
                let top = values.fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<N> = logits.iter().map(|&logit| (logit - top).exp()).collect();
                let total: N = weights.iter().copied().sum();
                let mixed = |n: usize| {
                    let products = weights.iter().enumerate();
                    let sum: N = products.map(|(j, &p)| p * given.token(2, j)[kv + n]).sum();
                    sum / total
                };
                result.extend((0..width).map(mixed));
            }
        }
        result
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        let mut what = *self;
        let PathAttention {
            q,
            k,
            v,
            w,
            beta,
            key_bias,
            ..
        } = &mut what;
        let inputs = [q, k, v, w, beta].into_iter();
        graph.apart(inputs.chain(key_bias.as_mut()).collect());
        Some(cpu::record(graph, &what))
    }
}
