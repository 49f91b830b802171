//! The tokens of one mini-batch and head by matrix products, the dual form of arXiv 2407.04620 (section 2.5 and appendix
//! A) with momentum and decay by the numbers of [`super::mixture`]; and the gradients of that.

use super::loss::{Back, Norm, normal, normal_back, squares};
use super::mixture::{Mixture, Paces};
use super::{Sizes, Update};
use crate::gemm::{Mat, gemm_serial};
use crate::recurrences::state_matrix::fields::Part;
use crate::simd;
use crate::simd::dot;

/// What a head reads of n tokens.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub sizes: Sizes,
    /// `[n, K]`.
    pub q: Part<'a>,
    pub k: Part<'a>,
    /// `[n, V]`.
    pub target: Part<'a>,
    pub norm: Option<Norm<'a>>,
    /// n.
    pub length: usize,
}

/// Buffers of a thread. `[n, R]` are rows of inputs of W, with b's 1.
#[derive(Default)]
pub(super) struct Scratch {
    /// Of these tokens; whoever calls fills it.
    pub paces: Paces,
    /// Their gradients.
    pub grad_paces: Paces,
    mixture: Mixture,
    grad_mixture: Mixture,
    /// `[n, R]`.
    q: Vec<f32>,
    k: Vec<f32>,
    grad_q: Vec<f32>,
    grad_k: Vec<f32>,
    /// `[n, V]`: the gradients g, then those of g.
    g: Vec<f32>,
    grad_g: Vec<f32>,
    /// `[n, V]` and `[n]`: what the loss keeps.
    normal: Vec<f32>,
    inverses: Vec<f32>,
    /// `[n, n]`: q kᵀ, that times p, and the gradient of the latter.
    qk: Vec<f32>,
    mixed: Vec<f32>,
    grad_mixed: Vec<f32>,
    /// Scaled rows, `[n, R]` or `[n, V]`, or two rows of V.
    room: Vec<f32>,
    product: Vec<f32>,
}

fn resize(buffer: &mut Vec<f32>, count: usize) {
    buffer.resize(count, 0.0);
}

impl Update {
    /// Whether it is [`Update::Descent`].
    pub(super) fn descends(self) -> bool {
        matches!(self, Self::Descent { .. })
    }
}

/// The matrices before some tokens: W that gradients are taken at, what a counts for, and what b does, empty where
/// it is 0.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub point: &'a [f32],
    pub first: &'a [f32],
    pub second: &'a [f32],
}

impl<'a> Before<'a> {
    /// Those that a head carries.
    pub fn of(carried: &'a [f32], size: usize, descends: bool) -> Self {
        let matrix = |index: usize| carried.get(index * size..(index + 1) * size);
        let (first, second) = if descends { (0, 1) } else { (1, 2) };
        Self {
            point: &carried[..size],
            first: &carried[first * size..][..size],
            second: matrix(second).unwrap_or_default(),
        }
    }
}

fn rows(values: &[f32], count: usize, cols: usize) -> Mat<'_> {
    Mat::new(values, count, cols, cols)
}

impl Given<'_> {
    fn fill(&self, from: Part<'_>, to: &mut Vec<f32>) {
        let (key, rows) = (self.sizes.key, self.sizes.rows);
        resize(to, self.length * rows);
        for (t, to) in to.chunks_exact_mut(rows).enumerate() {
            to[..key].copy_from_slice(from.row(t, 0));
            to[key..].fill(1.0);
        }
    }
}

