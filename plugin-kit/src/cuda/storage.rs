//! How kernels store activations and their gradients: what `Stored` of [`kernel_params!`](crate::kernel_params!) and
//! `stored` of `common.cuh` are. Everything else is float32, and so is every sum inside a kernel.

use crate::precision::Precision;

/// The type of a stored value. Kernels are compiled for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Storage {
    /// As it was computed.
    #[default]
    Float32,
    /// bfloat16, rounded to nearest, ties to even. So far this is compiled and held against float32 on the emulated
    /// card only: buffers are laid out, and matrices multiplied, in float32.
    Bf16,
}

impl Storage {
    /// What stands in front of the text of a source that is compiled for it.
    pub fn definition(self) -> &'static str {
        match self {
            Self::Float32 => "",
            Self::Bf16 => "#define STORED bf16\n",
        }
    }

    /// A value as it is read again after it was stored.
    pub fn round(self, value: f32) -> f32 {
        let precision = match self {
            Self::Float32 => Precision::Float32,
            Self::Bf16 => Precision::Bf16,
        };
        precision.round(value)
    }
}
