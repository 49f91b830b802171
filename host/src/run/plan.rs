//! From a suite and the command line to a plan: every training with its evaluations, all of it
//! validated. A plan holds what decides the values that are measured and nothing else, so it has one
//! hash, the run's id. It opens no library and no device, and does not write.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use longhaul_plugin_api::variables;
use longhaul_results::{Cell, Split};
use longhaul_tasks::{
    InitialState, Materials, Suite, Task, TaskEntry, TrainDistribution, bounds, parse_task_of,
    recorded_task_of,
};
use serde::{Deserialize, Serialize};

use crate::architecture::{ArchSpec, INITIAL_STATE};
use crate::cli::ProbeArgs;
use crate::device;
use crate::number::{TRAININGS, short};
use crate::run::error::RunError;
use crate::run::lengths::doublings;
use crate::run::materials::{self, Stock, possible};
use crate::run::part::Part;
use crate::run::targets::{self, Target};

/// What the command line says beside or instead of the suite.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Replace the suite's architectures.
    pub architectures: Vec<String>,
    /// Replace the suite's tasks.
    pub tasks: Vec<String>,
    /// Evaluation lengths of every task, in tokens.
    pub lengths: Option<Vec<usize>>,
    /// Shortest and longest training length of every task, in tokens.
    pub train_length: Option<(usize, usize)>,
    /// Number of seeds.
    pub seeds: Option<u64>,
    /// The first of them.
    pub first_seed: u64,
    /// Peak learning rates.
    pub learning_rates: Vec<f64>,
    /// How training lengths are drawn.
    pub train_distributions: Vec<TrainDistribution>,
    /// Optimiser steps.
    pub steps: Option<u64>,
    /// Sequences a step.
    pub batch: Option<usize>,
    /// Model width.
    pub d_model: Option<u32>,
    /// Layers.
    pub layers: Option<u32>,
    /// Examples a length.
    pub samples: Option<u64>,
    /// What is looked at beside what the suite says.
    pub probes: Probes,
}

/// A model and what it is measured on: a training, or a checkpoint that is read, with its evaluations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Unique name, usable as a file name.
    pub name: String,
    /// Library.
    pub plugin: String,
    /// Its version.
    pub plugin_version: String,
    /// Hash of its file.
    pub plugin_sha256: String,
    /// Architecture inside it.
    pub architecture: String,
    /// Options that are not the default, and the model's size: the column `options`.
    pub options: String,
    /// Model width.
    pub d_model: u32,
    /// Layers.
    pub layers: u32,
    /// Task.
    pub task: String,
    /// All its options.
    pub task_options: String,
    /// Seed of initialisation and data.
    pub seed: u64,
    /// Examples a length.
    pub samples: u64,
    /// Evaluation lengths in tokens, ascending.
    pub lengths: Vec<usize>,
    /// Lengths inside the training length at which learning rates are compared, on examples of their
    /// own; empty where there is nothing to choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<usize>,
    /// The training; none of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// The checkpoint that is read instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// What a text task is made of; none of a task of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub materials: Option<materials::Record>,
    /// What is looked at beside the answers.
    #[serde(default, skip_serializing_if = "Probes::is_none")]
    pub probes: Probes,
}

/// What an evaluation looks at beside the answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probes {
    /// Whether the size of the recurrent state is recorded, by layer and position.
    pub state_norms: bool,
    /// Examples whose effective remembrance is measured.
    pub remembrance: u64,
    /// Other states to start from: all examples are read again from each.
    pub initial_states: Vec<InitialState>,
}

impl From<&ProbeArgs> for Probes {
    fn from(args: &ProbeArgs) -> Self {
        Self {
            state_norms: args.state_norms,
            remembrance: args.remembrance.unwrap_or(0),
            initial_states: args.initial_states.clone(),
        }
    }
}

