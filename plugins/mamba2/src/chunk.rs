//! One chunk of one block of heads, as matrix products (arXiv 2405.21060, section 6). Everything is
//! relative to the chunk's start, and decays are at most 1, so nothing overflows.

use longhaul_plugin_kit::gemm::{Mat, gemm_serial};
use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{dot, exp, sigmoid, softplus};

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
    fn row(self, t: usize, cols: usize) -> &'a [f32] {
        &self.data[t * self.stride..][..cols]
    }

    fn mat(self, rows: usize, cols: usize) -> Mat<'a> {
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
    dt: Vec<f32>,
    /// `[heads, L]`: sums of dt a from the chunk's start, each token's own included.
    sums: Vec<f32>,
    /// `[L, L]`: C Bᵀ.
    products: Vec<f32>,
    /// `[L, L]`: exp(s_i - s_j) dt_j for j <= i, else 0.
    weights: Vec<f32>,
    /// `[L, L]`: products times weights.
    mixing: Vec<f32>,
    /// `[L, L]`: gradient of the mixing.
    grad_mixing: Vec<f32>,
    /// `[L, L]`: gradient of the products.
    grad_products: Vec<f32>,
    /// `[L, cols]`: x times each token's share in the new state.
    scaled: Vec<f32>,
    /// `[L, cols]`: C S of the state before, or its gradient.
    read: Vec<f32>,
    /// `[heads, L]`: gradient of the sums.
    grad_sums: Vec<f32>,
    /// `[heads, L]`: gradient of dt after softplus.
    grad_dt: Vec<f32>,
}

impl Scratch {
    fn prepare(&mut self, block: Block, length: usize) {
        let square = length * length;
        for (buffer, count) in [
            (&mut self.dt, block.heads * length),
            (&mut self.sums, block.heads * length),
            (&mut self.products, square),
            (&mut self.weights, square),
            (&mut self.mixing, square),
            (&mut self.grad_mixing, square),
            (&mut self.grad_products, square),
            (&mut self.scaled, length * block.cols()),
            (&mut self.read, length * block.cols()),
            (&mut self.grad_sums, block.heads * length),
            (&mut self.grad_dt, block.heads * length),
        ] {
            if buffer.len() < count {
                buffer.resize(count, 0.0);
            }
        }
    }

    /// dt and its running sums for every head.
    fn steps(&mut self, block: Block, given: Given<'_>) {
        let count = block.heads * given.length;
        steps(block, given, &mut self.dt[..count], &mut self.sums[..count]);
    }
}

