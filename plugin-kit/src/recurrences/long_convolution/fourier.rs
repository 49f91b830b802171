//! The long convolution by Fourier transforms on the CPU: a sequence with the inputs before it in one circle that is
//! large enough for no output that counts to go round (overlap-save). Some channels at a time, a cache line of them.

use std::sync::{Arc, LazyLock, Mutex};

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use crate::engine::operation::Rows;
use crate::simd::LANES;

/// Transforms made so far: their tables are the same for all models.
static PLANNER: LazyLock<Mutex<RealFftPlanner<f32>>> =
    LazyLock::new(|| Mutex::new(RealFftPlanner::new()));

/// Half of a circle's frequencies and the one in the middle.
type Spectrum = Vec<Complex<f32>>;

/// Sizes of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// B.
    pub rows: usize,
    /// T.
    length: usize,
    /// Taps of the filter, and those of them that meet an input.
    taps: usize,
    used: usize,
    /// Inputs before the first token.
    history: usize,
    /// Values in the circle.
    circle: usize,
}

impl Sizes {
    pub(super) fn new(rows: usize, length: usize, taps: usize, history: usize) -> Self {
        let used = taps.min(history + length).max(1);
        let least = (length + used - 1).max(history + length).max(2);
        // The next power of two, or one and a half times the one before where that is enough.
        let power = least.next_power_of_two();
        let circle = match power / 4 * 3 {
            less if less >= least && less.is_multiple_of(2) => less,
            _ => power,
        };
        Self {
            rows,
            length,
            taps,
            used,
            history,
            circle,
        }
    }

    /// Multiply-adds of a block, about.
    pub(super) fn cost(self) -> usize {
        let steps = self.circle.ilog2() as usize;
        LANES * (2 * self.rows + 1) * self.circle * steps
    }
}

/// What a block of channels is computed from.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// `[taps, C]`.
    pub filter: &'a [f32],
    /// `[B T, C]`.
    pub x: Rows<'a>,
    /// `[taps - 1, C]` each, or none.
    pub histories: &'a [Vec<f32>],
}

/// Transforms of one size, and room for them.
struct Circle {
    there: Arc<dyn RealToComplex<f32>>,
    back: Arc<dyn ComplexToReal<f32>>,
    scratch: Spectrum,
}

impl Circle {
    fn new(size: usize) -> Self {
        let mut planner = PLANNER.lock().expect("no plan panics");
        let (there, back) = (
            planner.plan_fft_forward(size),
            planner.plan_fft_inverse(size),
        );
        let scratch = there.get_scratch_len().max(back.get_scratch_len());
        Self {
            scratch: vec![Complex::default(); scratch],
            there,
            back,
        }
    }

    fn spectrum(&self) -> Spectrum {
        self.there.make_output_vec()
    }

    /// The transform of `values`, which are used up.
    fn transform(&mut self, values: &mut [f32], to: &mut [Complex<f32>]) {
        let scratch = &mut self.scratch[..];
        let done = self.there.process_with_scratch(values, to, scratch);
        done.expect("buffers of the plan's sizes");
    }

    /// Back to real numbers, times the size of the circle; the spectrum is used up.
    fn restore(&mut self, from: &mut [Complex<f32>], values: &mut [f32]) {
        // What is real by symmetry is so but for rounding.
        from[0].im = 0.0;
        if let Some(last) = from.last_mut() {
            last.im = 0.0;
        }
        let scratch = &mut self.scratch[..];
        let done = self.back.process_with_scratch(from, values, scratch);
        done.expect("buffers of the plan's sizes");
    }
}

/// The channels of a block.
fn channels(x: Rows<'_>, first: usize) -> usize {
    LANES.min(x.cols - first)
}

/// Rows of channels from `first` on as one line a channel, `size` long, the first row at `start`; 0 elsewhere.
fn lines<'a>(
    rows: impl Iterator<Item = &'a [f32]>,
    first: usize,
    count: usize,
    start: usize,
    (size, to): (usize, &mut [f32]),
) {
    to.fill(0.0);
    for (at, row) in (start..).zip(rows) {
        for (channel, &value) in row[first..][..count].iter().enumerate() {
            to[channel * size + at] = value;
        }
    }
}