impl Probes {
    /// These, and what a suite asks for, each state once; none is the zeros that all sequences start from anyway.
    pub fn beside(&self, suite: Option<&longhaul_tasks::Evaluation>) -> Self {
        let states = suite.into_iter().flat_map(|suite| &suite.initial_states);
        let mut initial_states = Vec::new();
        for state in states.chain(&self.initial_states) {
            if !state.is_zero() && !initial_states.contains(state) {
                initial_states.push(*state);
            }
        }
        Self {
            state_norms: self.state_norms || suite.is_some_and(|suite| suite.state_norms),
            remembrance: self
                .remembrance
                .max(suite.map_or(0, |suite| suite.remembrance)),
            initial_states,
        }
    }

    /// Whether nothing is.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Shortest length, in tokens.
    pub length_min: usize,
    /// Longest length, in tokens.
    pub length: usize,
    /// Part of the steps over which the longest length drawn grows from the shortest to the longest; without it
    /// all are drawn from the first step on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<f64>,
    /// Optimiser steps.
    pub steps: u64,
    /// Sequences a step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm; 0 switches clipping off.
    pub clip_norm: f64,
    /// What recurrent state sequences start from.
    #[serde(default, skip_serializing_if = "InitialState::is_zero")]
    pub initial_state: InitialState,
}

impl Training {
    /// Its size in tokens read: a step reads a token forward and backward, as much work as reading it three times.
    pub fn tokens(&self) -> f64 {
        self.sequence_tokens() * 3.0
    }

    /// Tokens of all its sequences, lengths at their mean.
    pub fn sequence_tokens(&self) -> f64 {
        let (shortest, longest) = (self.length_min as f64, self.length as f64);
        // While lengths grow, the longest drawn is half-way on average.
        let less = self.curriculum.unwrap_or(0.0) * (longest - shortest) / 4.0;
        let mean_length = (shortest + longest) / 2.0 - less;
        self.steps as f64 * self.batch as f64 * mean_length
    }

    /// Steps over which the longest length drawn grows.
    pub fn growing_steps(&self) -> u64 {
        let part = self.curriculum.unwrap_or(0.0);
        (part * self.steps as f64).round() as u64
    }

    /// The same with all lengths from the first step on.
    pub fn without_curriculum(&self) -> Self {
        Self {
            curriculum: None,
            ..self.clone()
        }
    }

    /// How its lengths are drawn.
    pub fn distribution(&self) -> TrainDistribution {
        match self.curriculum {
            _ if self.length_min == self.length => TrainDistribution::Fixed,
            None => TrainDistribution::Uniform,
            Some(part) => TrainDistribution::Curriculum(part),
        }
    }
}

/// A checkpoint of other software.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What it is called in the records, unlike every other one of the plan.
    pub name: String,
    /// Its folder.
    #[serde(with = "crate::path_text")]
    pub folder: PathBuf,
    /// Token ids of its model.
    pub vocab: u32,
    /// Longest training length in tokens, where its config or the user states one.
    pub train_length: Option<usize>,
    /// Hash of its config and weights.
    pub sha256: String,
}

/// One length to evaluate at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Which examples.
    pub split: Split,
    /// Length, in tokens.
    pub length: usize,
    /// Examples.
    pub samples: u64,
}

impl Evaluation {
    /// What names it in the records of a unit.
    pub fn cell(&self, unit: &str) -> Cell {
        Cell {
            unit: unit.to_owned(),
            split: self.split,
            eval_length: self.length as u64,
        }
    }

    /// Tokens that it reads.
    pub fn tokens(&self) -> f64 {
        self.length as f64 * self.samples as f64
    }
}

impl Unit {
    /// The task with its options, as text.
    pub fn task_text(&self) -> String {
        if self.task_options.is_empty() {
            return self.task.clone();
        }
        format!("{}:{}", self.task, self.task_options)
    }

    /// Its task, of its materials.
    ///
    /// # Errors
    /// A task of another version; materials that are gone or have changed.
    pub fn make_task(&self) -> Result<Box<dyn Task>, RunError> {
        let materials = self.open_materials()?;
        Ok(recorded_task_of(
            &self.task,
            &self.task_options,
            &materials,
        )?)
    }

