//! Checkpoints as a corpus: the folders of `tests/checkpoints`, and what becomes of a changed one in this
//! process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longhaul::checkpoint::files::Folder;
use longhaul::checkpoint::load::{Library, Understood};
use longhaul_plugin_api::data::{Device, DeviceKind};
use longhaul_tests::build;

use crate::answer;

/// Families whose libraries read checkpoints.
const FAMILIES: [&str; 7] = [
    "griffin",
    "hybrid",
    "mamba",
    "mamba2",
    "rwkv",
    "transformer",
    "xlstm",
];

/// A checkpoint of the corpus.
pub struct Checkpoint {
    /// Its folder's name.
    pub name: String,
    /// Text of its config.
    pub config: String,
    /// Its weights' bytes.
    pub weights: Vec<u8>,
}

/// Every checkpoint, in the order of their names.
///
/// # Panics
/// Where they cannot be read.
pub fn corpus() -> Vec<Checkpoint> {
    let folder = build::workspace().join("tests/checkpoints");
    let entries = std::fs::read_dir(folder).expect("the checkpoints are there");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    paths.sort();
    let read = |path: &PathBuf| Checkpoint {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        config: std::fs::read_to_string(path.join("config.json")).expect("readable"),
        weights: std::fs::read(path.join("model.safetensors")).expect("readable"),
    };
    paths.iter().map(read).collect()
}

/// The libraries that read checkpoints, by `model_type`.
///
/// # Panics
/// Where one does not build or open.
pub fn libraries() -> BTreeMap<String, Library> {
    build::longhaul();
    let mut all = BTreeMap::new();
    for family in FAMILIES {
        let path = build::profile_folder().join(format!("liblonghaul_{family}.so"));
        let open = || Library::open(&path).unwrap_or_else(|error| panic!("{error}"));
        for kind in open().model_types() {
            all.insert(kind.clone(), open());
        }
    }
    all
}

/// Reads a checkpoint as `longhaul checkpoint inspect` does, in this process; the error is its sentence.
///
/// # Errors
/// What is wrong with it.
///
/// # Panics
/// When a panic was caught on the way, or a refusal is no one sentence.
pub fn read(folder: &Path, libraries: &BTreeMap<String, Library>) -> Result<(), String> {
    let device = Device {
        kind: DeviceKind::Cpu,
        index: 0,
        threads: 1,
    };
    let opened = Folder::open(folder).map_err(|error| error.to_string());
    let done = opened.and_then(|folder| {
        let kind = folder.config.model_type.clone();
        let library = libraries
            .get(&kind)
            .ok_or_else(|| format!("no plugin reads checkpoints of model_type `{kind}`"))?;
        let mut understood =
            Understood::ask(folder, library, "").map_err(|error| error.to_string())?;
        understood
            .build(device)
            .map_err(|error| error.to_string())?;
        Ok(())
    });
    if let Err(message) = &done {
        answer::sentence(message);
    }
    done
}
