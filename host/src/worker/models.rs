//! Saved models: one safetensors file a unit, written whole or not at all, with the identity of the
//! training in it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use longhaul_plugin_api::client::{ClientError, LoadedModel};
use longhaul_results::files;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

/// Key of the training's identity in a file's metadata. It is the only key, so that the same model
/// gives the same bytes.
const IDENTITY: &str = "longhaul_training";

/// Why a model could not be saved or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// The plugin refused.
    #[error(transparent)]
    Plugin(#[from] ClientError),
    /// The system refused to write.
    #[error("cannot write {path}: {source}; free some space or choose another --out folder")]
    Write {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file cannot be read or is not what it should be.
    #[error(
        "saved model {path}: {reason}. The run's command with another --out folder trains it again"
    )]
    Read {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Saves every parameter, at once: a reader sees the old file or the new one whole.
///
/// # Errors
/// The plugin's on reading a parameter; the system's on writing.
pub fn save(model: &LoadedModel, path: &Path, identity: &str) -> Result<(), ModelFileError> {
    let mut bytes = Vec::new();
    for index in 0..model.parameters().len() {
        let values = model.read_parameter(index)?;
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        bytes.push(raw);
    }
    let views = model
        .parameters()
        .iter()
        .zip(&bytes)
        .map(|(parameter, raw)| {
            let shape = parameter.shape.iter().map(|&size| size as usize).collect();
            let view = TensorView::new(Dtype::F32, shape, raw).expect("shape and bytes agree");
            (parameter.name.to_string(), view)
        });
    let refuse = |source| ModelFileError::Write {
        path: path.display().to_string(),
        source,
    };
    let file = serialise(views.collect(), identity).map_err(refuse)?;
    files::write_whole(path, &file).map_err(refuse)
}

/// The bytes of a file: tensors, and the training's id with the hash of all values.
fn serialise(tensors: Vec<(String, TensorView<'_>)>, identity: &str) -> std::io::Result<Vec<u8>> {
    let hash = hash_of(
        tensors
            .iter()
            .map(|(name, view)| (name.as_str(), view.data())),
    );
    let metadata = HashMap::from([(IDENTITY.to_owned(), format!("{identity} {hash}"))]);
    safetensors::serialize(tensors, Some(metadata)).map_err(std::io::Error::other)
}

/// Hash of named values, in the order of their names.
fn hash_of<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let sorted: BTreeMap<_, _> = tensors.collect();
    let mut hash = Sha256::new();
    for (name, data) in sorted {
        hash.update(name);
        hash.update(data);
    }
    let hash = hash.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts saved values into a model that was built the same way.
///
/// # Errors
/// A file that is absent, torn, of another training or another shape.
pub fn load(model: &mut LoadedModel, path: &Path, identity: &str) -> Result<(), ModelFileError> {
    let refuse = |reason: String| ModelFileError::Read {
        path: path.display().to_string(),
        reason,
    };
    let bytes = files::read(path, u64::MAX).map_err(|error| refuse(error.to_string()))?;
    let tensors = check(&bytes, identity).map_err(refuse)?;
    for index in 0..model.parameters().len() {
        let parameter = &model.parameters()[index];
        let name = parameter.name.to_string();
        let tensor = tensors
            .tensor(&name)
            .map_err(|error| refuse(error.to_string()))?;
        let shape: Vec<usize> = parameter.shape.iter().map(|&size| size as usize).collect();
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(refuse(format!(
                "`{name}` is {:?} {:?} there and F32 {shape:?} in the model",
                tensor.dtype(),
                tensor.shape()
            )));
        }
        let values: Vec<f32> = tensor
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&raw| f32::from_le_bytes(raw))
            .collect();
        model.write_parameter(index, &values)?;
    }
    Ok(())
}

/// Whether a file is the saved model of this training.
pub fn is_saved(path: &Path, identity: &str) -> bool {
    files::read(path, u64::MAX).is_ok_and(|bytes| check(&bytes, identity).is_ok())
}

/// The tensors of a file that is whole and of this training.
fn check<'a>(bytes: &'a [u8], identity: &str) -> Result<SafeTensors<'a>, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let found = metadata.metadata().as_ref();
    let found = found
        .and_then(|all| all.get(IDENTITY)?.split_once(' '))
        .ok_or("it does not say which training it is of")?;
    if found.0 != identity {
        return Err(format!(
            "it is of training {}, not of {identity}",
            found.0.escape_debug()
        ));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let views = tensors.tensors();
    if hash_of(
        views
            .iter()
            .map(|(name, view)| (name.as_str(), view.data())),
    ) != found.1
    {
        return Err("its values are not those that were saved".to_owned());
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        assert!(!is_saved(&path, "a"));
        let raw = 1.5_f32.to_le_bytes();
        let view = TensorView::new(Dtype::F32, vec![1], &raw).unwrap();
        let mut file = serialise(vec![("x".to_owned(), view)], "a").unwrap();
        std::fs::write(&path, &file).unwrap();
        assert!(is_saved(&path, "a"));
        assert!(!is_saved(&path, "b"));
        // A torn file is not a model.
        std::fs::write(&path, &file[..file.len() - 1]).unwrap();
        assert!(!is_saved(&path, "a"));
        // Nor is one of other values.
        *file.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &file).unwrap();
        assert!(!is_saved(&path, "a"));
    }
}