    /// What its task is made of.
    ///
    /// # Errors
    /// Materials that are gone or have changed.
    pub fn open_materials(&self) -> Result<Materials, RunError> {
        let record = self.materials.as_ref();
        let opened = record.map_or_else(|| Ok(Materials::default()), materials::Record::open);
        opened.map_err(RunError::Input)
    }

    /// The same without the paths of its materials, which decide nothing.
    pub fn deciding(&self) -> Self {
        Self {
            materials: self.materials.as_ref().map(materials::Record::deciding),
            ..self.clone()
        }
    }

    /// The architecture as `--arch` takes it, with its library and the model's size.
    pub fn architecture_text(&self) -> String {
        format!("{}/{}:{}", self.plugin, self.architecture, self.options)
    }

    /// Name of the saved model's file, in the folder `models` of the run.
    pub fn model_name(&self) -> String {
        format!("{}.safetensors", self.name)
    }

    /// Longest training length in tokens, where it is known.
    pub fn train_length(&self) -> Option<usize> {
        match (&self.training, &self.checkpoint) {
            (Some(training), _) => Some(training.length),
            (None, Some(checkpoint)) => checkpoint.train_length,
            (None, None) => None,
        }
    }

    /// Hash of all that decides the model and its task, which names the unit in the records: the plan's
    /// evaluations and names have no part in it.
    pub fn id(&self) -> String {
        let mut deciding = self.deciding();
        deciding.name = String::new();
        deciding.samples = 0;
        deciding.lengths = Vec::new();
        deciding.validation = Vec::new();
        deciding.probes = Probes::default();
        // A letter in front: no reader of CSV takes it for a number.
        format!("u{}", &hash(&deciding)[..16])
    }

    /// Every evaluation that is planned, in order.
    pub fn evaluations(&self) -> Vec<Evaluation> {
        let of = |split, lengths: &[usize]| -> Vec<Evaluation> {
            let samples = self.samples;
            let one = |&length| Evaluation {
                split,
                length,
                samples,
            };
            lengths.iter().map(one).collect()
        };
        let mut all = of(Split::Validation, &self.validation);
        all.extend(of(Split::Test, &self.lengths));
        all
    }

    /// Its expected work, by which a plan is divided: tokens read by training and evaluations, times the size
    /// that a model's parameters grow with.
    pub fn work(&self) -> f64 {
        let training = self.training.as_ref().map_or(0.0, Training::tokens);
        let evaluations: f64 = self.evaluations().iter().map(Evaluation::tokens).sum();
        (training + evaluations) * f64::from(self.layers) * f64::from(self.d_model).powi(2)
    }

    /// What names every planned evaluation in the records.
    pub fn cells(&self) -> impl Iterator<Item = Cell> + use<> {
        let id = self.id();
        let evaluations = self.evaluations().into_iter();
        evaluations.map(move |evaluation| evaluation.cell(&id))
    }
}

/// A plan and the architectures that carry it out.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Hash of the units, the kind of device and the environment; of a part, that of the whole plan.
    pub run_id: String,
    /// Which part of a plan it is, where it is one.
    pub part: Option<Part>,
    /// The suite's name or path.
    pub suite: String,
    /// Devices: `cpu`, `cuda:N` or several cards with commas.
    pub device: String,
    /// Variables that change what is computed there.
    pub environment: Environment,
    /// The trainings.
    pub units: Vec<Unit>,
    /// The architecture of each unit.
    pub architectures: Vec<ArchSpec>,
    /// Published figures that these units can be held against.
    pub targets: Vec<Target>,
}

/// Variables that change what is computed on this kind of device, by name.
pub type Environment = BTreeMap<String, String>;

/// Those that are set in this process.
pub fn environment(kind: &str) -> Environment {
    variables::in_force(kind, |name| std::env::var(name).ok())
        .into_iter()
        .collect()
}

