//! `longhaul check`: the conformance suite on a library, each check in a worker of its own, so that a
//! crash is a failed check and the others still run.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use longhaul_conformance::{CHECKS, Check, FIRST, Outcome, Subject};
use longhaul_plugin_api::client::LoadedPlugin;
use longhaul_plugin_api::metadata::OptionValue;
use serde::{Deserialize, Serialize};

use crate::architecture::{ArchSpec, Value};
use crate::catalogue::{Catalogue, describe_within};
use crate::cli::CheckArgs;
use crate::commands::{devices, print};
use crate::device::{self, Devices};
use crate::exit::{CommandError, FAILED, OK};
use crate::launch::{AskError, Limits, ask};
use crate::run::command::quote;
use crate::table::{columns, counted, width, wrap};
use crate::text;

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

impl CheckResult {
    fn new(architecture: &str, check: &str, outcome: Outcome) -> Self {
        Self {
            architecture: architecture.to_owned(),
            check: check.to_owned(),
            passed: outcome.passed,
            skipped: outcome.skipped,
            worst: outcome.worst.filter(|worst| worst.is_finite()),
            detail: outcome.detail,
        }
    }
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
    require_known(args, &specs)?;
    let mut all = Verdict::default();
    for spec in &specs {
        spec.runs_on(device::kind(&device))
            .map_err(CommandError::usage)?;
        all.add(check_one(spec, &wanted, args, &device)?);
    }
    if !args.json {
        print(&all.text(args, &specs))?;
    }
    if !all.failed.is_empty() {
        tracing::error!("{} failed", counted(all.failed.len(), "check"));
        return Ok(FAILED);
    }
    Ok(OK)
}

/// How the checks of some architectures ended.
#[derive(Default)]
struct Verdict {
    passed: usize,
    skipped: usize,
    /// `ARCH/CHECK`.
    failed: Vec<String>,
}

impl Verdict {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.skipped += other.skipped;
        self.failed.extend(other.failed);
    }

    /// The verdict, and what to do next.
    fn text(&self, args: &CheckArgs, specs: &[ArchSpec]) -> String {
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        let all = counted(self.passed + self.failed.len(), "check");
        let words = match (self.failed.first(), specs) {
            (Some(first), _) => {
                let check = first
                    .split_once('/')
                    .map_or(first.as_str(), |(_, check)| check);
                format!(
                    "FAILED: {} of {all}{skipped}. Mend the first, {first}, and check it alone with --only {check}.",
                    self.failed.len()
                )
            }
            (None, [spec, ..]) => {
                let library = Path::new(&args.subject);
                let plugin = match library.is_file() {
                    true => format!(" --plugin {}", quote(library.as_os_str())),
                    false => String::new(),
                };
                format!(
                    "PASSED: {all}{skipped}. Next, whether it trains and is measured:\nlonghaul run smoke{plugin} --arch {}",
                    quote(OsStr::new(&spec.architecture))
                )
            }
            (None, []) => "Nothing was checked.".to_owned(),
        };
        let lines = words
            .lines()
            .flat_map(|line| match line.starts_with("longhaul ") {
                true => vec![format!("  {line}")],
                false => wrap(line, width()),
            });
        lines.map(|line| line + "\n").collect()
    }
}

/// Refuses to leave out what there is not.
fn require_known(args: &CheckArgs, specs: &[ArchSpec]) -> Result<(), CommandError> {
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
    Ok(())
}

/// Runs the checks on an architecture, and prints each when it has ended; returns how they did.
fn check_one(
    spec: &ArchSpec,
    wanted: &[&Check],
    args: &CheckArgs,
    device: &str,
) -> Result<Verdict, CommandError> {
    let mut report = Report::new(spec, args.json)?;
    for check in wanted {
        let whole = format!("{}/{}", spec.architecture, check.name);
        if args.skip.contains(&whole) {
            continue;
        }
        let result = if report.failed.iter().any(|(name, _)| *name == FIRST) {
            CheckResult::new(
                &spec.architecture,
                check.name,
                longhaul_conformance::not_run(),
            )
        } else {
            report.begin(check.name);
            run_one(spec, check.name, device, args.time_limit)?
        };
        report.end(check, &result)?;
    }
    report.finish(spec)
}

/// What is printed of an architecture's checks, as they end.
struct Report {
    json: bool,
    /// Whether the check that runs is named on the terminal.
    is_terminal: bool,
    /// Checks that failed, with what was wrong.
    failed: Vec<(&'static str, String)>,
    passed: usize,
    skipped: usize,
    not_run: usize,
}

impl Report {
    fn new(spec: &ArchSpec, json: bool) -> Result<Self, CommandError> {
        if !json {
            let only = match spec.devices.as_slice() {
                [cpu] if cpu == "cpu" => ", runs on the CPU only",
                _ => "",
            };
            print(&format!(
                "{} ({} {}, {}){only}\n{}",
                spec.text(),
                spec.plugin,
                spec.plugin_version,
                spec.library.display(),
                row("check", "result", "worst", "what or where")
            ))?;
        }
        Ok(Self {
            json,
            is_terminal: !json && std::io::stderr().is_terminal(),
            failed: Vec::new(),
            passed: 0,
            skipped: 0,
            not_run: 0,
        })
    }

