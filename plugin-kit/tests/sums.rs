//! Sums that a device makes in passing, gradients that share memory, and layers that are one product there, against the
//! CPU; and sums that look like these and are not.

use std::sync::Arc;

use longhaul_emulator::{Emulator, devices};
use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Init, Tensor};

const WIDTH: usize = 6;

/// Both orders of blocks, and a library that knows no epilogues.
fn all_devices() -> Vec<Arc<dyn Device>> {
    let plain = Emulator::beside_target().without_epilogues();
    devices()
        .into_iter()
        .chain([Arc::new(plain) as Arc<dyn Device>])
        .collect()
}

/// A result from inputs and parameters.
type Naive<'a> = &'a dyn Fn(&[Vec<f64>], &[Vec<f64>]) -> Vec<f64>;

/// Holds what is built of inputs of 6 columns against its naive form.
fn check(inputs: &[usize], build: &dyn Fn(&mut Graph, &[Tensor]) -> Tensor, reference: Naive<'_>) {
    Case {
        rows: 2,
        length: 37,
        inputs,
        range: (-1.5, 1.5),
        recurrent: false,
        build,
        reference,
    }
    .check_with(&all_devices());
}

/// `x Wᵀ + b` of rows as wide as W.
fn linear(x: &[f64], weight: &[f64], bias: Option<&Vec<f64>>, width: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let outputs = weight.chunks(width).enumerate();
        let one = |(out, weight): (usize, &[f64])| {
            let products = x.iter().zip(weight).map(|(x, w)| x * w);
            bias.map_or(0.0, |bias| bias[out]) + products.sum::<f64>()
        };
        outputs.map(one).collect()
    };
    x.chunks(width).flat_map(row).collect()
}

fn square(x: &[f64], params: &[Vec<f64>], first: usize) -> Vec<f64> {
    linear(x, &params[first], Some(&params[first + 1]), WIDTH)
}

fn plus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn squared(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x * x).collect()
}

fn square_of(graph: &mut Graph, x: Tensor) -> Tensor {
    graph.gate(x, x, Activation::Identity)
}

#[test]
fn a_residual_stream_through_layers() {
    check(
        &[WIDTH],
        &|graph, inputs| {
            let mut x = inputs[0];
            for layer in ["first", "second", "third"] {
                let inner = square_of(graph, x);
                let inner = graph.linear(layer, inner, WIDTH, true);
                x = graph.add(x, inner);
            }
            x
        },
        &|inputs, params| {
            let mut x = inputs[0].clone();
            for layer in 0..3 {
                x = plus(&x, &square(&squared(&x), params, 2 * layer));
            }
            x
        },
    );
}

/// A product of x itself: its backward pass reads the gradient of the sum while it adds to that of x.
#[test]
fn a_sum_of_a_tensor_and_its_own_product() {
    check(
        &[WIDTH],
        &|graph, inputs| {
            let x = square_of(graph, inputs[0]);
            let inner = graph.linear("proj", x, WIDTH, true);
            graph.add(inner, x)
        },
        &|inputs, params| {
            let x = squared(&inputs[0]);
            plus(&square(&x, params, 0), &x)
        },
    );
}

/// The terms of a sum, or one of them, are used after it.
#[test]
fn terms_that_are_used_again() {
    for again in 0..3 {
        check(
            &[WIDTH],
            &|graph, inputs| {
                let x = square_of(graph, inputs[0]);
                let inner = graph.activation(x, Activation::Tanh);
                let inner = graph.linear("proj", inner, WIDTH, true);
                let sum = graph.add(x, inner);
                let mut y = square_of(graph, sum);
                if again != 1 {
                    y = graph.gate(x, y, Activation::Identity);
                }
                if again != 0 {
                    y = graph.gate(inner, y, Activation::Identity);
                }
                y
            },
            &|inputs, params| {
                let x = squared(&inputs[0]);
                let tanh: Vec<f64> = x.iter().map(|x| x.tanh()).collect();
                let inner = square(&tanh, params, 0);
                let mut y = squared(&plus(&x, &inner));
                let mut times = |by: &[f64]| y.iter_mut().zip(by).for_each(|(y, by)| *y *= by);
                if again != 1 {
                    times(&x);
                }
                if again != 0 {
                    times(&inner);
                }
                y
            },
        );
    }
}

/// Something uses x after the product is made, and before its sum; and a product is made long before its sum.
#[test]
fn terms_that_are_used_between_product_and_sum() {
    check(
        &[WIDTH, WIDTH],
        &|graph, inputs| {
            let (x, z) = (square_of(graph, inputs[0]), inputs[1]);
            let early = graph.linear("early", z, WIDTH, true);
            let late = graph.linear("late", z, WIDTH, false);
            let between = square_of(graph, x);
            let sum = graph.add(x, early);
            let stream = graph.add(sum, between);
            graph.add(stream, late)
        },
        &|inputs, params| {
            let (x, z) = (squared(&inputs[0]), &inputs[1]);
            let late = linear(z, &params[2], None, WIDTH);
            let sum = plus(&x, &square(z, params, 0));
            plus(&plus(&sum, &squared(&x)), &late)
        },
    );
}

