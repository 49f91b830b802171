//! The output head on a device.

use longhaul_plugin_api::author::Result;

use super::head::Head;
use crate::cuda::device::{DeviceMat, KernelSource, Launch, Product, Ptr};
use crate::cuda::rows::copy_rows;
use crate::cuda::run::{Control, CudaRun, DeviceRows};
use crate::kernel_params;

pub(super) static HEAD: KernelSource = KernelSource {
    file: "head.cu",
    text: include_str!("../../kernels/head.cu"),
    params: &[HeadLoss::CPP],
};

/// Logits that exist at the same time on a device, 256 MiB of them, unless [`LEAST_PLACES`] have more. The gradient of the
/// weight is read and written once a block, and each block is four launches.
const LOGITS: usize = 1 << 26;

const LEAST_PLACES: usize = 64;

/// Wanted positions a block for a vocabulary.
pub(super) fn places(vocab: usize) -> usize {
    (LOGITS / vocab.max(1)).max(LEAST_PLACES) / LEAST_PLACES * LEAST_PLACES
}

kernel_params! {
    struct HeadLoss {
        logits: *mut f32,    // [places, vocab], of the places from `first` on
        targets: *const i32, // [S], -1 for none
        nll: *mut f32,       // [S]
        best: *mut u32,      // [S]
        control: *const Control,
        first: u64,
        vocab: u32, training: u32,
        cap: f32,
        unused: u32,
    }
}

impl Head {
    pub(super) fn device_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let scored = run.scored();
        for first in (0..scored).step_by(self.block) {
            self.block_of_places(run, first, self.block.min(scored - first))?;
        }
        Ok(())
    }

    /// Logits, losses and, in training, gradients of `count` places from `first` on.
    fn block_of_places(&self, run: &CudaRun<'_>, first: usize, count: usize) -> Result<()> {
        let (x, ports) = (run.value(self.x), run.ports());
        let (width, vocab) = (x.cols, self.vocab);
        // A feed's logits are made where they are wanted; in training they give way to gradients.
        let own = run.is_training() || ports.logits == Ptr::default();
        let place = if own {
            run.saved(self.logits)
        } else {
            ports.logits.value(first * vocab)
        };
        let logits = DeviceMat::new(place, count, vocab, vocab);
        let x = DeviceMat::new(x.data.value(first * x.stride), count, width, x.stride);
        let weight = DeviceMat::new(run.param(self.weight), vocab, width, width);
        run.product(Product::one(x, weight.t(), logits, 1.0, 0.0))?;
        let params = HeadLoss {
            logits: place,
            targets: ports.targets,
            nll: ports.nll,
            best: ports.best,
            control: ports.control,
            first: first as u64,
            vocab: vocab as u32,
            training: run.is_training().into(),
            cap: self.cap,
            unused: 0,
        };
        // A thread has at least four logits, up to the largest block.
        let threads = (vocab / 4).next_multiple_of(32).clamp(32, 1024) as u32;
        let launch = Launch::flat(count, threads).with_shared(64);
        run.launch(&HEAD, "head_loss", launch, &params)?;
        if !run.is_training() {
            return Ok(());
        }
        let grad = run.saved(self.grad).value(first * width);
        let grad = DeviceMat::new(grad, count, width, width);
        run.product(Product::one(logits, weight, grad, 1.0, 0.0))?;
        let grad_weight = DeviceMat::new(run.param_grad(self.weight), vocab, width, width);
        run.product(Product::one(logits.t(), x, grad_weight, 1.0, 1.0))
    }

    pub(super) fn device_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let (grad_x, accumulate) = run.grad_mut(self.x)?;
        let grad = DeviceRows {
            data: run.saved(self.grad),
            stored: false,
            stride: grad_x.cols,
            ..grad_x
        };
        copy_rows(run, grad, grad_x, 1.0, accumulate)
    }
}
