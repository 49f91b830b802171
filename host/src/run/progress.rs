//! How a run is going, on standard error: on a terminal one live line a worker and one for the whole,
//! elsewhere plain lines when something begins or ends and every ten seconds. Knows no files.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use longhaul_results::metric::Kind;
use longhaul_results::{Measurement, Status};
use longhaul_tasks::TrainDistribution;

use crate::run::unit::Work;
use crate::worker::protocol::Message;

/// Between plain lines of one worker.
const PLAIN: Duration = Duration::from_secs(10);
/// Resolution of the bars.
const GRAIN: f64 = 10_000.0;

/// Shows how a run is going.
pub struct Progress {
    show: Show,
    slots: Vec<Slot>,
    units: usize,
    begun: usize,
    /// Work of all units, and of those that are over, in tokens read.
    total: f64,
    over: f64,
    started: Instant,
}

enum Show {
    Quiet,
    Plain,
    Live {
        multi: MultiProgress,
        overall: ProgressBar,
    },
}

/// What a worker is at.
#[derive(Default)]
struct Slot {
    bar: Option<ProgressBar>,
    title: String,
    number: usize,
    steps: u64,
    training: f64,
    evaluations: Vec<(usize, f64)>,
    lengths: Vec<usize>,
    at: Option<usize>,
    done: f64,
    cells: Vec<String>,
    begun: Option<Instant>,
    spoke: Option<Instant>,
}

/// The time left of something of which a share is done, in words; none where too little is done to tell.
fn left(begun: Instant, share: f64) -> String {
    let gone = begun.elapsed();
    if share < 0.02 || gone < Duration::from_secs(2) {
        return String::new();
    }
    let left = gone.mul_f64((1.0 - share.min(1.0)) / share);
    let words = indicatif::HumanDuration(Duration::from_secs(left.as_secs() + 1));
    format!(", about {words:#} left")
}

impl Progress {
    /// Of some work with so many slots; silent when only errors are wanted.
    pub fn new(works: &[Work], slots: usize) -> Self {
        let total = works.iter().map(Work::tokens).sum();
        let show = if !tracing::enabled!(tracing::Level::WARN) {
            Show::Quiet
        } else if std::io::stderr().is_terminal() {
            let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            let overall = multi.add(ProgressBar::new(GRAIN as u64));
            let style = "all    {wide_bar:.dim} {percent:>3} %  {msg}";
            overall.set_style(style_of(style));
            Show::Live { multi, overall }
        } else {
            Show::Plain
        };
        let progress = Self {
            show,
            slots: (0..slots.clamp(1, works.len().max(1)))
                .map(|_| Slot::default())
                .collect(),
            started: Instant::now(),
            units: works.len(),
            begun: 0,
            total,
            over: 0.0,
        };
        progress.overall();
        progress
    }

    /// A unit begins in a slot.
    pub fn begun(&mut self, slot: usize, work: &Work) {
        self.begun += 1;
        let unit = &work.unit;
        let mut title = format!("{} on {} seed {}", unit.architecture, unit.task, unit.seed);
        if let Some(training) = &unit.training {
            title.push_str(&format!(" lr {}", training.learning_rate));
            let distribution = training.distribution();
            if distribution != TrainDistribution::default() {
                title.push_str(&format!(" lengths {distribution}"));
            }
        }
        let bar = match &self.show {
            Show::Live { multi, overall } => {
                let bar = multi.insert_before(overall, ProgressBar::new(GRAIN as u64));
                bar.set_style(style_of("{prefix} {wide_msg} {bar:12.dim}"));
                // Short: the numbers beside it must fit into 80 columns.
                bar.set_prefix(format!(
                    "{}/{} s{}",
                    unit.architecture, unit.task, unit.seed
                ));
                Some(bar)
            }
            _ => None,
        };
        self.slots[slot] = Slot {
            bar,
            title,
            number: self.begun,
            steps: unit.training.as_ref().map_or(0, |training| training.steps),
            training: work.training_tokens(),
            evaluations: work
                .evaluations
                .iter()
                .map(|what| (what.length, what.tokens()))
                .collect(),
            begun: Some(Instant::now()),
            spoke: Some(Instant::now()),
            ..Slot::default()
        };
        if matches!(self.show, Show::Plain) {
            let what = if work.train {
                "training"
            } else {
                "evaluating the saved model"
            };
            self.line(slot, what);
        }
        self.overall();
    }

    /// A worker begins on these lengths.
    pub fn lengths(&mut self, slot: usize, lengths: Vec<usize>) {
        self.slots[slot].lengths = lengths;
    }

    /// A worker said something.
    pub fn said(&mut self, slot: usize, message: &Message) {
        let now = &mut self.slots[slot];
        let words = match message {
            Message::Progress {
                step,
                loss,
                accuracy,
                ..
            } => {
                now.done = now.training * (step + 1) as f64 / now.steps.max(1) as f64;
                let accuracy =
                    accuracy.map_or(String::new(), |a| format!(", accuracy {:.0} %", 100.0 * a));
                format!("step {}/{}, loss {loss:.3}{accuracy}", step + 1, now.steps)
            }
            Message::GoesOn { step } => {
                // Said whenever it was: where a run goes on is what `--resume` is watched for.
                now.spoke = None;
                format!("training goes on at step {step} of {}", now.steps)
            }
            Message::Trained { .. } => {
                now.done = now.training;
                "trained".to_owned()
            }
            Message::Evaluating { index } => {
                now.at = now.lengths.get(*index).copied();
                format!("reading {} tokens", now.at.unwrap_or(0))
            }
            Message::Evaluation { share } => {
                now.done = now.training + now.before() + share * now.weight_here();
                format!(
                    "reading {} tokens, {:.0} %",
                    now.at.unwrap_or(0),
                    100.0 * share
                )
            }
            _ => return,
        };
        if let Some(bar) = &now.bar {
            bar.set_message(words);
            bar.set_position(now.position());
        } else if matches!(self.show, Show::Plain)
            && now.spoke.is_none_or(|spoke| spoke.elapsed() >= PLAIN)
        {
            now.spoke = Some(Instant::now());
            self.line(slot, &words);
        }
        self.overall();
    }

