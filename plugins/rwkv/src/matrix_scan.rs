//! The matrix-valued recurrences of RWKV-6 and RWKV-7 for one head of one row, a step after another.
//! The state S is `[V, K]` as in arXiv 2503.14456; its rows need each other only where gradients are
//! summed, so that each goes through the vector registers by itself and the backward pass
//! takes a few rows at a time through a chunk.

use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{exp, sigmoid};

use crate::part::Part;

/// Tokens between kept states.
pub(crate) const CHUNK: usize = 16;

/// Widest head.
pub(crate) const WIDEST: usize = 128;

/// Rows of the state that go through a chunk together.
const ROWS: usize = 4;

/// e^-1/2: the fastest decay of RWKV-7 is exp(-e^-1/2).
const SLOWEST: f32 = 0.606_530_66;

/// K as stored: the vectors' width or a power of two times it.
pub(crate) fn padded(head_dim: usize) -> usize {
    head_dim.next_power_of_two().max(16)
}

/// What a head reads, from a token on. The two rules differ in `removal`:
///
/// * without, RWKV-6: `o = S r`, then `S = S diag(w) + v k`, w = exp(-exp(decay));
/// * with, RWKV-7: `S = S (diag(w) - kappa b) + v k`, then `o = S r`,
///   w = exp(-e^-1/2 sigmoid(decay)).
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// `[T, K]`.
    pub r: Part<'a>,
    /// `[T, K]`.
    pub k: Part<'a>,
    /// `[T, V]`, V = K.
    pub v: Part<'a>,
    /// `[T, K]`.
    pub decay: Part<'a>,
    /// kappa and b, `[T, K]` each.
    pub removal: Option<[Part<'a>; 2]>,
    /// Tokens.
    pub length: usize,
}

/// A token's vectors over K.
#[derive(Clone, Copy)]
struct Token<const W: usize> {
    r: [f32; W],
    k: [f32; W],
    w: [f32; W],
    kappa: [f32; W],
    b: [f32; W],
}

impl<const W: usize> Token<W> {
    const ZERO: Self = Self {
        r: [0.0; W],
        k: [0.0; W],
        w: [0.0; W],
        kappa: [0.0; W],
        b: [0.0; W],
    };

    #[inline(always)]
    fn load(given: Given<'_>, t: usize) -> Self {
        let mut token = Self {
            r: given.r.load(t),
            k: given.k.load(t),
            w: given.decay.load(t),
            ..Self::ZERO
        };
        if let Some([kappa, b]) = given.removal {
            token.kappa = kappa.load(t);
            token.b = b.load(t);
            for w in &mut token.w {
                *w = exp(-SLOWEST * sigmoid(*w));
            }
        } else {
            for w in &mut token.w {
                *w = exp(-exp(*w));
            }
        }
        token
    }

    /// A step of a row of the state; the result is `-row kappa`, 0 without removal.
    #[inline(always)]
    fn step<const DELTA: bool>(&self, row: &mut [f32; W], v: f32) -> f32 {
        let removed = if DELTA { -dot(row, &self.kappa) } else { 0.0 };
        for i in 0..W {
            row[i] = row[i].mul_add(self.w[i], v * self.k[i]);
            if DELTA {
                row[i] = removed.mul_add(self.b[i], row[i]);
            }
        }
        removed
    }
}

#[inline(always)]
fn dot<const W: usize>(a: &[f32; W], b: &[f32; W]) -> f32 {
    let mut parts = [0.0f32; 16];
    for first in (0..W).step_by(16) {
        for lane in 0..16 {
            parts[lane] = a[first + lane].mul_add(b[first + lane], parts[lane]);
        }
    }
    longhaul_plugin_kit::simd::sum(&parts)
}

#[inline(always)]
fn row_mut<const W: usize>(values: &mut [f32], row: usize) -> &mut [f32; W] {
    (&mut values[row * W..][..W]).try_into().expect("a row")
}

