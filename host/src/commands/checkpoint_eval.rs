//! `longhaul checkpoint eval`: checkpoints on tasks, with the records, limits and tables of a run. Nothing is
//! trained; each checkpoint and task is a unit.

use std::path::{Path, PathBuf};

use longhaul_tasks::{Material, Suite, parse_task_of};

use crate::architecture::ArchSpec;
use crate::catalogue::Catalogue;
use crate::checkpoint::config::Config;
use crate::cli::{CheckpointEvalArgs, FolderArgs};
use crate::commands::checkpoint::{Answer, Asked, ask_library, library_for};
use crate::commands::print;
use crate::exit::{CommandError, OK};
use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::lengths::parse_lengths;
use crate::run::materials::{Record, Stock, Wanted, possible};
use crate::run::plan::{Checkpoint, Plan, Planned, Probes, Unit, environment, file_word, run_id};
use crate::run::preview::preview;
use crate::run::session::{Resources, carry_out_plan, interrupt_flag};

/// Runs the command.
///
/// # Errors
/// Anything that keeps it from beginning or its records from being kept.
pub fn run(args: &CheckpointEvalArgs) -> Result<u8, CommandError> {
    Ok(evaluate(args)?)
}

fn evaluate(args: &CheckpointEvalArgs) -> Result<u8, RunError> {
    if args.retry_failed && !args.resume {
        return Err(RunError::Input(
            "--retry-failed goes with --resume".to_owned(),
        ));
    }
    let suite = args.suite.as_deref().map(Suite::load).transpose()?;
    let limits = suite.as_ref().map(|suite| &suite.limits);
    let limits = limits.map(|limits| (limits.time_s, limits.memory_bytes));
    let resources = Resources::new(&args.device, &args.resources, limits.unwrap_or_default())?;
    let wishes = wishes(args, suite.as_ref())?;
    let probes = Probes::from(&args.probes).beside(suite.as_ref().map(|suite| &suite.evaluation));
    if !Probes::from(&args.probes).is_none() {
        probed(&wishes)?;
    }
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let mut planned = Planned::default();
    for (folder, name) in args.folders.iter().zip(names(&args.folders)?) {
        let known = Known::of(folder, name, &catalogue, args, resources.threads)?;
        for wish in &wishes {
            let own = known.on(wish, suite.as_ref(), args)?;
            for seed in 0..args.seeds {
                planned.add(known.unit(&own, seed, &probes, args), &known.spec)?;
            }
        }
    }
    let environment = environment(resources.devices.kind());
    let plan = Plan {
        run_id: run_id(resources.devices.kind(), &environment, &planned.units),
        suite: args
            .suite
            .clone()
            .unwrap_or_else(|| "checkpoints".to_owned()),
        device: resources.devices.text(),
        part: None,
        environment,
        units: planned.units,
        architectures: planned.architectures,
        targets: Vec::new(),
    };
    let manifest = resources.manifest(&plan);
    if args.dry_run {
        let text = preview(&plan.units, false, &args.out, &resources);
        return print(&text).map(|()| OK).map_err(RunError::Command);
    }
    let interrupt = interrupt_flag()?;
    let mut folder = RunFolder::for_plan(&args.out, &plan, &manifest, args.resume)?;
    carry_out_plan(&mut folder, &plan, args.retry_failed, resources, &interrupt)
}

/// A task to measure.
struct Wish {
    /// As `--task` takes it.
    task: String,
    /// In tokens, ascending, each once.
    lengths: Vec<usize>,
    /// Examples a length.
    samples: u64,
    /// Whether the user named it, so that what it cannot be is an error and no record.
    named: bool,
}

/// The tasks that the command line names, then those of its suite.
fn wishes(args: &CheckpointEvalArgs, suite: Option<&Suite>) -> Result<Vec<Wish>, RunError> {
    let given = args.lengths.as_deref().map(parse_lengths).transpose()?;
    let of_suite = suite.map_or(500, |suite| suite.evaluation.samples);
    let mut wishes = Vec::new();
    let mut wish = |task: &str, own: &[usize], samples: Option<u64>, named| {
        let mut lengths = given.clone().unwrap_or_else(|| own.to_vec());
        lengths.sort_unstable();
        lengths.dedup();
        if lengths.is_empty() {
            return Err(RunError::Input(format!(
                "nothing says at which lengths `{task}` is measured; give --lengths"
            )));
        }
        wishes.push(Wish {
            task: task.to_owned(),
            lengths,
            samples: args.samples.or(samples).unwrap_or(of_suite),
            named,
        });
        Ok(())
    };
    for task in &args.tasks {
        wish(task, &[], None, true)?;
    }
    for entry in suite.into_iter().flat_map(|suite| &suite.tasks) {
        wish(&entry.name, &entry.lengths, entry.samples, false)?;
    }
    Ok(wishes)
}

/// Refuses to look for states and remembrance where all answers are generated.
fn probed(wishes: &[Wish]) -> Result<(), RunError> {
    for wish in wishes {
        if !longhaul_tasks::spec_of(&wish.task)?.metric.is_generated() {
            return Ok(());
        }
    }
    Err(RunError::Input(
        "--state-norms, --remembrance and --initial-states are for tasks that are scored by position, and the \
         answers of all tasks here are generated; leave them out, or add such a task: --task needle"
            .to_owned(),
    ))
}

