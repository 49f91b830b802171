//! What a report was made of: `report.toml`, and the end of its page.

use serde::{Deserialize, Serialize};

/// What stands in `report.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the program that made the report.
    pub longhaul: String,
    /// What was noticed on the way.
    pub notes: Vec<String>,
    /// The files that were written, by their paths from the report's folder.
    #[serde(default)]
    pub files: Vec<String>,
    /// The runs.
    #[serde(rename = "run", default)]
    pub runs: Vec<RunRecord>,
}

/// A run that a report is made of. Empty where its `run.toml` cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// Its folder, as it was given.
    pub folder: String,
    /// Hash of its plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Suite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// The command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Processor, memory and system, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Version of the program that ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longhaul: Option<String>,
    /// Version of the plugins' ABI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_api: Option<String>,
    /// The other tool, where `folder` is a file of its results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<String>,
    /// Hash of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}
