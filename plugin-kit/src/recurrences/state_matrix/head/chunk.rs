//! One chunk of one block of heads, as matrix products (arXiv 2405.21060, section 6). Everything is
//! relative to the chunk's start, and decays are at most 1, so nothing overflows.
//!
//! A decay from token j to token i is the exponential of a difference of running sums. Where a head
//! forgets fast the sums grow to thousands while the difference stays small, so they are made in
//! float64 and kept as two float32 values: a difference then has its own rounding, not that of the sums.

use super::delta;
use crate::gemm::{Mat, gemm_serial};
use crate::simd;
use crate::simd::exp;

/// Sizes of a block of heads that share queries and keys.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Heads of the block.
    pub heads: usize,
    /// K.
    pub key: usize,
    /// V.
    pub value: usize,
}

impl Block {
    /// Channels of the block.
    pub fn cols(self) -> usize {
        self.heads * self.value
    }

    /// Values of the block's state, `[K, cols]`.
    pub fn state_values(self) -> usize {
        self.key * self.cols()
    }
}

/// Rows of a matrix that begins at the chunk's first token.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
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

/// The logarithms of decays, at most 0.
#[derive(Clone, Copy)]
pub(super) enum Logs<'a> {
    /// Of every token the same, `[heads]`.
    Constant(&'a [f64]),
    /// `[L, heads]`.
    Given(Part<'a>),
}

/// What a chunk reads, of L tokens with M queries and N writes.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// `[M, K]`.
    pub q: Part<'a>,
    /// `[N, K]`.
    pub k: Part<'a>,
    /// `[N, cols]`.
    pub v: Part<'a>,
    pub logs: Logs<'a>,
    /// `[N, heads]`: of the delta rule.
    pub beta: Option<Part<'a>>,
    /// `[L, heads]`: of what is written; never with the delta rule or several writes.
    pub scale: Option<Part<'a>>,
    /// `[heads]`: how much of v goes past the state; empty for none, as with several writes.
    pub skip: &'a [f32],
    /// L, tokens of the chunk.
    pub length: usize,
    /// Keys and values a token; k, v and beta have a row for each. Only the first of a token's decays.
    pub writes: usize,
    /// Queries a token, which read after its last write; q and o have a row for each.
    pub reads: usize,
}

