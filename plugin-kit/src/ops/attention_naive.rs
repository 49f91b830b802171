//! Attention as its definition has it, one query at a time.

use super::attention::{self, AttentionSpec, PositionBias};
use crate::engine::graph::Graph;
use crate::engine::tensor::Tensor;
use crate::recurrences::real::Real;
use crate::recurrences::{Carries, Ports, Recurrence, Sequence};

/// Attention with its inputs.
#[derive(Clone, Copy)]
pub(super) struct Attending {
    /// `[B, T, H K]`.
    pub q: Tensor,
    /// `[B, T, kv_heads K]`.
    pub k: Tensor,
    /// `[B, T, kv_heads K]`.
    pub v: Tensor,
    /// `[B, T, 2 H]`, where there is one.
    pub key_bias: Option<Tensor>,
    pub spec: AttentionSpec,
}

impl Recurrence for Attending {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn ports(&self) -> Ports {
        Ports {
            inputs: [self.q, self.k, self.v]
                .into_iter()
                .chain(self.key_bias)
                .collect(),
            params: Vec::new(),
            cols: self.q.cols(),
            carries: Carries::History,
        }
    }

    /// `softmax(scale q kᵀ + bias) v` over the keys a query sees, with a bias of each key where there is one.
    fn naive<N: Real>(&self, given: &Sequence<N>, _state: &mut [N]) -> Vec<N> {
        let AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.spec;
        let mut result = Vec::with_capacity(given.inputs[0].len());
        for t in 0..given.length {
            for head in 0..heads {
                let of = |input: usize, t: usize, head: usize| {
                    &given.token(input, t)[head * head_dim..][..head_dim]
                };
                let (query, kv_head) = (of(0, t, head), head * kv_heads / heads);
                let (seen, slope) = (self.seen(t, head), self.slope(head));
                let logit = |key: usize| {
                    let products = query.iter().zip(of(1, key, kv_head));
                    let product: N = products.map(|(&q, &k)| q * k).sum();
                    let logit = product * f64::from(self.spec.scale) - slope * (t - key) as f64;
                    match self.key_bias {
                        Some(_) => {
                            let bias = given.token(3, key);
                            logit + bias[head] + bias[heads + head]
                        }
                        None => logit,
                    }
                };
                let logits: Vec<N> = seen.clone().map(logit).collect();
                // Taken from all of them it changes nothing, and nothing overflows.
                let values = logits.iter().map(|logit| logit.value());
                let top = values.fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<N> = logits.iter().map(|&logit| (logit - top).exp()).collect();
                let total: N = weights.iter().copied().sum();
                let mixed = |n: usize| {
                    let keys = seen.clone().zip(&weights);
                    let sum: N = keys
                        .map(|(key, &weight)| weight * of(2, key, kv_head)[n])
                        .sum();
                    sum / total
                };
                result.extend((0..head_dim).map(mixed));
            }
        }
        result
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(attention::record(graph, *self))
    }
}

impl Attending {
    /// The keys that a head sees from a query.
    fn seen(&self, t: usize, head: usize) -> std::ops::Range<usize> {
        let narrow = self.spec.bias == PositionBias::HardAlibi && head < self.spec.heads / 2;
        let window = if narrow { head + 1 } else { usize::MAX };
        let window = window.min(self.spec.window.unwrap_or(usize::MAX));
        (t + 1).saturating_sub(window)..t + 1
    }

    /// What a head takes from a logit for each token between query and key.
    fn slope(&self, head: usize) -> f64 {
        match self.spec.bias {
            PositionBias::Alibi => 2f64.powf(-8.0 * (head + 1) as f64 / self.spec.heads as f64),
            _ => 0.0,
        }
    }
}
