//! Saved models: one safetensors file a unit, written whole or not at all, with the identity of the
//! training in it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use longhaul_plugin_api::client::{ClientError, LoadedModel};
use longhaul_results::files;
use rustix::io::Errno;
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
    /// A trained model that is none.
    #[error("{odd} of the {all} values of parameter `{name}` are not finite after training")]
    NotFinite {
        /// The parameter.
        name: String,
        /// Values that are not finite.
        odd: usize,
        /// All values.
        all: usize,
    },
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

/// The folder of the models in a run's.
pub const FOLDER: &str = "models";

/// Beginning of the names of parameters in the file of a training that is not over; its other tensors have
/// none like it.
const PARAMETER: &str = "parameter.";

/// What is kept of a training beside the parameters.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// What the plugin's optimiser keeps.
    pub optimiser: Vec<u8>,
    /// How far it is, as JSON.
    pub progress: Vec<u8>,
    /// States that the next sequences start from.
    pub states: Option<Vec<f32>>,
}

/// The place of a model in a run's folder.
///
/// # Errors
/// The system's; a link in the place of the folder `models`.
fn place(run: &Path, name: &str) -> std::io::Result<PathBuf> {
    let folder = run.join(FOLDER);
    files::make_folder(&folder)?;
    Ok(folder.join(name))
}

/// Why the disk itself takes no model, if it does not: full, over quota, read-only or broken. Anything else that a
/// worker met was its own.
pub fn disk_refuses(run: &Path) -> Option<std::io::Error> {
    /// A disk that takes less has no room for records either.
    const PROBE: usize = 1 << 20;
    let probed = files::write_aside(&run.join(FOLDER), &vec![0; PROBE]);
    let is_disk = |error: &std::io::Error| {
        use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(
            error.kind(),
            StorageFull | QuotaExceeded | ReadOnlyFilesystem
        ) || Errno::from_io_error(error) == Some(Errno::IO)
    };
    probed.err().filter(is_disk)
}

/// Saves every parameter, at once: a reader sees the old file or the new one whole.
///
/// # Errors
/// The plugin's on reading a parameter; a value that is not finite; the system's on writing.
pub fn save(
    model: &LoadedModel,
    run: &Path,
    name: &str,
    identity: &str,
) -> Result<(), ModelFileError> {
    write(&read_parameters(model, "")?, run, name, identity)
}

/// Saves a training that is not over, as [`save`] does a model.
///
/// # Errors
/// As [`save`].
pub fn save_training(
    model: &LoadedModel,
    kept: &Kept,
    run: &Path,
    name: &str,
    identity: &str,
) -> Result<(), ModelFileError> {
    let mut tensors = read_parameters(model, PARAMETER)?;
    let mut bytes = |name: &str, bytes: &[u8]| tensors.push(Tensor::bytes(name, bytes.to_vec()));
    bytes("optimiser", &kept.optimiser);
    bytes("progress", &kept.progress);
    if let Some(states) = &kept.states {
        tensors.push(Tensor::values("states", vec![states.len()], states));
    }
    write(&tensors, run, name, identity)
}

/// A tensor of a file.
struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    raw: Vec<u8>,
}

impl Tensor {
    fn values(name: &str, shape: Vec<usize>, values: &[f32]) -> Self {
        let raw = values.iter().flat_map(|value| value.to_le_bytes());
        Self {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape,
            raw: raw.collect(),
        }
    }

    fn bytes(name: &str, raw: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            dtype: Dtype::U8,
            shape: vec![raw.len()],
            raw,
        }
    }
}

/// The parameters of a model, by their names with something in front.
fn read_parameters(model: &LoadedModel, before: &str) -> Result<Vec<Tensor>, ModelFileError> {
    let mut tensors = Vec::new();
    for (index, parameter) in model.parameters().iter().enumerate() {
        let values = model.read_parameter(index)?;
        let odd = values.iter().filter(|value| !value.is_finite()).count();
        if odd > 0 {
            return Err(ModelFileError::NotFinite {
                name: crate::text::line(&parameter.name),
                odd,
                all: values.len(),
            });
        }
        let shape = parameter.shape.iter().map(|&size| size as usize).collect();
        let name = format!("{before}{}", parameter.name);
        tensors.push(Tensor::values(&name, shape, &values));
    }
    Ok(tensors)
}

