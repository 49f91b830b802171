//! Tensors beside each other, head by head.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Stored};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::kernel_params;
use crate::rows::for_pieces;

impl Graph {
    /// Heads made of the heads of several tensors: each head of the result is the head's columns of the first part,
    /// then those of the second, and so on. With one head it is the parts beside each other.
    ///
    /// # Panics
    /// If the heads do not divide the columns of a part.
    #[track_caller]
    pub fn concatenate(&mut self, parts: &[Tensor], heads: usize) -> Tensor {
        for part in parts {
            assert!(
                heads > 0 && part.cols().is_multiple_of(heads) && !part.is_constant(),
                "a part of {} columns in {heads} heads",
                part.cols()
            );
        }
        let y = self.tensor(parts.iter().map(|part| part.cols()).sum());
        self.push(Concatenate {
            parts: parts.to_vec(),
            heads,
            y,
        });
        y
    }

    /// For kernels that write the gradients of several inputs in one launch: on a device, inputs that share columns
    /// with one before become copies, whose gradients are added up afterwards.
    pub(crate) fn apart(&mut self, mut inputs: Vec<&mut Tensor>) {
        if !self.wants_device() {
            return;
        }
        for index in 1..inputs.len() {
            let (before, rest) = inputs.split_at_mut(index);
            if before.iter().any(|other| other.overlaps(*rest[0])) {
                *rest[0] = self.concatenate(&[*rest[0]], 1);
            }
        }
    }
}

static SOURCE: KernelSource = KernelSource {
    file: "concatenate.cu",
    text: include_str!("../../kernels/concatenate.cu"),
    params: &[ConcatenateValues::CPP],
};

kernel_params! {
    struct ConcatenateValues {
        from: *const Stored,                          // [rows, heads, from_head]
        to: *mut Stored,                              // [rows, heads, to_head]
        from_stride: u64, to_stride: u64, count: u64, // count: rows heads width
        heads: u32, width: u32, from_head: u32, to_head: u32, accumulate: u32, unused: u32,
    }
}

struct Concatenate {
    parts: Vec<Tensor>,
    heads: usize,
    y: Tensor,
}

impl Concatenate {
    /// Each part with the columns of its heads, and where they begin in a head of the result.
    fn places(&self) -> impl Iterator<Item = (Tensor, usize, usize)> + '_ {
        self.parts.iter().scan(0, |start, &part| {
            let (width, from) = (part.cols() / self.heads, *start);
            *start += width;
            Some((part, width, from))
        })
    }

    /// Columns of a head of the result.
    fn head(&self) -> usize {
        self.y.cols() / self.heads
    }

    /// Copies or adds `width` columns of each head.
    fn copy(
        &self,
        run: &CudaRun<'_>,
        from: DeviceRows,
        to: DeviceRows,
        width: usize,
        accumulate: bool,
    ) -> Result<()> {
        let count = from.rows * self.heads * width;
        let params = ConcatenateValues {
            from: from.data,
            to: to.data,
            from_stride: from.stride as u64,
            to_stride: to.stride as u64,
            count: count as u64,
            heads: self.heads as u32,
            width: width as u32,
            from_head: (from.cols / self.heads) as u32,
            to_head: (to.cols / self.heads) as u32,
            accumulate: accumulate.into(),
            unused: 0,
        };
        run.launch(&SOURCE, "concatenate", Launch::for_each(count), &params)
    }
}

/// The same rows without their first columns, but as wide as they were.
fn shifted(rows: DeviceRows, by: usize) -> DeviceRows {
    DeviceRows {
        data: rows.data.value(by),
        ..rows
    }
}

impl Operation for Concatenate {
    fn name(&self) -> &'static str {
        "concatenate"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let mut y = run.value_mut(self.y);
        let (stride, head) = (y.cols(), self.head());
        for (part, width, from) in self.places() {
            let part = run.value(part);
            let part = part.get();
            for_pieces(y.data_mut(), stride, |first, piece| {
                for (offset, y) in piece.chunks_exact_mut(stride).enumerate() {
                    let x = part.row(first + offset).chunks_exact(width);
                    for (y, x) in y.chunks_exact_mut(head).zip(x) {
                        y[from..from + width].copy_from_slice(x);
                    }
                }
            });
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let parts = self.parts.iter().copied();
        Some(parts.chain([self.y]).map(Buffer::from).collect())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        let (grad_y, head) = (grad_y.get(), self.head());
        for (part, width, from) in self.places() {
            let mut grad = run.grad_mut(part);
            let (accumulate, cols, stride) = (grad.accumulate(), grad.cols(), grad.stride());
            for_pieces(grad.data_mut(), stride, |first, piece| {
                for (offset, grad) in piece.chunks_mut(stride).enumerate() {
                    let dy = grad_y.row(first + offset).chunks_exact(head);
                    for (grad, dy) in grad[..cols].chunks_exact_mut(width).zip(dy) {
                        for (grad, dy) in grad.iter_mut().zip(&dy[from..]) {
                            *grad = if accumulate { *grad } else { 0.0 } + dy;
                        }
                    }
                }
            });
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&SOURCE]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y);
        for (part, width, from) in self.places() {
            self.copy(run, run.value(part), shifted(y, from), width, false)?;
        }
        Ok(())
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        for (part, width, from) in self.places() {
            let (grad, accumulate) = run.grad_mut(part)?;
            self.copy(run, shifted(dy, from), grad, width, accumulate)?;
        }
        Ok(())
    }
}
