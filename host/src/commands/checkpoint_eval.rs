//! `longhaul checkpoint eval`: checkpoints on tasks, with the records, limits and tables of a run. Nothing is
//! trained; each checkpoint and task is a unit.

use std::path::Path;

use longhaul_tasks::parse_task;

use crate::architecture::ArchSpec;
use crate::catalogue::Catalogue;
use crate::checkpoint::config::Config;
use crate::cli::{CheckpointEvalArgs, FolderArgs};
use crate::commands::checkpoint::{Answer, Asked, ask_library, library_for};
use crate::commands::print;
use crate::exit::{CommandError, OK};
use crate::run::error::RunError;
use crate::run::finish::recorded;
use crate::run::folder::RunFolder;
use crate::run::lengths::parse_lengths;
use crate::run::manifest::{LimitsRecord, Manifest};
use crate::run::plan::{Checkpoint, Plan, Unit, check_length, environment, file_word, run_id};
use crate::run::preview::preview;
use crate::run::session::{Resources, carry_out, interrupt_flag};
use crate::run::unit::Work;

/// Runs the command.
///
/// # Errors
/// Anything that keeps it from beginning or its records from being kept.
pub fn run(args: &CheckpointEvalArgs) -> Result<u8, CommandError> {
    Ok(evaluate(args)?)
}

fn evaluate(args: &CheckpointEvalArgs) -> Result<u8, RunError> {
    if args.samples == 0 || args.seeds == 0 {
        return Err(RunError::Input(
            "--samples and --seeds are at least 1".to_owned(),
        ));
    }
    if args.retry_failed && !args.resume {
        return Err(RunError::Input(
            "--retry-failed goes with --resume".to_owned(),
        ));
    }
    let memory = (args.memory_limit.as_deref(), None);
    let resources = Resources::new(
        &args.device,
        args.jobs,
        args.threads,
        args.time_limit,
        memory,
    )?;
    let lengths = parse_lengths(&args.lengths)?;
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let mut plan = Plan {
        run_id: String::new(),
        suite: "checkpoints".to_owned(),
        device: resources.devices.text(),
        environment: environment(resources.devices.kind()),
        units: Vec::new(),
        architectures: Vec::new(),
        targets: Vec::new(),
    };
    for folder in &args.folders {
        let known = Known::of(folder, &catalogue, args, resources.threads)?;
        for task in &args.tasks {
            for seed in 0..args.seeds {
                plan.units.push(known.unit(task, seed, &lengths, args)?);
                plan.architectures.push(known.spec.clone());
            }
        }
    }
    plan.run_id = run_id(resources.devices.kind(), &plan.environment, &plan.units);
    let limits = LimitsRecord {
        time_s: resources.time_s,
        memory_bytes: resources.memory_bytes,
    };
    let manifest = Manifest::new(&plan, resources.jobs, resources.threads, limits);
    if args.dry_run {
        let text = preview(&plan.units, false, &args.out, &resources);
        return print(&text).map(|()| OK).map_err(RunError::Command);
    }
    let interrupt = interrupt_flag()?;
    let mut folder = RunFolder::for_plan(&args.out, &plan, &manifest, args.resume)?;
    let works = works(&plan, &folder, args.retry_failed);
    let id = plan.run_id.as_str();
    let units = (plan.units.as_slice(), plan.targets.as_slice());
    carry_out(&mut folder, id, units, works, resources, &interrupt)
}

/// A checkpoint that a plugin has understood.
struct Known {
    spec: ArchSpec,
    answer: Answer,
    checkpoint: Checkpoint,
}