/// Writes a file into the folder of the models, at once.
fn write(tensors: &[Tensor], run: &Path, name: &str, identity: &str) -> Result<(), ModelFileError> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.raw);
        (tensor.name.clone(), view.expect("shape and bytes agree"))
    });
    let refuse = |source| ModelFileError::Write {
        path: run.join(FOLDER).join(name).display().to_string(),
        source,
    };
    let file = serialise(views.collect(), identity).map_err(refuse)?;
    let place = place(run, name).map_err(refuse)?;
    files::write_whole(&place, &file).map_err(refuse)
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
    longhaul_text::hex(&hash.finalize())
}

/// Puts saved values into a model that was built the same way.
///
/// # Errors
/// A file that is absent, torn, of another training or another shape.
pub fn load(
    model: &mut LoadedModel,
    run: &Path,
    name: &str,
    identity: &str,
) -> Result<(), ModelFileError> {
    let refuse = |reason: String| ModelFileError::Read {
        path: run.join(FOLDER).join(name).display().to_string(),
        reason,
    };
    let bytes = place(run, name).and_then(|place| files::read(&place, u64::MAX));
    let bytes = bytes.map_err(|error| refuse(error.to_string()))?;
    let tensors = check(&bytes, identity).map_err(refuse)?;
    write_parameters(model, &tensors, "", &refuse)
}

/// Puts the parameters of a training that is not over into a model that was built the same way, and returns the
/// rest. `None` where there is no file, or one that is torn or of another training.
///
/// # Errors
/// The plugin's; a file of another shape.
pub fn load_training(
    model: &mut LoadedModel,
    run: &Path,
    name: &str,
    identity: &str,
) -> Result<Option<Kept>, ModelFileError> {
    let refuse = |reason: String| ModelFileError::Read {
        path: run.join(FOLDER).join(name).display().to_string(),
        reason,
    };
    let Ok(bytes) = place(run, name).and_then(|place| files::read(&place, u64::MAX)) else {
        return Ok(None);
    };
    let Ok(tensors) = check(&bytes, identity) else {
        return Ok(None);
    };
    let raw = |name: &str| tensors.tensor(name).map(|tensor| tensor.data().to_vec());
    let (Ok(optimiser), Ok(progress)) = (raw("optimiser"), raw("progress")) else {
        return Ok(None);
    };
    write_parameters(model, &tensors, PARAMETER, &refuse)?;
    Ok(Some(Kept {
        optimiser,
        progress,
        states: tensors.tensor("states").ok().map(|states| values(&states)),
    }))
}

/// The values of a tensor of float32.
fn values(tensor: &TensorView<'_>) -> Vec<f32> {
    let words = tensor.data().as_chunks::<4>().0.iter();
    words.map(|&raw| f32::from_le_bytes(raw)).collect()
}

/// Writes every parameter, whose name in the file has something in front.
fn write_parameters(
    model: &mut LoadedModel,
    tensors: &SafeTensors<'_>,
    before: &str,
    refuse: &dyn Fn(String) -> ModelFileError,
) -> Result<(), ModelFileError> {
    for index in 0..model.parameters().len() {
        let parameter = &model.parameters()[index];
        let name = format!("{before}{}", parameter.name);
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
        model.write_parameter(index, &values(&tensor))?;
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
        let path = place(folder.path(), "m.safetensors").unwrap();
        assert!(!is_saved(&path, "a"));
        let raw = 1.5_f32.to_le_bytes();
        let view = TensorView::new(Dtype::F32, vec![1], &raw).unwrap();
        let mut file = serialise(vec![("x".to_owned(), view)], "a").unwrap();
        files::write_whole(&path, &file).unwrap();
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
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

    #[test]
    fn no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        std::fs::create_dir_all(&run).unwrap();
        std::os::unix::fs::symlink(folder.path(), run.join("models")).unwrap();
        assert!(place(&run, "m").is_err());
        std::fs::remove_file(run.join("models")).unwrap();
        let place = place(&run, "m").unwrap();
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        let file = serialise(vec![("x".to_owned(), view)], "a").unwrap();
        let outside = folder.path().join("outside");
        std::fs::write(&outside, file).unwrap();
        assert!(is_saved(&outside, "a"));
        std::os::unix::fs::symlink(&outside, &place).unwrap();
        assert!(!is_saved(&place, "a"));
    }

    #[test]
    fn only_the_disk_is_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            disk_refuses(folder.path()).is_none(),
            "a folder that is not there is no full disk"
        );
        std::fs::create_dir(folder.path().join("models")).unwrap();
        assert!(disk_refuses(folder.path()).is_none());
        assert_eq!(
            std::fs::read_dir(folder.path().join("models"))
                .unwrap()
                .count(),
            0
        );
    }
}
