//! The gates on a CUDA device: the launches of `kernels/rg_lru_gate.cu`.

use longhaul_plugin_kit::cuda::device::{Launch, Stored};
use longhaul_plugin_kit::cuda::rows::column_sums;
use longhaul_plugin_kit::cuda::run::{Control, DeviceRows};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::{Result, kernel_params};

use crate::gate::{Gate, Sums};

/// The kernels of the gates.
pub(crate) static RG_LRU_GATE: KernelSource = KernelSource {
    file: "rg_lru_gate.cu",
    text: include_str!("../kernels/rg_lru_gate.cu"),
    params: &[RgLruGateForward::CPP, RgLruGateBackward::CPP],
};

kernel_params! {
    struct RgLruGateForward {
        x: *const Stored, r: *const Stored, i: *const Stored, // [B, T, W]
        lambda: *const f32,                                   // [W]
        log_a: *mut Stored, b: *mut Stored,                   // [B, T, W], contiguous
        control: *const Control,
        x_stride: u64, r_stride: u64, i_stride: u64, rows: u64, // rows: B T
        length: u32, width: u32, feed: u32, unused: u32, // feed: whether this is one, which may begin at any position
    }
}

kernel_params! {
    struct RgLruGateBackward {
        x: *const Stored, r: *const Stored, i: *const Stored, // [B, T, W]
        grad_a: *const Stored, grad_b: *const Stored,         // [B, T, W], contiguous; of log a and of b
        lambda: *const f32,                                   // [W]
        dx: *mut Stored, dr: *mut Stored, di: *mut Stored,    // [B, T, W]
        shares: *mut f32,                                     // [B, T, W]: of lambda's gradient
        x_stride: u64, r_stride: u64, i_stride: u64, dx_stride: u64, dr_stride: u64, di_stride: u64, rows: u64,
        length: u32, width: u32, add_x: u32, add_r: u32, add_i: u32, unused: u32,
    }
}

pub(crate) fn forward(gate: &Gate, run: &CudaRun<'_>) -> Result<()> {
    let (x, r, i) = (run.value(gate.x), run.value(gate.r), run.value(gate.i));
    let params = RgLruGateForward {
        x: x.data,
        r: r.data,
        i: i.data,
        lambda: run.param(gate.lambda),
        log_a: run.value(gate.log_a).data,
        b: run.value(gate.b).data,
        control: run.ports().control,
        x_stride: x.stride as u64,
        r_stride: r.stride as u64,
        i_stride: i.stride as u64,
        rows: x.rows as u64,
        length: run.length() as u32,
        width: x.cols as u32,
        feed: (!run.is_training()).into(),
        unused: 0,
    };
    let launch = Launch::for_each(x.rows * x.cols);
    run.launch(&RG_LRU_GATE, "rg_lru_gate_forward", launch, &params)
}

pub(crate) fn backward(gate: &Gate, sums: &Sums, run: &CudaRun<'_>) -> Result<()> {
    let (x, r, i) = (run.value(gate.x), run.value(gate.r), run.value(gate.i));
    let (grad_a, grad_b) = (run.grad(gate.log_a)?, run.grad(gate.b)?);
    let (dx, add_x) = run.grad_mut(gate.x)?;
    let (dr, add_r) = run.grad_mut(gate.r)?;
    let (di, add_i) = run.grad_mut(gate.i)?;
    let shares = DeviceRows {
        data: run.saved(sums.shares),
        stored: false,
        ..grad_a
    };
    let params = RgLruGateBackward {
        x: x.data,
        r: r.data,
        i: i.data,
        grad_a: grad_a.data,
        grad_b: grad_b.data,
        lambda: run.param(gate.lambda),
        dx: dx.data,
        dr: dr.data,
        di: di.data,
        shares: shares.data,
        x_stride: x.stride as u64,
        r_stride: r.stride as u64,
        i_stride: i.stride as u64,
        dx_stride: dx.stride as u64,
        dr_stride: dr.stride as u64,
        di_stride: di.stride as u64,
        rows: x.rows as u64,
        length: run.length() as u32,
        width: x.cols as u32,
        add_x: add_x.into(),
        add_r: add_r.into(),
        add_i: add_i.into(),
        unused: 0,
    };
    let launch = Launch::for_each(x.rows * x.cols);
    run.launch(&RG_LRU_GATE, "rg_lru_gate_backward", launch, &params)?;
    column_sums(run, shares, sums.parts, run.param_grad(gate.lambda))
}