    /// A length has its record.
    pub fn measured(&mut self, slot: usize, row: &Measurement) {
        let now = &mut self.slots[slot];
        let length = row.eval_length as usize;
        now.cells.push(match row.value {
            Some(value) if row.status == Status::Ok => match Kind::of(&row.metric).is_accuracy() {
                true => format!("{length}: {:.1} %", 100.0 * value),
                false => format!("{length}: {value:.3}"),
            },
            _ => format!("{length}: {}", row.status.name()),
        });
        now.at = Some(length);
        now.done = now.training + now.before() + now.weight_here();
        if let Some(bar) = &now.bar {
            bar.set_position(now.position());
        }
        if !matches!(row.status, Status::Ok | Status::NotRun) {
            let words = format!("{} at {length} tokens: {}", row.status.name(), row.reason);
            self.line(slot, &words);
        }
        self.overall();
    }

    /// A slot's unit is over.
    pub fn over(&mut self, slot: usize) {
        let now = std::mem::take(&mut self.slots[slot]);
        self.over += now.weight();
        if let (Some(bar), Show::Live { multi, .. }) = (&now.bar, &self.show) {
            bar.finish_and_clear();
            multi.remove(bar);
        }
        let seconds = now.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        if !now.cells.is_empty() {
            let words = format!("{} in {seconds:.1} s", now.cells.join("  "));
            self.slots[slot] = Slot { bar: None, ..now };
            self.line(slot, &words);
        }
        self.slots[slot] = Slot::default();
        self.overall();
    }

    /// A plugin's log event, to the log with the plugin's unit.
    pub fn plugin_log(&self, slot: usize, level: &str, text: &str) {
        let unit = self.slots[slot].title.as_str();
        self.aside(|| match level {
            "error" => tracing::error!(unit, "{text}"),
            "warn" => tracing::warn!(unit, "{text}"),
            "info" => tracing::info!(unit, "{text}"),
            _ => tracing::debug!(unit, "{text}"),
        });
    }

    /// Nothing happened for a while: only time went by.
    pub fn tick(&self) {
        self.overall();
    }

    /// Clears the live lines.
    pub fn finish(&self) {
        for bar in self.slots.iter().filter_map(|slot| slot.bar.as_ref()) {
            bar.finish_and_clear();
        }
        if let Show::Live { multi, overall } = &self.show {
            overall.finish_and_clear();
            let _ = multi.clear();
        }
    }

    /// One plain line on a slot's unit.
    fn line(&self, slot: usize, words: &str) {
        let now = &self.slots[slot];
        let line = format!("[{}/{}] {}: {words}", now.number, self.units, now.title);
        match &self.show {
            Show::Quiet => {}
            // A reader that is gone must not end the run.
            Show::Plain => drop(writeln!(std::io::stderr(), "{line}")),
            Show::Live { multi, .. } => {
                let _ = multi.println(line);
            }
        }
    }

    /// Writes something else without tearing the live lines.
    fn aside(&self, write: impl FnOnce()) {
        match &self.show {
            Show::Live { multi, .. } => multi.suspend(write),
            Show::Quiet | Show::Plain => write(),
        }
    }

    fn overall(&self) {
        let Show::Live { overall, .. } = &self.show else {
            return;
        };
        let done = self.over + self.slots.iter().map(|slot| slot.done).sum::<f64>();
        let share = done / self.total.max(1.0);
        overall.set_position((GRAIN * share) as u64);
        let gone = indicatif::HumanDuration(Duration::from_secs(self.started.elapsed().as_secs()));
        let left = left(self.started, share);
        overall.set_message(format!(
            "{} of {} begun, {gone:#} gone{left}",
            self.begun, self.units
        ));
    }
}

impl Slot {
    /// Work of the whole unit.
    fn weight(&self) -> f64 {
        self.training
            + self
                .evaluations
                .iter()
                .map(|evaluation| evaluation.1)
                .sum::<f64>()
    }

    /// Work of the lengths before the present one.
    fn before(&self) -> f64 {
        let at = self.at.unwrap_or(0);
        let shorter = self
            .evaluations
            .iter()
            .filter(|evaluation| evaluation.0 < at);
        shorter.map(|evaluation| evaluation.1).sum()
    }

    /// Work of the present length.
    fn weight_here(&self) -> f64 {
        let here = self
            .evaluations
            .iter()
            .find(|evaluation| Some(evaluation.0) == self.at);
        here.map_or(0.0, |evaluation| evaluation.1)
    }

    fn position(&self) -> u64 {
        (GRAIN * self.done / self.weight().max(1.0)) as u64
    }
}

fn style_of(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("##-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_said_when_something_is_known_of_it() {
        let Some(ago) = Instant::now().checked_sub(Duration::from_secs(100)) else {
            return;
        };
        assert_eq!(left(Instant::now(), 0.5), "");
        assert_eq!(left(ago, 0.0), "");
        assert_eq!(left(ago, 0.5), ", about 2m left");
    }
}
