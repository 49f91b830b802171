//! An append-only CSV file of records. Each append is one write of whole lines and a sync, so that a
//! kill or a power cut loses at most the rows being written; a torn last line is cut off on opening.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files;
use crate::record::Record;

/// Most bytes of a file that is read: some ten million rows.
const MOST: u64 = 4 << 30;

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
    #[error("no room for {bytes} bytes in {}: {source}. All earlier rows are kept; free some space and give the same command again (`longhaul run` with --resume)", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What did not fit.
        bytes: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of another kind or version.
    #[error("{} is not a file of this version: column {column} is `{}`, expected `{expected}`. Use another --out folder", path.display(), found.escape_debug())]
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
    /// A file that another program has saved.
    #[error("{} {what}: another program has saved it. Save it as plain CSV in UTF-8 with Unix line ends, or take it from a copy", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// What shows it.
        what: &'static str,
    },
    /// A line before the last that is not a record, or one that no measurement gives.
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

/// An open file of records.
#[derive(Debug)]
pub struct Journal<R> {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
    records: PhantomData<R>,
}

impl<R: Record> Journal<R> {
    /// The file, its records, and the bytes of a torn last line, which is cut off. A file that is not
    /// there, or has no whole header, is begun.
    ///
    /// # Errors
    /// Another header; a line that is no record; a link or a device; the system's refusal.
    pub fn open(path: &Path) -> Result<(Self, Vec<R>, usize), JournalError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = files::open(path, &mut options).map_err(io("open", path))?;
        let mut text = Vec::new();
        let read = (&mut file).take(MOST + 1).read_to_end(&mut text);
        read.map_err(io("read", path))?;
        if text.len() as u64 > MOST {
            let source = std::io::Error::other(format!("it has more than {MOST} bytes"));
            return Err(io("read", path)(source));
        }
        let mut journal = Self {
            path: path.to_owned(),
            file,
            length: 0,
            records: PhantomData,
        };
        let (records, torn) = whole_lines(path, &text)?;
        match records {
            Some(records) if first_line(&text) != header::<R>() => {
                // The table of an earlier version: as rows of this one, from which it goes on.
                write_records(path, &records)?;
                let (journal, records, _) = Self::open(path)?;
                Ok((journal, records, torn))
            }
            Some(records) => {
                journal.cut((text.len() - torn) as u64, torn)?;
                Ok((journal, records, torn))
            }
            None => {
                journal.cut(0, torn)?;
                journal.write(&header::<R>())?;
                Ok((journal, Vec::new(), torn))
            }
        }
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

    /// Cuts the file to its whole lines.
    fn cut(&mut self, whole: u64, rest: usize) -> Result<(), JournalError> {
        self.length = whole;
        if rest == 0 {
            return Ok(());
        }
        self.file
            .set_len(whole)
            .and_then(|()| self.file.sync_data())
            .map_err(io("shorten", &self.path))
    }
}

/// The records of a file, which stays as it is, and the bytes of a torn last line.
///
/// # Errors
/// As of [`Journal::open`]; a file that is not there.
pub fn read_csv<R: Record>(path: &Path) -> Result<(Vec<R>, usize), JournalError> {
    let text = files::read(path, MOST).map_err(io("read", path))?;
    let (records, torn) = whole_lines(path, &text)?;
    Ok((records.unwrap_or_default(), torn))
}

/// The records of a file's whole lines and the bytes after them. What a kill left of the first write is no file
/// yet, and has none.
fn whole_lines<R: Record>(
    path: &Path,
    text: &[u8],
) -> Result<(Option<Vec<R>>, usize), JournalError> {
    let expected = header::<R>();
    if expected.starts_with(text) && text != expected {
        return Ok((None, text.len()));
    }
    let complete = text.iter().rposition(|&byte| byte == b'\n');
    let complete = complete.map_or(text.len(), |end| end + 1);
    let whole = &text[..complete];
    let Some(absent) = absent(first_line(whole), &expected, R::ADDED) else {
        return Err(other_header(path, first_line(whole), &expected));
    };
    Ok((Some(parse(path, whole, &absent)?), text.len() - complete))
}

/// A text's first line with its end.
fn first_line(text: &[u8]) -> &[u8] {
    let mut lines = text.split_inclusive(|&byte| byte == b'\n');
    lines.next().unwrap_or_default()
}

/// The columns of a header line.
fn columns(line: &[u8]) -> Vec<String> {
    let line = String::from_utf8_lossy(line);
    line.trim_end().split(',').map(str::to_owned).collect()
}

