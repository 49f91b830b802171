//! RWKV-7's removal on a device; see `kernels/removal.cu`.

use longhaul_plugin_kit::cuda::device::{KernelSource, Stored};
use longhaul_plugin_kit::cuda::rows::{add_parts, part_count};
use longhaul_plugin_kit::cuda::run::CudaRun;
use longhaul_plugin_kit::{Result, kernel_params};

use super::RemovalOperation;
use crate::bonus::cuda::{paired_launch, summing_launch};
use crate::part::not_for_a_device;

pub(super) static REMOVAL: KernelSource = KernelSource {
    file: "removal.cu",
    text: include_str!("../../kernels/removal.cu"),
    params: &[RemovalForward::CPP, RemovalBackward::CPP],
};

kernel_params! {
    struct RemovalForward {
        k: *const Stored, rate: *const Stored,                // [B, T, D]
        xi: *const f32, alpha: *const f32,                    // [D]
        kappa: *mut Stored, b: *mut Stored, key: *mut Stored, // [B, T, D], contiguous
        lengths: *mut f32,                                    // [B, T, H]: 1 / |k xi|
        k_stride: u64, rate_stride: u64, rows: u64,
        heads: u32, head_dim: u32,
    }
}

kernel_params! {
    struct RemovalBackward {
        k: *const Stored, rate: *const Stored,                                     // [B, T, D]
        xi: *const f32, alpha: *const f32,                                         // [D]
        kappa: *const Stored,                                                      // [B, T, D], contiguous
        lengths: *const f32,                                                       // [B, T, H]
        grad_kappa: *const Stored, grad_b: *const Stored, grad_key: *const Stored, // [B, T, D], contiguous
        grad_k: *mut Stored, grad_rate: *mut Stored,                               // [B, T, D]
        parts_xi: *mut f32, parts_alpha: *mut f32,                                 // [part_count, D]
        k_stride: u64, rate_stride: u64, grad_k_stride: u64, grad_rate_stride: u64, rows: u64,
        add_k: u32, add_rate: u32, // whether those gradients are sums
        heads: u32, head_dim: u32, part_count: u32, unused: u32,
    }
}

impl RemovalOperation {
    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let (k, rate) = (run.value(self.inputs.k), run.value(self.inputs.rate));
        let heads = k.cols / self.head_dim;
        let params = RemovalForward {
            k: k.data,
            rate: rate.data,
            xi: run.param(self.inputs.removal_key),
            alpha: run.param(self.inputs.replacement),
            kappa: run.value(self.outputs.kappa).data,
            b: run.value(self.outputs.b).data,
            key: run.value(self.outputs.k).data,
            lengths: run.saved(self.lengths),
            k_stride: k.stride as u64,
            rate_stride: rate.stride as u64,
            rows: k.rows as u64,
            heads: heads as u32,
            head_dim: self.head_dim as u32,
        };
        let launch = paired_launch(k.rows * heads);
        run.launch(&REMOVAL, "removal_forward", launch, &params)
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let [parts_xi, parts_alpha] = self.parts.ok_or_else(not_for_a_device)?;
        let (k, rate) = (run.value(self.inputs.k), run.value(self.inputs.rate));
        let outputs = self.outputs;
        let (grad_kappa, grad_b) = (run.grad(outputs.kappa)?, run.grad(outputs.b)?);
        let grad_key = run.grad(outputs.k)?;
        let (grad_k, add_k) = run.grad_mut(self.inputs.k)?;
        let (grad_rate, add_rate) = run.grad_mut(self.inputs.rate)?;
        let (heads, part_count) = (k.cols / self.head_dim, part_count(k.rows));
        let params = RemovalBackward {
            k: k.data,
            rate: rate.data,
            xi: run.param(self.inputs.removal_key),
            alpha: run.param(self.inputs.replacement),
            kappa: run.value(outputs.kappa).data,
            lengths: run.saved(self.lengths),
            grad_kappa: grad_kappa.data,
            grad_b: grad_b.data,
            grad_key: grad_key.data,
            grad_k: grad_k.data,
            grad_rate: grad_rate.data,
            parts_xi: run.saved(parts_xi),
            parts_alpha: run.saved(parts_alpha),
            k_stride: k.stride as u64,
            rate_stride: rate.stride as u64,
            grad_k_stride: grad_k.stride as u64,
            grad_rate_stride: grad_rate.stride as u64,
            rows: k.rows as u64,
            add_k: add_k.into(),
            add_rate: add_rate.into(),
            heads: heads as u32,
            head_dim: self.head_dim as u32,
            part_count: part_count as u32,
            unused: 0,
        };
        let launch = summing_launch(heads, self.head_dim, part_count, 2);
        run.launch(&REMOVAL, "removal_backward", launch, &params)?;
        for (parts, param) in [
            (parts_xi, self.inputs.removal_key),
            (parts_alpha, self.inputs.replacement),
        ] {
            add_parts(run, parts, part_count, k.cols, run.param_grad(param))?;
        }
        Ok(())
    }
}