impl Block<'_> {
    fn filter_lines(self, sizes: Sizes, first: usize, to: &mut [f32]) {
        let rows = self.filter.chunks_exact(self.x.cols).take(sizes.used);
        let count = channels(self.x, first);
        lines(rows, first, count, 0, (sizes.circle, to));
    }

    /// Inputs of a sequence, those before it first.
    fn input_lines(self, sizes: Sizes, row: usize, first: usize, to: &mut [f32]) {
        let before = self.histories.get(row).map_or(&[][..], Vec::as_slice);
        let before = before.chunks_exact(self.x.cols);
        let tokens = (0..sizes.length).map(|t| self.x.row(row * sizes.length + t));
        let count = channels(self.x, first);
        lines(before.chain(tokens), first, count, 0, (sizes.circle, to));
    }
}

/// The results of channels from `first` on, `[B, T, channels]`.
pub(super) fn forward_block(given: Block<'_>, sizes: Sizes, first: usize, out: &mut [f32]) {
    let count = channels(given.x, first);
    let mut circle = Circle::new(sizes.circle);
    let mut values = vec![0.0; count * sizes.circle];
    let (mut spectrum, mut result) = (circle.spectrum(), vec![0.0; sizes.circle]);
    given.filter_lines(sizes, first, &mut values);
    let filters = values.chunks_exact_mut(sizes.circle).map(|line| {
        let mut spectrum = circle.spectrum();
        circle.transform(line, &mut spectrum);
        spectrum
    });
    let filters: Vec<Spectrum> = filters.collect();
    let scale = 1.0 / sizes.circle as f32;
    for (row, out) in out.chunks_exact_mut(sizes.length * count).enumerate() {
        given.input_lines(sizes, row, first, &mut values);
        let lines = values.chunks_exact_mut(sizes.circle).zip(&filters);
        for (channel, (line, filter)) in lines.enumerate() {
            circle.transform(line, &mut spectrum);
            for (value, filter) in spectrum.iter_mut().zip(filter) {
                *value *= filter;
            }
            circle.restore(&mut spectrum, &mut result);
            let outputs = &result[sizes.history..][..sizes.length];
            for (t, &value) in outputs.iter().enumerate() {
                out[t * count + channel] = scale * value;
            }
        }
    }
}

/// Gradients of channels from `first` on, written: of x `[B, T, channels]`, of the filter `[taps, channels]`.
pub(super) fn backward_block(
    given: Block<'_>,
    grad_y: Rows<'_>,
    sizes: Sizes,
    first: usize,
    grad_x: &mut [f32],
    grad_filter: &mut [f32],
) {
    let count = channels(given.x, first);
    let mut circle = Circle::new(sizes.circle);
    let mut values = vec![0.0; count * sizes.circle];
    let mut grads = vec![0.0; count * sizes.circle];
    let mut result = vec![0.0; sizes.circle];
    let (mut of_x, mut of_y) = (circle.spectrum(), circle.spectrum());
    given.filter_lines(sizes, first, &mut values);
    let filters = values.chunks_exact_mut(sizes.circle).map(|line| {
        let mut spectrum = circle.spectrum();
        circle.transform(line, &mut spectrum);
        (spectrum, circle.spectrum())
    });
    // Each filter's spectrum, and that of its gradient.
    let mut filters: Vec<(Spectrum, Spectrum)> = filters.collect();
    let scale = 1.0 / sizes.circle as f32;
    for (row, grad_x) in grad_x.chunks_exact_mut(sizes.length * count).enumerate() {
        given.input_lines(sizes, row, first, &mut values);
        let rows = (0..sizes.length).map(|t| grad_y.row(row * sizes.length + t));
        let to = (sizes.circle, &mut grads[..]);
        lines(rows, first, count, sizes.history, to);
        let inputs = values.chunks_exact_mut(sizes.circle);
        let lines = inputs.zip(grads.chunks_exact_mut(sizes.circle));
        for (channel, ((line, grads), (filter, sum))) in lines.zip(&mut filters).enumerate() {
            circle.transform(line, &mut of_x);
            circle.transform(grads, &mut of_y);
            for (((sum, x), y), filter) in sum.iter_mut().zip(&of_x).zip(&mut of_y).zip(filter) {
                *sum += x.conj() * *y;
                *y *= filter.conj();
            }
            circle.restore(&mut of_y, &mut result);
            let outputs = &result[sizes.history..][..sizes.length];
            for (t, &value) in outputs.iter().enumerate() {
                grad_x[t * count + channel] = scale * value;
            }
        }
    }
    debug_assert_eq!(grad_filter.len(), sizes.taps * count);
    grad_filter.fill(0.0);
    for (channel, (_, sum)) in filters.iter_mut().enumerate() {
        circle.restore(sum, &mut result);
        for (tap, &value) in result[..sizes.used].iter().enumerate() {
            grad_filter[tap * count + channel] = scale * value;
        }
    }
}
