//! Attention and rotary embedding against float64, over heads, groups, windows and biases.

mod heads;

use heads::{Sizes, reference, sizes, spec, with_case};
use longhaul_plugin_kit::ops::attention::PositionBias;
use longhaul_plugin_kit::ops::rotary_scaling::{Angles, Scaling, Turns};
use longhaul_plugin_kit::testing::Case;

fn check(sizes: Sizes, window: Option<usize>, bias: PositionBias) {
    with_case(&sizes, window, bias, |case| {
        case.check_with(&longhaul_emulator::devices());
    });
}

#[test]
fn lengths_on_both_sides_of_the_tiles() {
    for length in [1, 2, 63, 64, 65, 257, 330] {
        let sizes = sizes(2, length, 2, 2, 8);
        with_case(&sizes, None, PositionBias::None, |case| case.check());
    }
}

/// The tiles of a device are of 64 queries and keys, or of 16 queries.
#[test]
fn lengths_on_both_sides_of_a_devices_tiles() {
    for (rows, length) in [(3, 1), (2, 2), (1, 16), (1, 17), (2, 63), (1, 64), (1, 65)] {
        check(sizes(rows, length, 2, 2, 8), None, PositionBias::None);
    }
    check(sizes(1, 130, 1, 1, 5), None, PositionBias::None);
}

#[test]
fn groups_windows_and_biases() {
    check(sizes(1, 70, 4, 2, 7), None, PositionBias::Alibi);
    check(sizes(2, 66, 4, 1, 7), Some(1), PositionBias::None);
    check(sizes(1, 70, 3, 3, 7), Some(17), PositionBias::Alibi);
    check(sizes(1, 66, 4, 4, 7), None, PositionBias::HardAlibi);
    check(sizes(1, 66, 6, 2, 4), Some(2), PositionBias::HardAlibi);
    check(sizes(1, 130, 2, 1, 7), Some(64), PositionBias::None);
    check(sizes(1, 20, 2, 1, 3), Some(1000), PositionBias::None);
}

/// Biases of keys, by query head, beside groups, windows and slopes; columns of a wider tensor.
#[test]
fn keys_with_biases() {
    let check = |sizes: Sizes, window: Option<usize>, bias: PositionBias| {
        let spec = spec(&sizes, window, bias);
        let kv_cols = sizes.kv_heads * sizes.head_dim;
        Case {
            rows: sizes.rows,
            length: sizes.length,
            inputs: &[
                sizes.heads * sizes.head_dim,
                kv_cols,
                kv_cols,
                2 * sizes.heads,
            ],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, x| graph.attention_with_key_bias(x[0], x[1], x[2], x[3], spec),
            reference: &|inputs, _| reference(inputs, &sizes, window, bias),
        }
        .check_with(&longhaul_emulator::devices());
    };
    check(sizes(2, 17, 2, 2, 8), None, PositionBias::None);
    check(sizes(1, 67, 4, 2, 7), None, PositionBias::None);
    check(sizes(1, 130, 2, 1, 7), Some(64), PositionBias::Alibi);
    check(sizes(1, 300, 1, 1, 5), Some(260), PositionBias::None);
}

/// Each width has a kernel of its own, and none need be a multiple of anything.
#[test]
fn widths_of_a_head() {
    for head_dim in [1, 32, 33, 64, 100, 256] {
        check(sizes(1, 21, 2, 1, head_dim), None, PositionBias::Alibi);
        let one = sizes(1, 67, 1, 1, head_dim);
        with_case(&one, Some(65), PositionBias::None, |case| {
            case.check_with(&longhaul_emulator::devices()[..1]);
        });
    }
}

/// A feed of few tokens after many cuts the keys into parts.
#[test]
fn long_caches() {
    check(sizes(1, 262, 1, 1, 5), None, PositionBias::None);
    check(sizes(1, 300, 1, 1, 5), Some(260), PositionBias::None);
}

/// A head that no kernel takes is refused before anything is launched.
#[test]
fn a_head_that_is_too_wide_is_refused() {
    let wide = sizes(1, 3, 1, 1, 257);
    let panic = std::panic::catch_unwind(|| check(wide, None, PositionBias::None));
    let message = panic.expect_err("no kernel takes 257 values");
    let message = message.downcast_ref::<String>().expect("a message");
    assert!(message.contains("take up to 256"), "{message}");
}

/// One tensor as q, k and v: all three gradients go to the same columns.
#[test]
fn one_tensor_three_times() {
    let sizes = sizes(1, 67, 2, 2, 6);
    let spec = spec(&sizes, None, PositionBias::None);
    Case {
        rows: 1,
        length: 67,
        inputs: &[12],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| graph.attention(inputs[0], inputs[0], inputs[0], spec),
        reference: &|inputs, _| {
            let three = [inputs[0].clone(), inputs[0].clone(), inputs[0].clone()];
            reference(&three, &sizes, None, PositionBias::None)
        },
    }
    .check_with(&longhaul_emulator::devices());
}

