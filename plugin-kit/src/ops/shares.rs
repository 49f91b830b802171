//! The columns of each head as shares of their sum (a softmax, or values over their sum), and the largest of them.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::kernel_params;
use crate::rows::for_pieces;
use crate::simd::{dot, exp, max, sum};

impl Graph {
    /// The softmax within each of `heads` equal groups of columns.
    ///
    /// # Panics
    /// If the heads do not divide the columns.
    #[track_caller]
    pub fn softmax(&mut self, x: Tensor, heads: usize) -> Tensor {
        self.record_shares(x, heads, Kind::Softmax, 0.0)
    }

    /// Each of `heads` equal groups of columns over its sum: `x / (sum of x + epsilon)`. Values should be at least 0.
    ///
    /// # Panics
    /// If the heads do not divide the columns.
    #[track_caller]
    pub fn shares(&mut self, x: Tensor, heads: usize, epsilon: f32) -> Tensor {
        self.record_shares(x, heads, Kind::Sum, epsilon)
    }

    /// The `count` largest values of each of `heads` equal groups of columns where they are, 0 elsewhere. Of equal
    /// ones the first count as larger.
    ///
    /// # Panics
    /// If the heads do not divide the columns.
    #[track_caller]
    pub fn largest(&mut self, x: Tensor, heads: usize, count: usize) -> Tensor {
        let width = width(x, heads);
        if count >= width {
            return x;
        }
        let y = self.tensor_like(x, x.cols());
        self.push(Largest { x, width, count, y });
        y
    }

    #[track_caller]
    fn record_shares(&mut self, x: Tensor, heads: usize, kind: Kind, epsilon: f32) -> Tensor {
        let width = width(x, heads);
        let y = self.tensor_like(x, x.cols());
        self.push(Shares {
            x,
            width,
            kind,
            epsilon,
            y,
        });
        y
    }
}

#[track_caller]
fn width(x: Tensor, heads: usize) -> usize {
    assert!(
        heads > 0 && x.cols().is_multiple_of(heads),
        "{heads} heads in {} columns",
        x.cols()
    );
    x.cols() / heads
}

static SOURCE: KernelSource = KernelSource {
    file: "shares.cu",
    text: include_str!("../../kernels/shares.cu"),
    params: &[SharesValues::CPP, LargestValues::CPP],
};

kernel_params! {
    struct SharesValues {
        x: *const Stored,  // [rows, heads, width]
        y: *const Stored,  // [rows, heads, width], contiguous; written by the way forward
        dy: *const Stored, // [rows, heads, width], of the way back only
        out: *mut Stored,  // y, or the gradient of x
        x_stride: u64, dy_stride: u64, out_stride: u64, rows: u64,
        heads: u32, width: u32, kind: u32, accumulate: u32,
        epsilon: f32,
        unused: u32,
    }
}

kernel_params! {
    struct LargestValues {
        x: *const Stored,    // [rows, heads, width]: what decides
        from: *const Stored, // [rows, heads, width]: x, or the gradient of y
        to: *mut Stored,     // [rows, heads, width]: y, or the gradient of x
        x_stride: u64, from_stride: u64, to_stride: u64, rows: u64,
        heads: u32, width: u32, count: u32, accumulate: u32,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Softmax,
    Sum,
}

struct Shares {
    x: Tensor,
    /// Columns of a head.
    width: usize,
    kind: Kind,
    epsilon: f32,
    y: Tensor,
}

impl Shares {
    fn launch(
        &self,
        run: &CudaRun<'_>,
        kernel: &'static str,
        dy: Option<DeviceRows>,
        (out, accumulate): (DeviceRows, bool),
    ) -> Result<()> {
        let (x, heads) = (run.value(self.x), self.x.cols() / self.width);
        let params = SharesValues {
            x: x.data,
            y: run.value(self.y).data,
            dy: dy.map_or(Ptr::default(), |dy| dy.data),
            out: out.data,
            x_stride: x.stride as u64,
            dy_stride: dy.map_or(0, |dy| dy.stride as u64),
            out_stride: out.stride as u64,
            rows: out.rows as u64,
            heads: heads as u32,
            width: self.width as u32,
            kind: self.kind as u32,
            accumulate: accumulate.into(),
            epsilon: self.epsilon,
            unused: 0,
        };
        let launch = Launch::for_each(out.rows * heads * 32);
        run.launch(&SOURCE, kernel, launch, &params)
    }
}

impl Operation for Shares {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Softmax => "softmax",
            Kind::Sum => "shares",
        }
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let x = x.get();
        let mut y = run.value_mut(self.y);
        for_pieces(y.data_mut(), x.cols, |first, piece| {
            forward(
                x.from_row(first),
                self.width,
                self.kind,
                self.epsilon,
                piece,
            );
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, y, dy) = (run.value(self.x), run.value(self.y), run.grad(self.y));
        let (x, y, dy) = (x.get(), y.get(), dy.get());
        let mut grad = run.grad_mut(self.x);
        let (accumulate, stride) = (grad.accumulate(), grad.stride());
        for_pieces(grad.data_mut(), stride, |first, piece| {
            let given = [x, y, dy].map(|rows| rows.from_row(first));
            backward(
                given,
                self.width,
                self.kind,
                self.epsilon,
                accumulate,
                stride,
                piece,
            );
        });
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.launch(run, "shares_forward", None, (run.value(self.y), false))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        self.launch(run, "shares_backward", Some(dy), run.grad_mut(self.x)?)
    }
}

