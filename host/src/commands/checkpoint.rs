//! `longhaul checkpoint`: checkpoints in the Hugging Face layout. What touches a plugin or a checkpoint's
//! values runs in a worker.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, Plugin};
use crate::checkpoint::config::Config;
use crate::checkpoint::files::Folder;
use crate::checkpoint::load::{Library, LoadError, Understood};
use crate::checkpoint::tensors::Tensors;
use crate::checkpoint::verify::{GRADIENT_OF, Row, Verified, verify};
use crate::cli::{CheckpointArgs, CheckpointCommand, FolderArgs, VerifyArgs};
use crate::commands::{devices, print};
use crate::device::{self, Devices};
use crate::exit::{CommandError, FAILED, OK, USAGE};
use crate::find::did_you_mean;
use crate::launch::{self, Limits};
use crate::table::columns;
use crate::text::{as_block, as_line, as_lines};

/// Longest that a worker may take, in seconds of its own.
const LIMIT: u64 = 3600;

/// What a worker is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckpointJob {
    #[serde(with = "crate::path_text")]
    folder: PathBuf,
    #[serde(with = "crate::path_text")]
    library: PathBuf,
    asked: Asked,
    /// Options instead of the config's, as text.
    options: String,
    threads: u32,
}

/// What of a checkpoint is wanted beside its description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Asked {
    /// Nothing.
    Description,
    /// The hash of its config and weights.
    Hash,
    /// That it is verified on this device.
    Verify(String),
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    #[serde(deserialize_with = "as_line")]
    model_type: String,
    /// The architecture as `--arch` takes it.
    #[serde(deserialize_with = "as_block")]
    pub architecture: String,
    /// V.
    pub vocab: u32,
    /// D.
    pub d_model: u32,
    /// Number of layers.
    pub layers: u32,
    /// Longest sequence it was made for, in tokens; 0 where the config does not say.
    pub max_length: u64,
    files: usize,
    tensors: usize,
    parameters: u64,
    #[serde(deserialize_with = "as_line")]
    state_growth: String,
    /// Bytes of state a row after 1024 tokens.
    state_bytes: u64,
    /// Hash of config and weights, where it was asked for.
    pub sha256: Option<String>,
    verified: Option<Verified>,
    #[serde(deserialize_with = "as_lines")]
    warnings: Vec<String>,
}

/// Carries out the command.
///
/// # Errors
/// A folder, plugin or file that is not what it should be.
pub fn run(args: &CheckpointArgs) -> Result<u8, CommandError> {
    match &args.command {
        CheckpointCommand::Inspect(args) => inspect(args),
        CheckpointCommand::Verify(args) => verify_folder(args),
        CheckpointCommand::Eval(args) => crate::commands::checkpoint_eval::run(args),
        CheckpointCommand::Convert(args) => crate::commands::checkpoint_convert::run(args),
    }
}

fn inspect(args: &FolderArgs) -> Result<u8, CommandError> {
    let answer = ask(args, Asked::Description)?;
    print(&described(args, &answer))?;
    Ok(OK)
}

fn verify_folder(args: &VerifyArgs) -> Result<u8, CommandError> {
    let device = Devices::parse_one(&args.device).map_err(CommandError::usage)?;
    devices::require_one(&device).map_err(CommandError::usage)?;
    let answer = ask(&args.folder, Asked::Verify(device))?;
    print(&described(&args.folder, &answer))?;
    let verified = answer.verified.unwrap_or_default();
    print(&compared(&verified))?;
    Ok(match verified.rows.iter().all(Row::passed) {
        true => OK,
        false => FAILED,
    })
}

/// The table of comparisons, and below it what was compared and how that went.
fn compared(verified: &Verified) -> String {
    let (gradients, others): (Vec<&Row>, Vec<&Row>) = verified
        .rows
        .iter()
        .partition(|row| row.what == GRADIENT_OF);
    let mut table = vec![row_of("compared", "result", "error", "limit", "where")];
    table.extend(others.iter().map(|row| verdict(row)));
    // The worst gradients, and every one that failed.
    let shown = |index: &usize| *index < 3 || !gradients[*index].passed();
    table.extend(
        (0..gradients.len())
            .filter(shown)
            .map(|index| verdict(gradients[index])),
    );
    let failed = verified.rows.iter().filter(|row| !row.passed()).count();
    let result = match failed {
        0 => "All within their limits.".to_owned(),
        1 => "1 comparison FAILED.".to_owned(),
        failed => format!("{failed} comparisons FAILED."),
    };
    let without = &verified.without_gradient;
    let tensors = gradients.len() + without.len();
    let what = match (gradients.first(), without.as_slice()) {
        (None, _) => format!(
            "Logits and loss were compared. No gradient was: expected.safetensors has none of {tensors}."
        ),
        (Some(worst), missing) => {
            let worst = worst
                .error
                .map_or_else(|| "not finite".to_owned(), |worst| format!("{worst:.1e}"));
            let missing = match missing {
                [] => String::new(),
                [one] => format!(" expected.safetensors has none for {one}."),
                [first, ..] => format!(
                    " expected.safetensors has none for {} tensors: {first}, ..",
                    missing.len()
                ),
            };
            format!(
                "Logits, loss and {} of {tensors} gradients were compared, the worst gradient {worst}.{missing}",
                gradients.len()
            )
        }
    };
    format!("{}\n{what} {result}\n", columns(&table))
}

