//! Embedding, learned positions and the choice of scored positions on a device.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::embedding::{AddPositions, Embedding, SelectScored};
use crate::cuda::device::{KernelSource, Launch, Stored};
use crate::cuda::rows::copy_rows;
use crate::cuda::run::{Control, CudaRun};
use crate::kernel_params;

pub(super) static EMBEDDING: KernelSource = KernelSource {
    file: "embedding.cu",
    text: include_str!("../../kernels/embedding.cu"),
    params: &[
        EmbeddingForward::CPP,
        EmbeddingBackward::CPP,
        PositionsForward::CPP,
        PositionsBackward::CPP,
        SelectForward::CPP,
        SelectBackward::CPP,
    ],
};

/// Places of the tokens' order that a warp adds up: `PIECE` of embedding.cu.
pub(super) const PIECE: usize = 64;

kernel_params! {
    struct EmbeddingForward {
        tokens: *const u32, // [rows]
        table: *const f32,  // [vocab, cols]
        y: *mut Stored,     // [rows, cols], contiguous
        rows: u64,
        cols: u32, vocab: u32,
    }
}

kernel_params! {
    struct EmbeddingBackward {
        tokens: *const u32, // [count]
        order: *const u32,  // [count], of token_order.cu
        dy: *const Stored,  // [count, cols]
        grad: *mut f32,     // [vocab, cols], added to
        parts: *mut f32,    // [pieces, 2, cols]
        dy_stride: u64, count: u64,
        cols: u32, vocab: u32, padding: u32, unused: u32,
    }
}

kernel_params! {
    struct PositionsForward {
        x: *const Stored,  // [B, length, cols]
        table: *const f32, // [positions, cols]
        y: *mut Stored,    // [B, length, cols], contiguous
        control: *const Control,
        x_stride: u64, rows: u64,
        cols: u32, length: u32, positions: u32, unused: u32,
    }
}

kernel_params! {
    struct PositionsBackward {
        dy: *const Stored, // [B, length, cols]
        grad: *mut f32,    // [positions, cols], added to; a sequence begins at position 0
        dy_stride: u64,
        batch: u32, length: u32, cols: u32, unused: u32,
    }
}

kernel_params! {
    struct SelectForward {
        x: *const Stored,   // [B T, cols]
        wanted: *const u32, // [places]: rows of x; arbitrary from control->wanted on
        y: *mut Stored,     // [places, cols], contiguous
        control: *const Control,
        x_stride: u64, places: u64,
        cols: u32, unused: u32,
    }
}

kernel_params! {
    struct SelectBackward {
        dy: *const Stored,  // [places, cols]
        wanted: *const u32, // [places]
        grad: *mut Stored,  // [B T, cols], added to
        control: *const Control,
        dy_stride: u64, grad_stride: u64, places: u64,
        cols: u32, unused: u32,
    }
}

impl Embedding {
    pub(super) fn device_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y);
        let params = EmbeddingForward {
            tokens: run.ports().tokens,
            table: run.param(self.table),
            y: y.data,
            rows: y.rows as u64,
            cols: y.cols as u32,
            vocab: self.vocab as u32,
        };
        let launch = Launch::for_each(y.rows * y.cols);
        run.launch(&EMBEDDING, "embedding_forward", launch, &params)
    }

    pub(super) fn device_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        let (order, parts) = self.sorted.as_ref().ok_or_else(|| {
            PluginError::internal("an embedding was recorded without Graph::want_device")
        })?;
        let params = EmbeddingBackward {
            tokens: run.ports().tokens,
            order: order.sort(run)?,
            dy: dy.data,
            grad: run.param_grad(self.table),
            parts: run.saved(*parts),
            dy_stride: dy.stride as u64,
            count: dy.rows as u64,
            cols: dy.cols as u32,
            vocab: self.vocab as u32,
            // No table is that large, so where there is none it meets no token.
            padding: self.padding.unwrap_or(u32::MAX),
            unused: 0,
        };
        let (pieces, strips) = (dy.rows.div_ceil(PIECE), dy.cols.div_ceil(32));
        let launch = Launch::of([pieces.div_ceil(8), strips, 1], 256);
        run.launch(&EMBEDDING, "embedding_backward", launch, &params)?;
        if pieces == 1 {
            return Ok(());
        }
        let launch = Launch::of([pieces, strips, 1], 256).with_shared(256);
        run.launch(&EMBEDDING, "embedding_parts", launch, &params)
    }
}

impl AddPositions {
    pub(super) fn device_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        // How far a session has come is known to the device only, and positions_forward answers for it;
        // but from any position on, this many tokens end past the table.
        if run.length() > self.positions {
            return Err(self.too_long(run.length()));
        }
        let (x, y) = (run.value(self.x), run.value(self.y));
        let params = PositionsForward {
            x: x.data,
            table: run.param(self.table),
            y: y.data,
            control: run.ports().control,
            x_stride: x.stride as u64,
            rows: y.rows as u64,
            cols: y.cols as u32,
            length: run.length() as u32,
            positions: self.positions as u32,
            unused: 0,
        };
        let launch = Launch::for_each(y.rows * y.cols);
        run.launch(&EMBEDDING, "positions_forward", launch, &params)
    }

    pub(super) fn device_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        let params = PositionsBackward {
            dy: dy.data,
            grad: run.param_grad(self.table),
            dy_stride: dy.stride as u64,
            batch: run.rows() as u32,
            length: run.length() as u32,
            cols: dy.cols as u32,
            unused: 0,
        };
        let launch = Launch::for_each(run.length() * dy.cols);
        run.launch(&EMBEDDING, "positions_backward", launch, &params)?;
        let (grad_x, accumulate) = run.grad_mut(self.x)?;
        copy_rows(run, dy, grad_x, 1.0, accumulate)
    }
}

impl SelectScored {
    pub(super) fn device_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (x, y) = (run.value(self.x), run.value(self.y));
        let params = SelectForward {
            x: x.data,
            wanted: run.ports().wanted,
            y: y.data,
            control: run.ports().control,
            x_stride: x.stride as u64,
            places: y.rows as u64,
            cols: y.cols as u32,
            unused: 0,
        };
        let launch = Launch::for_each(y.rows * y.cols);
        run.launch(&EMBEDDING, "select_forward", launch, &params)
    }

    pub(super) fn device_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        let (grad_x, accumulate) = run.grad_mut(self.x)?;
        if !accumulate {
            run.fill_rows(grad_x, 0.0)?;
        }
        let params = SelectBackward {
            dy: dy.data,
            wanted: run.ports().wanted,
            grad: grad_x.data,
            control: run.ports().control,
            dy_stride: dy.stride as u64,
            grad_stride: grad_x.stride as u64,
            places: dy.rows as u64,
            cols: dy.cols as u32,
            unused: 0,
        };
        let launch = Launch::for_each(dy.rows * dy.cols);
        run.launch(&EMBEDDING, "select_backward", launch, &params)
    }
}
