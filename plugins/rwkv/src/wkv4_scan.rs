//! RWKV-4's weighted mean of one block of channels, one step after another. Channels are what a
//! vector holds; the block's state stays in registers.
//!
//! The state is the mean a of all values so far and the logarithm L of their total weight, in which
//! nothing can overflow and whose gradients are bounded:
//!
//! ```text
//! wkv = a + s (v - a)     s = sigmoid(u + k - L)
//! a'  = a + z (v - a)     z = sigmoid(k - L - w)     L' = ln(e^(L + w) + e^k)
//! ```
//!
//! With a = num / den and L = ln(den) + max it is the form with a running maximum.

use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{exp, ln, sigmoid};

use crate::part::Part;

/// Channels of a block.
pub(crate) const BLOCK: usize = 32;

/// Tokens between kept states.
pub(crate) const CHUNK: usize = 32;

/// Logarithm of the weight of nothing at all.
pub(crate) const EMPTY: f32 = -1e30;

/// What a block reads, from a token on.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// `[T, BLOCK]`, before its sigmoid.
    pub r: Part<'a>,
    /// `[T, BLOCK]`.
    pub k: Part<'a>,
    /// `[T, BLOCK]`.
    pub v: Part<'a>,
    /// `[BLOCK]`: w, at most 0.
    pub w: &'a [f32; BLOCK],
    /// `[BLOCK]`: u.
    pub u: &'a [f32; BLOCK],
    /// Tokens.
    pub length: usize,
}

/// Sizes of a block's state: a, then L.
pub(crate) const STATE: usize = 2 * BLOCK;

/// The two halves of `[2, BLOCK]`.
#[inline(always)]
fn halves(values: &mut [f32]) -> (&mut [f32; BLOCK], &mut [f32; BLOCK]) {
    let (a, b) = values[..STATE].split_at_mut(BLOCK);
    (
        a.try_into().expect("a block"),
        b.try_into().expect("a block"),
    )
}

/// The share of weight e^k in e^k + e^level, and the logarithm of the sum.
#[inline(always)]
fn join(level: f32, k: f32) -> (f32, f32) {
    let e = exp(-(k - level).abs());
    let whole = 1.0 + e;
    let larger = 1.0 / whole;
    let share = if k >= level { larger } else { e * larger };
    // What rounding 1 + e lost comes back as a first-order correction.
    let log = ln(whole) + (e - (whole - 1.0)) * larger;
    (share, level.max(k) + log)
}

simd! {
    /// Writes y = sigmoid(r) wkv `[T, BLOCK]`, brings the state `[2, BLOCK]` to the last token, and
    /// keeps it before every `CHUNK` tokens in `kept` where there is room.
    pub(crate) fn forward(given: Given<'_>, state: &mut [f32], y: &mut [f32], kept: &mut [f32]) {
        let (mean, level) = halves(state);
        let (mut a, mut l) = (*mean, *level);
        for t in 0..given.length {
            if t % CHUNK == 0 && !kept.is_empty() {
                let kept = &mut kept[t / CHUNK * STATE..][..STATE];
                kept[..BLOCK].copy_from_slice(&a);
                kept[BLOCK..].copy_from_slice(&l);
            }
            let (r, k) = (given.r.load::<BLOCK>(t), given.k.load::<BLOCK>(t));
            let v = given.v.load::<BLOCK>(t);
            let y: &mut [f32; BLOCK] = (&mut y[t * BLOCK..][..BLOCK]).try_into().expect("a block");
            for i in 0..BLOCK {
                let ahead = v[i] - a[i];
                let share = sigmoid(given.u[i] + k[i] - l[i]);
                y[i] = sigmoid(r[i]) * share.mul_add(ahead, a[i]);
                let (share, next) = join(l[i] + given.w[i], k[i]);
                a[i] = share.mul_add(ahead, a[i]);
                l[i] = next;
            }
        }
        (*mean, *level) = (a, l);
    }
}

