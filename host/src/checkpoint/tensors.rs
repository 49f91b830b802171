//! A checkpoint's tensors in one or several safetensors files, mapped into memory. It knows nothing of
//! models.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::files::{FileError, bad, io, is_there, map, read_text, recognise};

/// Name of the file with all weights.
const SINGLE: &str = "model.safetensors";

/// Name of the list of shards.
const INDEX: &str = "model.safetensors.index.json";

/// What wrappers put before the names of all tensors.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// Tensors of one or several files by name.
pub struct Tensors {
    files: Vec<(PathBuf, Mmap)>,
    places: BTreeMap<String, Place>,
    /// What the user should know of the choice of files.
    pub warnings: Vec<String>,
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

impl Tensors {
    /// Opens a folder's weights.
    ///
    /// # Errors
    /// No weights, pickles only, two sets of weights, a damaged file, an index that names what is not there.
    pub fn open_folder(folder: &Path) -> Result<Self, FileError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        let mut tensors = match (is_there(&single), is_there(&index)) {
            (false, false) => return Err(no_weights(folder)?),
            (true, false) => Self::open_files(vec![single])?,
            (false, true) => Index::read(&index)?.open(folder)?,
            (true, true) => {
                let listed = Index::read(&index)?;
                let shards: Vec<&String> =
                    listed.files.iter().filter(|name| *name != SINGLE).collect();
                if shards.is_empty() {
                    listed.open(folder)?
                } else if !shards.iter().any(|name| is_there(&folder.join(name))) {
                    let mut tensors = Self::open_files(vec![single])?;
                    tensors.warnings.push(format!(
                        "{} names shards that are gone ({}, ..); {SINGLE} beside it is read",
                        index.display(),
                        shards[0]
                    ));
                    tensors
                } else {
                    let what = format!(
                        "it holds two sets of weights, {SINGLE} and the shards of {INDEX}; move one of them away"
                    );
                    return Err(bad(folder, what));
                }
            }
        };
        tensors.unwrap_names();
        Ok(tensors)
    }

    /// Takes away what a wrapper put before the names of all tensors.
    fn unwrap_names(&mut self) {
        let wraps = |tensors: &Self, wrapper: &str| {
            !tensors.places.is_empty()
                && tensors.places.keys().all(|name| name.starts_with(wrapper))
        };
        while let Some(wrapper) = WRAPPERS.into_iter().find(|wrapper| wraps(self, wrapper)) {
            self.rename(|name| name[wrapper.len()..].to_owned());
        }
    }

    /// Gives tensors other names.
    pub fn rename(&mut self, name: impl Fn(&str) -> String) {
        let places = std::mem::take(&mut self.places).into_iter();
        self.places = places.map(|(old, place)| (name(&old), place)).collect();
    }

