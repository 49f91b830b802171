//! Files as bytes, bounded where they are read, and hashes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::TextError;

/// Reads a plain file of at most so many bytes.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, TextError> {
    let failed = |source| TextError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(TextError::not(path, "is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(TextError::not(
            path,
            format!("is larger than {} MB, the most that is read", most >> 20),
        ));
    }
    Ok(bytes)
}

/// Reads a JSON file of at most so many bytes. Python's writers put a bare `Infinity`, `-Infinity` or `NaN` where
/// JSON has no number for it: it is null here.
pub fn json(path: &Path, most: u64) -> Result<Value, TextError> {
    let bytes = read(path, most)?;
    let text = String::from_utf8(bytes).map_err(|_| TextError::not(path, "is no UTF-8"))?;
    let parsed =
        serde_json::from_str(&text).or_else(|_| serde_json::from_str(&without_bare(&text)));
    parsed.map_err(|error| TextError::not(path, format!("is no JSON: {error}")))
}

/// A JSON text with null for the bare words that stand outside its strings.
fn without_bare(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        let bare = ["-Infinity", "Infinity", "NaN"].into_iter();
        match bare
            .filter(|_| !in_string)
            .find(|word| rest.starts_with(word))
        {
            Some(word) => {
                taken = word.len();
                plain.push_str("null");
            }
            None => {
                if in_string && c == '\\' {
                    taken += rest[1..].chars().next().map_or(0, char::len_utf8);
                }
                in_string ^= c == '"';
                plain.push_str(&rest[..taken]);
            }
        }
        rest = &rest[taken..];
    }
    plain
}

/// SHA-256 of parts, each with its length, in hexadecimal.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// SHA-256 of bytes as `sha256sum` prints it.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_are_null_outside_strings_alone() {
        let text = r#"{"a\\": [0.0, Infinity], "b NaN \"Infinity": -Infinity, "é": NaN}"#;
        let wanted = r#"{"a\\": [0.0, null], "b NaN \"Infinity": null, "é": null}"#;
        assert_eq!(without_bare(text), wanted);
        assert_eq!(without_bare("\"\\"), "\"\\");
    }
}
