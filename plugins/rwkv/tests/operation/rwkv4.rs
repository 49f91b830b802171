//! RWKV-4.

use longhaul_plugin_kit::Block;
use longhaul_plugin_kit::testing::Case;
use longhaul_rwkv::{reference, rwkv4};

use super::{channel_mix, lerp, mixer, multiply, shifted, sigmoid, zip};

fn time_mix(x: &[f64], params: &[Vec<f64>], d_model: usize, length: usize) -> Vec<f64> {
    let [
        decay,
        first,
        mix_k,
        mix_v,
        mix_r,
        key,
        value,
        receptance,
        output,
    ] = params
    else {
        panic!("nine parameters")
    };
    let before = shifted(x, d_model, length);
    // The weights are the current position's.
    let part = |mix: &[f64], weight: &[f64]| multiply(weight, &lerp(&before, x, mix), d_model);
    let (k, v, r) = (
        part(mix_k, key),
        part(mix_v, value),
        part(mix_r, receptance),
    );
    let size = length * decay.len();
    let sequences = k.chunks(size).zip(v.chunks(size));
    let wkv = |(k, v)| reference::wkv4([k, v], [decay, first], &mut vec![0.0; 2 * decay.len()]);
    let wkv: Vec<f64> = sequences.flat_map(wkv).collect();
    let gated = zip(&r, &wkv, |r, wkv| sigmoid(r) * wkv);
    multiply(output, &gated, decay.len())
}

fn check(rows: usize, length: usize, d_model: usize, layer: usize, options: &[(&str, &str)]) {
    let mixer = mixer(&rwkv4(), d_model, options);
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-3.0, 3.0),
        recurrent: true,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, layer, 2), inputs[0]),
        reference: &|inputs, params| time_mix(&inputs[0], params, d_model, length),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn lengths_on_both_sides_of_the_chunks() {
    for length in [1, 2, 31, 32, 33, 63, 64, 65] {
        check(2, length, 5, 0, &[]);
    }
}

#[test]
fn several_and_partial_blocks_of_channels() {
    check(2, 20, 37, 1, &[]);
    check(1, 65, 64, 1, &[]);
    check(3, 35, 7, 1, &[("hidden", "41")]);
    check(1, 257, 4, 1, &[]);
}

#[test]
fn channel_mix_agrees() {
    for (rows, length, d_model) in [(1, 1, 4), (2, 2, 5), (2, 33, 7), (1, 65, 17)] {
        let mixer = mixer(&rwkv4(), d_model, &[("mlp_hidden", "11")]);
        Case {
            rows,
            length,
            inputs: &[d_model],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, inputs| {
                mixer
                    .mlp(&mut Block::new(graph, 1, 2), inputs[0])
                    .expect("an MLP")
            },
            reference: &|inputs, params| {
                let x = &inputs[0];
                let before = shifted(x, d_model, length);
                channel_mix(|mix| lerp(&before, x, mix), params, d_model)
            },
        }
        .check_with(&longhaul_emulator::devices());
    }
}