/// q, k and v as columns of one tensor, as a joint projection gives them.
#[test]
fn columns_of_one_projection() {
    for kv_heads in [1, 2] {
        let sizes = sizes(2, 70, 2, kv_heads, 6);
        let spec = spec(&sizes, None, PositionBias::None);
        let kv_cols = 6 * kv_heads;
        let all = 12 + 2 * kv_cols;
        Case {
            rows: 2,
            length: 70,
            inputs: &[all],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, inputs| {
                let x = inputs[0];
                let (k, v) = (x.columns(12, kv_cols), x.columns(12 + kv_cols, kv_cols));
                graph.attention(x.columns(0, 12), k, v, spec)
            },
            reference: &|inputs, _| {
                let cut = |start: usize, cols: usize| -> Vec<f64> {
                    inputs[0]
                        .chunks(all)
                        .flat_map(|row| row[start..start + cols].to_vec())
                        .collect()
                };
                let parts = [cut(0, 12), cut(12, kv_cols), cut(12 + kv_cols, kv_cols)];
                reference(&parts, &sizes, None, PositionBias::None)
            },
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn rotary_turns_pairs_by_position() {
    for (heads, head_dim, dims) in [(1, 8, 8), (3, 10, 6), (2, 4, 2)] {
        Case {
            rows: 2,
            length: 67,
            inputs: &[heads * head_dim],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, inputs| graph.rotary(inputs[0], heads, dims, 10_000.0),
            reference: &|inputs, _| {
                let mut y = inputs[0].clone();
                for (index, head) in y.chunks_mut(head_dim).enumerate() {
                    let t = (index / heads % 67) as f64;
                    for n in 0..dims / 2 {
                        let angle = t / 10_000f64.powf(2.0 * n as f64 / dims as f64);
                        let (a, b) = (head[n], head[n + dims / 2]);
                        head[n] = a * angle.cos() - b * angle.sin();
                        head[n + dims / 2] = b * angle.cos() + a * angle.sin();
                    }
                }
                y
            },
        }
        .check_with(&longhaul_emulator::devices());
    }
}

/// Scaled frequencies as the papers write them: arXiv 2306.15595 eq. 4; arXiv 2309.00071 eq. 17 to 22 with the
/// rounded ends of its authors' code; Llama 3.1's by wavelengths.
#[test]
fn rotary_angles_are_scaled() {
    let (head_dim, base, factor, original) = (16, 500.0f64, 4.0, 24.0);
    let plain = |n: usize| base.powf(-2.0 * n as f64 / head_dim as f64);
    let turns = |fast: f64, slow: f64| Turns {
        original_length: original,
        fast,
        slow,
    };
    let yarn = |n: usize| {
        let end = |count: f64| {
            head_dim as f64 * (original / (count * std::f64::consts::TAU)).ln() / (2.0 * base.ln())
        };
        let (low, high) = (end(3.0).floor().max(0.0), end(0.1).ceil().min(15.0));
        let ramp = ((n as f64 - low) / (high - low)).clamp(0.0, 1.0);
        plain(n) / factor * ramp + plain(n) * (1.0 - ramp)
    };
    let llama3 = |n: usize| {
        let wavelength = std::f64::consts::TAU / plain(n);
        if wavelength < original / 2.0 {
            plain(n)
        } else if wavelength > original / 0.25 {
            plain(n) / factor
        } else {
            let smooth = (original / wavelength - 0.25) / (2.0 - 0.25);
            (1.0 - smooth) * plain(n) / factor + smooth * plain(n)
        }
    };
    let attention = 0.1 * 4f64.ln() + 1.0;
    let yarn_scaling = Scaling::Yarn {
        factor,
        turns: turns(3.0, 0.1),
        truncate: true,
        attention: Scaling::yarn_attention(factor),
    };
    let llama3_scaling = Scaling::Llama3 {
        factor,
        turns: turns(2.0, 0.25),
    };
    type Frequency<'a> = &'a dyn Fn(usize) -> f64;
    let linear: Frequency = &|n| plain(n) / factor;
    let cases: [(Scaling, Option<u32>, Frequency, f64); 4] = [
        (Scaling::Linear { factor }, None, linear, 1.0),
        (Scaling::Linear { factor }, Some(7), linear, 1.0),
        (yarn_scaling, None, &yarn, attention),
        (llama3_scaling, None, &llama3, 1.0),
    ];
    for (scaling, period, frequency, scale) in cases {
        let angles = Angles {
            base,
            scaling,
            period,
        };
        Case {
            rows: 2,
            length: 67,
            inputs: &[2 * head_dim],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, inputs| graph.rotary(inputs[0], 2, head_dim, angles),
            reference: &|inputs, _| {
                let mut y = inputs[0].clone();
                for (index, head) in y.chunks_mut(head_dim).enumerate() {
                    let t = (index / 2 % 67 % period.unwrap_or(67) as usize) as f64;
                    for n in 0..head_dim / 2 {
                        let angle = t * frequency(n);
                        let (a, b) = (scale * head[n], scale * head[n + head_dim / 2]);
                        head[n] = a * angle.cos() - b * angle.sin();
                        head[n + head_dim / 2] = b * angle.cos() + a * angle.sin();
                    }
                }
                y
            },
        }
        .check_with(&longhaul_emulator::devices());
    }
}
