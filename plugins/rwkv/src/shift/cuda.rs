//! Token shift on a device; see `kernels/shift.cu`.

use longhaul_plugin_kit::cuda::device::{KernelSource, Launch, Ptr, Stored};
use longhaul_plugin_kit::cuda::rows::{copy_rows, part_count};
use longhaul_plugin_kit::cuda::run::{CudaRun, DeviceRows};
use longhaul_plugin_kit::{Result, kernel_params};

use super::{MOST, Mix, TokenShift};

pub(super) static SHIFT: KernelSource = KernelSource {
    file: "shift.cu",
    text: include_str!("../../kernels/shift.cu"),
    params: &[
        ShiftWeights::CPP,
        ShiftForward::CPP,
        ShiftBackward::CPP,
        ShiftSums::CPP,
    ],
};

/// Columns of a block of `shift_sums`.
const SUM_COLS: usize = 32;

kernel_params! {
    /// Of each blend, in one of the two.
    struct ShiftWeights {
        channels: [*const f32; MOST],  // [D], or null
        tokens: [*const Stored; MOST], // [B, T, D], or null
        token_strides: [u64; MOST],
    }
}

kernel_params! {
    struct ShiftForward: ShiftWeights as weights {
        x: *const Stored,         // [B, T, D]
        history: *const f32,      // [B, D], null where it is 0
        y: [*mut Stored; MOST],   // [B, T, D], contiguous
        x_stride: u64, rows: u64, // rows = B T
        length: u32, cols: u32, outputs: u32, current: u32,
    }
}

kernel_params! {
    struct ShiftBackward: ShiftWeights as weights {
        x: *const Stored,                  // [B, T, D]
        grad_x: *mut Stored,               // [B, T, D]
        dy: [*const Stored; MOST],         // [B, T, D], contiguous
        grad_weights: [*mut Stored; MOST], // [B, T, D], null of [D]
        grad_strides: [u64; MOST],         // of grad_weights
        x_stride: u64, grad_x_stride: u64, rows: u64,
        accumulate: [u32; MOST], // of grad_weights
        length: u32, cols: u32, outputs: u32, current: u32,
        accumulate_x: u32, unused: u32,
    }
}

kernel_params! {
    struct ShiftSums {
        x: *const Stored,          // [B, T, D]
        parts: *mut f32,           // [part_count, outputs, D]
        dy: [*const Stored; MOST], // [B, T, D], contiguous
        sums: [*mut f32; MOST],    // [D], added to
        x_stride: u64, rows: u64,
        length: u32, cols: u32, outputs: u32, current: u32,
        part_count: u32, unused: u32,
    }
}

const NONE: [Ptr; MOST] = [Ptr(0); MOST];

impl TokenShift {
    /// Each blend's weights, a parameter or a tensor.
    fn weights(&self, run: &CudaRun<'_>) -> ShiftWeights {
        let mut weights = ShiftWeights {
            channels: NONE,
            tokens: NONE,
            token_strides: [0; MOST],
        };
        for (index, (mix, _)) in self.outputs.iter().enumerate() {
            match *mix {
                Mix::Channel(param) => weights.channels[index] = run.param(param),
                Mix::Token(tensor) => {
                    let rows = run.value(tensor);
                    weights.tokens[index] = rows.data;
                    weights.token_strides[index] = rows.stride as u64;
                }
            }
        }
        weights
    }

    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let x = run.value(self.x);
        let state = run.state(self.last.state);
        let mut y = NONE;
        for (place, (_, tensor)) in y.iter_mut().zip(&self.outputs) {
            *place = run.value(*tensor).data;
        }
        let params = ShiftForward {
            x: x.data,
            history: state.map_or(Ptr::default(), |state| state.data),
            weights: self.weights(run),
            y,
            x_stride: x.stride as u64,
            rows: x.rows as u64,
            length: run.length() as u32,
            cols: x.cols as u32,
            outputs: self.outputs.len() as u32,
            current: self.current.into(),
        };
        let launch = Launch::for_each(x.rows * x.cols);
        run.launch(&SHIFT, "shift_forward", launch, &params)?;
        let Some(state) = state.filter(|_| self.last.renew && run.length() > 0) else {
            return Ok(());
        };
        let last = DeviceRows {
            data: x.data.value((run.length() - 1) * x.stride),
            rows: run.rows(),
            stride: run.length() * x.stride,
            ..x
        };
        let place = DeviceRows {
            data: state.data,
            stored: false,
            rows: run.rows(),
            cols: x.cols,
            stride: x.cols,
        };
        copy_rows(run, last, place, 1.0, false)
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let x = run.value(self.x);
        let mut dy = NONE;
        for (place, (_, tensor)) in dy.iter_mut().zip(&self.outputs) {
            *place = run.grad(*tensor)?.data;
        }
        let (grad_x, accumulate_x) = run.grad_mut(self.x)?;
        let mut params = ShiftBackward {
            x: x.data,
            grad_x: grad_x.data,
            weights: self.weights(run),
            dy,
            grad_weights: NONE,
            grad_strides: [0; MOST],
            x_stride: x.stride as u64,
            grad_x_stride: grad_x.stride as u64,
            rows: x.rows as u64,
            accumulate: [0; MOST],
            length: run.length() as u32,
            cols: x.cols as u32,
            outputs: self.outputs.len() as u32,
            current: self.current.into(),
            accumulate_x: accumulate_x.into(),
            unused: 0,
        };
        for (index, (mix, _)) in self.outputs.iter().enumerate() {
            if let Mix::Token(tensor) = *mix {
                let (grad, accumulate) = run.grad_mut(tensor)?;
                params.grad_weights[index] = grad.data;
                params.grad_strides[index] = grad.stride as u64;
                params.accumulate[index] = accumulate.into();
            }
        }
        let launch = Launch::for_each(x.rows * x.cols);
        run.launch(&SHIFT, "shift_backward", launch, &params)?;
        self.add_param_grads(run, x, dy)
    }

    /// Sums over all positions for the blends whose weights are a parameter.
    fn add_param_grads(&self, run: &CudaRun<'_>, x: DeviceRows, dy: [Ptr; MOST]) -> Result<()> {
        let Some(parts) = self.parts.filter(|_| x.rows > 0) else {
            return Ok(());
        };
        let part_count = part_count(x.rows);
        let mut params = ShiftSums {
            x: x.data,
            parts: run.saved(parts),
            dy: NONE,
            sums: NONE,
            x_stride: x.stride as u64,
            rows: x.rows as u64,
            length: run.length() as u32,
            cols: x.cols as u32,
            outputs: 0,
            current: self.current.into(),
            part_count: part_count as u32,
            unused: 0,
        };
        for ((mix, _), dy) in self.outputs.iter().zip(dy) {
            if let Mix::Channel(param) = *mix {
                let index = params.outputs as usize;
                (params.dy[index], params.sums[index]) = (dy, run.param_grad(param));
                params.outputs += 1;
            }
        }
        let grid = [x.cols.div_ceil(SUM_COLS), part_count, 1];
        let launch = Launch::of(grid, 256).with_shared(256);
        run.launch(&SHIFT, "shift_sums", launch, &params)?;
        run.launch(&SHIFT, "shift_add_sums", Launch::for_each(x.cols), &params)
    }
}
