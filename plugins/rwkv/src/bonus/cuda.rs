//! The bonus on a device; see `kernels/bonus.cu`.

use longhaul_plugin_kit::cuda::device::{KernelSource, Launch, Stored};
use longhaul_plugin_kit::cuda::rows::{add_parts, part_count};
use longhaul_plugin_kit::cuda::run::CudaRun;
use longhaul_plugin_kit::{PluginError, Result, kernel_params};

use super::Bonus;
use crate::part::not_for_a_device;

pub(super) static BONUS: KernelSource = KernelSource {
    file: "bonus.cu",
    text: include_str!("../../kernels/bonus.cu"),
    params: &[BonusForward::CPP, BonusBackward::CPP],
};

/// Warps of a block, each with a head of a position.
const WARPS: usize = 8;

/// Widest head of the kernels that sum over positions: its shared memory is 8 values a channel.
const WIDEST_SUMMED: usize = 1024;

kernel_params! {
    struct BonusForward {
        base: *const Stored, r: *const Stored, k: *const Stored, v: *const Stored, // [B, T, D]
        u: *const f32,                                                             // [D]
        y: *mut Stored,                                                            // [B, T, D], contiguous
        base_stride: u64, r_stride: u64, k_stride: u64, v_stride: u64, rows: u64,
        heads: u32, head_dim: u32,
    }
}

kernel_params! {
    struct BonusBackward {
        r: *const Stored, k: *const Stored, v: *const Stored,                                  // [B, T, D]
        u: *const f32,                                                                         // [D]
        dy: *const Stored,                                                                     // [B, T, D], contiguous
        grad_base: *mut Stored, grad_r: *mut Stored, grad_k: *mut Stored, grad_v: *mut Stored, // [B, T, D]
        parts: *mut f32,                                                                       // [part_count, D], of u
        r_stride: u64, k_stride: u64, v_stride: u64,
        grad_base_stride: u64, grad_r_stride: u64, grad_k_stride: u64, grad_v_stride: u64, rows: u64,
        add_base: u32, add_r: u32, add_k: u32, add_v: u32, // whether those gradients are sums
        heads: u32, head_dim: u32, part_count: u32, unused: u32,
    }
}

/// Refuses heads that are too wide for a [`summing_launch`] with so many slots.
pub(crate) fn check_summed(head_dim: usize, slots: usize) -> Result<()> {
    let widest = WIDEST_SUMMED / slots;
    if head_dim > widest {
        return Err(PluginError::unsupported(format!(
            "head_dim={head_dim} is over {widest}, the widest head of these CUDA kernels; \
             give a smaller head_dim or use --device cpu"
        )));
    }
    Ok(())
}

/// The launch of a kernel whose blocks take a head and a part of the positions and sum over them, with
/// `slots` sums a channel.
pub(crate) fn summing_launch(
    heads: usize,
    head_dim: usize,
    part_count: usize,
    slots: usize,
) -> Launch {
    let launch = Launch::flat(heads * part_count, 32 * WARPS as u32);
    launch.with_shared(slots * WARPS * head_dim)
}

/// The launch of a kernel whose warps take a head of a position each.
pub(crate) fn paired_launch(pairs: usize) -> Launch {
    Launch::flat(pairs.div_ceil(WARPS), 32 * WARPS as u32)
}

impl Bonus {
    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let inputs = &self.inputs;
        let (base, r) = (run.value(inputs.base), run.value(inputs.r));
        let (k, v, y) = (run.value(inputs.k), run.value(inputs.v), run.value(self.y));
        let heads = y.cols / self.head_dim;
        let params = BonusForward {
            base: base.data,
            r: r.data,
            k: k.data,
            v: v.data,
            u: run.param(inputs.u),
            y: y.data,
            base_stride: base.stride as u64,
            r_stride: r.stride as u64,
            k_stride: k.stride as u64,
            v_stride: v.stride as u64,
            rows: y.rows as u64,
            heads: heads as u32,
            head_dim: self.head_dim as u32,
        };
        run.launch(
            &BONUS,
            "bonus_forward",
            paired_launch(y.rows * heads),
            &params,
        )
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let inputs = &self.inputs;
        let (r, k, v) = (
            run.value(inputs.r),
            run.value(inputs.k),
            run.value(inputs.v),
        );
        let dy = run.grad(self.y)?;
        let parts = self.parts.ok_or_else(not_for_a_device)?;
        let (grad_base, add_base) = run.grad_mut(inputs.base)?;
        let (grad_r, add_r) = run.grad_mut(inputs.r)?;
        let (grad_k, add_k) = run.grad_mut(inputs.k)?;
        let (grad_v, add_v) = run.grad_mut(inputs.v)?;
        let (heads, part_count) = (dy.cols / self.head_dim, part_count(dy.rows));
        let params = BonusBackward {
            r: r.data,
            k: k.data,
            v: v.data,
            u: run.param(inputs.u),
            dy: dy.data,
            grad_base: grad_base.data,
            grad_r: grad_r.data,
            grad_k: grad_k.data,
            grad_v: grad_v.data,
            parts: run.saved(parts),
            r_stride: r.stride as u64,
            k_stride: k.stride as u64,
            v_stride: v.stride as u64,
            grad_base_stride: grad_base.stride as u64,
            grad_r_stride: grad_r.stride as u64,
            grad_k_stride: grad_k.stride as u64,
            grad_v_stride: grad_v.stride as u64,
            rows: dy.rows as u64,
            add_base: add_base.into(),
            add_r: add_r.into(),
            add_k: add_k.into(),
            add_v: add_v.into(),
            heads: heads as u32,
            head_dim: self.head_dim as u32,
            part_count: part_count as u32,
            unused: 0,
        };
        let launch = summing_launch(heads, self.head_dim, part_count, 1);
        run.launch(&BONUS, "bonus_backward", launch, &params)?;
        add_parts(run, parts, part_count, dy.cols, run.param_grad(inputs.u))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_are_too_wide_are_refused_and_others_fit_48_kib() {
        for slots in [1, 2] {
            let widest = WIDEST_SUMMED / slots;
            check_summed(widest, slots).unwrap();
            assert!(summing_launch(1, widest, 1, slots).shared_bytes <= 48 * 1024);
            let refused = check_summed(widest + 1, slots).unwrap_err().message;
            for word in [
                &format!("head_dim={}", widest + 1),
                &format!("over {widest}"),
                "--device cpu",
            ] {
                assert!(refused.contains(word), "{refused}");
            }
        }
    }
}
