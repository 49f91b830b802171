//! Which plugins there are. Each library describes itself in a worker process, so that a broken one
//! costs a warning and nothing else.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longhaul_plugin_api::checkpoint::model_types;
use longhaul_plugin_api::client::LoadedPlugin;
use longhaul_plugin_api::metadata::{LibraryInfo, OptionKind, OptionSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::PluginArgs;
use crate::exit::CommandError;

/// Longest that a library may take to describe itself.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(10);

/// A library's description as it travels between processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plugin {
    /// The file.
    pub path: PathBuf,
    /// Its hash, hexadecimal.
    pub sha256: String,
    /// The library's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SPDX licence expression.
    pub licence: String,
    /// Authors.
    pub authors: Vec<String>,
    /// What it is built on.
    pub kit: String,
    /// Version of the ABI it was built with.
    pub api_version: String,
    /// The architectures inside.
    pub architectures: Vec<Architecture>,
    /// The `model_type`s of checkpoints it reads.
    pub model_types: Vec<String>,
}

/// An architecture's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Architecture {
    /// The name `--arch` takes.
    pub name: String,
    /// One line.
    pub title: String,
    /// Its inductive bias.
    pub family: String,
    /// BibTeX.
    pub citation: String,
    /// Its options.
    pub options: Vec<ArchitectureOption>,
    /// State growth at the default options.
    pub state_growth: String,
    /// Kinds of device.
    pub devices: Vec<String>,
    /// Declared capabilities.
    pub capabilities: Vec<String>,
}

/// An option's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchitectureOption {
    /// The name before the `=`.
    pub name: String,
    /// One sentence.
    pub help: String,
    /// Type, default and limits.
    #[serde(flatten)]
    pub kind: Kind,
}

/// Type, default and limits of an option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Kind {
    /// A whole number.
    Integer {
        /// Value when none is given.
        default: i64,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A real number.
    Float {
        /// Value when none is given.
        default: f64,
        /// Smallest.
        min: f64,
        /// Largest.
        max: f64,
    },
    /// `true` or `false`.
    Boolean {
        /// Value when none is given.
        default: bool,
    },
    /// One of these words.
    Choice {
        /// Value when none is given.
        default: String,
        /// The words.
        choices: Vec<String>,
    },
    /// Free text.
    Text {
        /// Value when none is given.
        default: String,
    },
}

impl ArchitectureOption {
    /// The option as the ABI has it, whose parser is the only one.
    pub fn spec(&self) -> OptionSpec {
        let kind = match self.kind.clone() {
            Kind::Integer { default, min, max } => OptionKind::Integer { default, min, max },
            Kind::Float { default, min, max } => OptionKind::Float { default, min, max },
            Kind::Boolean { default } => OptionKind::Boolean { default },
            Kind::Choice { default, choices } => OptionKind::Choice {
                default: default.into(),
                choices: choices.into_iter().map(Into::into).collect(),
            },
            Kind::Text { default } => OptionKind::Text {
                default: default.into(),
            },
        };
        OptionSpec {
            name: self.name.as_str().into(),
            help: self.help.as_str().into(),
            kind,
        }
    }
}

/// All plugins that could be read.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// In the order they were found.
    pub plugins: Vec<Plugin>,
}

impl Catalogue {
    /// Finds and reads all plugins; a broken one is a warning.
    ///
    /// # Errors
    /// A named file or folder that does not exist; no plugin at all.
    pub fn scan(args: &PluginArgs) -> Result<Self, CommandError> {
        let files = find(args)?;
        let described: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = files
                .iter()
                .map(|file| scope.spawn(|| describe(file)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .collect()
        });
        let mut plugins = Vec::new();
        for (file, described) in files.iter().zip(described) {
            match described {
                Ok(plugin) => plugins.push(plugin),
                Err(reason) => tracing::warn!("left out {}: {reason}", file.display()),
            }
        }
        if plugins.is_empty() {
            return Err(CommandError::usage(
                "no plugin could be read. Build them (cargo build --release), or name one with \
                 --plugin FILE, --plugin-dir DIR or LONGHAUL_PLUGIN_PATH",
            ));
        }
        Ok(Self { plugins })
    }

    /// Every architecture with its library.
    pub fn architectures(&self) -> impl Iterator<Item = (&Plugin, &Architecture)> {
        self.plugins
            .iter()
            .flat_map(|plugin| plugin.architectures.iter().map(move |a| (plugin, a)))
    }
}

/// Library files in order: named ones, named folders, the environment's, the build's own folder.
fn find(args: &PluginArgs) -> Result<Vec<PathBuf>, CommandError> {
    let mut files = Vec::new();
    for file in &args.plugins {
        if !file.is_file() {
            return Err(CommandError::usage(format!(
                "no plugin at {}",
                file.display()
            )));
        }
        files.push(file.clone());
    }
    let environment = std::env::var_os("LONGHAUL_PLUGIN_PATH").unwrap_or_default();
    let folders = args.plugin_dirs.iter().cloned();
    for folder in
        folders.chain(std::env::split_paths(&environment).filter(|p| !p.as_os_str().is_empty()))
    {
        let found = libraries(&folder, "").map_err(|error| {
            CommandError::usage(format!("plugin folder {}: {error}", folder.display()))
        })?;
        files.extend(found);
    }
    for folder in own_folders() {
        files.extend(libraries(&folder, "liblonghaul_").unwrap_or_default());
    }
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    Ok(files)
}

