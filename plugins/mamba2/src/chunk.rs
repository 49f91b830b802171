//! One chunk of one block of heads, as matrix products (arXiv 2405.21060, section 6). Everything is
//! relative to the chunk's start, and decays are at most 1, so nothing overflows.
//!
//! A decay from token j to token i is the exponential of a difference of running sums. Where a head
//! forgets fast the sums grow to thousands while the difference stays small, so they are made in
//! float64 and kept as two float32 values: a difference then has its own rounding, not that of the sums.

use longhaul_plugin_kit::gemm::{Mat, gemm_serial};
use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{exp, softplus};

/// Sizes of a block of heads that share B and C.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Heads of the block.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// N.
    pub state: usize,
}

impl Block {
    /// Channels of the block.
    pub fn cols(self) -> usize {
        self.heads * self.head_dim
    }

    /// Values of the block's state, `[N, cols]`.
    pub fn state_values(self) -> usize {
        self.state * self.cols()
    }
}

/// Rows of a matrix that begins at the chunk's first token.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

impl<'a> Part<'a> {
    #[inline(always)]
    pub fn row(self, t: usize, cols: usize) -> &'a [f32] {
        &self.data[t * self.stride..][..cols]
    }

    pub fn mat(self, rows: usize, cols: usize) -> Mat<'a> {
        Mat::new(self.data, rows, cols, self.stride)
    }
}

/// What a chunk reads.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// `[L, cols]`.
    pub x: Part<'a>,
    /// `[L, N]`.
    pub b: Part<'a>,
    /// `[L, N]`.
    pub c: Part<'a>,
    /// `[L, heads]`, before bias and softplus.
    pub dt: Part<'a>,
    /// `[heads]`: -exp(A_log).
    pub a: &'a [f32],
    /// `[heads]`.
    pub d: &'a [f32],
    /// `[heads]`.
    pub dt_bias: &'a [f32],
    /// L, tokens of the chunk.
    pub length: usize,
}

/// Buffers of one thread.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `[heads, L]`: dt after softplus.
    pub dt: Vec<f32>,
    /// `[heads, L]`: sums s of dt a from the chunk's start, each token's own included.
    sums: Vec<f32>,
    /// `[heads, L]`: what rounding the sums left out.
    rests: Vec<f32>,
    /// `[heads, L]`: exp(s_t), what is left after token t of the state before.
    pub kept: Vec<f32>,
    /// `[heads, L]`: exp(s_L - s_t), what is left of token t in the state after.
    pub left: Vec<f32>,
    /// `[L, cols]`: dt x.
    pub inputs: Vec<f32>,
    /// `[L, cols]`: dt x as it is left in the state after.
    pub scaled: Vec<f32>,
    /// `[L, L]`: C Bᵀ.
    pub products: Vec<f32>,
    /// `[L, L]`: exp(s_i - s_j) for j <= i, else 0.
    pub decays: Vec<f32>,
    /// `[L, L]`: products times decays.
    pub mixing: Vec<f32>,
    /// `[L, L]`: gradient of the mixing.
    pub grad_mixing: Vec<f32>,
    /// `[L, L]`: gradient of the products.
    pub grad_products: Vec<f32>,
    /// `[L, cols]`: C S of the state before, or its gradient.
    pub read: Vec<f32>,
    /// `[heads, L]`: gradient of dt a.
    pub grad_steps: Vec<f32>,
    /// `[L]`: sums over later tokens.
    pub later: Vec<f32>,
}

impl Scratch {
    /// Makes room, and what both passes begin with: dt and its decays, inputs and C Bᵀ.
    pub fn begin(&mut self, block: Block, given: Given<'_>) {
        let (length, cols) = (given.length, block.cols());
        let (square, count) = (length * length, block.heads * length);
        for (buffer, count) in [
            (&mut self.dt, count),
            (&mut self.sums, count),
            (&mut self.rests, count),
            (&mut self.kept, count),
            (&mut self.left, count),
            (&mut self.inputs, length * cols),
            (&mut self.scaled, length * cols),
            (&mut self.products, square),
            (&mut self.decays, square),
            (&mut self.mixing, square),
            (&mut self.grad_mixing, square),
            (&mut self.grad_products, square),
            (&mut self.read, length * cols),
            (&mut self.grad_steps, count),
            (&mut self.later, length),
        ] {
            if buffer.len() < count {
                buffer.resize(count, 0.0);
            }
        }
        let (dt, sums) = (&mut self.dt[..count], &mut self.sums[..count]);
        steps(block, given, dt, sums, &mut self.rests[..count]);
        let (kept, left) = (&mut self.kept[..count], &mut self.left[..count]);
        decays_over_chunk(length, &self.sums, &self.rests, kept, left);
        let (inputs, scaled) = (&mut self.inputs, &mut self.scaled);
        scale_inputs(block, given, &self.dt, &self.left, inputs, scaled);
        let b = given.b.mat(length, block.state);
        let c = given.c.mat(length, block.state);
        gemm_serial(&mut self.products[..square], length, c, b.t(), 1.0, 0.0);
    }

    /// Fills `decays` for a head.
    pub fn fill_decays(&mut self, head: usize, length: usize) {
        let place = head * length..(head + 1) * length;
        let (sums, rests) = (&self.sums[place.clone()], &self.rests[place]);
        decays(sums, rests, &mut self.decays[..length * length]);
    }

    /// Fills `mixing` from products and decays.
    pub fn fill_mixing(&mut self, length: usize) {
        let (products, decays) = (&self.products, &self.decays);
        multiply(products, decays, &mut self.mixing[..length * length]);
    }
}