impl Scratch {
    /// The numbers, rows, gradients at the point and products of queries and keys, for both directions.
    fn begin(&mut self, given: Given<'_>, before: Before<'_>) {
        let (n, r, value) = (given.length, given.sizes.rows, given.sizes.value);
        self.mixture.fill(&self.paces);
        given.fill(given.q, &mut self.q);
        given.fill(given.k, &mut self.k);
        for buffer in [&mut self.g, &mut self.normal] {
            resize(buffer, n * value);
        }
        for buffer in [&mut self.qk, &mut self.mixed] {
            resize(buffer, n * n);
        }
        resize(&mut self.inverses, n);
        resize(&mut self.room, n.max(2) * r.max(value));
        let (q, k) = (rows(&self.q, n, r), rows(&self.k, n, r));
        gemm_serial(
            &mut self.g,
            value,
            k,
            rows(before.point, r, value),
            1.0,
            0.0,
        );
        match given.norm {
            None => squares(&mut self.g, given.target),
            Some(norm) => normal(
                &mut self.g,
                given.target,
                norm,
                &mut self.normal,
                &mut self.inverses,
            ),
        }
        gemm_serial(&mut self.qk, n, q, k.t(), 1.0, 0.0);
        multiply(&self.qk, &self.mixture.steps, &mut self.mixed);
    }
}

/// Writes what the tokens' queries are answered, `[n, V]`, and brings the carried matrices to after them; `completes`
/// where they are the last of their mini-batch. `has_second` is false where what b counts for is known to be 0.
pub(super) fn forward(
    given: Given<'_>,
    carried: &mut [f32],
    completes: bool,
    has_second: bool,
    o: &mut [f32],
    scratch: &mut Scratch,
) {
    let (n, r, value) = (given.length, given.sizes.rows, given.sizes.value);
    let size = given.sizes.matrix();
    let descends = scratch.paces.descends;
    let before = Before::of(carried, size, descends);
    scratch.begin(given, before);
    let Scratch {
        mixture,
        q,
        k,
        g,
        mixed,
        room,
        ..
    } = scratch;
    gemm_serial(
        o,
        value,
        rows(q, n, r),
        rows(before.first, r, value),
        1.0,
        0.0,
    );
    if !descends {
        scale(&mixture.first, value, o);
    }
    if has_second && !before.second.is_empty() {
        scaled(q, &mixture.second, r, room);
        gemm_serial(
            o,
            value,
            rows(room, n, r),
            rows(before.second, r, value),
            1.0,
            1.0,
        );
    }
    gemm_serial(o, value, rows(mixed, n, n), rows(g, n, value), -1.0, 1.0);
    // The matrices after the last token.
    let last = (n - 1) * n;
    let (point, rest) = carried.split_at_mut(size);
    let (now, speed) = if descends {
        (point, rest)
    } else {
        rest.split_at_mut(size)
    };
    let mut add_steps = |to: &mut [f32], steps: &[f32], beta: f32| {
        scaled(g, steps, value, room);
        gemm_serial(
            to,
            value,
            rows(k, n, r).t(),
            rows(room, n, value),
            -1.0,
            beta,
        );
    };
    if completes || !descends {
        let [a, b] = [&mixture.first, &mixture.second].map(|all| all[n - 1]);
        if has_second && !speed.is_empty() {
            blend(a, now, b, speed);
        } else if a != 1.0 {
            now.iter_mut().for_each(|value| *value *= a);
        }
        add_steps(now, &mixture.steps[last..], 1.0);
    }
    if descends && completes {
        speed.fill(0.0);
    } else if !speed.is_empty() {
        add_steps(speed, &mixture.speed[last..], mixture.left[n - 1]);
    }
    if completes && !descends {
        carried.copy_within(size..2 * size, 0);
    }
}

/// Where the gradients of tokens go.
pub(super) struct Gradients<'a> {
    /// `[n, K]`.
    pub q: &'a mut [f32],
    pub k: &'a mut [f32],
    /// `[n, V]`.
    pub target: &'a mut [f32],
    /// `[2, V]`, added to.
    pub norm: &'a mut [f32],
}