/// The folder of the running program; beside test binaries, the folder above.
fn own_folders() -> Vec<PathBuf> {
    let folder = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let Some(folder) = folder else {
        return Vec::new();
    };
    let above = folder.parent().map(Path::to_owned);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => above.into_iter().collect(),
        _ => vec![folder],
    }
}

fn libraries(folder: &Path, prefix: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "so"))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|n| n.starts_with(prefix))
        })
        .collect();
    files.sort();
    Ok(files)
}

/// Reads a library's description in a worker.
fn describe(file: &Path) -> Result<Plugin, String> {
    let line = run_worker(
        "describe",
        &serde_json::json!({ "library": file }),
        DESCRIBE_LIMIT,
    )?;
    serde_json::from_str(&line).map_err(|error| format!("its description is not readable: {error}"))
}

/// Runs a worker that answers with one line; the error says how it ended.
pub fn run_worker(job: &str, input: &serde_json::Value, limit: Duration) -> Result<String, String> {
    use std::io::Write;
    let exe = std::env::current_exe().map_err(|error| format!("no path to longhaul: {error}"))?;
    let mut child = Command::new(exe)
        .args(["worker", job])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("no worker could be started: {error}"))?;
    let mut stdin = child.stdin.take().expect("piped");
    // A worker that dies before it reads is reported by how it died.
    let _ = writeln!(stdin, "{input}");
    drop(stdin);
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        text
    });
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let start = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if start.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it took longer than {} s", limit.as_secs()));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(format!("its worker was lost: {error}")),
        }
    };
    let text = reader.join().unwrap_or_default();
    let errors = errors.join().unwrap_or_default();
    if status.success() {
        return Ok(text.lines().last().unwrap_or_default().to_owned());
    }
    let last = last_words(&errors);
    let how = crate::signals::describe(status);
    Err(match (status.code(), last) {
        (Some(_), last) if !last.is_empty() => last.to_owned(),
        (_, "") => how,
        (_, last) => format!("{how}: {last}"),
    })
}

/// The worker's side: opens a library and describes it.
///
/// # Errors
/// Whatever opening refuses.
pub fn describe_here(path: &Path) -> Result<Plugin, CommandError> {
    let plugin =
        LoadedPlugin::open(path, crate::logging::plugin_log).map_err(CommandError::usage)?;
    let sha256 = hash(path).map_err(|error| {
        CommandError::environment(format!("cannot read {}: {error}", path.display()))
    })?;
    Ok(mirror(path, sha256, &plugin))
}

fn hash(path: &Path) -> std::io::Result<String> {
    let digest = Sha256::digest(std::fs::read(path)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn mirror(path: &Path, sha256: String, plugin: &LoadedPlugin) -> Plugin {
    let info: &LibraryInfo = plugin.info();
    let architectures = info.architectures.iter().map(|architecture| Architecture {
        name: architecture.name.to_string(),
        title: architecture.title.to_string(),
        family: architecture.family.name().to_owned(),
        citation: architecture.citation.to_string(),
        options: architecture.options.iter().map(mirror_option).collect(),
        state_growth: architecture.state_growth.name().to_owned(),
        devices: architecture
            .devices
            .iter()
            .map(ToString::to_string)
            .collect(),
        capabilities: architecture
            .capabilities
            .iter()
            .map(ToString::to_string)
            .collect(),
    });
    Plugin {
        path: path.to_owned(),
        sha256,
        name: info.name.to_string(),
        version: info.version.to_string(),
        licence: info.licence.to_string(),
        authors: info.authors.iter().map(ToString::to_string).collect(),
        kit: plugin.probe().kit.clone(),
        api_version: plugin.probe().api_version.clone(),
        architectures: architectures.collect(),
        model_types: model_types(info).map(str::to_owned).collect(),
    }
}

fn mirror_option(option: &OptionSpec) -> ArchitectureOption {
    let kind = match &option.kind {
        OptionKind::Integer { default, min, max } => Kind::Integer {
            default: *default,
            min: *min,
            max: *max,
        },
        OptionKind::Float { default, min, max } => Kind::Float {
            default: *default,
            min: *min,
            max: *max,
        },
        OptionKind::Boolean { default } => Kind::Boolean { default: *default },
        OptionKind::Choice { default, choices } => Kind::Choice {
            default: default.to_string(),
            choices: choices.iter().map(ToString::to_string).collect(),
        },
        OptionKind::Text { default } => Kind::Text {
            default: default.to_string(),
        },
    };
    ArchitectureOption {
        name: option.name.to_string(),
        help: option.help.to_string(),
        kind,
    }
}
/// What a worker that failed said last: its own message, of as many lines as it has, or else the last line.
fn last_words(errors: &str) -> &str {
    const OWN: &str = "longhaul: ";
    let own = errors.rfind(&format!("\n{OWN}")).map(|start| start + 1);
    let own = own.or_else(|| errors.starts_with(OWN).then_some(0));
    match own {
        Some(start) => errors[start + OWN.len()..].trim(),
        None => errors
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn a_message_of_several_lines_stays_whole() {
        let said = "ptxas info\nlonghaul: a.cu does not compile:\na.cu(3): error\n";
        assert_eq!(last_words(said), "a.cu does not compile:\na.cu(3): error");
        assert_eq!(last_words("longhaul: no\n"), "no");
        assert_eq!(last_words("one\n two \n\n"), "two");
        assert_eq!(last_words(""), "");
    }
}
