//! The scan as papers write it, in float64, one step and one channel at a time.

use super::Kind;

/// h `[B, T, W]` from a and b of the same shape: h = a h + b from a state 0, over sequences of `length` tokens.
/// Of complex numbers `width` counts both halves of a row, real parts before imaginary ones.
pub fn naive(kind: Kind, a: &[f64], b: &[f64], width: usize, length: usize) -> Vec<f64> {
    let mut h = vec![0.0; b.len()];
    let half = width / 2;
    for (token, row) in (0..b.len() / width).map(|token| (token, token * width)) {
        let before = |h: &[f64], channel: usize| match token % length {
            0 => 0.0,
            _ => h[row - width + channel],
        };
        for channel in 0..width {
            let at = row + channel;
            let carried = match kind {
                Kind::Log => a[at].exp() * before(&h, channel),
                Kind::Signed => a[at] * before(&h, channel),
                Kind::Complex if channel < half => {
                    a[at] * before(&h, channel) - a[at + half] * before(&h, channel + half)
                }
                Kind::Complex => {
                    a[at - half] * before(&h, channel) + a[at] * before(&h, channel - half)
                }
            };
            h[at] = carried + b[at];
        }
    }
    h
}
