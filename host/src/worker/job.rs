//! One job from start to end: load, build, train or read back, evaluate.

use longhaul_plugin_api::client::{ClientError, LoadedModel, LoadedPlugin};
use longhaul_plugin_api::error::ErrorKind;
use longhaul_tasks::{Materials, Task, TaskError, parse_task_of};

use crate::architecture::{ArchSpec, IN_EVALUATIONS, ModelSize, Value};
use crate::checkpoint::files::Folder;
use crate::checkpoint::load::{Library, LoadError, Understood};
use crate::device;
use crate::run::plan::Checkpoint;
use crate::text;
use crate::worker::clock::Clock;
use crate::worker::evaluate::evaluate;
use crate::worker::generate::{Asked, Carried, generate};
use crate::worker::models::{self, ModelFileError};
use crate::worker::pipe::{self, send};
use crate::worker::protocol::{FailureKind, Job, Message};
use crate::worker::resume;
use crate::worker::train::train;

/// Why a part of a job was not done.
#[derive(Debug)]
pub struct Failure {
    /// What the host chooses a status by.
    pub kind: FailureKind,
    /// The words.
    pub reason: String,
}

impl Failure {
    /// A failure of no special kind.
    pub fn error(reason: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Error,
            reason: reason.into(),
        }
    }

    /// The system has no thread.
    pub fn thread(error: std::io::Error) -> Self {
        Self::error(format!("there is no thread to make examples with: {error}"))
    }

    /// The same with the place where it happened.
    pub fn at(mut self, place: &str) -> Self {
        self.reason = format!("{place}: {}", self.reason);
        self
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let kind = match error.kind() {
            ErrorKind::OutOfMemory => FailureKind::OutOfMemory,
            ErrorKind::Device => FailureKind::Device,
            _ => FailureKind::Error,
        };
        Self {
            kind,
            reason: text::line(&error.to_string()),
        }
    }
}