/// Id of a run that has these units on devices of this kind, under these variables: a run may go on with
/// other cards.
pub fn run_id(kind: &str, environment: &Environment, units: &[Unit]) -> String {
    let deciding: Vec<Unit> = units.iter().map(Unit::deciding).collect();
    // A letter in front: no reader of CSV takes it for a number.
    format!("r{}", &hash(&(kind, environment, deciding))[..12])
}

/// Hash of plain data, in hexadecimal.
fn hash(data: &impl Serialize) -> String {
    let text = serde_json::to_string(data).expect("plain data serialises");
    longhaul_text::sha256_of(text.as_bytes())
}

/// Makes the plan of a suite with what the command line replaces. Text tasks are made of `stock`; `resolve` finds
/// an architecture by its text.
///
/// # Errors
/// An architecture, task, option, length or number that cannot be: the first one found.
pub fn make(
    suite: &Suite,
    suite_name: &str,
    overrides: &Overrides,
    devices: &str,
    stock: &Stock,
    resolve: &dyn Fn(&str) -> Result<ArchSpec, RunError>,
) -> Result<Plan, RunError> {
    let texts: Vec<&str> = if overrides.architectures.is_empty() {
        suite
            .architectures
            .iter()
            .map(|entry| entry.name.as_str())
            .collect()
    } else {
        overrides.architectures.iter().map(String::as_str).collect()
    };
    let entries: Vec<TaskEntry> = if overrides.tasks.is_empty() {
        suite.tasks.clone()
    } else {
        let own = overrides
            .tasks
            .iter()
            .map(|text| entries_of(suite, suite_name, text, stock));
        own.collect::<Result<Vec<_>, _>>()?.concat()
    };
    let nothing = |texts: &[&str]| texts.is_empty() && overrides.architectures.is_empty();
    let unserved = |entry: &TaskEntry| entry.architectures.is_none() && nothing(&texts);
    if entries.is_empty() || entries.iter().any(unserved) {
        let (what, flag) = if entries.is_empty() {
            ("task", "task")
        } else {
            ("architecture", "arch")
        };
        return Err(RunError::Input(format!(
            "suite `{suite_name}` names no {what}; add one, or give --{flag}"
        )));
    }
    let kind = device::kind(devices);
    let environment = environment(kind);
    let resolve = |text: &str| {
        let architecture = resolve(text)?;
        let refusal = architecture.runs_on(kind).err().map(RunError::Input);
        refusal.map_or(Ok(architecture), Err)
    };
    let mut tasks = Vec::new();
    for entry in &entries {
        let own = entry
            .architectures
            .as_ref()
            .filter(|_| overrides.architectures.is_empty());
        let own = own.map(|own| own.iter().map(String::as_str).collect());
        let texts: Vec<&str> = own.unwrap_or_else(|| texts.clone());
        tasks.push((TaskPlan::new(suite, entry, overrides, stock)?, texts));
    }
    let trainings = tasks
        .iter()
        .map(|(task, texts)| task.trainings(texts.len()));
    bounds::check("the number of trainings", trainings.sum(), &TRAININGS)
        .map_err(RunError::Input)?;
    let mut planned = Planned::default();
    for (task, texts) in &tasks {
        for text in texts {
            let architecture = resolve(text)?;
            for unit in task.units(suite, overrides, &architecture)? {
                planned.add(unit, &architecture)?;
            }
        }
    }
    let Planned {
        units,
        architectures,
        ..
    } = planned;
    let size = |architecture: &ArchSpec| model_size(suite, overrides, architecture);
    // Of a part of a suite the plugins of the other architectures need not be here.
    let whole = overrides.architectures.is_empty();
    let named = |text: &str| {
        let architecture = match resolve(text) {
            Err(_) if !whole => return Ok(None),
            known => known?,
        };
        let options = options_text(&architecture, size(&architecture)?);
        Ok(Some((architecture.architecture, options)))
    };
    let targets = targets::resolve(&suite.targets, &units, &stock.materials, &named)?;
    Ok(Plan {
        run_id: run_id(kind, &environment, &units),
        part: None,
        environment,
        suite: suite_name.to_owned(),
        device: devices.to_owned(),
        units,
        architectures,
        targets,
    })
}

