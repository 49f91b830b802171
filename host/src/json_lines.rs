//! Files of JSON objects, one a line, as other software writes them: read line by line, each bounded.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::exit::CommandError;

/// Most bytes of a line: a text of a few million tokens.
const MOST_BYTES: u64 = 64 << 20;

/// The lines of a file as JSON, with their numbers from 1.
pub struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    /// Lines asked for so far.
    pub number: usize,
    /// Whether the last line had no end, as one that is cut has none.
    pub unended: bool,
}

impl<'a> Lines<'a> {
    /// Opens a plain file.
    ///
    /// # Errors
    /// The system's refusal; a folder, a pipe or a device.
    pub fn open(path: &'a Path) -> Result<Self, CommandError> {
        let refused =
            |error: std::io::Error| CommandError::usage(format!("{}: {error}", path.display()));
        if !std::fs::metadata(path).map_err(refused)?.is_file() {
            return Err(refused(std::io::Error::other("it is not a plain file")));
        }
        let file = File::open(path).map_err(refused)?;
        Ok(Self {
            path,
            reader: BufReader::with_capacity(1 << 20, file),
            number: 0,
            unended: false,
        })
    }

    /// The next line, or none at the end.
    ///
    /// # Errors
    /// A line that is too long, or is no such object, with its number.
    pub fn next_object<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CommandError> {
        self.number += 1;
        let mut line = Vec::new();
        let mut some = (&mut self.reader).take(MOST_BYTES);
        let read = some.read_until(b'\n', &mut line);
        let read = read.map_err(|error| self.error(error))?;
        if read as u64 == MOST_BYTES {
            return Err(self.error(format!("longer than {MOST_BYTES} bytes")));
        }
        if read == 0 {
            return Ok(None);
        }
        self.unended = line.last() != Some(&b'\n');
        parse(&line).map(Some).map_err(|error| self.error(error))
    }

    /// An error of the line that was read last.
    pub fn error(&self, message: impl std::fmt::Display) -> CommandError {
        CommandError::usage(format!(
            "{}, line {}: {message}",
            self.path.display(),
            self.number
        ))
    }
}

/// JSON as Python writes it, which has `NaN` and `Infinity` for numbers: they are read as null, no value.
///
/// # Errors
/// What is wrong, and where.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text).or_else(|error| match without_nan(text) {
        Some(plain) => serde_json::from_slice(&plain),
        None => Err(error),
    })
}

/// The text with null for each such word outside strings; nothing where there is none.
fn without_nan(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let (mut place, mut in_string, mut found) = (0, false, false);
    while let Some(&byte) = text.get(place) {
        let words: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
        let word = words
            .into_iter()
            .find(|word| !in_string && text[place..].starts_with(word));
        if let Some(word) = word {
            plain.extend(b"null");
            place += word.len();
            found = true;
            continue;
        }
        let taken = if in_string && byte == b'\\' { 2 } else { 1 };
        in_string ^= byte == b'"';
        plain.extend(text[place..].iter().take(taken));
        place += taken;
    }
    found.then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_python_writes_for_no_number_is_no_value() {
        let read: Value = parse(br#"{"a": NaN, "b": [-Infinity, 1], "c": "NaN \" NaN"}"#).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"a": null, "b": [null, 1], "c": "NaN \" NaN"})
        );
        assert!(parse::<Value>(b"{\"a\": Nan}").is_err());
        assert!(parse::<Value>(b"{\"a\": \"x\\").is_err());
    }
}
