//! The operations by themselves, on the CPU and on emulated devices, against float64 references.

use longhaul_emulator::devices;
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Tensor};

use crate::bonus::{BonusInputs, bonus};
use crate::channel_mix::squared_relu;
use crate::initial::by_share;
use crate::matrix_state::{MatrixInputs, matrix_state};
use crate::reference::{Matrix, rwkv6, rwkv7};
use crate::removal::{RemovalInputs, removal};
use crate::shift::{Last, Mix, Weighs, shift_state, token_shift};

/// Blends with weights of both kinds; each counts differently in the result.
fn shift_case(rows: usize, length: usize, cols: usize, weighs: Weighs) {
    let build = |graph: &mut Graph, inputs: &[Tensor]| {
        let mut mixes: Vec<Mix> = ["a", "b", "c"]
            .iter()
            .zip([0.3f32, 0.9, 2.0])
            .map(|(name, power)| {
                let start = by_share(cols, |share| share.powf(power));
                Mix::Channel(graph.param(name, &[cols], start))
            })
            .collect();
        mixes.insert(1, Mix::Token(inputs[1]));
        mixes.push(Mix::Token(inputs[2]));
        let last = Last {
            state: shift_state(graph, cols),
            renew: true,
        };
        let blends = token_shift(graph, inputs[0], last, weighs, &mixes);
        let each = blends.iter().enumerate();
        each.fold(None, |sum, (index, &blend)| {
            let part = graph.scale(blend, 0.5 + index as f32);
            Some(sum.map_or(part, |sum| graph.add(sum, part)))
        })
        .expect("five blends")
    };
    let reference = |inputs: &[Vec<f64>], params: &[Vec<f64>]| -> Vec<f64> {
        let x = &inputs[0];
        let blend = |at: usize, weight: f64| {
            let first = (at / cols).is_multiple_of(length);
            let previous = if first { 0.0 } else { x[at - cols] };
            match weighs {
                Weighs::Current => weight * x[at] + (1.0 - weight) * previous,
                Weighs::Previous => (1.0 - weight) * x[at] + weight * previous,
            }
        };
        (0..x.len())
            .map(|at| {
                0.5 * blend(at, params[0][at % cols])
                    + 1.5 * blend(at, inputs[1][at])
                    + 2.5 * blend(at, params[1][at % cols])
                    + 3.5 * blend(at, params[2][at % cols])
                    + 4.5 * blend(at, inputs[2][at])
            })
            .collect()
    };
    Case {
        rows,
        length,
        inputs: &[cols, cols, cols],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &build,
        reference: &reference,
    }
    .check_with(&devices());
}

#[test]
fn token_shift_agrees() {
    for (rows, length, cols) in [(3, 1, 5), (1, 2, 33), (3, 65, 7), (1, 257, 40)] {
        shift_case(rows, length, cols, Weighs::Current);
        shift_case(rows, length, cols, Weighs::Previous);
    }
}

#[test]
fn squared_relu_agrees() {
    for (rows, length, cols) in [(1, 1, 3), (3, 65, 33)] {
        Case {
            rows,
            length,
            inputs: &[cols],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, inputs| squared_relu(graph, inputs[0]),
            reference: &|inputs, _| inputs[0].iter().map(|x| x.max(0.0).powi(2)).collect(),
        }
        .check_with(&devices());
    }
}

#[test]
fn bonus_agrees() {
    for (rows, length, heads, head_dim) in [(1, 1, 1, 4), (3, 65, 2, 5), (1, 33, 2, 68)] {
        let cols = heads * head_dim;
        Case {
            rows,
            length,
            inputs: &[cols; 4],
            range: (-1.0, 1.0),
            recurrent: true,
            build: &|graph, inputs| {
                let u = graph.param("u", &[cols], by_share(cols, |share| 1.0 - 2.0 * share));
                let [base, r, k, v] = inputs[..] else {
                    panic!("four inputs")
                };
                bonus(graph, BonusInputs { base, r, k, v, u }, head_dim)
            },
            reference: &|inputs, params| {
                let (r, k, v) = (&inputs[1], &inputs[2], &inputs[3]);
                let mut y = inputs[0].clone();
                for at in 0..y.len() {
                    let first = at / head_dim * head_dim;
                    let each = first..first + head_dim;
                    let weight: f64 = each.map(|i| r[i] * k[i] * params[0][i % cols]).sum();
                    y[at] += weight * v[at];
                }
                y
            },
        }
        .check_with(&devices());
    }
}

