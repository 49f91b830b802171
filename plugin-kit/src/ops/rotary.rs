//! Rotary position embedding (RoPE, arXiv 2104.09864, eq. 34) in the half-split form of Llama: value
//! n of a head pairs with value n + dims / 2. [`crate::ops::rotary_scaling`] has what changes the angles.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::cuda::run::{Control, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run, ViewMut};
use crate::engine::tensor::{Buffer, Extent, Saved, Tensor};
use crate::kernel_params;
use crate::ops::rotary_scaling::{Angles, Blend};

static SOURCE: KernelSource = KernelSource {
    file: "rotary.cu",
    text: include_str!("../../kernels/rotary.cu"),
    params: &[RotaryTableParams::CPP, RotaryParams::CPP],
};

kernel_params! {
    struct RotaryTableParams {
        table: *mut f32,         // [T, 2, dims / 2]: cosines, then sines
        control: *const Control, // null where every sequence starts at position 0
        base: f64,
        factor: f64, original: f64, from: f64, to: f64, // the blend
        scale: f64,                                     // of cosines and sines
        period: u64,                                    // positions after which angles begin anew, 0 for none
        length: u32, dims: u32,
    }
}

kernel_params! {
    struct RotaryParams {
        x: *const Stored, table: *const f32,     // [B, T, cols], [T, 2, dims / 2]
        y: *mut Stored,                          // [B, T, cols]
        x_stride: u64, y_stride: u64, rows: u64, // rows: B T
        length: u32, cols: u32, head_dim: u32, dims: u32, accumulate: u32,
        sign: f32, // 1, or -1 to turn a gradient back
    }
}

impl Graph {
    /// Rotates the first `dims` values of every head of x `[B, T, heads * head_dim]` by position. `angles` is a
    /// base, or a base with a scaling.
    ///
    /// # Panics
    /// If `dims` is odd or larger than a head.
    #[track_caller]
    pub fn rotary(
        &mut self,
        x: Tensor,
        heads: usize,
        dims: usize,
        angles: impl Into<Angles>,
    ) -> Tensor {
        let head_dim = x.cols() / heads;
        assert!(
            dims.is_multiple_of(2) && dims <= head_dim,
            "{dims} rotary of {head_dim} values"
        );
        if dims == 0 {
            return x;
        }
        let y = self.tensor(x.cols());
        let table = self.rotary_table(dims, angles.into());
        self.push(Rotary {
            x,
            head_dim,
            dims,
            table,
            y,
        });
        y
    }

    /// Cosines and sines of every position; all rotations of a model share one table.
    fn rotary_table(&mut self, dims: usize, angles: Angles) -> Saved {
        let key = (dims, angles);
        if let Some((_, table)) = self.rotary_tables.iter().find(|(known, _)| *known == key) {
            return *table;
        }
        // A row's share of the tokens is enough room for all.
        let table = self.saved(Extent::Tokens(dims));
        self.push(RotaryTable {
            angles,
            blend: angles.blend(dims),
            frequencies: angles.frequencies(dims),
            table,
        });
        self.rotary_tables.push((key, table));
        table
    }
}

struct RotaryTable {
    angles: Angles,
    blend: Blend,
    /// Radians a position, in float64: exact to float32 at a million tokens.
    frequencies: Vec<f64>,
    /// `[T, 2, dims / 2]`: cosines, then sines.
    table: Saved,
}

impl RotaryTable {
    /// Fills a table whose rows are those of positions modulo `period`.
    fn repeat(&self, period: u64, position: u64, table: &mut [f32]) {
        let (half, scale) = (self.frequencies.len(), self.blend.scale);
        for t in 0..table.len() / (2 * half) {
            let (before, row) = table.split_at_mut(t * 2 * half);
            if t as u64 >= period {
                let same = (t - period as usize) * 2 * half;
                row[..2 * half].copy_from_slice(&before[same..][..2 * half]);
                continue;
            }
            let place = ((position + t as u64) % period) as f64;
            for (n, frequency) in self.frequencies.iter().enumerate() {
                let (sine, cosine) = (place * frequency).sin_cos();
                (row[n], row[half + n]) = ((scale * cosine) as f32, (scale * sine) as f32);
            }
        }
    }
}

/// Positions from one exact angle to the next; between them angles are added by rotation in float64.
const EXACT_EVERY: usize = 64;

