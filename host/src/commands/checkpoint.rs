//! `longhaul checkpoint`: checkpoints in the Hugging Face layout. What touches a plugin or a checkpoint's
//! values runs in a worker.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, Plugin};
use crate::checkpoint::files::{Folder, Tensors};
use crate::checkpoint::load::{LoadError, Understood};
use crate::checkpoint::verify::{GRADIENT_OF, Row, verify};
use crate::cli::{CheckpointArgs, CheckpointCommand, FolderArgs, VerifyArgs};
use crate::commands::{devices, print};
use crate::device::{self, Devices};
use crate::exit::{CommandError, FAILED, OK, USAGE};
use crate::find::did_you_mean;
use crate::launch::{self, Limits};
use crate::table::columns;

/// Longest that a worker may take, in seconds of its own.
const LIMIT: u64 = 3600;

/// What a worker is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct CheckpointJob {
    #[serde(with = "crate::path_text")]
    folder: PathBuf,
    #[serde(with = "crate::path_text")]
    library: PathBuf,
    /// Device to verify it on, if it is to be verified.
    verify_on: Option<String>,
    threads: u32,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    model_type: String,
    /// The architecture as `--arch` takes it.
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
    state_growth: String,
    /// Bytes of state a row after 1024 tokens.
    state_bytes: u64,
    rows: Vec<Row>,
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
    }
}

fn inspect(args: &FolderArgs) -> Result<u8, CommandError> {
    let answer = ask(args, None)?;
    print(&described(args, &answer))?;
    Ok(OK)
}

fn verify_folder(args: &VerifyArgs) -> Result<u8, CommandError> {
    let device = Devices::parse_one(&args.device).map_err(CommandError::usage)?;
    devices::require_one(&device).map_err(CommandError::usage)?;
    let answer = ask(&args.folder, Some(device))?;
    print(&described(&args.folder, &answer))?;
    let failed = answer.rows.iter().filter(|row| !row.passed()).count();
    let (gradients, others): (Vec<&Row>, Vec<&Row>) =
        answer.rows.iter().partition(|row| row.what == GRADIENT_OF);
    let mut table = vec![row_of("compared", "result", "error", "limit", "where")];
    table.extend(others.iter().map(|row| verdict(row)));
    // The worst gradients, and every one that failed.
    let shown = |index: &usize| *index < 3 || !gradients[*index].passed();
    table.extend(
        (0..gradients.len())
            .filter(shown)
            .map(|index| verdict(gradients[index])),
    );
    print(&columns(&table))?;
    let worst = gradients.first().and_then(|row| row.error);
    let worst = worst.map_or_else(|| "not finite".to_owned(), |worst| format!("{worst:.1e}"));
    print(&format!(
        "\n{} gradients, the worst {worst}. {}\n",
        gradients.len(),
        if failed == 0 {
            "All within their limits.".to_owned()
        } else {
            format!("{failed} comparisons FAILED.")
        }
    ))?;
    Ok(if failed == 0 { OK } else { FAILED })
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
fn ask(args: &FolderArgs, verify_on: Option<String>) -> Result<Answer, CommandError> {
    let folder = Folder::open(&args.folder).map_err(CommandError::usage)?;
    let catalogue = Catalogue::scan(&args.plugins)?;
    let library = library_for(&folder, &catalogue)?;
    ask_library(args, library, verify_on)
}

/// Has a worker look at a checkpoint with this library.
///
/// # Errors
/// Whatever does not fit.
pub fn ask_library(
    args: &FolderArgs,
    library: PathBuf,
    verify_on: Option<String>,
) -> Result<Answer, CommandError> {
    let job = CheckpointJob {
        folder: args.folder.clone(),
        library,
        verify_on,
        threads: args.threads.max(1),
    };
    launch::ask("checkpoint", &job, &Limits::of_time(LIMIT)).map_err(|error| error.or_code(USAGE))
}

/// The plugin that reads a checkpoint of this `model_type`.
///
/// # Errors
/// None, with those that can be read; two.
pub fn library_for(folder: &Folder, catalogue: &Catalogue) -> Result<PathBuf, CommandError> {
    let reads = |plugin: &&Plugin| plugin.model_types.contains(&folder.model_type);
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
            folder.model_type
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
                folder.model_type,
                did_you_mean(&folder.model_type, known.iter().copied()),
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
    let understood = Understood::ask(&folder, &job.library)?;
    let device = device::named(job.verify_on.as_deref().unwrap_or("cpu"), job.threads);
    let mut model = understood.build(&folder, device)?;
    let rows = if job.verify_on.is_some() {
        let expected = expected_file(&job.folder);
        let expected = Tensors::open_files(vec![expected])?;
        verify(&mut model, &understood.plan, &expected)?
    } else {
        Vec::new()
    };
    let plan = &understood.plan;
    Ok(Answer {
        model_type: folder.model_type.clone(),
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
        rows,
    })
}

fn expected_file(folder: &Path) -> PathBuf {
    folder.join("expected.safetensors")
}
