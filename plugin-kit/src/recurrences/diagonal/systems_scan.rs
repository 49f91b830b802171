//! Systems token by token on the CPU, some channels at a time so that their states stay in the first-level cache;
//! channels in vectors. Arrays of complex numbers are `[2, N, H]`, real parts before imaginary ones.

use crate::engine::operation::Rows;
use crate::simd;

/// Channels that go through all tokens together.
pub(super) const BLOCK: usize = 32;

/// Tokens from one kept state to the next, between which the backward pass computes the states again.
pub(super) const CHUNK: usize = 16;

/// What the tokens of one sequence are computed from.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// `[2, N, H]`: transitions.
    pub a: &'a [f32],
    /// `[2, N, H]`: weights of the states in y.
    pub c: &'a [f32],
    /// `[T, H]`.
    pub u: Rows<'a>,
}

impl Given<'_> {
    /// N.
    #[inline(always)]
    fn states(self) -> usize {
        self.a.len() / 2 / self.u.cols
    }
}

/// The part of `[2, N, H]` that a state of some channels has: real and imaginary.
#[inline(always)]
fn at(values: &[f32], start: usize, count: usize) -> (&[f32], &[f32]) {
    let half = values.len() / 2;
    (&values[start..][..count], &values[half + start..][..count])
}

#[inline(always)]
fn at_mut(values: &mut [f32], start: usize, count: usize) -> (&mut [f32], &mut [f32]) {
    let (re, im) = values.split_at_mut(values.len() / 2);
    (&mut re[start..][..count], &mut im[start..][..count])
}

/// `x = a x + u` of one state of some channels. Here and below slices are arguments of their own: only so does the
/// compiler know that they do not overlap.
#[inline(always)]
fn step((a_re, a_im): (&[f32], &[f32]), u: &[f32], re: &mut [f32], im: &mut [f32]) {
    let count = u.len();
    let (a_re, a_im) = (&a_re[..count], &a_im[..count]);
    let (re, im) = (&mut re[..count], &mut im[..count]);
    for h in 0..count {
        let (was_re, was_im) = (re[h], im[h]);
        re[h] = a_re[h].mul_add(was_re, (-a_im[h]).mul_add(was_im, u[h]));
        im[h] = a_re[h].mul_add(was_im, a_im[h] * was_re);
    }
}

/// `y += Re c x`.
#[inline(always)]
fn add_weighted((c_re, c_im): (&[f32], &[f32]), re: &[f32], im: &[f32], y: &mut [f32]) {
    let count = y.len();
    let (c_re, c_im) = (&c_re[..count], &c_im[..count]);
    let (re, im) = (&re[..count], &im[..count]);
    for h in 0..count {
        y[h] = c_re[h].mul_add(re[h], (-c_im[h]).mul_add(im[h], y[h]));
    }
}

simd! {
    /// Writes y `[T, H]` and leaves the last states in `state` `[2, N, H]`; `kept` `[chunks, 2, N, H]` has what every
    /// chunk begins with, where it is not empty.
    pub(super) fn advance(given: Given<'_>, state: &mut [f32], kept: &mut [f32], y: &mut [f32]) {
        let (channels, states, width) = (given.u.cols, given.states(), state.len());
        for first in (0..channels).step_by(BLOCK) {
            let count = BLOCK.min(channels - first);
            for (t, y) in y.chunks_exact_mut(channels).enumerate() {
                let (u, y) = (&given.u.row(t)[first..][..count], &mut y[first..][..count]);
                y.fill(0.0);
                for n in 0..states {
                    let start = n * channels + first;
                    let (re, im) = at_mut(state, start, count);
                    if t % CHUNK == 0 && !kept.is_empty() {
                        let kept = &mut kept[t / CHUNK * width..][..width];
                        let (kept_re, kept_im) = at_mut(kept, start, count);
                        kept_re.copy_from_slice(re);
                        kept_im.copy_from_slice(im);
                    }
                    step(at(given.a, start, count), u, re, im);
                    add_weighted(at(given.c, start, count), re, im, y);
                }
            }
        }
    }
}

/// Gradients of one sequence, written or added to.
pub(super) struct Gradients<'a> {
    /// `[2, N, H]`: of the transitions, added to.
    pub a: &'a mut [f32],
    /// `[2, N, H]`: of the weights, added to.
    pub c: &'a mut [f32],
    /// `[T, H]`: of u, written.
    pub u: &'a mut [f32],
}