    fn begin(&self, name: &str) {
        if self.is_terminal {
            eprint!("  {name} ...");
        }
    }

    fn end(&mut self, check: &Check, result: &CheckResult) -> Result<(), CommandError> {
        if self.is_terminal {
            eprint!("\r\x1b[2K");
        }
        let as_before = self
            .failed
            .iter()
            .find(|(_, detail)| !result.passed && *detail == result.detail)
            .map(|(name, _)| format!("as {name}"));
        match (result.passed, result.skipped) {
            (false, _) => self.failed.push((check.name, result.detail.clone())),
            (true, true) => self.skipped += 1,
            (true, false) => self.passed += 1,
        }
        if self.json {
            let line = serde_json::to_string(result).expect("plain data");
            return print(&format!("{line}\n"));
        }
        if result.skipped && result.detail == longhaul_conformance::not_run().detail {
            self.not_run += 1;
            return Ok(());
        }
        let word = match (result.passed, result.skipped) {
            (true, false) => "ok",
            (true, true) => "skipped",
            (false, _) => "FAILED",
        };
        let worst = result.worst.map(|worst| format!("{worst:.1e}"));
        let what = match (result.passed && !result.skipped, result.detail.as_str()) {
            (true, "") => check.what.to_owned(),
            (true, detail) => format!("{} ({detail})", check.what),
            (false, detail) => as_before.unwrap_or_else(|| detail.to_owned()),
        };
        let worst = worst.unwrap_or_default();
        print(&row(check.name, word, &worst, &what))
    }

    /// Says how many were not run.
    fn finish(self, spec: &ArchSpec) -> Result<Verdict, CommandError> {
        if self.not_run > 0 {
            let others = format!("{} others", self.not_run);
            let why = longhaul_conformance::not_run().detail;
            print(&row(&others, "skipped", "", &why))?;
        }
        if !self.json {
            print("\n")?;
        }
        let name = |(check, _): &(&str, String)| format!("{}/{check}", spec.architecture);
        Ok(Verdict {
            passed: self.passed,
            skipped: self.skipped,
            failed: self.failed.iter().map(name).collect(),
        })
    }
}

/// A row of the table; its columns are as wide as they can be, because later rows are not known yet.
fn row(check: &str, result: &str, worst: &str, what: &str) -> String {
    let widest = CHECKS.iter().map(|check| check.name.len()).max();
    let cells = vec![
        format!("  {check:width$}", width = widest.unwrap_or(0)),
        format!("{result:7}"),
        format!("{worst:7}"),
        what.to_owned(),
    ];
    columns(&[cells])
}

fn is_wanted(check: &Check, args: &CheckArgs) -> bool {
    args.only.is_empty() || args.only.iter().any(|word| check.name.contains(word))
}

fn subjects(args: &CheckArgs) -> Result<Vec<ArchSpec>, CommandError> {
    let path = Path::new(&args.subject);
    let is_file = path.extension().is_some_and(|extension| extension == "so") || path.is_file();
    if is_file && !path.exists() {
        return Err(CommandError::usage(format!(
            "no plugin at {}: check the path, or build the plugin first",
            path.display()
        )));
    }
    if !is_file {
        let catalogue = Catalogue::scan(&args.plugins)?;
        return Ok(vec![
            ArchSpec::parse(&args.subject, &catalogue)?.of_one_model()?,
        ]);
    }
    let plugin = describe_within(path, args.time_limit).map_err(|error| match error {
        AskError::TimedOut(seconds) => CommandError {
            code: FAILED,
            message: format!(
                "{} had not described itself after {seconds} s: for that a model of each architecture is recorded, \
                 so look for an endless loop in `forward`",
                path.display(),
            ),
        },
        error => error.or_code(FAILED),
    })?;
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

/// Runs one check in a worker; one that does not end is a failed check.
///
/// # Errors
/// Ctrl-C.
fn run_one(
    spec: &ArchSpec,
    check: &str,
    device: &str,
    seconds: u64,
) -> Result<CheckResult, CommandError> {
    let job = CheckJob {
        library: spec.library.clone(),
        architecture: spec.architecture.clone(),
        values: spec.values.clone(),
        check: check.to_owned(),
        device: device.to_owned(),
    };
    let reason = match ask("check", &job, &Limits::of_time(seconds)) {
        Ok(result) => return Ok(result),
        Err(error @ AskError::Interrupted) => return Err(error.or_code(FAILED)),
        Err(AskError::TimedOut(seconds)) => format!(
            "`{check}` had not ended after {seconds} s, and was stopped: an endless loop, or more work than fits \
             into --time-limit"
        ),
        Err(lost) => lost.to_string(),
    };
    let outcome = Outcome::fail(None, reason);
    Ok(CheckResult::new(&spec.architecture, check, outcome))
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
    // A card stays open while a model is on it, and a check builds several, one after the other.
    let _open = (job.device != "cpu").then(|| subject.model(0));
    let outcome = (check.run)(&subject);
    Ok(CheckResult::new(&job.architecture, check.name, outcome))
}
