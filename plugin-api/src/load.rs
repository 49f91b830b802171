//! The host's side of opening a library: the probe by plain C first, then abi_stable's layout check.
//! Libraries are never unloaded. This runs a library's own start-up code, so it belongs in a worker.

use std::path::{Path, PathBuf};

use abi_stable::StableAbi;
use abi_stable::abi_stability::check_layout_compatibility;
use abi_stable::library::{LibHeader, LibraryError, lib_header_from_path};

use crate::abi::{
    ABI_GENERATION, API_VERSION, PROBE_MAGIC, PROBE_SYMBOL, PluginModuleRef, Probe, TARGET,
};

/// Why a library could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing is there.
    #[error("no plugin at {}: the file does not exist. Check the path, or build the plugin first", path.display())]
    Missing {
        /// The path asked for.
        path: PathBuf,
    },
    /// The system's loader refused the file.
    #[error("{} is not a shared library that this system can load: {reason}", path.display())]
    NotALibrary {
        /// The path asked for.
        path: PathBuf,
        /// The loader's own words.
        reason: String,
    },
    /// A library, but no Longhaul plugin.
    #[error("{} is a shared library but not a Longhaul plugin: it has no `{PROBE_SYMBOL}`. Does its lib.rs call the export macro, and is its crate type cdylib?", path.display())]
    NotAPlugin {
        /// The path asked for.
        path: PathBuf,
    },
    /// Built for another generation of the ABI.
    #[error("{} was built for {} ABI, generation {generation} (longhaul-plugin-api {api_version}, {kit}); this host has generation {ABI_GENERATION} (longhaul-plugin-api {API_VERSION}). {}", path.display(), if *generation < ABI_GENERATION { "an older" } else { "a newer" }, if *generation < ABI_GENERATION { "Rebuild the plugin against this version" } else { "Update the host" })]
    Generation {
        /// The path asked for.
        path: PathBuf,
        /// The plugin's generation.
        generation: u32,
        /// The plugin's API version.
        api_version: String,
        /// What the plugin is built on.
        kit: String,
    },
    /// Built for another machine.
    #[error("{} was built for {target}; this host is {TARGET}", path.display())]
    Target {
        /// The path asked for.
        path: PathBuf,
        /// The plugin's target.
        target: String,
    },
    /// The probe is there, the root module is not.
    #[error("{} has the probe of a Longhaul plugin (longhaul-plugin-api {api_version}) but exports no root module: {reason}. Was it stripped of its dynamic symbols?", path.display())]
    NoRootModule {
        /// The path asked for.
        path: PathBuf,
        /// The plugin's API version.
        api_version: String,
        /// abi_stable's words.
        reason: String,
    },
    /// The same generation, but types that differ in layout.
    #[error("{} has other type layouts than this host although both are ABI generation {ABI_GENERATION}: it was built with longhaul-plugin-api {api_version}, this host with {API_VERSION}. Rebuild the plugin against this version.\n{reason}", path.display())]
    Layout {
        /// The path asked for.
        path: PathBuf,
        /// The plugin's API version.
        api_version: String,
        /// abi_stable's words.
        reason: String,
    },
    /// The library's own start-up failed.
    #[error("{} failed while giving its root module: {reason}", path.display())]
    StartUp {
        /// The path asked for.
        path: PathBuf,
        /// abi_stable's words.
        reason: String,
    },
}

/// What a library's probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// ABI generation.
    pub generation: u32,
    /// Version of `longhaul-plugin-api`.
    pub api_version: String,
    /// What the plugin is built on.
    pub kit: String,
    /// Its target.
    pub target: String,
}

/// Opens a library for good: probe, target and generation, then layouts.
///
/// # Errors
/// One kind for each reason, each with both versions where versions are the reason.
pub fn open(path: &Path) -> Result<(PluginModuleRef, ProbeReport), LoadError> {
    let path = path.canonicalize().map_err(|_| LoadError::Missing {
        path: path.to_owned(),
    })?;
    let report = probe(&path)?;
    if report.generation != ABI_GENERATION {
        let ProbeReport {
            generation,
            api_version,
            kit,
            ..
        } = report;
        return Err(LoadError::Generation {
            path,
            generation,
            api_version,
            kit,
        });
    }
    if report.target != TARGET {
        return Err(LoadError::Target {
            path,
            target: report.target,
        });
    }
    let api_version = report.api_version.clone();
    let header = match lib_header_from_path(&path) {
        Ok(header) => header,
        Err(LibraryError::GetSymbolError { .. }) => {
            let reason = "the symbol of abi_stable's root module is missing".to_owned();
            return Err(LoadError::NoRootModule {
                path,
                api_version,
                reason,
            });
        }
        Err(error) => {
            return Err(LoadError::Layout {
                path,
                api_version,
                reason: first_lines(&error),
            });
        }
    };
    match root_module(header) {
        Ok(module) => Ok((module, report)),
        Err(LibraryError::AbiInstability(error)) => Err(LoadError::Layout {
            path,
            api_version,
            reason: differences(&error.to_string()),
        }),
        Err(error @ LibraryError::IncompatibleVersionNumber { .. }) => Err(LoadError::Layout {
            path,
            api_version,
            reason: first_lines(&error),
        }),
        Err(error) => Err(LoadError::StartUp {
            path,
            reason: first_lines(&error),
        }),
    }
}

