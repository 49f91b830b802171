//! What groups of heads share, with a bias and a rotation for every head: the keys and queries of a state that turns
//! (arXiv 2603.15569, section 3.2).

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::cuda::rows::{ROWS, column_sums, parts};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Param, Saved, Tensor};
use crate::kernel_params;
use crate::rows::for_pieces;

static SOURCE: KernelSource = KernelSource {
    file: "turned_heads.cu",
    text: include_str!("../../kernels/turned_heads.cu"),
    params: &[TurnedParams::CPP],
};

kernel_params! {
    struct TurnedParams {
        x: *const Stored, bias: *const f32, // [rows, G width], [H width]
        turns: *const Stored,               // [rows, 2, H n]: cosines, then sines
        y: *mut Stored,                     // [rows, H width], contiguous
        dy: *const Stored,                  // [rows, H width]
        unturned: *mut f32,                 // [rows, H width], contiguous: the gradient of x and bias, by head
        grad_x: *mut Stored, grad_turns: *mut Stored,
        x_stride: u64, turns_stride: u64, dy_stride: u64, grad_x_stride: u64, grad_turns_stride: u64, rows: u64,
        groups: u32, heads: u32, width: u32, pairs: u32, adds_x: u32, adds_turns: u32,
    }
}

impl Graph {
    /// Every head's part of x with its bias, turned: x `[groups * width]`, groups dividing heads, bias
    /// `[heads * width]` in all, turns `[2 heads * n]` as of [`Graph::running_turns`]; the result is `[heads * width]`.
    /// In a head, value i pairs with value `i + n`; what is past `2 n` is not turned.
    ///
    /// # Panics
    /// If sizes do not fit.
    #[track_caller]
    pub fn turned_heads(&mut self, x: Tensor, bias: Param, turns: Tensor, heads: usize) -> Tensor {
        let cols: usize = self.param_shape(bias).iter().product();
        let (width, pairs) = (cols / heads, turns.cols() / (2 * heads));
        assert!(
            cols == heads * width && x.cols().is_multiple_of(width),
            "a bias of {cols} values and {} columns in {heads} heads",
            x.cols()
        );
        let groups = x.cols() / width;
        assert!(
            heads.is_multiple_of(groups) && turns.cols() == 2 * heads * pairs && 2 * pairs <= width,
            "{groups} groups of {width} columns and {} turns in {heads} heads",
            turns.cols()
        );
        let y = self.tensor(cols);
        let operation = TurnedHeads {
            x,
            bias,
            turns,
            heads,
            width,
            pairs,
            unturned: self.saved(Extent::Tokens(cols)),
            parts: self.wants_device().then(|| parts(self, cols)),
            y,
        };
        self.push(operation);
        y
    }
}

struct TurnedHeads {
    x: Tensor,
    bias: Param,
    turns: Tensor,
    heads: usize,
    /// Columns of a head.
    width: usize,
    /// n.
    pairs: usize,
    /// `[B, T, heads * width]`: the gradient of x and bias, by head.
    unturned: Saved,
    /// Sums of the bias's gradient, on a device.
    parts: Option<Saved>,
    y: Tensor,
}

