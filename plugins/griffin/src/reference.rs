//! The recurrence as the paper writes it, in float64, one step and channel at a time.

/// Exponent c of the gate (arXiv 2402.19427, eq. 3).
const C: f64 = 8.0;

/// h `[B, T, W]` from x and the gates before their sigmoids, `[B, T, W]` each, and `lambda` `[W]`:
///
/// a = exp(-c softplus(lambda) sigmoid(r)), h = a h + sqrt(1 - a^2) (sigmoid(i) x), and h = sigmoid(i) x
/// at the first position (arXiv 2402.19427, eq. 1 to 4; the first position as in the official code).
pub fn recurrence(x: &[f64], r: &[f64], i: &[f64], lambda: &[f64], length: usize) -> Vec<f64> {
    let width = lambda.len();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut h = vec![0.0; x.len()];
    for at in 0..x.len() {
        let (t, channel) = (at / width % length, at % width);
        let a = (-C * lambda[channel].exp().ln_1p() * sigmoid(r[at])).exp();
        let input = sigmoid(i[at]) * x[at];
        h[at] = if t == 0 {
            input
        } else {
            a * h[at - width] + (1.0 - a * a).sqrt() * input
        };
    }
    h
}
