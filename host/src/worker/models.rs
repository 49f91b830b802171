//! Saved models: one safetensors file a unit, written whole or not at all, with the identity of the
//! training in it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use longhaul_plugin_api::client::{ClientError, LoadedModel};
use longhaul_results::files::UNFINISHED;
use rustix::fs::{AtFlags, Mode, OFlags, fsync, open, openat, renameat, unlinkat};
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

/// Where a run's models are, as a descriptor: whatever a plugin does to the working folder, files are written and
/// read here, and no link leads anywhere else.
pub struct Store {
    folder: OwnedFd,
    path: PathBuf,
}

impl Store {
    /// Opens the folder `models` of a run's folder.
    ///
    /// # Errors
    /// The system's; it is a link.
    pub fn open(run: &Path) -> std::io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let run_folder = open(run, flags, Mode::empty())?;
        let folder = openat(
            &run_folder,
            "models",
            flags | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        Ok(Self {
            folder,
            path: run.join("models"),
        })
    }

    /// Writes beside the file, syncs, and puts it in its place.
    fn write_whole(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let beside = format!("{UNFINISHED}{}", std::process::id());
        let made = self.write_synced(&beside, bytes);
        let placed = made.and_then(|()| {
            renameat(&self.folder, beside.as_str(), &self.folder, name)?;
            Ok(fsync(&self.folder)?)
        });
        if placed.is_err() {
            let _ = unlinkat(&self.folder, beside.as_str(), AtFlags::empty());
        }
        placed
    }

    fn write_synced(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        // A process of the same number may have been killed here.
        let _ = unlinkat(&self.folder, name, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::from_raw_mode(0o644))?;
        let mut file = File::from(file);
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let file = openat(&self.folder, name, READING, Mode::empty())?;
        read_regular(File::from(file))
    }

    fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// A FIFO in a file's place is not waited for, and a link not followed.
const READING: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

fn read_regular(mut file: File) -> std::io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Why the disk itself takes no model, if it does not: full, over quota, read-only or broken. Anything else that a
/// worker met was its own.
pub fn disk_refuses(run: &Path) -> Option<std::io::Error> {
    /// A disk that takes less has no room for records either.
    const PROBE: usize = 1 << 20;
    let beside = format!("{UNFINISHED}{}", std::process::id());
    let probed = Store::open(run).and_then(|store| {
        let written = store.write_synced(&beside, &vec![0; PROBE]);
        let _ = unlinkat(&store.folder, beside.as_str(), AtFlags::empty());
        written
    });
    let errors = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO];
    let is_disk = |error: &std::io::Error| {
        Errno::from_io_error(error).is_some_and(|error| errors.contains(&error))
    };
    probed.err().filter(is_disk)
}

/// Saves every parameter, at once: a reader sees the old file or the new one whole.
///
/// # Errors
/// The plugin's on reading a parameter; a value that is not finite; the system's on writing.
pub fn save(
    model: &LoadedModel,
    store: &Store,
    name: &str,
    identity: &str,
) -> Result<(), ModelFileError> {
    let mut bytes = Vec::new();
    for index in 0..model.parameters().len() {
        let values = model.read_parameter(index)?;
        let odd = values.iter().filter(|value| !value.is_finite()).count();
        if odd > 0 {
            return Err(ModelFileError::NotFinite {
                name: crate::text::line(&model.parameters()[index].name),
                odd,
                all: values.len(),
            });
        }
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
        path: store.shown(name),
        source,
    };
    let file = serialise(views.collect(), identity).map_err(refuse)?;
    store.write_whole(name, &file).map_err(refuse)
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
    store: &Store,
    name: &str,
    identity: &str,
) -> Result<(), ModelFileError> {
    let refuse = |reason: String| ModelFileError::Read {
        path: store.shown(name),
        reason,
    };
    let bytes = store
        .read(name)
        .map_err(|error| refuse(error.to_string()))?;
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
    open(path, READING, Mode::empty())
        .map_err(std::io::Error::from)
        .and_then(|file| read_regular(File::from(file)))
        .is_ok_and(|bytes| check(&bytes, identity).is_ok())
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
        std::fs::create_dir(folder.path().join("models")).unwrap();
        let store = Store::open(folder.path()).unwrap();
        let path = folder.path().join("models/m.safetensors");
        assert!(!is_saved(&path, "a"));
        let raw = 1.5_f32.to_le_bytes();
        let view = TensorView::new(Dtype::F32, vec![1], &raw).unwrap();
        let mut file = serialise(vec![("x".to_owned(), view)], "a").unwrap();
        store.write_whole("m.safetensors", &file).unwrap();
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
    fn no_link_is_followed_and_no_pipe_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (run, outside) = (folder.path().join("run"), folder.path().join("outside"));
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(&outside, "mine").unwrap();
        std::os::unix::fs::symlink(folder.path(), run.join("models")).unwrap();
        assert!(Store::open(&run).is_err(), "a link in the folder's place");
        std::fs::remove_file(run.join("models")).unwrap();
        std::fs::create_dir(run.join("models")).unwrap();
        let store = Store::open(&run).unwrap();
        std::os::unix::fs::symlink(&outside, run.join("models/m")).unwrap();
        assert!(store.read("m").is_err());
        store.write_whole("m", b"model").unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"mine");
        assert_eq!(store.read("m").unwrap(), b"model");
        let fifo = std::process::Command::new("mkfifo")
            .arg(run.join("models/f"))
            .status();
        assert!(fifo.unwrap().success());
        assert!(
            store
                .read("f")
                .unwrap_err()
                .to_string()
                .contains("not a file")
        );
        assert!(!is_saved(&run.join("models/f"), "a"));
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