impl Known {
    fn of(
        path: &Path,
        catalogue: &Catalogue,
        args: &CheckpointEvalArgs,
        threads: u32,
    ) -> Result<Self, RunError> {
        let usage = |error: &dyn std::fmt::Display| RunError::Input(error.to_string());
        let config = Config::read(path).map_err(|error| usage(&error))?;
        let library = library_for(&config, catalogue).map_err(RunError::Command)?;
        let asked = FolderArgs {
            folder: path.to_owned(),
            threads,
            plugins: args.plugins.clone(),
        };
        let answer =
            ask_library(&asked, library.clone(), Asked::Hash).map_err(RunError::Command)?;
        let own = Catalogue {
            plugins: catalogue
                .plugins
                .iter()
                .filter(|plugin| plugin.path == library)
                .cloned()
                .collect(),
        };
        let mut spec = ArchSpec::parse(&answer.architecture, &own).map_err(RunError::Command)?;
        (spec.d_model, spec.layers) = (Some(answer.d_model), Some(answer.layers));
        let sha256 = answer.sha256.clone().unwrap_or_default();
        let checkpoint = Checkpoint {
            folder: path.to_owned(),
            vocab: answer.vocab,
            sha256,
        };
        Ok(Self {
            spec,
            answer,
            checkpoint,
        })
    }

    /// The checkpoint on one task.
    fn unit(
        &self,
        task: &str,
        seed: u64,
        lengths: &[usize],
        args: &CheckpointEvalArgs,
    ) -> Result<Unit, RunError> {
        let task = parse_task(task)?;
        if task.vocab() > self.answer.vocab as usize {
            return Err(RunError::Input(format!(
                "task `{}` has {} token ids, and {} only {}; choose a smaller vocabulary for the task",
                task.spec().name,
                task.vocab(),
                self.checkpoint.folder.display(),
                self.answer.vocab
            )));
        }
        lengths
            .iter()
            .try_for_each(|&length| check_length(task.as_ref(), length))?;
        let mut lengths = lengths.to_vec();
        lengths.sort_unstable();
        lengths.dedup();
        let stated = usize::try_from(self.answer.max_length).unwrap_or(0);
        let stated = args.train_length.unwrap_or(stated);
        let train_length = if stated == 0 { lengths[0] } else { stated };
        let name = self.checkpoint.folder.file_name().unwrap_or_default();
        let name = file_word(&name.to_string_lossy());
        let options = [
            format!("checkpoint={name}"),
            format!("d_model={}", self.answer.d_model),
            format!("layers={}", self.answer.layers),
        ];
        let mut unit = Unit {
            name: String::new(),
            model: String::new(),
            plugin: self.spec.plugin.clone(),
            plugin_version: self.spec.plugin_version.clone(),
            plugin_sha256: self.spec.plugin_sha256.clone(),
            architecture: self.spec.architecture.clone(),
            options: options.join(","),
            task: task.spec().name.to_owned(),
            task_options: task.options_text(),
            train_length_min: train_length,
            train_length,
            seed,
            learning_rate: 0.0,
            steps: 0,
            batch: 0,
            warmup_steps: 0,
            weight_decay: 0.0,
            clip_norm: 0.0,
            samples: args.samples,
            lengths,
            checkpoint: Some(self.checkpoint.clone()),
        };
        let identity = unit.identity();
        unit.name = format!(
            "{name}-{}-s{seed}-{}",
            file_word(&unit.task),
            &identity[..8]
        );
        Ok(unit)
    }
}

/// What the folder's records leave to do.
fn works(plan: &Plan, folder: &RunFolder, retry: bool) -> Vec<Work> {
    let units = plan.units.iter().zip(&plan.architectures);
    let works = units.map(|(unit, architecture)| {
        let recorded = recorded(&folder.rows, unit, retry);
        Work {
            identity: unit.identity(),
            unit: unit.clone(),
            architecture: architecture.clone(),
            train: false,
            evaluations: unit
                .lengths
                .iter()
                .filter(|length| !recorded.contains(length))
                .map(|&length| (length, unit.samples))
                .collect(),
        }
    });
    works.filter(|work| !work.evaluations.is_empty()).collect()
}
