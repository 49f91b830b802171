//! Loops for the vectoriser: each function of [`simd!`](crate::simd!) is compiled three times, for
//! AVX-512, for AVX2 with FMA and for the target's baseline, and chosen at run time. The elementary
//! functions here are branch-free, so that such loops vectorise; they hold no state.

use std::sync::OnceLock;

/// What the processor offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The target's baseline.
    Baseline,
    /// AVX2 and FMA (x86-64-v3).
    V3,
    /// AVX-512 F, BW, DQ, VL (x86-64-v4).
    V4,
}

/// The level in use: the processor's, or lower where `LONGHAUL_SIMD` is `v3` or `baseline`.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let limit = match std::env::var(longhaul_plugin_api::variables::SIMD).as_deref() {
            Ok("baseline") => Level::Baseline,
            Ok("v3") => Level::V3,
            _ => Level::V4,
        };
        detect().min(limit)
    })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let v3 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let v4 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (v3, v4) {
        (true, true) => Level::V4,
        (true, false) => Level::V3,
        _ => Level::Baseline,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Defines a function whose body is compiled for each [`Level`] and dispatched at run time.
///
/// Everything the body calls must be `#[inline(always)]` to be vectorised with it. Generic
/// functions are not supported; constants are.
#[macro_export]
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
            #[allow(clippy::too_many_arguments)]
            fn v4($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
            #[allow(clippy::too_many_arguments)]
            fn v3($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

            match $crate::simd::level() {
                // SAFETY: the level is what the processor was detected to offer.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::V4 => unsafe { v4($($arg),*) },
                // SAFETY: the level is what the processor was detected to offer.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Level::V3 => unsafe { v3($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}

/// e^x to about 1 unit in the last place; 0 below -87.3 and infinite above 88.37.
///
/// Range reduction by ln 2 in two parts and the degree-5 minimax polynomial of the Cephes library.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.7);
    let rounded = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let power = rounded - MAGIC;
    let r = power.mul_add(-0.693_359_4, clamped);
    let r = power.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_1e-4_f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let y = p.mul_add(r * r, r) + 1.0;
    let scale = f32::from_bits(((rounded.to_bits() as i32) << 23).wrapping_add(0x3f80_0000) as u32);
    if x < -87.3 { 0.0 } else { y * scale }
}

/// Natural logarithm of a positive normal number, to about 1 unit in the last place (Cephes).
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let bits = x.to_bits() as i32;
    let shifted = bits.wrapping_sub(0x3f35_04f3); // sqrt(1/2)
    let exponent = (shifted >> 23) as f32;
    let mantissa = f32::from_bits(((shifted & 0x007f_ffff) + 0x3f35_04f3) as u32) - 1.0;
    let z = mantissa * mantissa;
    let p = 7.037_683_6e-2_f32
        .mul_add(mantissa, -1.151_461e-1)
        .mul_add(mantissa, 1.167_699_9e-1)
        .mul_add(mantissa, -1.242_014_1e-1)
        .mul_add(mantissa, 1.424_932_3e-1)
        .mul_add(mantissa, -1.666_805_8e-1)
        .mul_add(mantissa, 2.000_071_5e-1)
        .mul_add(mantissa, -2.499_999_4e-1)
        .mul_add(mantissa, 3.333_333e-1);
    let y = (p * mantissa).mul_add(z, exponent * -2.121_944_4e-4);
    exponent.mul_add(0.693_359_4, mantissa + z.mul_add(-0.5, y))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x sigmoid(x), also called swish.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // Near 0 the quotient loses digits; the odd polynomial is exact there to float32.
    let magnitude = x.abs();
    let e = exp(-2.0 * magnitude);
    let large = (1.0 - e) / (1.0 + e);
    let z = x * x;
    let small = (-5.704_988_7e-3_f32)
        .mul_add(z, 2.063_908_6e-2)
        .mul_add(z, -5.373_971_6e-2)
        .mul_add(z, 1.333_144_2e-1)
        .mul_add(z, -3.333_328e-1);
    let small = (small * z).mul_add(x, x);
    if magnitude < 0.625 {
        small
    } else {
        large.copysign(x)
    }
}

/// Sine, to about 1e-7 for angles up to some thousands.
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    let turns = (x * std::f32::consts::FRAC_1_PI + MAGIC) - MAGIC;
    sin_between(x, turns, turns)
}

/// Cosine, as exact as [`sin`].
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    // The sine of x + pi / 2, reduced by odd multiples of pi / 2 so that nothing is added to x.
    let turns = (x * std::f32::consts::FRAC_1_PI + 0.5 + MAGIC) - MAGIC;
    sin_between(x, turns - 0.5, turns)
}