crate::simd! {
    fn forward(x: Rows<'_>, width: usize, kind: Kind, epsilon: f32, y: &mut [f32]) {
        for (row, y) in y.chunks_exact_mut(x.cols).enumerate() {
            for (x, y) in x.row(row).chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                match kind {
                    Kind::Softmax => {
                        let most = max(x);
                        for (y, x) in y.iter_mut().zip(x) {
                            *y = exp(x - most);
                        }
                    }
                    Kind::Sum => y.copy_from_slice(x),
                }
                let scale = 1.0 / (sum(y) + epsilon);
                for y in y {
                    *y *= scale;
                }
            }
        }
    }
}

crate::simd! {
    /// dx of rows that are `stride` apart, from x, y and dy.
    fn backward(
        given: [Rows<'_>; 3],
        width: usize,
        kind: Kind,
        epsilon: f32,
        accumulate: bool,
        stride: usize,
        dx: &mut [f32],
    ) {
        let cols = given[0].cols;
        for (row, dx) in dx.chunks_mut(stride).enumerate() {
            for start in (0..cols).step_by(width) {
                let [x, y, dy] = given.map(|rows| &rows.row(row)[start..start + width]);
                let dx = &mut dx[start..start + width];
                let share = dot(y, dy);
                let scale = 1.0 / (sum(x) + epsilon);
                for c in 0..width {
                    let old = if accumulate { dx[c] } else { 0.0 };
                    let scale = if kind == Kind::Softmax { y[c] } else { scale };
                    dx[c] = old + scale * (dy[c] - share);
                }
            }
        }
    }
}

struct Largest {
    x: Tensor,
    /// Columns of a head.
    width: usize,
    count: usize,
    y: Tensor,
}

impl Largest {
    fn launch(
        &self,
        run: &CudaRun<'_>,
        from: DeviceRows,
        (to, accumulate): (DeviceRows, bool),
    ) -> Result<()> {
        let x = run.value(self.x);
        let params = LargestValues {
            x: x.data,
            from: from.data,
            to: to.data,
            x_stride: x.stride as u64,
            from_stride: from.stride as u64,
            to_stride: to.stride as u64,
            rows: to.rows as u64,
            heads: (to.cols / self.width) as u32,
            width: self.width as u32,
            count: self.count as u32,
            accumulate: accumulate.into(),
        };
        let launch = Launch::for_each(to.rows * to.cols);
        run.launch(&SOURCE, "largest", launch, &params)
    }
}

impl Operation for Largest {
    fn name(&self) -> &'static str {
        "largest"
    }

    fn jumps(&self) -> bool {
        true
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let x = x.get();
        let mut y = run.value_mut(self.y);
        for_pieces(y.data_mut(), x.cols, |first, piece| {
            let x = x.from_row(first);
            keep(x, x, self.width, self.count, false, x.cols, piece);
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, dy) = (run.value(self.x), run.grad(self.y));
        let (x, dy) = (x.get(), dy.get());
        let mut grad = run.grad_mut(self.x);
        let (accumulate, stride) = (grad.accumulate(), grad.stride());
        for_pieces(grad.data_mut(), stride, |first, piece| {
            let (x, dy) = (x.from_row(first), dy.from_row(first));
            keep(x, dy, self.width, self.count, accumulate, stride, piece);
        });
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.launch(run, run.value(self.x), (run.value(self.y), false))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.launch(run, run.grad(self.y)?, run.grad_mut(self.x)?)
    }
}

crate::simd! {
    /// What of `from` stands where x is among the `count` largest of its head, to rows that are `stride` apart.
    fn keep(
        x: Rows<'_>,
        from: Rows<'_>,
        width: usize,
        count: usize,
        accumulate: bool,
        stride: usize,
        to: &mut [f32],
    ) {
        for (row, to) in to.chunks_mut(stride).enumerate() {
            let from = from.row(row);
            for start in (0..x.cols).step_by(width) {
                let x = &x.row(row)[start..start + width];
                for (place, &mine) in x.iter().enumerate() {
                    // A place comes after larger values, and after equal ones on its left.
                    let (left, right) = x.split_at(place);
                    let before = left.iter().map(|&x| u32::from(x >= mine)).sum::<u32>()
                        + right.iter().map(|&x| u32::from(x > mine)).sum::<u32>();
                    let value = if (before as usize) < count { from[start + place] } else { 0.0 };
                    let to = &mut to[start + place];
                    *to = if accumulate { *to } else { 0.0 } + value;
                }
            }
        }
    }
}
