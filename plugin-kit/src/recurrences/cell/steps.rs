//! What a token does to the cells of one sequence, by kind, forward and backward. A vector of several values a cell
//! holds them one after the other, `[values, H]`.

use super::Kind;
use crate::simd;
use crate::simd::{exp, sigmoid, softplus, tanh};

/// What a step reads and leaves.
pub(super) struct Step<'a> {
    /// `[G, H]`: the input's share of the gates.
    pub given: &'a [f32],
    /// `[G, H]`: U h + u.
    pub sums: &'a [f32],
    /// Kept for the gradients, see [`Kind`].
    pub kept: &'a mut [f32],
    /// `[C, H]`: what the token before left, then what this one leaves; h first.
    pub carried: &'a mut [f32],
}

/// What a step's backward pass reads and leaves.
pub(super) struct StepBack<'a> {
    /// What the step kept. Of the GRU the last part becomes the gradient of the input's share of n.
    pub kept: &'a mut [f32],
    /// `[C, H]` before the step.
    pub before: [&'a [f32]; 2],
    /// `[C - 1, H]` after the step: what is carried beside h.
    pub after: &'a [f32],
    /// `[C, H]`: the gradient of what the step left; becomes that of what it found, without h's through U.
    pub carried: &'a mut [f32],
    /// `[G, H]`: becomes the gradient of U h + u.
    pub grad: &'a mut [f32],
}

/// A vector of `N` values a cell by value; every part is `hidden` long, so that loops over them have no checks.
#[inline(always)]
fn parts<const N: usize>(values: &[f32], hidden: usize) -> [&[f32]; N] {
    std::array::from_fn(|part| &values[part * hidden..][..hidden])
}

simd! {
    pub(super) fn forward(kind: Kind, step: Step<'_>) {
        match kind {
            Kind::Lstm => lstm_forward(step.given, step.sums, step.kept, step.carried),
            Kind::Gru => gru_forward(step.given, step.sums, step.kept, step.carried),
            Kind::Slstm => slstm_forward(step.given, step.sums, step.kept, step.carried),
        }
    }
}

simd! {
    pub(super) fn backward(kind: Kind, step: StepBack<'_>) {
        match kind {
            Kind::Lstm => {
                lstm_backward(step.kept, step.before[1], step.after, step.carried, step.grad);
            }
            Kind::Gru => gru_backward(step.kept, step.before[0], step.carried, step.grad),
            Kind::Slstm => {
                slstm_backward(step.kept, step.before[1], step.after, step.carried, step.grad);
            }
        }
    }
}

// Arguments and not fields below: only so does the compiler know that they do not overlap.

#[inline(always)]
fn lstm_forward(given: &[f32], sums: &[f32], kept: &mut [f32], carried: &mut [f32]) {
    let hidden = carried.len() / 2;
    let (h, c) = carried.split_at_mut(hidden);
    let [given_i, given_f, given_g, given_o] = parts(given, hidden);
    let [sum_i, sum_f, sum_g, sum_o] = parts(sums, hidden);
    let (i, rest) = kept.split_at_mut(hidden);
    let (f, rest) = rest.split_at_mut(hidden);
    let (g, o) = rest.split_at_mut(hidden);
    let (c, o) = (&mut c[..hidden], &mut o[..hidden]);
    for n in 0..hidden {
        i[n] = sigmoid(given_i[n] + sum_i[n]);
        f[n] = sigmoid(given_f[n] + sum_f[n]);
        g[n] = tanh(given_g[n] + sum_g[n]);
        o[n] = sigmoid(given_o[n] + sum_o[n]);
        c[n] = f[n].mul_add(c[n], i[n] * g[n]);
        h[n] = o[n] * tanh(c[n]);
    }
}

#[inline(always)]
fn lstm_backward(kept: &[f32], c_before: &[f32], c: &[f32], carried: &mut [f32], grad: &mut [f32]) {
    let hidden = c.len();
    let c_before = &c_before[..hidden];
    let [i, f, g, o] = parts(kept, hidden);
    let (dh, dc) = carried.split_at_mut(hidden);
    let dc = &mut dc[..hidden];
    let (grad_i, rest) = grad.split_at_mut(hidden);
    let (grad_f, rest) = rest.split_at_mut(hidden);
    let (grad_g, grad_o) = rest.split_at_mut(hidden);
    let grad_o = &mut grad_o[..hidden];
    for n in 0..hidden {
        let top = tanh(c[n]);
        let slope = (dh[n] * o[n]).mul_add(1.0 - top * top, dc[n]);
        grad_o[n] = dh[n] * top * o[n] * (1.0 - o[n]);
        grad_i[n] = slope * g[n] * i[n] * (1.0 - i[n]);
        grad_f[n] = slope * c_before[n] * f[n] * (1.0 - f[n]);
        grad_g[n] = slope * i[n] * (1.0 - g[n] * g[n]);
        dc[n] = slope * f[n];
        dh[n] = 0.0;
    }
}

