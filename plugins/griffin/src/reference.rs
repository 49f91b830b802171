//! The recurrence as the paper writes it, one step and channel at a time.

use longhaul_plugin_kit::Real;

/// Exponent c of the gate (arXiv 2402.19427, eq. 3).
const C: f64 = 8.0;

/// h `[T, W]` of one sequence from x and the gates before their sigmoids, `[T, W]` each, `lambda` `[W]` and the state
/// before `[W]`, in whose place the last is left:
///
/// a = exp(-c softplus(lambda) sigmoid(r)), h = a h + sqrt(1 - a^2) (sigmoid(i) x), and h = a h + sigmoid(i) x
/// at position 0 (arXiv 2402.19427, eq. 1 to 4; the first position as in the official code).
pub fn recurrence<N: Real>(
    [x, r, i]: [&[N]; 3],
    lambda: &[N],
    position: usize,
    state: &mut [N],
) -> Vec<N> {
    let width = lambda.len();
    let mut h = Vec::with_capacity(x.len());
    for at in 0..x.len() {
        let channel = at % width;
        let log_a = lambda[channel].softplus() * r[at].sigmoid() * -C;
        let a = log_a.exp();
        let input = i[at].sigmoid() * x[at];
        let scaled = match position + at / width {
            0 => input,
            // 1 - a^2 without loss where a is almost 1.
            _ => (-(log_a * 2.0).exp_m1()).sqrt() * input,
        };
        state[channel] = a * state[channel] + scaled;
        h.push(state[channel]);
    }
    h
}

/// [`recurrence`] over sequences of `length` tokens from position 0, `[B, T, W]`.
#[doc(hidden)] // for the operation's own test
pub fn sequences(inputs: [&[f64]; 3], lambda: &[f64], length: usize) -> Vec<f64> {
    let size = length * lambda.len();
    let rows = 0..inputs[0].len() / size;
    let sequence = |row| {
        let inputs = inputs.map(|input| &input[row * size..][..size]);
        recurrence(inputs, lambda, 0, &mut vec![0.0; lambda.len()])
    };
    rows.flat_map(sequence).collect()
}
