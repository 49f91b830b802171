//! Whole operations whose activations are stored as bfloat16 on an emulated device, against the CPU's and naive ones.

mod heads;

use std::sync::Arc;

use heads::{sizes, with_case};
use longhaul_emulator::Emulator;
use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::cuda::storage::Storage;
use longhaul_plugin_kit::ops::attention::PositionBias;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::recurrences::cell::Kind;
use longhaul_plugin_kit::recurrences::diagonal::Transition;
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Heads, Read, Removal, StateMatrix};
use longhaul_plugin_kit::testing::{Case, Tolerance, recorded};
use longhaul_plugin_kit::{Graph, Init, Tensor};

/// One rounding is by up to 1/256 of a value. Inputs, what lies between two kernels, and the result are rounded, each
/// with its share of the largest value; a gradient is made of as many more.
const ACCEPTED: Tolerance = Tolerance {
    forward: 3.0 / 256.0,
    backward: 6.0 / 256.0,
};

fn check(case: &Case<'_>) {
    let device = Emulator::beside_target().with_storage(Storage::Bf16);
    let device: Arc<dyn Device> = Arc::new(device);
    case.check_within(&device, ACCEPTED);
}

/// A result from inputs and parameters.
type Naive<'a> = &'a dyn Fn(&[Vec<f64>], &[Vec<f64>]) -> Vec<f64>;

fn case<'a>(
    inputs: &'a [usize],
    build: &'a dyn Fn(&mut Graph, &[Tensor]) -> Tensor,
    reference: Naive<'a>,
) -> Case<'a> {
    Case {
        rows: 2,
        length: LENGTH,
        inputs,
        range: (-1.0, 1.0),
        recurrent: true,
        build,
        reference,
    }
}

const LENGTH: usize = 37;

/// Of what records a recurrence.
fn check_recurrence(inputs: &[usize], build: &dyn Fn(&mut Graph, &[Tensor]) -> Tensor) {
    check(&case(inputs, build, &recorded(LENGTH, inputs, build)));
}

#[test]
fn a_gate() {
    check(&case(
        &[19, 19],
        &|graph, x| graph.gate(x[0], x[1], Activation::Silu),
        &|inputs, _| {
            let pairs = inputs[0].iter().zip(&inputs[1]);
            pairs.map(|(g, x)| g / (1.0 + (-g).exp()) * x).collect()
        },
    ));
}

#[test]
fn a_norm() {
    check(&case(
        &[24],
        &|graph, x| graph.group_norm("n", x[0], NormKind::Rms, 1, 1e-5),
        &|inputs, params| {
            let row = |x: &[f64]| {
                let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
                let scale = 1.0 / (mean + 1e-5).sqrt();
                let values = x.iter().zip(&params[0]);
                values.map(|(x, w)| x * scale * w).collect::<Vec<f64>>()
            };
            inputs[0].chunks(24).flat_map(row).collect()
        },
    ));
}

#[test]
fn attention() {
    with_case(&sizes(2, 70, 2, 1, 8), Some(33), PositionBias::Alibi, check);
}

#[test]
fn cells() {
    for kind in [Kind::Lstm, Kind::Gru] {
        let columns = kind.gates() * 9;
        check_recurrence(&[columns], &|graph, x| {
            let weight = graph.param("w", &[columns, 9], Init::Linear { gain: 1.0 });
            let bias = graph.param("b", &[columns], Init::within(0.5));
            graph.recurrent_cell(kind, x[0], weight, bias)
        });
    }
}

#[test]
fn a_diagonal_scan() {
    check_recurrence(&[6, 6], &|graph, x| {
        let a = graph.activation(x[0], Activation::LogSigmoid);
        graph.diagonal_scan(Transition::Log(a), x[1])
    });
}

#[test]
fn a_state_matrix() {
    let heads = Heads {
        heads: 2,
        groups: 1,
        key: 8,
        value: 5,
        writes: 1,
    };
    check_recurrence(&[8, 8, 10, 2], &|graph, x| {
        let decay = graph.activation(x[3], Activation::LogSigmoid);
        let (decay, removal) = (Decay::Head(decay), Removal::None);
        let of = StateMatrix {
            q: x[0],
            k: x[1],
            v: x[2],
            heads,
            decay,
            removal,
            read: Read::After,
        };
        graph.state_matrix(of)
    });
}
