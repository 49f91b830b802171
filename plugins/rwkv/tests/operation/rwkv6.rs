//! RWKV-6.

use longhaul_plugin_kit::Block;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::{Case, config};
use longhaul_rwkv::reference::{self, Matrix};
use longhaul_rwkv::rwkv6;

use super::{channel_mix, group_norm, lerp, mixer, multiply, shifted, sigmoid, zip};

/// Columns `index * width..` of rows of `cols`.
fn columns(x: &[f64], cols: usize, index: usize, width: usize) -> Vec<f64> {
    x.chunks(cols)
        .flat_map(|row| row[index * width..][..width].to_vec())
        .collect()
}

fn time_mix(x: &[f64], params: &[Vec<f64>], sizes: [usize; 3]) -> Vec<f64> {
    let [d_model, length, head_dim] = sizes;
    let (mix_x, down, ups) = (&params[0], &params[1], &params[2..12]);
    let [
        decay_down,
        decay_up,
        decay_bias,
        receptance,
        key,
        value,
        gate,
        u,
        ln,
        ln_bias,
        output,
    ] = &params[12..]
    else {
        panic!("eleven more parameters")
    };
    let before = shifted(x, d_model, length);
    let inner: Vec<f64> = multiply(down, &lerp(x, &before, mix_x), d_model)
        .iter()
        .map(|value| value.tanh())
        .collect();
    let rank = down.len() / d_model / 5;
    let blends: Vec<Vec<f64>> = ups
        .chunks(2)
        .enumerate()
        .map(|(index, up)| {
            let part = columns(&inner, 5 * rank, index, rank);
            let low = multiply(&up[0], &part, rank);
            let each = low.iter().enumerate();
            each.map(|(at, low)| x[at] + (before[at] - x[at]) * (up[1][at % d_model] + low))
                .collect()
        })
        .collect();
    let low: Vec<f64> = multiply(decay_down, &blends[0], d_model)
        .iter()
        .map(|value| value.tanh())
        .collect();
    let decay: Vec<f64> = multiply(decay_up, &low, decay_down.len() / d_model)
        .iter()
        .enumerate()
        .map(|(at, low)| low + decay_bias[at % d_model])
        .collect();
    let (k, v) = (
        multiply(key, &blends[1], d_model),
        multiply(value, &blends[2], d_model),
    );
    let given = Matrix {
        r: &multiply(receptance, &blends[3], d_model),
        k: &k,
        v: &v,
        decay: &decay,
        length,
        d_model,
        head_dim,
    };
    let o = reference::rwkv6(given, u);
    let normal = group_norm(&o, head_dim, ln, ln_bias, 64e-5);
    let gate = multiply(gate, &blends[4], d_model);
    let gated = zip(&gate, &normal, |g, o| g * sigmoid(g) * o);
    multiply(output, &gated, d_model)
}

fn check(rows: usize, length: usize, d_model: usize, head_dim: usize, layer: usize) {
    // Longer ones are the unit tests', which hold the recurrence by itself.
    let devices = &longhaul_emulator::devices();
    let mixer = mixer(&rwkv6(), d_model, &[("head_dim", &head_dim.to_string())]);
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, layer, 2), inputs[0]),
        reference: &|inputs, params| time_mix(&inputs[0], params, [d_model, length, head_dim]),
    }
    .check_with(if length < 34 { devices } else { &[] });
}

#[test]
fn lengths_on_both_sides_of_the_chunks() {
    for length in [1, 2, 15, 16, 17, 31, 32, 33, 65] {
        check(2, length, 5, 5, 0);
    }
}

#[test]
fn several_heads_of_every_width() {
    check(2, 20, 12, 4, 1);
    check(1, 18, 34, 17, 1);
    check(1, 17, 33, 33, 1);
    check(1, 5, 68, 68, 0);
}

#[test]
fn channel_mix_agrees() {
    for (rows, length, d_model) in [(2, 2, 5), (1, 33, 7)] {
        let mixer = mixer(&rwkv6(), d_model, &[("mlp_hidden", "11")]);
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
                channel_mix(|mix| lerp(x, &before, mix), params, d_model)
            },
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn head_sizes_follow_the_model_width_or_are_refused() {
    let refused = |d_model: usize, options: &[(&str, &str)]| {
        let architecture = rwkv6();
        let settings = Settings::new(&config(&architecture, options, d_model, 1));
        (architecture.mixer)(&settings).err()
    };
    assert!(refused(128, &[]).is_none());
    assert!(refused(96, &[]).is_none());
    for (d_model, options, expected) in [
        (67, &[][..], "head_dim=1 must be at least 4"),
        (32, &[("head_dim", "24")][..], "divide d_model, 32"),
    ] {
        let message = refused(d_model, options).expect("refused").message;
        assert!(message.as_str().contains(expected), "{message}");
    }
}
