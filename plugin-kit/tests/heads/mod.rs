//! Attention in float64, and cases of it, for the tests of each form.

use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::testing::Case;

/// Sizes of an attention under test.
pub struct Sizes {
    pub rows: usize,
    pub length: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

/// Attention in float64, sum by sum: q, k and v, `[B, T, heads K]` each, give y. A fourth input are biases of
/// keys in two parts, `[B, T, 2 H]`.
pub fn reference(
    inputs: &[Vec<f64>],
    sizes: &Sizes,
    window: Option<usize>,
    bias: PositionBias,
) -> Vec<f64> {
    let Sizes {
        rows,
        length,
        heads,
        kv_heads,
        head_dim,
    } = *sizes;
    let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
    let mut y = vec![0.0; rows * length * heads * head_dim];
    for row in 0..rows {
        for head in 0..heads {
            let kv = head / (heads / kv_heads);
            let slope = match bias {
                PositionBias::Alibi => 2f64.powf(-8.0 * (head + 1) as f64 / heads as f64),
                _ => 0.0,
            };
            let mut window = window.unwrap_or(length);
            if bias == PositionBias::HardAlibi && head < heads / 2 {
                window = window.min(head + 1);
            }
            for i in 0..length {
                let at = |t: usize, n: usize, head: usize, heads: usize| {
                    ((row * length + t) * heads + head) * head_dim + n
                };
                let seen: Vec<usize> = ((i + 1).saturating_sub(window)..=i).collect();
                let weights: Vec<f64> = seen
                    .iter()
                    .map(|&j| {
                        let product: f64 = (0..head_dim)
                            .map(|n| q[at(i, n, head, heads)] * k[at(j, n, kv, kv_heads)])
                            .sum();
                        let of_key = |key_bias: &Vec<f64>| {
                            let parts = &key_bias[(row * length + j) * 2 * heads..];
                            parts[head] + parts[heads + head]
                        };
                        let of_key = inputs.get(3).map_or(0.0, of_key);
                        (product / (head_dim as f64).sqrt() - slope * (i - j) as f64 + of_key).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                for n in 0..head_dim {
                    y[at(i, n, head, heads)] = seen
                        .iter()
                        .zip(&weights)
                        .map(|(&j, w)| w / total * v[at(j, n, kv, kv_heads)])
                        .sum();
                }
            }
        }
    }
    y
}

/// The same attention for the kit.
pub fn spec(sizes: &Sizes, window: Option<usize>, bias: PositionBias) -> AttentionSpec {
    AttentionSpec {
        heads: sizes.heads,
        kv_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        scale: 1.0 / (sizes.head_dim as f32).sqrt(),
        window,
        bias,
    }
}

/// Rows, tokens, query heads, key heads and the width of a head.
pub fn sizes(rows: usize, length: usize, heads: usize, kv_heads: usize, head_dim: usize) -> Sizes {
    Sizes {
        rows,
        length,
        heads,
        kv_heads,
        head_dim,
    }
}

/// Attention of random q, k and v as a case.
pub fn with_case(
    sizes: &Sizes,
    window: Option<usize>,
    bias: PositionBias,
    check: impl FnOnce(&Case<'_>),
) {
    let spec = spec(sizes, window, bias);
    let kv_cols = sizes.kv_heads * sizes.head_dim;
    check(&Case {
        rows: sizes.rows,
        length: sizes.length,
        inputs: &[sizes.heads * sizes.head_dim, kv_cols, kv_cols],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| graph.attention(inputs[0], inputs[1], inputs[2], spec),
        reference: &|inputs, _| reference(inputs, sizes, window, bias),
    });
}
