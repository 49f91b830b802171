//! One head of attention over tiles of queries and keys. Scratch is kept by thread.

use std::cell::RefCell;
use std::ops::Range;

use crate::engine::operation::Rows;
use crate::gemm::{Mat, gemm_serial};
use crate::ops::attention::HeadSpec;
use crate::simd::{dot, exp, max, sum};
use crate::units::{cut, for_each_unit};

/// Queries of a tile.
const QUERIES: usize = 64;

/// Queries of a tile where there are many more keys than a tile has queries, most of which all of them see:
/// keys are packed once for more queries.
const MANY_QUERIES: usize = 192;

/// Keys from which on a tile has [`MANY_QUERIES`].
const MANY_KEYS: usize = 1024;

/// Keys of a tile.
pub(super) const KEYS: usize = 256;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::new()) };
}

/// Buffers of one thread.
struct Scratch {
    /// `[queries, KEYS]`: logits, then probabilities.
    logits: Vec<f32>,
    /// `[queries, KEYS]`: their gradient.
    slopes: Vec<f32>,
    /// `[queries]`: running maxima, or each query's `grad_y . y`.
    tops: Vec<f32>,
    biases: KeyBiases,
}

/// Biases of the keys of a tile, where keys have any; else both are empty.
pub(super) struct KeyBiases {
    /// `[keys]`.
    keys: Vec<Bias>,
    /// `[queries]`: of each query's own key. Logits are relative to it, so that of biases that grow with the
    /// position only differences count.
    own: Vec<Bias>,
}

/// A bias in two parts. Of large ones the first parts are taken from each other before the small ones are added,
/// which loses nothing.
pub(super) type Bias = [f32; 2];

impl KeyBiases {
    pub fn read(to: &mut Vec<Bias>, from: Option<[Rows<'_>; 2]>, range: Range<usize>) {
        to.clear();
        if let Some(from) = from {
            to.extend(range.map(|key| from.map(|part| part.data[key * part.stride])));
        }
    }
}

impl Scratch {
    const fn new() -> Self {
        Self {
            logits: Vec::new(),
            slopes: Vec::new(),
            tops: Vec::new(),
            biases: KeyBiases {
                keys: Vec::new(),
                own: Vec::new(),
            },
        }
    }

    fn prepare(&mut self, queries: usize) {
        let grow = |buffer: &mut Vec<f32>, values| {
            if buffer.len() < values {
                buffer.resize(values, 0.0);
            }
        };
        grow(&mut self.logits, queries * KEYS);
        grow(&mut self.tops, queries);
    }

    fn prepare_gradients(&mut self) {
        self.prepare(QUERIES);
        self.slopes.resize(QUERIES * KEYS, 0.0);
    }
}

/// Keys that any query of a tile sees. Query i of the head stands at key `first + i`.
fn visible(spec: HeadSpec, first: usize, tile: &Range<usize>) -> Range<usize> {
    (first + tile.start + 1).saturating_sub(spec.window)..first + tile.end
}

/// What the queries of a head look at.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// `[keys, K]`.
    pub k: Rows<'a>,
    /// `[keys, K]`.
    pub v: Rows<'a>,
    /// `[keys, 1]` each: the parts of what is added to their logits.
    pub bias: Option<[Rows<'a>; 2]>,
}

/// Attention of a head: `out` `[T, K]` and the logarithms of the sums, `[T]`.
pub(crate) fn attend(
    spec: HeadSpec,
    q: Rows<'_>,
    keys: Keys<'_>,
    first: usize,
    out: &mut [f32],
    log_sums: &mut [f32],
) {
    let width = q.cols;
    let most = (first + log_sums.len()).min(spec.window);
    let queries = if most < MANY_KEYS {
        QUERIES
    } else {
        MANY_QUERIES
    };
    let cost = queries * width * (first + queries);
    let cuts = (cut(out, queries * width), cut(log_sums, queries));
    for_each_unit(cost, cuts, |tile, (out, sums)| {
        let start = tile * queries;
        let tile = start..start + sums.len();
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.prepare(queries);
            attend_tile(
                spec,
                q.from_row(start),
                keys,
                first,
                tile,
                scratch,
                out,
                sums,
            );
        });
    });
}