impl From<ModelFileError> for Failure {
    fn from(error: ModelFileError) -> Self {
        match error {
            ModelFileError::Plugin(error) => error.into(),
            ModelFileError::Write { .. } => Self {
                kind: FailureKind::Disk,
                reason: error.to_string(),
            },
            ModelFileError::Read { .. } | ModelFileError::NotFinite { .. } => {
                Self::error(error.to_string())
            }
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Self::error(error.to_string())
    }
}

/// Most notes of a model that are passed on.
const NOTES: usize = 64;

/// Does a job and tells the host how it went.
pub fn work(job: &str) {
    let job: Result<Job, Failure> = pipe::parse(job).map_err(|error| Failure::error(error.message));
    if let Err(failure) = job.and_then(|job| run(&job)) {
        send(&Message::Failed {
            kind: failure.kind,
            reason: failure.reason,
        });
    }
}

fn run(job: &Job) -> Result<(), Failure> {
    job.check().map_err(Failure::error)?;
    let mut clock = Clock::start();
    let materials = match &job.materials {
        Some(record) => record.open().map_err(Failure::error)?,
        None => Materials::default(),
    };
    let task = parse_task_of(&job.task, &materials)?;
    let read = job.architecture.of_evaluations();
    // Who evaluates what is trained already needs that model alone.
    let trained = match &read {
        Some(read) if job.to_train().is_none() => read,
        _ => &job.architecture,
    };
    let (mut model, vocab) = match &job.checkpoint {
        Some(checkpoint) => (
            read_checkpoint(job, checkpoint, &mut clock)?,
            checkpoint.vocab as usize,
        ),
        None => (
            build(job, trained, task.as_ref(), &mut clock)?,
            task.vocab(),
        ),
    };
    if let (Some(_), Some(read)) = (job.to_train(), &read) {
        // Before the work that it would be too late after.
        let other = build(job, read, task.as_ref(), &mut clock)?;
        same_parameters(&model, &other)?;
    }
    let notes = model.notes();
    send(&Message::Started {
        parameters: model.parameter_values(),
        notes: notes
            .iter()
            .take(NOTES)
            .map(|note| text::line(note))
            .collect(),
    });
    if let Some(training) = job.to_train() {
        let seconds = train(&mut model, task.as_ref(), job, training, &mut clock)?;
        models::save(&model, &job.folder, &job.model, &job.identity)?;
        resume::forget(job);
        if let Some(read) = &read {
            model = build(job, read, task.as_ref(), &mut clock)?;
            models::load(&mut model, &job.folder, &job.model, &job.identity)?;
        }
        send(&Message::Trained { seconds });
    } else if job.checkpoint.is_none() {
        models::load(&mut model, &job.folder, &job.model, &job.identity)?;
        resume::forget(job);
    }
    let mut carried = Carried::default();
    for (index, &evaluation) in job.evaluations.iter().enumerate() {
        send(&Message::Evaluating { index });
        let task = task.as_ref();
        let done = if task.spec().metric.is_generated() {
            let asked = Asked {
                task,
                tokenizer: materials.tokenizer.as_ref(),
                vocab,
                seed: job.seed,
                evaluation,
                window: window(job),
                next: job.evaluations.get(index + 1).copied(),
                index,
            };
            generate(&model, &asked, &mut carried, &mut clock)
        } else {
            evaluate(&model, task, vocab, job, index, &mut clock)
        };
        send(&match done {
            Ok(evaluated) => Message::Evaluated(evaluated),
            // What this process knows of the device is void: a fresh one does the rest.
            Err(failure) if failure.kind == FailureKind::Device => return Err(failure),
            Err(Failure { kind, reason }) => Message::EvaluationFailed {
                index,
                kind,
                reason,
            },
        });
    }
    let (inside_plugin_s, outside_plugin_s) = clock.seconds();
    send(&Message::Done {
        inside_plugin_s,
        outside_plugin_s,
    });
    Ok(())
}

/// The local window of a job's model in evaluations: what its option `window` says, where that is not 0.
fn window(job: &Job) -> Option<usize> {
    let read = job.architecture.of_evaluations();
    let spec = read.as_ref().unwrap_or(&job.architecture);
    match spec.values.iter().find(|(name, _)| name == "window")?.1 {
        Value::Integer(window) => usize::try_from(window).ok().filter(|&window| window > 0),
        _ => None,
    }
}

/// Refuses options of evaluations that need other parameters than those that are trained.
fn same_parameters(trained: &LoadedModel, read: &LoadedModel) -> Result<(), Failure> {
    if trained.parameters() == read.parameters() {
        return Ok(());
    }
    Err(Failure::error(format!(
        "with its options of evaluations (`{IN_EVALUATIONS}`) the model has other parameters than those that are \
         trained; change options that only say how these are read"
    )))
}

fn build(
    job: &Job,
    architecture: &ArchSpec,
    task: &dyn Task,
    clock: &mut Clock,
) -> Result<LoadedModel, Failure> {
    let plugin = LoadedPlugin::open(&architecture.library, pipe::plugin_log)?;
    let size = ModelSize {
        vocab: task.vocab() as u32,
        d_model: job.d_model,
        layers: job.layers,
        max_train_length: job.training.as_ref().map_or(1, |own| own.length as u64),
    };
    let device = device::named(&job.device, job.threads);
    let config = architecture.config(size, job.seed, device);
    Ok(clock.inside(|| plugin.build(&config))?)
}

fn read_checkpoint(
    job: &Job,
    checkpoint: &Checkpoint,
    clock: &mut Clock,
) -> Result<LoadedModel, Failure> {
    let folder = Folder::open(&checkpoint.folder).map_err(|e| Failure::error(e.to_string()))?;
    let device = device::named(&job.device, job.threads);
    let model = clock.inside(|| {
        let library = Library::open(&job.architecture.library)?;
        let mut understood = Understood::ask(folder, &library, "")?;
        // The plan's options, checked when the run was planned, with the user's over the config's.
        understood.spec = job.architecture.clone();
        understood.build(device)
    });
    model.map_err(|error| match error {
        LoadError::Plugin(error) => error.into(),
        other => Failure::error(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_plugin_api::error::PluginError;

    #[test]
    fn kinds_of_failure() {
        let error = |kind| ClientError::Plugin {
            plugin: "p".to_owned(),
            call: "feed",
            error: PluginError::new(kind, "words"),
        };
        assert_eq!(
            Failure::from(error(ErrorKind::OutOfMemory)).kind,
            FailureKind::OutOfMemory
        );
        let failure = Failure::from(error(ErrorKind::Numeric)).at("training step 3");
        assert_eq!(failure.kind, FailureKind::Error);
        assert_eq!(
            failure.reason,
            "training step 3: p: feed: numeric error: words"
        );
    }
}
