//! PaTH attention against its formula, with what no layer has at these sizes: several blocks of tokens, groups, biases.

use std::sync::Arc;

use longhaul_plugin_kit::Tensor;
use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::path::PathAttention;
use longhaul_plugin_kit::testing::Case;

/// Sizes of a case.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    length: usize,
    heads: usize,
    kv_heads: usize,
    width: usize,
    has_bias: bool,
}

/// `softmax over j of q_iᵀ H_i .. H_{j + 1} k_j / 2 - bias_j` (arXiv 2505.16381, section 3.1), the query going back token
/// by token.
fn attention(sizes: Sizes, inputs: &[Vec<f64>]) -> Vec<f64> {
    let Sizes {
        rows,
        length,
        heads,
        kv_heads,
        width,
        ..
    } = sizes;
    let mut y = vec![0.0; rows * length * heads * width];
    for (at, y) in y.chunks_mut(width).enumerate() {
        let (token, head) = (at / heads, at % heads);
        let (first, kv) = (token / length * length, head * kv_heads / heads);
        let of = |input: usize, token: usize, part: usize, width: usize| {
            let cols = inputs[input].len() / (rows * length);
            &inputs[input][token * cols + part * width..][..width]
        };
        let mut q = of(0, token, head, width).to_vec();
        let mut logits = Vec::new();
        let mut faded = 0.0;
        for j in (first..=token).rev() {
            let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
            logits.push(dot(&q, of(1, j, kv, width)) / 2.0 + faded);
            let w = of(3, j, kv, width);
            let length = (dot(w, w) + 1e-6).sqrt();
            let beta = 2.0 / (1.0 + (-of(4, j, kv, 1)[0]).exp());
            let along = beta * dot(&q, w) / length / length;
            q.iter_mut().zip(w).for_each(|(q, w)| *q -= along * w);
            if sizes.has_bias {
                faded -= of(5, j, head, 1)[0];
            }
        }
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        for (logit, j) in logits.iter().zip((first..=token).rev()) {
            for (y, v) in y.iter_mut().zip(of(2, j, kv, width)) {
                *y += logit.exp() / total * v;
            }
        }
    }
    y
}

fn check(sizes: Sizes, devices: &[Arc<dyn Device>]) {
    let Sizes {
        rows,
        length,
        heads,
        kv_heads,
        width,
        has_bias,
    } = sizes;
    let keys = kv_heads * width;
    let inputs = [heads * width, keys, keys, keys, kv_heads, heads];
    Case {
        rows,
        length,
        inputs: &inputs[..if has_bias { 6 } else { 5 }],
        range: (-1.5, 2.0),
        recurrent: true,
        build: &|graph, inputs: &[Tensor]| {
            let beta = graph.activation(inputs[4], Activation::Sigmoid);
            let what = PathAttention {
                q: inputs[0],
                k: inputs[1],
                v: inputs[2],
                w: graph.l2_norm(inputs[3], kv_heads, 1e-6),
                beta: graph.scale(beta, 2.0),
                key_bias: inputs.get(5).map(|&faded| graph.running_sum(faded)),
                heads,
                kv_heads,
                head_dim: width,
                scale: 0.5,
            };
            graph.path_attention(what)
        },
        reference: &|inputs, _| attention(sizes, inputs),
    }
    .check_with(devices);
}

#[test]
fn path_attention_agrees_with_its_formula() {
    let plain = Sizes {
        rows: 2,
        length: 1,
        heads: 2,
        kv_heads: 2,
        width: 4,
        has_bias: false,
    };
    let devices = longhaul_emulator::devices();
    for length in [1, 2, 15, 64, 65, 150] {
        check(
            Sizes { length, ..plain },
            if length == 65 { &devices } else { &[] },
        );
    }
    for (length, has_bias) in [(33, false), (131, true)] {
        let sizes = Sizes {
            rows: 1,
            length,
            heads: 4,
            width: 3,
            has_bias,
            ..plain
        };
        check(sizes, &devices);
    }
    // More keys than a tile has; a head of several tiles.
    let long = Sizes {
        rows: 1,
        length: 330,
        heads: 1,
        kv_heads: 1,
        width: 5,
        has_bias: false,
    };
    check(long, &[]);
    check(
        Sizes {
            length: 70,
            width: 67,
            ..long
        },
        &devices,
    );
}
