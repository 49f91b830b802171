//! How a library reads checkpoints of other software: from a `config.json` to an architecture, its
//! options and a place for every tensor. Plain data; the host reads the files and moves the values.

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec, Tuple2};

use crate::metadata::{LibraryInfo, Pairs};

/// Name of the pair in [`LibraryInfo::extra`] that declares a `model_type` the library reads; one pair
/// for each.
pub const MODEL_TYPE: &str = "model_type";

/// Name of the pair in [`CheckpointPlan::extra`] that names a tensor, or the end of tensors' names, that
/// a checkpoint may have and that has no place: a tied head, cached frequencies.
pub const IGNORED: &str = "ignored";

/// The `model_type`s that a library declares.
pub fn model_types(info: &LibraryInfo) -> impl Iterator<Item = &str> {
    info.extra
        .iter()
        .filter(|pair| pair.0 == MODEL_TYPE)
        .map(|pair| pair.1.as_str())
}

/// What a checkpoint is in the library's own terms.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct CheckpointPlan {
    /// Name of the architecture inside the library.
    pub architecture: RString,
    /// Options as text; the host checks them as it checks a user's.
    pub options: RVec<Tuple2<RString, RString>>,
    /// V.
    pub vocab: u32,
    /// D.
    pub d_model: u32,
    /// Number of layers.
    pub layers: u32,
    /// Longest sequence the checkpoint was made for, in tokens; 0 where the config does not say.
    pub max_length: u64,
    /// Where every tensor of the checkpoint goes. Together the places fill each parameter exactly once.
    pub tensors: RVec<TensorPlace>,
    /// Later additions.
    pub extra: Pairs,
}

/// Where one tensor's values go: row-major, without gaps, into one parameter.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct TensorPlace {
    /// The tensor's name in the checkpoint.
    pub tensor: RString,
    /// Its shape there.
    pub shape: RVec<u64>,
    /// The parameter's name.
    pub parameter: RString,
    /// Index of the parameter's value that the tensor's first value becomes.
    pub offset: u64,
    /// What is added to every value: 1 for norms that are stored as `w - 1`.
    pub add: f32,
    /// Later additions.
    pub extra: Pairs,
}
