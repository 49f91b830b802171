//! Opening a checkpoint's files: regular ones only, bounded where they are read whole, and named for what
//! they are where they are not what they should be.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::checkpoint::config::Config;
use crate::checkpoint::tensors::Tensors;

/// Largest text that is read, in bytes: lists of a large model's shards take a tenth.
const MOST_TEXT: u64 = 16 << 20;

/// Bytes from the start of a file by which it is recognised.
const START: usize = 64;

/// Why a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused to read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The system refused to write.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Only pickles are there.
    #[error(
        "{path} is a pickle, which can run code when it is read, so it is not opened; write the model \
         as safetensors and give that folder (in transformers: model.save_pretrained(folder); of a file of tensors \
         that you trust: safetensors.torch.save_model or save_file of torch.load(file, weights_only=True), beside \
         the same config.json)"
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

/// A checkpoint's folder.
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
    /// Its `config.json`.
    pub config: Config,
    /// Its tensors.
    pub tensors: Tensors,
}

impl Folder {
    /// Opens a folder: config, then weights, which are mapped; so this belongs in a worker, and a host reads
    /// [`Config`] alone.
    ///
    /// # Errors
    /// Whatever is missing, a pickle, or damaged.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self {
            path: path.to_owned(),
            config: Config::read(path)?,
            tensors: Tensors::open_folder(path)?,
        })
    }

    /// Hash of config and weights, hexadecimal.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.config.text.as_bytes());
        self.tensors.add_to_hash(&mut hash);
        longhaul_text::hex(&hash.finalize())
    }
}

/// The system's reason with the file's name.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.display().to_string();
    move |source| FileError::Io { path, source }
}

/// The system's reason why a file cannot be written.
pub(crate) fn unwritten(path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.display().to_string();
    move |source| FileError::Write { path, source }
}

/// What is wrong with a file.
pub(crate) fn bad(path: &Path, what: impl std::fmt::Display) -> FileError {
    FileError::Bad {
        path: path.display().to_string(),
        what: what.to_string(),
    }
}

/// Whether anything has this name, also a link to what is gone.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Opens a regular file. A pipe or a device, which may have no end or never begin, is not opened.
///
/// # Errors
/// The system's; what is no regular file.
pub(crate) fn open_regular(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new()
        .read(true)
        // A pipe is put in a file's place without waiting for its writer.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(io(path))?;
    if file.metadata().map_err(io(path))?.is_file() {
        Ok(file)
    } else {
        Err(bad(path, "it is not a regular file"))
    }
}

/// Maps a regular file into memory.
///
/// # Errors
/// The system's; what is no regular file.
pub(crate) fn map(path: &Path) -> Result<Mmap, FileError> {
    let file = open_regular(path)?;
    // SAFETY: the map is only read, and every access is within its length. A file that another
    // program cuts short meanwhile ends this process by SIGBUS; it runs in a worker.
    unsafe { Mmap::map(&file) }.map_err(io(path))
}

/// Reads a text whole.
///
/// # Errors
/// No regular file, too large a one, or no UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, FileError> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    let mut bounded = file.take(MOST_TEXT + 1);
    bounded.read_to_end(&mut bytes).map_err(io(path))?;
    if bytes.len() as u64 > MOST_TEXT {
        return Err(bad(path, format!("it has more than {MOST_TEXT} bytes")));
    }
    if let Some(kind) = recognise(&bytes) {
        return Err(bad(path, kind));
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        bad(path, format!("it is not UTF-8 text (byte {place})"))
    })
}

/// What a file is that is neither JSON nor safetensors, by its first bytes, with what to do.
pub(crate) fn recognise(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(START)];
    let text = start.trim_ascii_start();
    let begins =
        |word: &[u8]| text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word);
    Some(match start {
        [0xef, 0xbb, 0xbf, ..] => "it begins with a byte order mark; save it as UTF-8 without one",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            "it is UTF-16 text by its byte order mark; save it as UTF-8 without one"
        }
        _ if begins(b"version https://git-lfs") => {
            "it is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`"
        }
        _ if begins(b"<!doctype") || begins(b"<html") || begins(b"<?xml") => {
            "it is a web page, not the file itself; the download was answered with a page"
        }
        _ if begins(b"GGUF") => {
            "it is a GGUF file; make a folder of it with `longhaul checkpoint convert`"
        }
        [b'P', b'K', 3, 4, ..] => {
            "it is a zip archive, most likely of PyTorch; write the model as safetensors"
        }
        _ => return None,
    })
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