/// Adding it rounds to an integer: 1.5 * 2^23.
const MAGIC: f32 = 12_582_912.0;

/// The sine of `x - by pi`, negated where `turns`, an integer, is odd.
#[inline(always)]
fn sin_between(x: f32, by: f32, turns: f32) -> f32 {
    // Pi in three parts, of which products with small integers are exact.
    let r = by.mul_add(-3.140_625, x);
    let r = by.mul_add(-9.675_026e-4, r);
    let r = by.mul_add(-1.509_958e-7, r);
    let z = r * r;
    // Taylor's polynomial: what it leaves out is below 1e-9 up to pi / 2.
    let p = 1.605_904_4e-10_f32
        .mul_add(z, -2.505_210_8e-8)
        .mul_add(z, 2.755_731_9e-6)
        .mul_add(z, -1.984_127e-4)
        .mul_add(z, 8.333_333e-3)
        .mul_add(z, -1.666_666_7e-1);
    let y = (p * z).mul_add(r, r);
    let odd = turns - 2.0 * ((turns * 0.5 + MAGIC) - MAGIC);
    // Rounding to even leaves -1, 0 or 1.
    if odd == 0.0 { y } else { -y }
}

/// ln(1 + e^x) without overflow.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    let e = exp(-x.abs());
    // What rounding 1 + e lost comes back as a first-order correction.
    let rounded = 1.0 + e;
    let log = ln(rounded) + (e - (rounded - 1.0)) / rounded;
    x.max(0.0) + log
}

/// Partial sums of a reduction.
pub const LANES: usize = 16;

/// Sum of a function over pairs, in 16 interleaved partial sums: a fixed order for every level.
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[lane] += f(a, b);
    }
    fold(sums)
}

/// Sum of the lanes, pair by pair.
#[inline(always)]
pub fn fold(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Sum of products.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum2(a, b, |a, b| a * b)
}

/// Sum.
#[inline(always)]
pub fn sum(a: &[f32]) -> f32 {
    sum2(a, a, |a, _| a)
}

/// Largest value; -inf for none.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            best[lane] = if chunk[lane] > best[lane] {
                chunk[lane]
            } else {
                best[lane]
            };
        }
    }
    let tail = rest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    best.into_iter().fold(tail, f32::max)
}

simd! {
    /// `to += from`.
    pub fn add_into(to: &mut [f32], from: &[f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }
}

simd! {
    /// `x = -e^x`, value by value: rates of decay from their logarithms.
    pub fn negative_exp(values: &mut [f32]) {
        for value in values {
            *value = -exp(*value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, low: f64, high: f64) -> f64 {
        let count = 200_000;
        (0..=count)
            .map(|index| {
                let x = (low + (high - low) * f64::from(index) / f64::from(count)) as f32;
                let (got, want) = (f64::from(f(x)), exact(f64::from(x)));
                (got - want).abs() / want.abs().max(1e-30)
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn elementary_functions_are_close_to_exact() {
        assert!(worst(exp, f64::exp, -87.0, 88.0) < 2e-7);
        assert!(worst(ln, f64::ln, 1.1, 1e6) < 3e-7);
        assert!(worst(tanh, f64::tanh, 1e-6, 20.0) < 3e-7);
        assert!(worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 40.0) < 5e-7);
        assert!(worst(softplus, |x| x.exp().ln_1p(), -60.0, 60.0) < 1e-6);
        assert_eq!(exp(-200.0), 0.0);
        for index in -200_000..200_000i32 {
            let x = index as f32 * 5e-3;
            let exact = f64::from(x).sin_cos();
            assert!((f64::from(sin(x)) - exact.0).abs() < 2e-7, "sin {x}");
            assert!((f64::from(cos(x)) - exact.1).abs() < 2e-7, "cos {x}");
        }
        assert!(exp(88.37).is_finite() && exp(88.38).is_infinite() && exp(200.0).is_infinite());
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_do_not_depend_on_the_length_being_a_multiple() {
        for length in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..length).map(|index| index as f32 - 3.0).collect();
            let exact: f32 = values.iter().sum();
            assert_eq!(sum(&values), exact);
            assert_eq!(
                max(&values),
                values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
            );
        }
    }
}