simd! {
    /// Gradients from that of y `[T, H]`, last token first. `carried` `[2, N, H]` is 0 at first; `again` has room for
    /// the states of a chunk, `[CHUNK + 1, 2, N, BLOCK]`.
    pub(super) fn retreat(
        given: Given<'_>,
        kept: &[f32],
        grad_y: Rows<'_>,
        carried: &mut [f32],
        again: &mut [f32],
        grads: Gradients<'_>,
    ) {
        let (channels, states, width) = (given.u.cols, given.states(), carried.len());
        let length = grads.u.len() / channels;
        let Gradients { a: grad_a, c: grad_c, u: grad_u } = grads;
        grad_u.fill(0.0);
        for first in (0..channels).step_by(BLOCK) {
            let count = BLOCK.min(channels - first);
            for begin in (0..length).step_by(CHUNK).rev() {
                let tokens = CHUNK.min(length - begin);
                let kept = &kept[begin / CHUNK * width..][..width];
                for n in 0..states {
                    let start = n * channels + first;
                    // States before each token and after the last, of this n alone.
                    let (again_re, again_im) = again.split_at_mut((CHUNK + 1) * BLOCK);
                    let (kept_re, kept_im) = at(kept, start, count);
                    again_re[..count].copy_from_slice(kept_re);
                    again_im[..count].copy_from_slice(kept_im);
                    for t in 0..tokens {
                        let (was_re, re) = again_re[t * BLOCK..].split_at_mut(BLOCK);
                        let (was_im, im) = again_im[t * BLOCK..].split_at_mut(BLOCK);
                        re[..count].copy_from_slice(&was_re[..count]);
                        im[..count].copy_from_slice(&was_im[..count]);
                        let u = &given.u.row(begin + t)[first..][..count];
                        step(at(given.a, start, count), u, re, im);
                    }
                    for t in (0..tokens).rev() {
                        let dy = &grad_y.row(begin + t)[first..][..count];
                        let was = (&again_re[t * BLOCK..][..count], &again_im[t * BLOCK..][..count]);
                        let now = (&again_re[(t + 1) * BLOCK..][..count], &again_im[(t + 1) * BLOCK..][..count]);
                        let du = &mut grad_u[(begin + t) * channels + first..][..count];
                        let numbers = Numbers { a: at(given.a, start, count), c: at(given.c, start, count), was, now };
                        let (re, im) = at_mut(carried, start, count);
                        let (da_re, da_im) = at_mut(grad_a, start, count);
                        let (dc_re, dc_im) = at_mut(grad_c, start, count);
                        step_back(numbers, dy, re, im, da_re, da_im, dc_re, dc_im, du);
                    }
                }
            }
        }
    }
}

/// What a token's step back reads of one state of some channels.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    a: (&'a [f32], &'a [f32]),
    c: (&'a [f32], &'a [f32]),
    /// The state before the token.
    was: (&'a [f32], &'a [f32]),
    /// The state after it.
    now: (&'a [f32], &'a [f32]),
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn step_back(
    numbers: Numbers<'_>,
    dy: &[f32],
    re: &mut [f32],
    im: &mut [f32],
    da_re: &mut [f32],
    da_im: &mut [f32],
    dc_re: &mut [f32],
    dc_im: &mut [f32],
    du: &mut [f32],
) {
    let count = dy.len();
    let [a, c, was, now] = [numbers.a, numbers.c, numbers.was, numbers.now]
        .map(|(re, im)| (&re[..count], &im[..count]));
    let (re, im, du) = (&mut re[..count], &mut im[..count], &mut du[..count]);
    let (da_re, da_im) = (&mut da_re[..count], &mut da_im[..count]);
    let (dc_re, dc_im) = (&mut dc_re[..count], &mut dc_im[..count]);
    for h in 0..count {
        // y has the real part of c x.
        dc_re[h] = dy[h].mul_add(now.0[h], dc_re[h]);
        dc_im[h] = (-dy[h]).mul_add(now.1[h], dc_im[h]);
        let g_re = dy[h].mul_add(c.0[h], re[h]);
        let g_im = (-dy[h]).mul_add(c.1[h], im[h]);
        du[h] += g_re;
        da_re[h] = g_re.mul_add(was.0[h], g_im.mul_add(was.1[h], da_re[h]));
        da_im[h] = g_im.mul_add(was.0[h], (-g_re).mul_add(was.1[h], da_im[h]));
        re[h] = a.0[h].mul_add(g_re, a.1[h] * g_im);
        im[h] = a.0[h].mul_add(g_im, -(a.1[h] * g_re));
    }
}
