//! The long convolution and the tables of positions against naive forms: filters shorter and longer than sequences,
//! feeds, devices.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::positions::Positions;
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Init, Tensor};

/// A filter whose values are a parameter: a table of ones, gated.
fn filter(graph: &mut Graph, taps: usize, cols: usize) -> Tensor {
    let decay = Positions::Decay {
        first: 0.5,
        last: 3.0,
        shift: 0.1,
    };
    let table = graph.positions(decay, taps, cols, 1 + taps / 2);
    let factor = graph.param("factor", &[cols], Init::within(2.0));
    let factor = graph.constant(factor);
    graph.gate(factor, table, Activation::Identity)
}

/// The same in float64, `[taps, cols]`.
fn exact_filter(factor: &[f64], taps: usize) -> Vec<f64> {
    let cols = factor.len();
    let last = (1 + taps / 2).saturating_sub(1).max(1) as f64;
    let value = |index: usize| {
        let (tap, c) = (index / cols, index % cols);
        let rate = match cols {
            1 => 0.5,
            _ => 0.5 + 2.5 * c as f64 / (cols - 1) as f64,
        };
        factor[c] * ((-rate * tap as f64 / last).exp() + 0.1)
    };
    (0..taps * cols).map(value).collect()
}

fn check(rows: usize, length: usize, cols: usize, taps: usize) {
    Case {
        rows,
        length,
        inputs: &[cols],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            let filter = filter(graph, taps, cols);
            graph.long_convolution(filter, inputs[0])
        },
        reference: &|inputs, params| {
            let filter = exact_filter(&params[0], taps);
            let mut y = vec![0.0; inputs[0].len()];
            for token in 0..rows * length {
                for j in 0..taps.min(token % length + 1) {
                    for c in 0..cols {
                        y[token * cols + c] +=
                            filter[j * cols + c] * inputs[0][(token - j) * cols + c];
                    }
                }
            }
            y
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn filters_shorter_and_longer_than_sequences() {
    for (rows, length, cols, taps) in [
        (1, 1, 1, 1),
        (2, 9, 3, 1),
        (3, 70, 5, 33),
        (2, 33, 17, 200),
        (1, 150, 34, 64),
        (2, 100, 16, 100),
    ] {
        check(rows, length, cols, taps);
    }
}

/// What an implicit filter is made of: features through a linear layer and sines, every gradient.
#[test]
fn a_filter_by_a_layer_over_features() {
    let (taps, length, features) = (40, 24, 5);
    Case {
        rows: 2,
        length: 50,
        inputs: &[6],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            let table = graph.positions(Positions::Features, taps, features, length);
            let filter = graph.linear("filter", table, 6, true);
            let filter = graph.activation(filter, Activation::Sine);
            graph.long_convolution(filter, inputs[0])
        },
        reference: &|inputs, params| {
            let feature = |row: usize, index: usize| {
                let t = row as f64;
                let angle = std::f64::consts::TAU * t / length as f64;
                [
                    t / (length - 1) as f64,
                    (1e-4 * angle).cos(),
                    angle.cos(),
                    -(1e-4 * angle).sin(),
                    -angle.sin(),
                ][index]
            };
            let tap = |row: usize, c: usize| {
                let terms = (0..features).map(|i| params[0][c * features + i] * feature(row, i));
                (terms.sum::<f64>() + params[1][c]).sin()
            };
            let mut y = vec![0.0; inputs[0].len()];
            for (index, y) in y.iter_mut().enumerate() {
                let (token, c) = (index / 6, index % 6);
                for j in 0..taps.min(token % 50 + 1) {
                    *y += tap(j, c) * inputs[0][(token - j) * 6 + c];
                }
            }
            y
        },
    }
    .check_with(&longhaul_emulator::devices());
}
