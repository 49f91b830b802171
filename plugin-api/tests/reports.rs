//! Reports of training steps at both sides of the boundary: what is read, what need not be, and what is an error.

#![cfg(feature = "load")]

use longhaul_plugin_api::abi::{AbiResult, ModelAbi, ModelAbi_TO, ModelBox, SessionBox};
use longhaul_plugin_api::abi_stable::std_types::{RResult, RSlice, RSliceMut, RVec};
use longhaul_plugin_api::abi_stable::type_level::downcasting::TD_Opaque;
use longhaul_plugin_api::author::{Model, Result, Session, model_box};
use longhaul_plugin_api::client::{ClientError, LoadedModel};
use longhaul_plugin_api::data::{Batch, ParameterInfo, ParameterRole, StepReport, TrainConfig};
use longhaul_plugin_api::error::{ErrorKind, PluginError};
use longhaul_plugin_api::metadata::StateGrowth;

/// Answers every step with the same report.
#[derive(Clone, Copy)]
struct Scripted(StepReport);

fn parameter() -> ParameterInfo {
    ParameterInfo {
        name: "weight".into(),
        shape: vec![1].into(),
        role: ParameterRole::Mixer,
    }
}

fn nothing<T>() -> Result<T> {
    Err(PluginError::unsupported("nobody asks for this"))
}

impl Model for Scripted {
    fn parameters(&self) -> Vec<ParameterInfo> {
        vec![parameter()]
    }

    fn read_parameter(&self, _index: usize, _values: &mut [f32]) -> Result<()> {
        nothing()
    }

    fn write_parameter(&mut self, _index: usize, _values: &[f32]) -> Result<()> {
        nothing()
    }

    fn begin_training(&mut self, _config: &TrainConfig) -> Result<()> {
        Ok(())
    }

    fn train_step(&mut self, _batch: &Batch<'_>, _step: u64) -> Result<StepReport> {
        Ok(self.0)
    }

    fn loss_and_gradients(&mut self, _batch: &Batch<'_>) -> Result<StepReport> {
        Ok(self.0)
    }

    fn read_gradient(&self, _index: usize, _values: &mut [f32]) -> Result<()> {
        nothing()
    }

    fn state_growth(&self) -> StateGrowth {
        StateGrowth::Constant
    }

    fn declared_state_bytes(&self, _length: u64) -> u64 {
        0
    }

    fn new_session(&self, _rows: usize) -> Result<Box<dyn Session>> {
        nothing()
    }
}

/// The same without what the author's side checks.
struct Unchecked(Scripted);

impl ModelAbi for Unchecked {
    fn parameters(&self) -> RVec<ParameterInfo> {
        vec![parameter()].into()
    }

    fn read_parameter(&self, _index: usize, _values: RSliceMut<'_, f32>) -> AbiResult<()> {
        nothing().into()
    }

    fn write_parameter(&mut self, _index: usize, _values: RSlice<'_, f32>) -> AbiResult<()> {
        nothing().into()
    }

    fn begin_training(&mut self, _config: TrainConfig) -> AbiResult<()> {
        RResult::ROk(())
    }

    fn train_step(&mut self, _batch: Batch<'_>, _step: u64) -> AbiResult<StepReport> {
        RResult::ROk(self.0.0)
    }

    fn loss_and_gradients(&mut self, _batch: Batch<'_>) -> AbiResult<StepReport> {
        RResult::ROk(self.0.0)
    }

    fn read_gradient(&self, _index: usize, _values: RSliceMut<'_, f32>) -> AbiResult<()> {
        nothing().into()
    }

    fn state_growth(&self) -> StateGrowth {
        StateGrowth::Constant
    }

    fn declared_state_bytes(&self, _length: u64) -> u64 {
        0
    }

    fn new_session(&self, _rows: usize) -> AbiResult<SessionBox> {
        nothing().into()
    }
}

/// A model of one parameter whose answers the author's side checks, and one whose answers nobody has checked.
fn models(report: StepReport) -> [LoadedModel; 2] {
    let model = Scripted(report);
    let unchecked: ModelBox = ModelAbi_TO::from_value(Unchecked(model), TD_Opaque);
    let boxes = [model_box(Box::new(model)), unchecked];
    boxes.map(|model| LoadedModel::new("scripted", model).expect("a model"))
}