/// Takes the root module of a library whose types fit this host's in either direction.
///
/// abi_stable lets the library's prefix types be larger than the host's, never smaller: it takes the side that
/// loads for the older one. A plugin built before something was added is the mirror image, so there the check is
/// made from the plugin's side, with the host's types in the place of the larger ones.
fn root_module(header: &'static LibHeader) -> Result<PluginModuleRef, LibraryError> {
    let refused = match header.init_root_module::<PluginModuleRef>() {
        Err(LibraryError::AbiInstability(refused)) => refused,
        result => return result,
    };
    let fits = header
        .layout()
        .is_some_and(|plugin| check_layout_compatibility(plugin, PluginModuleRef::LAYOUT).is_ok());
    if !fits {
        return Err(LibraryError::AbiInstability(refused));
    }
    // SAFETY: every type that both sides know has just been found to have the same layout, and what the
    // plugin lacks stands at the end of prefix types, whose values carry the fields they have: the accessors look there
    // before they read.
    unsafe { header.init_root_module_with_unchecked_layout::<PluginModuleRef>() }
}

/// Reads the probe of a library that is then kept open.
fn probe(path: &Path) -> Result<ProbeReport, LoadError> {
    // SAFETY: opening runs the library's initialisers; that they are sound is the trust that a user
    // gives to a plugin, and the process is a worker that may die of them.
    let library =
        unsafe { libloading::Library::new(path) }.map_err(|error| LoadError::NotALibrary {
            path: path.to_owned(),
            reason: with_source(&error),
        })?;
    type ProbeFn = unsafe extern "C" fn() -> *const Probe;
    // SAFETY: the symbol's name is ours alone and its type never changes.
    let symbol = unsafe { library.get::<ProbeFn>(PROBE_SYMBOL) };
    let Ok(function) = symbol else {
        return Err(LoadError::NotAPlugin {
            path: path.to_owned(),
        });
    };
    // SAFETY: as above; the function takes nothing and returns a pointer to a static, or null.
    let probe = unsafe { function().as_ref() };
    let report = probe
        .filter(|probe| probe.magic == PROBE_MAGIC)
        .map(|probe| ProbeReport {
            generation: probe.generation,
            api_version: text(&probe.api_version),
            kit: text(&probe.kit),
            target: text(&probe.target),
        });
    // The library stays open: its code and statics are used from here on.
    std::mem::forget(library);
    report.ok_or_else(|| LoadError::NotAPlugin {
        path: path.to_owned(),
    })
}

fn text(field: &[u8]) -> String {
    let end = field
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// The first lines of an error that may be hundreds of lines of layouts.
fn first_lines(error: &LibraryError) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(24)
        .collect();
    lines.join("\n")
}

/// The differences themselves out of abi_stable's description of whole types, a line each with the path of fields:
/// `describe.__returns.version: mismatched type Expected: RString Found: u64`.
fn differences(report: &str) -> String {
    const MOST: usize = 12;
    let mut found: Vec<String> = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    let (mut in_path, mut in_error) = (false, false);
    for line in report
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if line.ends_with("inside:") {
            (in_path, in_error) = (true, false);
            path.clear();
        } else if line.starts_with("Layout of") {
            in_path = false;
        } else if let Some(name) = line.strip_prefix("field_name:").filter(|_| in_path) {
            path.push(name);
        } else if let Some(what) = line.strip_prefix("Error:") {
            in_error = true;
            found.push(format!("{}: {what}", path.join(".")));
        } else if let Some(last) = found.last_mut().filter(|_| in_error) {
            last.push(' ');
            last.push_str(line);
        }
    }
    found.truncate(MOST);
    found.join("\n")
}
