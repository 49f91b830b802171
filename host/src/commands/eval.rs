//! `longhaul eval`: the saved models of a run, read again at other lengths, without training. Records
//! go into the same folder.

use std::collections::{BTreeSet, HashSet};

use longhaul_results::{Cell, Measurement, Split, Status, outcomes};

use crate::catalogue::Catalogue;
use crate::cli::EvalArgs;
use crate::commands::print;
use crate::exit::{CommandError, OK};
use crate::run::error::RunError;
use crate::run::folder::RunFolder;
use crate::run::kept::{choose, look_elsewhere, manifest_of, resolved, same_environment};
use crate::run::lengths::parse_lengths;
use crate::run::materials::possible;
use crate::run::part;
use crate::run::plan::{Evaluation, Unit};
use crate::run::preview::preview;
use crate::run::session::{Resources, carry_out, interrupt_flag, works};

/// Runs the command.
///
/// # Errors
/// Anything that keeps it from beginning or its records from being kept.
pub fn run(args: &EvalArgs) -> Result<u8, CommandError> {
    Ok(evaluate(args)?)
}

fn evaluate(args: &EvalArgs) -> Result<u8, RunError> {
    let lengths = parse_lengths(&args.lengths)?;
    let mut manifest = manifest_of(&args.run)?;
    part::refuse_apart(&args.run, &manifest)?;
    if manifest.units.iter().any(|unit| unit.checkpoint.is_some()) {
        return Err(RunError::Input(format!(
            "{} holds evaluations of checkpoints; give `longhaul checkpoint eval` more --lengths and another --out",
            args.run.display()
        )));
    }
    if !args.materials.is_none() {
        look_elsewhere(&mut manifest.units, &args.materials, &args.run)?;
    }
    let catalogue = Catalogue::scan(&args.plugins).map_err(RunError::Command)?;
    let chosen = choose(
        &manifest.units,
        &args.tasks,
        &args.architectures,
        &catalogue,
    )?;
    for unit in &chosen {
        let task = unit.make_task()?;
        lengths
            .iter()
            .try_for_each(|&length| possible(task.as_ref(), length))?;
    }
    let limits = (manifest.limits.time_s, None);
    let resources = Resources::new(&args.device, &args.resources, limits)?;
    same_environment(&manifest, resources.devices.kind(), &args.run)?;
    if args.dry_run {
        let units: Vec<Unit> = chosen
            .into_iter()
            .map(|unit| Unit {
                lengths: lengths.clone(),
                samples: args.samples.unwrap_or(unit.samples),
                ..unit
            })
            .collect();
        let text = preview(&units, false, &args.run, &resources);
        return print(&text).map(|()| OK).map_err(RunError::Command);
    }
    let interrupt = interrupt_flag()?;
    let (mut folder, kept) = RunFolder::existing(&args.run)?;
    let architectures = resolved(&chosen, &catalogue)?;
    if let Some(samples) = args.samples {
        for (length, there) in otherwise(&folder, &chosen, &lengths, samples)? {
            tracing::warn!(
                "{length} tokens are measured already, of {there} examples, and stay as they are: --samples {samples} is \
                 for lengths without a record"
            );
        }
    }
    let wanted = |unit: &Unit| -> Vec<Evaluation> {
        let samples = args.samples.unwrap_or(unit.samples);
        let test = |&length| Evaluation {
            split: Split::Test,
            length,
            samples,
        };
        lengths.iter().map(test).collect()
    };
    let mut works = works(&folder, &chosen, &architectures, args.retry_failed, &wanted);
    for work in &mut works {
        // Nothing is trained here: a model that cannot be read gets a record that says so.
        work.train = false;
        work.unit.plugin_version = work.architecture.plugin_version.clone();
        work.unit.plugin_sha256 = work.architecture.plugin_sha256.clone();
    }
    if works.is_empty() {
        tracing::warn!("nothing to evaluate: these lengths have their records already");
    }
    let id = kept.run_id.as_str();
    let units = (kept.units.as_slice(), kept.targets.as_slice());
    carry_out(&mut folder, id, units, works, resources, &interrupt)
}

/// Lengths that some unit is measured at with another number of examples, and that number. Of more examples than
/// outcomes are kept of it is not known.
fn otherwise(
    folder: &RunFolder,
    units: &[Unit],
    lengths: &[usize],
    samples: u64,
) -> Result<BTreeSet<(u64, u64)>, RunError> {
    let rows = folder.rows.iter();
    let measured = rows.filter(|row| row.is_reported_cell() && row.status == Status::Ok);
    let measured: HashSet<Cell> = measured.map(Measurement::cell).collect();
    let mut found = BTreeSet::new();
    for id in units.iter().map(Unit::id) {
        let path = outcomes::path(&folder.path, &id).expect("an id is letters and digits");
        for ((split, eval_length), (_, of_cell)) in outcomes::read(&path)? {
            let there = of_cell.scores().len() as u64;
            let cell = Cell {
                unit: id.clone(),
                split,
                eval_length,
            };
            let asked = lengths.iter().any(|&length| length as u64 == eval_length);
            if asked && there != samples && measured.contains(&cell) {
                found.insert((eval_length, there));
            }
        }
    }
    Ok(found)
}
