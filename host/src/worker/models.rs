//! Saved models: one safetensors file a unit, written whole or not at all, with the identity of the
//! training in it.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use longhaul_plugin_api::client::{ClientError, LoadedModel};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

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
        "saved model {path}: {reason}; train it again with --resume --retry-failed after removing it"
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
    let metadata = HashMap::from([(IDENTITY.to_owned(), identity.to_owned())]);
    let file =
        safetensors::serialize(views, Some(metadata)).map_err(|error| ModelFileError::Write {
            path: path.display().to_string(),
            source: std::io::Error::other(error.to_string()),
        })?;
    write_whole(path, &file).map_err(|source| ModelFileError::Write {
        path: path.display().to_string(),
        source,
    })
}

/// Writes beside the file, syncs, and puts it in its place.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
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
    let bytes = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    check_identity(&bytes, identity).map_err(refuse)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
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
    std::fs::read(path).is_ok_and(|bytes| check_identity(&bytes, identity).is_ok())
}

fn check_identity(bytes: &[u8], identity: &str) -> Result<(), String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let found = metadata
        .metadata()
        .as_ref()
        .and_then(|all| all.get(IDENTITY));
    match found {
        Some(found) if found == identity => Ok(()),
        Some(found) => Err(format!("it is of training {found}, not of {identity}")),
        None => Err("it does not say which training it is of".to_owned()),
    }
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
        let metadata = HashMap::from([(IDENTITY.to_owned(), "a".to_owned())]);
        let file = safetensors::serialize([("x", view)], Some(metadata)).unwrap();
        write_whole(&path, &file).unwrap();
        assert!(is_saved(&path, "a"));
        assert!(!is_saved(&path, "b"));
        // A torn file is not a model.
        std::fs::write(&path, &file[..file.len() - 1]).unwrap();
        assert!(!is_saved(&path, "a"));
    }
}