/// Writes the gradients of what the tokens read from those of their answers, `[n, V]`, and brings the gradients of the
/// matrices after them, `[2, R, V]`, to before them: of W, and of what b counts for. Those of paces are left in
/// `scratch`. `is_last` where no token follows.
pub(super) fn backward(
    given: Given<'_>,
    before: Before<'_>,
    grad_o: Part<'_>,
    grad_carried: &mut [f32],
    is_last: bool,
    grads: &mut Gradients<'_>,
    scratch: &mut Scratch,
) {
    let (n, r, value) = (given.length, given.sizes.rows, given.sizes.value);
    scratch.begin(given, before);
    scratch.grad_mixture.clear(n);
    for buffer in [&mut scratch.grad_q, &mut scratch.grad_k] {
        resize(buffer, n * r);
    }
    for (buffer, count) in [
        (&mut scratch.grad_g, n * value),
        (&mut scratch.product, n * r.max(value)),
        (&mut scratch.grad_mixed, n * n),
    ] {
        resize(buffer, count);
    }
    scratch.read_back(given, before, grad_o, grad_carried, is_last);
    if given.norm.is_none() {
        for (target, grad) in grads.target.iter_mut().zip(&scratch.grad_g) {
            *target = -grad;
        }
    }
    let Scratch {
        grad_g,
        grad_k,
        k,
        normal,
        inverses,
        room,
        ..
    } = scratch;
    if let Some(norm) = given.norm {
        let back = Back {
            target: grads.target,
            norm: grads.norm,
            room,
        };
        normal_back(grad_g, given.target, norm, normal, inverses, back);
    }
    let dz = rows(grad_g, n, value);
    gemm_serial(grad_k, r, dz, rows(before.point, r, value).t(), 1.0, 1.0);
    let grad_point = &mut grad_carried[..r * value];
    gemm_serial(grad_point, value, rows(k, n, r).t(), dz, 1.0, 1.0);
    for (from, to) in [
        (&scratch.grad_q, &mut *grads.q),
        (&scratch.grad_k, &mut *grads.k),
    ] {
        let from = from.chunks_exact(r);
        for (from, to) in from.zip(to.chunks_exact_mut(given.sizes.key)) {
            to.copy_from_slice(&from[..given.sizes.key]);
        }
    }
    let Scratch {
        grad_mixture,
        mixture,
        paces,
        grad_paces,
        ..
    } = scratch;
    grad_mixture.back(mixture, paces, grad_paces);
}

impl Scratch {
    /// All but what goes through the inner loss: leaves the gradients of q, of g and of the numbers, and of k and of the
    /// matrices before as far as they come past g.
    fn read_back(
        &mut self,
        given: Given<'_>,
        before: Before<'_>,
        grad_o: Part<'_>,
        grad_carried: &mut [f32],
        is_last: bool,
    ) {
        let (n, r, value) = (given.length, given.sizes.rows, given.sizes.value);
        let grad_o = Mat::new(grad_o.data, n, value, grad_o.stride);
        let g = rows(&self.g, n, value);
        gemm_serial(&mut self.grad_mixed, n, grad_o, g.t(), -1.0, 0.0);
        gemm_serial(
            &mut self.grad_g,
            value,
            rows(&self.mixed, n, n).t(),
            grad_o,
            -1.0,
            0.0,
        );
        multiply(&self.grad_mixed, &self.qk, &mut self.grad_mixture.steps);
        below_diagonal(n, &mut self.grad_mixture.steps);
        // In the place of p q kᵀ, which nothing reads any more.
        multiply(&self.grad_mixed, &self.mixture.steps, &mut self.mixed);
        let grad_qk = rows(&self.mixed, n, n);
        let (q, k) = (rows(&self.q, n, r), rows(&self.k, n, r));
        gemm_serial(&mut self.grad_q, r, grad_qk, k, 1.0, 0.0);
        gemm_serial(&mut self.grad_k, r, grad_qk.t(), q, 1.0, 0.0);
        let (grad_first, grad_second) = grad_carried.split_at_mut(r * value);
        if !is_last {
            self.step_back(given, before, grad_first, grad_second);
        }
        for (matrix, numbers, grads, to) in [
            (
                before.first,
                &self.mixture.first,
                &mut self.grad_mixture.first,
                grad_first,
            ),
            (
                before.second,
                &self.mixture.second,
                &mut self.grad_mixture.second,
                grad_second,
            ),
        ] {
            if matrix.is_empty() {
                continue;
            }
            let product = &mut self.product[..n * r];
            gemm_serial(product, r, grad_o, rows(matrix, r, value).t(), 1.0, 0.0);
            add_scaled(product, numbers, r, &mut self.grad_q);
            row_dots(&self.q, product, r, grads);
            scaled(&self.q, numbers, r, &mut self.room);
            gemm_serial(to, value, rows(&self.room, n, r).t(), grad_o, 1.0, 1.0);
        }
    }

