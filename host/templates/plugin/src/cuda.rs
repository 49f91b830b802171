//! The recurrence on a CUDA device: the launches of `kernels/{{crate}}.cu`. They are recorded once for a
//! shape (B, T) and replayed, so nothing here may depend on what changes from step to step.

use longhaul_plugin_kit::cuda::device::{Launch, Ptr, Stored};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::{Result, kernel_params};

use crate::cpu::Fast;

/// The kernels of the recurrence.
pub(crate) static KERNELS: KernelSource = KernelSource {
    file: "{{crate}}.cu",
    text: include_str!("../kernels/{{crate}}.cu"),
    params: &[RecurrenceForward::CPP, RecurrenceBackward::CPP],
};

kernel_params! {
    struct RecurrenceForward {
        x: *const Stored, gate: *const Stored, // [B, T, W], rows of tokens x_stride and gate_stride values apart
        h: *mut Stored,                        // [B, T, W], contiguous
        state: *mut f32,                       // [B, W], read and left; null in training, which starts from 0
        x_stride: u64, gate_stride: u64, rows: u64,
        length: u32, width: u32,
    }
}

kernel_params! {
    struct RecurrenceBackward {
        x: *const Stored, gate: *const Stored,       // [B, T, W]
        h: *const Stored, grad_h: *const Stored,     // [B, T, W], contiguous
        grad_x: *mut Stored, grad_gate: *mut Stored, // [B, T, W]
        x_stride: u64, gate_stride: u64, grad_x_stride: u64, grad_gate_stride: u64, rows: u64,
        length: u32, width: u32,
        add_x: u32, add_gate: u32, // whether a gradient is a sum to add to; else its old content is arbitrary
    }
}

pub(crate) fn forward(operation: &Fast, run: &CudaRun<'_>) -> Result<()> {
    let (x, gate) = (run.value(operation.x), run.value(operation.gate));
    let state = run.state(operation.state);
    let params = RecurrenceForward {
        x: x.data,
        gate: gate.data,
        h: run.value(operation.h).data,
        state: state.map_or(Ptr::default(), |state| state.data),
        x_stride: x.stride as u64,
        gate_stride: gate.stride as u64,
        rows: run.rows() as u64,
        length: run.length() as u32,
        width: x.cols as u32,
    };
    let launch = Launch::for_each(run.rows() * x.cols);
    run.launch(&KERNELS, "{{crate}}_forward", launch, &params)
}

pub(crate) fn backward(operation: &Fast, run: &CudaRun<'_>) -> Result<()> {
    let (x, gate) = (run.value(operation.x), run.value(operation.gate));
    let grad_h = run.grad(operation.h)?;
    let (grad_x, add_x) = run.grad_mut(operation.x)?;
    let (grad_gate, add_gate) = run.grad_mut(operation.gate)?;
    let params = RecurrenceBackward {
        x: x.data,
        gate: gate.data,
        h: run.value(operation.h).data,
        grad_h: grad_h.data,
        grad_x: grad_x.data,
        grad_gate: grad_gate.data,
        x_stride: x.stride as u64,
        gate_stride: gate.stride as u64,
        grad_x_stride: grad_x.stride as u64,
        grad_gate_stride: grad_gate.stride as u64,
        rows: run.rows() as u64,
        length: run.length() as u32,
        width: x.cols as u32,
        add_x: add_x.into(),
        add_gate: add_gate.into(),
    };
    let launch = Launch::for_each(run.rows() * x.cols);
    run.launch(&KERNELS, "{{crate}}_backward", launch, &params)
}
