//! What a plan would do, in words, before any of it is done: `--dry-run`.

use std::collections::BTreeSet;
use std::path::Path;

use longhaul_tasks::TrainDistribution;

use crate::number::{short, size};
use crate::run::plan::{Training, Unit};
use crate::run::session::Resources;
use crate::table::{columns, counted};

/// A plan in words: its trainings or evaluations a task, where they would be written, and by how many
/// workers.
pub fn preview(units: &[Unit], trained: bool, out: &Path, resources: &Resources) -> String {
    let count = match (units.len(), trained) {
        (1, true) => "1 training with its evaluations".to_owned(),
        (count, true) => format!("{count} trainings with their evaluations"),
        (1, false) => "Evaluations of 1 model".to_owned(),
        (count, false) => format!("Evaluations of {count} models"),
    };
    let mut text = format!("{count}, into {}:\n", out.display());
    for group in groups(units) {
        text.push('\n');
        text.push_str(&columns(&rows(&group, trained)));
    }
    let time = resources.time_s.map_or_else(String::new, |seconds| {
        format!(", at most {seconds} s a unit")
    });
    let memory = resources
        .memory_bytes
        .map_or_else(String::new, |bytes| format!(", {} a worker", size(bytes)));
    text.push_str(&format!(
        "\nWorkers on {}: {} at a time, {} each{time}{memory}.\n\
         Nothing was run or written.\n",
        resources.devices.text(),
        resources.jobs,
        counted(resources.threads as usize, "CPU thread"),
    ));
    text
}

/// Units that differ by architecture, seed, learning rate or distribution of training lengths only, in the order of
/// the plan.
fn groups(units: &[Unit]) -> Vec<Vec<&Unit>> {
    let same = |a: &Unit, b: &Unit| {
        let task = |unit: &Unit| (unit.task_text(), unit.evaluations());
        let training = |unit: &Unit| {
            unit.training.clone().map(|training| Training {
                learning_rate: 0.0,
                length_min: 0,
                curriculum: None,
                ..training
            })
        };
        task(a) == task(b) && training(a) == training(b)
    };
    let mut groups = Vec::<Vec<&Unit>>::new();
    for unit in units {
        match groups.iter_mut().find(|group| same(group[0], unit)) {
            Some(group) => group.push(unit),
            None => groups.push(vec![unit]),
        }
    }
    groups
}

fn rows(group: &[&Unit], trained: bool) -> Vec<Vec<String>> {
    let unit = group[0];
    let row = |name: &str, what: String| vec![format!("  {name}"), what];
    let each = |get: &dyn Fn(&Unit) -> String| {
        let mut all = Vec::new();
        for value in group.iter().map(|unit| get(unit)) {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        all
    };
    let architectures = each(&|unit| format!("{}:{}", unit.architecture, unit.options));
    let mut rows = vec![
        row("task", unit.task_text()),
        row("models", architectures.join(" ")),
    ];
    if let Some(training) = unit.training.as_ref().filter(|_| trained) {
        let of = |words: fn(&Training) -> String| {
            each(&|unit| unit.training.as_ref().map_or_else(String::new, words))
        };
        let rates = of(|training| short(training.learning_rate)).join(", ");
        let lengths = of(lengths).join(" or ");
        rows.push(row(
            "training",
            format!(
                "{} steps of {} sequences of {lengths} tokens; learning rate {rates}",
                training.steps, training.batch
            ),
        ));
    }
    let seeds: BTreeSet<u64> = group.iter().map(|unit| unit.seed).collect();
    let which = match seeds.iter().copied().eq(0..seeds.len() as u64) {
        true => String::new(),
        false => {
            let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
            format!(": {}", seeds.join(", "))
        }
    };
    rows.push(row("seeds", format!("{}{which}", seeds.len())));
    let lengths: Vec<String> = unit.lengths.iter().map(usize::to_string).collect();
    rows.push(row(
        "evaluation",
        format!(
            "{} examples at each of {}",
            unit.samples,
            lengths.join(", ")
        ),
    ));
    rows
}

/// The lengths that a training draws, and how where that is not uniformly.
fn lengths(training: &Training) -> String {
    let (min, max) = (training.length_min, training.length);
    match training.distribution() {
        TrainDistribution::Fixed => max.to_string(),
        TrainDistribution::Uniform => format!("{min}..{max}"),
        curriculum => format!("{min}..{max} ({curriculum})"),
    }
}
