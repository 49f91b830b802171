//! Writes the folder of a GGUF file's model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensorError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::checkpoint::files::{FileError, bad, map, recognise, unwritten};
use crate::cli::StoredType;
use crate::gguf::config::{Llama, ids};
use crate::gguf::file::Gguf;
use crate::gguf::tensors::moved;
use crate::gguf::tokenizer;
use crate::text::{as_line, as_lines};

/// What is to be converted.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConvertJob {
    /// The GGUF file.
    #[serde(with = "crate::path_text")]
    pub file: PathBuf,
    /// An empty folder.
    #[serde(with = "crate::path_text")]
    pub folder: PathBuf,
    /// Type of the values that are written.
    pub dtype: StoredType,
}

/// What was converted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Converted {
    /// The model's own name.
    #[serde(deserialize_with = "as_line")]
    pub name: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of values.
    pub parameters: u64,
    /// How the values were stored: `Q4_1 210`, a format and its tensors.
    #[serde(deserialize_with = "as_lines")]
    pub formats: Vec<String>,
    /// The vocabulary, in words; none where the file has none.
    #[serde(deserialize_with = "as_line")]
    pub tokenizer: String,
}

impl StoredType {
    /// Its name in safetensors, and in a config.
    fn names(self) -> (Dtype, &'static str) {
        match self {
            Self::F32 => (Dtype::F32, "float32"),
            Self::Bf16 => (Dtype::BF16, "bfloat16"),
            Self::F16 => (Dtype::F16, "float16"),
        }
    }
}

/// Writes `config.json`, `model.safetensors` and what the vocabulary gives into an empty folder. After an error,
/// what is there is not whole.
///
/// # Errors
/// What of the file is damaged, unknown or not a llama's, with key or tensor; the system's.
pub fn convert(job: &ConvertJob) -> Result<Converted, FileError> {
    let bytes = map(&job.file)?;
    if !bytes.starts_with(b"GGUF")
        && let Some(kind) = recognise(&bytes)
    {
        return Err(bad(&job.file, kind));
    }
    let gguf = Gguf::read(&job.file, &bytes)?;
    let llama = Llama::read(&gguf)?;
    let (dtype, dtype_name) = job.dtype.names();
    let config = llama.config(&gguf, dtype_name)?;
    let words = tokenizer::read(&gguf, llama.vocab)?;
    let fault = RefCell::default();
    let tensors = moved(&gguf, &llama, dtype, &fault)?;
    let mut formats: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, tensor) in &tensors {
        *formats.entry(tensor.format()).or_default() += 1;
    }
    let converted = Converted {
        name: gguf.text("general.name")?.unwrap_or_default().to_owned(),
        tensors: tensors.len(),
        parameters: tensors.iter().map(|(_, t)| t.values() as u64).sum(),
        formats: formats
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect(),
        tokenizer: words
            .as_ref()
            .map_or_else(String::new, |words| words.kind.clone()),
    };
    write_json(&job.folder, "config.json", &config)?;
    let mut generation = json!({});
    for (key, id) in ids(&gguf, llama.vocab)? {
        if key != "unk_token_id" {
            generation[key] = id.into();
        }
    }
    write_json(&job.folder, "generation_config.json", &generation)?;
    if let Some(words) = words {
        write_json(&job.folder, "tokenizer.json", &words.tokenizer)?;
        write_json(&job.folder, "tokenizer_config.json", &words.config)?;
    }
    let path = job.folder.join("model.safetensors");
    let format = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize_to_file(tensors, Some(format), &path).map_err(|error| match error {
        SafeTensorError::IoError(error) => unwritten(&path)(error),
        error => bad(&path, format!("it cannot be written: {error}")),
    })?;
    if let Some(what) = fault.into_inner() {
        return Err(gguf.bad(what));
    }
    // The crate makes it readable by its owner alone.
    std::fs::metadata(job.folder.join("config.json"))
        .and_then(|config| std::fs::set_permissions(&path, config.permissions()))
        .map_err(unwritten(&path))?;
    // Whole on the disk before the folder gets its name.
    File::open(&path)
        .and_then(|file| file.sync_all())
        .map_err(unwritten(&path))?;
    Ok(converted)
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<(), FileError> {
    let path = folder.join(name);
    let text = format!("{value:#}\n");
    std::fs::write(&path, text)
        .and_then(|()| File::open(&path)?.sync_all())
        .map_err(unwritten(&path))
}