#[inline(always)]
fn gru_forward(given: &[f32], sums: &[f32], kept: &mut [f32], h: &mut [f32]) {
    let hidden = h.len();
    let [given_r, given_z, given_n] = parts(given, hidden);
    let [sum_r, sum_z, sum_n] = parts(sums, hidden);
    let (r, rest) = kept.split_at_mut(hidden);
    let (z, rest) = rest.split_at_mut(hidden);
    let (new, share) = rest.split_at_mut(hidden);
    let share = &mut share[..hidden];
    for n in 0..hidden {
        r[n] = sigmoid(given_r[n] + sum_r[n]);
        z[n] = sigmoid(given_z[n] + sum_z[n]);
        share[n] = sum_n[n];
        new[n] = tanh(r[n].mul_add(sum_n[n], given_n[n]));
        h[n] = z[n].mul_add(h[n] - new[n], new[n]);
    }
}

#[inline(always)]
fn gru_backward(kept: &mut [f32], before: &[f32], dh: &mut [f32], grad: &mut [f32]) {
    let hidden = dh.len();
    let before = &before[..hidden];
    let (gates, share) = kept.split_at_mut(3 * hidden);
    let [r, z, new] = parts(gates, hidden);
    let share = &mut share[..hidden];
    let (grad_r, rest) = grad.split_at_mut(hidden);
    let (grad_z, grad_n) = rest.split_at_mut(hidden);
    let grad_n = &mut grad_n[..hidden];
    for n in 0..hidden {
        let pre = dh[n] * (1.0 - z[n]) * (1.0 - new[n] * new[n]);
        grad_r[n] = pre * share[n] * r[n] * (1.0 - r[n]);
        grad_z[n] = dh[n] * (before[n] - new[n]) * z[n] * (1.0 - z[n]);
        grad_n[n] = pre * r[n];
        share[n] = pre;
        dh[n] *= z[n];
    }
}

/// Mutable vectors, see [`parts`].
#[inline(always)]
fn parts_mut<const N: usize>(values: &mut [f32], hidden: usize) -> [&mut [f32]; N] {
    let mut parts = values.chunks_exact_mut(hidden);
    std::array::from_fn(|_| parts.next().expect("as many parts"))
}

/// What is left of c and n, without a state before.
#[inline(always)]
fn kept_share(f: f32, m_before: f32, m: f32, sum_before: f32) -> f32 {
    let share = exp(m_before - softplus(-f) - m);
    if sum_before == 0.0 { 0.0 } else { share }
}

#[inline(always)]
fn slstm_forward(given: &[f32], sums: &[f32], kept: &mut [f32], carried: &mut [f32]) {
    let hidden = carried.len() / 4;
    let [h, c, sum, m] = parts_mut(carried, hidden);
    let [given_i, given_f, given_z, given_o] = parts(given, hidden);
    let [sum_i, sum_f, sum_z, sum_o] = parts(sums, hidden);
    let [take, f, z, o] = parts_mut(kept, hidden);
    for n in 0..hidden {
        let i = given_i[n] + sum_i[n];
        f[n] = given_f[n] + sum_f[n];
        z[n] = tanh(given_z[n] + sum_z[n]);
        o[n] = sigmoid(given_o[n] + sum_o[n]);
        let decayed = m[n] - softplus(-f[n]);
        let new = if sum[n] == 0.0 { i } else { decayed.max(i) };
        let keep = kept_share(f[n], m[n], new, sum[n]);
        take[n] = exp(i - new);
        c[n] = keep.mul_add(c[n], take[n] * z[n]);
        sum[n] = keep.mul_add(sum[n], take[n]);
        m[n] = new;
        h[n] = o[n] * c[n] / sum[n];
    }
}

/// m cancels from h: its gradient is 0.
#[inline(always)]
fn slstm_backward(
    kept: &[f32],
    before: &[f32],
    after: &[f32],
    carried: &mut [f32],
    grad: &mut [f32],
) {
    let hidden = after.len() / 3;
    let [c_before, sum_before, m_before] = parts(before, hidden);
    let [c, sum, m] = parts(after, hidden);
    let [take, f, z, o] = parts(kept, hidden);
    let [dh, dc, dsum, dm] = parts_mut(carried, hidden);
    let [grad_i, grad_f, grad_z, grad_o] = parts_mut(grad, hidden);
    for n in 0..hidden {
        let inverse = 1.0 / sum[n];
        let mean = c[n] * inverse;
        grad_o[n] = dh[n] * mean * o[n] * (1.0 - o[n]);
        let slope = dh[n] * o[n] * inverse;
        let by_c = dc[n] + slope;
        let by_sum = dsum[n] - slope * mean;
        grad_z[n] = by_c * take[n] * (1.0 - z[n] * z[n]);
        grad_i[n] = by_c.mul_add(z[n], by_sum) * take[n];
        let keep = kept_share(f[n], m_before[n], m[n], sum_before[n]);
        let share = by_c.mul_add(c_before[n], by_sum * sum_before[n]);
        grad_f[n] = share * keep * sigmoid(-f[n]);
        dc[n] = by_c * keep;
        dsum[n] = by_sum * keep;
        dm[n] = 0.0;
        dh[n] = 0.0;
    }
}