simd! {
    fn steps(block: Block, given: Given<'_>, dt: &mut [f32], sums: &mut [f32], rests: &mut [f32]) {
        let length = given.length;
        for t in 0..length {
            let raw = given.dt.row(t, block.heads);
            for head in 0..block.heads {
                dt[head * length + t] = raw[head] + given.dt_bias[head];
            }
        }
        for dt in dt.iter_mut() {
            *dt = softplus(*dt);
        }
        for head in 0..block.heads {
            let mut total = 0.0f64;
            for at in head * length..(head + 1) * length {
                total += f64::from(dt[at]) * f64::from(given.a[head]);
                sums[at] = total as f32;
                rests[at] = (total - f64::from(sums[at])) as f32;
            }
        }
    }
}

simd! {
    /// What is left of the state before after each token, and of each token after the last.
    fn decays_over_chunk(
        length: usize,
        sums: &[f32],
        rests: &[f32],
        kept: &mut [f32],
        left: &mut [f32],
    ) {
        for (kept, sum) in kept.iter_mut().zip(sums) {
            *kept = exp(*sum);
        }
        for (head, left) in left.chunks_exact_mut(length).enumerate() {
            let place = head * length..(head + 1) * length;
            let (sums, rests) = (&sums[place.clone()], &rests[place]);
            let (top, rest) = (sums[length - 1], rests[length - 1]);
            for ((left, sum), low) in left.iter_mut().zip(sums).zip(rests) {
                *left = exp((top - sum) + (rest - low));
            }
        }
    }
}

simd! {
    /// `decays[i, j] = exp(s_i - s_j)` for j <= i, else 0.
    fn decays(sums: &[f32], rests: &[f32], decays: &mut [f32]) {
        let length = sums.len();
        for (i, row) in decays.chunks_exact_mut(length).enumerate() {
            let (top, rest) = (sums[i], rests[i]);
            let (seen, unseen) = row.split_at_mut(i + 1);
            for ((decay, sum), low) in seen.iter_mut().zip(sums).zip(rests) {
                *decay = exp((top - sum) + (rest - low));
            }
            unseen.fill(0.0);
        }
    }
}

simd! {
    fn multiply(a: &[f32], b: &[f32], product: &mut [f32]) {
        for ((product, a), b) in product.iter_mut().zip(a).zip(b) {
            *product = a * b;
        }
    }
}

simd! {
    /// `inputs = dt x`, and `scaled` what is left of them in the state after.
    fn scale_inputs(
        block: Block,
        given: Given<'_>,
        dt: &[f32],
        left: &[f32],
        inputs: &mut [f32],
        scaled: &mut [f32],
    ) {
        let (length, cols, width) = (given.length, block.cols(), block.head_dim);
        for t in 0..length {
            let x = given.x.row(t, cols);
            let (inputs, scaled) = (&mut inputs[t * cols..][..cols], &mut scaled[t * cols..][..cols]);
            for head in 0..block.heads {
                let (step, left) = (dt[head * length + t], left[head * length + t]);
                let x = &x[head * width..][..width];
                let inputs = inputs[head * width..][..width].iter_mut();
                let scaled = scaled[head * width..][..width].iter_mut();
                for ((input, scaled), x) in inputs.zip(scaled).zip(x) {
                    *input = step * x;
                    *scaled = left * *input;
                }
            }
        }
    }
}

/// Writes y `[L, cols]` and brings `state` `[N, cols]` from before the chunk to after it.
pub(crate) fn forward(
    block: Block,
    given: Given<'_>,
    state: &mut [f32],
    y: &mut [f32],
    scratch: &mut Scratch,
) {
    let (length, cols, n) = (given.length, block.cols(), block.state);
    scratch.begin(block, given);
    let (b, c) = (given.b.mat(length, n), given.c.mat(length, n));
    let y = &mut y[..length * cols];
    // What the state before says: C S, decayed by head.
    gemm_serial(y, cols, c, Mat::new(state, n, cols, cols), 1.0, 0.0);
    scale_rows(block, given, &scratch.kept, y);
    // What the chunk's own tokens say.
    for head in 0..block.heads {
        scratch.fill_decays(head, length);
        scratch.fill_mixing(length);
        let start = head * block.head_dim;
        let mixing = Mat::new(&scratch.mixing, length, length, length);
        let inputs = Mat::new(&scratch.inputs[start..], length, block.head_dim, cols);
        gemm_serial(&mut y[start..], cols, mixing, inputs, 1.0, 1.0);
    }
    // The state after: the old one decayed, and each token's share.
    decay_state(block, length, &scratch.kept, state);
    let scaled = Mat::new(&scratch.scaled, length, cols, cols);
    gemm_serial(state, cols, b.t(), scaled, 1.0, 1.0);
}

simd! {
    /// Multiplies every head's share of row i by exp(s_i) and adds D x.
    fn scale_rows(block: Block, given: Given<'_>, kept: &[f32], y: &mut [f32]) {
        let (length, width) = (given.length, block.head_dim);
        for (t, row) in y.chunks_exact_mut(block.cols()).enumerate() {
            let x = given.x.row(t, block.cols());
            for head in 0..block.heads {
                let (factor, skip) = (kept[head * length + t], given.d[head]);
                let x = &x[head * width..][..width];
                for (value, x) in row[head * width..][..width].iter_mut().zip(x) {
                    *value = value.mul_add(factor, skip * x);
                }
            }
        }
    }
}

simd! {
    /// Multiplies every head's share of a state by exp(s_L).
    pub(crate) fn decay_state(block: Block, length: usize, kept: &[f32], state: &mut [f32]) {
        for head in 0..block.heads {
            let factor = kept[head * length + length - 1];
            for row in state.chunks_exact_mut(block.cols()) {
                for value in &mut row[head * block.head_dim..][..block.head_dim] {
                    *value *= factor;
                }
            }
        }
    }
}
