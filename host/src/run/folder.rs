//! A run's folder: locked, checked for what is in it, its files open before work begins. A folder may
//! come from somebody else: nothing in it is followed out of it, and rows must be of its own plan.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use longhaul_results::{Journal, Measurement, Probe, RunLock, TrainingPoint, files, outcomes};

use crate::run::error::RunError;
use crate::run::execute::Kept;
use crate::run::manifest::{self, Manifest};
use crate::run::part::{self, Part};
use crate::run::plan::{Plan, Unit};
use crate::run::predictions;
use crate::run::records::CellOutcomes;

/// An open folder.
#[derive(Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Measurements that were there.
    pub rows: Vec<Measurement>,
    /// Where measurements go.
    pub results: Journal<Measurement>,
    /// Training points that were there.
    pub points: Vec<TrainingPoint>,
    /// Where training points go.
    pub training: Journal<TrainingPoint>,
    /// What else was seen, that was there.
    pub probes: Vec<Probe>,
    /// Where that goes, of a plan that looks at more than answers.
    seen: Option<Journal<Probe>>,
    /// What was repaired on opening, in words.
    pub repairs: Vec<String>,
    /// Which part of a run it is, where it is one.
    pub part: Option<Part>,
    /// Whether something that was measured could not be kept.
    has_gap: bool,
    _lock: RunLock,
}

/// Locks a folder, making it where it does not exist.
fn lock(path: &Path) -> Result<RunLock, RunError> {
    std::fs::create_dir_all(path).map_err(RunError::io("make the folder", path))?;
    Ok(RunLock::acquire(path)?)
}

impl RunFolder {
    /// Opens the folder of a plan: a new one, or with `resume` one of the same plan.
    ///
    /// # Errors
    /// Another run, another program's files, another holder of the lock, the system's refusal.
    pub fn for_plan(
        path: &Path,
        plan: &Plan,
        manifest: &Manifest,
        resume: bool,
    ) -> Result<Self, RunError> {
        // A refused run leaves nothing behind, not even a lock.
        if path.is_dir() {
            refuse_strangers(path)?;
        }
        let lock = lock(path)?;
        if is_of_run(path) {
            let there = Manifest::read(path)?;
            let difference = there.difference(plan);
            if let Some(difference) = difference {
                if there.parts.is_some() {
                    return Err(RunError::Input(format!(
                        "{} holds another run ({}), in parts: {difference}.\nGive another folder with --out {}",
                        path.display(),
                        there.run_id,
                        other_folder(path, plan).display(),
                    )));
                }
                return Err(RunError::Input(format!(
                    "{} holds another run ({}): {difference}.\nGive another folder with --out {}, or go on with that run by its own command:\n  {}{}",
                    path.display(),
                    there.run_id,
                    other_folder(path, plan).display(),
                    there.command_here(&plan.environment),
                    if there.command.contains("--resume") {
                        ""
                    } else {
                        " --resume"
                    },
                )));
            }
            part::refuse_apart(path, &there)?;
            if !resume {
                return Err(RunError::Input(format!(
                    "{} already holds this run ({}). Go on with it or see its table again by adding --resume, or run it anew in another folder with --out {}",
                    path.display(),
                    there.run_id,
                    other_folder(path, plan).display(),
                )));
            }
        } else {
            // Between the first look and the lock there was time for others.
            refuse_strangers(path)?;
            manifest.write(path)?;
        }
        Self::open_files(path, lock, manifest)
    }

    /// Opens the folder of an existing run.
    ///
    /// # Errors
    /// No run there, another holder of the lock, the system's refusal.
    pub fn existing(path: &Path) -> Result<(Self, Manifest), RunError> {
        if !is_of_run(path) {
            return Err(RunError::Input(format!(
                "{} is not the folder of a run: it has no {}",
                path.display(),
                manifest::FILE
            )));
        }
        let lock = lock(path)?;
        let manifest = Manifest::read(path)?;
        if let Some(part) = manifest.part {
            return Err(RunError::Input(format!(
                "{} is part {part} of a run; take its parts together first, with `longhaul collect`",
                path.display(),
            )));
        }
        let folder = Self::open_files(path, lock, &manifest)?;
        Ok((folder, manifest))
    }

    fn open_files(path: &Path, lock: RunLock, manifest: &Manifest) -> Result<Self, RunError> {
        let tidy = |folder: &Path| {
            files::remove_unfinished(folder).map_err(RunError::io("tidy up the folder", folder))
        };
        tidy(path)?;
        // Plots are made of a whole run.
        let plots = manifest.part.is_none().then_some("plots");
        for folder in ["models", outcomes::FOLDER].into_iter().chain(plots) {
            let folder = path.join(folder);
            files::make_folder(&folder).map_err(RunError::io("make the folder", &folder))?;
            tidy(&folder)?;
        }
        // Only text tasks have predictions.
        let predictions = path.join(predictions::FOLDER);
        if predictions.symlink_metadata().is_ok() {
            files::make_folder(&predictions)
                .map_err(RunError::io("open the folder", &predictions))?;
            tidy(&predictions)?;
        }
        let mut repairs: Vec<String> = lock.without.iter().cloned().collect();
        let (results, rows) = open(&path.join("results.csv"), &mut repairs)?;
        let (training, points) = open(&path.join("training.csv"), &mut repairs)?;
        let (mut seen, mut probes) = (None, Vec::new());
        if manifest.looks_at_more() {
            let (journal, there) = open(&path.join("probes.csv"), &mut repairs)?;
            (seen, probes) = (Some(journal), there);
        }
        let folder = Self {
            path: path.to_owned(),
            rows,
            results,
            points,
            training,
            probes,
            seen,
            repairs,
            part: manifest.part,
            has_gap: false,
            _lock: lock,
        };
        check_owners(
            path,
            manifest,
            (&folder.rows, &folder.points, &folder.probes),
        )?;
        Ok(folder)
    }

