//! The scan token by token on the CPU: channels in vectors. The result is the state, so nothing is kept for the
//! gradients but what came in.

use super::Kind;
use crate::engine::operation::Rows;
use crate::simd;
use crate::simd::exp;

/// Tokens of one sequence, in the order of their positions.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub kind: Kind,
    /// `[T, W]`.
    pub a: Rows<'a>,
    /// `[T, W]`: b, or the gradient of h.
    pub b: Rows<'a>,
}

/// What backward needs beside the gradient of the state.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    /// `[W]`: the state before the first token; empty where it was 0.
    pub start: &'a [f32],
    /// `[T, W]`.
    pub h: Rows<'a>,
}

impl<'a> Before<'a> {
    /// The state before a token, or nothing where it was 0.
    #[inline(always)]
    fn token(self, t: usize) -> &'a [f32] {
        match t {
            0 => self.start,
            _ => self.h.row(t - 1),
        }
    }
}

#[inline(always)]
fn identity(a: f32) -> f32 {
    a
}

simd! {
    /// Writes h `[T, W]` and leaves the last state in `state`.
    pub(super) fn advance(given: Given<'_>, state: &mut [f32], h: &mut [f32]) {
        match given.kind {
            Kind::Log => advance_real(given, state, h, exp),
            Kind::Signed => advance_real(given, state, h, identity),
            Kind::Complex => advance_complex(given, state, h),
        }
    }
}

#[inline(always)]
fn advance_real(given: Given<'_>, state: &mut [f32], h: &mut [f32], decay: impl Fn(f32) -> f32) {
    let width = state.len();
    for (t, h) in h.chunks_exact_mut(width).enumerate() {
        let (a, b) = (&given.a.row(t)[..width], &given.b.row(t)[..width]);
        for c in 0..width {
            state[c] = decay(a[c]).mul_add(state[c], b[c]);
            h[c] = state[c];
        }
    }
}

#[inline(always)]
fn advance_complex(given: Given<'_>, state: &mut [f32], h: &mut [f32]) {
    let width = state.len();
    let half = width / 2;
    let (re, im) = state.split_at_mut(half);
    let im = &mut im[..half];
    for (t, h) in h.chunks_exact_mut(width).enumerate() {
        let (a_re, a_im) = given.a.row(t)[..width].split_at(half);
        let (b_re, b_im) = given.b.row(t)[..width].split_at(half);
        let (h_re, h_im) = h.split_at_mut(half);
        let (a_im, b_im, h_im) = (&a_im[..half], &b_im[..half], &mut h_im[..half]);
        for c in 0..half {
            let (was_re, was_im) = (re[c], im[c]);
            re[c] = a_re[c].mul_add(was_re, b_re[c] - a_im[c] * was_im);
            im[c] = a_re[c].mul_add(was_im, a_im[c].mul_add(was_re, b_im[c]));
            h_re[c] = re[c];
            h_im[c] = im[c];
        }
    }
}

simd! {
    /// The gradient of every state `[T, W]`, last token first: that of h, and what the tokens after it carry back.
    /// `given.b` is the gradient of h, `carried` is 0 at first.
    pub(super) fn retreat(given: Given<'_>, carried: &mut [f32], grad: &mut [f32]) {
        match given.kind {
            Kind::Log => retreat_real(given, carried, grad, exp),
            Kind::Signed => retreat_real(given, carried, grad, identity),
            Kind::Complex => retreat_complex(given, carried, grad),
        }
    }
}

#[inline(always)]
fn retreat_real(
    given: Given<'_>,
    carried: &mut [f32],
    grad: &mut [f32],
    decay: impl Fn(f32) -> f32,
) {
    let width = carried.len();
    for (t, grad) in grad.chunks_exact_mut(width).enumerate().rev() {
        let (a, dh) = (&given.a.row(t)[..width], &given.b.row(t)[..width]);
        for c in 0..width {
            grad[c] = dh[c] + carried[c];
            carried[c] = decay(a[c]) * grad[c];
        }
    }
}

#[inline(always)]
fn retreat_complex(given: Given<'_>, carried: &mut [f32], grad: &mut [f32]) {
    let width = carried.len();
    let half = width / 2;
    let (re, im) = carried.split_at_mut(half);
    let im = &mut im[..half];
    for (t, grad) in grad.chunks_exact_mut(width).enumerate().rev() {
        let (a_re, a_im) = given.a.row(t)[..width].split_at(half);
        let (dh_re, dh_im) = given.b.row(t)[..width].split_at(half);
        let (g_re, g_im) = grad.split_at_mut(half);
        let (a_im, dh_im, g_im) = (&a_im[..half], &dh_im[..half], &mut g_im[..half]);
        for c in 0..half {
            g_re[c] = dh_re[c] + re[c];
            g_im[c] = dh_im[c] + im[c];
            // By the conjugate of a.
            re[c] = a_re[c].mul_add(g_re[c], a_im[c] * g_im[c]);
            im[c] = a_re[c].mul_add(g_im[c], -(a_im[c] * g_re[c]));
        }
    }
}

simd! {
    /// Token t's share of the gradient of a, written or, where `add` is set, added to `to` `[W]`; `grad` `[W]` is that of
    /// the state after it.
    pub(super) fn transition_gradient(
        given: Given<'_>,
        before: Before<'_>,
        t: usize,
        grad: &[f32],
        add: bool,
        to: &mut [f32],
    ) {
        let state = before.token(t);
        if state.is_empty() {
            if !add {
                to.fill(0.0);
            }
            return;
        }
        let width = to.len();
        let (state, grad) = (&state[..width], &grad[..width]);
        match given.kind {
            Kind::Log => {
                let a = &given.a.row(t)[..width];
                for c in 0..width {
                    let old = if add { to[c] } else { 0.0 };
                    to[c] = (grad[c] * exp(a[c])).mul_add(state[c], old);
                }
            }
            Kind::Signed => {
                for c in 0..width {
                    let old = if add { to[c] } else { 0.0 };
                    to[c] = grad[c].mul_add(state[c], old);
                }
            }
            Kind::Complex => complex_share(state, grad, add, to),
        }
    }
}

/// The gradient by the conjugate of the state.
#[inline(always)]
fn complex_share(state: &[f32], grad: &[f32], add: bool, to: &mut [f32]) {
    let half = to.len() / 2;
    let (re, im) = state.split_at(half);
    let (g_re, g_im) = grad.split_at(half);
    let (to_re, to_im) = to.split_at_mut(half);
    let (im, g_im, to_im) = (&im[..half], &g_im[..half], &mut to_im[..half]);
    for c in 0..half {
        let (old_re, old_im) = if add {
            (to_re[c], to_im[c])
        } else {
            (0.0, 0.0)
        };
        to_re[c] = g_re[c].mul_add(re[c], g_im[c].mul_add(im[c], old_re));
        to_im[c] = g_im[c].mul_add(re[c], old_im - g_re[c] * im[c]);
    }
}
