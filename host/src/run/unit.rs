//! One unit of a run: its worker, and a fresh one for what is left when a worker is lost during an
//! evaluation. Every planned length ends up with a record, whatever happens, unless the run stops.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use longhaul_results::{Measurement, Probe, Status, TrainingPoint};

use crate::architecture::ArchSpec;
use crate::device::Devices;
use crate::launch::{self, Limits};
use crate::run::child::{End, run_worker};
use crate::run::materials::possible;
use crate::run::plan::{Evaluation, Training, Unit};
use crate::run::predictions::{self, Predictions};
use crate::run::records::{CellOutcomes, Common};
use crate::worker::models::disk_refuses;
use crate::worker::protocol::{FailureKind, Job, Message};

/// What is left to do of a unit.
#[derive(Debug, Clone)]
pub struct Work {
    /// The unit.
    pub unit: Unit,
    /// Its architecture.
    pub architecture: ArchSpec,
    /// Its id, which the saved model carries.
    pub id: String,
    /// Whether it must be trained; else the saved model is read.
    pub train: bool,
    /// What is still to be evaluated, in order.
    pub evaluations: Vec<Evaluation>,
}

impl Work {
    /// Its size in tokens read by training.
    pub fn training_tokens(&self) -> f64 {
        let training = self.unit.training.as_ref().filter(|_| self.train);
        training.map_or(0.0, Training::tokens)
    }

    /// Its size in tokens read by training and evaluations.
    pub fn tokens(&self) -> f64 {
        let evaluations = self.evaluations.iter();
        self.training_tokens() + evaluations.map(Evaluation::tokens).sum::<f64>()
    }
}

/// What is the same for all units.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The run's folder.
    pub folder: std::path::PathBuf,
    /// The run's id.
    pub run_id: String,
    /// Where workers run.
    pub devices: Devices,
    /// CPU threads a worker.
    pub threads: u32,
    /// Seconds of its worker's own time for a unit.
    pub time_s: Option<u64>,
    /// Bytes of resident memory for a worker.
    pub memory_bytes: Option<u64>,
    /// Seconds after which a training is kept as it stands.
    pub save_every_s: u64,
}

/// What a unit has to say.
#[derive(Debug)]
pub enum Event {
    /// It begins in a slot.
    Begun(Box<Work>),
    /// A worker said something.
    Said(Message),
    /// A worker begins on these lengths.
    Lengths(Vec<usize>),
    /// A row for `training.csv`.
    Point(Box<TrainingPoint>),
    /// Rows for `probes.csv`; those for `results.csv` follow.
    Probes(Vec<Probe>),
    /// A file of generated answers, before the rows that were made of them.
    Predictions(predictions::File),
    /// What the examples of a cell scored, before its row.
    Outcomes(Box<CellOutcomes>),
    /// Rows for `results.csv`.
    Rows(Vec<Measurement>),
    /// Seconds inside and outside the plugin.
    Time(f64, f64),
    /// The disk refused a worker's file: the run cannot go on.
    Disk(String),
    /// It is over.
    Over,
}

/// Does a unit's work on a device, and says what happens by `say`.
pub fn run_unit(
    work: &Work,
    settings: &Settings,
    device: &str,
    cancel: &AtomicBool,
    say: &mut dyn FnMut(Event),
) {
    let task = match work.unit.make_task() {
        Ok(task) => task,
        Err(error) => {
            return say(Event::Disk(format!(
                "run.toml names a task that cannot be made: {error}"
            )));
        }
    };
    let cannot: Vec<(Evaluation, String)> = work
        .evaluations
        .iter()
        .filter_map(|what| {
            Some((
                *what,
                possible(task.as_ref(), what.length).err()?.to_string(),
            ))
        })
        .collect();
    let mut runner = Runner {
        work,
        settings,
        device,
        common: Common::new(&settings.run_id, device, &work.unit, &work.id, task),
        time_left: settings.time_s.map(Duration::from_secs),
        train: work.train,
        left: work.evaluations.clone(),
        predictions: Predictions::default(),
        say,
    };
    runner.leave_out(&cannot);
    while !runner.left.is_empty() {
        if !runner.worker(cancel) {
            return;
        }
    }
}

