//! The diagonal scan against its naive form: every kind of transition, constants, extremes, devices.

use longhaul_plugin_kit::recurrences::diagonal::naive::naive;
use longhaul_plugin_kit::recurrences::diagonal::{Kind, Transition};
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