/// Places of the columns that a header does not have, if they were `added` later and all others are as expected.
fn absent(found: &[u8], expected: &[u8], added: &[&str]) -> Option<Vec<usize>> {
    let (there, all) = (columns(found), columns(expected));
    let is_absent = |column: &String| added.contains(&column.as_str()) && !there.contains(column);
    let (absent, rest): (Vec<usize>, Vec<usize>) =
        (0..all.len()).partition(|&place| is_absent(&all[place]));
    let rest: Vec<&str> = rest.into_iter().map(|place| all[place].as_str()).collect();
    ((rest.join(",") + "\n").as_bytes() == found).then_some(absent)
}

/// An error of the system on a path.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io {
        action,
        path,
        source,
    }
}

/// The header line of a record's type.
fn header<R: Record>() -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .serialize(R::default())
        .expect("a flat record serialises");
    let text = writer.into_inner().expect("a vector takes all bytes");
    let end = text
        .iter()
        .position(|&byte| byte == b'\n')
        .expect("a header line")
        + 1;
    text[..end].to_vec()
}

/// Why a header is not the one that is expected.
fn other_header(path: &Path, first: &[u8], expected: &[u8]) -> JournalError {
    for (shown, what) in [
        (
            first.starts_with(b"\xef\xbb\xbf"),
            "begins with a byte order mark",
        ),
        (first.ends_with(b"\r\n"), "has Windows line ends"),
    ] {
        if shown {
            let path = path.to_owned();
            return JournalError::Saved { path, what };
        }
    }
    let (found, expected) = (columns(first), columns(expected));
    let count = found.len().max(expected.len());
    let get = |columns: &[String], index: usize| columns.get(index).cloned().unwrap_or_default();
    let index = (0..count)
        .find(|&i| get(&found, i) != get(&expected, i))
        .unwrap_or(0);
    JournalError::Header {
        path: path.to_owned(),
        column: index + 1,
        found: get(&found, index),
        expected: get(&expected, index),
    }
}

/// Records of whole lines, which have no field at the places `absent`.
fn parse<R: Record>(path: &Path, text: &[u8], absent: &[usize]) -> Result<Vec<R>, JournalError> {
    let mut reader = csv::Reader::from_reader(text);
    let mut records = Vec::new();
    let mut row = csv::StringRecord::new();
    // They are as expected, so a field is known by its place.
    let _ = reader.headers();
    loop {
        let line = reader.position().line() as usize;
        let refuse = |reason: String| JournalError::Line {
            path: path.to_owned(),
            line,
            reason: reason.escape_debug().to_string(),
        };
        match reader.read_record(&mut row) {
            Ok(false) => return Ok(records),
            Ok(true) => {}
            Err(error) => return Err(refuse(error.to_string())),
        }
        if !absent.is_empty() {
            row = with_empty(&row, absent);
        }
        let mut record: R = row
            .deserialize(None)
            .map_err(|error| refuse(error.to_string()))?;
        record.complete();
        record.validate().map_err(refuse)?;
        records.push(record);
    }
}

/// A row with empty fields put in at these places, which ascend.
fn with_empty(row: &csv::StringRecord, places: &[usize]) -> csv::StringRecord {
    let mut fields: Vec<&str> = row.iter().collect();
    for &place in places {
        fields.insert(place.min(fields.len()), "");
    }
    fields.into()
}

/// Replaces a file by records with a header, which stands there without any too, at once.
///
/// # Errors
/// The system's refusal.
pub fn write_records<'a, R: Record + 'a>(
    path: &Path,
    records: impl IntoIterator<Item = &'a R>,
) -> Result<(), JournalError> {
    stream(path, &header::<R>(), records)
}

/// Replaces a file by records with a header, at once: a reader sees the old or the new one whole.
///
/// # Errors
/// The system's refusal.
pub fn write_csv<R: Serialize>(path: &Path, records: &[R]) -> Result<(), JournalError> {
    stream(path, &[], records)
}

/// Writes a header and records, or the header that the first record has.
fn stream<'a, R: Serialize + 'a>(
    path: &Path,
    header: &[u8],
    records: impl IntoIterator<Item = &'a R>,
) -> Result<(), JournalError> {
    let lines = |file: &mut File| {
        file.write_all(header)?;
        let mut writer = csv::WriterBuilder::new()
            .has_headers(header.is_empty())
            .from_writer(file);
        for record in records {
            writer.serialize(record)?;
        }
        writer.flush()
    };
    files::stream_whole(path, lines).map_err(io("write", path))
}

/// Records as CSV with a header.
pub fn csv_text<R: Serialize>(records: &[R]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.serialize(record).expect("a flat record serialises");
    }
    let text = writer.into_inner().expect("a vector takes all bytes");
    String::from_utf8(text).expect("text makes text")
}