fn row_of(what: &str, result: &str, error: &str, limit: &str, place: &str) -> Vec<String> {
    [what, result, error, limit, place]
        .map(str::to_owned)
        .to_vec()
}

fn verdict(row: &Row) -> Vec<String> {
    row_of(
        &row.what,
        if row.passed() { "ok" } else { "FAILED" },
        &row.error
            .map_or_else(|| "-".to_owned(), |error| format!("{error:.1e}")),
        &format!("{:.0e}", row.limit),
        &row.place,
    )
}

fn described(args: &FolderArgs, answer: &Answer) -> String {
    let length = match answer.max_length {
        0 => "not stated".to_owned(),
        length => format!("{length} tokens"),
    };
    let rows = [
        ("checkpoint", args.folder.display().to_string()),
        ("model_type", answer.model_type.clone()),
        ("architecture", answer.architecture.clone()),
        (
            "size",
            format!(
                "{} parameters: vocabulary {}, width {}, {} layers",
                answer.parameters, answer.vocab, answer.d_model, answer.layers
            ),
        ),
        (
            "tensors",
            format!("{} in {} file(s)", answer.tensors, answer.files),
        ),
        ("made for", length),
        (
            "state",
            format!(
                "{}, {} bytes after 1024 tokens",
                answer.state_growth, answer.state_bytes
            ),
        ),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    format!("{}\n", columns(&rows))
}

/// Has a worker look at a checkpoint.
fn ask(args: &FolderArgs, asked: Asked) -> Result<Answer, CommandError> {
    let config = Config::read(&args.folder).map_err(CommandError::usage)?;
    let catalogue = Catalogue::scan(&args.plugins)?;
    let library = library_for(&config, &catalogue)?;
    ask_library(args, library, asked)
}

/// Has a worker look at a checkpoint with this library, and says what the user should know.
///
/// # Errors
/// Whatever does not fit.
pub fn ask_library(
    args: &FolderArgs,
    library: PathBuf,
    asked: Asked,
) -> Result<Answer, CommandError> {
    let job = CheckpointJob {
        folder: args.folder.clone(),
        library,
        asked,
        options: args.options.clone(),
        threads: args.threads.max(1),
    };
    let answer: Answer = launch::ask("checkpoint", &job, &Limits::of_time(LIMIT))
        .map_err(|error| error.or_code(USAGE))?;
    for warning in &answer.warnings {
        tracing::warn!("{}: {warning}", args.folder.display());
    }
    Ok(answer)
}

/// The plugin that reads a checkpoint of this `model_type`.
///
/// # Errors
/// None, with those that can be read; two.
pub fn library_for(config: &Config, catalogue: &Catalogue) -> Result<PathBuf, CommandError> {
    let reads = |plugin: &&Plugin| plugin.model_types.contains(&config.model_type);
    let readers = || catalogue.plugins.iter().filter(reads);
    // As for architectures, a file that the user names comes before what lies beside the program.
    let first = readers().map(|plugin| plugin.place).min();
    let mut readers = readers().filter(|plugin| Some(plugin.place) == first);
    match (readers.next(), readers.next()) {
        (Some(plugin), None) => Ok(plugin.path.clone()),
        (Some(first), Some(second)) => Err(CommandError::usage(format!(
            "{} and {} both read checkpoints of model_type `{}`; name the one that is meant with --plugin",
            first.path.display(),
            second.path.display(),
            config.model_type
        ))),
        (None, _) => {
            let mut known: Vec<&str> = catalogue
                .plugins
                .iter()
                .flat_map(|plugin| plugin.model_types.iter().map(String::as_str))
                .collect();
            known.sort_unstable();
            Err(CommandError::usage(format!(
                "no plugin reads checkpoints of model_type `{}`{}; there are plugins for {}",
                config.model_type,
                did_you_mean(&config.model_type, known.iter().copied()),
                known.join(", ")
            )))
        }
    }
}

/// The worker's side.
///
/// # Errors
/// Whatever does not fit.
pub fn work(job: &CheckpointJob) -> Result<Answer, CommandError> {
    look(job).map_err(|error| CommandError {
        code: FAILED,
        message: error.to_string(),
    })
}

fn look(job: &CheckpointJob) -> Result<Answer, LoadError> {
    let folder = Folder::open(&job.folder)?;
    let library = Library::open(&job.library)?;
    let mut understood = Understood::ask(folder, &library, &job.options)?;
    let device = match &job.asked {
        Asked::Verify(device) => device.as_str(),
        _ => "cpu",
    };
    let mut model = understood.build(device::named(device, job.threads))?;
    let Understood { folder, plan, .. } = &understood;
    let verified = match &job.asked {
        Asked::Verify(_) => {
            let expected = Tensors::open_files(vec![expected_file(&job.folder)])?;
            Some(verify(&mut model, plan, &expected)?)
        }
        _ => None,
    };
    Ok(Answer {
        model_type: folder.config.model_type.clone(),
        architecture: understood.spec.text(),
        vocab: plan.vocab,
        d_model: plan.d_model,
        layers: plan.layers,
        max_length: plan.max_length,
        files: folder.tensors.files(),
        tensors: folder.tensors.iter().count(),
        parameters: model.parameter_values(),
        state_growth: model.state_growth().name().to_owned(),
        state_bytes: model.declared_state_bytes(1024),
        sha256: matches!(job.asked, Asked::Hash).then(|| folder.sha256()),
        verified,
        warnings: understood.warnings,
    })
}

fn expected_file(folder: &Path) -> PathBuf {
    folder.join("expected.safetensors")
}