#[allow(clippy::too_many_arguments)] // plain matrices and sizes of one inner call
fn attend_tile(
    spec: HeadSpec,
    q: Rows<'_>,
    Keys { k, v, bias }: Keys<'_>,
    first: usize,
    tile: Range<usize>,
    scratch: &mut Scratch,
    out: &mut [f32],
    sums: &mut [f32],
) {
    let (queries, width) = (tile.len(), q.cols);
    let q_mat = Mat::new(q.data, queries, width, q.stride);
    let seen = visible(spec, first, &tile);
    let tops = &mut scratch.tops[..queries];
    tops.fill(f32::NEG_INFINITY);
    sums.fill(0.0);
    let biases = &mut scratch.biases;
    KeyBiases::read(&mut biases.own, bias, first + tile.start..first + tile.end);
    let mut start = seen.start;
    while start < seen.end {
        let keys = KEYS.min(seen.end - start);
        let logits = &mut scratch.logits[..queries * keys];
        let k_mat = Mat::new(k.from_row(start).data, keys, width, k.stride);
        gemm_serial(logits, keys, q_mat, k_mat.t(), spec.scale, 0.0);
        KeyBiases::read(&mut biases.keys, bias, start..start + keys);
        let place = Place {
            query: first + tile.start,
            key: start,
            keys,
        };
        soften(
            logits,
            place,
            spec.window,
            spec.slope,
            (&biases.keys, &biases.own),
            tops,
            sums,
            out,
            width,
        );
        let v_mat = Mat::new(v.from_row(start).data, keys, width, v.stride);
        let beta = if start == seen.start { 0.0 } else { 1.0 };
        gemm_serial(
            out,
            width,
            Mat::new(logits, queries, keys, keys),
            v_mat,
            1.0,
            beta,
        );
        start += keys;
    }
    finish(out, tops, sums, width);
}

/// Where a tile of logits stands among all keys.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Key index of the first query.
    pub query: usize,
    /// Index of the first key.
    pub key: usize,
    /// Keys, the tile's columns.
    pub keys: usize,
}

impl Place {
    /// Columns that query `row` sees.
    #[inline(always)]
    fn columns(self, row: usize, window: usize) -> (usize, usize) {
        let at = self.query + row;
        let from = (at + 1).saturating_sub(window).max(self.key) - self.key;
        let to = (at + 1).clamp(self.key, self.key + self.keys) - self.key;
        (from.min(to), to)
    }

    /// Adds the linear bias and those of the keys, relative to the query's own, to the columns `from..` of a
    /// query's logits.
    #[inline(always)]
    fn bias(
        self,
        row: usize,
        from: usize,
        slope: f32,
        biases: (&[Bias], &[Bias]),
        logits: &mut [f32],
    ) {
        if let (Some(keys), Some(own)) = (biases.0.get(from..), biases.1.get(row)) {
            for (logit, key) in logits.iter_mut().zip(keys) {
                *logit += (key[0] - own[0]) + (key[1] - own[1]);
            }
        }
        if slope != 0.0 {
            let distance = (self.query + row) as f32 - (self.key + from) as f32;
            for (column, logit) in logits.iter_mut().enumerate() {
                *logit -= slope * (distance - column as f32);
            }
        }
    }
}

crate::simd! {
    /// Logits become exponentials relative to the running maxima; earlier sums and results are
    /// brought to the new maxima.
    pub(super) fn soften(
        logits: &mut [f32],
        place: Place,
        window: usize,
        slope: f32,
        biases: (&[Bias], &[Bias]),
        tops: &mut [f32],
        sums: &mut [f32],
        out: &mut [f32],
        width: usize,
    ) {
        for (row, logits) in logits.chunks_exact_mut(place.keys).enumerate() {
            let (from, to) = place.columns(row, window);
            logits[..from].fill(0.0);
            logits[to..].fill(0.0);
            let logits = &mut logits[from..to];
            place.bias(row, from, slope, biases, logits);
            let top = max(logits);
            let top = if top > tops[row] { top } else { tops[row] };
            if logits.is_empty() {
                continue;
            }
            for logit in logits.iter_mut() {
                *logit = exp(*logit - top);
            }
            let total = sum(logits);
            if sums[row] > 0.0 && tops[row] < top {
                let factor = exp(tops[row] - top);
                sums[row] *= factor;
                for value in &mut out[row * width..][..width] {
                    *value *= factor;
                }
            }
            sums[row] += total;
            tops[row] = top;
        }
    }
}

crate::simd! {
    /// Divides by the sums, and leaves the sums' logarithms.
    pub(super) fn finish(out: &mut [f32], tops: &[f32], sums: &mut [f32], width: usize) {
        for ((out, top), sum) in out.chunks_exact_mut(width).zip(tops).zip(sums) {
            let factor = 1.0 / *sum;
            for value in out.iter_mut() {
                *value *= factor;
            }
            *sum = top + sum.ln();
        }
    }
}

/// What the backward pass of a head reads.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// `[T, K]`.
    pub q: Rows<'a>,
    pub keys: Keys<'a>,
    /// `[T, K]`: the result.
    pub y: Rows<'a>,
    /// `[T, K]`: its gradient.
    pub grad_y: Rows<'a>,
    /// `[T]`.
    pub log_sums: &'a [f32],
}

/// Where the gradients of keys are added up.
pub(crate) struct KeyGradients<'a> {
    /// `[T, K]`.
    pub k: &'a mut [f32],
    /// `[T, K]`.
    pub v: &'a mut [f32],
    /// `[T]`, or empty where keys have no bias.
    pub bias: &'a mut [f32],
}

