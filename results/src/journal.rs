//! An append-only CSV file of records. Each append is one write of whole lines and a sync, so that a
//! kill or a power cut loses at most the row being written; a torn last line is set aside on opening.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};

/// Why a record could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No room. What was there before is whole.
    #[error("no room for {bytes} bytes in {}: {source}. All earlier rows are kept; free some space and go on with --resume", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What did not fit.
        bytes: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of another kind or version.
    #[error("{} is not a file of this version: column {column} is `{found}`, expected `{expected}`. Use another --out folder", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Column, from 1.
        column: usize,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// A line before the last that is not a record.
    #[error("{} line {line} is not a record: {reason}. The file was changed by hand or by the disk; move it away to start afresh", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The parser's words.
        reason: String,
    },
}

/// A last line that was cut short, and where it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// Bytes of the line.
    pub bytes: usize,
    /// The file that now holds it.
    pub moved_to: PathBuf,
}

/// An open file of records.
#[derive(Debug)]
pub struct Journal<R> {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
    records: PhantomData<R>,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// A new file with its header; `sample` is any record, whose fields name the columns.
    ///
    /// # Errors
    /// An existing file; the system's refusal.
    pub fn create(path: &Path, sample: &R) -> Result<Self, JournalError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        let file = file.map_err(io("create", path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: 0,
            records: PhantomData,
        };
        journal.write(&header(sample))?;
        Ok(journal)
    }

    /// An existing file, its records, and its torn last line if there was one. A file without a whole
    /// header is begun again.
    ///
    /// # Errors
    /// Another header; a line before the last that is no record; the system's refusal.
    #[allow(clippy::type_complexity)] // three plain results, named in the line above
    pub fn open(path: &Path, sample: &R) -> Result<(Self, Vec<R>, Option<Torn>), JournalError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(io("open", path))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io("read", path))?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: 0,
            records: PhantomData,
        };
        let expected = header(sample);
        let complete = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        if complete == 0 {
            let torn = journal.set_aside(&text, 0)?;
            journal.write(&expected)?;
            return Ok((journal, Vec::new(), torn));
        }
        check_header(path, &text[..complete], &expected)?;
        let (records, whole) = parse(path, &text[..complete])?;
        let torn = journal.set_aside(&text[whole..], whole as u64)?;
        Ok((journal, records, torn))
    }

    /// Appends records: one write, one sync. After an error the file is as before.
    ///
    /// # Errors
    /// No room; the system's refusal.
    pub fn append(&mut self, records: &[R]) -> Result<(), JournalError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut writer = csv::WriterBuilder::new()
            .has_headers(false)
            .from_writer(Vec::new());
        for record in records {
            writer.serialize(record).expect("a flat record serialises");
        }
        let lines = writer.into_inner().expect("a vector takes all bytes");
        self.write(&lines)
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), JournalError> {
        let written = self
            .file
            .seek(SeekFrom::Start(self.length))
            .and_then(|_| self.file.write_all(lines))
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += lines.len() as u64;
                Ok(())
            }
            Err(source) => {
                // Best effort: what stays behind is a torn line, which the next opening sets aside.
                let _ = self.file.set_len(self.length);
                let (path, bytes) = (self.path.clone(), lines.len());
                match source.kind() {
                    std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::QuotaExceeded
                    | std::io::ErrorKind::FileTooLarge => Err(JournalError::Full {
                        path,
                        bytes,
                        source,
                    }),
                    _ => Err(JournalError::Io {
                        action: "write to",
                        path,
                        source,
                    }),
                }
            }
        }
    }

    /// Cuts the file to its whole lines and puts the rest into `<name>.torn`.
    fn set_aside(&mut self, rest: &[u8], whole: u64) -> Result<Option<Torn>, JournalError> {
        self.length = whole;
        if rest.is_empty() {
            return Ok(None);
        }
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".torn");
        let moved_to = self.path.with_file_name(name);
        std::fs::write(&moved_to, rest).map_err(io("write", &moved_to))?;
        self.file
            .set_len(whole)
            .map_err(io("shorten", &self.path))?;
        self.file.sync_data().map_err(io("sync", &self.path))?;
        Ok(Some(Torn {
            bytes: rest.len(),
            moved_to,
        }))
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io {
        action,
        path,
        source,
    }
}

/// The header line of a record's type.
fn header<R: Serialize>(sample: &R) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.serialize(sample).expect("a flat record serialises");
    let text = writer.into_inner().expect("a vector takes all bytes");
    let end = text
        .iter()
        .position(|&byte| byte == b'\n')
        .expect("a header line")
        + 1;
    text[..end].to_vec()
}

fn check_header(path: &Path, text: &[u8], expected: &[u8]) -> Result<(), JournalError> {
    let first = text
        .split_inclusive(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    if first == expected {
        return Ok(());
    }
    let columns = |line: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(line)
            .trim_end()
            .split(',')
            .map(str::to_owned)
            .collect()
    };
    let (found, expected) = (columns(first), columns(expected));
    let count = found.len().max(expected.len());
    let get = |columns: &[String], index: usize| columns.get(index).cloned().unwrap_or_default();
    let index = (0..count)
        .find(|&i| get(&found, i) != get(&expected, i))
        .unwrap_or(0);
    Err(JournalError::Header {
        path: path.to_owned(),
        column: index + 1,
        found: get(&found, index),
        expected: get(&expected, index),
    })
}

/// Records of whole lines, and the bytes they take; a last line that does not parse is not counted.
fn parse<R: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<(Vec<R>, usize), JournalError> {
    let mut reader = csv::Reader::from_reader(text);
    let mut records = Vec::new();
    let mut whole = reader.headers().map_or(0, |_| 0);
    let mut row = csv::StringRecord::new();
    let headers = reader.headers().cloned().unwrap_or_default();
    whole = whole.max(reader.position().byte() as usize);
    loop {
        let line = reader.position().line() as usize;
        let failure = match reader.read_record(&mut row) {
            Ok(false) => return Ok((records, text.len())),
            Ok(true) => match row.deserialize(Some(&headers)) {
                Ok(record) => {
                    records.push(record);
                    whole = reader.position().byte() as usize;
                    continue;
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        let rest = &text[whole..];
        let lines = rest
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .count();
        if lines <= 1 {
            return Ok((records, whole));
        }
        return Err(JournalError::Line {
            path: path.to_owned(),
            line,
            reason: failure,
        });
    }
}

/// Replaces a file by records with a header, at once: a reader sees the old or the new one whole.
///
/// # Errors
/// The system's refusal.
pub fn write_csv<R: Serialize>(path: &Path, records: &[R]) -> Result<(), JournalError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io("write in", folder))?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.serialize(record).expect("a flat record serialises");
    }
    let text = writer.into_inner().expect("a vector takes all bytes");
    file.write_all(&text).map_err(io("write", path))?;
    file.as_file().sync_data().map_err(io("sync", path))?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file()
        .set_permissions(permissions)
        .map_err(io("write", path))?;
    file.persist(path)
        .map_err(|error| io("replace", path)(error.error))?;
    Ok(())
}
