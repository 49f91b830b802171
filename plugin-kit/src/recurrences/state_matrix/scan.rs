//! The recurrence for one head of one row, a write after another. The state S is kept as `[V, K]`: its rows need
//! each other only where gradients are summed, so that each goes through the vector registers by itself.
//! `scan_back` is the way back.
//!
//! One form serves all removals: with w the decay of a token's first write, 1 at its others,
//!
//! ```text
//! S = S diag(w) - (S a) bᵀ + v kᵀ
//! ```
//!
//! is the delta rule where `a = w k`, and beta k stands for both b and k. Where nothing is removed each row may have a
//! decay of its own beside w.

use std::hint::black_box;

use super::fields::{DecayPart, Given};
use crate::simd;
use crate::simd::exp;

/// Writes between kept states at most.
pub(super) const WRITES: usize = 16;

/// Largest K.
pub(super) const WIDEST: usize = 256;

/// Values of a vector.
pub(super) const LANES: usize = 16;

/// K as stored: a vector, or a power of two of them.
pub(super) fn padded(key: usize) -> usize {
    key.next_power_of_two().max(LANES)
}

/// Tokens between kept states, of so many writes each.
pub(super) fn tokens_kept(writes: usize) -> usize {
    WRITES / writes
}

/// A write's vectors over K.
#[derive(Clone, Copy)]
pub(super) struct Write<const W: usize> {
    pub q: [f32; W],
    pub k: [f32; W],
    pub w: [f32; W],
    pub a: [f32; W],
    pub b: [f32; W],
}

impl<const W: usize> Write<W> {
    pub const ZERO: Self = Self {
        q: [0.0; W],
        k: [0.0; W],
        w: [0.0; W],
        a: [0.0; W],
        b: [0.0; W],
    };

    #[inline(always)]
    pub fn load(given: Given<'_>, t: usize, write: usize) -> Self {
        let mut loaded = Self {
            q: given.q.load(t, 0),
            k: given.k.load(t, write),
            w: decay(given, t, write),
            ..Self::ZERO
        };
        if let Some(beta) = given.beta {
            let beta = beta.row(t, write)[0];
            for i in 0..W {
                loaded.a[i] = loaded.w[i] * loaded.k[i];
                loaded.k[i] *= beta;
            }
            loaded.b = loaded.k;
        } else if let Some([a, b]) = given.pair
            && write == 0
        {
            loaded.a = a.load(t, 0);
            loaded.b = b.load(t, 0);
        }
        loaded
    }

    /// A step of a row of the state, whose own decay is `factor`; the result is `-row a`, 0 where nothing is removed.
    #[inline(always)]
    pub fn step<const REMOVES: bool>(&self, row: &mut [f32; W], v: f32, factor: f32) -> f32 {
        let removed = if REMOVES { -dot(row, &self.a) } else { 0.0 };
        for (i, s) in row.iter_mut().enumerate() {
            if REMOVES {
                *s = s.mul_add(self.w[i], v * self.k[i]);
                *s = removed.mul_add(self.b[i], *s);
            } else {
                *s = s.mul_add(factor * self.w[i], v * self.k[i]);
            }
        }
        removed
    }
}

/// The factors of a write's decay.
#[inline(always)]
pub(super) fn decay<const W: usize>(given: Given<'_>, t: usize, write: usize) -> [f32; W] {
    match given.decay {
        _ if write > 0 => [1.0; W],
        DecayPart::Fixed(factor) => [factor; W],
        DecayPart::Value(_) => [1.0; W],
        DecayPart::Head(logs) => [exp(logs.row(t, 0)[0]); W],
        DecayPart::Key(logs) => {
            let mut w = logs.load::<W>(t, 0);
            for w in &mut w {
                *w = exp(*w);
            }
            w
        }
    }
}

/// The factors of a write's decay that R rows of the state have of their own, from a row on.
#[inline(always)]
pub(super) fn row_decays<const R: usize, const REMOVES: bool>(
    given: Given<'_>,
    [t, write, first]: [usize; 3],
) -> [f32; R] {
    let mut factors = [1.0; R];
    if !REMOVES
        && write == 0
        && let DecayPart::Value(logs) = given.decay
    {
        exponentials(&logs.row(t, 0)[first..], &mut factors);
    }
    factors
}

simd! {
    /// As many as there are; the rest stays. A function of its own, so that it is not in every width of the scan.
    fn exponentials(logs: &[f32], factors: &mut [f32]) {
        for (factor, log) in factors.iter_mut().zip(logs) {
            *factor = exp(*log);
        }
    }
}

/// The sum of products, in 16 partial sums, then 8. They pass through memory: else the compiler takes
/// the whole sum for a tree of scalars and cuts its vectors to pairs.
#[inline(always)]
pub(super) fn dot<const W: usize>(a: &[f32; W], b: &[f32; W]) -> f32 {
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
pub(super) fn row_mut<const W: usize>(values: &mut [f32], row: usize) -> &mut [f32; W] {
    (&mut values[row * W..][..W]).try_into().expect("a row")
}

/// Calls a function with the padded K, and whether anything is removed, as constants.
macro_rules! for_width {
    ($given:expr, $call:ident ( $($arg:expr),* )) => {
        match (super::scan::padded($given.q.count), $given.removes()) {
            (16, false) => $call::<16, false>($($arg),*),
            (16, true) => $call::<16, true>($($arg),*),
            (32, false) => $call::<32, false>($($arg),*),
            (32, true) => $call::<32, true>($($arg),*),
            (64, false) => $call::<64, false>($($arg),*),
            (64, true) => $call::<64, true>($($arg),*),
            (128, false) => $call::<128, false>($($arg),*),
            (128, true) => $call::<128, true>($($arg),*),
            (_, false) => $call::<{ super::scan::WIDEST }, false>($($arg),*),
            (_, true) => $call::<{ super::scan::WIDEST }, true>($($arg),*),
        }
    };
}
pub(super) use for_width;

simd! {
    /// Writes o `[T, V]`, brings the state `[V, W]` to the last token (W is `padded(K)`), and keeps it
    /// before every `tokens_kept` tokens in `kept` where there is room.
    pub(super) fn forward(given: Given<'_>, state: &mut [f32], o: &mut [f32], kept: &mut [f32]) {
        for_width!(given, forward_wide(given, state, o, kept));
    }
}

#[inline(always)]
fn forward_wide<const W: usize, const REMOVES: bool>(
    given: Given<'_>,
    state: &mut [f32],
    o: &mut [f32],
    kept: &mut [f32],
) {
    let (width, tokens) = (given.v.count, tokens_kept(given.writes));
    for t in 0..given.length {
        if t % tokens == 0 && !kept.is_empty() {
            kept[t / tokens * state.len()..][..state.len()].copy_from_slice(state);
        }
        let o = &mut o[t * width..][..width];
        for n in 0..given.writes {
            let write = Write::<W>::load(given, t, n);
            let v = given.v.row(t, n);
            let reads_before = !given.reads_after && n == 0;
            let reads_after = given.reads_after && n + 1 == given.writes;
            for first in (0..width).step_by(LANES) {
                let factors = row_decays::<LANES, REMOVES>(given, [t, n, first]);
                for (j, factor) in (first..width).zip(factors) {
                    let row = row_mut::<W>(state, j);
                    if reads_before {
                        o[j] = dot(row, &write.q);
                    }
                    write.step::<REMOVES>(row, v[j], factor);
                    if reads_after {
                        o[j] = dot(row, &write.q);
                    }
                }
            }
        }
    }
}
