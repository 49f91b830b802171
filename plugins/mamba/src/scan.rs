//! The selective scan of one block of channels, one step after another. Channels are what a vector
//! holds, so that sums over the state need no shuffles; the block's state stays in the first-level
//! cache.

use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{exp, sigmoid, softplus};

/// Channels of a block.
pub(crate) const BLOCK: usize = 32;

/// Tokens between kept states.
pub(crate) const CHUNK: usize = 32;

/// Rows of a matrix from a token and column on; only the first `count` columns are the block's.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub count: usize,
}

impl Part<'_> {
    /// The block's values at a token; channels past the last are 0.
    #[inline(always)]
    fn load(self, t: usize) -> [f32; BLOCK] {
        let row = &self.data[t * self.stride..];
        if self.count == BLOCK {
            return row[..BLOCK].try_into().expect("a block");
        }
        let mut values = [0.0; BLOCK];
        values[..self.count].copy_from_slice(&row[..self.count]);
        values
    }
}

/// What a block reads, from a token on.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// `[T, BLOCK]`.
    pub u: Part<'a>,
    /// `[T, BLOCK]`, before softplus.
    pub delta: Part<'a>,
    /// `[T, N]`.
    pub b: Part<'a>,
    /// `[T, N]`.
    pub c: Part<'a>,
    /// `[N, BLOCK]`: A.
    pub a: &'a [f32],
    /// `[BLOCK]`: D.
    pub d: &'a [f32],
    /// Tokens.
    pub length: usize,
    /// Whether transitions are `2 exp(delta A) - 1`.
    pub negative: bool,
}

#[inline(always)]
fn block(values: &[f32], n: usize) -> &[f32; BLOCK] {
    values[n * BLOCK..][..BLOCK].try_into().expect("a block")
}

#[inline(always)]
fn block_mut(values: &mut [f32], n: usize) -> &mut [f32; BLOCK] {
    (&mut values[n * BLOCK..][..BLOCK])
        .try_into()
        .expect("a block")
}

#[inline(always)]
fn steps(raw: [f32; BLOCK]) -> [f32; BLOCK] {
    let mut steps = [0.0; BLOCK];
    for i in 0..BLOCK {
        steps[i] = softplus(raw[i]);
    }
    steps
}

simd! {
    /// Writes y `[T, BLOCK]`, brings h `[N, BLOCK]` to the last token, and keeps h before every
    /// `CHUNK` tokens in `kept` where there is room.
    pub(crate) fn forward(given: Given<'_>, h: &mut [f32], y: &mut [f32], kept: &mut [f32]) {
        let states = given.a.len() / BLOCK;
        let (scale, shift) = if given.negative { (2.0, -1.0) } else { (1.0, 0.0) };
        for t in 0..given.length {
            if t % CHUNK == 0 && !kept.is_empty() {
                kept[t / CHUNK * h.len()..][..h.len()].copy_from_slice(h);
            }
            let u = given.u.load(t);
            let step = steps(given.delta.load(t));
            let b = &given.b.data[t * given.b.stride..][..states];
            let c = &given.c.data[t * given.c.stride..][..states];
            let mut input = [0.0; BLOCK];
            let mut sum = [0.0; BLOCK];
            for i in 0..BLOCK {
                input[i] = step[i] * u[i];
                sum[i] = given.d[i] * u[i];
            }
            for n in 0..states {
                let (a, h) = (block(given.a, n), block_mut(h, n));
                let (b, c) = (b[n], c[n]);
                for i in 0..BLOCK {
                    let decay = exp(step[i] * a[i]).mul_add(scale, shift);
                    h[i] = decay.mul_add(h[i], input[i] * b);
                    sum[i] = c.mul_add(h[i], sum[i]);
                }
            }
            y[t * BLOCK..][..BLOCK].copy_from_slice(&sum);
        }
    }
}

/// Places for the gradients of a chunk of tokens.
pub(crate) struct Gradients<'a> {
    /// `[L, BLOCK]`, written.
    pub u: &'a mut [f32],
    /// `[L, BLOCK]`, written: of delta before softplus.
    pub delta: &'a mut [f32],
    /// `[L, N]`, written: this block's share.
    pub b: &'a mut [f32],
    /// `[L, N]`, written: this block's share.
    pub c: &'a mut [f32],
    /// `[N, BLOCK]`, added to: of A.
    pub a: &'a mut [f32],
    /// `[BLOCK]`, added to.
    pub d: &'a mut [f32],
}