/// Places for the gradients of a chunk of tokens.
pub(crate) struct Gradients<'a> {
    /// `[L, BLOCK]`, written: of r before its sigmoid.
    pub r: &'a mut [f32],
    /// `[L, BLOCK]`, written.
    pub k: &'a mut [f32],
    /// `[L, BLOCK]`, written.
    pub v: &'a mut [f32],
    /// `[2, BLOCK]`, added to: of w, then of u.
    pub params: &'a mut [f32],
}

simd! {
    /// Gradients of at most `CHUNK` tokens. `state` is the state before them; `grad_state` is the
    /// gradient of the state after them and becomes that of the state before.
    pub(crate) fn backward(
        given: Given<'_>,
        state: &mut [f32],
        grad_y: Part<'_>,
        grad_state: &mut [f32],
        grads: &mut Gradients<'_>,
    ) {
        let (mean, level) = halves(state);
        let (mut a, mut l) = (*mean, *level);
        // Before each token: a, and the shares of its value in wkv and in the next a.
        let mut means = [[0.0f32; BLOCK]; CHUNK];
        let mut now = [[0.0f32; BLOCK]; CHUNK];
        let mut later = [[0.0f32; BLOCK]; CHUNK];
        for t in 0..given.length {
            let (k, v) = (given.k.load::<BLOCK>(t), given.v.load::<BLOCK>(t));
            means[t] = a;
            let (now, later) = (&mut now[t], &mut later[t]);
            for i in 0..BLOCK {
                now[i] = sigmoid(given.u[i] + k[i] - l[i]);
                let (share, next) = join(l[i] + given.w[i], k[i]);
                later[i] = share;
                a[i] = share.mul_add(v[i] - a[i], a[i]);
                l[i] = next;
            }
        }
        // Copies in arrays of their own: the compiler need not ask whether they overlap.
        let (state_a, state_l) = halves(grad_state);
        let (params_w, params_u) = halves(grads.params);
        let (mut grad_a, mut grad_l) = (*state_a, *state_l);
        let (mut grad_w, mut grad_u) = (*params_w, *params_u);
        for t in (0..given.length).rev() {
            let (r, v) = (given.r.load::<BLOCK>(t), given.v.load::<BLOCK>(t));
            let dy = grad_y.load::<BLOCK>(t);
            let (a, now, later) = (&means[t], &now[t], &later[t]);
            let mut grad_r = [0.0f32; BLOCK];
            let mut grad_k = [0.0f32; BLOCK];
            let mut grad_v = [0.0f32; BLOCK];
            for i in 0..BLOCK {
                let gate = sigmoid(r[i]);
                let ahead = v[i] - a[i];
                let (s, z) = (now[i], later[i]);
                let g = dy[i] * gate;
                let wkv = s.mul_add(ahead, a[i]);
                grad_r[i] = dy[i] * wkv * gate * (1.0 - gate);
                grad_v[i] = g.mul_add(s, grad_a[i] * z);
                let by_now = g * ahead * s * (1.0 - s);
                let by_later = grad_a[i] * ahead * z * (1.0 - z);
                let faded = grad_l[i] * (1.0 - z) - by_later;
                grad_k[i] = grad_l[i].mul_add(z, by_now + by_later);
                grad_u[i] += by_now;
                grad_w[i] += faded;
                grad_a[i] = g.mul_add(1.0 - s, grad_a[i] * (1.0 - z));
                grad_l[i] = faded - by_now;
            }
            let place = t * BLOCK..(t + 1) * BLOCK;
            grads.r[place.clone()].copy_from_slice(&grad_r);
            grads.k[place.clone()].copy_from_slice(&grad_k);
            grads.v[place].copy_from_slice(&grad_v);
        }
        (*state_a, *state_l) = (grad_a, grad_l);
        (*params_w, *params_u) = (grad_w, grad_u);
    }
}
