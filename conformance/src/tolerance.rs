//! The one table of tolerances. Errors are relative to the largest value of what is compared. Loosening
//! one is a change of its own, with its reason.

/// The same logits by another way (chunks, steps, other rows): float32 sums in another order.
pub const SAME_LOGITS: f64 = 2e-5;

/// Logits of a model's fast form against those of its reference form: float32 against float64 inside
/// the recurrences, float32 around them.
pub const REFERENCE: f64 = 5e-5;

/// A directional derivative against central differences of a float32 loss.
pub const DIFFERENCES: f64 = 5e-3;

/// Gradients of a batch against the sum of its parts': float32 sums in another order.
pub const GRADIENT_SUMS: f64 = 1e-4;

/// The loss of a batch by training and by feeding.
pub const SAME_LOSS: f64 = 1e-5;

/// A checkpoint's logits against those of other software in float64, over the largest logit.
pub const VERIFY_LOGITS: f64 = 2e-4;

/// A checkpoint's loss against that of other software in float64.
pub const VERIFY_LOSS: f64 = 1e-5;

/// A tensor's gradient against that of other software in float64: norm of the difference over norm of the
/// gradient, which counts as at least [`VERIFY_ZERO`] of the norm of all gradients.
pub const VERIFY_GRADIENT: f64 = 1e-3;

/// Smallest norm that a gradient counts as, over the norm of all gradients. Some gradients are zero by their
/// form (of queries and keys where a window holds one position), and what is computed for them in float32
/// is the rounding of terms as large as the others, about 1e-7 of the norm of all. So `VERIFY_GRADIENT`
/// times this is that rounding: less would measure noise, more would hide errors of small gradients.
pub const VERIFY_ZERO: f64 = 1e-4;

/// Compares two slices: non-finite values on either side first, then the largest error relative to the
/// largest expected value (at least 1e-3).
///
/// # Errors
/// What is wrong, and where.
pub fn compare(got: &[f32], expected: &[f32], tolerance: f64) -> Result<f64, (f64, String)> {
    if got.len() != expected.len() {
        return Err((
            f64::INFINITY,
            format!("{} values against {}", got.len(), expected.len()),
        ));
    }
    let odd = |values: &[f32]| values.iter().filter(|value| !value.is_finite()).count();
    let (odd_got, odd_expected) = (odd(got), odd(expected));
    if odd_got + odd_expected > 0 {
        let detail = format!(
            "{odd_got} and {odd_expected} of {} values not finite",
            got.len()
        );
        return Err((f64::INFINITY, detail));
    }
    let largest = expected
        .iter()
        .fold(1e-3f64, |top, value| top.max(f64::from(value.abs())));
    let (mut worst, mut place) = (0.0, 0);
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - f64::from(*expected)).abs() / largest;
        if error > worst {
            (worst, place) = (error, index);
        }
    }
    if worst <= tolerance {
        return Ok(worst);
    }
    let detail = format!(
        "value {place} is {} against {}",
        got[place], expected[place]
    );
    Err((worst, detail))
}