impl Operation for RotaryTable {
    fn name(&self) -> &'static str {
        "rotary_table"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (half, scale) = (self.frequencies.len(), self.blend.scale);
        let mut table = run.saved_mut(self.table);
        let table = &mut table[..run.length() * 2 * half];
        if let Some(period) = self.angles.period {
            self.repeat(u64::from(period), run.position(), table);
            return Ok(());
        }
        for (block, angles) in table.chunks_mut(EXACT_EVERY * 2 * half).enumerate() {
            let position = (run.position() + (block * EXACT_EVERY) as u64) as f64;
            let rows = angles.len() / (2 * half);
            for (n, frequency) in self.frequencies.iter().enumerate() {
                let (mut sine, mut cosine) = (position * frequency).sin_cos();
                angles[n] = (scale * cosine) as f32;
                angles[half + n] = (scale * sine) as f32;
                if rows == 1 {
                    continue;
                }
                let (s, c) = frequency.sin_cos();
                for angles in angles[2 * half..].chunks_exact_mut(2 * half) {
                    (cosine, sine) = (cosine * c - sine * s, sine * c + cosine * s);
                    angles[n] = (scale * cosine) as f32;
                    angles[half + n] = (scale * sine) as f32;
                }
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.table.into()])
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let half = self.frequencies.len();
        let params = RotaryTableParams {
            table: run.saved(self.table),
            control: if run.is_training() {
                Ptr::default()
            } else {
                run.ports().control
            },
            base: self.angles.base,
            factor: self.blend.factor,
            original: self.blend.original,
            from: self.blend.from,
            to: self.blend.to,
            scale: self.blend.scale,
            period: self.angles.period.unwrap_or(0).into(),
            length: run.length() as u32,
            dims: 2 * half as u32,
        };
        let launch = Launch::for_each(run.length() * half);
        run.launch(&SOURCE, "rotary_table", launch, &params)
    }

    fn cuda_backward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Ok(())
    }
}

struct Rotary {
    x: Tensor,
    head_dim: usize,
    dims: usize,
    /// Of a [`RotaryTable`].
    table: Saved,
    y: Tensor,
}

impl Rotary {
    /// Rotates forwards, or backwards for gradients.
    fn rotate(&self, run: &Run<'_>, x: Rows<'_>, mut y: ViewMut<'_>, sign: f32) {
        let (length, rows) = (run.length(), run.rows() * run.length());
        let table = run.saved(self.table);
        let accumulate = y.accumulate();
        for row in 0..rows {
            let angles = &table[row % length * self.dims..][..self.dims];
            rotate_row(
                x.row(row),
                angles,
                self.head_dim,
                sign,
                accumulate,
                y.row_mut(row),
            );
        }
    }

    /// The same on a device; adds to y where `accumulate` is set.
    fn rotate_on(
        &self,
        run: &CudaRun<'_>,
        x: DeviceRows,
        y: DeviceRows,
        sign: f32,
        accumulate: bool,
    ) -> Result<()> {
        let params = RotaryParams {
            x: x.data,
            table: run.saved(self.table),
            y: y.data,
            x_stride: x.stride as u64,
            y_stride: y.stride as u64,
            rows: y.rows as u64,
            length: run.length() as u32,
            cols: y.cols as u32,
            head_dim: self.head_dim as u32,
            dims: self.dims as u32,
            accumulate: accumulate.into(),
            sign,
        };
        let launch = Launch::for_each(y.rows * y.cols);
        run.launch(&SOURCE, "rotary", launch, &params)
    }
}

impl Operation for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        self.rotate(run, x.get(), run.value_mut(self.y), 1.0);
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.table.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        self.rotate(run, grad_y.get(), run.grad_mut(self.x), -1.0);
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.rotate_on(run, run.value(self.x), run.value(self.y), 1.0, false)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        let (grad, accumulate) = run.grad_mut(self.x)?;
        self.rotate_on(run, dy, grad, -1.0, accumulate)
    }
}

crate::simd! {
    fn rotate_row(
        x: &[f32],
        angles: &[f32],
        head_dim: usize,
        sign: f32,
        accumulate: bool,
        y: &mut [f32],
    ) {
        let half = angles.len() / 2;
        let (cosines, sines) = angles.split_at(half);
        let keep = if accumulate { 1.0 } else { 0.0 };
        for (x, y) in x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim)) {
            if !accumulate {
                y.fill(0.0);
            }
            let (first, rest) = x.split_at(half);
            let (second, plain) = rest.split_at(half);
            let (y_first, y_rest) = y.split_at_mut(half);
            let (y_second, y_plain) = y_rest.split_at_mut(half);
            for n in 0..half {
                let (a, b) = (first[n], second[n]);
                let (c, s) = (cosines[n], sign * sines[n]);
                y_first[n] = keep * y_first[n] + (a * c - b * s);
                y_second[n] = keep * y_second[n] + (b * c + a * s);
            }
            for (y, x) in y_plain.iter_mut().zip(plain) {
                *y = keep * *y + x;
            }
        }
    }
}
