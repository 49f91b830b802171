//! Files of a run's folder, which somebody else may have made or a kill may have left behind: opened
//! without following links, plain files only, read up to a bound, written whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// What the names of unfinished files begin with.
pub const UNFINISHED: &str = ".unfinished-";

/// Opens a plain file as `options` say, never through a link at its end and never waiting for a pipe.
///
/// # Errors
/// A link, a pipe, a device or a folder in its place; the system's refusal.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = options.custom_flags(flags.bits() as i32).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => io::Error::new(
            ErrorKind::InvalidInput,
            "it is a link; a run's files are not",
        ),
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => not_plain(),
        _ => error,
    })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(not_plain())
    }
}

fn not_plain() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "it is not a plain file")
}

/// The whole of a plain file of at most `most` bytes.
///
/// # Errors
/// A file that is larger; what [`open`] refuses.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path, OpenOptions::new().read(true))?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    if size <= most {
        bytes.reserve_exact(usize::try_from(size).unwrap_or(0));
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if size > most || bytes.len() as u64 > most {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("it has {size} bytes, and such a file has at most {most}"),
        ));
    }
    Ok(bytes)
}

/// Puts bytes in the place of a file: a reader sees the old file or the new one whole, also after a
/// power cut, and a link in its place is replaced, not followed.
///
/// # Errors
/// The system's refusal; the old file is then as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    stream_whole(path, |file| file.write_all(bytes))
}

/// As [`write_whole`], with what `write` writes.
///
/// # Errors
/// Those of `write`; the system's refusal. The old file is then as it was.
pub fn stream_whole(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let file = stream_aside(folder, write)?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Puts bytes where no file is: whole, or `false` where there is one already.
///
/// # Errors
/// The system's refusal.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match write_aside(folder, bytes)?.persist_noclobber(path) {
        Ok(_) => File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}

/// Has a plain file stand in another place too, where none is: as a link that shares its bytes, or, where the disk
/// does not, as a copy. Files of a run are replaced, never written over, so neither place changes the other.
///
/// # Errors
/// A link or a device; the system's refusal.
pub fn share(from: &Path, to: &Path) -> io::Result<()> {
    let file = open(from, OpenOptions::new().read(true))?;
    if to.symlink_metadata().is_ok() || std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes)?;
    write_whole(to, &bytes)
}

/// Writes an unfinished file into a folder, on disk when it returns. It is gone when it is dropped.
///
/// # Errors
/// The system's refusal.
pub fn write_aside(folder: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    stream_aside(folder, |file| file.write_all(bytes))
}

fn stream_aside(
    folder: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        // The system takes the user's umask from these.
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(folder)?;
    // By the file itself: the crate's own error would not have the system's number.
    write(file.as_file_mut())?;
    file.as_file().sync_data()?;
    Ok(file)
}

/// Makes a folder inside a run's, or checks that it is one and not a link.
///
/// # Errors
/// A link or a file in its place; the system's refusal.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => return other,
    }
    if std::fs::symlink_metadata(path)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::new(
            ErrorKind::InvalidInput,
            "it is a link or a file; a run's folders are not",
        ))
    }
}

/// Whether a name is of a file that [`write_whole`] was writing when it was killed.
pub fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with(UNFINISHED)
}

/// Removes what killed writers left in a folder.
///
/// # Errors
/// The system's refusal.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if is_unfinished(&entry.file_name()) && !entry.file_type()?.is_dir() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_pipes_and_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("plain"), "abc").unwrap();
        std::os::unix::fs::symlink(path("plain"), path("link")).unwrap();
        std::os::unix::fs::symlink(folder.path(), path("folder-link")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        assert_eq!(read(&path("plain"), 3).unwrap(), b"abc");
        for (name, words) in [
            ("plain", "at most 2"),
            ("link", "it is a link"),
            ("pipe", "not a plain file"),
            ("folder", "not a plain file"),
            ("none", "No such file"),
        ] {
            let refused = read(&path(name), 2).unwrap_err().to_string();
            assert!(refused.contains(words), "{name}: {refused}");
        }
        let mut writing = OpenOptions::new();
        writing.write(true);
        for name in ["link", "pipe", "folder"] {
            open(&path(name), &mut writing).unwrap_err();
        }
        make_folder(&path("folder")).unwrap();
        make_folder(&path("new")).unwrap();
        make_folder(&path("folder-link")).unwrap_err();
        make_folder(&path("plain")).unwrap_err();
    }

    #[test]
    fn a_new_file_is_written_once_and_shared() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(write_new(&path("a"), b"first").unwrap());
        assert!(!write_new(&path("a"), b"second").unwrap());
        share(&path("a"), &path("b")).unwrap();
        write_whole(&path("a"), b"third").unwrap();
        share(&path("a"), &path("b")).unwrap();
        assert_eq!(std::fs::read(path("b")).unwrap(), b"first");
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        share(&path("link"), &path("c")).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_link_is_replaced_by_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
        assert_eq!(read(&link, 3).unwrap(), b"new");
        std::fs::write(folder.path().join(".unfinished-x"), "half").unwrap();
        remove_unfinished(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
