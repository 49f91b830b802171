//! Whole mixers and channel mixes against float64 references.

mod rwkv4;
mod rwkv6;
mod rwkv7;

use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::config;
use longhaul_plugin_kit::testing_memory::idle_buffers;
use longhaul_plugin_kit::{Architecture, Mixer};

/// A mixer of two layers with some options replaced.
fn mixer(architecture: &Architecture, d_model: usize, options: &[(&str, &str)]) -> Box<dyn Mixer> {
    let settings = Settings::new(&config(architecture, options, d_model, 2));
    (architecture.mixer)(&settings).expect("good options")
}

/// `W x` for every row of x, W `[out, cols]`.
fn multiply(weight: &[f64], x: &[f64], cols: usize) -> Vec<f64> {
    let product = |x: &[f64]| -> Vec<f64> {
        let rows = weight.chunks(cols);
        rows.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
            .collect()
    };
    x.chunks(cols).flat_map(product).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Value by value.
fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}

/// Each position's predecessor; 0 before the first of a row.
fn shifted(x: &[f64], cols: usize, length: usize) -> Vec<f64> {
    (0..x.len())
        .map(|index| {
            if (index / cols).is_multiple_of(length) {
                0.0
            } else {
                x[index - cols]
            }
        })
        .collect()
}

/// `a + (b - a) m` with m `[cols]`.
fn lerp(a: &[f64], b: &[f64], m: &[f64]) -> Vec<f64> {
    let each = a.iter().zip(b).zip(m.iter().cycle());
    each.map(|((a, b), m)| a + (b - a) * m).collect()
}

/// The channel mix; `blend(m)` is its input blended by m.
fn channel_mix(
    blend: impl Fn(&[f64]) -> Vec<f64>,
    params: &[Vec<f64>],
    d_model: usize,
) -> Vec<f64> {
    let gated = params.len() == 5;
    let (key, value) = (
        &params[params.len() - 2 - usize::from(gated)],
        &params[params.len() - 1 - usize::from(gated)],
    );
    let hidden = key.len() / d_model;
    let inner: Vec<f64> = multiply(key, &blend(&params[0]), d_model)
        .iter()
        .map(|k| k.max(0.0).powi(2))
        .collect();
    let value = multiply(value, &inner, hidden);
    if !gated {
        return value;
    }
    let receptance = multiply(&params[4], &blend(&params[1]), d_model);
    zip(&receptance, &value, |r, v| sigmoid(r) * v)
}

/// LayerNorm within groups of `width` columns; weight and bias `[cols]`.
fn group_norm(x: &[f64], width: usize, weight: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
    let groups = x.chunks(width).enumerate();
    let normal = |(index, values): (usize, &[f64])| -> Vec<f64> {
        let count = width as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        let first = index * width % weight.len();
        let each = values.iter().enumerate();
        each.map(|(i, v)| {
            (v - mean) / (variance + epsilon).sqrt() * weight[first + i] + bias[first + i]
        })
        .collect()
    };
    groups.flat_map(normal).collect()
}

/// Memory that only the CPU's form needs is not there on a device. Shapes of a few and many tokens a sequence, and
/// of so many in all that their order takes several blocks.
#[test]
fn a_device_has_no_buffer_that_nothing_writes() {
    let device = &longhaul_emulator::devices()[0];
    for (architecture, options) in [
        (longhaul_rwkv::rwkv4(), &[][..]),
        (longhaul_rwkv::rwkv6(), &[][..]),
        (longhaul_rwkv::rwkv7(), &[][..]),
    ] {
        let config = config(&architecture, options, 8, 2);
        let idle = idle_buffers(
            device,
            &architecture,
            &config,
            &[(2, 1), (2, 130), (590, 7)],
        );
        assert!(idle.is_empty(), "{}: {idle:?}", architecture.name);
    }
}