/// Calls a function with the padded width and the rule as constants.
macro_rules! for_width {
    ($given:expr, $call:ident ( $($arg:expr),* )) => {
        match (padded($given.v.count), $given.removal.is_some()) {
            (16, false) => $call::<16, false>($($arg),*),
            (16, true) => $call::<16, true>($($arg),*),
            (32, false) => $call::<32, false>($($arg),*),
            (32, true) => $call::<32, true>($($arg),*),
            (64, false) => $call::<64, false>($($arg),*),
            (64, true) => $call::<64, true>($($arg),*),
            (_, false) => $call::<WIDEST, false>($($arg),*),
            (_, true) => $call::<WIDEST, true>($($arg),*),
        }
    };
}

simd! {
    /// Writes o `[T, V]`, brings the state `[V, W]` to the last token (W is `padded(K)`), and keeps it
    /// before every `CHUNK` tokens in `kept` where there is room.
    pub(crate) fn forward(given: Given<'_>, state: &mut [f32], o: &mut [f32], kept: &mut [f32]) {
        for_width!(given, forward_wide(given, state, o, kept));
    }
}

#[inline(always)]
fn forward_wide<const W: usize, const DELTA: bool>(
    given: Given<'_>,
    state: &mut [f32],
    o: &mut [f32],
    kept: &mut [f32],
) {
    let width = given.v.count;
    for t in 0..given.length {
        if t % CHUNK == 0 && !kept.is_empty() {
            kept[t / CHUNK * state.len()..][..state.len()].copy_from_slice(state);
        }
        let token = Token::<W>::load(given, t);
        let v = given.v.row(t);
        let o = &mut o[t * width..][..width];
        for j in 0..width {
            let row = row_mut::<W>(state, j);
            if DELTA {
                token.step::<DELTA>(row, v[j]);
                o[j] = dot(row, &token.r);
            } else {
                o[j] = dot(row, &token.r);
                token.step::<DELTA>(row, v[j]);
            }
        }
    }
}

/// Places for the gradients of a chunk of tokens, all written.
pub(crate) struct Gradients<'a> {
    /// `[L, K]`.
    pub r: &'a mut [f32],
    /// `[L, K]`.
    pub k: &'a mut [f32],
    /// `[L, V]`.
    pub v: &'a mut [f32],
    /// `[L, K]`: of decay before its functions.
    pub decay: &'a mut [f32],
    /// `[L, K]`; empty without removal.
    pub kappa: &'a mut [f32],
    /// `[L, K]`; empty without removal.
    pub b: &'a mut [f32],
}

simd! {
    /// Gradients of at most `CHUNK` tokens. `state` `[V, W]` is the state before them; `grad_state` is
    /// the gradient of the state after them and becomes that of the state before.
    pub(crate) fn backward(
        given: Given<'_>,
        state: &[f32],
        grad_o: Part<'_>,
        grad_state: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        for_width!(given, backward_wide(given, state, grad_o, grad_state, grads));
    }
}