    /// Keeps what was measured, on disk when it returns. Rows go last: a row says that the points of its
    /// training, the probes of its cell and the answers that it counts are there. So after an error nothing more is
    /// kept, which is measured again instead.
    ///
    /// # Errors
    /// No room; the system's refusal.
    pub fn keep(&mut self, kept: Kept) -> Result<(), RunError> {
        if self.has_gap {
            return Ok(());
        }
        let written = self.write(kept);
        self.has_gap = written.is_err();
        written
    }

    fn write(&mut self, kept: Kept) -> Result<(), RunError> {
        let place = self.path.join(predictions::FOLDER);
        if !kept.predictions.is_empty() {
            files::make_folder(&place).map_err(RunError::io("make the folder", &place))?;
        }
        for file in &kept.predictions {
            let path = place.join(&file.name);
            files::write_whole(&path, &file.bytes).map_err(RunError::io("write", &path))?;
        }
        self.keep_outcomes(kept.outcomes)?;
        self.training.append(&kept.points)?;
        self.points.extend(kept.points);
        if let Some(seen) = &mut self.seen {
            seen.append(&kept.probes)?;
        }
        self.probes.extend(kept.probes);
        self.results.append(&kept.rows)?;
        self.rows.extend(kept.rows);
        Ok(())
    }

    /// Puts outcomes beside those that the files of their units have.
    fn keep_outcomes(&self, outcomes: Vec<CellOutcomes>) -> Result<(), RunError> {
        let mut units: HashMap<String, Vec<CellOutcomes>> = HashMap::new();
        for one in outcomes {
            units.entry(one.unit.clone()).or_default().push(one);
        }
        for (unit, new) in units {
            let path = outcomes::path(&self.path, &unit).expect("an id is letters and digits");
            let mut cells = outcomes::read(&path)?;
            cells.extend(
                new.into_iter()
                    .map(|one| (one.cell, (one.metric, one.outcomes))),
            );
            outcomes::write(&path, &cells)?;
        }
        Ok(())
    }
}

/// Opens a file of records, or begins it.
fn open<R: longhaul_results::Record>(
    path: &Path,
    repairs: &mut Vec<String>,
) -> Result<(Journal<R>, Vec<R>), RunError> {
    let (journal, rows, torn) = Journal::open(path)?;
    if torn > 0 {
        repairs.push(format!(
            "the last line of {} was cut short ({torn} bytes); it is measured again",
            path.display(),
        ));
    }
    Ok((journal, rows))
}

/// Refuses rows of another run, or of units that the plan does not have.
///
/// # Errors
/// The first such row, by file.
pub fn check_owners(
    path: &Path,
    manifest: &Manifest,
    (rows, points, probes): (&[Measurement], &[TrainingPoint], &[Probe]),
) -> Result<(), RunError> {
    let units = manifest.units.iter().map(|unit| (unit.id(), unit));
    let units: HashMap<String, &Unit> = units.collect();
    let belongs = |run: &str, unit: &str, architecture: &str, task: &str| {
        let same = |unit: &&Unit| unit.architecture == architecture && unit.task == task;
        run == manifest.run_id && units.get(unit).is_some_and(same)
    };
    let row = rows
        .iter()
        .position(|row| !belongs(&row.run_id, &row.unit, &row.architecture, &row.task));
    let point = points
        .iter()
        .position(|point| !belongs(&point.run_id, &point.unit, &point.architecture, &point.task));
    let probe = probes
        .iter()
        .position(|probe| !belongs(&probe.run_id, &probe.unit, &probe.architecture, &probe.task));
    let stranger = row.map(|row| ("results.csv", row));
    let stranger = stranger.or_else(|| point.map(|point| ("training.csv", point)));
    match stranger.or_else(|| probe.map(|probe| ("probes.csv", probe))) {
        None => Ok(()),
        Some((file, row)) => Err(RunError::Input(format!(
            "row {} of {} is not of the run {} that run.toml describes; move the file away to measure anew",
            row + 1,
            path.join(file).display(),
            manifest.run_id,
        ))),
    }
}

/// Whether a folder is a run's.
fn is_of_run(path: &Path) -> bool {
    path.join(manifest::FILE).symlink_metadata().is_ok()
}

