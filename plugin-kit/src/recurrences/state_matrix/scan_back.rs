//! The way back through the recurrence for one head of one row: a few rows of the state at a time go through some
//! tokens again and back, so that their states stay in the first-level cache.

use std::array::from_fn;

use super::fields::{DecayPart, Given, Part};
use super::scan::{LANES, WRITES, Write, dot, for_width, row_decays, row_mut};
use crate::simd;

/// Rows of the state that go through together.
const ROWS: usize = 4;

#[inline(always)]
fn lanes<const W: usize>(values: &[f32; W], first: usize) -> [f32; LANES] {
    values[first..][..LANES].try_into().expect("a vector")
}

#[inline(always)]
fn row_of<const W: usize>(values: &[f32], row: usize) -> &[f32; W] {
    values[row * W..][..W].try_into().expect("a row")
}

/// Places for the gradients of some tokens, all written; empty where there is no such input.
pub(super) struct Gradients<'a> {
    /// `[L, K]`.
    pub q: &'a mut [f32],
    /// `[L, writes, K]`.
    pub k: &'a mut [f32],
    /// `[L, writes, V]`.
    pub v: &'a mut [f32],
    /// `[L, 1]`, `[L, K]` or `[L, V]`: of the logarithms.
    pub decay: &'a mut [f32],
    /// beta `[L, writes, 1]`, or a `[L, K]`.
    pub removal: &'a mut [f32],
    /// b `[L, K]`.
    pub b: &'a mut [f32],
}

simd! {
    /// Gradients of at most `tokens_kept` tokens. `state` `[V, W]` is the state before them; `grad_state` is
    /// the gradient of the state after them and becomes that of the state before.
    pub(super) fn backward(
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
fn backward_wide<const W: usize, const REMOVES: bool>(
    given: Given<'_>,
    state: &[f32],
    grad_o: Part<'_>,
    grad_state: &mut [f32],
    grads: &mut Gradients<'_>,
) {
    let (width, writes) = (given.v.count, given.writes);
    let mut loaded = [Write::<W>::ZERO; WRITES];
    let mut sums = [Write::<W>::ZERO; WRITES];
    for (index, write) in loaded[..given.length * writes].iter_mut().enumerate() {
        *write = Write::load(given, index / writes, index % writes);
    }
    let mut states = [[[0.0f32; W]; ROWS]; WRITES + 1];
    for first in (0..width).step_by(ROWS) {
        let count = ROWS.min(width - first);
        // Rows past the last are 0 and stay it.
        let rows = |of: &[f32]| {
            from_fn(|q| match q < count {
                true => *row_of::<W>(of, first + q),
                false => [0.0; W],
            })
        };
        states[0] = rows(state);
        let mut grad = rows(grad_state);
        let some = Some {
            given,
            writes: &loaded,
            grad_o,
            first,
            count,
        };
        some.rows::<REMOVES>(&mut states, &mut grad, grads, &mut sums);
        for (q, grad) in grad[..count].iter().enumerate() {
            *row_mut(grad_state, first + q) = *grad;
        }
    }
    for index in 0..given.length * writes {
        finish::<W, REMOVES>(given, index, &loaded[index], &mut sums[index], grads);
    }
}

/// Some tokens as some rows of the state see them, from row `first` on.
struct Some<'a, const W: usize> {
    given: Given<'a>,
    writes: &'a [Write<W>; WRITES],
    grad_o: Part<'a>,
    first: usize,
    /// How many there are.
    count: usize,
}

impl<const W: usize> Some<'_, W> {
    /// Their values of a token's; 0 past the last row.
    #[inline(always)]
    fn values(&self, row: &[f32]) -> [f32; ROWS] {
        from_fn(|q| row[self.first..].get(q).copied().unwrap_or(0.0))
    }

    /// Takes the rows through the tokens and back. `states[0]` are the rows before them; the rest of
    /// `states` is room. Gradients of v and of the rows' own decays are written, the vectors' shares are added to
    /// `sums`.
    #[inline(always)]
    fn rows<const REMOVES: bool>(
        &self,
        states: &mut [[[f32; W]; ROWS]; WRITES + 1],
        grad: &mut [[f32; W]; ROWS],
        grads: &mut Gradients<'_>,
        sums: &mut [Write<W>; WRITES],
    ) {
        let (given, first) = (self.given, self.first);
        let (writes, width) = (given.writes, given.v.count);
        let (mut removed, mut factors) = ([[0.0f32; ROWS]; WRITES], [[1.0f32; ROWS]; WRITES]);
        for index in 0..given.length * writes {
            let (t, n) = (index / writes, index % writes);
            let v = self.values(given.v.row(t, n));
            factors[index] = row_decays::<ROWS, REMOVES>(given, [t, n, first]);
            for q in 0..ROWS {
                let mut row = states[index][q];
                let factor = factors[index][q];
                removed[index][q] = self.writes[index].step::<REMOVES>(&mut row, v[q], factor);
                states[index + 1][q] = row;
            }
        }
        for index in (0..given.length * writes).rev() {
            let (t, n) = (index / writes, index % writes);
            let step = Step {
                v: self.values(given.v.row(t, n)),
                grad_o: self.values(self.grad_o.row(t, 0)),
                removed: removed[index],
                factors: factors[index],
                decays_rows: n == 0 && matches!(given.decay, DecayPart::Value(_)),
                reads_before: !given.reads_after && n == 0,
                reads_after: given.reads_after && n + 1 == writes,
            };
            let (before, after) = (&states[index], &states[index + 1]);
            let (write, sums) = (&self.writes[index], &mut sums[index]);
            let (grad_v, grad_rows) = step.back::<W, REMOVES>(write, before, after, grad, sums);
            let count = self.count;
            grads.v[index * width + first..][..count].copy_from_slice(&grad_v[..count]);
            if step.decays_rows {
                grads.decay[t * width + first..][..count].copy_from_slice(&grad_rows[..count]);
            }
        }
    }
}

