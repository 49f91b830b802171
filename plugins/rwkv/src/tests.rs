//! The operations by themselves, on the CPU and on emulated devices, against float64 references.

use longhaul_emulator::devices;
use longhaul_plugin_kit::testing::{Case, recorded};
use longhaul_plugin_kit::{Graph, Init, Tensor};

use crate::bonus::{BonusInputs, bonus};
use crate::channel_mix::squared_relu;
use crate::heads::{MatrixInputs, matrix_state};
use crate::initial::by_share;
use crate::reference::{Matrix, rwkv6, rwkv7};
use crate::removal::{RemovalInputs, removal};
use crate::shift::{Last, Mix, Weighs, shift_state, token_shift};
use crate::wkv4::Wkv4Inputs;

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

/// Where all inputs are drawn from, and what the decay's is multiplied by before its functions.
#[derive(Clone, Copy)]
struct Decays {
    range: (f32, f32),
    scale: f32,
}

fn both_rules(tokens: [usize; 2], heads: [usize; 2], decays: Decays) {
    matrix_case(tokens, heads, false, decays);
    matrix_case(tokens, heads, true, decays);
}

/// RWKV-6 with four inputs, RWKV-7 with six; B and T, H and the size of a head.
fn matrix_case(
    [rows, length]: [usize; 2],
    [heads, head_dim]: [usize; 2],
    removes: bool,
    decays: Decays,
) {
    let cols = heads * head_dim;
    let slots = if removes { 6 } else { 4 };
    // With removal as long as the head is wide the state would grow beyond all bounds.
    let shorter = 1.0 / (head_dim as f32).sqrt();
    let scales = [1.0, 1.0, 1.0, decays.scale, shorter, shorter];
    let reference = |inputs: &[Vec<f64>]| {
        let scaled = |slot: usize| -> Vec<f64> {
            let scale = f64::from(scales[slot]);
            inputs[slot].iter().map(|x| x * scale).collect()
        };
        let matrix = Matrix {
            r: &inputs[0],
            k: &inputs[1],
            v: &inputs[2],
            decay: &scaled(3),
            length,
            d_model: cols,
            head_dim,
        };
        if removes {
            rwkv7(matrix, &scaled(4), &scaled(5))
        } else {
            rwkv6(matrix, &vec![0.0; cols])
        }
    };
    Case {
        rows,
        length,
        inputs: &[cols; 6][..slots],
        range: decays.range,
        recurrent: true,
        build: &|graph, inputs| {
            let mut scaled = |slot: usize| graph.scale(inputs[slot], scales[slot]);
            let inputs = MatrixInputs {
                r: inputs[0],
                k: inputs[1],
                v: inputs[2],
                decay: scaled(3),
                removal: removes.then(|| [4, 5].map(scaled)),
            };
            matrix_state(graph, inputs, head_dim)
        },
        reference: &|inputs, _| reference(inputs),
    }
    .check_with(&devices());
}

#[test]
fn matrix_states_that_forget_at_once_and_never() {
    let decays = |low: f32, high: f32, scale: f32| Decays {
        range: (low, high),
        scale,
    };
    // All decays that there are, beside each other and from token to token.
    both_rules([2, 70], [2, 5], decays(-1.0, 1.0, 30.0));
    both_rules([1, 70], [1, 17], decays(-1.0, 1.0, 120.0));
    // By factors of e^-20 to e^-150 a token; RWKV-7's fastest.
    both_rules([1, 70], [2, 5], decays(0.6, 1.0, 5.0));
    // Half-lives of thousands of tokens.
    both_rules([1, 300], [1, 5], decays(-1.0, -0.7, 12.0));
}

/// RWKV-4's recurrence alone: `range` of r, k and v, and its decay and bonus before their functions.
fn wkv4_case(
    [rows, length]: [usize; 2],
    range: (f32, f32),
    decay: fn(usize, &mut dyn FnMut() -> f32) -> f32,
    first: f32,
) {
    let inputs = [33; 3];
    let build = |graph: &mut Graph, inputs: &[Tensor]| {
        let time_decay = graph.param("time_decay", &[33], Init::Custom(decay));
        let time_first = graph.param("time_first", &[33], Init::Constant(first));
        graph.record(Wkv4Inputs {
            r: inputs[0],
            k: inputs[1],
            v: inputs[2],
            time_decay,
            time_first,
        })
    };
    Case {
        rows,
        length,
        inputs: &inputs,
        range,
        recurrent: true,
        build: &build,
        reference: &recorded(length, &inputs, &build),
    }
    .check_with(&devices());
}

#[test]
fn weighted_means_that_forget_at_once_and_never() {
    let all: fn(usize, &mut dyn FnMut() -> f32) -> f32 = |_, draw| 16.0 * draw() - 12.0;
    wkv4_case([2, 70], (-1.0, 1.0), all, 0.3);
    wkv4_case([1, 300], (-1.0, 1.0), |_, draw| draw() - 9.0, -1.0);
    wkv4_case([1, 70], (-1.0, 1.0), |_, draw| 2.0 + 3.0 * draw(), 0.5);
    // Weights e^k of all sizes, and a bonus that drowns the past.
    wkv4_case([1, 70], (-60.0, 60.0), all, 0.3);
    wkv4_case([1, 70], (-2.0, 2.0), all, 50.0);
    wkv4_case([1, 70], (-2.0, 2.0), all, -50.0);
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
