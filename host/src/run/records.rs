//! From what a worker says to rows of `results.csv` and `training.csv`. An unknown value stays empty.

use std::sync::Arc;

use longhaul_results::metric::{Kind, Scores};
use longhaul_results::outcomes::{self, Outcomes};
use longhaul_results::{Measurement, Probe, Status, TrainingPoint};
use longhaul_tasks::Task;

use crate::run::plan::{Evaluation, Training, Unit};
use crate::worker::protocol::{Evaluated, Message, Observation, Observed, Score};

/// What all rows of a unit have in common.
#[derive(Clone)]
pub struct Common {
    /// A row without a measurement.
    row: Measurement,
    /// The task, whose chance depends on the length.
    task: Arc<dyn Task>,
}

/// The outcomes of a cell, for the folder `outcomes`.
#[derive(Debug, Clone)]
pub struct CellOutcomes {
    /// The unit, by id.
    pub unit: String,
    /// Its cell.
    pub cell: outcomes::Key,
    /// The metric of the scores.
    pub metric: String,
    /// The examples.
    pub outcomes: Outcomes,
}

impl Common {
    /// Of a unit, its id and its task.
    pub fn new(run_id: &str, device: &str, unit: &Unit, id: &str, task: Box<dyn Task>) -> Self {
        let training = unit.training.as_ref();
        let checkpoint = unit.checkpoint.as_ref();
        let of = |value: &dyn Fn(&Training) -> u64| training.map(value);
        Self {
            row: Measurement {
                run_id: run_id.to_owned(),
                unit: id.to_owned(),
                plugin: unit.plugin.clone(),
                plugin_version: unit.plugin_version.clone(),
                plugin_sha256: unit.plugin_sha256.clone(),
                architecture: unit.architecture.clone(),
                options: unit.options.clone(),
                checkpoint: checkpoint.map_or_else(String::new, |from| from.name.clone()),
                checkpoint_sha256: checkpoint.map_or_else(String::new, |from| from.sha256.clone()),
                task: unit.task.clone(),
                task_options: unit.task_options.clone(),
                seed: unit.seed,
                train_length_min: of(&|training| training.length_min as u64),
                train_length: unit.train_length().map(|length| length as u64),
                train_distribution: training
                    .map_or_else(String::new, |training| training.distribution().to_string()),
                train_steps: of(&|training| training.steps),
                batch: of(&|training| training.batch as u64),
                learning_rate: training.map(|training| training.learning_rate),
                warmup_steps: of(&|training| training.warmup_steps),
                weight_decay: training.map(|training| training.weight_decay),
                clip_norm: training.map(|training| training.clip_norm),
                metric: task.spec().metric.name().to_owned(),
                device: device.to_owned(),
                ..Measurement::default()
            },
            task: task.into(),
        }
    }

    /// Notes the values of all parameters, once the model stands.
    pub fn parameters(&mut self, parameters: u64) {
        self.row.parameters = Some(parameters);
    }

    /// A row that was not measured, with why.
    pub fn unmeasured(&self, what: Evaluation, status: Status, reason: &str) -> Measurement {
        Measurement {
            split: what.split,
            eval_length: what.length as u64,
            chance: self.task.chance(what.length),
            status,
            reason: one_line(reason),
            ..self.row.clone()
        }
    }

    /// The rows of an evaluation: breakdowns, then the whole cell. The cell comes last, so that where
    /// it stands, its breakdowns stand too.
    pub fn measured(&self, what: Evaluation, evaluated: &Evaluated) -> Vec<Measurement> {
        let kind = self.row.kind();
        let row = |score: &Score| {
            let scores = scores_of(score, kind);
            let interval = scores.and_then(|scores| kind.interval(&scores));
            let whole = score.label.is_empty();
            Measurement {
                label: score.label.clone(),
                chance: self
                    .task
                    .part(&score.label)
                    .unwrap_or(self.task.as_ref())
                    .chance(what.length),
                samples: Some(score.samples),
                correct: (kind == Kind::ZeroOne).then_some(score.sum as u64),
                value: scores.map(|scores| scores.mean),
                value_sd: scores.and_then(|scores| scores.sd),
                value_low: interval.map(|(_, ends)| ends.0),
                value_high: interval.map(|(_, ends)| ends.1),
                interval: interval.map_or_else(String::new, |(name, _)| name.to_owned()),
                nll: (score.tokens > 0).then(|| score.nll_sum / score.tokens as f64),
                // A pass over all examples has one time, one state and one peak: the cell's.
                state_bytes: whole.then_some(evaluated.state_bytes),
                peak_memory_bytes: evaluated.peak_memory_bytes.filter(|_| whole),
                seconds: whole.then_some(evaluated.seconds),
                tokens_per_second: (whole && evaluated.seconds > 0.0)
                    .then(|| evaluated.tokens as f64 / evaluated.seconds),
                ..self.unmeasured(what, Status::Ok, "")
            }
        };
        evaluated.scores.iter().map(row).collect()
    }

