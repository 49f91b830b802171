//! `longhaul checkpoint convert`: a GGUF file becomes a folder in the Hugging Face layout. A worker writes beside
//! the folder's place; this gives it its name when all of it is there, and takes away what is not.

use std::path::{Path, PathBuf};

use crate::checkpoint::files::FileError;
use crate::cli::ConvertArgs;
use crate::commands::print;
use crate::exit::{CommandError, OK, USAGE};
use crate::gguf::convert::{ConvertJob, Converted, convert};
use crate::launch::{self, Limits};
use crate::table::columns;

/// Longest that a worker may take, in seconds of its own.
const LIMIT: u64 = 3600;

/// Carries out the command.
///
/// # Errors
/// A folder that is there; a file that is not what it should be; the system's refusal.
pub fn run(args: &ConvertArgs) -> Result<u8, CommandError> {
    let folder = &args.folder;
    if folder.symlink_metadata().is_ok() {
        return Err(CommandError::usage(format!(
            "{} is already there; name another folder, or remove it",
            folder.display()
        )));
    }
    let partial = partial(folder)?;
    let refuse = |what: &str, error: std::io::Error| {
        CommandError::environment(format!("cannot {what} {}: {error}", folder.display()))
    };
    // Those that are made here are taken away again where the file cannot be converted.
    let above: Vec<&Path> = folder
        .ancestors()
        .skip(1)
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    std::fs::create_dir_all(&partial).map_err(|error| refuse("make", error))?;
    let job = ConvertJob {
        file: args.file.clone(),
        folder: partial.clone(),
        dtype: args.dtype,
    };
    let converted = launch::ask("convert", &job, &Limits::of_time(LIMIT))
        .map_err(|error| error.or_code(USAGE))
        .and_then(|converted: Converted| {
            std::fs::rename(&partial, folder).map_err(|error| refuse("write", error))?;
            Ok(converted)
        })
        .inspect_err(|_| {
            // Nothing is left of what is not whole.
            let _ = std::fs::remove_dir_all(&partial);
            above.iter().for_each(|above| {
                let _ = std::fs::remove_dir(above);
            });
        })?;
    print(&described(args, &converted))?;
    Ok(OK)
}

/// A name beside the folder that nothing has.
fn partial(folder: &Path) -> Result<PathBuf, CommandError> {
    let Some(name) = folder.file_name() else {
        return Err(CommandError::usage(format!(
            "{} is no name of a new folder",
            folder.display()
        )));
    };
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".partial-{}", std::process::id()));
    Ok(folder.with_file_name(partial))
}

fn described(args: &ConvertArgs, converted: &Converted) -> String {
    let named = |text: &str, otherwise: &str| match text.is_empty() {
        true => otherwise.to_owned(),
        false => text.to_owned(),
    };
    let rows = [
        ("model", named(&converted.name, "without a name")),
        (
            "size",
            format!(
                "{} parameters in {} tensors",
                converted.parameters, converted.tensors
            ),
        ),
        ("stored as", converted.formats.join(", ")),
        (
            "tokenizer",
            named(
                &converted.tokenizer,
                "none in the file, so none was written",
            ),
        ),
        ("written to", args.folder.display().to_string()),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    format!("{}\n", columns(&rows))
}

/// The worker's side.
///
/// # Errors
/// Whatever of the file cannot be converted.
pub fn work(job: &ConvertJob) -> Result<Converted, CommandError> {
    convert(job).map_err(|error| match error {
        FileError::Write { .. } => CommandError::environment(error),
        error => CommandError::usage(error),
    })
}
