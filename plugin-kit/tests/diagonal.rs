//! The diagonal scan against its naive form: every kind of transition, constants, extremes, devices.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::diagonal::naive::naive;
use longhaul_plugin_kit::recurrences::diagonal::{Discretisation, Kind, Transition};
use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Init, Tensor};

const KINDS: [Kind; 3] = [Kind::Log, Kind::Signed, Kind::Complex];

fn transition(kind: Kind, a: Tensor) -> Transition {
    match kind {
        Kind::Log => Transition::Log(a),
        Kind::Signed => Transition::Signed(a),
        Kind::Complex => Transition::Complex(a),
    }
}

/// The naive form over sequences of `length` tokens from a state 0.
fn scans(kind: Kind, a: &[f64], b: &[f64], width: usize, length: usize) -> Vec<f64> {
    let sequences = a.chunks(length * width).zip(b.chunks(length * width));
    let scan = |(a, b)| naive(kind, a, b, &mut vec![0.0; width]);
    sequences.flat_map(scan).collect()
}

/// The scan of a tensor and another.
fn check(kind: Kind, rows: usize, length: usize, width: usize, range: (f32, f32)) {
    Case {
        rows,
        length,
        inputs: &[width, width],
        range,
        recurrent: true,
        build: &|graph, inputs| graph.diagonal_scan(transition(kind, inputs[0]), inputs[1]),
        reference: &|inputs, _| scans(kind, &inputs[0], &inputs[1], width, length),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn lengths_around_a_chunk_and_widths_that_fill_no_vector() {
    for kind in KINDS {
        for length in [1, 2, 63, 64, 65, 257] {
            check(kind, 3, length, 6, (-0.7, 0.7));
        }
        check(kind, 1, 130, 34, (-0.7, 0.7));
    }
}

#[test]
fn logarithms_far_below_0() {
    check(Kind::Log, 2, 70, 9, (-100.0, 0.0));
}

/// The scan by a constant between two bounds.
fn check_constant(kind: Kind, rows: usize, length: usize, low: f32, high: f32) {
    let width = 10;
    Case {
        rows,
        length,
        inputs: &[width],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            let a = graph.param("a", &[width], Init::Uniform { low, high });
            let a = graph.constant(a);
            graph.diagonal_scan(transition(kind, a), inputs[0])
        },
        reference: &|inputs, params| {
            let a = params[0].repeat(rows * length);
            scans(kind, &a, &inputs[0], width, length)
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn constants() {
    for kind in KINDS {
        for (rows, length) in [(1, 1), (3, 5), (2, 200)] {
            // None that grows.
            let most = if kind == Kind::Log { 0.0 } else { 0.7 };
            check_constant(kind, rows, length, -0.7, most);
        }
    }
}

#[test]
fn half_lives_of_a_thousand_tokens() {
    check_constant(Kind::Log, 1, 600, -1e-3, 0.0);
    check_constant(Kind::Signed, 1, 600, 0.999, 1.0);
}

#[test]
fn a_scan_of_a_tensor_by_itself() {
    for kind in KINDS {
        Case {
            rows: 2,
            length: 70,
            inputs: &[6],
            range: (-0.7, 0.7),
            recurrent: true,
            build: &|graph, inputs| graph.diagonal_scan(transition(kind, inputs[0]), inputs[0]),
            reference: &|inputs, _| scans(kind, &inputs[0], &inputs[0], 6, 70),
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn products_of_complex_numbers() {
    let product = |a: [f64; 2], b: [f64; 2]| [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]];
    let multiply = |a: &[f64], b: &[f64]| -> Vec<f64> {
        let at = |c: usize| product([a[c], a[c + 5]], [b[c], b[c + 5]]);
        (0..2)
            .flat_map(|part| (0..5).map(move |c| at(c)[part]))
            .collect()
    };
    Case {
        rows: 3,
        length: 65,
        inputs: &[10, 10],
        range: (-2.0, 2.0),
        recurrent: false,
        build: &|graph, inputs| {
            let w = graph.param("w", &[10], Init::within(1.0));
            let w = graph.constant(w);
            let square = graph.complex_product(w, w);
            let y = graph.complex_product(inputs[0], inputs[1]);
            graph.complex_product(y, square)
        },
        reference: &|inputs, params| {
            let square = multiply(&params[0], &params[0]);
            let tokens = inputs[0].chunks(10).zip(inputs[1].chunks(10));
            let token = |(x, y)| multiply(&multiply(x, y), &square);
            tokens.flat_map(token).collect()
        },
    }
    .check_with(&longhaul_emulator::devices());
}

/// e^z, complex.
fn power(re: f64, im: f64) -> [f64; 2] {
    [re.exp() * im.cos(), re.exp() * im.sin()]
}

/// a / b, complex.
fn quotient(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    let square = b[0] * b[0] + b[1] * b[1];
    [
        (a[0] * b[0] + a[1] * b[1]) / square,
        (a[1] * b[0] - a[0] * b[1]) / square,
    ]
}

/// Angles and logarithms of moduli by position, and from constants.
#[test]
fn polar_numbers() {
    let polar = |re: &[f64], im: &[f64]| -> Vec<f64> {
        let at = |c: usize| power(re[c], im[c]);
        (0..2)
            .flat_map(|part| (0..7).map(move |c| at(c)[part]))
            .collect()
    };
    Case {
        rows: 2,
        length: 33,
        inputs: &[7, 7, 14],
        range: (-2.0, 2.0),
        recurrent: false,
        build: &|graph, inputs| {
            let angle = graph.param("angle", &[14], Init::within(3.0));
            let angle = graph.constant(angle);
            let turn = graph.polar(angle.columns(0, 7), angle.columns(7, 7));
            let by_position = graph.polar(inputs[0], inputs[1]);
            let turned = graph.complex_product(inputs[2], turn);
            graph.add(turned, by_position)
        },
        reference: &|inputs, params| {
            let turn = polar(&params[0][..7], &params[0][7..]);
            let token = |t: usize| {
                let by_position = polar(&inputs[0][t * 7..][..7], &inputs[1][t * 7..][..7]);
                let x = &inputs[2][t * 14..][..14];
                let mut y = vec![0.0; 14];
                for c in 0..7 {
                    y[c] = x[c] * turn[c] - x[c + 7] * turn[c + 7] + by_position[c];
                    y[c + 7] = x[c] * turn[c + 7] + x[c + 7] * turn[c] + by_position[c + 7];
                }
                y
            };
            (0..66).flat_map(token).collect()
        },
    }
    .check_with(&longhaul_emulator::devices());
}

/// Systems with steps of their own and with shared ones, close to 0 and far from it.
#[test]
fn discretised_systems() {
    for (method, steps, scale) in [
        (Discretisation::ZeroOrderHold, 6, 1.0),
        (Discretisation::ZeroOrderHold, 2, 30.0),
        (Discretisation::ZeroOrderHold, 1, 1e-3),
        (Discretisation::Bilinear, 3, 2.0),
    ] {
        check_discretised(method, steps, scale);
    }
}

fn check_discretised(method: Discretisation, steps: usize, scale: f32) {
    let negative = Init::Uniform {
        low: -scale,
        high: -0.1 * scale,
    };
    let positive = Init::Uniform {
        low: 0.1,
        high: 0.5,
    };
    Case {
        rows: 2,
        length: 3,
        inputs: &[24],
        range: (-1.0, 1.0),
        recurrent: false,
        build: &|graph, inputs| {
            let re = graph.param("re", &[6], negative.clone());
            let im = graph.param("im", &[6], Init::within(scale));
            let step = graph.param("step", &[steps], positive.clone());
            let [re, im, step] = [re, im, step].map(|param| graph.constant(param));
            let (transition, gain) = graph.discretise(method, re, im, step);
            let half = graph.gate(transition, inputs[0].columns(0, 12), Activation::Identity);
            let other = graph.gate(gain, inputs[0].columns(12, 12), Activation::Identity);
            graph.add(half, other)
        },
        reference: &|inputs, params| {
            let at = |c: usize| {
                let step = params[2][c % steps];
                let number = [params[0][c], params[1][c]];
                let z = number.map(|part| part * step);
                match method {
                    Discretisation::ZeroOrderHold => {
                        let a = power(z[0], z[1]);
                        (a, quotient([a[0] - 1.0, a[1]], number))
                    }
                    Discretisation::Bilinear => {
                        let below = [1.0 - z[0] / 2.0, -z[1] / 2.0];
                        let a = quotient([1.0 + z[0] / 2.0, z[1] / 2.0], below);
                        (a, quotient([step, 0.0], below))
                    }
                }
            };
            let token = |x: &[f64]| -> Vec<f64> {
                let value = |c: usize| {
                    let (a, gain) = at(c % 6);
                    a[c / 6] * x[c] + gain[c / 6] * x[c + 12]
                };
                (0..12).map(value).collect()
            };
            inputs[0].chunks(24).flat_map(token).collect()
        },
    }
    .check_with(&longhaul_emulator::devices());
}

/// N states of each of H channels, with states that are kept in the middle of chunks and channels that fill no block.
fn check_systems(rows: usize, length: usize, channels: usize, states: usize) {
    let cols = 2 * states * channels;
    Case {
        rows,
        length,
        inputs: &[channels],
        range: (-1.0, 1.0),
        recurrent: true,
        build: &|graph, inputs| {
            let a = graph.param("a", &[cols], Init::within(0.65));
            let c = graph.param("c", &[cols], Init::within(1.0));
            let [a, c] = [a, c].map(|param| graph.constant(param));
            graph.diagonal_systems(a, c, inputs[0])
        },
        reference: &|inputs, params| {
            let (a, c, half) = (&params[0], &params[1], cols / 2);
            let mut y = Vec::new();
            for u in inputs[0].chunks(length * channels) {
                let mut state = vec![[0.0; 2]; half];
                for u in u.chunks(channels) {
                    let mut sums = vec![0.0; channels];
                    for (place, x) in state.iter_mut().enumerate() {
                        let [re, im] = *x;
                        let (a_re, a_im) = (a[place], a[place + half]);
                        *x = [
                            a_re * re - a_im * im + u[place % channels],
                            a_re * im + a_im * re,
                        ];
                        sums[place % channels] += c[place] * x[0] - c[place + half] * x[1];
                    }
                    y.extend(sums);
                }
            }
            y
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn systems_whose_states_stay_inside() {
    for length in [1, 2, 15, 16, 17, 65] {
        check_systems(2, length, 3, 4);
    }
    check_systems(1, 20, 37, 2);
    check_systems(3, 33, 2, 35);
}
