//! Whether a suite's values make sense, each on its own and together.

use super::{AboveEntry, InitialState, Suite, TargetEntry, TaskEntry, TrainDistribution, Training};
use crate::bounds::{self, check};
use crate::error::TaskError;
use crate::task::{Metric, Task, parse_task};

/// What is wrong with a suite.
#[derive(Debug)]
pub enum Problem {
    /// A value, in a sentence.
    Value(String),
    /// A task that cannot be made.
    Task(TaskError),
}

impl From<String> for Problem {
    fn from(sentence: String) -> Self {
        Self::Value(sentence)
    }
}

/// The first value that makes no sense.
pub fn suite(suite: &Suite) -> Result<(), Problem> {
    training(&suite.training)?;
    check("d_model of [model]", suite.model.d_model, &bounds::D_MODEL)?;
    check("layers of [model]", suite.model.layers, &bounds::LAYERS)?;
    check(
        "samples of [evaluation]",
        suite.evaluation.samples,
        &bounds::SAMPLES,
    )?;
    check(
        "remembrance of [evaluation]",
        suite.evaluation.remembrance,
        &bounds::REMEMBRANCE,
    )?;
    if suite
        .evaluation
        .initial_states
        .contains(&InitialState::Zero)
    {
        let reason =
            "initial_states of [evaluation] names `zero`, which is always measured; leave it out";
        return Err(reason.to_owned().into());
    }
    if let Some(seconds) = suite.limits.time_s {
        check("time_s of [limits]", seconds, &bounds::TIME_S)?;
    }
    if let Some(bytes) = suite.limits.memory_bytes {
        check("memory_bytes of [limits]", bytes, &bounds::MEMORY_BYTES)?;
    }
    suite.targets.iter().try_for_each(target)?;
    let mut tasks = suite.tasks.iter();
    tasks.try_for_each(|entry| task(entry, &suite.training))
}

fn training(training: &Training) -> Result<(), Problem> {
    let named = |key: &str| format!("{key} of [training]");
    check(&named("steps"), training.steps, &bounds::STEPS)?;
    check(&named("batch"), training.batch, &bounds::BATCH)?;
    check(&named("seeds"), training.seeds, &bounds::SEEDS)?;
    let warmup = 0..=*bounds::STEPS.end();
    check(&named("warmup_steps"), training.warmup_steps, &warmup)?;
    let (decay, clip) = (training.weight_decay, training.clip_norm);
    check(&named("weight_decay"), decay, &bounds::WEIGHT_DECAY)?;
    check(&named("clip_norm"), clip, &bounds::CLIP_NORM)?;
    if training.train_distributions.is_empty() {
        return Err(format!(
            "{} is empty; give at least one",
            named("train_distributions")
        )
        .into());
    }
    learning_rates(&training.learning_rates, "[training]")
}

fn learning_rates(rates: &[f64], of: &str) -> Result<(), Problem> {
    if rates.is_empty() {
        return Err(format!("learning_rates of {of} is empty; give at least one").into());
    }
    let each = |&rate: &f64| {
        check(
            &format!("a learning rate of {of}"),
            rate,
            &bounds::LEARNING_RATE,
        )
    };
    Ok(rates.iter().try_for_each(each)?)
}