struct Runner<'a> {
    work: &'a Work,
    settings: &'a Settings,
    device: &'a str,
    common: Common,
    time_left: Option<Duration>,
    train: bool,
    left: Vec<Evaluation>,
    predictions: Predictions,
    say: &'a mut dyn FnMut(Event),
}

/// What a worker got done, heard from its messages.
#[derive(Debug, Default)]
struct Heard {
    trained: bool,
    evaluating: Option<usize>,
    answered: Vec<bool>,
}

impl Runner<'_> {
    /// Records what cannot be measured of the task, with why, and leaves it out.
    fn leave_out(&mut self, cannot: &[(Evaluation, String)]) {
        let row = |(what, reason): &(Evaluation, String)| {
            self.common.unmeasured(*what, Status::NotRun, reason)
        };
        let rows: Vec<_> = cannot.iter().map(row).collect();
        if !rows.is_empty() {
            self.left
                .retain(|left| cannot.iter().all(|(what, _)| what != left));
            (self.say)(Event::Rows(rows));
        }
    }

    /// One worker on what is left. `false` when the run must stop.
    fn worker(&mut self, cancel: &AtomicBool) -> bool {
        let job = self.job();
        let limits = Limits {
            time: self.time_left,
            silence: launch::SILENCE,
            memory_bytes: self.settings.memory_bytes,
        };
        let mut heard = Heard {
            trained: !self.train,
            evaluating: None,
            answered: vec![false; self.left.len()],
        };
        (self.say)(Event::Lengths(
            self.left.iter().map(|left| left.length).collect(),
        ));
        let (end, own_time) = run_worker(&job, &limits, cancel, &mut |message| {
            self.hear(message, &mut heard)
        });
        self.time_left = self.time_left.map(|left| left.saturating_sub(own_time));
        let end = match end {
            // An earlier worker of the unit may have used a part of it.
            End::TimedOut { .. } => End::TimedOut {
                time_s: self.settings.time_s.unwrap_or_default(),
            },
            end => end,
        };
        match end {
            End::Cancelled => return false,
            End::Failed {
                kind: FailureKind::Disk,
                reason,
            } => {
                // A plugin may have used up descriptors: the host looks at the disk itself.
                if let Some(error) = disk_refuses(&self.settings.folder) {
                    (self.say)(Event::Disk(format!("{reason} ({error})")));
                    return false;
                }
                let kind = FailureKind::Error;
                self.lost(&End::Failed { kind, reason }, &heard);
            }
            End::Done {
                inside_plugin_s,
                outside_plugin_s,
            } => {
                (self.say)(Event::Time(inside_plugin_s, outside_plugin_s));
                self.forget_answered(&heard);
                if !self.left.is_empty() {
                    self.give_up(
                        &End::Done {
                            inside_plugin_s,
                            outside_plugin_s,
                        },
                        "the worker ended early",
                    );
                }
            }
            end => self.lost(&end, &heard),
        }
        true
    }

    fn job(&self) -> Job {
        let unit = &self.work.unit;
        Job {
            architecture: self.work.architecture.clone(),
            d_model: unit.d_model,
            layers: unit.layers,
            task: unit.task_text(),
            seed: unit.seed,
            device: self.device.to_owned(),
            threads: self.settings.threads,
            training: unit.training.clone(),
            train: self.train,
            folder: self.settings.folder.clone(),
            model: unit.model_name(),
            identity: self.work.id.clone(),
            checkpoint: unit.checkpoint.clone(),
            materials: unit.materials.clone(),
            save_every_s: self.settings.save_every_s,
            evaluations: self.left.clone(),
            probes: unit.probes.clone(),
        }
    }

    fn hear(&mut self, message: &Message, heard: &mut Heard) {
        match message {
            Message::Started { parameters, .. } => self.common.parameters(*parameters),
            Message::Trained { .. } => heard.trained = true,
            Message::Evaluating { index } => {
                heard.evaluating = Some(*index);
                self.predictions.clear();
            }
            Message::Answered(answered) => return self.predictions.take(answered),
            Message::Evaluated(evaluated) => {
                heard.evaluating = None;
                if let Some(&what) = self.left.get(evaluated.index) {
                    heard.answered[evaluated.index] = true;
                    let probes = self.common.probes(what, evaluated);
                    if !probes.is_empty() {
                        (self.say)(Event::Probes(probes));
                    }
                    let unit = &self.work.unit.name;
                    let (tokens, length) = (evaluated.tokens, what.length);
                    tracing::info!("{unit} at {length}: {tokens} tokens were read");
                    if let Some(file) = self.predictions.file(unit, what.length) {
                        (self.say)(Event::Predictions(file));
                    }
                    if let Some(outcomes) = self.common.outcomes(what, evaluated) {
                        (self.say)(Event::Outcomes(Box::new(outcomes)));
                    }
                    (self.say)(Event::Rows(self.common.measured(what, evaluated)));
                }
            }
            Message::EvaluationFailed {
                index,
                kind,
                reason,
            } => {
                heard.evaluating = None;
                if let Some(&what) = self.left.get(*index) {
                    heard.answered[*index] = true;
                    let end = End::Failed {
                        kind: *kind,
                        reason: reason.clone(),
                    };
                    let (status, reason) = end.status();
                    let row = self.common.unmeasured(what, status, &reason);
                    (self.say)(Event::Rows(vec![row]));
                }
            }
            Message::Progress { .. } => {
                if let Some(point) = self.common.point(message) {
                    (self.say)(Event::Point(Box::new(point)));
                }
            }
            _ => {}
        }
        (self.say)(Event::Said(message.clone()));
    }

    /// A worker is gone before its job was done.
    fn lost(&mut self, end: &End, heard: &Heard) {
        if !heard.trained {
            let (status, _) = end.status();
            let reason = format!("training {}", past(status));
            return self.give_up(end, &reason);
        }
        let trained_now = std::mem::replace(&mut self.train, false);
        self.forget_answered(heard);
        // `left` now begins with what the worker was at: evaluations go in order.
        let (status, _) = end.status();
        match (heard.evaluating, status) {
            _ if matches!(end, End::Impossible { .. }) => {
                self.give_up(end, "the worker said what cannot be, at a shorter length");
            }
            _ if matches!(end, End::Silent { .. }) => {
                self.give_up(end, "it said nothing for an hour at a shorter length");
            }
            (_, Status::TimedOut) => {
                self.give_up(
                    end,
                    "over budget: the time limit was reached at a shorter length",
                );
            }
            (_, Status::OutOfMemory) => {
                self.give_up(end, "over budget: memory ran out at a shorter length");
            }
            // It died between two lengths, or after its training, and a fresh one goes on. One that did nothing
            // before it died leads to no other like it.
            (None, _) if trained_now || heard.answered.contains(&true) => {}
            (None, _) => self.give_up(end, "the saved model could not be evaluated"),
            (Some(_), _) => self.record_first(end),
        }
    }

    fn forget_answered(&mut self, heard: &Heard) {
        let mut answered = heard.answered.iter();
        self.left
            .retain(|_| !answered.next().copied().unwrap_or(false));
    }

    /// Records how the first length that is left ended.
    fn record_first(&mut self, end: &End) {
        if self.left.is_empty() {
            return;
        }
        let what = self.left.remove(0);
        let (status, reason) = end.status();
        let row = self.common.unmeasured(what, status, &reason);
        (self.say)(Event::Rows(vec![row]));
    }

    /// Records how the first length that is left ended, and that the others were not run.
    fn give_up(&mut self, end: &End, reason: &str) {
        self.record_first(end);
        let rows: Vec<_> = self
            .left
            .drain(..)
            .map(|what| self.common.unmeasured(what, Status::NotRun, reason))
            .collect();
        if !rows.is_empty() {
            (self.say)(Event::Rows(rows));
        }
    }
}

