//! A library whose one architecture, `digits`, needs no training to answer right: of byte tokens it goes on with the
//! first run of seven digits that it read. It reads checkpoints of `model_type` `digits`.

use longhaul_plugin_api::abi_stable::std_types::{RVec, Tuple2};
use longhaul_plugin_api::author::{Model, Plugin, Result, Session};
use longhaul_plugin_api::checkpoint::{CheckpointPlan, MODEL_TYPE, TensorPlace};
use longhaul_plugin_api::data::{
    Batch, FeedOutput, Logits, ModelConfig, ParameterInfo, ParameterRole, StepReport, TrainConfig,
};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::{
    ArchitectureInfo, Family, LibraryInfo, OptionKind, OptionSpec, OptionValue, StateGrowth,
};

/// Digits of a run.
const RUN: usize = 7;
/// Token ids: bytes.
const VOCAB: u32 = 256;

struct ReadsDigits;

impl Plugin for ReadsDigits {
    fn describe() -> LibraryInfo {
        let option = |name: &str, help: &str, kind| OptionSpec {
            name: name.into(),
            help: help.into(),
            kind,
        };
        let most = OptionKind::Integer {
            default: 1 << 30,
            min: 1,
            max: 1 << 30,
        };
        LibraryInfo {
            name: "longhaul-digits".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            licence: "MIT OR Apache-2.0".into(),
            authors: vec!["The Longhaul developers".into()].into(),
            architectures: vec![ArchitectureInfo {
                name: "digits".into(),
                title: "Repeats the first seven digits that it read".into(),
                family: Family::Rnn,
                citation: "@misc{longhauldigits,\n  title = {A reader of digits},\n  author = {{The Longhaul developers}},\n  year = {2026}\n}".into(),
                options: vec![
                    option("forks", "Whether sessions can be forked.", OptionKind::Boolean { default: true }),
                    option("most", "Tokens that it can read.", most),
                ]
                .into(),
                state_growth: StateGrowth::Constant,
                devices: vec!["cpu".into()].into(),
                capabilities: RVec::new(),
                extra: RVec::new(),
            }]
            .into(),
            extra: vec![Tuple2(MODEL_TYPE.into(), "digits".into())].into(),
        }
    }

    fn build(config: &ModelConfig) -> Result<Box<dyn Model>> {
        let mut digits = Digits {
            forks: true,
            most: u64::MAX,
        };
        for option in &config.options {
            match (option.0.as_str(), &option.1) {
                ("forks", OptionValue::Boolean(forks)) => digits.forks = *forks,
                ("most", OptionValue::Integer(most)) => digits.most = *most as u64,
                (name, _) => return Err(PluginError::bad_option(name)),
            }
        }
        Ok(Box::new(digits))
    }

    fn checkpoint(_: &str, config: &str) -> Result<CheckpointPlan> {
        let mut options = RVec::new();
        if config.contains("\"forks\": false") {
            options.push(Tuple2("forks".into(), "false".into()));
        }
        if let Some((_, rest)) = config.split_once("\"most\": ") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            options.push(Tuple2("most".into(), digits.into()));
        }
        Ok(CheckpointPlan {
            architecture: "digits".into(),
            options,
            vocab: VOCAB,
            d_model: 1,
            layers: 1,
            max_length: 0,
            tensors: vec![TensorPlace {
                tensor: "one".into(),
                shape: vec![1].into(),
                parameter: "one".into(),
                offset: 0,
                add: 0.0,
                extra: RVec::new(),
            }]
            .into(),
            extra: RVec::new(),
        })
    }
}

#[derive(Clone)]
struct Digits {
    forks: bool,
    most: u64,
}

impl Model for Digits {
    fn parameters(&self) -> Vec<ParameterInfo> {
        vec![ParameterInfo {
            name: "one".into(),
            shape: vec![1].into(),
            role: ParameterRole::Mixer,
        }]
    }
    fn read_parameter(&self, _: usize, values: &mut [f32]) -> Result<()> {
        values.fill(1.0);
        Ok(())
    }
    fn write_parameter(&mut self, _: usize, _: &[f32]) -> Result<()> {
        Ok(())
    }
    fn begin_training(&mut self, _: &TrainConfig) -> Result<()> {
        Err(PluginError::unsupported("it is not trained"))
    }
    fn train_step(&mut self, _: &Batch<'_>, _: u64) -> Result<StepReport> {
        Err(PluginError::unsupported("it is not trained"))
    }
    fn loss_and_gradients(&mut self, _: &Batch<'_>) -> Result<StepReport> {
        Err(PluginError::unsupported("it is not trained"))
    }
    fn read_gradient(&self, _: usize, _: &mut [f32]) -> Result<()> {
        Err(PluginError::unsupported("it is not trained"))
    }
    fn state_growth(&self) -> StateGrowth {
        StateGrowth::Constant
    }
    fn declared_state_bytes(&self, _: u64) -> u64 {
        2 * RUN as u64
    }
    fn new_session(&self, rows: usize) -> Result<Box<dyn Session>> {
        if rows != 1 {
            return Err(PluginError::bad_option("it reads one row"));
        }
        Ok(Box::new(Read {
            model: self.clone(),
            position: 0,
            first: Vec::new(),
            last: Vec::new(),
        }))
    }
}

#[derive(Clone)]
struct Read {
    model: Digits,
    position: u64,
    /// The first run, once it is whole.
    first: Vec<u8>,
    /// The digits at the end of what was read, so many as a run has.
    last: Vec<u8>,
}

impl Read {
    fn read(&mut self, token: u32) {
        match u8::try_from(token).ok().filter(u8::is_ascii_digit) {
            Some(digit) => self.last.push(digit),
            None => self.last.clear(),
        }
        if self.last.len() == RUN {
            if self.first.is_empty() {
                self.first.clone_from(&self.last);
            }
            self.last.clear();
        }
        self.position += 1;
    }

    fn next(&self) -> u32 {
        self.first
            .get(self.last.len())
            .copied()
            .unwrap_or(b'?')
            .into()
    }
}

impl Session for Read {
    fn feed(&mut self, batch: &Batch<'_>, _: Logits) -> Result<FeedOutput> {
        let end = self.position + u64::from(batch.length);
        if end > self.model.most {
            let most = self.model.most;
            return Err(PluginError::bad_option(format!(
                "positions end at {most}, and {end} was asked for"
            )));
        }
        let mut output = FeedOutput::default();
        for (place, &token) in batch.tokens.iter().enumerate() {
            self.read(token);
            if let Some(&target) = batch.targets.get(place).filter(|target| **target >= 0) {
                let next = self.next();
                output.predictions.push(next);
                output
                    .nll
                    .push(if target as u32 == next { 0.1 } else { 5.0 });
            }
        }
        Ok(output)
    }
    fn position(&self) -> u64 {
        self.position
    }
    fn state_bytes(&self) -> u64 {
        2 * RUN as u64
    }
    fn reset(&mut self) -> Result<()> {
        (self.position, self.first, self.last) = (0, Vec::new(), Vec::new());
        Ok(())
    }
    fn fork(&self) -> Result<Box<dyn Session>> {
        if self.model.forks {
            return Ok(Box::new(self.clone()));
        }
        Err(PluginError::unsupported("it cannot be forked"))
    }
}

longhaul_plugin_api::export_plugin!(crate::ReadsDigits, "no kit");