    /// What each example of an evaluation scored, as it is kept.
    pub fn outcomes(&self, what: Evaluation, evaluated: &Evaluated) -> Option<CellOutcomes> {
        Some(CellOutcomes {
            unit: self.row.unit.clone(),
            cell: (what.split, what.length as u64),
            metric: self.row.metric.clone(),
            outcomes: evaluated.outcomes.clone()?,
        })
    }

    /// The rows of what else was seen in an evaluation.
    pub fn probes(&self, what: Evaluation, evaluated: &Evaluated) -> Vec<Probe> {
        let row = &self.row;
        let probe = |seen: &Observation| {
            let count = seen.samples as f64;
            let value = seen.sum / count;
            let spread = (seen.sum_squares - count * value * value).max(0.0);
            let probe = Probe {
                run_id: row.run_id.clone(),
                unit: row.unit.clone(),
                architecture: row.architecture.clone(),
                options: row.options.clone(),
                checkpoint: row.checkpoint.clone(),
                task: row.task.clone(),
                task_options: row.task_options.clone(),
                seed: row.seed,
                train_length: row.train_length,
                train_distribution: row.train_distribution.clone(),
                learning_rate: row.learning_rate,
                split: what.split,
                eval_length: what.length as u64,
                position: seen.position,
                samples: seen.samples,
                value,
                deviation: (seen.samples > 1).then(|| (spread / (count - 1.0)).sqrt()),
                ..Probe::default()
            };
            match &seen.what {
                Observed::StateNorm {
                    layer,
                    state,
                    bytes,
                } => Probe {
                    probe: "state_norm".to_owned(),
                    layer: Some(*layer),
                    state: state.clone(),
                    state_bytes: Some(*bytes),
                    ..probe
                },
                Observed::Remembrance { skipped } => Probe {
                    probe: "effective_remembrance".to_owned(),
                    skipped: Some(*skipped),
                    ..probe
                },
            }
        };
        evaluated.observations.iter().map(probe).collect()
    }

    /// The row of a recorded training step; `None` of any other message.
    pub fn point(&self, message: &Message) -> Option<TrainingPoint> {
        let Message::Progress {
            step,
            loss,
            accuracy,
            gradient_norm,
            learning_rate,
            tokens_per_second,
            seconds,
            record: true,
        } = *message
        else {
            return None;
        };
        let row = &self.row;
        Some(TrainingPoint {
            run_id: row.run_id.clone(),
            unit: row.unit.clone(),
            plugin: row.plugin.clone(),
            architecture: row.architecture.clone(),
            options: row.options.clone(),
            task: row.task.clone(),
            task_options: row.task_options.clone(),
            seed: row.seed,
            train_length: row.train_length?,
            train_distribution: row.train_distribution.clone(),
            learning_rate: row.learning_rate?,
            step,
            loss: Some(loss),
            accuracy,
            gradient_norm,
            step_learning_rate: Some(learning_rate),
            tokens_per_second,
            seconds: Some(seconds),
        })
    }
}

/// Words of a plugin on one line of bounded length.
fn one_line(words: &str) -> String {
    const MOST: usize = 400;
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        None => line,
        Some((end, _)) => format!("{}...", &line[..end]),
    }
}

/// Mean of a score's samples, and of shares and losses their deviation; `None` of no samples.
fn scores_of(score: &Score, kind: Kind) -> Option<Scores> {
    Some(Scores {
        samples: score.samples,
        mean: score.mean()?,
        sd: score.spread().filter(|_| kind != Kind::ZeroOne),
    })
}

#[cfg(test)]
pub mod tests {
    //! Also holds the unit that tests beside this module use.

    use longhaul_tasks::InitialState;

    use super::*;
    use crate::run::plan::Probes;

    /// A unit for tests.
    pub fn unit(steps: u64) -> Unit {
        Unit {
            name: "arch-parity-s0".into(),
            plugin: "p".into(),
            plugin_version: "0.1.0".into(),
            plugin_sha256: "ab".into(),
            architecture: "arch".into(),
            options: "d_model=64,layers=2".into(),
            d_model: 64,
            layers: 2,
            task: "parity".into(),
            task_options: longhaul_tasks::parse_task("parity").unwrap().options_text(),
            seed: 0,
            samples: 10,
            lengths: vec![40, 80],
            validation: Vec::new(),
            training: Some(Training {
                length_min: 3,
                length: 40,
                curriculum: None,
                steps,
                batch: 4,
                learning_rate: 1e-3,
                warmup_steps: 0,
                weight_decay: 0.1,
                clip_norm: 1.0,
                initial_state: InitialState::Zero,
            }),
            checkpoint: None,
            probes: Probes::default(),
            materials: None,
        }
    }

    /// What the rows of a unit have in common.
    pub fn common(unit: &Unit) -> Common {
        let task = longhaul_tasks::parse_task("parity").unwrap();
        Common::new("id", "cpu", unit, &unit.id(), task)
    }

    /// Ten test examples of a length.
    pub fn at(length: usize) -> Evaluation {
        Evaluation {
            split: longhaul_results::Split::Test,
            length,
            samples: 10,
        }
    }