/// A status as the end of a sentence on training.
fn past(status: Status) -> &'static str {
    match status {
        Status::Crashed => "crashed",
        Status::TimedOut => "timed out",
        Status::OutOfMemory => "ran out of memory",
        Status::Ok | Status::Failed | Status::NotRun => "failed",
    }
}

#[cfg(test)]
pub mod tests {
    //! Also holds the work that tests beside this module use.

    use super::*;
    use crate::architecture::tests::spec;
    use crate::run::records::tests::{at, common, unit};

    /// Work for tests.
    pub fn work() -> Work {
        Work {
            id: unit(10).id(),
            unit: unit(10),
            architecture: spec(),
            train: true,
            evaluations: vec![at(40), at(80), at(160)],
        }
    }

    fn settings() -> Settings {
        Settings {
            folder: "f".into(),
            run_id: "id".into(),
            devices: Devices::parse("cpu").unwrap(),
            threads: 1,
            time_s: Some(60),
            memory_bytes: None,
            save_every_s: 120,
        }
    }

    /// Rows that a lost worker leads to, and lengths left for the next one.
    fn lose(end: &End, heard: &Heard) -> (Vec<(u64, Status)>, Vec<usize>) {
        let (rows, left) = lost(end, heard);
        let rows = rows.iter().map(|row| (row.eval_length, row.status));
        (rows.collect(), left)
    }