    /// Opens safetensors files.
    ///
    /// # Errors
    /// One that cannot be read, is damaged, or repeats a tensor of another.
    pub fn open_files(paths: Vec<PathBuf>) -> Result<Self, FileError> {
        let mut tensors = Self {
            files: Vec::new(),
            places: BTreeMap::new(),
            warnings: Vec::new(),
        };
        for path in paths {
            tensors.add(path)?;
        }
        Ok(tensors)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), FileError> {
        let map = map(&path)?;
        if let Some(kind) = recognise(&map) {
            return Err(bad(&path, kind));
        }
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

    /// Whether two tensors have the same shape and values.
    ///
    /// # Errors
    /// A type that is not floating point.
    pub fn are_equal(&self, one: &str, other: &str) -> Result<bool, FileError> {
        let (Some(a), Some(b)) = (self.get(one), self.get(other)) else {
            return Ok(false);
        };
        if a.shape != b.shape || a.dtype == b.dtype {
            return Ok(a.shape == b.shape && self.raw(a) == self.raw(b));
        }
        Ok(self.floats(one, a)? == self.floats(other, b)?)
    }

    fn raw(&self, place: &Place) -> &[u8] {
        &self.files[place.file].1[place.bytes.clone()]
    }

    /// A tensor's values as float32.
    ///
    /// # Errors
    /// A type that is not floating point.
    pub fn floats(&self, name: &str, place: &Place) -> Result<Vec<f32>, FileError> {
        let mut values = Vec::new();
        self.read(name, place, 0..place.shape.iter().product(), &mut values)?;
        Ok(values)
    }

    /// Appends values of a tensor, which has as many, as float32.
    ///
    /// # Errors
    /// A type that is not floating point.
    pub fn read(
        &self,
        name: &str,
        place: &Place,
        range: Range<usize>,
        to: &mut Vec<f32>,
    ) -> Result<(), FileError> {
        let size = place.dtype.bitsize() / 8;
        let raw = &self.raw(place)[range.start * size..range.end * size];
        match place.dtype {
            Dtype::F32 => to.extend(words(raw).map(f32::from_le_bytes)),
            Dtype::F64 => to.extend(words(raw).map(|word| f64::from_le_bytes(word) as f32)),
            Dtype::F16 => to.extend(words(raw).map(|word| f16::from_le_bytes(word).to_f32())),
            Dtype::BF16 => to.extend(words(raw).map(|word| bf16::from_le_bytes(word).to_f32())),
            other => return Err(self.wrong_type(name, place, other, "F32, F64, F16 or BF16")),
        }
        Ok(())
    }

    /// Gives the memory of a tensor's pages back; they are read from the file again if they are wanted. Otherwise
    /// the mapped file counts as this process's memory beside the model that is made of it.
    pub fn forget(&self, place: &Place) {
        let map = &self.files[place.file].1;
        // SAFETY: the map is of a file and never written to, so its pages hold nothing that would be lost.
        let given_back = unsafe {
            map.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                place.bytes.start,
                place.bytes.len(),
            )
        };
        // Only an offer to the system.
        let _ = given_back;
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

/// A list of shards.
struct Index {
    path: PathBuf,
    /// Names of the files, sorted.
    files: Vec<String>,
    /// Tensors and their files.
    places: BTreeMap<String, String>,
}

impl Index {
    /// Reads a list, whose files all lie beside it.
    fn read(path: &Path) -> Result<Self, FileError> {
        #[derive(serde::Deserialize)]
        struct List {
            weight_map: BTreeMap<String, String>,
        }
        let List { mut weight_map } =
            serde_json::from_str(&read_text(path)?).map_err(|error| bad(path, error))?;
        for name in weight_map.values_mut() {
            let mut parts = Path::new(name)
                .components()
                .filter(|part| *part != Component::CurDir);
            *name = match (parts.next(), parts.next()) {
                (Some(Component::Normal(file)), None) => file.to_string_lossy().into_owned(),
                _ => return Err(bad(path, format!("it names `{name}`, outside the folder"))),
            };
        }
        let mut files: Vec<String> = weight_map.values().cloned().collect();
        files.sort();
        files.dedup();
        if files.is_empty() {
            return Err(bad(path, "it names no file"));
        }
        Ok(Self {
            path: path.to_owned(),
            files,
            places: weight_map,
        })
    }

    fn open(&self, folder: &Path) -> Result<Tensors, FileError> {
        if let Some(gone) = self.files.iter().find(|name| !is_there(&folder.join(name))) {
            return Err(bad(
                &self.path,
                format!("it names `{gone}`, which is not there"),
            ));
        }
        let tensors =
            Tensors::open_files(self.files.iter().map(|name| folder.join(name)).collect())?;
        match self
            .places
            .iter()
            .find(|(tensor, _)| !tensors.places.contains_key(*tensor))
        {
            None => Ok(tensors),
            Some((tensor, file)) => Err(bad(
                &self.path,
                format!("it says that `{tensor}` is in {file}, which has no such tensor"),
            )),
        }
    }
}

/// Why a folder without safetensors cannot be read.
fn no_weights(folder: &Path) -> Result<FileError, FileError> {
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
    Ok(match pickle {
        Some(file) => FileError::Pickle { path: path(file) },
        None => FileError::NoWeights { path: path(folder) },
    })
}