impl Operation for TurnedHeads {
    fn name(&self) -> &'static str {
        "turned_heads"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (x, turns, bias) = (
            run.value(self.x),
            run.value(self.turns),
            run.param(self.bias),
        );
        let (x, turns) = (x.get(), turns.get());
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for_pieces(y.data_mut(), cols, |first, piece| {
            for (row, y) in (first..).zip(piece.chunks_exact_mut(cols)) {
                turn(x.row(row), bias, turns.row(row), self.width, y);
            }
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some([self.x, self.turns, self.y].map(Buffer::from).to_vec())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (x, turns, bias) = (
            run.value(self.x),
            run.value(self.turns),
            run.param(self.bias),
        );
        let (x, turns) = (x.get(), turns.get());
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        let mut unturned = run.saved_mut(self.unturned);
        let cols = self.y.cols();
        let mut grad_bias = run.param_grad(self.bias);
        let mut grad_turns = run.grad_mut(self.turns);
        let mut grad_x = run.grad_mut(self.x);
        let sharing = cols / x.cols;
        for row in 0..grad_x.rows() {
            let dz = &mut unturned[row * cols..][..cols];
            for grad in [&mut grad_x, &mut grad_turns] {
                if !grad.accumulate() {
                    grad.row_mut(row).fill(0.0);
                }
            }
            let (x, dy) = (x.row(row), grad_y.row(row));
            turn_back(
                x,
                bias,
                turns.row(row),
                self.width,
                dy,
                dz,
                grad_turns.row_mut(row),
            );
            crate::simd::add_into(&mut grad_bias, dz);
            for (head, dz) in dz.chunks_exact(self.width).enumerate() {
                let place = &mut grad_x.row_mut(row)[head / sharing * self.width..][..self.width];
                crate::simd::add_into(place, dz);
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y);
        let launch = Launch::for_each(y.rows * y.cols);
        run.launch(&SOURCE, "turned_heads", launch, &self.params(run))
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let Some(parts) = self.parts else {
            return Ok(());
        };
        let dy = run.grad(self.y)?;
        let (grad_x, adds_x) = run.grad_mut(self.x)?;
        let (grad_turns, adds_turns) = run.grad_mut(self.turns)?;
        let params = TurnedParams {
            dy: dy.data,
            dy_stride: dy.stride as u64,
            unturned: run.saved(self.unturned),
            grad_x: grad_x.data,
            grad_x_stride: grad_x.stride as u64,
            grad_turns: grad_turns.data,
            grad_turns_stride: grad_turns.stride as u64,
            adds_x: adds_x.into(),
            adds_turns: adds_turns.into(),
            ..self.params(run)
        };
        let launch = |each: usize| Launch::for_each(dy.rows * each);
        run.launch(&SOURCE, "turned_back", launch(dy.cols), &params)?;
        run.launch(&SOURCE, "turned_shared", launch(grad_x.cols), &params)?;
        if self.pairs > 0 {
            let each = self.heads * self.pairs;
            run.launch(&SOURCE, "turned_angles", launch(each), &params)?;
        }
        let unturned = DeviceRows {
            data: run.saved(self.unturned),
            stored: false,
            rows: dy.rows,
            cols: dy.cols,
            stride: dy.cols,
        };
        column_sums(run, unturned, parts, run.param_grad(self.bias))
    }
}

impl TurnedHeads {
    /// Those of the forward pass.
    fn params(&self, run: &CudaRun<'_>) -> TurnedParams {
        let (x, turns, y) = (run.value(self.x), run.value(self.turns), run.value(self.y));
        let nowhere = Ptr::default();
        TurnedParams {
            x: x.data,
            bias: run.param(self.bias),
            turns: turns.data,
            y: y.data,
            dy: nowhere,
            unturned: nowhere,
            grad_x: nowhere,
            grad_turns: nowhere,
            x_stride: x.stride as u64,
            turns_stride: turns.stride as u64,
            dy_stride: 0,
            grad_x_stride: 0,
            grad_turns_stride: 0,
            rows: y.rows as u64,
            groups: (x.cols / self.width) as u32,
            heads: self.heads as u32,
            width: self.width as u32,
            pairs: self.pairs as u32,
            adds_x: 0,
            adds_turns: 0,
        }
    }
}

crate::simd! {
    /// A row: every head's part of x and its bias, turned.
    fn turn(x: &[f32], bias: &[f32], turns: &[f32], width: usize, y: &mut [f32]) {
        let (cosines, sines) = turns.split_at(turns.len() / 2);
        let heads = y.len() / width;
        let (n, sharing) = (cosines.len() / heads, heads * width / x.len());
        for (head, y) in y.chunks_exact_mut(width).enumerate() {
            let x = &x[head / sharing * width..][..width];
            let bias = &bias[head * width..][..width];
            let (cosines, sines) = (&cosines[head * n..][..n], &sines[head * n..][..n]);
            let (first, rest) = y.split_at_mut(n);
            let (second, plain) = rest.split_at_mut(n);
            let (x_first, x_second) = (&x[..n], &x[n..2 * n]);
            let (bias_first, bias_second) = (&bias[..n], &bias[n..2 * n]);
            for i in 0..n {
                let (a, b) = (x_first[i] + bias_first[i], x_second[i] + bias_second[i]);
                first[i] = a * cosines[i] - b * sines[i];
                second[i] = a * sines[i] + b * cosines[i];
            }
            for ((y, x), bias) in plain.iter_mut().zip(&x[2 * n..]).zip(&bias[2 * n..]) {
                *y = x + bias;
            }
        }
    }
}

crate::simd! {
    /// The gradient of a row before it was turned, dz, from that after it; adds to that of cosines and sines.
    fn turn_back(
        x: &[f32],
        bias: &[f32],
        turns: &[f32],
        width: usize,
        dy: &[f32],
        dz: &mut [f32],
        grad_turns: &mut [f32],
    ) {
        let (cosines, sines) = turns.split_at(turns.len() / 2);
        let (grad_cosines, grad_sines) = grad_turns.split_at_mut(cosines.len());
        let heads = dz.len() / width;
        let (n, sharing) = (cosines.len() / heads, heads * width / x.len());
        for (head, dz) in dz.chunks_exact_mut(width).enumerate() {
            let x = &x[head / sharing * width..][..width];
            let bias = &bias[head * width..][..width];
            let dy = &dy[head * width..][..width];
            let (cosines, sines) = (&cosines[head * n..][..n], &sines[head * n..][..n]);
            let grad_cosines = &mut grad_cosines[head * n..][..n];
            let grad_sines = &mut grad_sines[head * n..][..n];
            let (first, rest) = dz.split_at_mut(n);
            let (second, plain) = rest.split_at_mut(n);
            plain.copy_from_slice(&dy[2 * n..]);
            let (x_first, x_second) = (&x[..n], &x[n..2 * n]);
            let (bias_first, bias_second) = (&bias[..n], &bias[n..2 * n]);
            let (dy_first, dy_second) = (&dy[..n], &dy[n..2 * n]);
            for i in 0..n {
                let (a, b) = (x_first[i] + bias_first[i], x_second[i] + bias_second[i]);
                first[i] = dy_first[i] * cosines[i] + dy_second[i] * sines[i];
                second[i] = dy_second[i] * cosines[i] - dy_first[i] * sines[i];
                grad_cosines[i] += dy_first[i] * a + dy_second[i] * b;
                grad_sines[i] += dy_second[i] * a - dy_first[i] * b;
            }
        }
    }
}