    fn lost(end: &End, heard: &Heard) -> (Vec<Measurement>, Vec<usize>) {
        let (work, settings) = (work(), settings());
        let mut rows = Vec::new();
        let mut say = |event| {
            if let Event::Rows(new) = event {
                rows.extend(new);
            }
        };
        let mut runner = Runner {
            work: &work,
            settings: &settings,
            device: "cpu",
            common: common(&work.unit),
            time_left: None,
            train: true,
            left: work.evaluations.clone(),
            predictions: Predictions::default(),
            say: &mut say,
        };
        runner.lost(end, heard);
        let left = runner.left.iter().map(|left| left.length).collect();
        (rows, left)
    }

    fn crash() -> End {
        End::Died {
            status: std::os::unix::process::ExitStatusExt::from_raw(11),
            last_line: String::new(),
            system_killed: None,
        }
    }

    #[test]
    fn a_crash_in_training_ends_the_unit() {
        let heard = Heard {
            answered: vec![false; 3],
            ..Heard::default()
        };
        let (rows, left) = lose(&crash(), &heard);
        assert_eq!(
            rows,
            [
                (40, Status::Crashed),
                (80, Status::NotRun),
                (160, Status::NotRun)
            ]
        );
        assert!(left.is_empty());
    }

    #[test]
    fn a_crash_in_an_evaluation_costs_one_length() {
        let heard = Heard {
            trained: true,
            evaluating: Some(1),
            answered: vec![true, false, false],
        };
        let (rows, left) = lose(&crash(), &heard);
        assert_eq!(rows, [(80, Status::Crashed)]);
        assert_eq!(left, [160]);
    }

    #[test]
    fn a_death_between_two_lengths_costs_none() {
        let between = |answered: [bool; 3]| Heard {
            trained: true,
            evaluating: None,
            answered: answered.to_vec(),
        };
        let (rows, left) = lose(&crash(), &between([true, false, false]));
        assert_eq!((rows, left), (Vec::new(), vec![80, 160]));
        let (rows, left) = lose(&crash(), &between([false; 3]));
        assert_eq!(
            (rows, left),
            (Vec::new(), vec![40, 80, 160]),
            "its training is saved"
        );
        let impossible = End::Impossible {
            what: "nonsense".into(),
        };
        let (rows, left) = lose(&impossible, &between([true, false, false]));
        assert_eq!(rows, [(80, Status::Failed), (160, Status::NotRun)]);
        assert!(left.is_empty());
    }

    #[test]
    fn a_spent_budget_costs_the_longer_lengths() {
        let heard = Heard {
            trained: true,
            evaluating: Some(1),
            answered: vec![true, false, false],
        };
        let (rows, left) = lose(&End::TimedOut { time_s: 1 }, &heard);
        assert_eq!(rows, [(80, Status::TimedOut), (160, Status::NotRun)]);
        assert!(left.is_empty());
        let (rows, _) = lose(&End::OutOfMemory { used: 2, limit: 1 }, &heard);
        assert_eq!(rows, [(80, Status::OutOfMemory), (160, Status::NotRun)]);
        // Where nothing was heard, no limit of time need have been set.
        let (rows, _) = lost(&End::Silent { time_s: 3600 }, &heard);
        assert_eq!(
            rows[1].reason,
            "it said nothing for an hour at a shorter length"
        );
    }
}
