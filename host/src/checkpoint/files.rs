//! A checkpoint's files: `config.json` and tensors in one or several safetensors files, mapped into
//! memory. It knows nothing of models.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

/// Name of the list of shards.
const INDEX: &str = "model.safetensors.index.json";

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Only pickles are there.
    #[error(
        "{path} is a pickle, which can run code when it is read, so it is not opened; write the model \
         as safetensors (in transformers: model.save_pretrained(folder)) and give that folder"
    )]
    Pickle {
        /// The file.
        path: String,
    },
    /// No weights at all.
    #[error(
        "{path} has neither model.safetensors nor model.safetensors.index.json; give the folder of a \
         checkpoint in the Hugging Face layout"
    )]
    NoWeights {
        /// The folder.
        path: String,
    },
    /// A file that is not what it should be.
    #[error("{path}: {what}")]
    Bad {
        /// The file.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Tensors of one or several files by name.
pub struct Tensors {
    files: Vec<(PathBuf, Mmap)>,
    places: BTreeMap<String, Place>,
}

/// Where a tensor stands.
pub struct Place {
    file: usize,
    /// Type of its values.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A checkpoint's folder.
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// Text of `config.json`.
    pub config: String,
    /// Its `model_type`.
    pub model_type: String,
    /// Its tensors.
    pub tensors: Tensors,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.display().to_string();
    move |source| FileError::Io { path, source }
}

fn bad(path: &Path, what: impl std::fmt::Display) -> FileError {
    FileError::Bad {
        path: path.display().to_string(),
        what: what.to_string(),
    }
}

impl Folder {
    /// Opens a folder: config, then weights.
    ///
    /// # Errors
    /// Whatever is missing, a pickle, or damaged.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let config_path = path.join("config.json");
        let config = std::fs::read_to_string(&config_path).map_err(io(&config_path))?;
        let model_type = model_type(&config).ok_or_else(|| {
            bad(
                &config_path,
                "no \"model_type\" in it, so nothing says what the checkpoint is",
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            tensors: Tensors::open_folder(path)?,
            config,
            model_type,
        })
    }
}

/// The `model_type` of a config. Looked for as text, since Python writes configs that are not quite
/// JSON; the plugin reads the rest.
fn model_type(config: &str) -> Option<String> {
    let after = config.split_once("\"model_type\"")?.1.trim_start();
    let value = after.strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let word = value.split_once('"')?.0;
    (!word.is_empty()).then(|| word.to_owned())
}

impl Tensors {
    /// Opens a folder's weights.
    ///
    /// # Errors
    /// No weights, pickles only, a damaged file, an index that names what is not there.
    pub fn open_folder(folder: &Path) -> Result<Self, FileError> {
        let index = folder.join(INDEX);
        if index.is_file() {
            return Self::open_shards(folder, &index);
        }
        let single = folder.join("model.safetensors");
        if single.is_file() {
            return Self::open_files(vec![single]);
        }
        let entries = std::fs::read_dir(folder).map_err(io(folder))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        files.sort();
        let pickle = files.iter().find(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("bin" | "pt" | "pth" | "pkl" | "ckpt"))
        });
        let path = |path: &Path| path.display().to_string();
        Err(match pickle {
            Some(file) => FileError::Pickle { path: path(file) },
            None => FileError::NoWeights { path: path(folder) },
        })
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self, FileError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read_to_string(index).map_err(io(index))?;
        let Index { weight_map } = serde_json::from_str(&text).map_err(|e| bad(index, e))?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        if let Some(name) = names
            .iter()
            .find(|name| Path::new(name).components().count() != 1)
        {
            return Err(bad(index, format!("it names `{name}`, outside the folder")));
        }
        let tensors = Self::open_files(names.iter().map(|name| folder.join(name)).collect())?;
        for (tensor, file) in &weight_map {
            if !tensors.places.contains_key(tensor) {
                return Err(bad(
                    index,
                    format!("it says that `{tensor}` is in {file}, which has no such tensor"),
                ));
            }
        }
        Ok(tensors)
    }

    /// Opens safetensors files.
    ///
    /// # Errors
    /// One that cannot be read, is damaged, or repeats a tensor of another.
    pub fn open_files(paths: Vec<PathBuf>) -> Result<Self, FileError> {
        let mut tensors = Self {
            files: Vec::new(),
            places: BTreeMap::new(),
        };
        for path in paths {
            tensors.add(path)?;
        }
        Ok(tensors)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), FileError> {
        let file = std::fs::File::open(&path).map_err(io(&path))?;
        // SAFETY: the map is only read, and every access is within its length. A file that another
        // program cuts short meanwhile ends this process by SIGBUS; it runs in a worker.
        let map = unsafe { Mmap::map(&file) }.map_err(io(&path))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| {
            let what = "it is not a whole safetensors file";
            bad(
                &path,
                format!("{what} ({error}; it has {} bytes)", map.len()),
            )
        })?;
        let start = header + size_of::<u64>();
        for (name, info) in metadata.tensors() {
            let bytes = start + info.data_offsets.0..start + info.data_offsets.1;
            if bytes.end > map.len() {
                return Err(bad(
                    &path,
                    format!(
                        "it is cut short: tensor `{name}` ends at byte {} of {}",
                        bytes.end,
                        map.len()
                    ),
                ));
            }
            let place = Place {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes,
            };
            if self.places.insert(name.clone(), place).is_some() {
                return Err(bad(
                    &path,
                    format!("tensor `{name}` is also in another file"),
                ));
            }
        }
        self.files.push((path, map));
        Ok(())
    }

    /// All tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.places
            .iter()
            .map(|(name, place)| (name.as_str(), place))
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// Adds every file's bytes to a hash.
    pub fn add_to_hash(&self, hash: &mut impl sha2::Digest) {
        for (_, map) in &self.files {
            hash.update(&map[..]);
        }
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    fn raw(&self, place: &Place) -> &[u8] {
        &self.files[place.file].1[place.bytes.clone()]
    }

    /// A tensor's values as float32.
    ///
    /// # Errors
    /// A type that is not floating point.
    pub fn floats(&self, name: &str, place: &Place) -> Result<Vec<f32>, FileError> {
        let raw = self.raw(place);
        Ok(match place.dtype {
            Dtype::F32 => words(raw).map(f32::from_le_bytes).collect(),
            Dtype::F64 => words(raw)
                .map(|word| f64::from_le_bytes(word) as f32)
                .collect(),
            Dtype::F16 => words(raw)
                .map(|word| f16::from_le_bytes(word).to_f32())
                .collect(),
            Dtype::BF16 => words(raw)
                .map(|word| bf16::from_le_bytes(word).to_f32())
                .collect(),
            other => return Err(self.wrong_type(name, place, other, "F32, F64, F16 or BF16")),
        })
    }

    /// A tensor's values as float64.
    ///
    /// # Errors
    /// A type that is neither float64 nor float32.
    pub fn doubles(&self, name: &str, place: &Place) -> Result<Vec<f64>, FileError> {
        if place.dtype == Dtype::F64 {
            return Ok(words(self.raw(place)).map(f64::from_le_bytes).collect());
        }
        Ok(self
            .floats(name, place)?
            .into_iter()
            .map(f64::from)
            .collect())
    }

    /// A tensor of token ids.
    ///
    /// # Errors
    /// Another type, or a value that is no token id.
    pub fn tokens(&self, name: &str, place: &Place) -> Result<Vec<u32>, FileError> {
        if place.dtype != Dtype::I64 {
            return Err(self.wrong_type(name, place, place.dtype, "I64"));
        }
        let ids = words(self.raw(place)).map(|word| u32::try_from(i64::from_le_bytes(word)));
        ids.collect::<Result<_, _>>().map_err(|_| {
            bad(
                &self.files[place.file].0,
                format!("`{name}` has a value that is no token id"),
            )
        })
    }

    fn wrong_type(&self, name: &str, place: &Place, got: Dtype, expected: &str) -> FileError {
        bad(
            &self.files[place.file].0,
            format!("`{name}` has values of type {got:?}; expected {expected}"),
        )
    }
}