/// Gradients of a head: `grad_q` `[T, K]` is written, those of keys are added to.
pub(crate) fn accumulate_gradients(
    spec: HeadSpec,
    given: Given<'_>,
    grad_q: &mut [f32],
    mut grads: KeyGradients<'_>,
) {
    let (length, width) = (given.log_sums.len(), given.q.cols);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.prepare_gradients();
        for start in (0..length).step_by(QUERIES) {
            let tile = start..(start + QUERIES).min(length);
            let grad_q = &mut grad_q[start * width..tile.end * width];
            gradient_tile(spec, given, tile, scratch, grad_q, &mut grads);
        }
    });
}

fn gradient_tile(
    spec: HeadSpec,
    given: Given<'_>,
    tile: Range<usize>,
    scratch: &mut Scratch,
    grad_q: &mut [f32],
    grads: &mut KeyGradients<'_>,
) {
    let Keys { k, v, bias } = given.keys;
    let (queries, width) = (tile.len(), given.q.cols);
    let q = given.q.from_row(tile.start);
    let grad_y = given.grad_y.from_row(tile.start);
    let y = given.y.from_row(tile.start);
    let q_mat = Mat::new(q.data, queries, width, q.stride);
    let grad_y_mat = Mat::new(grad_y.data, queries, width, grad_y.stride);
    let inner = &mut scratch.tops[..queries];
    row_products(grad_y, y, inner);
    let log_sums = &given.log_sums[tile.clone()];
    let biases = &mut scratch.biases;
    KeyBiases::read(&mut biases.own, bias, tile.clone());
    let seen = visible(spec, 0, &tile);
    let mut start = seen.start;
    while start < seen.end {
        let keys = KEYS.min(seen.end - start);
        let (k, v) = (k.from_row(start), v.from_row(start));
        KeyBiases::read(&mut biases.keys, bias, start..start + keys);
        let k_mat = Mat::new(k.data, keys, width, k.stride);
        let v_mat = Mat::new(v.data, keys, width, v.stride);
        let logits = &mut scratch.logits[..queries * keys];
        let slopes = &mut scratch.slopes[..queries * keys];
        gemm_serial(logits, keys, q_mat, k_mat.t(), spec.scale, 0.0);
        gemm_serial(slopes, keys, grad_y_mat, v_mat.t(), 1.0, 0.0);
        let place = Place {
            query: tile.start,
            key: start,
            keys,
        };
        let both = (&biases.keys[..], &biases.own[..]);
        differentiate(logits, slopes, place, spec, both, log_sums, inner);
        if bias.is_some() {
            add_columns(
                slopes,
                1.0 / spec.scale,
                &mut grads.bias[start..start + keys],
            );
        }
        let (p, s) = (
            Mat::new(logits, queries, keys, keys),
            Mat::new(slopes, queries, keys, keys),
        );
        let beta = if start == seen.start { 0.0 } else { 1.0 };
        gemm_serial(grad_q, width, s, k_mat, 1.0, beta);
        gemm_serial(
            &mut grads.k[start * width..][..keys * width],
            width,
            s.t(),
            q_mat,
            1.0,
            1.0,
        );
        gemm_serial(
            &mut grads.v[start * width..][..keys * width],
            width,
            p.t(),
            grad_y_mat,
            1.0,
            1.0,
        );
        start += keys;
    }
}

crate::simd! {
    pub(super) fn row_products(a: Rows<'_>, b: Rows<'_>, products: &mut [f32]) {
        for (row, product) in products.iter_mut().enumerate() {
            *product = dot(a.row(row), b.row(row));
        }
    }
}

crate::simd! {
    /// Logits become probabilities p, and slopes (gradients of p) become gradients of the products
    /// before scaling: `p (slope - inner) scale`.
    pub(super) fn differentiate(
        logits: &mut [f32],
        slopes: &mut [f32],
        place: Place,
        spec: HeadSpec,
        biases: (&[Bias], &[Bias]),
        log_sums: &[f32],
        inner: &[f32],
    ) {
        let rows = logits.chunks_exact_mut(place.keys).zip(slopes.chunks_exact_mut(place.keys));
        for (row, (logits, slopes)) in rows.enumerate() {
            let (from, to) = place.columns(row, spec.window);
            for outside in [0..from, to..place.keys] {
                logits[outside.clone()].fill(0.0);
                slopes[outside].fill(0.0);
            }
            let (logits, slopes) = (&mut logits[from..to], &mut slopes[from..to]);
            place.bias(row, from, spec.slope, biases, logits);
            let (log_sum, inner) = (log_sums[row], inner[row]);
            for (logit, slope) in logits.iter_mut().zip(slopes) {
                let p = exp(*logit - log_sum);
                *logit = p;
                *slope = p * (*slope - inner) * spec.scale;
            }
        }
    }
}

crate::simd! {
    /// `sums += factor * (the rows of values added up)`.
    pub(super) fn add_columns(values: &[f32], factor: f32, sums: &mut [f32]) {
        for row in values.chunks_exact(sums.len()) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += factor * value;
            }
        }
    }
}