/// A name for each folder: the end of its path that no other folder has.
fn names(folders: &[PathBuf]) -> Result<Vec<String>, RunError> {
    let mut paths = Vec::new();
    for folder in folders {
        let path = folder.canonicalize();
        paths.push(path.map_err(RunError::io("find the checkpoint", folder))?);
    }
    let name = |path: &PathBuf| {
        let parts: Vec<_> = path.iter().collect();
        let end = |count: usize| parts[parts.len() - count..].iter().collect::<PathBuf>();
        let own = |end: &PathBuf| paths.iter().filter(|other| other.ends_with(end)).count() == 1;
        let shortest = (1..parts.len()).map(end).find(own);
        shortest
            .unwrap_or_else(|| path.clone())
            .to_string_lossy()
            .into_owned()
    };
    Ok(paths.iter().map(name).collect())
}

/// A task as one checkpoint has it.
struct Own<'a> {
    wish: &'a Wish,
    materials: Option<Record>,
    name: &'static str,
    options: String,
    /// Whether its answers are generated, beside which nothing is looked at.
    generated: bool,
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
        name: String,
        catalogue: &Catalogue,
        args: &CheckpointEvalArgs,
        threads: u32,
    ) -> Result<Self, RunError> {
        let usage = |error: &dyn std::fmt::Display| RunError::Input(error.to_string());
        let config = Config::read(path).map_err(|error| usage(&error))?;
        let library = library_for(&config, catalogue).map_err(RunError::Command)?;
        let asked = FolderArgs {
            folder: path.to_owned(),
            options: args.options.clone(),
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
        let stated = usize::try_from(answer.max_length).ok();
        let checkpoint = Checkpoint {
            name,
            folder: path.to_owned(),
            vocab: answer.vocab,
            train_length: args.train_length.or(stated.filter(|&length| length > 0)),
            sha256,
        };
        Ok(Self {
            spec,
            answer,
            checkpoint,
        })
    }

    /// Sizes, and options that the user gave instead of the config's: with the checkpoint's hash, all that the
    /// model is.
    fn options(&self, given: &str) -> String {
        let sizes = format!(
            "d_model={},layers={}",
            self.answer.d_model, self.answer.layers
        );
        match given.is_empty() {
            true => sizes,
            false => format!("{sizes},{given}"),
        }
    }

    /// A task of this checkpoint's materials, held against the checkpoint.
    fn on<'a>(
        &self,
        wish: &'a Wish,
        suite: Option<&Suite>,
        args: &CheckpointEvalArgs,
    ) -> Result<Own<'a>, RunError> {
        let spec = longhaul_tasks::spec_of(&wish.task)?;
        let stock = if spec.materials.is_empty() {
            Stock::default()
        } else {
            let own = Some(self.checkpoint.folder.as_path());
            let mut wanted = Wanted::new(&args.materials, suite.map(|suite| &suite.materials), own);
            wanted.chat = own.filter(|_| args.chat_template).map(Path::to_owned);
            Stock::open(&wanted).map_err(RunError::Input)?
        };
        if args.chat_template && wish.named && !spec.materials.contains(&Material::ChatTemplate) {
            return Err(RunError::Input(format!(
                "task `{}` has no prompts that --chat-template could go around; leave one of them out",
                spec.name
            )));
        }
        let task = parse_task_of(&wish.task, &stock.materials)?;
        let (folder, vocab) = (self.checkpoint.folder.display(), self.answer.vocab);
        if !spec.materials.is_empty() {
            let fits = longhaul_text::fits(stock.materials.tokenizer.as_ref(), vocab as usize);
            fits.map_err(|error| RunError::Input(format!("{folder}: {error}")))?;
        } else if task.vocab() > vocab as usize {
            return Err(RunError::Input(format!(
                "task `{}` has {} token ids, and {folder} only {vocab}; choose a smaller vocabulary for the task",
                spec.name,
                task.vocab(),
            )));
        }
        if wish.named {
            let mut lengths = wish.lengths.iter();
            lengths.try_for_each(|&length| possible(task.as_ref(), length))?;
        }
        Ok(Own {
            wish,
            materials: stock.record_of(spec),
            name: spec.name,
            options: task.options_text(),
            generated: spec.metric.is_generated(),
        })
    }

    /// The checkpoint on one task.
    fn unit(&self, own: &Own<'_>, seed: u64, probes: &Probes, args: &CheckpointEvalArgs) -> Unit {
        let name = &self.checkpoint.name;
        let probes = match own.generated {
            true => Probes::default(),
            false => probes.clone(),
        };
        let mut unit = Unit {
            name: String::new(),
            plugin: self.spec.plugin.clone(),
            plugin_version: self.spec.plugin_version.clone(),
            plugin_sha256: self.spec.plugin_sha256.clone(),
            architecture: self.spec.architecture.clone(),
            options: self.options(&args.options),
            d_model: self.answer.d_model,
            layers: self.answer.layers,
            task: own.name.to_owned(),
            task_options: own.options.clone(),
            seed,
            samples: own.wish.samples,
            lengths: own.wish.lengths.clone(),
            validation: Vec::new(),
            training: None,
            probes,
            checkpoint: Some(self.checkpoint.clone()),
            materials: own.materials.clone(),
        };
        let what = [name, &unit.task].map(|name| file_word(name)).join("-");
        unit.name = format!("{what}-s{seed}-{}", &unit.id()[..9]);
        unit
    }
}
