//! How a library reads checkpoints of other software: from a `config.json` to an architecture, its
//! options and a place for every tensor. Plain data; the host reads the files and moves the values.

use std::ops::Range;

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec, Tuple2};

use crate::metadata::{LibraryInfo, Pairs};

/// Name of the pair in [`LibraryInfo::extra`] that declares a `model_type` the library reads; one pair
/// for each.
pub const MODEL_TYPE: &str = "model_type";

/// Name of the pair in [`CheckpointPlan::extra`] that names a tensor, or the end of tensors' names, that
/// a checkpoint may have and that has no place: a tied head, cached frequencies.
pub const IGNORED: &str = "ignored";

/// Name of the pair in [`CheckpointPlan::extra`] that says, as `head embedding`, which tensor the config ties
/// to which. A file that has both with different values is not tied, whatever its config says.
pub const TIED: &str = "tied";

/// Name of the pair in [`CheckpointPlan::extra`] with the beginning of most tensors' names that files of the
/// model without its head leave out: `model.`.
pub const BASE: &str = "base";

/// Name of the pair in [`CheckpointPlan::extra`] that says, as `option=key`, which key of the config an
/// option was read from; one pair for each.
pub const OPTION_KEY: &str = "option_key";

/// Name of the pair in [`CheckpointPlan::extra`] that names a key of the config which the library honours,
/// whether the config has it or not; one pair for each.
pub const CONFIG_KEY: &str = "config_key";

/// Name of the pair in [`CheckpointPlan::extra`] that says, as `key=word+word`, which words a key of the config, or
/// each of its list, may be; one pair for each such key.
pub const WORDS: &str = "words";

/// Name of the pair in [`TensorPlace::extra`] that says, as `start rows`, that the place takes a part of a tensor:
/// its rows from `start` on, of `rows` in all. The place's shape is the part's.
pub const PART: &str = "part";

/// Name of the pair in [`CheckpointPlan::extra`] with a sentence that the user should read.
pub const WARNING: &str = "warning";

/// The values of all pairs of one name.
pub fn values<'a>(pairs: &'a Pairs, name: &'a str) -> impl Iterator<Item = &'a str> {
    pairs
        .iter()
        .filter(move |pair| pair.0 == name)
        .map(|pair| pair.1.as_str())
}

/// A config's text as JSON has it: Python writes `Infinity`, `-Infinity` and `NaN` bare, and here they are
/// strings.
pub fn standard_json(text: &str) -> String {
    let quoted = |part: &str| {
        let part = part.replace("-Infinity", "\"-infinity\"");
        let part = part.replace("Infinity", "\"Infinity\"");
        part.replace("NaN", "\"NaN\"")
    };
    // Parts between quotation marks that are not escaped: every second one is a string.
    let (mut parts, mut start) = (Vec::new(), 0);
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'\\' => escaped = !escaped,
            b'"' if !escaped => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => escaped = false,
        }
    }
    parts.push(&text[start..]);
    let mut whole = String::with_capacity(text.len());
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            whole.push('"');
        }
        match index % 2 {
            0 => whole.push_str(&quoted(part)),
            _ => whole.push_str(part),
        }
    }
    whole
}

/// The `model_type`s that a library declares.
pub fn model_types(info: &LibraryInfo) -> impl Iterator<Item = &str> {
    values(&info.extra, MODEL_TYPE)
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

impl TensorPlace {
    /// First row of the tensor that the place takes, and the tensor's rows; none where it takes all of it.
    fn part(&self) -> Option<(u64, u64)> {
        let (start, rows) = values(&self.extra, PART).next()?.split_once(' ')?;
        Some((start.parse().ok()?, rows.parse().ok()?))
    }

    /// The shape of the whole tensor.
    pub fn tensor_shape(&self) -> Vec<usize> {
        let mut shape: Vec<usize> = self.shape.iter().map(|&size| size as usize).collect();
        if let (Some((_, rows)), Some(first)) = (self.part(), shape.first_mut()) {
            *first = rows as usize;
        }
        shape
    }

    /// Number of values of the place.
    pub fn values(&self) -> u64 {
        let sizes = self.shape.iter();
        sizes.fold(1, |values, &size| values.saturating_mul(size))
    }

    /// The values of its tensor that the place takes. A plugin may name rows that the tensor has not.
    pub fn range(&self) -> Range<usize> {
        let columns = self.shape.iter().skip(1);
        let columns = columns.fold(1u64, |values, &size| values.saturating_mul(size));
        let start = self.part().map_or(0, |(start, _)| start);
        let first = start.saturating_mul(columns);
        first as usize..first.saturating_add(self.values()) as usize
    }
}
