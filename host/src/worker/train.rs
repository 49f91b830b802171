//! Training a model on a task. The plugin does the work; batches come from a thread that runs ahead.

use std::time::{Duration, Instant};

use longhaul_plugin_api::client::LoadedModel;
use longhaul_plugin_api::data::{Batch, Reporting, StepReport, TrainConfig};
use longhaul_tasks::Task;

use crate::run::plan::Training;
use crate::worker::batches::{Ahead, BatchPlan, TrainingBatch};
use crate::worker::clock::Clock;
use crate::worker::initial::Start;
use crate::worker::job::Failure;
use crate::worker::pipe::send;
use crate::worker::protocol::{Job, Message};
use crate::worker::resume::{self, Progress, Saves};

/// Steps that go into `training.csv`, beside the first and the last.
const POINTS: u64 = 64;
/// How often a step is reported for the eye.
const GLANCE: Duration = Duration::from_millis(250);

/// Runs every step of a training, from where an earlier worker left it. Returns the seconds that all of it took.
///
/// # Errors
/// The plugin's, with the step; the system's on keeping the training.
pub fn train(
    model: &mut LoadedModel,
    task: &dyn Task,
    job: &Job,
    training: &Training,
    clock: &mut Clock,
) -> Result<f64, Failure> {
    let config = TrainConfig {
        learning_rate: training.learning_rate,
        warmup_steps: training.warmup_steps,
        total_steps: training.steps,
        weight_decay: training.weight_decay,
        clip_norm: training.clip_norm,
        ..TrainConfig::default()
    };
    // A card need not be waited for at steps that are not recorded.
    let config = config.reported_every((training.steps / POINTS).max(1));
    clock.inside(|| model.begin_training(&config))?;
    let plan = BatchPlan {
        length_min: training.length_min,
        length_max: training.length,
        growing_steps: training.growing_steps(),
        rows: training.batch,
        seed: job.seed,
    };
    let steps = training.steps;
    let mut start = start(model, training, job.seed, clock)?;
    let (progress, states) = resume::take_up(model, job, clock)?.unwrap_or_default();
    if let (Some(start), Some(states)) = (&mut start, states) {
        start.pass(states);
    }
    let first = progress.next_step;
    if first > 0 {
        send(&Message::GoesOn { step: first });
    }
    let mut saves = Saves::new(job);
    std::thread::scope(|scope| {
        let mut making = first;
        let ahead = Ahead::<TrainingBatch>::start(scope, move |batch| {
            let made = making < steps && plan.fill(task, making, batch).is_ok();
            making += 1;
            made
        })
        .map_err(Failure::thread)?;
        let mut report = Reports::go_on(config.reporting(), progress);
        for step in first..steps {
            let batch = ahead.next().ok_or_else(|| {
                Failure::error(format!("the task made no batch for training step {step}"))
            })?;
            let view = Batch::new(&batch.tokens, &batch.targets, batch.rows, batch.length);
            let done = match &mut start {
                None => clock.inside(|| model.train_step(view, step)),
                Some(start) => {
                    let initial = start.states(step);
                    let mut last = vec![0.0; initial.len()];
                    let done =
                        clock.inside(|| model.train_step_from(view, step, &initial, &mut last));
                    start.pass(last);
                    done
                }
            };
            let done =
                done.map_err(|error| Failure::from(error).at(&format!("training step {step}")))?;
            report.step(step, &done, batch.real_tokens);
            ahead.give_back(batch);
            if saves.is_due() && step + 1 < steps {
                let progress = report.progress(step + 1);
                let states = start.as_ref().map(Start::passed);
                saves.save(model, &progress, states, clock)?;
            }
        }
        Ok(report.seconds())
    })
}

/// The states that sequences start from, where they do not start afresh: of a step before, or noise like them.
fn start(
    model: &LoadedModel,
    training: &Training,
    seed: u64,
    clock: &mut Clock,
) -> Result<Option<Start>, Failure> {
    let policy = training.initial_state;
    if policy.is_zero() {
        return Ok(None);
    }
    let session = clock.inside(|| model.new_session(training.batch))?;
    if !Start::is_possible(&session)? {
        return Err(Failure::error(format!(
            "training sequences are to start from `{policy}`, and the model has no state of a fixed size to start \
             from, or does not describe it; leave `initial_state` out"
        )));
    }
    Start::new(&session, policy, training.batch, seed).map(Some)
}

/// Says how training goes: at the steps that are reported in full for the record, and now and then for the
/// eye. Of a step that was not read it says nothing, as the next recorded one is read.
struct Reports {
    reporting: Reporting,
    begun: Instant,
    /// Seconds that the training took before that.
    before: f64,
    /// What was said for the record.
    points: Vec<Message>,
    /// When something was said last.
    glance: Instant,
    /// When the last recorded step ended.
    recorded: Instant,
    /// Tokens since then.
    tokens: u64,
}

impl Reports {
    /// Says again what an earlier worker said for the record: it may not have reached the disk.
    fn go_on(reporting: Reporting, progress: Progress) -> Self {
        progress.points.iter().for_each(send);
        let now = Instant::now();
        Self {
            reporting,
            begun: now,
            before: progress.seconds,
            points: progress.points,
            glance: now,
            recorded: now,
            tokens: 0,
        }
    }

    /// Seconds that the training took so far.
    fn seconds(&self) -> f64 {
        self.before + self.begun.elapsed().as_secs_f64()
    }

    /// How far the training is before a step.
    fn progress(&self, next_step: u64) -> Progress {
        Progress {
            next_step,
            seconds: self.seconds(),
            points: self.points.clone(),
        }
    }

    fn step(&mut self, step: u64, report: &StepReport, tokens: u64) {
        self.tokens += tokens;
        let record = self.reporting.is_due(step);
        if report.is_unread() || (!record && self.glance.elapsed() < GLANCE) {
            return;
        }
        let seconds = self.recorded.elapsed().as_secs_f64();
        let said = Message::Progress {
            step,
            loss: report.loss,
            accuracy: (report.scored > 0).then(|| report.correct as f64 / report.scored as f64),
            gradient_norm: (report.gradient_norm > 0.0).then_some(report.gradient_norm),
            learning_rate: report.learning_rate,
            tokens_per_second: (seconds > 0.0).then(|| self.tokens as f64 / seconds),
            seconds: self.seconds(),
            record,
        };
        send(&said);
        self.glance = Instant::now();
        if record {
            self.points.push(said);
            self.recorded = self.glance;
            self.tokens = 0;
        }
    }
}
