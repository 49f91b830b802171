//! Which tokenizer a file or folder holds.

use std::path::Path;
use std::sync::Arc;

use crate::error::TextError;
use crate::json::Json;
use crate::tokenizer::Tokenizer;
use crate::world::World;

/// The tokenizer of a file, or of a checkpoint's folder: a tokenizer.json with what the files beside it say of
/// special tokens, or RWKV's world vocabulary (`rwkv_vocab_*.txt`, or any other .txt that is named).
///
/// # Errors
/// A folder without one, or a file that is none, by its name.
pub fn tokenizer_of(path: &Path) -> Result<Arc<dyn Tokenizer>, TextError> {
    let read = |source| TextError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        return if path.extension().is_some_and(|end| end == "txt") {
            Ok(Arc::new(World::read(path)?))
        } else {
            Ok(Arc::new(Json::read(path)?))
        };
    }
    let json = path.join("tokenizer.json");
    if json.exists() {
        return Ok(Arc::new(Json::read(&json)?));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        names.push(entry.map_err(read)?.file_name());
    }
    names.sort();
    let is_world = |name: &str| name.starts_with("rwkv_vocab") && name.ends_with(".txt");
    match names
        .iter()
        .find(|name| name.to_str().is_some_and(is_world))
    {
        Some(name) => Ok(Arc::new(World::read(&path.join(name))?)),
        None => Err(TextError::not(
            path,
            "has no tokenizer.json and no rwkv_vocab_*.txt; name a tokenizer's file, or `bytes`",
        )),
    }
}

/// Whether a model with `vocab` token ids can read what a tokenizer makes.
///
/// # Errors
/// A tokenizer with more ids.
pub fn fits(tokenizer: &dyn Tokenizer, vocab: usize) -> Result<(), TextError> {
    if tokenizer.vocab() <= vocab {
        return Ok(());
    }
    Err(TextError::Vocabulary {
        tokenizer: tokenizer.id().to_owned(),
        ids: tokenizer.vocab(),
        vocab,
    })
}
