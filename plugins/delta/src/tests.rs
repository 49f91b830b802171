//! MesaNet's solver against an exact solution and against the gradients of its naive form, on the CPU and on emulated
//! devices.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::state_matrix::Heads;
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Init, Tensor};

use crate::mesa_solve::Solve;

const BOUND: f64 = 0.25;

/// A solution by elimination; no pivots, the matrix is positive definite.
fn eliminate(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let pivot = a[i].clone();
        for row in (0..n).filter(|&row| row != i) {
            let factor = a[row][i] / pivot[i];
            let columns = a[row].iter_mut().zip(&pivot);
            columns.for_each(|(value, pivot)| *value -= factor * pivot);
            b[row] -= factor * b[i];
        }
    }
    (0..n).map(|i| b[i] / a[i][i]).collect()
}

fn solver_case(rows: usize, length: usize, heads: usize, key: usize) {
    let build = |graph: &mut Graph, inputs: &[Tensor]| {
        let decay = graph.activation(inputs[2], Activation::Softplus);
        let lambda = graph.param("lambda", &[heads * key], Init::Normal { std: 1.0 });
        let solver = Solve {
            inputs: [
                inputs[0],
                inputs[1],
                graph.scale(decay, -1.0),
                graph.activation(inputs[3], Activation::Sigmoid),
            ],
            lambda,
            heads: Heads {
                heads,
                groups: heads,
                key,
                value: key,
                writes: 1,
            },
            bound: BOUND,
            steps: 100,
        };
        graph.record(solver)
    };
    let reference = |inputs: &[Vec<f64>], params: &[Vec<f64>]| -> Vec<f64> {
        let softplus = |x: f64| x.exp().ln_1p();
        let mut solved = vec![0.0; inputs[0].len()];
        for unit in 0..rows * heads {
            let (row, head) = (unit / heads, unit % heads);
            let mut h = vec![vec![0.0; key]; key];
            for t in 0..length {
                let at = (row * length + t) * heads + head;
                let kept = (-softplus(inputs[2][at])).exp();
                let beta = 1.0 / (1.0 + (-inputs[3][at]).exp());
                let (q, k) = (&inputs[0][at * key..][..key], &inputs[1][at * key..][..key]);
                for (h, k_i) in h.iter_mut().zip(k) {
                    for (h, k_j) in h.iter_mut().zip(k) {
                        *h = kept * *h + beta * k_i * k_j;
                    }
                }
                let mut ridged = h.clone();
                for (i, ridged) in ridged.iter_mut().enumerate() {
                    ridged[i] += softplus(params[0][head * key + i]) + BOUND;
                }
                solved[at * key..][..key].copy_from_slice(&eliminate(ridged, q.to_vec()));
            }
        }
        solved
    };
    let width = heads * key;
    Case {
        rows,
        length,
        inputs: &[width, width, heads, heads],
        range: (-1.0, 1.0),
        recurrent: true,
        build: &build,
        reference: &reference,
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn the_solver_agrees() {
    for [rows, length, heads, key] in [[1, 1, 1, 1], [2, 33, 2, 5], [1, 65, 3, 16]] {
        solver_case(rows, length, heads, key);
    }
}
