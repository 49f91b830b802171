//! Attention and rotary embedding against float64, over heads, groups, windows and biases.

use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::testing::Case;

struct Sizes {
    rows: usize,
    length: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

fn reference(
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
                        (product / (head_dim as f64).sqrt() - slope * (i - j) as f64).exp()
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

fn check(sizes: Sizes, window: Option<usize>, bias: PositionBias) {
    let Sizes {
        rows,
        length,
        heads,
        kv_heads,
        head_dim,
    } = sizes;
    let spec = AttentionSpec {
        heads,
        kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window,
        bias,
    };
    Case {
        rows,
        length,
        inputs: &[heads * head_dim, kv_heads * head_dim, kv_heads * head_dim],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| graph.attention(inputs[0], inputs[1], inputs[2], spec),
        reference: &|inputs, _| reference(inputs, &sizes, window, bias),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn lengths_on_both_sides_of_the_tiles() {
    for length in [1, 2, 63, 64, 65, 257, 330] {
        let sizes = Sizes {
            rows: 2,
            length,
            heads: 2,
            kv_heads: 2,
            head_dim: 8,
        };
        check(sizes, None, PositionBias::None);
    }
}

#[test]
fn groups_windows_and_biases() {
    let sizes = |heads, kv_heads| Sizes {
        rows: 2,
        length: 130,
        heads,
        kv_heads,
        head_dim: 7,
    };
    check(sizes(4, 2), None, PositionBias::Alibi);
    check(sizes(4, 1), Some(1), PositionBias::None);
    check(sizes(3, 3), Some(17), PositionBias::Alibi);
    check(sizes(4, 4), None, PositionBias::HardAlibi);
    check(sizes(2, 1), Some(64), PositionBias::None);
    let long = Sizes {
        rows: 1,
        length: 400,
        heads: 1,
        kv_heads: 1,
        head_dim: 5,
    };
    check(long, Some(300), PositionBias::None);
}

/// q, k and v as columns of one tensor, as a joint projection gives them.
#[test]
fn columns_of_one_projection() {
    let sizes = Sizes {
        rows: 2,
        length: 70,
        heads: 2,
        kv_heads: 1,
        head_dim: 6,
    };
    let spec = AttentionSpec {
        heads: 2,
        kv_heads: 1,
        head_dim: 6,
        scale: 1.0 / 6f32.sqrt(),
        window: None,
        bias: PositionBias::None,
    };
    Case {
        rows: 2,
        length: 70,
        inputs: &[24],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            let x = inputs[0];
            graph.attention(x.columns(0, 12), x.columns(12, 6), x.columns(18, 6), spec)
        },
        reference: &|inputs, _| {
            let cut = |start: usize, cols: usize| -> Vec<f64> {
                inputs[0]
                    .chunks(24)
                    .flat_map(|row| row[start..start + cols].to_vec())
                    .collect()
            };
            let parts = [cut(0, 12), cut(12, 6), cut(18, 6)];
            reference(&parts, &sizes, None, PositionBias::None)
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn rotary_turns_pairs_by_position() {
    for (heads, head_dim, dims) in [(1, 8, 8), (3, 10, 6), (2, 4, 2)] {
        Case {
            rows: 2,
            length: 67,
            inputs: &[heads * head_dim],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, inputs| graph.rotary(inputs[0], heads, dims, 10_000.0),
            reference: &|inputs, _| {
                let mut y = inputs[0].clone();
                for (index, head) in y.chunks_mut(head_dim).enumerate() {
                    let t = (index / heads % 67) as f64;
                    for n in 0..dims / 2 {
                        let angle = t / 10_000f64.powf(2.0 * n as f64 / dims as f64);
                        let (a, b) = (head[n], head[n + dims / 2]);
                        head[n] = a * angle.cos() - b * angle.sin();
                        head[n + dims / 2] = b * angle.cos() + a * angle.sin();
                    }
                }
                y
            },
        }
        .check_with(&longhaul_emulator::devices());
    }
}