simd! {
    fn steps(block: Block, given: Given<'_>, dt: &mut [f32], sums: &mut [f32]) {
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
            let mut total = 0.0;
            for at in head * length..(head + 1) * length {
                total += dt[at] * given.a[head];
                sums[at] = total;
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
    scratch.prepare(block, length);
    scratch.steps(block, given);
    let (b, c) = (given.b.mat(length, n), given.c.mat(length, n));
    let y = &mut y[..length * cols];
    // What the state before says: C S, decayed by head.
    gemm_serial(y, cols, c, Mat::new(state, n, cols, cols), 1.0, 0.0);
    scale_rows(block, given, &scratch.sums, y);
    // What the chunk's own tokens say.
    let products = &mut scratch.products[..length * length];
    gemm_serial(products, length, c, b.t(), 1.0, 0.0);
    for head in 0..block.heads {
        let steps = &scratch.dt[head * length..][..length];
        let sums = &scratch.sums[head * length..][..length];
        let weights = &mut scratch.weights[..length * length];
        weigh(steps, sums, weights);
        let mixing = &mut scratch.mixing[..length * length];
        multiply(products, weights, mixing);
        let start = head * block.head_dim;
        let x = Mat::new(
            &given.x.data[start..],
            length,
            block.head_dim,
            given.x.stride,
        );
        let mixing = Mat::new(mixing, length, length, length);
        gemm_serial(&mut y[start..], cols, mixing, x, 1.0, 1.0);
    }
    // The state after: the old one decayed, and each token's share.
    scale_inputs(
        block,
        given,
        &scratch.dt,
        &scratch.sums,
        &mut scratch.scaled,
    );
    decay_state(block, &scratch.sums, length, state);
    let scaled = Mat::new(&scratch.scaled, length, cols, cols);
    gemm_serial(state, cols, b.t(), scaled, 1.0, 1.0);
}

/// Places for a chunk's gradients.
pub(crate) struct Gradients<'a> {
    /// `[L, cols]`, written.
    pub x: &'a mut [f32],
    /// `[L, N]`, written.
    pub b: &'a mut [f32],
    /// `[L, N]`, written.
    pub c: &'a mut [f32],
    /// `[L, heads]`, written: of dt before bias and softplus.
    pub dt: &'a mut [f32],
    /// `[heads]`, added to: of A = -exp(A_log).
    pub a: &'a mut [f32],
    /// `[heads]`, added to.
    pub d: &'a mut [f32],
    /// `[heads]`, added to.
    pub dt_bias: &'a mut [f32],
}

/// Gradients of a chunk. `grad_state` `[N, cols]` is that of the state after it and becomes that of
/// `state`, the state before it.
pub(crate) fn backward(
    block: Block,
    given: Given<'_>,
    state: &[f32],
    grad_y: Part<'_>,
    grad_state: &mut [f32],
    grads: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let (length, cols, n) = (given.length, block.cols(), block.state);
    scratch.prepare(block, length);
    scratch.steps(block, given);
    scratch.grad_sums[..block.heads * length].fill(0.0);
    scratch.grad_dt[..block.heads * length].fill(0.0);
    let (b, c) = (given.b.mat(length, n), given.c.mat(length, n));
    let square = length * length;
    gemm_serial(&mut scratch.products[..square], length, c, b.t(), 1.0, 0.0);
    // Shares in the state after: scaled = w x with w = exp(s_L - s_j) dt_j, S' = e^{s_L} S + Bᵀ scaled.
    scale_inputs(
        block,
        given,
        &scratch.dt,
        &scratch.sums,
        &mut scratch.scaled,
    );
    let grad_after = Mat::new(grad_state, n, cols, cols);
    gemm_serial(grads.x, cols, b, grad_after, 1.0, 0.0);
    let scaled = Mat::new(&scratch.scaled, length, cols, cols);
    gemm_serial(grads.b, n, scaled, grad_after.t(), 1.0, 0.0);
    share_gradients(block, given, state, grad_state, grads.x, scratch);
    decay_state(block, &scratch.sums, length, grad_state);
    // What the state before said: y += e^{s_i} C S.
    let read = &mut scratch.read[..length * cols];
    gemm_serial(read, cols, c, Mat::new(state, n, cols, cols), 1.0, 0.0);
    read_gradients(
        block,
        given,
        grad_y,
        &scratch.sums,
        &mut scratch.grad_sums,
        read,
    );
    let read = Mat::new(read, length, cols, cols);
    gemm_serial(
        grads.c,
        n,
        read,
        Mat::new(state, n, cols, cols).t(),
        1.0,
        0.0,
    );
    gemm_serial(grad_state, cols, c.t(), read, 1.0, 1.0);
    // What the chunk's own tokens said.
    scratch.grad_products[..square].fill(0.0);
    for head in 0..block.heads {
        head_gradients(block, given, grad_y, head, grads.x, scratch);
    }
    let grad_products = Mat::new(&scratch.grad_products, length, length, length);
    gemm_serial(grads.c, n, grad_products, b, 1.0, 1.0);
    gemm_serial(grads.b, n, grad_products.t(), c, 1.0, 1.0);
    skip_gradients(block, given, grad_y, grads);
    step_gradients(block, given, grads, scratch);
}

simd! {
    /// `weights[i, j] = exp(s_i - s_j) dt_j` for j <= i, else 0.
    fn weigh(steps: &[f32], sums: &[f32], weights: &mut [f32]) {
        let length = steps.len();
        for (i, row) in weights.chunks_exact_mut(length).enumerate() {
            let top = sums[i];
            let (seen, unseen) = row.split_at_mut(i + 1);
            for ((weight, sum), step) in seen.iter_mut().zip(sums).zip(steps) {
                *weight = exp(top - sum) * step;
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
    /// Multiplies every head's share of row i by exp(s_i).
    fn scale_rows(block: Block, given: Given<'_>, sums: &[f32], y: &mut [f32]) {
        let length = given.length;
        for (t, row) in y.chunks_exact_mut(block.cols()).enumerate() {
            for (head, values) in row.chunks_exact_mut(block.head_dim).enumerate() {
                let x = &given.x.data[t * given.x.stride + head * block.head_dim..];
                let (factor, skip) = (exp(sums[head * length + t]), given.d[head]);
                for (value, x) in values.iter_mut().zip(x) {
                    *value = value.mul_add(factor, skip * x);
                }
            }
        }
    }
}

simd! {
    /// `scaled = exp(s_L - s_j) dt_j x`.
    fn scale_inputs(
        block: Block,
        given: Given<'_>,
        steps: &[f32],
        sums: &[f32],
        scaled: &mut [f32],
    ) {
        let (length, cols) = (given.length, block.cols());
        for t in 0..length {
            let x = &given.x.data[t * given.x.stride..][..cols];
            let row = &mut scaled[t * cols..][..cols];
            for head in 0..block.heads {
                let at = head * length;
                let factor = exp(sums[at + length - 1] - sums[at + t]) * steps[at + t];
                let start = head * block.head_dim;
                let x = &x[start..][..block.head_dim];
                for (value, x) in row[start..][..block.head_dim].iter_mut().zip(x) {
                    *value = factor * x;
                }
            }
        }
    }
}

simd! {
    /// Multiplies every head's share of a state by exp(s_L).
    fn decay_state(block: Block, sums: &[f32], length: usize, state: &mut [f32]) {
        for head in 0..block.heads {
            let factor = exp(sums[head * length + length - 1]);
            for row in state.chunks_exact_mut(block.cols()) {
                for value in &mut row[head * block.head_dim..][..block.head_dim] {
                    *value *= factor;
                }
            }
        }
    }
}

simd! {
    /// From the gradient of `scaled` (in `grad_x`) to those of x, dt and the sums; and the decay of
    /// the old state's part in those of the sums.
    fn share_gradients(
        block: Block,
        given: Given<'_>,
        state: &[f32],
        grad_state: &[f32],
        grad_x: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (length, cols, width) = (given.length, block.cols(), block.head_dim);
        for head in 0..block.heads {
            let (at, start) = (head * length, head * width);
            let last = scratch.sums[at + length - 1];
            let mut grad_last = 0.0;
            for t in 0..length {
                let decay = exp(last - scratch.sums[at + t]);
                let share = decay * scratch.dt[at + t];
                let x = &given.x.data[t * given.x.stride + start..][..width];
                let grad = &mut grad_x[t * cols + start..][..width];
                let grad_share = dot(x, grad);
                for value in grad.iter_mut() {
                    *value *= share;
                }
                scratch.grad_dt[at + t] += grad_share * decay;
                scratch.grad_sums[at + t] -= grad_share * share;
                grad_last += grad_share * share;
            }
            let mut kept = 0.0;
            for (state, grad) in state.chunks_exact(cols).zip(grad_state.chunks_exact(cols)) {
                kept += dot(&state[start..][..width], &grad[start..][..width]);
            }
            scratch.grad_sums[at + length - 1] += grad_last + kept * exp(last);
        }
    }
}

simd! {
    /// `read` holds C S; its part in y was exp(s_i) times that. Leaves the gradient of C S.
    fn read_gradients(
        block: Block,
        given: Given<'_>,
        grad_y: Part<'_>,
        sums: &[f32],
        grad_sums: &mut [f32],
        read: &mut [f32],
    ) {
        let (length, width) = (given.length, block.head_dim);
        for (t, row) in read.chunks_exact_mut(block.cols()).enumerate() {
            for (head, values) in row.chunks_exact_mut(width).enumerate() {
                let grad = &grad_y.data[t * grad_y.stride + head * width..][..width];
                let factor = exp(sums[head * length + t]);
                grad_sums[head * length + t] += factor * dot(grad, values);
                for (value, grad) in values.iter_mut().zip(grad) {
                    *value = factor * grad;
                }
            }
        }
    }
}

/// One head's gradients inside the chunk.
fn head_gradients(
    block: Block,
    given: Given<'_>,
    grad_y: Part<'_>,
    head: usize,
    grad_x: &mut [f32],
    scratch: &mut Scratch,
) {
    let (length, width, cols) = (given.length, block.head_dim, block.cols());
    let (start, square) = (head * width, length * length);
    let steps = &scratch.dt[head * length..][..length];
    let sums = &scratch.sums[head * length..][..length];
    weigh(steps, sums, &mut scratch.weights[..square]);
    let x = Mat::new(&given.x.data[start..], length, width, given.x.stride);
    let dy = Mat::new(&grad_y.data[start..], length, width, grad_y.stride);
    gemm_serial(
        &mut scratch.grad_mixing[..square],
        length,
        dy,
        x.t(),
        1.0,
        0.0,
    );
    let (products, weights) = (&scratch.products[..square], &scratch.weights[..square]);
    multiply(products, weights, &mut scratch.mixing[..square]);
    let mixing = Mat::new(&scratch.mixing, length, length, length);
    gemm_serial(&mut grad_x[start..], cols, mixing.t(), dy, 1.0, 1.0);
    let at = head * length;
    mixing_gradients(
        &scratch.grad_mixing[..square],
        weights,
        &scratch.mixing[..square],
        steps,
        &mut scratch.grad_products[..square],
        &mut scratch.grad_sums[at..at + length],
        &mut scratch.grad_dt[at..at + length],
    );
}

simd! {
    /// From the gradient of `mixing = products weights` to those of products, sums and dt.
    fn mixing_gradients(
        grad_mixing: &[f32],
        weights: &[f32],
        mixing: &[f32],
        steps: &[f32],
        grad_products: &mut [f32],
        grad_sums: &mut [f32],
        grad_dt: &mut [f32],
    ) {
        let length = steps.len();
        for i in 0..length {
            let row = i * length;
            let seen = i + 1;
            let grad = &grad_mixing[row..][..seen];
            let weights = &weights[row..][..seen];
            let mixing = &mixing[row..][..seen];
            let products = &mut grad_products[row..][..seen];
            for j in 0..seen {
                products[j] = grad[j].mul_add(weights[j], products[j]);
            }
            let sums = &mut grad_sums[..seen];
            for j in 0..seen {
                sums[j] -= grad[j] * mixing[j];
            }
            grad_sums[i] += dot(grad, mixing);
            let (steps, grad_dt) = (&steps[..seen], &mut grad_dt[..seen]);
            for j in 0..seen {
                // A step of 0 has no weight to divide; softplus gives it no gradient either.
                let step = if steps[j] > 1e-30 { steps[j] } else { 1e30 };
                grad_dt[j] += grad[j] * mixing[j] / step;
            }
        }
    }
}

simd! {
    /// y += D x.
    fn skip_gradients(block: Block, given: Given<'_>, grad_y: Part<'_>, grads: &mut Gradients<'_>) {
        let (cols, width) = (block.cols(), block.head_dim);
        for t in 0..given.length {
            for head in 0..block.heads {
                let start = head * width;
                let x = &given.x.data[t * given.x.stride + start..][..width];
                let dy = &grad_y.data[t * grad_y.stride + start..][..width];
                grads.d[head] += dot(x, dy);
                let skip = given.d[head];
                let grad_x = &mut grads.x[t * cols + start..][..width];
                for (grad, dy) in grad_x.iter_mut().zip(dy) {
                    *grad = dy.mul_add(skip, *grad);
                }
            }
        }
    }
}

simd! {
    /// From the gradients of sums and dt to those of A and of dt before bias and softplus.
    fn step_gradients(block: Block, given: Given<'_>, grads: &mut Gradients<'_>, scratch: &Scratch) {
        let (length, heads) = (given.length, block.heads);
        // The slope of softplus, in the place of what it is a factor of.
        for (t, slopes) in grads.dt.chunks_exact_mut(heads).enumerate() {
            let raw = given.dt.row(t, heads);
            for head in 0..heads {
                slopes[head] = raw[head] + given.dt_bias[head];
            }
        }
        for slope in grads.dt.iter_mut() {
            *slope = sigmoid(*slope);
        }
        for head in 0..heads {
            let mut later = 0.0;
            for t in (0..length).rev() {
                let at = head * length + t;
                later += scratch.grad_sums[at];
                grads.a[head] += later * scratch.dt[at];
                let grad = scratch.grad_dt[at] + later * given.a[head];
                let grad = grad * grads.dt[t * heads + head];
                grads.dt[t * heads + head] = grad;
                grads.dt_bias[head] += grad;
            }
        }
    }
}
