//! Documents, whole and in order.

use std::path::{Path, PathBuf};

use crate::error::TextError;
use crate::files;

/// Most bytes of all documents.
const MOST: u64 = 2 << 30;
/// Most documents.
const MOST_FILES: usize = 100_000;
/// Most folders above a document.
const DEEPEST: usize = 8;

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its file's name in the folder.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// The documents of a folder, by name. One document is never joined to another here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// What they are called in records.
    pub name: String,
    /// Hash of all names and texts, in hexadecimal.
    pub sha256: String,
    /// In order of their names; at least one, none empty.
    pub documents: Vec<Document>,
}

impl Texts {
    /// The texts of a folder: every file whose name ends in .txt, in the folder and those below it.
    ///
    /// # Errors
    /// A folder without one; a file that is empty, no UTF-8 or no text, by its name; more than can be held.
    pub fn of_folder(folder: &Path) -> Result<Self, TextError> {
        let mut files = Vec::new();
        walk(folder, Path::new(""), &mut files)?;
        files.sort();
        if files.is_empty() {
            return Err(TextError::not(
                folder,
                "has no file whose name ends in .txt; give a folder of texts, a file a document",
            ));
        }
        let mut documents = Vec::new();
        let mut room = MOST;
        for file in files {
            let path = folder.join(&file);
            let bytes = files::read(&path, room)?;
            room -= bytes.len() as u64;
            documents.push(Document {
                name: file.to_string_lossy().into_owned(),
                text: text_of(&path, bytes)?,
            });
        }
        let name = folder.canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name);
        Ok(Self {
            name: name.map_or_else(|| "texts".to_owned(), |name| name.to_string_lossy().into()),
            sha256: files::sha256(
                documents
                    .iter()
                    .flat_map(|document| [document.name.as_bytes(), document.text.as_bytes()]),
            ),
            documents,
        })
    }
}

/// A file's bytes as a text.
fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, TextError> {
    if bytes.contains(&0) {
        return Err(TextError::not(path, "holds the byte 0, so it is no text"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        TextError::not(path, format!("is no UTF-8 from byte {at} on; convert it"))
    })?;
    if text.trim().is_empty() {
        return Err(TextError::not(path, "is empty; take it out of the folder"));
    }
    Ok(text)
}

/// Adds the paths of the texts below a folder. Links are not followed, and files whose names begin with a dot
/// are nobody's text.
fn walk(folder: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Result<(), TextError> {
    let path = folder.join(below);
    let read = |source| TextError::Read {
        path: path.clone(),
        source,
    };
    for entry in std::fs::read_dir(&path).map_err(read)? {
        let entry = entry.map_err(read)?;
        let own = below.join(entry.file_name());
        let kind = entry.file_type().map_err(read)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden {
            continue;
        }
        if kind.is_dir() && own.components().count() < DEEPEST {
            walk(folder, &own, files)?;
        } else if kind.is_file() && own.extension().is_some_and(|end| end == "txt") {
            files.push(own);
        }
        if files.len() > MOST_FILES {
            return Err(TextError::not(
                folder,
                format!("has more than {MOST_FILES} texts; give fewer"),
            ));
        }
    }
    Ok(())
}