fn words<const N: usize>(raw: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    raw.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(folder: &Path) -> String {
        match Folder::open(folder) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(refusal(path).contains("config.json"));
        std::fs::write(path.join("config.json"), "{}").unwrap();
        assert!(refusal(path).contains("model_type"));
        std::fs::write(
            path.join("config.json"),
            r#"{"model_type": "x", "a": Infinity}"#,
        )
        .unwrap();
        assert!(refusal(path).contains("neither model.safetensors"));
        std::fs::write(path.join("pytorch_model.bin"), "x").unwrap();
        assert!(refusal(path).contains("pickle"));
        std::fs::write(path.join("model.safetensors"), [0; 3]).unwrap();
        assert!(refusal(path).contains("not a whole safetensors file"));
    }

    #[test]
    fn shards_and_small_types_are_read() {
        use safetensors::tensor::TensorView;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("config.json"), r#"{"model_type" : "x"}"#).unwrap();
        let half: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect();
        let brain = bf16::from_f32(3.0).to_le_bytes();
        let shards = [
            ("one", "a", Dtype::F16, vec![2], half.as_slice()),
            ("two", "b", Dtype::BF16, vec![1], brain.as_slice()),
        ];
        for (file, tensor, dtype, shape, raw) in shards {
            let view = TensorView::new(dtype, shape, raw).unwrap();
            let bytes = safetensors::serialize([(tensor, view)], None).unwrap();
            std::fs::write(path.join(file), bytes).unwrap();
        }
        let index = path.join(INDEX);
        std::fs::write(&index, r#"{"weight_map": {"a": "one", "b": "two"}}"#).unwrap();
        let opened = Folder::open(path).unwrap();
        assert_eq!(
            (opened.model_type.as_str(), opened.tensors.files()),
            ("x", 2)
        );
        let values = |name: &str| {
            let place = opened.tensors.get(name).unwrap();
            opened.tensors.floats(name, place).unwrap()
        };
        assert_eq!((values("a"), values("b")), (vec![1.5, -2.0], vec![3.0]));
        std::fs::write(&index, r#"{"weight_map": {"a": "one", "c": "two"}}"#).unwrap();
        assert!(refusal(path).contains("`c` is in two"));
        std::fs::write(&index, r#"{"weight_map": {"a": "../one"}}"#).unwrap();
        assert!(refusal(path).contains("outside the folder"));
        // A shard cut short.
        let whole = std::fs::read(path.join("one")).unwrap();
        std::fs::write(path.join("one"), &whole[..whole.len() - 1]).unwrap();
        std::fs::write(&index, r#"{"weight_map": {"a": "one"}}"#).unwrap();
        assert!(refusal(path).contains("not a whole safetensors file"));
    }
}
