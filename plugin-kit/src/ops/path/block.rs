//! What the tokens of one block do to keys, in closed form (arXiv 2505.16381, section 3.2; the UT transform of
//! arXiv 2406.06484). With W `[c, K]` and beta of the block's tokens,
//!
//! ```text
//! N = (1 + lower(beta W Wᵀ))⁻¹,  M = N beta,  F = M W,  B = lower(W Kᵀ),  E = M B        lower: below the diagonal
//! keys from before the block are turned to its end by  1 - G,  G = Wᵀ F,  its own to  K - Eᵀ W
//! queries look at keys from before as  Q - tril(Q Wᵀ) F,  at the block's own by  tril(Q Kᵀ) - tril(Q Wᵀ) E
//! ```

use crate::engine::operation::Rows;
use crate::gemm::{Mat, gemm_serial};
use crate::simd;
use crate::simd::dot;

/// Tokens of a block.
pub(super) const BLOCK: usize = 64;

/// A block's matrices and gradients, each kept with rows as long as said.
#[derive(Default)]
pub(super) struct Block {
    /// c, tokens.
    pub count: usize,
    /// K.
    pub width: usize,
    /// `[c]`.
    pub beta: Vec<f32>,
    /// `[c, K]`.
    pub w: Vec<f32>,
    /// `[c, K]`: keys as they come.
    pub k: Vec<f32>,
    /// `[c, c]`: W Wᵀ.
    gram: Vec<f32>,
    /// `[c, c]`.
    n: Vec<f32>,
    /// `[c, c]`.
    m: Vec<f32>,
    /// `[c, K]`.
    pub f: Vec<f32>,
    /// `[c, c]`.
    b: Vec<f32>,
    /// `[c, c]`.
    pub e: Vec<f32>,
}

/// Gradients with respect to a block's matrices; the last three are sums over queries.
#[derive(Default)]
pub(super) struct BlockGrads {
    /// `[c, K]`: of W.
    pub w: Vec<f32>,
    /// `[c, K]`: of the keys as they come.
    pub k: Vec<f32>,
    /// `[c]`.
    pub beta: Vec<f32>,
    /// `[c, K]`.
    pub f: Vec<f32>,
    /// `[c, c]`.
    pub e: Vec<f32>,
    /// `[c, c]` each: room.
    room: [Vec<f32>; 3],
}

/// Room for so many values, all 0.
pub(super) fn clear(buffer: &mut Vec<f32>, count: usize) {
    buffer.clear();
    buffer.resize(count, 0.0);
}

/// A matrix whose rows lie behind each other.
pub(super) fn mat(data: &[f32], rows: usize, cols: usize) -> Mat<'_> {
    Mat::new(data, rows, cols, cols)
}

simd! {
    /// Sets what lies above the diagonal of a square matrix to 0, or what lies on it too.
    pub(super) fn keep_lower(matrix: &mut [f32], count: usize, strictly: bool) {
        for (i, row) in matrix.chunks_exact_mut(count).take(count).enumerate() {
            row[if strictly { i } else { i + 1 }..].fill(0.0);
        }
    }
}

simd! {
    /// `n = (1 + lower(beta gram))⁻¹` row by row.
    fn invert(beta: &[f32], gram: &[f32], n: &mut [f32]) {
        let count = beta.len();
        n.fill(0.0);
        for i in 0..count {
            let (before, row) = n.split_at_mut(i * count);
            let row = &mut row[..count];
            for (r, before) in before.chunks_exact(count).enumerate() {
                let factor = beta[i] * gram[i * count + r];
                for (value, before) in row[..=r].iter_mut().zip(before) {
                    *value -= factor * before;
                }
            }
            row[i] = 1.0;
        }
    }
}

simd! {
    /// `m = n` with its columns times beta.
    fn scale_columns(n: &[f32], beta: &[f32], m: &mut [f32]) {
        for (m, n) in m.chunks_exact_mut(beta.len()).zip(n.chunks_exact(beta.len())) {
            for ((m, n), beta) in m.iter_mut().zip(n).zip(beta) {
                *m = n * beta;
            }
        }
    }
}

impl Block {
    /// Reads `count` tokens, and makes all but what keys are turned by.
    pub fn read(&mut self, w: Rows<'_>, beta: Rows<'_>, k: Rows<'_>, count: usize) {
        let width = w.cols;
        (self.count, self.width) = (count, width);
        for (buffer, values) in [
            (&mut self.beta, count),
            (&mut self.w, count * width),
            (&mut self.k, count * width),
            (&mut self.gram, count * count),
            (&mut self.n, count * count),
            (&mut self.m, count * count),
            (&mut self.f, count * width),
            (&mut self.b, count * count),
            (&mut self.e, count * count),
        ] {
            buffer.resize(values, 0.0);
        }
        for t in 0..count {
            self.beta[t] = beta.row(t)[0];
            self.w[t * width..][..width].copy_from_slice(w.row(t));
            self.k[t * width..][..width].copy_from_slice(k.row(t));
        }
        let (w, k) = (mat(&self.w, count, width), mat(&self.k, count, width));
        gemm_serial(&mut self.gram, count, w, w.t(), 1.0, 0.0);
        invert(&self.beta, &self.gram, &mut self.n);
        scale_columns(&self.n, &self.beta, &mut self.m);
        let m = mat(&self.m, count, count);
        gemm_serial(&mut self.f, width, m, w, 1.0, 0.0);
        gemm_serial(&mut self.b, count, w, k.t(), 1.0, 0.0);
        keep_lower(&mut self.b, count, true);
        gemm_serial(&mut self.e, count, m, mat(&self.b, count, count), 1.0, 0.0);
    }