/// A write's values of some rows of the state.
struct Step {
    v: [f32; ROWS],
    grad_o: [f32; ROWS],
    removed: [f32; ROWS],
    /// The rows' own decays, and whether there are any.
    factors: [f32; ROWS],
    decays_rows: bool,
    reads_before: bool,
    reads_after: bool,
}

impl Step {
    /// One step back in the rows, given the rows before and after it: `grad` of the rows after becomes
    /// that of the rows before, the vectors' shares are added to `sums`; the result are those of v and of the
    /// logarithms of the rows' own decays.
    #[inline(always)]
    fn back<const W: usize, const REMOVES: bool>(
        &self,
        write: &Write<W>,
        before: &[[f32; W]; ROWS],
        after: &[[f32; W]; ROWS],
        grad: &mut [[f32; W]; ROWS],
        sums: &mut Write<W>,
    ) -> ([f32; ROWS], [f32; ROWS]) {
        let (mut grad_v, mut grad_removed) = ([0.0f32; ROWS], [0.0f32; ROWS]);
        let mut grad_rows = [0.0f32; ROWS];
        for q in 0..ROWS {
            let grad = &mut grad[q];
            if self.reads_after {
                add_scaled(grad, self.grad_o[q], &write.q);
            }
            if REMOVES {
                grad_removed[q] = dot(grad, &write.b);
            }
            grad_v[q] = dot(grad, &write.k);
            if !REMOVES && self.decays_rows {
                grad_rows[q] = self.factors[q] * dot(grad, &before[q]);
            }
        }
        let seen = if self.reads_after { after } else { before };
        let reads = self.reads_after || self.reads_before;
        // What else reaches the rows before: what was removed, or read.
        let back_by = match (REMOVES, self.reads_before) {
            (true, _) => grad_removed.map(|grad| -grad),
            (false, true) => self.grad_o,
            (false, false) => [0.0; ROWS],
        };
        // Sixteen columns at a time, so that their sums stay in registers for all rows.
        for first in (0..W).step_by(LANES) {
            let (mut of_q, mut k) = (lanes(&sums.q, first), lanes(&sums.k, first));
            let (mut w, mut b) = (lanes(&sums.w, first), lanes(&sums.b, first));
            let mut a = lanes(&sums.a, first);
            for q in 0..ROWS {
                let (before, seen) = (lanes(&before[q], first), lanes(&seen[q], first));
                let grad_o = if reads { self.grad_o[q] } else { 0.0 };
                let grad = &mut grad[q][first..][..LANES];
                for i in 0..LANES {
                    let g = grad[i];
                    of_q[i] = grad_o.mul_add(seen[i], of_q[i]);
                    k[i] = self.v[q].mul_add(g, k[i]);
                    w[i] = g.mul_add(before[i], w[i]);
                    let mut back = write.q[first + i];
                    if REMOVES {
                        b[i] = self.removed[q].mul_add(g, b[i]);
                        // What is removed is -row a.
                        a[i] = (-grad_removed[q]).mul_add(before[i], a[i]);
                        back = write.a[first + i];
                    }
                    let w = match REMOVES {
                        true => write.w[first + i],
                        false => self.factors[q] * write.w[first + i],
                    };
                    grad[i] = g.mul_add(w, back_by[q] * back);
                }
            }
            sums.q[first..][..LANES].copy_from_slice(&of_q);
            sums.k[first..][..LANES].copy_from_slice(&k);
            sums.w[first..][..LANES].copy_from_slice(&w);
            if REMOVES {
                sums.b[first..][..LANES].copy_from_slice(&b);
                sums.a[first..][..LANES].copy_from_slice(&a);
            }
        }
        if REMOVES && self.reads_before {
            for (grad, grad_o) in grad.iter_mut().zip(self.grad_o) {
                add_scaled(grad, grad_o, &write.q);
            }
        }
        (grad_v, grad_rows)
    }
}

