//! The plain forms of `mma.cuh` against products in float64, and against rounding as it is defined.

use std::sync::Arc;

use longhaul_emulator::orders;
use longhaul_plugin_kit::cuda::device::{Device, Kernel, KernelParams, KernelSource, Launch, Ptr};
use longhaul_plugin_kit::cuda::precision::Precision;
use longhaul_plugin_kit::kernel_params;

static SOURCE: KernelSource = KernelSource {
    file: "mma.cu",
    text: include_str!("mma.cu"),
    params: &[Matrices::CPP, Values::CPP],
};

kernel_params! {
    struct Matrices {
        a: *const f32, b: *const f32, c: *const f32, // [16, K], [K, 8], [16, 8]
        d: *mut f32,                                 // [16, 8]
    }
}

kernel_params! {
    struct Values {
        x: *const f32,            // [32, 4]
        y: *mut f32, z: *mut f32, // [32, 4]
        there: u64,               // values of x that are to be copied, a multiple of 4
    }
}

fn run<P: KernelParams>(
    device: &Arc<dyn Device>,
    name: &'static str,
    params: &P,
) -> Result<(), String> {
    device.load(&[&SOURCE]).expect("a source that compiles");
    let kernel = Kernel {
        source: &SOURCE,
        name,
    };
    let launch = Launch::flat(1, 32).with_shared(512);
    let result = device.launch(kernel, launch, params.bytes());
    result.map_err(|error| error.message.to_string())
}

fn put(device: &Arc<dyn Device>, values: &[f32]) -> Ptr {
    let place = device.allocate(4 * values.len()).expect("memory");
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    device.upload(place, &bytes).expect("an upload");
    place
}

fn get(device: &Arc<dyn Device>, place: Ptr, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    device.download(place, &mut bytes).expect("a download");
    let word = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("four bytes"));
    bytes.chunks(4).map(word).collect()
}

/// A value with `bits` bits after its leading one, the nearest; ties as asked for.
fn rounded(value: f32, bits: u32, ties_to_even: bool) -> f32 {
    if !value.is_finite() {
        return value;
    }
    let unit = 2f64.powi(f64::from(value).abs().log2().floor().max(-126.0) as i32 - bits as i32);
    let units = f64::from(value) / unit;
    let whole = if ties_to_even {
        units.round_ties_even()
    } else {
        units.round()
    };
    (whole * unit) as f32
}

/// Odd values, all of different sizes and most of them between two of the rounded ones.
fn odd_values(count: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| {
        let i = (i + seed) as f32;
        (i * 0.917 + 0.31).sin() * 3f32.powi((i as i32 * 7) % 5 - 2)
    };
    (0..count).map(value).collect()
}

/// `c + a b` in float64 of factors that are rounded so, a `[16, inner]`.
fn product(a: &[f32], b: &[f32], c: &[f32], inner: usize, round: impl Fn(f32) -> f32) -> Vec<f64> {
    let value = |index: usize| {
        let (i, j) = (index / 8, index % 8);
        let term = |k: usize| f64::from(round(a[i * inner + k])) * f64::from(round(b[k * 8 + j]));
        f64::from(c[index]) + (0..inner).map(term).sum::<f64>()
    };
    (0..128).map(value).collect()
}

