//! What a state that turns is made of: running sums of angles, heads turned by them, the token before.

use std::f64::consts::TAU;

use longhaul_plugin_kit::testing::Case;
use longhaul_plugin_kit::{Graph, Init, Tensor};

const HEADS: usize = 4;
const ANGLES: usize = 3;

fn case<'a>(rows: usize, length: usize, inputs: &'a [usize]) -> Case<'a> {
    Case {
        rows,
        length,
        inputs,
        range: (-1.5, 1.5),
        recurrent: false,
        build: &|_, inputs| inputs[0],
        reference: &|inputs, _| inputs[0].clone(),
    }
}

/// Cosines and sines of one sequence, by sums in float64 that nobody wraps.
fn turns(rate: &[f64], step: &[f64]) -> Vec<f64> {
    let mut sums = [0.0; HEADS * ANGLES];
    let tokens = rate.chunks(ANGLES).zip(step.chunks(HEADS));
    let turned = tokens.flat_map(|(rate, step)| {
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum += TAU * rate[index % ANGLES] * step[index / ANGLES];
        }
        [sums.map(f64::cos), sums.map(f64::sin)].concat()
    });
    turned.collect()
}

#[test]
fn running_sums_of_angles() {
    for length in [1, 2, 65, 130] {
        Case {
            recurrent: true,
            build: &|graph, inputs| graph.running_turns(inputs[0], inputs[1]),
            reference: &|inputs, _| {
                let rates = inputs[0].chunks(length * ANGLES);
                let rows = rates.zip(inputs[1].chunks(length * HEADS));
                rows.flat_map(|(rate, step)| turns(rate, step)).collect()
            },
            ..case(2, length, &[ANGLES, HEADS])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// x by head with its bias, turned by any cosines and sines.
fn turned(x: &[f64], bias: &[f64], turns: &[f64], groups: usize, width: usize) -> Vec<f64> {
    let (cosines, sines) = turns.split_at(HEADS * ANGLES);
    let heads = (0..HEADS).flat_map(|head| {
        let group = head / (HEADS / groups);
        let z: Vec<f64> = (0..width)
            .map(|i| x[group * width + i] + bias[head * width + i])
            .collect();
        let mut y = z.clone();
        for i in 0..ANGLES {
            let (c, s) = (cosines[head * ANGLES + i], sines[head * ANGLES + i]);
            y[i] = c * z[i] - s * z[i + ANGLES];
            y[i + ANGLES] = s * z[i] + c * z[i + ANGLES];
        }
        y
    });
    heads.collect()
}

#[test]
fn heads_with_a_bias_turned() {
    for (groups, width) in [(1, 6), (2, 9), (4, 17)] {
        let turning = 2 * HEADS * ANGLES;
        Case {
            build: &|graph: &mut Graph, inputs: &[Tensor]| {
                let bias = graph.param("bias", &[HEADS, width], Init::Normal { std: 1.0 });
                graph.turned_heads(inputs[0], bias, inputs[1], HEADS)
            },
            reference: &|inputs, params| {
                let tokens = inputs[0].chunks(groups * width);
                let tokens = tokens.zip(inputs[1].chunks(turning));
                tokens
                    .flat_map(|(x, turns)| turned(x, &params[0], turns, groups, width))
                    .collect()
            },
            ..case(2, 33, &[groups * width, turning])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn the_token_before() {
    for length in [1, 2, 65] {
        Case {
            recurrent: true,
            build: &|graph, inputs| graph.previous(inputs[0]),
            reference: &|inputs, _| {
                let rows = inputs[0].chunks(length * 5);
                rows.flat_map(|row| [&[0.0; 5], &row[..(length - 1) * 5]].concat())
                    .collect()
            },
            ..case(3, length, &[5])
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn products_of_heads() {
    Case {
        build: &|graph, inputs| graph.head_dots(inputs[0], inputs[1], 3),
        reference: &|inputs, _| {
            let heads = inputs[0].chunks(7).zip(inputs[1].chunks(7));
            heads
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum())
                .collect()
        },
        ..case(2, 65, &[21, 21])
    }
    .check_with(&longhaul_emulator::devices());
}
