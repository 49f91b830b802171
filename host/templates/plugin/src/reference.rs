//! The recurrence as a paper would write it, in float64, one step and channel at a time. It shares
//! nothing with the fast form.

/// h `[B, T, W]` from x and the gate before its sigmoid, `[B, T, W]` each:
///
/// a = sigmoid(gate), h = a h + (1 - a) x, from h = 0.
pub fn recurrence(x: &[f64], gate: &[f64], length: usize, width: usize) -> Vec<f64> {
    let mut h = vec![0.0; x.len()];
    for at in 0..x.len() {
        let a = 1.0 / (1.0 + (-gate[at]).exp());
        let first = (at / width).is_multiple_of(length);
        let before = if first { 0.0 } else { h[at - width] };
        h[at] = a * before + (1.0 - a) * x[at];
    }
    h
}