fn task(entry: &TaskEntry, training: &Training) -> Result<(), Problem> {
    let of = format!("task `{}`", entry.name);
    let named = |key: &str| format!("{key} of {of}");
    if let Some(steps) = entry.steps {
        check(&named("steps"), steps, &bounds::STEPS)?;
    }
    if let Some(batch) = entry.batch {
        check(&named("batch"), batch, &bounds::BATCH)?;
    }
    if let Some(samples) = entry.samples {
        check(&named("samples"), samples, &bounds::SAMPLES)?;
    }
    if let Some(decay) = entry.weight_decay {
        check(&named("weight_decay"), decay, &bounds::WEIGHT_DECAY)?;
    }
    if let Some(rates) = &entry.learning_rates {
        learning_rates(rates, &of)?;
    }
    if entry.architectures.as_ref().is_some_and(Vec::is_empty) {
        let key = named("architectures");
        return Err(format!("{key} is empty; leave it out for the suite's").into());
    }
    let task = parse_task(&entry.name).map_err(Problem::Task)?;
    if task.spec().metric.is_generated() {
        // Nothing is trained on it.
        return Ok(());
    }
    let (min, max) = entry.train_lengths(task.as_ref());
    if min > max {
        return Err(format!("{of}: train_length_min {min} is above train_length {max}").into());
    }
    let distributions = entry.train_distributions.as_ref();
    let distributions = distributions.unwrap_or(&training.train_distributions);
    TrainDistribution::check_all(distributions, (min, max), &of)?;
    let mut all = entry.lengths.iter().copied().chain([min, max]);
    all.try_for_each(|length| check_length(task.as_ref(), length, &of))
}

fn target(target: &TargetEntry) -> Result<(), Problem> {
    let of = format!("target `{}`", target.claim);
    let limits = [target.at_least, target.below];
    let given = limits.iter().flatten().count() + usize::from(target.above.is_some());
    if target.architecture.is_empty() {
        return Err(format!("{of} names no architecture").into());
    }
    if given != 1 || target.lengths.is_empty() {
        return Err(
            format!("{of} needs lengths and exactly one of at_least, below and above").into(),
        );
    }
    let task = parse_task(&target.task).map_err(Problem::Task)?;
    let other = target.above.as_ref();
    let parts = target
        .part
        .iter()
        .chain(other.and_then(|other| other.part.as_ref()));
    for part in parts {
        if task.part(&format!("task={part}")).is_none() {
            return Err(format!("{of}: `{}` has no part `{part}`", target.task).into());
        }
    }
    if let Some(other) = other {
        above(target, other, task.as_ref(), &of)?;
    } else if !target.depths.is_empty() {
        return Err(format!("{of} has depths, which only `above` is of; use above").into());
    }
    let (what, range) = match task.spec().metric {
        Metric::BitsPerByte => ("loss", bounds::LOSS),
        _ => ("accuracy", bounds::ACCURACY),
    };
    if target.mean {
        let ascend = target.lengths.is_sorted_by(|one, next| one < next);
        if what == "loss" || target.above.is_some() || target.lengths.len() < 2 || !ascend {
            let reason = "mean is of accuracies, with at_least or below, over two or more lengths that ascend";
            return Err(format!("{of}: {reason}").into());
        }
    }
    for limit in limits.into_iter().flatten() {
        check(&format!("the {what} of {of}"), limit, &range)?;
    }
    let mut lengths = target.lengths.iter();
    lengths.try_for_each(|&length| check_length(task.as_ref(), length, &of))
}

/// What a target is held against.
fn above(
    target: &TargetEntry,
    other: &AboveEntry,
    task: &dyn Task,
    of: &str,
) -> Result<(), Problem> {
    if task.spec().metric == Metric::BitsPerByte {
        return Err(format!(
            "{of}: `above` is of accuracies, and `{}` has losses",
            target.task
        )
        .into());
    }
    let same = other.architecture.is_none() && other.part.is_none();
    if same && other.length.is_none() && other.depths.is_empty() {
        let reason =
            "has nothing in above; give architecture, part, length or depths of what is less";
        return Err(format!("{of} {reason}").into());
    }
    for &depth in target.depths.iter().chain(&other.depths) {
        check(&format!("a depth of {of}"), depth, &bounds::ACCURACY)?;
    }
    other
        .length
        .map_or(Ok(()), |length| check_length(task, length, of))
}

fn check_length(task: &dyn Task, length: usize, of: &str) -> Result<(), Problem> {
    let (min, max) = (task.min_length(), task.max_length());
    // The lengths of a task of texts depend on these and the tokenizer, which only a plan has.
    if (min..=max).contains(&length) || !task.spec().materials.is_empty() {
        return Ok(());
    }
    Err(format!("{of} takes lengths {min}..{max}, not {length}").into())
}