/// The suite's own entries of a task, with their options and settings: all of that name where none of
/// its options are given, else those with the same options. Where it has none, an entry with the suite's
/// general settings.
fn entries_of(
    suite: &Suite,
    suite_name: &str,
    text: &str,
    stock: &Stock,
) -> Result<Vec<TaskEntry>, RunError> {
    let asked = parse_task_of(text, &stock.materials)?;
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for entry in &suite.tasks {
        let task = parse_task_of(&entry.name, &stock.materials)?;
        if task.spec().name != asked.spec().name {
            continue;
        }
        if !text.contains(':') || task.options_text() == asked.options_text() {
            own.push(entry.clone());
        } else {
            others.push(entry.name.clone());
        }
    }
    if !own.is_empty() {
        return Ok(own);
    }
    if !others.is_empty() {
        tracing::warn!(
            "suite `{suite_name}` has `{}`, and its settings are not those of `{text}`, which is trained \
             with the suite's general ones",
            others.join("`, `")
        );
    }
    Ok(vec![TaskEntry::new(text)])
}

/// Units in order, each once.
#[derive(Default)]
pub struct Planned {
    /// The units.
    pub units: Vec<Unit>,
    /// The architecture of each.
    pub architectures: Vec<ArchSpec>,
    places: HashMap<String, usize>,
}

impl Planned {
    /// Adds a unit. One that is there already is measured and validated at the lengths of both.
    ///
    /// # Errors
    /// The same unit with another number of examples.
    pub fn add(&mut self, unit: Unit, architecture: &ArchSpec) -> Result<(), RunError> {
        let place = *self.places.entry(unit.id()).or_insert(self.units.len());
        let Some(there) = self.units.get_mut(place) else {
            self.units.push(unit);
            self.architectures.push(architecture.clone());
            return Ok(());
        };
        if there.samples != unit.samples {
            return Err(RunError::Input(format!(
                "{} on `{}` is planned twice, with {} and with {} examples a length; give one number",
                unit.architecture,
                unit.task_text(),
                there.samples,
                unit.samples
            )));
        }
        for (there, own) in [
            (&mut there.lengths, unit.lengths),
            (&mut there.validation, unit.validation),
        ] {
            there.extend(own);
            there.sort_unstable();
            there.dedup();
        }
        Ok(())
    }
}

/// Width and layers of an architecture's models.
fn model_size(
    suite: &Suite,
    overrides: &Overrides,
    architecture: &ArchSpec,
) -> Result<(u32, u32), RunError> {
    let d_model = architecture
        .d_model
        .or(overrides.d_model)
        .unwrap_or(suite.model.d_model);
    let layers = architecture
        .layers
        .or(overrides.layers)
        .unwrap_or(suite.model.layers);
    let whose = &architecture.architecture;
    within("d_model", whose, d_model, &bounds::D_MODEL)?;
    within("layers", whose, layers, &bounds::LAYERS)?;
    Ok((d_model, layers))
}

/// The column `options` of an architecture: what is not the default, the model's size, and the state that its
/// training sequences start from where that is not its own.
fn options_text(architecture: &ArchSpec, (d_model, layers): (u32, u32)) -> String {
    let mut options = architecture.options.clone();
    options.push(("d_model".to_owned(), d_model.to_string()));
    options.push(("layers".to_owned(), layers.to_string()));
    let initial = architecture.initial_state.filter(|state| !state.is_zero());
    options.extend(initial.map(|state| (INITIAL_STATE.to_owned(), state.to_string())));
    options.sort();
    let options: Vec<String> = options
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    options.join(",")
}

