//! The state matrix with exponential gates against its naive form.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::mlstm::Mlstm;
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Tensor};

/// Heads, K, V.
type Sizes = [usize; 3];

/// Inputs are q, k, v, and the gates times `gates`; the forget gate is through a log-sigmoid where `sigmoid` says so.
struct Gates {
    scale: f32,
    sigmoid: bool,
}

fn record(graph: &mut Graph, inputs: &[Tensor], gates: &Gates) -> Tensor {
    let input = graph.scale(inputs[3], gates.scale);
    let forget = graph.scale(inputs[4], gates.scale);
    let forget = match gates.sigmoid {
        true => graph.activation(forget, Activation::LogSigmoid),
        false => forget,
    };
    graph.mlstm(Mlstm {
        q: inputs[0],
        k: inputs[1],
        v: inputs[2],
        input,
        forget,
        epsilon: 1e-3,
    })
}

/// The equations with m as the naive form has it not: every weight `exp(sum of f + i)` by itself, in logarithms.
fn parallel(
    inputs: &[Vec<f64>],
    [heads, key, value]: Sizes,
    length: usize,
    gates: &Gates,
) -> Vec<f64> {
    let scale = f64::from(gates.scale);
    let rows = inputs[3].len() / heads / length;
    let mut h = Vec::new();
    for at in 0..rows * length {
        let begin = at / length * length;
        for head in 0..heads {
            let of = |input: usize, at: usize, width: usize| {
                &inputs[input][(at * heads + head) * width..][..width]
            };
            let forget = |at: usize| {
                let f = scale * of(4, at, 1)[0];
                if gates.sigmoid {
                    -(-f).exp().ln_1p()
                } else {
                    f
                }
            };
            let log = |s: usize| scale * of(3, s, 1)[0] + (s + 1..=at).map(forget).sum::<f64>();
            // m starts at 0.
            let start = (begin..=at).map(forget).sum::<f64>();
            let m = (begin..=at).map(log).fold(start, f64::max);
            let mut sums = vec![0.0; value + 1];
            for s in begin..=at {
                let product: f64 = of(0, at, key)
                    .iter()
                    .zip(of(1, s, key))
                    .map(|(q, k)| q * k)
                    .sum();
                let weight = (log(s) - m).exp() * product;
                let v = of(2, s, value).iter().chain(&[1.0]);
                sums.iter_mut()
                    .zip(v)
                    .for_each(|(sum, v)| *sum += weight * v);
            }
            let last = sums.pop().expect("the sum of weights");
            let by = last.abs().max((-m).exp()) + f64::from(1e-3f32);
            h.extend(sums.into_iter().map(|sum| sum / by));
        }
    }
    h
}

fn check(sizes: Sizes, rows: usize, length: usize, gates: &Gates) {
    let [heads, key, value] = sizes;
    Case {
        rows,
        length,
        inputs: &[heads * key, heads * key, heads * value, heads, heads],
        range: (-1.5, 1.5),
        recurrent: true,
        build: &|graph, inputs| record(graph, inputs, gates),
        reference: &|inputs, _| parallel(inputs, sizes, length, gates),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn gates_of_usual_size() {
    let gates = |sigmoid| Gates {
        scale: 1.0,
        sigmoid,
    };
    check([2, 4, 7], 2, 70, &gates(true));
    check([3, 5, 4], 1, 17, &gates(false));
    check([1, 16, 32], 2, 5, &gates(true));
}

/// Exponentials of the gates that float32 has no numbers for, in both directions.
#[test]
fn gates_that_no_number_holds() {
    for sigmoid in [true, false] {
        let gates = Gates {
            scale: 64.0,
            sigmoid,
        };
        check([2, 4, 6], 2, 70, &gates);
    }
}
