//! From what a worker says to rows of `results.csv` and `training.csv`. An unknown value stays empty.

use std::sync::Arc;

use longhaul_results::statistics::{Z95, wilson};
use longhaul_results::{Measurement, Status, TrainingPoint};
use longhaul_tasks::Task;

use crate::run::plan::Unit;
use crate::worker::protocol::{Evaluated, Message, Score};

/// What all rows of a unit have in common.
#[derive(Clone)]
pub struct Common {
    /// The run's id.
    pub run_id: String,
    /// Device.
    pub device: String,
    /// Values of all parameters, once the model stands.
    pub parameters: Option<u64>,
    /// The task.
    pub task: Arc<dyn Task>,
}

impl Common {
    /// Of a unit's task.
    pub fn new(run_id: &str, device: &str, task: Box<dyn Task>) -> Self {
        Self {
            run_id: run_id.to_owned(),
            device: device.to_owned(),
            parameters: None,
            task: task.into(),
        }
    }

    /// A row that was not measured, with why.
    pub fn unmeasured(
        &self,
        unit: &Unit,
        length: usize,
        status: Status,
        reason: &str,
    ) -> Measurement {
        Measurement {
            run_id: self.run_id.clone(),
            plugin: unit.plugin.clone(),
            plugin_version: unit.plugin_version.clone(),
            plugin_sha256: unit.plugin_sha256.clone(),
            architecture: unit.architecture.clone(),
            options: unit.options.clone(),
            parameters: self.parameters,
            task: unit.task.clone(),
            task_options: unit.task_options.clone(),
            seed: unit.seed,
            learning_rate: unit.learning_rate,
            train_length: unit.train_length as u64,
            train_steps: unit.steps,
            eval_length: length as u64,
            label: String::new(),
            metric: self.task.spec().metric.name().to_owned(),
            samples: None,
            correct: None,
            value: None,
            value_low: None,
            value_high: None,
            chance: Some(self.task.chance(length)),
            nll: None,
            state_bytes: None,
            peak_memory_bytes: None,
            seconds: None,
            tokens_per_second: None,
            device: self.device.clone(),
            status,
            reason: one_line(reason),
        }
    }

    /// The rows of an evaluation: breakdowns, then the whole cell. The cell comes last, so that where
    /// it stands, its breakdowns stand too.
    pub fn measured(&self, unit: &Unit, length: usize, evaluated: &Evaluated) -> Vec<Measurement> {
        let row = |score: &Score| {
            let limits = (score.samples > 0).then(|| wilson(score.correct, score.samples, Z95));
            let whole = score.label.is_empty();
            Measurement {
                label: score.label.clone(),
                samples: Some(score.samples),
                correct: Some(score.correct),
                value: (score.samples > 0).then(|| score.correct as f64 / score.samples as f64),
                value_low: limits.map(|limits| limits.0),
                value_high: limits.map(|limits| limits.1),
                nll: (score.tokens > 0).then(|| score.nll_sum / score.tokens as f64),
                // A pass over all examples has one time, one state and one peak: the cell's.
                state_bytes: whole.then_some(evaluated.state_bytes),
                peak_memory_bytes: evaluated.peak_memory_bytes.filter(|_| whole),
                seconds: whole.then_some(evaluated.seconds),
                tokens_per_second: (whole && evaluated.seconds > 0.0)
                    .then(|| evaluated.tokens as f64 / evaluated.seconds),
                ..self.unmeasured(unit, length, Status::Ok, "")
            }
        };
        evaluated.scores.iter().map(row).collect()
    }