const FULL: StepReport = StepReport {
    loss: 1.5,
    gradient_norm: 0.5,
    learning_rate: 0.1,
    scored: 2,
    correct: 1,
};

fn step(model: &mut LoadedModel, step: u64) -> std::result::Result<StepReport, ClientError> {
    model.train_step(Batch::new(&[1, 2, 3], &[2, -1, 3], 1, 3), step)
}

/// A training of ten steps, reported as often as said.
fn begin(model: &mut LoadedModel, every: Option<u64>) {
    let config = TrainConfig {
        learning_rate: 0.1,
        total_steps: 10,
        ..TrainConfig::default()
    };
    let config = match every {
        Some(every) => config.reported_every(every),
        None => config,
    };
    model.begin_training(&config).expect("a training");
}

#[test]
fn a_full_report_is_always_taken() {
    for mut model in models(FULL) {
        for every in [None, Some(4)] {
            begin(&mut model, every);
            for number in [0, 1, 4, 9] {
                assert_eq!(step(&mut model, number).expect("a report"), FULL);
            }
        }
    }
}

#[test]
fn numbers_that_no_step_can_have_are_lies() {
    let loss = |loss| StepReport { loss, ..FULL };
    let rate = |learning_rate| StepReport {
        learning_rate,
        ..FULL
    };
    let lies = [
        loss(-5.0),
        loss(1e308),
        rate(f64::NAN),
        rate(-0.1),
        rate(0.2),
    ];
    for report in lies {
        for mut model in models(report) {
            begin(&mut model, None);
            let error = step(&mut model, 3).expect_err("it cannot be");
            assert!(error.to_string().contains("bug in the plugin"), "{error}");
        }
    }
}

#[test]
fn an_unread_report_is_taken_where_none_is_due() {
    for mut model in models(StepReport::unread(0.1)) {
        begin(&mut model, Some(4));
        for number in [1, 2, 3, 5, 7] {
            let report = step(&mut model, number).expect("nothing is due");
            assert!(report.is_unread() && report.learning_rate == 0.1);
        }
        for number in [0, 4, 8, 9] {
            let error = step(&mut model, number).expect_err("it is due");
            assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
            let error = error.to_string();
            assert!(error.contains(&format!("step {number}")), "{error}");
            assert!(error.contains("reported in full"), "{error}");
        }
    }
}

#[test]
fn nobody_who_was_not_asked_to_leaves_a_step_unread() {
    for mut model in models(StepReport::unread(0.1)) {
        assert!(step(&mut model, 3).is_err());
        begin(&mut model, None);
        assert!(step(&mut model, 3).is_err());
        // What one training asked for is not the next one's.
        begin(&mut model, Some(4));
        assert!(step(&mut model, 3).is_ok());
        begin(&mut model, None);
        assert!(step(&mut model, 3).is_err());
        begin(&mut model, Some(4));
        let batch = Batch::new(&[1, 2, 3], &[2, -1, 3], 1, 3);
        let error = model.loss_and_gradients(batch).expect_err("not a step");
        assert_eq!(error.kind(), ErrorKind::Numeric, "{error}");
    }
}

#[test]
fn what_is_neither_full_nor_unread_is_an_error() {
    let odd = [
        StepReport {
            loss: f64::NAN,
            ..FULL
        },
        StepReport {
            gradient_norm: f64::INFINITY,
            ..FULL
        },
        StepReport {
            gradient_norm: f64::NAN,
            ..StepReport::unread(0.1)
        },
        StepReport {
            loss: f64::INFINITY,
            ..StepReport::unread(0.1)
        },
    ];
    for report in odd {
        for mut model in models(report) {
            begin(&mut model, Some(4));
            for number in [3, 4] {
                let error = step(&mut model, number).expect_err("not finite");
                assert_eq!(error.kind(), ErrorKind::Numeric, "{report:?}: {error}");
            }
        }
    }
    // Counts that cannot be are the host's to find.
    let [_, mut model] = models(StepReport {
        loss: 0.0,
        ..StepReport::unread(0.1)
    });
    begin(&mut model, Some(4));
    let error = step(&mut model, 3).expect_err("the batch has two");
    assert!(error.to_string().contains("the batch has 2"), "{error}");
}
