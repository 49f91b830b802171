//! The matrix-valued recurrences of RWKV-6 and RWKV-7 for one head of one row, a step after another.
//! The state S is `[V, K]` as in arXiv 2503.14456; its rows need each other only where gradients are
//! summed, so that each goes through the vector registers by itself. `matrix_gradients` is the
//! way back.

use std::hint::black_box;

use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{exp, sigmoid};

use crate::part::Part;

/// Tokens between kept states.
pub(crate) const CHUNK: usize = 16;

/// Widest head.
pub(crate) const WIDEST: usize = 128;

/// Values of a vector.
pub(crate) const LANES: usize = 16;

/// e^-1/2: the fastest decay of RWKV-7 is exp(-e^-1/2).
pub(crate) const FASTEST: f32 = 0.606_530_66;

/// K as stored: a vector, or a power of two of them.
pub(crate) fn padded(head_dim: usize) -> usize {
    head_dim.next_power_of_two().max(LANES)
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
pub(crate) struct Token<const W: usize> {
    pub r: [f32; W],
    pub k: [f32; W],
    pub w: [f32; W],
    pub kappa: [f32; W],
    pub b: [f32; W],
}

impl<const W: usize> Token<W> {
    pub(crate) const ZERO: Self = Self {
        r: [0.0; W],
        k: [0.0; W],
        w: [0.0; W],
        kappa: [0.0; W],
        b: [0.0; W],
    };

    #[inline(always)]
    pub(crate) fn load(given: Given<'_>, t: usize) -> Self {
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
                *w = exp(-FASTEST * sigmoid(*w));
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
    pub(crate) fn step<const DELTA: bool>(&self, row: &mut [f32; W], v: f32) -> f32 {
        let removed = if DELTA { -dot(row, &self.kappa) } else { 0.0 };
        for (i, s) in row.iter_mut().enumerate() {
            *s = s.mul_add(self.w[i], v * self.k[i]);
            if DELTA {
                *s = removed.mul_add(self.b[i], *s);
            }
        }
        removed
    }
}

/// The sum of products, in 16 partial sums, then 8. They pass through memory: else the compiler takes
/// the whole sum for a tree of scalars and cuts its vectors to pairs.
#[inline(always)]
pub(crate) fn dot<const W: usize>(a: &[f32; W], b: &[f32; W]) -> f32 {
    let mut parts = [0.0f32; LANES];
    for first in (0..W).step_by(LANES) {
        for lane in 0..LANES {
            parts[lane] = a[first + lane].mul_add(b[first + lane], parts[lane]);
        }
    }
    let parts = black_box(parts);
    let mut halves = [0.0f32; 8];
    for lane in 0..8 {
        halves[lane] = parts[lane] + parts[lane + 8];
    }
    let halves = black_box(halves);
    let quarter = |lane: usize| halves[lane] + halves[lane + 4];
    (quarter(0) + quarter(2)) + (quarter(1) + quarter(3))
}

#[inline(always)]
pub(crate) fn row_mut<const W: usize>(values: &mut [f32], row: usize) -> &mut [f32; W] {
    (&mut values[row * W..][..W]).try_into().expect("a row")
}

/// Calls a function with the padded width and the rule as constants.
macro_rules! for_width {
    ($given:expr, $call:ident ( $($arg:expr),* )) => {
        match ($crate::matrix_scan::padded($given.v.count), $given.removal.is_some()) {
            (16, false) => $call::<16, false>($($arg),*),
            (16, true) => $call::<16, true>($($arg),*),
            (32, false) => $call::<32, false>($($arg),*),
            (32, true) => $call::<32, true>($($arg),*),
            (64, false) => $call::<64, false>($($arg),*),
            (64, true) => $call::<64, true>($($arg),*),
            (_, false) => $call::<{ $crate::matrix_scan::WIDEST }, false>($($arg),*),
            (_, true) => $call::<{ $crate::matrix_scan::WIDEST }, true>($($arg),*),
        }
    };
}
pub(crate) use for_width;

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