/// Refuses a task that nothing can be trained on.
///
/// # Errors
/// One whose answers are generated.
pub fn trainable(task: &dyn Task) -> Result<(), RunError> {
    if !task.spec().metric.is_generated() {
        return Ok(());
    }
    Err(RunError::Input(format!(
        "nothing can be trained on task `{0}`, whose answers are generated; measure a checkpoint on it: \
         longhaul checkpoint eval DIR --task {0}",
        task.spec().name
    )))
}

/// A task with the settings of its trainings, checked.
struct TaskPlan {
    task: Box<dyn Task>,
    materials: Option<materials::Record>,
    train_length: (usize, usize),
    lengths: Vec<usize>,
    samples: u64,
    steps: u64,
    batch: usize,
    learning_rates: Vec<f64>,
    distributions: Vec<TrainDistribution>,
    weight_decay: f64,
    seeds: u64,
}

impl TaskPlan {
    fn new(
        suite: &Suite,
        entry: &TaskEntry,
        overrides: &Overrides,
        stock: &Stock,
    ) -> Result<Self, RunError> {
        let task = parse_task_of(&entry.name, &stock.materials)?;
        trainable(task.as_ref())?;
        let train_length = overrides
            .train_length
            .unwrap_or_else(|| entry.train_lengths(task.as_ref()));
        possible(task.as_ref(), train_length.0)?;
        possible(task.as_ref(), train_length.1)?;
        if train_length.0 > train_length.1 {
            return Err(RunError::Input(format!(
                "task `{}`: the shortest training length, {}, is above the longest, {}",
                entry.name, train_length.0, train_length.1
            )));
        }
        let mut lengths = overrides
            .lengths
            .clone()
            .unwrap_or_else(|| entry.lengths.clone());
        if lengths.is_empty() {
            lengths = doublings(train_length.1, (16 * train_length.1).min(task.max_length()));
        }
        lengths.sort_unstable();
        lengths.dedup();
        for &length in &lengths {
            possible(task.as_ref(), length)?;
        }
        let learning_rates = match (&overrides.learning_rates, &entry.learning_rates) {
            (given, _) if !given.is_empty() => given.clone(),
            (_, Some(of_task)) => of_task.clone(),
            _ => suite.training.learning_rates.clone(),
        };
        for &rate in &learning_rates {
            within("learning rate", &entry.name, rate, &bounds::LEARNING_RATE)?;
        }
        let distributions = match (&overrides.train_distributions, &entry.train_distributions) {
            (given, _) if !given.is_empty() => given.clone(),
            (_, Some(of_task)) => of_task.clone(),
            _ => suite.training.train_distributions.clone(),
        };
        let of = format!("task `{}`", entry.name);
        TrainDistribution::check_all(&distributions, train_length, &of).map_err(RunError::Input)?;
        let plan = Self {
            train_length,
            lengths,
            samples: overrides
                .samples
                .or(entry.samples)
                .unwrap_or(suite.evaluation.samples),
            steps: overrides
                .steps
                .or(entry.steps)
                .unwrap_or(suite.training.steps),
            batch: overrides
                .batch
                .or(entry.batch)
                .unwrap_or(suite.training.batch),
            learning_rates,
            distributions,
            weight_decay: entry.weight_decay.unwrap_or(suite.training.weight_decay),
            seeds: overrides.seeds.unwrap_or(suite.training.seeds),
            materials: stock.record_of(task.spec()),
            task,
        };
        within("steps", &entry.name, plan.steps, &bounds::STEPS)?;
        within("batch", &entry.name, plan.batch, &bounds::BATCH)?;
        within("samples", &entry.name, plan.samples, &bounds::SAMPLES)?;
        within("seeds", &entry.name, plan.seeds, &bounds::SEEDS)?;
        within(
            "weight decay",
            &entry.name,
            plan.weight_decay,
            &bounds::WEIGHT_DECAY,
        )?;
        let clip_norm = suite.training.clip_norm;
        within("clip_norm", &entry.name, clip_norm, &bounds::CLIP_NORM)?;
        let cycle = plan.task.label_cycle();
        if plan.samples < cycle {
            tracing::warn!(
                "{} samples of `{}` leave some of its {cycle} labels out; give {cycle} or more",
                plan.samples,
                entry.name
            );
        }
        Ok(plan)
    }

