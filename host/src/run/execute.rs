//! Carries out units in parallel: slots take them, one loop hears them all, keeps what they measured and
//! watches for Ctrl-C. What was heard since the last look is kept by one write and one sync a file, and a
//! slot waits when the disk is slower than its worker, so that a kill loses what one sync takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use longhaul_results::{Measurement, Probe, Status, TrainingPoint};

use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::predictions::File;
use crate::run::progress::Progress;
use crate::run::queue::Queue;
use crate::run::records::CellOutcomes;
use crate::run::unit::{Event, Settings, Work, run_unit};
use crate::worker::protocol::Message;

/// Most events that wait to be heard.
const WAITING: usize = 1024;

/// What became of the work.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    /// Whether Ctrl-C ended it.
    pub interrupted: bool,
    /// Trainings that came to their end.
    pub trained: usize,
    /// Seconds inside plugins, of workers that said so.
    pub inside_plugin_s: f64,
    /// Seconds of workers outside plugins.
    pub outside_plugin_s: f64,
}

impl Outcome {
    /// Share of the workers' time outside plugins.
    pub fn outside_fraction(&self) -> Option<f64> {
        let all = self.inside_plugin_s + self.outside_plugin_s;
        (all > 0.0).then(|| self.outside_plugin_s / all)
    }
}

/// Does all work with at most `jobs` workers at a time; their slots go round the devices. Rows go into the folder's files at once.
///
/// # Errors
/// Files that take no more; a disk that refused a worker. Workers are then stopped, and all rows up
/// to there are kept.
pub fn execute(
    works: Vec<Work>,
    jobs: usize,
    settings: &Settings,
    folder: &mut RunFolder,
    progress: &mut Progress,
    interrupt: &AtomicBool,
) -> Result<Outcome, RunError> {
    let jobs = jobs.clamp(1, works.len().max(1));
    let queue = Queue::new(works);
    let cancel = AtomicBool::new(false);
    let mut outcome = Outcome::default();
    let mut failure = None;
    std::thread::scope(|scope| {
        let (sender, events) = sync_channel::<(usize, Event)>(WAITING);
        for slot in 0..jobs {
            let (sender, queue, cancel) = (sender.clone(), &queue, &cancel);
            let served = std::thread::Builder::new()
                .spawn_scoped(scope, move || serve(slot, queue, settings, cancel, &sender));
            match served {
                Ok(_) => {}
                Err(error) if slot > 0 => {
                    tracing::warn!(
                        "{slot} workers at a time, as there is no thread for more: {error}"
                    );
                    break;
                }
                Err(error) => {
                    failure = Some(RunError::Worker(format!(
                        "there is no thread to work with: {error}"
                    )));
                    break;
                }
            }
        }
        drop(sender);
        loop {
            if interrupt.load(Ordering::Relaxed) && !cancel.load(Ordering::Relaxed) {
                outcome.interrupted = true;
                cancel.store(true, Ordering::Relaxed);
            }
            match events.recv_timeout(Duration::from_millis(100)) {
                Ok(first) => {
                    let more = events.try_iter().take(WAITING);
                    let heard = std::iter::once(first).chain(more);
                    let mut kept = Kept::default();
                    let mut done = Ok(());
                    for (slot, event) in heard {
                        done = done.and(kept.hear(slot, event, progress, &mut outcome));
                    }
                    if let Err(error) = folder.keep(kept).and(done) {
                        cancel.store(true, Ordering::Relaxed);
                        failure.get_or_insert(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => progress.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// A slot: takes units until there are none or the run stops.
fn serve(
    slot: usize,
    queue: &Queue,
    settings: &Settings,
    cancel: &AtomicBool,
    sender: &SyncSender<(usize, Event)>,
) {
    while !cancel.load(Ordering::Relaxed) {
        let Some(work) = queue.next() else { return };
        let begun = Instant::now();
        let mut say = |event| {
            let _ = sender.send((slot, event));
        };
        say(Event::Begun(Box::new(work.clone())));
        let device = settings.devices.of_slot(slot);
        run_unit(&work, settings, device, cancel, &mut say);
        say(Event::Over);
        queue.over(&work, begun.elapsed());
    }
}

/// What is to be kept of the events of one look.
#[derive(Default)]
pub struct Kept {
    /// For the folder `predictions`.
    pub predictions: Vec<File>,
    /// For the folder `outcomes`.
    pub outcomes: Vec<CellOutcomes>,
    /// For `training.csv`.
    pub points: Vec<TrainingPoint>,
    /// For `probes.csv`.
    pub probes: Vec<Probe>,
    /// For `results.csv`.
    pub rows: Vec<Measurement>,
}

impl Kept {
    fn hear(
        &mut self,
        slot: usize,
        event: Event,
        progress: &mut Progress,
        outcome: &mut Outcome,
    ) -> Result<(), RunError> {
        match event {
            Event::Begun(work) => progress.begun(slot, &work),
            Event::Lengths(lengths) => progress.lengths(slot, lengths),
            Event::Said(Message::Log { level, text }) => progress.plugin_log(slot, &level, &text),
            Event::Said(Message::Started { notes, .. }) => {
                for note in notes {
                    progress.plugin_log(slot, "debug", &note);
                }
            }
            Event::Said(message) => {
                outcome.trained += usize::from(matches!(message, Message::Trained { .. }));
                progress.said(slot, &message);
            }
            Event::Point(point) => self.points.push(*point),
            Event::Probes(probes) => self.probes.extend(probes),
            Event::Predictions(file) => self.predictions.push(file),
            Event::Outcomes(outcomes) => self.outcomes.push(*outcomes),
            Event::Rows(rows) => {
                for row in rows.iter().filter(|row| row.is_reported_cell()) {
                    progress.measured(slot, row);
                }
                for row in rows.iter().filter(|row| row.status == Status::Failed) {
                    tracing::info!("{} on {}: {}", row.architecture, row.task, row.reason);
                }
                self.rows.extend(rows);
            }
            Event::Time(inside, outside) => {
                outcome.inside_plugin_s += inside;
                outcome.outside_plugin_s += outside;
                tracing::info!(
                    outside_plugin_fraction = outside / (inside + outside).max(f64::MIN_POSITIVE),
                    "a worker is done"
                );
            }
            Event::Disk(reason) => return Err(RunError::Worker(reason)),
            Event::Over => progress.over(slot),
        }
        Ok(())
    }
}