    /// The row of a recorded training step; `None` of any other message.
    pub fn point(&self, unit: &Unit, message: &Message) -> Option<TrainingPoint> {
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
        Some(TrainingPoint {
            run_id: self.run_id.clone(),
            plugin: unit.plugin.clone(),
            architecture: unit.architecture.clone(),
            options: unit.options.clone(),
            task: unit.task.clone(),
            task_options: unit.task_options.clone(),
            seed: unit.seed,
            learning_rate: unit.learning_rate,
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

/// A row with nothing in it: its fields name a file's columns.
pub fn blank_measurement() -> Measurement {
    Measurement {
        run_id: String::new(),
        plugin: String::new(),
        plugin_version: String::new(),
        plugin_sha256: String::new(),
        architecture: String::new(),
        options: String::new(),
        parameters: None,
        task: String::new(),
        task_options: String::new(),
        seed: 0,
        learning_rate: 0.0,
        train_length: 0,
        train_steps: 0,
        eval_length: 0,
        label: String::new(),
        metric: String::new(),
        samples: None,
        correct: None,
        value: None,
        value_low: None,
        value_high: None,
        chance: None,
        nll: None,
        state_bytes: None,
        peak_memory_bytes: None,
        seconds: None,
        tokens_per_second: None,
        device: String::new(),
        status: Status::NotRun,
        reason: String::new(),
    }
}

/// A training point with nothing in it.
pub fn blank_point() -> TrainingPoint {
    TrainingPoint {
        run_id: String::new(),
        plugin: String::new(),
        architecture: String::new(),
        options: String::new(),
        task: String::new(),
        task_options: String::new(),
        seed: 0,
        learning_rate: 0.0,
        step: 0,
        loss: None,
        accuracy: None,
        gradient_norm: None,
        step_learning_rate: None,
        tokens_per_second: None,
        seconds: None,
    }
}

#[cfg(test)]
pub mod tests {
    //! Also holds the unit that tests beside this module use.

    use super::*;

    /// A unit for tests.
    pub fn unit(steps: u64) -> Unit {
        Unit {
            name: "arch-parity-s0".into(),
            model: "models/arch-parity-s0.safetensors".into(),
            plugin: "p".into(),
            plugin_version: "0.1.0".into(),
            plugin_sha256: "ab".into(),
            architecture: "arch".into(),
            options: "d_model=64,layers=2".into(),
            task: "parity".into(),
            task_options: String::new(),
            train_length_min: 3,
            train_length: 40,
            seed: 0,
            learning_rate: 1e-3,
            steps,
            batch: 4,
            warmup_steps: 0,
            weight_decay: 0.1,
            clip_norm: 1.0,
            samples: 10,
            lengths: vec![40, 80],
            checkpoint: None,
        }
    }

    #[test]
    fn breakdowns_come_before_the_cell() {
        let task = longhaul_tasks::parse_task("parity").unwrap();
        let common = Common::new("id", "cpu", task);
        let score = |label: &str, samples, correct| Score {
            label: label.into(),
            samples,
            correct,
            tokens: samples,
            nll_sum: 1.0,
        };
        let evaluated = Evaluated {
            index: 0,
            scores: vec![score("depth=0.10", 4, 1), score("", 8, 6)],
            state_bytes: 128,
            peak_memory_bytes: Some(1 << 20),
            tokens: 800,
            seconds: 2.0,
        };
        let rows = common.measured(&unit(1), 80, &evaluated);
        assert_eq!(rows[0].label, "depth=0.10");
        assert_eq!((rows[0].seconds, rows[0].state_bytes), (None, None));
        let cell = &rows[1];
        assert_eq!((cell.value, cell.nll), (Some(0.75), Some(0.125)));
        assert_eq!(cell.tokens_per_second, Some(400.0));
        assert!(cell.value_low.unwrap() < 0.75 && cell.value_high.unwrap() > 0.75);
        assert_eq!(cell.eval_length, 80);
    }

    #[test]
    fn what_was_not_measured_is_empty() {
        let task = longhaul_tasks::parse_task("parity").unwrap();
        let common = Common::new("id", "cpu", task);
        let row = common.unmeasured(&unit(1), 80, Status::Crashed, "SIGSEGV:\n  at  x");
        assert_eq!((row.value, row.samples, row.nll), (None, None, None));
        assert_eq!(row.reason, "SIGSEGV: at x");
        let long = common.unmeasured(&unit(1), 80, Status::Crashed, &"é".repeat(1000));
        assert!(long.reason.chars().count() < 410);
    }
}