#[inline(always)]
fn backward_wide<const W: usize, const DELTA: bool>(
    given: Given<'_>,
    state: &[f32],
    grad_o: Part<'_>,
    grad_state: &mut [f32],
    grads: &mut Gradients<'_>,
) {
    let (width, length) = (given.v.count, given.length);
    let mut tokens = [Token::<W>::ZERO; CHUNK];
    let mut sums = [Token::<W>::ZERO; CHUNK];
    for (t, token) in tokens[..length].iter_mut().enumerate() {
        *token = Token::load(given, t);
    }
    for first in (0..width).step_by(ROWS) {
        let rows = ROWS.min(width - first);
        // The rows before each token and after the last, and what each token removed from them.
        let mut states = [[[0.0f32; W]; ROWS]; CHUNK + 1];
        let mut removed = [[0.0f32; ROWS]; CHUNK];
        for q in 0..rows {
            let row = &state[(first + q) * W..][..W];
            states[0][q].copy_from_slice(row);
        }
        for t in 0..length {
            let v = &given.v.row(t)[first..];
            for q in 0..rows {
                let mut row = states[t][q];
                removed[t][q] = tokens[t].step::<DELTA>(&mut row, v[q]);
                states[t + 1][q] = row;
            }
        }
        for t in (0..length).rev() {
            let v = &given.v.row(t)[first..];
            let grad_o = &grad_o.row(t)[first..];
            let grad_v = &mut grads.v[t * width + first..];
            for q in 0..rows {
                let grad = row_mut::<W>(grad_state, first + q);
                let around = [&states[t][q], &states[t + 1][q]];
                let step = Step {
                    v: v[q],
                    grad_o: grad_o[q],
                    removed: removed[t][q],
                };
                grad_v[q] = row_gradients::<W, DELTA>(&tokens[t], around, step, grad, &mut sums[t]);
            }
        }
    }
    for t in 0..length {
        finish::<W, DELTA>(given, t, &tokens[t], &sums[t], grads);
    }
}

/// A step's values of one row of the state.
#[derive(Clone, Copy)]
struct Step {
    v: f32,
    grad_o: f32,
    removed: f32,
}

/// One step back in one row of the state, given the row before and after it: `grad` of the row after
/// becomes that of the row before, the vectors' shares are added to `sums`; the result is that of v.
#[inline(always)]
fn row_gradients<const W: usize, const DELTA: bool>(
    token: &Token<W>,
    [before, after]: [&[f32; W]; 2],
    step: Step,
    grad: &mut [f32; W],
    sums: &mut Token<W>,
) -> f32 {
    if DELTA {
        for i in 0..W {
            grad[i] = step.grad_o.mul_add(token.r[i], grad[i]);
            sums.r[i] = step.grad_o.mul_add(after[i], sums.r[i]);
        }
    }
    let grad_v = dot(grad, &token.k);
    let grad_removed = if DELTA { dot(grad, &token.b) } else { 0.0 };
    for i in 0..W {
        let g = grad[i];
        sums.k[i] = g.mul_add(step.v, sums.k[i]);
        sums.w[i] = g.mul_add(before[i], sums.w[i]);
        if DELTA {
            sums.b[i] = g.mul_add(step.removed, sums.b[i]);
            // What is removed is -row kappa.
            sums.kappa[i] = (-grad_removed).mul_add(before[i], sums.kappa[i]);
            grad[i] = g.mul_add(token.w[i], -grad_removed * token.kappa[i]);
        } else {
            sums.r[i] = step.grad_o.mul_add(before[i], sums.r[i]);
            grad[i] = g.mul_add(token.w[i], step.grad_o * token.r[i]);
        }
    }
    grad_v
}

/// Writes a token's gradients over K.
#[inline(always)]
fn finish<const W: usize, const DELTA: bool>(
    given: Given<'_>,
    t: usize,
    token: &Token<W>,
    sums: &Token<W>,
    grads: &mut Gradients<'_>,
) {
    let width = given.v.count;
    let place = t * width..(t + 1) * width;
    let raw = given.decay.load::<W>(t);
    let mut decay = [0.0f32; W];
    for i in 0..W {
        // Derivative of ln w by the raw decay.
        let slope = if DELTA {
            let s = sigmoid(raw[i]);
            -SLOWEST * s * (1.0 - s)
        } else {
            -exp(raw[i])
        };
        decay[i] = sums.w[i] * token.w[i] * slope;
    }
    grads.r[place.clone()].copy_from_slice(&sums.r[..width]);
    grads.k[place.clone()].copy_from_slice(&sums.k[..width]);
    grads.decay[place.clone()].copy_from_slice(&decay[..width]);
    if DELTA {
        grads.kappa[place.clone()].copy_from_slice(&sums.kappa[..width]);
        grads.b[place].copy_from_slice(&sums.b[..width]);
    }
}
