//! The container: a header, metadata by key, tensors by name, and their data. Everything is a view into the mapped
//! file, so that no count or size in it can ask for memory.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use crate::checkpoint::files::{FileError, bad};
use crate::gguf::blocks::Block;
use crate::gguf::reader::{Reader, Value};

/// Most dimensions of a tensor, as ggml has it.
const MOST_DIMENSIONS: u32 = 4;
/// Alignment of tensors in bytes where the file does not say.
const ALIGNMENT: u64 = 32;

/// A tensor.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub block: Block,
    /// Its blocks.
    pub bytes: &'a [u8],
}

/// A file whose every tensor lies within it.
pub struct Gguf<'a> {
    /// The file, for messages.
    pub path: &'a Path,
    metadata: BTreeMap<&'a str, Value<'a>>,
    /// Tensors by name.
    pub tensors: BTreeMap<&'a str, Tensor<'a>>,
}

impl<'a> Gguf<'a> {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// What is no GGUF of version 2 or 3, or is cut, or has counts, sizes or offsets that cannot be; with the key or
    /// tensor.
    pub fn read(path: &'a Path, bytes: &'a [u8]) -> Result<Self, FileError> {
        let mut reader = Reader::new(bytes);
        Self::parse(path, &mut reader).map_err(|what| bad(path, what))
    }

    fn parse(path: &'a Path, reader: &mut Reader<'a>) -> Result<Self, String> {
        header(reader)?;
        let tensors = reader.count("tensors")?;
        let keys = reader.count("keys")?;
        let mut metadata = BTreeMap::new();
        for index in 0..keys {
            let key = reader
                .name()
                .map_err(|what| format!("key {index} of {keys}: {what}"))?;
            let value = reader
                .u32()
                .and_then(|kind| reader.value(kind))
                .map_err(|what| format!("key `{key}`: {what}"))?;
            if metadata.insert(key, value).is_some() {
                return Err(format!("key `{key}` is there twice"));
            }
        }
        let mut listed = Vec::new();
        for index in 0..tensors {
            let name = reader
                .name()
                .map_err(|what| format!("tensor {index} of {tensors}: {what}"))?;
            let entry = Entry::read(reader).map_err(|what| format!("tensor `{name}`: {what}"))?;
            listed.push((name, entry));
        }
        let mut gguf = Self {
            path,
            metadata,
            tensors: BTreeMap::new(),
        };
        let alignment = gguf.alignment()?;
        let start = (reader.position()).next_multiple_of(alignment);
        gguf.place(reader.bytes(), start, alignment, &listed)?;
        Ok(gguf)
    }

    fn alignment(&self) -> Result<u64, String> {
        match self.metadata.get("general.alignment") {
            None => Ok(ALIGNMENT),
            Some(Value::Whole(bytes)) if (1..=1 << 20).contains(bytes) => {
                let bytes = *bytes as u64;
                match bytes.is_power_of_two() {
                    true => Ok(bytes),
                    false => Err(format!(
                        "key `general.alignment` is {bytes}, no power of two"
                    )),
                }
            }
            Some(_) => Err("key `general.alignment` should be a power of two to 2^20".to_owned()),
        }
    }

    /// Finds every tensor's bytes, and refuses those that lie outside the file or over another's.
    fn place(
        &mut self,
        bytes: &'a [u8],
        start: u64,
        alignment: u64,
        listed: &[(&'a str, Entry)],
    ) -> Result<(), String> {
        let mut ranges = Vec::new();
        for (name, entry) in listed {
            let wrong = |what: String| format!("tensor `{name}`: {what}");
            if !entry.offset.is_multiple_of(alignment) {
                let what = format!("offset {} is no multiple of {alignment}", entry.offset);
                return Err(wrong(what));
            }
            let first = start.checked_add(entry.offset);
            let end = first.and_then(|first| first.checked_add(entry.bytes));
            let (Some(first), Some(end)) = (first, end) else {
                return Err(wrong(format!("its offset {} cannot be", entry.offset)));
            };
            if end > bytes.len() as u64 {
                return Err(wrong(format!(
                    "it ends at byte {end}, and the file has {}; it is cut short or its offset is wrong",
                    bytes.len()
                )));
            }
            ranges.push((first, end, *name));
            let tensor = Tensor {
                shape: entry.shape.clone(),
                block: entry.block,
                bytes: &bytes[first as usize..end as usize],
            };
            if self.tensors.insert(name, tensor).is_some() {
                return Err(wrong("it is there twice".to_owned()));
            }
        }
        ranges.sort_unstable();
        match ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            None => Ok(()),
            Some(pair) => Err(format!(
                "tensors `{}` and `{}` lie over each other",
                pair[0].2, pair[1].2
            )),
        }
    }

    /// What is wrong with this file.
    pub fn bad(&self, what: impl Display) -> FileError {
        bad(self.path, what)
    }

    fn wrong(&self, key: &str, expected: impl Display) -> FileError {
        match self.metadata.contains_key(key) {
            true => self.bad(format!("key `{key}` should be {expected}")),
            false => self.bad(format!("it has no key `{key}`, which should be {expected}")),
        }
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.metadata.keys().copied()
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// A text; none where the key is absent.
    ///
    /// # Errors
    /// If it is none, or not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, FileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(bytes)) => std::str::from_utf8(bytes)
                .map(Some)
                .map_err(|_| self.wrong(key, "UTF-8 text")),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A text that has to be there.
    ///
    /// # Errors
    /// If it is absent, none, or not UTF-8.
    pub fn needed_text(&self, key: &str) -> Result<&'a str, FileError> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "a text"))
    }

    /// A whole number from 0 to `most`; none where the key is absent.
    ///
    /// # Errors
    /// If it is no such number.
    pub fn whole(&self, key: &str, most: u64) -> Result<Option<u64>, FileError> {
        self.between(key, 0, most)
    }

    /// A size from 1 to `most` that has to be there.
    ///
    /// # Errors
    /// If it is absent or no such number.
    pub fn size(&self, key: &str, most: u64) -> Result<u64, FileError> {
        let size = self.between(key, 1, most)?;
        size.ok_or_else(|| self.wrong(key, format!("a whole number from 1 to {most}")))
    }

    fn between(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, FileError> {
        let range = i128::from(least)..=i128::from(most);
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Whole(number)) if range.contains(number) => Ok(Some(*number as u64)),
            Some(_) => Err(self.wrong(key, format!("a whole number from {least} to {most}"))),
        }
    }

