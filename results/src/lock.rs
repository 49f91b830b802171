//! One run a folder: an exclusive lock that the system frees when its holder dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};

use crate::files;

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run has it.
    #[error("another run (process {holder}) is working in {}; wait for it, or use another --out folder", folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The holder's process id, or `?`.
        holder: String,
    },
    /// The system refused.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A held lock; dropping it frees the folder.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
    /// Why nothing is locked, where the file system has no locks.
    pub without: Option<String>,
}

impl RunLock {
    /// Locks `folder/.lock`. On a file system without locks nothing is locked, and `without` says so.
    ///
    /// # Errors
    /// Another holder; the system's refusal.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(".lock");
        let io = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = files::open(&path, &mut options).map_err(io)?;
        let lock = || flock(&file, FlockOperation::NonBlockingLockExclusive);
        let without = match retry_on_intr(lock) {
            Ok(()) => None,
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held {
                    folder: folder.to_owned(),
                    holder: holder(&mut file),
                });
            }
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => Some(format!(
                "the file system of {} has no locks: nothing keeps a second run out of it",
                folder.display()
            )),
            Err(error) => return Err(io(error.into())),
        };
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        write!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self {
            _file: file,
            without,
        })
    }
}

/// Whether a process of this machine holds the lock of a folder, by the system's list of locks: nothing is opened for
/// writing and no lock is tried, so that no run is kept from beginning. `None` where the system has no such list.
pub fn is_held(folder: &Path) -> Option<bool> {
    let Ok(file) = folder.join(".lock").symlink_metadata() else {
        return Some(false);
    };
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let inode = format!(":{}", file.ino());
    // 1: FLOCK  ADVISORY  WRITE 4711 08:01:123456 0 EOF
    let held = |line: &str| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some("FLOCK") && words.nth(3).is_some_and(|place| place.ends_with(&inode))
    };
    Some(locks.lines().any(held))
}

/// The process id that a holder has left, or `?`.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(20).read_to_string(&mut text).is_ok();
    match text.trim() {
        id if read && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) => {
            id.to_owned()
        }
        _ => "?".to_owned(),
    }
}