/// Sums of sums: two streams end in one, each with uses of its own before, and one of them after it too.
#[test]
fn sums_of_sums() {
    for further in [false, true] {
        check_sums_of_sums(further);
    }
}

fn check_sums_of_sums(further: bool) {
    check(
        &[WIDTH, WIDTH],
        &|graph, inputs| {
            let streams = [0, 1].map(|index| {
                let x = square_of(graph, inputs[index]);
                let inner = graph.activation(x, Activation::Sigmoid);
                let inner = graph.linear(["a", "b"][index], inner, WIDTH, index == 0);
                graph.add(x, inner)
            });
            let both = graph.add(streams[0], streams[1]);
            if !further {
                return both;
            }
            let twice = graph.add(both, both);
            graph.add(twice, streams[1])
        },
        &|inputs, params| {
            let stream = |index: usize| {
                let x = squared(&inputs[index]);
                let inner: Vec<f64> = x.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
                let inner = match index {
                    0 => square(&inner, params, 0),
                    _ => linear(&inner, &params[2], None, WIDTH),
                };
                plus(&x, &inner)
            };
            let (a, b) = (stream(0), stream(1));
            let both = plus(&a, &b);
            if !further {
                return both;
            }
            plus(&plus(&both, &both), &b)
        },
    );
}

/// A bias that two layers share is added to by both; a weight and a bias that one layer has are not read before.
#[test]
fn parameters_that_are_used_twice() {
    check(
        &[WIDTH],
        &|graph, inputs| {
            let weights = ["one", "two"]
                .map(|name| graph.param(name, &[WIDTH, WIDTH], Init::Linear { gain: 1.0 }));
            let bias = graph.param("bias", &[WIDTH], Init::Constant(0.3));
            let x = graph.linear_by(inputs[0], weights[0], Some(bias));
            let x = graph.activation(x, Activation::Tanh);
            let x = graph.linear_by(x, weights[1], Some(bias));
            graph.linear_by(x, weights[0], None)
        },
        &|inputs, params| {
            let bias = Some(&params[2]);
            let x = linear(&inputs[0], &params[0], bias, WIDTH);
            let x: Vec<f64> = x.iter().map(|x| x.tanh()).collect();
            let x = linear(&x, &params[1], bias, WIDTH);
            linear(&x, &params[0], None, WIDTH)
        },
    );
}

/// Layers of unequal widths, none of them a multiple of anything, with columns of the first left over.
#[test]
fn layers_of_one_input_are_one_product() {
    for bias in [false, true] {
        check(
            &[WIDTH],
            &|graph, inputs| {
                let layers = [("a", 9), ("b", 7), ("c", 5)];
                let init = Init::Linear { gain: 1.0 };
                let all = graph.linears_with(&layers, inputs[0], bias, &init);
                let gate = graph.gate(all[0].columns(2, 5), all[1].columns(1, 5), Activation::Silu);
                graph.gate(all[2], gate, Activation::Identity)
            },
            &|inputs, params| {
                let step = if bias { 2 } else { 1 };
                let layer = |index: usize| {
                    let own = bias.then(|| &params[step * index + 1]);
                    linear(&inputs[0], &params[step * index], own, WIDTH)
                };
                let (a, b, c) = (layer(0), layer(1), layer(2));
                let places = (0..c.len()).map(|i| (i / 5, i % 5, c[i]));
                let value = |(row, col, c): (usize, usize, f64)| {
                    let gate = a[row * 9 + 2 + col];
                    c * b[row * 7 + 1 + col] * gate / (1.0 + (-gate).exp())
                };
                places.map(value).collect()
            },
        );
    }
}

/// Gate and gated value are the same columns, or overlap: the one gradient is added to the other.
#[test]
fn gates_of_their_own_columns() {
    for start in 0..3 {
        check(
            &[WIDTH],
            &|graph, inputs| {
                let x = graph.activation(inputs[0], Activation::Identity);
                graph.gate(x.columns(0, 4), x.columns(start, 4), Activation::Sigmoid)
            },
            &|inputs, _| {
                let row = |x: &[f64]| -> Vec<f64> {
                    let value = |col: usize| x[start + col] / (1.0 + (-x[col]).exp());
                    (0..4).map(value).collect()
                };
                inputs[0].chunks(WIDTH).flat_map(row).collect()
            },
        );
    }
}