    /// A finite number; none where the key is absent.
    ///
    /// # Errors
    /// If it is no such number.
    pub fn real(&self, key: &str) -> Result<Option<f64>, FileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Real(number)) if number.is_finite() => Ok(Some(*number)),
            Some(_) => Err(self.wrong(key, "a finite number")),
        }
    }

    /// Yes or no; none where the key is absent.
    ///
    /// # Errors
    /// If it is neither.
    pub fn yes(&self, key: &str) -> Result<Option<bool>, FileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Yes(yes)) => Ok(Some(*yes)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A list of texts that has to be there.
    ///
    /// # Errors
    /// If it is absent, no such list, or one of them is not UTF-8.
    pub fn texts(&self, key: &str) -> Result<Vec<&'a str>, FileError> {
        let Some(Value::List(list)) = self.metadata.get(key) else {
            return Err(self.wrong(key, "a list of texts"));
        };
        let mut texts = Vec::new();
        for (index, value) in list.values().enumerate() {
            match value {
                Value::Text(bytes) => texts
                    .push(std::str::from_utf8(bytes).map_err(|_| {
                        self.bad(format!("key `{key}`: text {index} is not UTF-8"))
                    })?),
                _ => return Err(self.wrong(key, "a list of texts")),
            }
        }
        Ok(texts)
    }

    /// A list of whole numbers; none where the key is absent.
    ///
    /// # Errors
    /// If it is no such list.
    pub fn wholes(&self, key: &str) -> Result<Option<Vec<i64>>, FileError> {
        self.list(key, "a list of whole numbers", |value| match value {
            Value::Whole(number) => i64::try_from(number).ok(),
            _ => None,
        })
    }

    /// A list of numbers; none where the key is absent.
    ///
    /// # Errors
    /// If it is no such list.
    pub fn reals(&self, key: &str) -> Result<Option<Vec<f64>>, FileError> {
        self.list(key, "a list of finite numbers", |value| match value {
            Value::Real(number) => Some(number).filter(|number| number.is_finite()),
            _ => None,
        })
    }

    fn list<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, FileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => {
                let values: Option<Vec<T>> = list.values().map(read).collect();
                values.map(Some).ok_or_else(|| self.wrong(key, expected))
            }
            Some(_) => Err(self.wrong(key, expected)),
        }
    }
}

/// What the header says of a tensor.
struct Entry {
    shape: Vec<usize>,
    block: Block,
    /// Size of its data.
    bytes: u64,
    /// Where it begins after the header.
    offset: u64,
}

impl Entry {
    fn read(reader: &mut Reader) -> Result<Self, String> {
        let dimensions = reader.u32()?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(format!(
                "it has {dimensions} dimensions; expected 1 to {MOST_DIMENSIONS}"
            ));
        }
        let sizes: Vec<u64> = (0..dimensions)
            .map(|_| reader.u64())
            .collect::<Result<_, _>>()?;
        let code = reader.u32()?;
        let offset = reader.u64()?;
        let block = Block::of(code)?;
        let values = sizes
            .iter()
            .try_fold(1u64, |values, &size| values.checked_mul(size))
            .filter(|values| (1..=u64::MAX >> 8).contains(values));
        let Some(values) = values else {
            return Err(format!("its sizes {sizes:?} cannot be"));
        };
        if !sizes[0].is_multiple_of(block.values as u64) {
            return Err(format!(
                "its rows of {} values are not whole blocks of {}, as {} has them",
                sizes[0], block.values, block.name
            ));
        }
        Ok(Self {
            shape: sizes.iter().rev().map(|&size| size as usize).collect(),
            block,
            bytes: values / block.values as u64 * block.bytes as u64,
            offset,
        })
    }
}

/// The mark and version at the start.
fn header(reader: &mut Reader) -> Result<(), String> {
    if reader.take(4).ok() != Some(b"GGUF") {
        return Err("it is no GGUF file: it does not begin with `GGUF`".to_owned());
    }
    let version = reader.u32()?;
    match version {
        2 | 3 => Ok(()),
        _ if matches!(version.swap_bytes(), 1..=3) => {
            Err("it is a big-endian GGUF file; only little-endian ones are read".to_owned())
        }
        _ => Err(format!(
            "it is a GGUF file of version {version}; versions 2 and 3 are read"
        )),
    }
}