/// Refuses a folder with files, where it is not a run's.
///
/// # Errors
/// The first such file; the system's refusal.
pub fn refuse_strangers(path: &Path) -> Result<(), RunError> {
    let entries = std::fs::read_dir(path).map_err(RunError::io("read the folder", path))?;
    let stranger = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name())
        .find(|name| name != ".lock" && !files::is_unfinished(name));
    match stranger {
        None => Ok(()),
        // Looked at last: a run that begins meanwhile brings its file before all others.
        Some(_) if is_of_run(path) => Ok(()),
        Some(name) => Err(RunError::Input(format!(
            "{} is not empty and not the folder of a run: it has `{}`. Give another folder with --out",
            path.display(),
            name.to_string_lossy()
        ))),
    }
}

/// An `--out` that is free: of a part, which lies in `parts/K` of it, beside the whole run's.
fn other_folder(path: &Path, plan: &Plan) -> PathBuf {
    let out = plan.part.and_then(|_| path.ancestors().nth(2));
    free_name(out.unwrap_or(path))
}

/// The first of `name-2`, `name-3`, ... that does not exist.
fn free_name(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    (2..)
        .map(|number| path.with_file_name(format!("{name}-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::manifest::LimitsRecord;

    fn plan(steps: u64) -> (Plan, Manifest) {
        let units = vec![crate::run::records::tests::unit(steps)];
        let plan = manifest::tests::plan(units);
        let limits = LimitsRecord {
            time_s: Some(60),
            memory_bytes: None,
        };
        let manifest = Manifest::new(&plan, 1, 1, limits);
        (plan, manifest)
    }

    #[test]
    fn a_folder_belongs_to_one_plan() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let ((first, first_manifest), (other, other_manifest)) = (plan(10), plan(20));
        drop(RunFolder::for_plan(&path, &first, &first_manifest, false).unwrap());
        let words = |result: Result<RunFolder, RunError>| result.unwrap_err().to_string();
        let again = words(RunFolder::for_plan(&path, &first, &first_manifest, false));
        assert!(
            again.contains("--resume") && again.contains("run-2"),
            "{again}"
        );
        let another = words(RunFolder::for_plan(&path, &other, &other_manifest, true));
        assert!(
            another.contains("steps of arch is 10 there and 20 here"),
            "{another}"
        );
        let open = RunFolder::for_plan(&path, &first, &first_manifest, true).unwrap();
        assert!(open.rows.is_empty() && open.repairs.is_empty());
        let held = words(RunFolder::for_plan(&path, &first, &first_manifest, true));
        assert!(held.contains("another run"), "{held}");
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let (plan, manifest) = plan(10);
        let refused = RunFolder::for_plan(folder.path(), &plan, &manifest, false);
        let words = refused.unwrap_err().to_string();
        assert!(words.contains("thesis.tex"), "{words}");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "not even a lock is added");
        let none = RunFolder::existing(folder.path()).unwrap_err().to_string();
        assert!(none.contains("run.toml"), "{none}");
    }

    #[test]
    fn nothing_is_kept_after_a_gap() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let (plan, manifest) = plan(10);
        let mut folder = RunFolder::for_plan(&path, &plan, &manifest, false).unwrap();
        let point = TrainingPoint {
            run_id: plan.run_id.clone(),
            unit: plan.units[0].id(),
            architecture: plan.units[0].architecture.clone(),
            task: plan.units[0].task.clone(),
            ..TrainingPoint::default()
        };
        let file = predictions::File {
            name: "a".into(),
            bytes: Vec::new(),
        };
        // Of two batches the first cannot be kept, and then the disk has room again.
        std::fs::write(path.join(predictions::FOLDER), "").unwrap();
        let first = Kept {
            predictions: vec![file],
            points: vec![point.clone()],
            ..Kept::default()
        };
        folder.keep(first).unwrap_err();
        std::fs::remove_file(path.join(predictions::FOLDER)).unwrap();
        let second = Kept {
            points: vec![TrainingPoint { step: 9, ..point }],
            ..Kept::default()
        };
        folder.keep(second).unwrap();
        drop(folder);
        let folder = RunFolder::for_plan(&path, &plan, &manifest, true).unwrap();
        assert_eq!(folder.points, []);
    }

    #[test]
    fn a_run_in_parts_is_not_carried_out_beside_them() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let (plan, manifest) = plan(10);
        part::share(&path, &plan, &manifest, 1).unwrap();
        let words = RunFolder::for_plan(&path, &plan, &manifest, true)
            .unwrap_err()
            .to_string();
        assert!(
            words.contains("--part K/1") && words.contains("longhaul collect"),
            "{words}"
        );
        // Once they are, it is a run as any other.
        let row = crate::run::records::tests::good(&plan.units[0], 40, "a=1");
        let row = row.into_iter().map(|row| Measurement {
            run_id: plan.run_id.clone(),
            ..row
        });
        longhaul_results::write_csv(&path.join("results.csv"), &row.collect::<Vec<_>>()).unwrap();
        drop(RunFolder::for_plan(&path, &plan, &manifest, true).unwrap());
    }
}