#[inline(always)]
fn add_scaled<const W: usize>(to: &mut [f32; W], factor: f32, from: &[f32; W]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = factor.mul_add(*from, *to);
    }
}

/// Writes the gradients of a write's vectors, `index` counting all writes.
#[inline(always)]
fn finish<const W: usize, const REMOVES: bool>(
    given: Given<'_>,
    index: usize,
    write: &Write<W>,
    sums: &mut Write<W>,
    grads: &mut Gradients<'_>,
) {
    let (key, t, n) = (given.q.count, index / given.writes, index % given.writes);
    if REMOVES && let Some(beta) = given.beta {
        // Back from a = w k, and beta k as both b and k.
        let (k, beta) = (given.k.load::<W>(t, n), beta.row(t, n)[0]);
        for (i, k) in k.iter().enumerate() {
            let put = sums.b[i] + sums.k[i];
            sums.k[i] = beta.mul_add(put, write.w[i] * sums.a[i]);
            sums.w[i] = k.mul_add(sums.a[i], sums.w[i]);
            sums.b[i] = put;
        }
        grads.removal[index] = dot(&k, &sums.b);
    } else if REMOVES && n == 0 {
        grads.removal[t * key..][..key].copy_from_slice(&sums.a[..key]);
        grads.b[t * key..][..key].copy_from_slice(&sums.b[..key]);
    }
    grads.k[index * key..][..key].copy_from_slice(&sums.k[..key]);
    if n == if given.reads_after {
        given.writes - 1
    } else {
        0
    } {
        grads.q[t * key..][..key].copy_from_slice(&sums.q[..key]);
    }
    if n > 0 {
        return;
    }
    match given.decay {
        DecayPart::Fixed(_) | DecayPart::Value(_) => {}
        DecayPart::Head(_) => grads.decay[t] = dot(&sums.w, &write.w),
        DecayPart::Key(_) => {
            let logs = &mut grads.decay[t * key..][..key];
            for ((log, sum), w) in logs.iter_mut().zip(&sums.w).zip(&write.w) {
                *log = sum * w;
            }
        }
    }
}