    /// The rows of a unit's good evaluation at a length: a breakdown and the whole.
    pub fn good(unit: &Unit, length: usize, label: &str) -> Vec<Measurement> {
        let score = |label: &str| Score {
            label: label.into(),
            tokens: 4,
            nll_sum: 1.0,
            ..Score::answers(4, 2)
        };
        let evaluated = Evaluated {
            scores: vec![score(label), score("")],
            state_bytes: 1,
            tokens: 4,
            seconds: 1.0,
            ..Evaluated::default()
        };
        common(unit).measured(at(length), &evaluated)
    }

    #[test]
    fn breakdowns_come_before_the_cell() {
        let score = |label: &str, samples, correct| Score {
            label: label.into(),
            tokens: samples,
            nll_sum: 1.0,
            ..Score::answers(samples, correct)
        };
        let evaluated = Evaluated {
            index: 0,
            scores: vec![score("depth=0.10", 4, 1), score("", 8, 6)],
            outcomes: None,
            observations: Vec::new(),
            state_bytes: 128,
            peak_memory_bytes: Some(1 << 20),
            tokens: 800,
            seconds: 2.0,
        };
        let rows = common(&unit(1)).measured(at(80), &evaluated);
        assert_eq!(rows[0].label, "depth=0.10");
        assert_eq!((rows[0].seconds, rows[0].state_bytes), (None, None));
        let cell = &rows[1];
        assert_eq!((cell.value, cell.nll), (Some(0.75), Some(0.125)));
        assert_eq!(cell.tokens_per_second, Some(400.0));
        assert!(cell.value_low.unwrap() < 0.75 && cell.value_high.unwrap() > 0.75);
        assert_eq!(cell.eval_length, 80);
    }

    #[test]
    fn probes_have_mean_and_deviation_over_examples() {
        let seen = |what, values: &[f64]| Observation {
            what,
            position: 80,
            samples: values.len() as u64,
            sum: values.iter().sum(),
            sum_squares: values.iter().map(|value| value * value).sum(),
        };
        let norm = Observed::StateNorm {
            layer: 1,
            state: "lstm".into(),
            bytes: 512,
        };
        let evaluated = Evaluated {
            observations: vec![
                seen(norm, &[1.0, 2.0, 4.0, 5.0]),
                seen(Observed::Remembrance { skipped: 20 }, &[0.25]),
            ],
            ..Evaluated::default()
        };
        let rows = common(&unit(1)).probes(at(80), &evaluated);
        let [state, far] = &rows[..] else {
            panic!("{rows:?}")
        };
        assert_eq!(
            (state.layer, state.state.as_str(), state.state_bytes),
            (Some(1), "lstm", Some(512))
        );
        // Squares of the distances from 3: 4, 1, 1, 4, over three.
        assert_eq!(state.value, 3.0);
        assert!((state.deviation.unwrap() - (10.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(
            (far.probe.as_str(), far.skipped),
            ("effective_remembrance", Some(20))
        );
        assert_eq!(
            (far.value, far.deviation, far.state_bytes),
            (0.25, None, None)
        );
        for row in &rows {
            assert_eq!(longhaul_results::Record::validate(row), Ok(()));
            assert_eq!(row.unit, unit(1).id());
        }
    }

    /// Two documents of 8 and 24 bytes, at 2 bits and 1 bit a byte: 40 bits over 32 bytes. The residuals of the
    /// ratio 1.25 are 6 and -6 bits, so their deviation is sqrt(72), over 16 bytes a document. One that
    /// weighs all documents alike says 1.5.
    #[test]
    fn a_loss_is_all_bits_over_all_bytes() {
        let mut score = Score::ratio(16.0, 8.0);
        score.add(&Score::ratio(24.0, 24.0));
        let found = scores_of(&score, Kind::Loss).unwrap();
        assert_eq!((found.samples, found.mean), (2, 1.25));
        assert!((found.sd.unwrap() - 72_f64.sqrt() / 16.0).abs() < 1e-12);
        // Of equal weights it is the usual deviation.
        let mut score = Score::ratio(16.0, 8.0);
        score.add(&Score::ratio(8.0, 8.0));
        let found = scores_of(&score, Kind::Loss).unwrap();
        assert_eq!(found.mean, 1.5);
        assert!((found.sd.unwrap() - 0.5_f64.sqrt()).abs() < 1e-12);
    }

    /// What `results` knows of metrics, by their names, is what tasks are measured in.
    #[test]
    fn every_metric_of_a_task_has_a_kind() {
        for spec in longhaul_tasks::registry() {
            assert!(Kind::named(spec.metric.name()).is_some(), "{}", spec.name);
        }
    }

    #[test]
    fn what_was_not_measured_is_empty() {
        let common = common(&unit(1));
        let row = common.unmeasured(at(80), Status::Crashed, "SIGSEGV:\n  at  x");
        assert_eq!((row.value, row.samples, row.nll), (None, None, None));
        assert_eq!(row.reason, "SIGSEGV: at x");
        let long = common.unmeasured(at(80), Status::Crashed, &"é".repeat(1000));
        assert!(long.reason.chars().count() < 410);
    }
}
