//! Intervals and means, in float64. Pure functions.

/// Standard normal quantile of a two-sided 95 % interval.
pub const Z95: f64 = 1.959_963_984_540_054;

/// Wilson's score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22).
///
/// # Panics
/// If there are no samples, or more correct than samples.
pub fn wilson(correct: u64, samples: u64, z: f64) -> (f64, f64) {
    assert!(samples > 0 && correct <= samples, "{correct} of {samples}");
    let (n, p) = (samples as f64, correct as f64 / samples as f64);
    let centre = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // At the ends the exact values are 0 and 1; rounding must not move them.
    let low = if correct == 0 {
        0.0
    } else {
        (centre - spread) / scale
    };
    let high = if correct == samples {
        1.0
    } else {
        (centre + spread) / scale
    };
    (low, high)
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation; `None` of fewer than two.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() as f64 - 1.0)).sqrt())
}

/// Two-sided 95 % quantile of Student's t, by degrees of freedom.
pub fn t95(degrees: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004,
        2.262_157, 2.228_139, 2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_45, 2.119_905,
        2.109_816, 2.100_922, 2.093_024, 2.085_963, 2.079_614, 2.073_873, 2.068_658, 2.063_899,
        2.059_539, 2.055_529, 2.051_831, 2.048_407, 2.045_23, 2.042_272,
    ];
    match degrees {
        0 => f64::INFINITY,
        1..=30 => TABLE[degrees - 1],
        // Cornish-Fisher's first terms, exact to four digits here.
        _ => {
            let (z, n) = (Z95, degrees as f64);
            z + (z.powi(3) + z) / (4.0 * n)
                + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        }
    }
}

/// Mean and its 95 % t interval over independent values (seeds), clamped to 0..1.
pub fn t_interval(values: &[f64]) -> Option<(f64, f64)> {
    let (mean, deviation) = (mean(values)?, deviation(values)?);
    let half = t95(values.len() - 1) * deviation / (values.len() as f64).sqrt();
    Some(((mean - half).max(0.0), (mean + half).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newcombe 1998 (Statistics in Medicine 17), table I, method 3.
    #[test]
    fn wilson_agrees_with_newcombe() {
        for (correct, samples, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (got_low, got_high) = wilson(correct, samples, Z95);
            assert!(
                (got_low - low).abs() < 5e-5,
                "{correct}/{samples}: {got_low}"
            );
            assert!(
                (got_high - high).abs() < 5e-5,
                "{correct}/{samples}: {got_high}"
            );
        }
        assert_eq!(wilson(10, 10, Z95).1, 1.0);
        let (low, high) = wilson(125, 250, Z95);
        assert!(
            ((high - low) / 2.0 - 0.062).abs() < 1e-3,
            "half-width of 250 at one half"
        );
    }

    #[test]
    fn t_quantiles_join_the_table_smoothly() {
        assert!((t95(40) - 2.021_075).abs() < 1e-3);
        assert!((t95(120) - 1.979_93).abs() < 1e-3);
        assert!(t95(31) < t95(30) && t95(31) > 2.03);
        let (low, high) = t_interval(&[0.5, 0.6, 0.7]).expect("three values");
        assert!((low - (0.6 - 4.302_653 * 0.1 / 3f64.sqrt())).abs() < 1e-9 && high < 0.86);
        assert!(t_interval(&[0.5]).is_none());
    }
}