    /// How many trainings this many architectures have on this task.
    fn trainings(&self, architectures: usize) -> u64 {
        self.seeds * (self.learning_rates.len() * self.distributions.len() * architectures) as u64
    }

    /// Every training of one architecture on this task but for the seed: each distribution of lengths at each
    /// learning rate.
    fn settings(&self, suite: &Suite, architecture: &ArchSpec) -> Vec<Training> {
        let mut all = Vec::new();
        for distribution in &self.distributions {
            let (shortest, longest) = self.train_length;
            let (length_min, curriculum) = match *distribution {
                TrainDistribution::Fixed => (longest, None),
                TrainDistribution::Uniform => (shortest, None),
                TrainDistribution::Curriculum(part) => (shortest, Some(part)),
            };
            all.extend(self.learning_rates.iter().map(|&learning_rate| Training {
                length_min,
                length: longest,
                curriculum,
                steps: self.steps,
                batch: self.batch,
                learning_rate,
                warmup_steps: suite.training.warmup_steps.min(self.steps),
                weight_decay: self.weight_decay,
                clip_norm: suite.training.clip_norm,
                initial_state: architecture.initial_state.unwrap_or_default(),
            }));
        }
        all
    }

    /// Every seed and training of one architecture on this task.
    fn units(
        &self,
        suite: &Suite,
        overrides: &Overrides,
        architecture: &ArchSpec,
    ) -> Result<Vec<Unit>, RunError> {
        let (d_model, layers) = model_size(suite, overrides, architecture)?;
        let settings = self.settings(suite, architecture);
        let mut units = Vec::new();
        for seed in (overrides.first_seed..).take(self.seeds as usize) {
            for training in &settings {
                let mut unit = Unit {
                    name: String::new(),
                    plugin: architecture.plugin.clone(),
                    plugin_version: architecture.plugin_version.clone(),
                    plugin_sha256: architecture.plugin_sha256.clone(),
                    architecture: architecture.architecture.clone(),
                    options: options_text(architecture, (d_model, layers)),
                    d_model,
                    layers,
                    task: self.task.spec().name.to_owned(),
                    task_options: self.task.options_text(),
                    seed,
                    samples: self.samples,
                    lengths: self.lengths.clone(),
                    validation: self.validation(),
                    training: Some(training.clone()),
                    checkpoint: None,
                    probes: overrides.probes.beside(Some(&suite.evaluation)),
                    materials: self.materials.clone(),
                };
                let what = [&unit.architecture, &unit.task]
                    .map(|name| file_word(name))
                    .join("-");
                unit.name = format!(
                    "{what}-s{seed}-lr{}-{}",
                    short(training.learning_rate),
                    &unit.id()[..9]
                );
                units.push(unit);
            }
        }
        Ok(units)
    }

    /// Where learning rates are compared: at the lengths inside the training length, or at its longest.
    fn validation(&self) -> Vec<usize> {
        if self.learning_rates.len() < 2 {
            return Vec::new();
        }
        let longest = self.train_length.1;
        let inside = self
            .lengths
            .iter()
            .copied()
            .filter(|&length| length <= longest);
        let inside: Vec<usize> = inside.collect();
        if inside.is_empty() {
            vec![longest]
        } else {
            inside
        }
    }
}

fn within<T: PartialOrd + Display + Debug>(
    what: &str,
    whose: &str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), RunError> {
    bounds::check(&format!("{what} of `{whose}`"), value, range).map_err(RunError::Input)
}

/// A name with nothing in it that a file name should not have, of 48 letters at most.
pub fn file_word(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            c
        } else {
            '_'
        }
    };
    name.chars().take(48).map(plain).collect()
}