    /// W, `[c, K]`.
    pub fn w(&self) -> Mat<'_> {
        mat(&self.w, self.count, self.width)
    }

    /// K, `[c, K]`.
    pub fn k(&self) -> Mat<'_> {
        mat(&self.k, self.count, self.width)
    }

    /// F, `[c, K]`.
    pub fn f(&self) -> Mat<'_> {
        mat(&self.f, self.count, self.width)
    }

    /// E, `[c, c]`.
    pub fn e(&self) -> Mat<'_> {
        mat(&self.e, self.count, self.count)
    }

    /// G, `[K, K]`: a query is carried to before the block as `q - q G`, a key from before it to its end as `k - G k`.
    pub fn product(&self, g: &mut [f32]) {
        gemm_serial(g, self.width, self.w().t(), self.f(), 1.0, 0.0);
    }

    /// Turns the block's own keys, in rows `stride` apart, to its end.
    pub fn turn_own(&self, keys: &mut [f32], stride: usize) {
        gemm_serial(keys, stride, self.e().t(), self.w(), -1.0, 1.0);
    }

    /// Of queries `[c, K]`: `tril(Q Wᵀ)`, the queries as they look at keys from before, and the products with the
    /// block's own keys.
    pub fn ask(&self, q: Mat<'_>, scale: f32, [along, carried, logits]: [&mut [f32]; 3]) {
        let (count, width) = (self.count, self.width);
        gemm_serial(along, count, q, self.w().t(), 1.0, 0.0);
        keep_lower(along, count, false);
        let lower = mat(along, count, count);
        gemm_serial(carried, width, lower, self.f(), -1.0, 1.0);
        gemm_serial(logits, count, q, self.k().t(), scale, 0.0);
        gemm_serial(logits, count, lower, self.e(), -scale, 1.0);
    }

    /// Starts the gradients of the block.
    pub fn start(&self, grads: &mut BlockGrads) {
        let (count, width) = (self.count, self.width);
        for (buffer, values) in [
            (&mut grads.w, count * width),
            (&mut grads.k, count * width),
            (&mut grads.beta, count),
            (&mut grads.f, count * width),
            (&mut grads.e, count * count),
        ] {
            clear(buffer, values);
        }
        for room in &mut grads.room {
            clear(room, count * count);
        }
    }

    /// From gradients of F and E, of the block's keys at its end `[c, K]` and of G `[K, K]` to those of W, beta and K.
    pub fn finish(&self, turned: &[f32], product: &[f32], grads: &mut BlockGrads) {
        let (count, width) = (self.count, self.width);
        let (w, k) = (self.w(), self.k());
        let (turned, product) = (mat(turned, count, width), mat(product, width, width));
        let BlockGrads {
            w: dw,
            k: dk,
            beta: dbeta,
            f: df,
            e: de,
            room,
        } = grads;
        // K - Eᵀ W, and G = Wᵀ F.
        gemm_serial(de, count, w, turned.t(), -1.0, 1.0);
        gemm_serial(dw, width, self.e(), turned, -1.0, 1.0);
        gemm_serial(df, width, w, product, 1.0, 1.0);
        gemm_serial(dw, width, self.f(), product.t(), 1.0, 1.0);
        // E = M B, and F = M W.
        let [dm, db, dn] = room;
        gemm_serial(
            dm,
            count,
            mat(de, count, count),
            mat(&self.b, count, count).t(),
            1.0,
            0.0,
        );
        gemm_serial(dm, count, mat(df, count, width), w.t(), 1.0, 1.0);
        keep_lower(dm, count, false);
        let m = mat(&self.m, count, count);
        gemm_serial(db, count, m.t(), mat(de, count, count), 1.0, 0.0);
        keep_lower(db, count, true);
        gemm_serial(dw, width, m.t(), mat(df, count, width), 1.0, 1.0);
        gemm_serial(dw, width, mat(db, count, count), k, 1.0, 1.0);
        gemm_serial(dk, width, mat(db, count, count).t(), w, 1.0, 1.0);
        // M = N beta, and N = (1 + A)⁻¹ with A = lower(beta W Wᵀ).
        by_columns(&self.n, &self.beta, dm, dbeta);
        let n = mat(&self.n, count, count);
        gemm_serial(db, count, mat(dm, count, count), n.t(), 1.0, 0.0);
        gemm_serial(dn, count, n.t(), mat(db, count, count), -1.0, 0.0);
        keep_lower(dn, count, true);
        by_rows(&self.gram, &self.beta, dn, dbeta);
        gemm_serial(dw, width, mat(dn, count, count), w, 1.0, 1.0);
        gemm_serial(dw, width, mat(dn, count, count).t(), w, 1.0, 1.0);
    }
}

simd! {
    /// From the gradient of M = N beta to that of N, in its place, and of beta.
    fn by_columns(n: &[f32], beta: &[f32], grad: &mut [f32], grad_beta: &mut [f32]) {
        for (grad, n) in grad.chunks_exact_mut(beta.len()).zip(n.chunks_exact(beta.len())) {
            let columns = grad_beta.iter_mut().zip(beta);
            for ((grad, n), (sum, beta)) in grad.iter_mut().zip(n).zip(columns) {
                *sum += *grad * n;
                *grad *= beta;
            }
        }
    }
}

simd! {
    /// From the gradient of beta W Wᵀ to that of W Wᵀ, in its place, and of beta.
    fn by_rows(gram: &[f32], beta: &[f32], grad: &mut [f32], grad_beta: &mut [f32]) {
        let count = beta.len();
        for (i, grad) in grad.chunks_exact_mut(count).enumerate() {
            grad_beta[i] += dot(grad, &gram[i * count..][..count]);
            for grad in grad.iter_mut() {
                *grad *= beta[i];
            }
        }
    }
}
