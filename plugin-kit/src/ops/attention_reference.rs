//! Attention as its definition has it, in float64, one query at a time.

use crate::ops::attention::{AttentionSpec, PositionBias};
use crate::ops::reference::Sequences;

/// `[B, T, H K]` from q `[B, T, H K]` and k and v `[B, T, kv_heads K]`:
/// `softmax(scale q kᵀ + bias) v` over the keys a query sees; biases of keys `[B, T, H]` may follow.
pub(crate) fn attention(given: &Sequences, spec: AttentionSpec) -> Vec<f64> {
    let [q, k, v, key_bias @ ..] = &given.inputs[..] else {
        unreachable!("three inputs are recorded, or four")
    };
    let AttentionSpec {
        heads,
        kv_heads,
        head_dim,
        ..
    } = spec;
    let mut result = Vec::with_capacity(q.len());
    for at in 0..given.rows * given.length {
        let t = at % given.length;
        for head in 0..heads {
            let kv_head = head * kv_heads / heads;
            let narrow = spec.bias == PositionBias::HardAlibi && head < heads / 2;
            let window = if narrow { head + 1 } else { usize::MAX };
            let window = window.min(spec.window.unwrap_or(usize::MAX));
            let slope = match spec.bias {
                PositionBias::Alibi => 2f64.powf(-8.0 * (head + 1) as f64 / heads as f64),
                _ => 0.0,
            };
            let seen = (t + 1).saturating_sub(window)..t + 1;
            let query = &q[(at * heads + head) * head_dim..][..head_dim];
            let place = |key: usize| ((at - t + key) * kv_heads + kv_head) * head_dim;
            let logits: Vec<f64> = seen
                .clone()
                .map(|key| {
                    let key_values = &k[place(key)..][..head_dim];
                    let product: f64 = query.iter().zip(key_values).map(|(q, k)| q * k).sum();
                    let of_key = key_bias
                        .first()
                        .map_or(0.0, |b| b[(at - t + key) * heads + head]);
                    f64::from(spec.scale) * product - slope * (t - key) as f64 + of_key
                })
                .collect();
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = logits.iter().map(|logit| (logit - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut mixed = vec![0.0; head_dim];
            for (key, weight) in seen.zip(&weights) {
                for (mixed, v) in mixed.iter_mut().zip(&v[place(key)..]) {
                    *mixed += weight / total * v;
                }
            }
            result.extend(mixed);
        }
    }
    result
}