/// Buffers of one thread: `[CHUNK, N, BLOCK]` each.
#[derive(Default)]
pub(crate) struct Scratch {
    /// h before each token.
    before: Vec<f32>,
    /// exp(delta A).
    powers: Vec<f32>,
}

simd! {
    /// Gradients of at most `CHUNK` tokens. `h` `[N, BLOCK]` is the state before them (and is used
    /// up); `grad_h` is the gradient of the state after them and becomes that of the state before.
    pub(crate) fn backward(
        given: Given<'_>,
        h: &mut [f32],
        grad_y: Part<'_>,
        grad_h: &mut [f32],
        grads: &mut Gradients<'_>,
        scratch: &mut Scratch,
    ) {
        let values = h.len();
        let states = values / BLOCK;
        let (scale, shift) = if given.negative { (2.0, -1.0) } else { (1.0, 0.0) };
        if scratch.before.len() < CHUNK * values {
            scratch.before.resize(CHUNK * values, 0.0);
            scratch.powers.resize(CHUNK * values, 0.0);
        }
        for t in 0..given.length {
            let u = given.u.load(t);
            let step = steps(given.delta.load(t));
            let b = &given.b.data[t * given.b.stride..][..states];
            scratch.before[t * values..][..values].copy_from_slice(h);
            let powers = &mut scratch.powers[t * values..][..values];
            for (n, b) in b.iter().enumerate() {
                let (a, h) = (block(given.a, n), block_mut(h, n));
                let power = block_mut(powers, n);
                for i in 0..BLOCK {
                    power[i] = exp(step[i] * a[i]);
                    let decay = power[i].mul_add(scale, shift);
                    h[i] = decay.mul_add(h[i], step[i] * u[i] * b);
                }
            }
        }
        for t in (0..given.length).rev() {
            let u = given.u.load(t);
            let raw = given.delta.load(t);
            let step = steps(raw);
            let dy = grad_y.load(t);
            let b = &given.b.data[t * given.b.stride..][..states];
            let c = &given.c.data[t * given.c.stride..][..states];
            let before = &scratch.before[t * values..][..values];
            let powers = &scratch.powers[t * values..][..values];
            let mut grad_step = [0.0; BLOCK];
            let mut grad_input = [0.0; BLOCK];
            let mut input = [0.0; BLOCK];
            for i in 0..BLOCK {
                input[i] = step[i] * u[i];
            }
            for n in 0..states {
                let (a, power) = (block(given.a, n), block(powers, n));
                let (before, grad_h) = (block(before, n), block_mut(grad_h, n));
                let grad_a = block_mut(grads.a, n);
                let mut b_parts = [0.0; BLOCK];
                let mut c_parts = [0.0; BLOCK];
                for i in 0..BLOCK {
                    let decay = power[i].mul_add(scale, shift);
                    let after = decay.mul_add(before[i], input[i] * b[n]);
                    let g = c[n].mul_add(dy[i], grad_h[i]);
                    c_parts[i] = dy[i] * after;
                    b_parts[i] = g * input[i];
                    let slope = g * before[i] * scale * power[i];
                    grad_a[i] = slope.mul_add(step[i], grad_a[i]);
                    grad_step[i] = slope.mul_add(a[i], grad_step[i]);
                    grad_input[i] = g.mul_add(b[n], grad_input[i]);
                    grad_h[i] = g * decay;
                }
                grads.b[t * states + n] = longhaul_plugin_kit::simd::sum(&b_parts);
                grads.c[t * states + n] = longhaul_plugin_kit::simd::sum(&c_parts);
            }
            let grad_u = &mut grads.u[t * BLOCK..][..BLOCK];
            let grad_delta = &mut grads.delta[t * BLOCK..][..BLOCK];
            let grad_d = &mut grads.d[..BLOCK];
            for i in 0..BLOCK {
                grad_d[i] += dy[i] * u[i];
                grad_u[i] = dy[i].mul_add(given.d[i], grad_input[i] * step[i]);
                let whole = grad_input[i].mul_add(u[i], grad_step[i]);
                grad_delta[i] = whole * sigmoid(raw[i]);
            }
        }
    }
}