fn check_product(name: &'static str, inner: usize, round: impl Fn(f32) -> f32) {
    for device in orders(Precision::Float32) {
        let (a, b, c) = (
            odd_values(16 * inner, 3),
            odd_values(inner * 8, 77),
            odd_values(128, 500),
        );
        let d = put(&device, &[f32::NAN; 128]);
        let params = Matrices {
            a: put(&device, &a),
            b: put(&device, &b),
            c: put(&device, &c),
            d,
        };
        run(&device, name, &params).expect("a launch");
        let exact = product(&a, &b, &c, inner, &round);
        for (index, (got, exact)) in get(&device, d, 128).iter().zip(&exact).enumerate() {
            let error = (f64::from(*got) - exact).abs();
            assert!(
                error <= 2e-4,
                "{name}, value {index}: {got} against {exact}"
            );
        }
        // One factor that is not finite reaches its row or its column, and nothing else.
        for odd in [f32::NAN, f32::INFINITY] {
            let (mut a, mut b) = (a.clone(), b.clone());
            a[5 * inner + 3] = odd;
            b[(inner - 1) * 8 + 6] = odd;
            let d = put(&device, &[0.0; 128]);
            let params = Matrices {
                a: put(&device, &a),
                b: put(&device, &b),
                c: put(&device, &c),
                d,
            };
            run(&device, name, &params).expect("a launch");
            for (index, value) in get(&device, d, 128).iter().enumerate() {
                let reached = index / 8 == 5 || index % 8 == 6;
                assert_eq!(
                    !value.is_finite(),
                    reached,
                    "{name}, {odd} at value {index}"
                );
                assert!(
                    !odd.is_nan() || !reached || value.is_nan(),
                    "{name}: {value}"
                );
            }
        }
    }
}

#[test]
fn products_of_bfloat16_factors() {
    check_product("multiply_bf16", 16, |value| rounded(value, 7, true));
}

#[test]
fn products_of_factors_in_shared_memory() {
    check_product("multiply_shared", 16, |value| rounded(value, 7, true));
}

#[test]
fn products_of_tf32_factors() {
    check_product("multiply_tf32", 8, |value| rounded(value, 10, false));
}

#[test]
fn rounding_goes_to_the_nearest() {
    let mut x = odd_values(128, 9);
    let special = [
        f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0xffff_ffff),
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        // Halfway between two of bfloat16, with an even and an odd one below; then of TF32.
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(0x3f80_1000),
        f32::from_bits(0xbf80_3000),
    ];
    x[..special.len()].copy_from_slice(&special);
    for device in orders(Precision::Float32) {
        let (y, z) = (put(&device, &[0.0; 128]), put(&device, &[0.0; 128]));
        let params = Values {
            x: put(&device, &x),
            y,
            z,
            there: 0,
        };
        run(&device, "round_values", &params).expect("a launch");
        let (y, z) = (get(&device, y, 128), get(&device, z, 128));
        for (index, &value) in x.iter().enumerate() {
            for (got, bits, even) in [(y[index], 7, true), (z[index], 10, false)] {
                let exact = rounded(value, bits, even);
                assert!(
                    got.to_bits() == exact.to_bits() || got.is_nan() && exact.is_nan(),
                    "{value} with {bits} bits: {got} against {exact}"
                );
            }
        }
        assert_eq!((y[7], y[8]), (1.0, f32::from_bits(0x3f82_0000)));
        assert_eq!(z[9].to_bits(), 0x3f80_2000);
    }
}

#[test]
fn copies_arrive_when_they_are_waited_for() {
    let mut x = odd_values(128, 40);
    x[0] = -200.0;
    for device in orders(Precision::Float32) {
        let (y, z) = (put(&device, &[0.5; 128]), put(&device, &[0.5; 128]));
        let mut params = Values {
            x: put(&device, &x),
            y,
            z,
            there: 120,
        };
        run(&device, "copy_values", &params).expect("a launch");
        let (copied, powers) = (get(&device, y, 128), get(&device, z, 128));
        for (index, &value) in x.iter().enumerate() {
            let expected = if index < 120 { value } else { 0.0 };
            assert_eq!(copied[index ^ 4], expected, "value {index}");
            let exact = f64::from(value).exp2();
            let error = (f64::from(powers[index]) - exact).abs();
            assert!(
                error <= 1e-6 * exact + 1e-37,
                "2^{value}: {}",
                powers[index]
            );
        }
        run(&device, "copy_too_early", &params).expect("a launch");
        let early = get(&device, y, 128);
        assert!(early.iter().all(|value| value.is_nan()), "{early:?}");
        params.there = 0;
        let refused = run(&device, "copy_too_early", &params).expect_err("an odd address");
        assert!(refused.contains("no multiple of 16"), "{refused}");
    }
}