/// RWKV-6 with four inputs, RWKV-7 with six.
fn matrix_case(rows: usize, length: usize, heads: usize, head_dim: usize, removes: bool) {
    let cols = heads * head_dim;
    let slots = if removes { 6 } else { 4 };
    let reference = |inputs: &[Vec<f64>]| {
        let matrix = Matrix {
            r: &inputs[0],
            k: &inputs[1],
            v: &inputs[2],
            decay: &inputs[3],
            length,
            d_model: cols,
            head_dim,
        };
        match &inputs[4..] {
            [kappa, b] => rwkv7(matrix, kappa, b),
            _ => rwkv6(matrix, &vec![0.0; cols]),
        }
    };
    // With removal as long as the head is wide the state would grow beyond all bounds.
    let scale = 1.0 / (head_dim as f32).sqrt();
    Case {
        rows,
        length,
        inputs: &[cols; 6][..slots],
        range: (-1.0, 1.0),
        recurrent: true,
        build: &|graph, inputs| {
            let inputs = MatrixInputs {
                r: inputs[0],
                k: inputs[1],
                v: inputs[2],
                decay: inputs[3],
                removal: removes.then(|| [4, 5].map(|slot| graph.scale(inputs[slot], scale))),
            };
            matrix_state(graph, inputs, head_dim)
        },
        reference: &|inputs, _| {
            let mut inputs = inputs.to_vec();
            for input in inputs.iter_mut().skip(4) {
                input.iter_mut().for_each(|x| *x *= f64::from(scale));
            }
            reference(&inputs)
        },
    }
    .check_with(&devices());
}

#[test]
fn matrix_states_agree_at_every_length() {
    for length in [1, 2, 7, 8, 9, 63, 64, 65] {
        matrix_case(1, length, 1, 5, false);
        matrix_case(1, length, 1, 5, true);
    }
}

#[test]
fn matrix_states_agree_at_every_width() {
    for (rows, length, heads, head_dim) in [(3, 9, 2, 4), (1, 70, 1, 17), (1, 10, 1, 64)] {
        matrix_case(rows, length, heads, head_dim, false);
        matrix_case(rows, length, heads, head_dim, true);
    }
    matrix_case(1, 3, 1, 128, false);
    matrix_case(1, 3, 1, 68, true);
}

/// The three results, each counted differently.
#[test]
fn removal_agrees() {
    for (rows, length, heads, head_dim) in [(1, 1, 1, 4), (3, 65, 2, 5), (1, 33, 2, 68)] {
        let cols = heads * head_dim;
        Case {
            rows,
            length,
            inputs: &[cols; 2],
            range: (-1.0, 1.0),
            recurrent: true,
            build: &|graph, inputs| {
                let start = |low: f32| by_share(cols, |share| low + share);
                let inputs = RemovalInputs {
                    k: inputs[0],
                    rate: inputs[1],
                    removal_key: graph.param("xi", &[cols], start(0.5)),
                    replacement: graph.param("alpha", &[cols], start(0.2)),
                };
                let removed = removal(graph, inputs, head_dim);
                let (b, k) = (graph.scale(removed.b, 2.0), graph.scale(removed.k, 0.5));
                let sum = graph.add(removed.kappa, b);
                graph.add(sum, k)
            },
            reference: &|inputs, params| {
                let (k, rate, xi, alpha) = (&inputs[0], &inputs[1], &params[0], &params[1]);
                let kappa: Vec<f64> = (0..k.len()).map(|at| k[at] * xi[at % cols]).collect();
                (0..k.len())
                    .map(|at| {
                        let head = &kappa[at / head_dim * head_dim..][..head_dim];
                        let length = head.iter().map(|x| x * x).sum::<f64>().sqrt();
                        let a = 1.0 / (1.0 + (-rate[at]).exp());
                        let key = k[at] * (1.0 + (a - 1.0) * alpha[at % cols]);
                        kappa[at] / length * (1.0 + 2.0 * a) + 0.5 * key
                    })
                    .collect()
            },
        }
        .check_with(&devices());
    }
}
