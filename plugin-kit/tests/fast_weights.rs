//! Weights that learn, a mini-batch at a time by matrix products, against their naive form.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::fast_weights::{FastWeights, Loss, Update};
use longhaul_plugin_kit::testing::{Case, recorded};
use longhaul_plugin_kit::{Graph, Init, Tensor};

/// What is recorded, for heads of a key and a value width.
#[derive(Clone, Copy)]
struct Kind {
    sizes: [usize; 3],
    mini_batch: usize,
    has_bias: bool,
    normal: bool,
    /// Descent where there is none, else whether there are keep and momentum.
    momentum: Option<[bool; 2]>,
}

/// Inputs are q, k, target and what becomes rates, keep and momentum.
fn record(graph: &mut Graph, inputs: &[Tensor], kind: Kind) -> Tensor {
    let [heads, key, value] = kind.sizes;
    let within = Init::within(0.5);
    let mut by_head = |name: &str, init: &Init| graph.param(name, &[heads, value], init.clone());
    let bias = kind.has_bias.then(|| by_head("b", &within));
    let loss = match kind.normal {
        true => Loss::Normal {
            weight: by_head("norm.weight", &Init::within(2.0)),
            bias: by_head("norm.bias", &within),
            epsilon: 1e-3,
        },
        false => Loss::Squares,
    };
    let start = graph.param("W", &[heads, key, value], within);
    let mut gate = |input: usize| graph.activation(inputs[input], Activation::Sigmoid);
    let [rate, keep, momentum] = [3, 4, 5].map(&mut gate);
    let update = match kind.momentum {
        Some([keeps, moves]) => Update::Momentum {
            keep: keeps.then_some(keep),
            momentum: moves.then_some(momentum),
        },
        // Some fall below 0 and count as 0.
        None => Update::Descent {
            shares: graph.param("shares", &[kind.mini_batch], Init::within(0.6)),
        },
    };
    let rate = graph.scale(rate, 0.3);
    graph.fast_weights(FastWeights {
        q: inputs[0],
        k: inputs[1],
        target: inputs[2],
        rate,
        start,
        bias,
        loss,
        update,
        mini_batch: kind.mini_batch,
    })
}

fn check(kind: Kind, rows: usize, length: usize) {
    let [heads, key, value] = kind.sizes;
    let (keys, values) = (heads * key, heads * value);
    let cols = [keys, keys, values, heads, heads, heads];
    let build = |graph: &mut Graph, inputs: &[Tensor]| record(graph, inputs, kind);
    Case {
        rows,
        length,
        inputs: &cols,
        range: (-1.0, 1.0),
        recurrent: true,
        build: &build,
        reference: &recorded(length, &cols, &build),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn descent_as_in_ttt() {
    let kind = |sizes, mini_batch| Kind {
        sizes,
        mini_batch,
        has_bias: true,
        normal: true,
        momentum: None,
    };
    check(kind([2, 6, 6], 4), 2, 11);
    check(kind([1, 5, 7], 16), 1, 16);
    check(kind([3, 4, 4], 1), 1, 5);
    check(kind([1, 16, 16], 8), 2, 70);
}

#[test]
fn momentum_and_decay_as_in_titans() {
    let kind = |sizes, mini_batch, momentum| Kind {
        sizes,
        mini_batch,
        has_bias: false,
        normal: false,
        momentum: Some(momentum),
    };
    check(kind([2, 5, 3], 4, [true, true]), 2, 11);
    check(kind([1, 6, 6], 8, [true, false]), 1, 17);
    check(kind([2, 4, 5], 3, [false, true]), 1, 7);
    check(kind([1, 4, 4], 16, [false, false]), 2, 5);
    check(kind([1, 8, 8], 16, [true, true]), 1, 70);
}

#[test]
fn every_loss_goes_with_every_update() {
    for normal in [true, false] {
        for momentum in [None, Some([true, true])] {
            let kind = Kind {
                sizes: [2, 5, 6],
                mini_batch: 5,
                has_bias: !normal,
                normal,
                momentum,
            };
            check(kind, 1, 13);
        }
    }
}
