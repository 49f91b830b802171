//! A training between two steps, on disk: kept every so often, so that a worker which is interrupted costs the time
//! since then, and taken up by the next one. The steps that follow are those that would have followed, to the
//! last bit.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use longhaul_plugin_api::client::LoadedModel;
use longhaul_plugin_api::error::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::worker::clock::Clock;
use crate::worker::job::Failure;
use crate::worker::models::{self, Kept, ModelFileError};
use crate::worker::protocol::{Job, Message};

/// How far a training is.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The step that comes next.
    pub next_step: u64,
    /// Seconds that it took so far.
    pub seconds: f64,
    /// What was said of it for the record, which may not have reached the disk.
    pub points: Vec<Message>,
}

/// When and where a training is kept.
pub struct Saves {
    folder: PathBuf,
    name: String,
    identity: String,
    every: Duration,
    last: Instant,
    /// Whether the plugin can.
    possible: bool,
}

impl Saves {
    /// Of a job's training.
    pub fn new(job: &Job) -> Self {
        Self {
            folder: job.folder.clone(),
            name: name(job),
            identity: job.identity.clone(),
            every: Duration::from_secs(job.save_every_s),
            last: Instant::now(),
            possible: true,
        }
    }

    /// Whether so much time has gone by that the training is to be kept.
    pub fn is_due(&self) -> bool {
        self.possible && self.last.elapsed() >= self.every
    }

    /// Keeps a training: the model, what its optimiser keeps, and the states that the next sequences start
    /// from, where they do not start afresh. Of a plugin that cannot nothing is kept, and nothing of a model
    /// that is not finite.
    ///
    /// # Errors
    /// The plugin's; the system's.
    pub fn save(
        &mut self,
        model: &LoadedModel,
        progress: &Progress,
        states: Option<&[f32]>,
        clock: &mut Clock,
    ) -> Result<(), Failure> {
        let optimiser = match clock.inside(|| model.export_training()) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.possible = false;
                return Ok(());
            }
            exported => exported?,
        };
        let kept = Kept {
            optimiser,
            progress: serde_json::to_vec(progress).expect("plain data serialises"),
            states: states.map(<[f32]>::to_vec),
        };
        match models::save_training(model, &kept, &self.folder, &self.name, &self.identity) {
            Err(ModelFileError::NotFinite { .. }) => {}
            saved => saved?,
        }
        self.last = Instant::now();
        Ok(())
    }
}

/// How far a training is, and the states that its next sequences start from.
pub type TakenUp = (Progress, Option<Vec<f32>>);

/// Goes on with a job's training where an earlier worker kept it: writes the parameters and what the optimiser
/// keeps into a model whose training was begun. `None` where nothing was kept, or what was is not whole.
///
/// # Errors
/// The plugin's.
pub fn take_up(
    model: &mut LoadedModel,
    job: &Job,
    clock: &mut Clock,
) -> Result<Option<TakenUp>, Failure> {
    let kept = clock
        .inside(|| models::load_training(model, &job.folder, &name(job), &job.identity))
        .map_err(|failure| Failure::from(failure).at("a training that was interrupted"))?;
    let Some(kept) = kept else { return Ok(None) };
    let Ok(progress) = serde_json::from_slice::<Progress>(&kept.progress) else {
        return Ok(None);
    };
    clock
        .inside(|| model.import_training(&kept.optimiser))
        .map_err(|error| Failure::from(error).at("a training that was interrupted"))?;
    Ok(Some((progress, kept.states)))
}

/// Removes what was kept of a training that is over.
pub fn forget(job: &Job) {
    // Where it stays it is only in the way of nobody.
    let _ = std::fs::remove_file(job.folder.join(models::FOLDER).join(name(job)));
}

/// The file's name in the folder of the models.
fn name(job: &Job) -> String {
    format!("{}.training", job.model)
}
