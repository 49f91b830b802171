//! The way back through the matrix-valued recurrences of RWKV-6 and RWKV-7 for one head of one row: a
//! few rows of the state at a time go through a chunk again and back, so that their states stay in
//! the first-level cache.

use std::array::from_fn;

use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{exp, sigmoid};

use crate::matrix_scan::{CHUNK, FASTEST, Given, LANES, Token, dot, for_width, row_mut};
use crate::part::Part;

/// Rows of the state that go through a chunk together.
const ROWS: usize = 4;

#[inline(always)]
fn lanes<const W: usize>(values: &[f32; W], first: usize) -> [f32; LANES] {
    values[first..][..LANES].try_into().expect("a vector")
}

#[inline(always)]
fn row_of<const W: usize>(values: &[f32], row: usize) -> &[f32; W] {
    values[row * W..][..W].try_into().expect("a row")
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
    let mut states = [[[0.0f32; W]; ROWS]; CHUNK + 1];
    let whole = width / ROWS * ROWS;
    for first in (0..whole).step_by(ROWS) {
        let chunk = Chunk {
            given,
            tokens: &tokens,
            grad_o,
            first,
        };
        let grad_state = &mut grad_state[first * W..];
        states[0] = from_fn(|q| *row_of(state, first + q));
        chunk.rows::<DELTA, ROWS>(&mut states, grad_state, grads.v, &mut sums);
    }
    for first in whole..width {
        let chunk = Chunk {
            given,
            tokens: &tokens,
            grad_o,
            first,
        };
        let grad_state = &mut grad_state[first * W..];
        states[0][0] = *row_of(state, first);
        chunk.rows::<DELTA, 1>(&mut states, grad_state, grads.v, &mut sums);
    }
    for t in 0..length {
        finish::<W, DELTA>(given, t, &tokens[t], &sums[t], grads);
    }
}

/// A chunk of tokens as some rows of the state see it, from row `first` on.
struct Chunk<'a, const W: usize> {
    given: Given<'a>,
    tokens: &'a [Token<W>; CHUNK],
    grad_o: Part<'a>,
    first: usize,
}

impl<const W: usize> Chunk<'_, W> {
    /// Takes R rows through the chunk and back. `states[0]` are the rows before it; the rest of
    /// `states` is room. Gradients of v are written, the vectors' shares are added to `sums`.
    #[inline(always)]
    fn rows<const DELTA: bool, const R: usize>(
        &self,
        states: &mut [[[f32; W]; ROWS]; CHUNK + 1],
        grad_state: &mut [f32],
        grad_v: &mut [f32],
        sums: &mut [Token<W>; CHUNK],
    ) {
        let (given, first) = (self.given, self.first);
        let mut removed = [[0.0f32; R]; CHUNK];
        for t in 0..given.length {
            let v = &given.v.row(t)[first..];
            for q in 0..R {
                let mut row = states[t][q];
                removed[t][q] = self.tokens[t].step::<DELTA>(&mut row, v[q]);
                states[t + 1][q] = row;
            }
        }
        for t in (0..given.length).rev() {
            let (v, grad_o) = (&given.v.row(t)[first..], &self.grad_o.row(t)[first..]);
            let step = Step::<R> {
                v: from_fn(|q| v[q]),
                grad_o: from_fn(|q| grad_o[q]),
                removed: removed[t],
            };
            let (before, after) = (&states[t], &states[t + 1]);
            let token = &self.tokens[t];
            let grads = step.back::<W, DELTA>(token, before, after, grad_state, &mut sums[t]);
            grad_v[t * given.v.count + first..][..R].copy_from_slice(&grads);
        }
    }
}

/// A step's values of R rows of the state.
struct Step<const R: usize> {
    v: [f32; R],
    grad_o: [f32; R],
    removed: [f32; R],
}

impl<const R: usize> Step<R> {
    /// One step back in the rows, given the rows before and after it: `grad` of the rows after becomes
    /// that of the rows before, the vectors' shares are added to `sums`; the result is that of v.
    #[inline(always)]
    fn back<const W: usize, const DELTA: bool>(
        &self,
        token: &Token<W>,
        before: &[[f32; W]; ROWS],
        after: &[[f32; W]; ROWS],
        grad: &mut [f32],
        sums: &mut Token<W>,
    ) -> [f32; R] {
        let (mut grad_v, mut grad_removed) = ([0.0f32; R], [0.0f32; R]);
        for q in 0..R {
            let grad = row_mut::<W>(grad, q);
            if DELTA {
                for (grad, r) in grad.iter_mut().zip(&token.r) {
                    *grad = self.grad_o[q].mul_add(*r, *grad);
                }
                grad_removed[q] = dot(grad, &token.b);
            }
            grad_v[q] = dot(grad, &token.k);
        }
        // Sixteen columns at a time, so that their sums stay in registers for all rows.
        for first in (0..W).step_by(LANES) {
            let (mut r, mut k) = (lanes(&sums.r, first), lanes(&sums.k, first));
            let (mut w, mut b) = (lanes(&sums.w, first), lanes(&sums.b, first));
            let mut kappa = lanes(&sums.kappa, first);
            for q in 0..R {
                let before = lanes(&before[q], first);
                let grad = &mut row_mut::<W>(grad, q)[first..][..LANES];
                let seen = if DELTA {
                    lanes(&after[q], first)
                } else {
                    before
                };
                for i in 0..LANES {
                    let g = grad[i];
                    r[i] = self.grad_o[q].mul_add(seen[i], r[i]);
                    k[i] = self.v[q].mul_add(g, k[i]);
                    w[i] = g.mul_add(before[i], w[i]);
                    if DELTA {
                        b[i] = self.removed[q].mul_add(g, b[i]);
                        // What is removed is -row kappa.
                        kappa[i] = (-grad_removed[q]).mul_add(before[i], kappa[i]);
                        let back = -grad_removed[q] * token.kappa[first + i];
                        grad[i] = g.mul_add(token.w[first + i], back);
                    } else {
                        let back = self.grad_o[q] * token.r[first + i];
                        grad[i] = g.mul_add(token.w[first + i], back);
                    }
                }
            }
            sums.r[first..][..LANES].copy_from_slice(&r);
            sums.k[first..][..LANES].copy_from_slice(&k);
            sums.w[first..][..LANES].copy_from_slice(&w);
            if DELTA {
                sums.b[first..][..LANES].copy_from_slice(&b);
                sums.kappa[first..][..LANES].copy_from_slice(&kappa);
            }
        }
        grad_v
    }
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
            -FASTEST * s * (1.0 - s)
        } else {
            -exp(raw[i])
        };
        // Where nothing is left the slope may be infinite.
        let by_log = sums.w[i] * token.w[i];
        decay[i] = if token.w[i] > 0.0 {
            by_log * slope
        } else {
            0.0
        };
    }
    grads.r[place.clone()].copy_from_slice(&sums.r[..width]);
    grads.k[place.clone()].copy_from_slice(&sums.k[..width]);
    grads.decay[place.clone()].copy_from_slice(&decay[..width]);
    if DELTA {
        grads.kappa[place.clone()].copy_from_slice(&sums.kappa[..width]);
        grads.b[place].copy_from_slice(&sums.b[..width]);
    }
}
