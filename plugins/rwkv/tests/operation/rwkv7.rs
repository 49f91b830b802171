//! RWKV-7.

use longhaul_plugin_kit::Block;
use longhaul_plugin_kit::testing::Case;
use longhaul_rwkv::reference::{self, Matrix};
use longhaul_rwkv::rwkv7;

use super::{channel_mix, group_norm, lerp, mixer, multiply, shifted, sigmoid, zip};

/// Sizes of a layer: D, T, K.
#[derive(Clone, Copy)]
struct Sizes {
    d_model: usize,
    length: usize,
    head_dim: usize,
}

/// `up f(down x)` plus a bias `[D]`.
fn low_rank(x: &[f64], params: &[&Vec<f64>], d_model: usize, f: fn(f64) -> f64) -> Vec<f64> {
    let inner: Vec<f64> = multiply(params[0], x, d_model).into_iter().map(f).collect();
    let mut out = multiply(params[1], &inner, params[0].len() / d_model);
    if let Some(bias) = params.get(2) {
        for (at, value) in out.iter_mut().enumerate() {
            *value += bias[at % d_model];
        }
    }
    out
}

/// The layer's output and its value before the residual; `first` is the value of the first layer.
fn time_mix(
    x: &[f64],
    params: &[Vec<f64>],
    first: Option<&[f64]>,
    sizes: Sizes,
) -> (Vec<f64>, Vec<f64>) {
    let Sizes {
        d_model,
        length,
        head_dim,
    } = sizes;
    let params: Vec<&Vec<f64>> = params.iter().collect();
    let before = shifted(x, d_model, length);
    let [for_r, for_w, for_k, for_v, for_a, for_g]: [Vec<f64>; 6] =
        std::array::from_fn(|index| lerp(x, &before, params[index]));
    let decay = low_rank(&for_w, &params[6..9], d_model, f64::tanh);
    let rate = low_rank(&for_a, &params[9..12], d_model, |value| value);
    let gate = low_rank(&for_g, &params[12..14], d_model, sigmoid);
    let r = multiply(params[14], &for_r, d_model);
    let k = multiply(params[15], &for_k, d_model);
    let own = multiply(params[16], &for_v, d_model);
    let mut rest = &params[17..];
    let mut v = own.clone();
    if let Some(first) = first {
        let share = low_rank(&for_v, &rest[..3], d_model, |value| value);
        rest = &rest[3..];
        v = zip(&v, &zip(first, &share, |f, s| f * sigmoid(s)), |v, f| v + f);
        v = zip(&v, &zip(&own, &share, |o, s| o * sigmoid(s)), |v, o| v - o);
    }
    let [k_k, k_a, ln, ln_bias, r_k, output] = rest else {
        panic!("six more parameters")
    };
    let a: Vec<f64> = rate.into_iter().map(sigmoid).collect();
    let each = k.iter().zip(k_k.iter().cycle());
    let mut kappa: Vec<f64> = each.map(|(k, k_k)| k * k_k).collect();
    for head in kappa.chunks_mut(head_dim) {
        let length = head.iter().map(|value| value * value).sum::<f64>().sqrt();
        head.iter_mut().for_each(|value| *value /= length);
    }
    let b = zip(&kappa, &a, |kappa, a| kappa * a);
    let each = zip(&k, &a, |_, a| a - 1.0)
        .into_iter()
        .zip(k_a.iter().cycle());
    let grown: Vec<f64> = each.map(|(less, k_a)| 1.0 + less * k_a).collect();
    let k = zip(&k, &grown, |k, grown| k * grown);
    let given = Matrix {
        r: &r,
        k: &k,
        v: &v,
        decay: &decay,
        length,
        d_model,
        head_dim,
    };
    let o = reference::rwkv7(given, &kappa, &b);
    let mut y = group_norm(&o, head_dim, ln, ln_bias, 64e-5);
    for first in (0..y.len()).step_by(head_dim) {
        let head = first..first + head_dim;
        let weight: f64 = head
            .clone()
            .map(|at| r[at] * k[at] * r_k[at % d_model])
            .sum();
        head.for_each(|at| y[at] += weight * v[at]);
    }
    let gated = zip(&gate, &y, |g, y| g * y);
    (multiply(output, &gated, d_model), own)
}

fn check(rows: usize, length: usize, d_model: usize, head_dim: usize) {
    // Longer ones are the unit tests', which hold the recurrence by itself.
    let devices = &longhaul_emulator::devices();
    let mixer = mixer(&rwkv7(), d_model, &[("head_dim", &head_dim.to_string())]);
    let sizes = Sizes {
        d_model,
        length,
        head_dim,
    };
    // The first layer by itself, then the second with the first's value.
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, 0, 2), inputs[0]),
        reference: &|inputs, params| time_mix(&inputs[0], params, None, sizes).0,
    }
    .check_with(if length < 34 { devices } else { &[] });
    Case {
        rows,
        length,
        inputs: &[d_model, d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            graph.scope("0", |graph| {
                mixer.forward(&mut Block::new(graph, 0, 2), inputs[0])
            });
            graph.scope("1", |graph| {
                mixer.forward(&mut Block::new(graph, 1, 2), inputs[1])
            })
        },
        reference: &|inputs, params| {
            let (first, second) = params.split_at(23);
            let value = time_mix(&inputs[0], first, None, sizes).1;
            time_mix(&inputs[1], second, Some(&value), sizes).0
        },
    }
    .check_with(if length < 34 { devices } else { &[] });
}

#[test]
fn lengths_on_both_sides_of_the_chunks() {
    for length in [1, 2, 15, 16, 17, 31, 32, 33, 65] {
        check(2, length, 5, 5);
    }
}

#[test]
fn several_heads_of_every_width() {
    check(2, 20, 12, 4);
    check(1, 18, 34, 17);
    check(1, 17, 33, 33);
    check(1, 5, 68, 68);
}

#[test]
fn channel_mix_agrees() {
    for (rows, length, d_model) in [(2, 2, 5), (1, 33, 7)] {
        let mixer = mixer(&rwkv7(), d_model, &[("mlp_hidden", "11")]);
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
