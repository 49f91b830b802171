//! `longhaul check`: the conformance suite on a library, each check in a worker of its own, so that a
//! crash is a failed check and the others still run.

use std::path::{Path, PathBuf};

use longhaul_conformance::{CHECKS, Check, Outcome, Subject};
use longhaul_plugin_api::client::LoadedPlugin;
use longhaul_plugin_api::metadata::OptionValue;
use serde::{Deserialize, Serialize};

use crate::architecture::{ArchSpec, Value};
use crate::catalogue::{Catalogue, describe};
use crate::cli::CheckArgs;
use crate::commands::{devices, print};
use crate::device::{self, Devices};
use crate::exit::{CommandError, FAILED, OK};
use crate::launch::{AskError, Limits, ask};
use crate::table::columns;
use crate::text;

/// Longest that one check may take, in seconds of its own.
const LIMIT: u64 = 300;

/// What a worker is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckJob {
    #[serde(with = "crate::path_text")]
    library: PathBuf,
    architecture: String,
    values: Vec<(String, Value)>,
    check: String,
    device: String,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckResult {
    architecture: String,
    check: String,
    passed: bool,
    /// Whether there was nothing to hold.
    #[serde(default)]
    skipped: bool,
    worst: Option<f64>,
    #[serde(deserialize_with = "text::as_block")]
    detail: String,
}

/// Checks a library's architectures, or one with options.
///
/// # Errors
/// A library or architecture that cannot be found or opened.
pub fn run(args: &CheckArgs) -> Result<u8, CommandError> {
    let device = Devices::parse_one(&args.device).map_err(CommandError::usage)?;
    devices::require_one(&device).map_err(CommandError::usage)?;
    let wanted: Vec<&Check> = CHECKS
        .iter()
        .filter(|check| is_wanted(check, args))
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        return Err(CommandError::usage(format!(
            "no check's name contains `{}`; there are {}",
            args.only.join("` or `"),
            names.join(", ")
        )));
    }
    let specs = subjects(args)?;
    for word in &args.skip {
        let known = word.split_once('/').is_some_and(|(architecture, check)| {
            specs.iter().any(|spec| spec.architecture == architecture)
                && CHECKS.iter().any(|known| known.name == check)
        });
        if !known {
            return Err(CommandError::usage(format!(
                "--skip {word} names no check of {}; write ARCH/CHECK, such as lstm/gradients",
                args.subject
            )));
        }
    }
    let mut failed = 0;
    for spec in &specs {
        let kind = device::kind(&device);
        spec.runs_on(kind).map_err(CommandError::usage)?;
        if !args.json {
            print(&format!(
                "{} ({} {}, {})\n",
                spec.text(),
                spec.plugin,
                spec.plugin_version,
                spec.library.display()
            ))?;
        }
        let mut rows = vec![
            ["  check", "result", "worst", "what or where"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let is_skipped = |check: &&&Check| {
            let whole = format!("{}/{}", spec.architecture, check.name);
            args.skip.contains(&whole)
        };
        for check in wanted.iter().filter(|check| !is_skipped(check)) {
            let result = run_one(spec, check.name, &device)?;
            failed += usize::from(!result.passed);
            if args.json {
                print(&format!(
                    "{}\n",
                    serde_json::to_string(&result).expect("plain data")
                ))?;
                continue;
            }
            let what = if result.passed {
                check.what.to_owned()
            } else {
                result.detail.clone()
            };
            let what = if result.passed && !result.detail.is_empty() {
                format!("{what} ({})", result.detail)
            } else {
                what
            };
            rows.push(vec![
                format!("  {}", check.name),
                match (result.passed, result.skipped) {
                    (true, false) => "ok",
                    (true, true) => "skipped",
                    (false, _) => "FAILED",
                }
                .to_owned(),
                result
                    .worst
                    .map_or_else(String::new, |worst| format!("{worst:.1e}")),
                what,
            ]);
        }
        if !args.json {
            print(&format!("{}\n", columns(&rows)))?;
        }
    }
    if failed > 0 {
        let checks = if failed == 1 { "check" } else { "checks" };
        tracing::error!("{failed} {checks} failed");
        return Ok(FAILED);
    }
    Ok(OK)
}

fn is_wanted(check: &Check, args: &CheckArgs) -> bool {
    args.only.is_empty() || args.only.iter().any(|word| check.name.contains(word))
}

fn subjects(args: &CheckArgs) -> Result<Vec<ArchSpec>, CommandError> {
    let path = Path::new(&args.subject);
    let is_file = path.extension().is_some_and(|extension| extension == "so") || path.is_file();
    if !is_file {
        let catalogue = Catalogue::scan(&args.plugins)?;
        return Ok(vec![ArchSpec::parse(&args.subject, &catalogue)?]);
    }
    let plugin = describe(path).map_err(|error| error.or_code(FAILED))?;
    let names: Vec<String> = plugin
        .architectures
        .iter()
        .map(|a| a.name.clone())
        .collect();
    let catalogue = Catalogue {
        plugins: vec![plugin],
    };
    names
        .iter()
        .map(|name| ArchSpec::parse(name, &catalogue))
        .collect()
}

fn run_one(spec: &ArchSpec, check: &str, device: &str) -> Result<CheckResult, CommandError> {
    let job = CheckJob {
        library: spec.library.clone(),
        architecture: spec.architecture.clone(),
        values: spec.values.clone(),
        check: check.to_owned(),
        device: device.to_owned(),
    };
    match ask("check", &job, &Limits::of_time(LIMIT)) {
        Err(error @ AskError::Interrupted) => Err(error.or_code(FAILED)),
        Err(lost) => Ok(CheckResult {
            architecture: spec.architecture.clone(),
            check: check.to_owned(),
            passed: false,
            skipped: false,
            worst: None,
            detail: lost.to_string(),
        }),
        Ok(result) => Ok(result),
    }
}

/// The worker's side: one check.
///
/// # Errors
/// A library that cannot be opened.
pub fn work(job: CheckJob) -> Result<CheckResult, CommandError> {
    let plugin = LoadedPlugin::open(&job.library, crate::logging::plugin_log)
        .map_err(CommandError::usage)?;
    let info = plugin.info().clone();
    let unknown = |what: &str| CommandError::usage(format!("no {what}"));
    let architecture = info
        .architectures
        .iter()
        .find(|a| a.name == job.architecture.as_str());
    let architecture = architecture.ok_or_else(|| unknown("such architecture"))?;
    let options: Vec<(String, OptionValue)> = job
        .values
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Value::Integer(value) => OptionValue::Integer(*value),
                Value::Float(value) => OptionValue::Float(*value),
                Value::Boolean(value) => OptionValue::Boolean(*value),
                Value::Text(value) => OptionValue::Text(value.as_str().into()),
            };
            (name.clone(), value)
        })
        .collect();
    let check = CHECKS
        .iter()
        .find(|check| check.name == job.check)
        .ok_or_else(|| unknown("such check"))?;
    let subject = Subject::new(
        &info,
        architecture,
        &options,
        Box::new(move |config| plugin.build(config)),
    )
    .on(device::named(&job.device, 1));
    let Outcome {
        passed,
        skipped,
        worst,
        detail,
    } = (check.run)(&subject);
    let worst = worst.filter(|worst| worst.is_finite());
    Ok(CheckResult {
        architecture: job.architecture,
        check: job.check,
        passed,
        skipped,
        worst,
        detail,
    })
}