/// Least logarithm that is computed with: its exponential is 0, and sums of it are numbers.
const LEAST: f64 = -1e30;

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[heads, N]`: sums s of the logarithms from the chunk's start, each write's own included.
    sums: Vec<f32>,
    /// `[heads, N]`: what rounding the sums left out.
    rests: Vec<f32>,
    /// `[heads, N]`: exp(s_t), what is left after write t of the state before.
    pub kept: Vec<f32>,
    /// `[heads, N]`: exp(s_N - s_t), what is left of write t in the state after.
    pub left: Vec<f32>,
    /// `[N, cols]`: what is written as it is left in the state after.
    pub scaled: Vec<f32>,
    /// `[N, cols]`: what is written, where that is not v.
    pub values: Vec<f32>,
    /// What only the delta rule needs.
    pub delta: Delta,
    /// `[M, N]`: Q Kᵀ.
    pub products: Vec<f32>,
    /// `[M, N]`: exp(s_i - s_j) for j <= i, else 0; i is the last write of a token, or for the delta rule `[N, N]`.
    pub decays: Vec<f32>,
    /// As large: products times decays.
    pub mixing: Vec<f32>,
    /// As large: gradient of the mixing.
    pub grad_mixing: Vec<f32>,
    /// `[M, N]`: gradient of the products.
    pub grad_products: Vec<f32>,
    /// `[M, cols]`: Q S of the state before, or its gradient.
    pub read: Vec<f32>,
    /// `[heads, N]`: gradient of the logarithms.
    pub grad_logs: Vec<f32>,
    /// `[N]`: sums over later tokens.
    pub later: Vec<f32>,
    /// `[heads]`: what reaches the state after from states before.
    pub reaches: Vec<f32>,
}

/// Buffers of the delta rule, see `delta`.
#[derive(Default)]
pub(super) struct Delta {
    /// `[N, N]`: K Kᵀ.
    pub products: Vec<f32>,
    /// `[N, N]`: gradient of these.
    pub grad_products: Vec<f32>,
    /// `[N, cols]`: K S of the state before.
    pub read: Vec<f32>,
    /// `[N, cols]`: v without what the state holds for its key.
    pub fresh: Vec<f32>,
}

impl<'a> Given<'a> {
    /// N.
    pub fn count(self) -> usize {
        self.length * self.writes
    }

    /// M.
    pub fn queries(self) -> usize {
        self.length * self.reads
    }

    /// What is written, `[N, cols]`: v, or what was made of it.
    pub fn written(self, cols: usize, values: &'a [f32]) -> Part<'a> {
        match (self.beta, self.scale) {
            (None, None) => self.v,
            _ => Part {
                data: values,
                stride: cols,
            },
        }
    }
}

impl Scratch {
    /// Makes room, and what both passes begin with: decays, what is written, and Q Kᵀ.
    pub fn begin(&mut self, block: Block, given: Given<'_>, state: &[f32]) {
        let (queries, writes, cols) = (given.queries(), given.count(), block.cols());
        let (count, square) = (block.heads * writes, writes.max(queries) * writes);
        for (buffer, count) in [
            (&mut self.sums, count),
            (&mut self.rests, count),
            (&mut self.kept, count),
            (&mut self.left, count),
            (&mut self.scaled, writes * cols),
            (&mut self.products, queries * writes),
            (&mut self.decays, square),
            (&mut self.mixing, square),
            (&mut self.grad_mixing, square),
            (&mut self.grad_products, queries * writes),
            (&mut self.read, queries * cols),
            (&mut self.grad_logs, count),
            (&mut self.later, writes),
        ] {
            grow(buffer, count);
        }
        self.reaches.clear();
        self.reaches.resize(block.heads, 0.0);
        let (sums, rests) = (&mut self.sums[..count], &mut self.rests[..count]);
        running_sums(block, given, sums, rests);
        let (kept, left) = (&mut self.kept[..count], &mut self.left[..count]);
        decays_over_chunk(writes, sums, rests, kept, left);
        if let Some(beta) = given.beta {
            grow(&mut self.values, writes * cols);
            delta::forward(block, given, beta, state, self);
        } else if let Some(scale) = given.scale {
            grow(&mut self.values, writes * cols);
            scale_values(block, writes, given.v, scale, &mut self.values);
        }
        let v = given.written(cols, &self.values);
        left_values(block, writes, v, &self.left, &mut self.scaled);
        let q = given.q.mat(queries, block.key);
        let k = given.k.mat(writes, block.key);
        let products = &mut self.products[..queries * writes];
        gemm_serial(products, writes, q, k.t(), 1.0, 0.0);
    }

    /// Fills `mixing` for a head, `[M, N]`, and the decays in it: what is left of write j when query i reads.
    pub fn fill_mixing(&mut self, given: Given<'_>, head: usize) {
        self.fill_decays(given, head, [given.reads, given.writes]);
        let size = given.queries() * given.count();
        multiply(&self.products, &self.decays, &mut self.mixing[..size]);
    }

    /// Fills `mixing` for a head, `[N, N]`, and the decays in it: what is left of write j for write i, only below the
    /// diagonal.
    pub fn fill_key_mixing(&mut self, given: Given<'_>, head: usize) {
        self.fill_decays(given, head, [1, 1]);
        let size = given.count() * given.count();
        multiply(&self.delta.products, &self.decays, &mut self.mixing[..size]);
    }

    /// Fills `decays` for a head, with `rows` for the last of every `step` writes.
    fn fill_decays(&mut self, given: Given<'_>, head: usize, [rows, step]: [usize; 2]) {
        let count = given.count();
        let place = head * count..(head + 1) * count;
        let (sums, rests) = (&self.sums[place.clone()], &self.rests[place]);
        let size = count / step * rows * count;
        decays([rows, step], sums, rests, &mut self.decays[..size]);
    }
}

/// Makes room for so many values.
pub(super) fn grow(buffer: &mut Vec<f32>, count: usize) {
    if buffer.len() < count {
        buffer.resize(count, 0.0);
    }
}

fn running_sums(block: Block, given: Given<'_>, sums: &mut [f32], rests: &mut [f32]) {
    let (writes, count) = (given.writes, given.count());
    for head in 0..block.heads {
        let mut total = 0.0f64;
        for i in 0..count {
            if i % writes == 0 {
                let log = match given.logs {
                    Logs::Constant(logs) => logs[head],
                    Logs::Given(logs) => f64::from(logs.row(i / writes, block.heads)[head]),
                };
                total += log.max(LEAST);
            }
            let sum = total as f32;
            sums[head * count + i] = sum;
            rests[head * count + i] = (total - f64::from(sum)) as f32;
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
    /// `decays[.., j] = exp(s_i - s_j)` for j <= i, else 0, with `rows` for every i that is the last of `step`.
    fn decays(of: [usize; 2], sums: &[f32], rests: &[f32], decays: &mut [f32]) {
        let [rows, step] = of;
        for (index, row) in decays.chunks_exact_mut(sums.len()).enumerate() {
            let i = (index / rows + 1) * step - 1;
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
    /// What is left of v in the state after.
    fn left_values(block: Block, length: usize, v: Part<'_>, left: &[f32], scaled: &mut [f32]) {
        scale_by_head(block, length, v, scaled, |t, head| left[head * length + t]);
    }
}

simd! {
    /// v times a scale.
    fn scale_values(block: Block, length: usize, v: Part<'_>, scale: Part<'_>, scaled: &mut [f32]) {
        scale_by_head(block, length, v, scaled, |t, head| scale.row(t, block.heads)[head]);
    }
}

#[inline(always)]
fn scale_by_head(
    block: Block,
    length: usize,
    v: Part<'_>,
    scaled: &mut [f32],
    factor: impl Fn(usize, usize) -> f32,
) {
    let (cols, width) = (block.cols(), block.value);
    for (t, scaled) in scaled.chunks_exact_mut(cols).take(length).enumerate() {
        let heads = scaled
            .chunks_exact_mut(width)
            .zip(v.row(t, cols).chunks_exact(width));
        for (head, (scaled, v)) in heads.enumerate() {
            let factor = factor(t, head);
            for (scaled, v) in scaled.iter_mut().zip(v) {
                *scaled = factor * v;
            }
        }
    }
}

/// Writes o `[M, cols]` and brings `state` `[K, cols]` from before the chunk to after it.
pub(super) fn forward(
    block: Block,
    given: Given<'_>,
    state: &mut [f32],
    o: &mut [f32],
    scratch: &mut Scratch,
) {
    let (queries, cols, key) = (given.queries(), block.cols(), block.key);
    let writes = given.count();
    scratch.begin(block, given, state);
    let (k, q) = (given.k.mat(writes, key), given.q.mat(queries, key));
    let o = &mut o[..queries * cols];
    // What the state before says: Q S, decayed by head.
    gemm_serial(o, cols, q, Mat::new(state, key, cols, cols), 1.0, 0.0);
    scale_rows(block, given, &scratch.kept, o);
    // What the chunk's own tokens say.
    for head in 0..block.heads {
        scratch.fill_mixing(given, head);
        let start = head * block.value;
        let mixing = Mat::new(&scratch.mixing, queries, writes, writes);
        let v = given.written(cols, &scratch.values);
        let v = Mat::new(&v.data[start..], writes, block.value, v.stride);
        gemm_serial(&mut o[start..], cols, mixing, v, 1.0, 1.0);
    }
    // The state after: the old one decayed, and each token's share.
    decay_state(block, writes, &scratch.kept, state);
    let scaled = Mat::new(&scratch.scaled, writes, cols, cols);
    gemm_serial(state, cols, k.t(), scaled, 1.0, 1.0);
}

simd! {
    /// Multiplies every head's share of a query's row by exp(s) of its token's last write, and adds what goes past the state.
    fn scale_rows(block: Block, given: Given<'_>, kept: &[f32], o: &mut [f32]) {
        let (writes, cols, width) = (given.writes, block.cols(), block.value);
        for (index, row) in o.chunks_exact_mut(cols).enumerate() {
            let t = index / given.reads;
            let heads = row.chunks_exact_mut(width).zip(given.v.row(t, cols).chunks_exact(width));
            for (head, (values, v)) in heads.enumerate() {
                let factor = kept[head * given.count() + (t + 1) * writes - 1];
                let skip = given.skip.get(head).copied().unwrap_or(0.0);
                for (value, v) in values.iter_mut().zip(v) {
                    *value = value.mul_add(factor, skip * v);
                }
            }
        }
    }
}

simd! {
    /// Multiplies every head's share of a state by exp(s_N).
    pub(super) fn decay_state(block: Block, writes: usize, kept: &[f32], state: &mut [f32]) {
        for head in 0..block.heads {
            let factor = kept[(head + 1) * writes - 1];
            for row in state.chunks_exact_mut(block.cols()) {
                for value in &mut row[head * block.value..][..block.value] {
                    *value *= factor;
                }
            }
        }
    }
}