    /// The gradients from those of the matrices after the last token, which become those of the matrices before as far
    /// as they are carried.
    fn step_back(
        &mut self,
        given: Given<'_>,
        before: Before<'_>,
        grad_first: &mut [f32],
        grad_second: &mut [f32],
    ) {
        let (n, r, value) = (given.length, given.sizes.rows, given.sizes.value);
        let last = (n - 1) * n;
        let grads = &mut self.grad_mixture;
        let carries_second = !self.paces.descends && !before.second.is_empty();
        for (grad, numbers, to) in [
            (
                &*grad_first,
                &self.mixture.steps[last..],
                &mut grads.steps[last..],
            ),
            (
                &*grad_second,
                &self.mixture.speed[last..],
                &mut grads.speed[last..],
            ),
        ]
        .into_iter()
        .take(1 + usize::from(carries_second))
        {
            let (grad, k) = (rows(grad, r, value), rows(&self.k, n, r));
            let product = &mut self.product[..n * value];
            gemm_serial(product, value, k, grad, -1.0, 0.0);
            add_scaled(product, numbers, value, &mut self.grad_g);
            row_dots(&self.g, product, value, to);
            scaled(&self.g, numbers, value, &mut self.room);
            let steps = rows(&self.room, n, value);
            gemm_serial(&mut self.grad_k, r, steps, grad.t(), -1.0, 1.0);
        }
        let [a, b, left] = [
            &self.mixture.first,
            &self.mixture.second,
            &self.mixture.left,
        ]
        .map(|all| all[n - 1]);
        grads.first[n - 1] += dot(grad_first, before.first);
        if !before.second.is_empty() {
            grads.second[n - 1] += dot(grad_first, before.second);
            grads.left[n - 1] += dot(grad_second, before.second);
            blend(left, grad_second, b, grad_first);
        }
        if a != 1.0 {
            grad_first.iter_mut().for_each(|value| *value *= a);
        }
    }
}

simd! {
    fn multiply(a: &[f32], b: &[f32], to: &mut [f32]) {
        for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
            *to = a * b;
        }
    }
}

simd! {
    /// `to = a to + b from`.
    fn blend(a: f32, to: &mut [f32], b: f32, from: &[f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = a.mul_add(*to, b * from);
        }
    }
}

simd! {
    /// Multiplies every row by its factor.
    fn scale(factors: &[f32], cols: usize, to: &mut [f32]) {
        for (to, factor) in to.chunks_exact_mut(cols).zip(factors) {
            to.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

simd! {
    /// Every row times its factor.
    fn scaled(from: &[f32], factors: &[f32], cols: usize, to: &mut [f32]) {
        let rows = to.chunks_exact_mut(cols).zip(from.chunks_exact(cols));
        for ((to, from), factor) in rows.zip(factors) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = factor * from;
            }
        }
    }
}

simd! {
    /// Adds every row times its factor.
    fn add_scaled(from: &[f32], factors: &[f32], cols: usize, to: &mut [f32]) {
        let rows = to.chunks_exact_mut(cols).zip(from.chunks_exact(cols));
        for ((to, from), factor) in rows.zip(factors) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = factor.mul_add(*from, *to);
            }
        }
    }
}

simd! {
    /// Adds the scalar product of every two rows.
    fn row_dots(a: &[f32], b: &[f32], cols: usize, to: &mut [f32]) {
        let rows = a.chunks_exact(cols).zip(b.chunks_exact(cols));
        for (to, (a, b)) in to.iter_mut().zip(rows) {
            *to += dot(a, b);
        }
    }
}

/// Puts 0 above the diagonal.
fn below_diagonal(n: usize, matrix: &mut [f32]) {
    for (i, row) in matrix.chunks_exact_mut(n).enumerate() {
        row[i + 1..].fill(0.0);
    }
}
