//! Which plugins there are. Each library describes itself in a worker process, so that a broken one
//! costs a warning and nothing else.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use longhaul_plugin_api::checkpoint::{model_types, values};
use longhaul_plugin_api::client::LoadedPlugin;
use longhaul_plugin_api::metadata::{LibraryInfo, NAIVE, OptionKind, OptionSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cli::PluginArgs;
use crate::exit::{CommandError, INTERRUPTED};
use crate::launch::{AskError, Limits, ask};
use crate::libraries::{self, Place};
use crate::text;

/// Longest that a library may take to describe itself, in seconds of its worker's own.
const DESCRIBE_S: u64 = 10;
/// Most memory that it may take meanwhile, in bytes.
const DESCRIBE_BYTES: u64 = 2 << 30;
/// Most libraries that describe themselves at the same time: each takes descriptors and memory.
const AT_ONCE: usize = 16;

/// A library's description as it travels between processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plugin {
    /// The file.
    #[serde(with = "crate::path_text")]
    pub path: PathBuf,
    /// Where it was found.
    #[serde(skip)]
    pub place: Place,
    /// Its hash, hexadecimal.
    #[serde(deserialize_with = "text::as_line")]
    pub sha256: String,
    /// The library's own name.
    #[serde(deserialize_with = "text::as_line")]
    pub name: String,
    /// Its version.
    #[serde(deserialize_with = "text::as_line")]
    pub version: String,
    /// SPDX licence expression.
    #[serde(deserialize_with = "text::as_line")]
    pub licence: String,
    /// Authors.
    #[serde(deserialize_with = "text::as_lines")]
    pub authors: Vec<String>,
    /// What it is built on.
    #[serde(deserialize_with = "text::as_line")]
    pub kit: String,
    /// Version of the ABI it was built with.
    #[serde(deserialize_with = "text::as_line")]
    pub api_version: String,
    /// The architectures inside.
    pub architectures: Vec<Architecture>,
    /// The `model_type`s of checkpoints it reads.
    #[serde(deserialize_with = "text::as_lines")]
    pub model_types: Vec<String>,
}

/// An architecture's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Architecture {
    /// The name `--arch` takes.
    #[serde(deserialize_with = "text::as_line")]
    pub name: String,
    /// One line.
    #[serde(deserialize_with = "text::as_line")]
    pub title: String,
    /// Its inductive bias.
    #[serde(deserialize_with = "text::as_line")]
    pub family: String,
    /// BibTeX.
    #[serde(deserialize_with = "text::as_block")]
    pub citation: String,
    /// Its options.
    pub options: Vec<ArchitectureOption>,
    /// State growth at the default options.
    #[serde(deserialize_with = "text::as_line")]
    pub state_growth: String,
    /// Kinds of device.
    #[serde(deserialize_with = "text::as_lines")]
    pub devices: Vec<String>,
    /// Declared capabilities.
    #[serde(deserialize_with = "text::as_lines")]
    pub capabilities: Vec<String>,
    /// Operations that are computed as they are written, slowly.
    #[serde(default, deserialize_with = "text::as_lines")]
    pub naive: Vec<String>,
}

/// An option's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchitectureOption {
    /// The name before the `=`.
    #[serde(deserialize_with = "text::as_line")]
    pub name: String,
    /// One sentence.
    #[serde(deserialize_with = "text::as_line")]
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
        #[serde(deserialize_with = "text::as_line")]
        default: String,
        /// The words.
        #[serde(deserialize_with = "text::as_lines")]
        choices: Vec<String>,
    },
    /// Free text.
    Text {
        /// Value when none is given.
        #[serde(deserialize_with = "text::as_line")]
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
    /// Finds and reads all plugins; one that is broken is a warning, and of several files with the same
    /// bytes the first is read.
    ///
    /// # Errors
    /// A named file or folder that does not exist; a named file that is broken; no plugin at all.
    pub fn scan(args: &PluginArgs) -> Result<Self, CommandError> {
        let files = libraries::find(args)?;
        let described = in_parallel(&files, |(_, file)| describe(file));
        let mut plugins = Vec::<Plugin>::new();
        for ((place, file), described) in files.iter().zip(described) {
            // Where there is room for few processes, one at a time may be possible.
            let described = match described {
                Err(AskError::NotStarted(_)) => describe(file),
                described => described,
            };
            let file = file.display();
            match described {
                Ok(plugin) if plugins.iter().any(|other| other.sha256 == plugin.sha256) => {}
                Ok(plugin) => plugins.push(Plugin {
                    place: *place,
                    ..plugin
                }),
                Err(error @ AskError::Interrupted) => return Err(error.or_code(INTERRUPTED)),
                Err(reason) if *place == Place::Named => {
                    return Err(CommandError::usage(format!("plugin {file}: {reason}")));
                }
                Err(reason) => tracing::warn!("left out {file}: {reason}"),
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

/// Does the same to each item, with several threads where they are to be had; results are in the items' order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let take = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return };
            let result = (index, work(item));
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(AT_ONCE) {
            if std::thread::Builder::new()
                .spawn_scoped(scope, take)
                .is_err()
            {
                break;
            }
        }
        take();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// What a worker is asked that describes a library.
#[derive(Debug, Serialize, Deserialize)]
pub struct Library {
    /// The file.
    #[serde(with = "crate::path_text")]
    pub library: PathBuf,
}

/// Reads a library's description in a worker.
///
/// # Errors
/// The worker's refusal, or how it ended.
pub fn describe(file: &Path) -> Result<Plugin, AskError> {
    describe_within(file, DESCRIBE_S)
}

/// Like [`describe`], with another limit of time, in seconds of the worker's own.
///
/// # Errors
/// The worker's refusal, or how it ended.
pub fn describe_within(file: &Path, seconds: u64) -> Result<Plugin, AskError> {
    let library = Library {
        library: file.to_owned(),
    };
    let limits = Limits::of_time(seconds).with_memory(DESCRIBE_BYTES);
    ask("describe", &library, &limits)
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
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut piece)? {
            0 => break,
            count => hash.update(&piece[..count]),
        }
    }
    Ok(longhaul_text::hex(&hash.finalize()))
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
        naive: values(&architecture.extra, NAIVE)
            .map(str::to_owned)
            .collect(),
    });
    Plugin {
        path: path.to_owned(),
        place: Place::default(),
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
