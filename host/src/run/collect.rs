//! Parts of a run taken together. What parts recorded is read as it stands, also while they are worked on, and
//! nothing is written into their folders; the records of all are one run's, as if one machine had carried it out.

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use longhaul_results::{
    Cell, JournalError, Measurement, Probe, Record, Status, TrainingPoint, files, outcomes,
    read_csv,
};

use crate::run::error::RunError;
use crate::run::finish::Recorded;
use crate::run::folder::{RunFolder, check_owners};
use crate::run::manifest::{self, Manifest, deciding};
use crate::run::part::{self, Part, divide};
use crate::run::plan::{Evaluation, Unit};
use crate::run::records::Common;

/// A run in parts, read.
pub struct Parts {
    /// The folder of the whole.
    pub run: PathBuf,
    /// Its plan.
    pub manifest: Manifest,
    /// All parts, in order.
    pub parts: Vec<PartRecords>,
}

/// What a part's folder holds.
pub struct PartRecords {
    /// The folder, which need not be there.
    pub path: PathBuf,
    /// Its units.
    pub units: Vec<Unit>,
    /// The processor it ran on; none where it has not begun.
    pub processor: Option<String>,
    /// Measurements.
    pub rows: Vec<Measurement>,
    /// Training points.
    pub points: Vec<TrainingPoint>,
    /// What else was seen.
    pub probes: Vec<Probe>,
    /// Evaluations that are planned.
    pub planned: usize,
    /// Evaluations that are planned and have no record, each with its unit's place in `units`.
    pub left: Vec<(usize, Evaluation)>,
}

impl Parts {
    /// Reads all parts of a run's folder.
    ///
    /// # Errors
    /// A folder that is not a run's in parts; a part of another plan, division or version; records that are not
    /// its own.
    pub fn read(run: &Path) -> Result<Self, RunError> {
        let manifest = Manifest::read(run).map_err(|error| match error {
            RunError::Io { .. } => RunError::Input(format!(
                "{} is not the folder of a run in parts ({error}); give the --out folder of `longhaul submit` or of `longhaul run --part`",
                run.display()
            )),
            other => other,
        })?;
        let Some(count) = manifest.parts else {
            return Err(RunError::Input(match manifest.part {
                Some(part) => format!(
                    "{} is part {part} of a run; give the folder that `{}` is in",
                    run.display(),
                    part::FOLDER
                ),
                None => format!(
                    "{} is the folder of a run that is not in parts: there is nothing to take together",
                    run.display()
                ),
            }));
        };
        part::check_count(&manifest.units, count)?;
        refuse_other_parts(run, count)?;
        let divided = divide(&manifest.units, count);
        let parts = (1..).zip(&divided).map(|(index, places)| {
            let part = Part { index, of: count };
            PartRecords::read(run, &manifest, part, places)
        });
        Ok(Self {
            run: run.to_owned(),
            parts: parts.collect::<Result<_, _>>()?,
            manifest,
        })
    }

    /// Puts the records of all parts into the folder of the whole. What is measured there already, by `longhaul
    /// eval` or an earlier time, stays. What is planned and has no record is recorded as not run, with its part.
    ///
    /// # Errors
    /// Files that cannot be read or written. Rows are written by [`crate::run::finish::finish`], last.
    pub fn put_into(self, folder: &mut RunFolder) -> Result<(), RunError> {
        let kept = ok_cells(&folder.rows);
        let count = self.parts.len();
        for (index, part) in (1..).zip(self.parts) {
            part.bring_files(&folder.path, &kept)?;
            let missing = part.not_run(&self.manifest, Part { index, of: count })?;
            let new = |cell: &Cell| !kept.contains(cell);
            let rows = part.rows.into_iter().chain(missing);
            folder.rows.extend(rows.filter(|row| new(&row.cell())));
            let probes = part.probes.into_iter();
            folder
                .probes
                .extend(probes.filter(|probe| new(&probe.cell())));
            folder.points.extend(part.points);
        }
        Ok(())
    }

    /// Opens the folder that all parts are put into: the run's own, or another, new or of the same run.
    ///
    /// # Errors
    /// Another run or program's files there; another holder of its lock; the system's refusal.
    pub fn open_whole(&self, out: Option<&Path>) -> Result<RunFolder, RunError> {
        let out = out.filter(|out| *out != self.run);
        let Some(out) = out else {
            return Ok(RunFolder::existing(&self.run)?.0);
        };
        std::fs::create_dir_all(out).map_err(RunError::io("make the folder", out))?;
        if out.join(manifest::FILE).symlink_metadata().is_err() {
            crate::run::folder::refuse_strangers(out)?;
            let whole = Manifest {
                parts: None,
                ..self.manifest.clone()
            };
            let path = out.join(manifest::FILE);
            // Where another run was first, it is the one that is held against this below.
            files::write_new(&path, whole.text().as_bytes())
                .map_err(RunError::io("write", &path))?;
        }
        let (folder, there) = RunFolder::existing(out)?;
        if there.run_id != self.manifest.run_id {
            return Err(RunError::Input(format!(
                "{} holds another run ({}); give another folder with --out",
                out.display(),
                there.run_id
            )));
        }
        Ok(folder)
    }

    /// The processors that parts ran on.
    pub fn processors(&self) -> BTreeSet<&str> {
        let known = self
            .parts
            .iter()
            .filter_map(|part| part.processor.as_deref());
        known.collect()
    }
}

impl PartRecords {
    fn read(run: &Path, whole: &Manifest, part: Part, places: &[usize]) -> Result<Self, RunError> {
        let path = part::folder(run, part.index);
        let units: Vec<Unit> = places.iter().map(|&at| whole.units[at].clone()).collect();
        let begun = path.join(manifest::FILE).symlink_metadata().is_ok();
        let processor = begun
            .then(|| {
                let own = Manifest::read(&path)?;
                check(&own, whole, part, &units, &path).map(|()| own.machine.cpu)
            })
            .transpose()?;
        // Rows first: where a row stands, what was written before it stands too, also while a part is worked on.
        let rows = records::<Measurement>(&path.join("results.csv"))?;
        let points = records::<TrainingPoint>(&path.join("training.csv"))?;
        let probes = records::<Probe>(&path.join("probes.csv"))?;
        let own = Manifest {
            units: units.clone(),
            ..whole.clone()
        };
        check_owners(&path, &own, (&rows, &points, &probes))?;
        let recorded = Recorded::new(&rows, &points);
        let mut planned = 0;
        let mut left = Vec::new();
        for (place, unit) in units.iter().enumerate() {
            let evaluations = unit.evaluations();
            planned += evaluations.len();
            let missing = recorded.left(&unit.id(), evaluations, false);
            left.extend(missing.into_iter().map(|what| (place, what)));
        }
        Ok(Self {
            path,
            units,
            processor,
            rows,
            points,
            probes,
            planned,
            left,
        })
    }

    /// Whether everything planned has its record.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Has the models and outcomes stand in the folder of the whole too.
    fn bring_files(&self, whole: &Path, kept: &HashSet<Cell>) -> Result<(), RunError> {
        let bring = |from: &Path, to: &Path| match files::share(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(RunError::io("take over", from)),
        };
        for unit in &self.units {
            let model = Path::new("models").join(unit.model_name());
            bring(&self.path.join(&model), &whole.join(&model))?;
            let id = unit.id();
            let name = |run: &Path| outcomes::path(run, &id).expect("an id is letters and digits");
            let (from, to) = (name(&self.path), name(whole));
            if to.symlink_metadata().is_err() {
                bring(&from, &to)?;
                continue;
            }
            let mut cells = outcomes::read(&from)?;
            let there = outcomes::read(&to)?;
            let stays = |(split, eval_length): &outcomes::Key, all: &outcomes::OfUnit| {
                let unit = id.clone();
                let cell = Cell {
                    unit,
                    split: *split,
                    eval_length: *eval_length,
                };
                kept.contains(&cell) || !all.contains_key(&(*split, *eval_length))
            };
            let own: Vec<_> = there
                .iter()
                .filter(|(key, _)| stays(key, &cells))
                .map(|(key, one)| (*key, one.clone()))
                .collect();
            cells.extend(own);
            if cells != there {
                outcomes::write(&to, &cells)?;
            }
        }
        Ok(())
    }

    /// Rows that say of everything left that its part has not measured it.
    fn not_run(&self, whole: &Manifest, part: Part) -> Result<Vec<Measurement>, RunError> {
        let reason = format!("part {part} has not measured it yet");
        let device = whole.device.split(',').next().unwrap_or_default();
        let row = |(place, what): &(usize, Evaluation)| {
            let unit = &self.units[*place];
            let common = Common::new(&whole.run_id, device, unit, &unit.id(), unit.make_task()?);
            Ok(common.unmeasured(*what, Status::NotRun, &reason))
        };
        self.left.iter().map(row).collect()
    }
}

/// Refuses a part that is not of this plan, division and version.
fn check(
    own: &Manifest,
    whole: &Manifest,
    part: Part,
    units: &[Unit],
    path: &Path,
) -> Result<(), RunError> {
    let found = match own.part {
        _ if own.run_id != whole.run_id => format!(
            "it is of the run {}, and the folder is of {}",
            own.run_id, whole.run_id
        ),
        Some(found) if found != part => format!("it is part {found}, where part {part} belongs"),
        None => "it is a whole run".to_owned(),
        Some(_) if deciding(&own.units) != deciding(units) => {
            "its trainings are not those of this part: its run.toml was changed by hand, or another version of Longhaul divided the plan".to_owned()
        }
        Some(_) if own.versions != whole.versions => format!(
            "Longhaul {} (ABI {}) ran it, and the run is of {} (ABI {})",
            own.versions.longhaul,
            own.versions.plugin_api,
            whole.versions.longhaul,
            whole.versions.plugin_api
        ),
        Some(_) => return Ok(()),
    };
    Err(RunError::Input(format!(
        "{} does not belong there: {found}. Move it away and run the part anew",
        path.display()
    )))
}

/// Refuses folders of parts that the run does not have.
fn refuse_other_parts(run: &Path, count: usize) -> Result<(), RunError> {
    let path = run.join(part::FOLDER);
    let entries = match std::fs::read_dir(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(RunError::io("read the folder", &path))?,
    };
    for entry in entries {
        let name = entry
            .map_err(RunError::io("read the folder", &path))?
            .file_name();
        let index = name.to_str().and_then(|name| name.parse::<usize>().ok());
        let is_part = index.is_some_and(|index| {
            (1..=count).contains(&index) && name.to_str() == Some(index.to_string().as_str())
        });
        if !is_part {
            return Err(RunError::Input(format!(
                "{} is none of the {count} parts of this run; move it away",
                path.join(name).display()
            )));
        }
    }
    Ok(())
}

/// Records of a file that need not be there; a torn last line is not one yet.
fn records<R: Record>(path: &Path) -> Result<Vec<R>, RunError> {
    match read_csv(path) {
        Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        other => Ok(other?.0),
    }
}

/// The cells that are measured.
fn ok_cells(rows: &[Measurement]) -> HashSet<Cell> {
    let whole = rows.iter().filter(|row| row.label.is_empty());
    let mut ok = HashSet::new();
    for row in whole {
        if row.status == Status::Ok {
            ok.insert(row.cell());
        } else {
            ok.remove(&row.cell());
        }
    }
    ok
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use longhaul_results::csv_text;

    use super::*;
    use crate::run::finish::{Places, in_order};
    use crate::run::manifest::LimitsRecord;
    use crate::run::plan::Plan;
    use crate::run::records::tests::{good, unit};

    /// The folder of a run in parts, of some units of a model that is measured at 40 and 80.
    struct Written {
        _temporary: tempfile::TempDir,
        run: PathBuf,
        plan: Plan,
        manifest: Manifest,
        divided: Vec<Vec<usize>>,
    }

    impl Written {
        fn new(units: u64, parts: usize) -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let units: Vec<Unit> = (0..units)
                .map(|seed| Unit {
                    name: format!("u{seed}"),
                    seed,
                    ..unit(10)
                })
                .collect();
            let plan = manifest::tests::plan(units);
            let limits = LimitsRecord {
                time_s: None,
                memory_bytes: None,
            };
            let mut manifest = Manifest::new(&plan, 1, 1, limits);
            manifest.parts = Some(parts);
            let run = temporary.path().join("run");
            fs::create_dir(&run).unwrap();
            fs::write(run.join(manifest::FILE), manifest.text()).unwrap();
            Self {
                run,
                divided: divide(&plan.units, parts),
                plan,
                manifest,
                _temporary: temporary,
            }
        }

        fn units(&self, index: usize) -> Vec<Unit> {
            let places = self.divided[index - 1].iter();
            places.map(|&at| self.plan.units[at].clone()).collect()
        }

        /// The manifest that a part's folder has.
        fn own(&self, index: usize) -> Manifest {
            let of = self.manifest.parts.unwrap();
            Manifest {
                part: Some(Part { index, of }),
                parts: None,
                units: self.units(index),
                ..self.manifest.clone()
            }
        }

        /// Writes a part with these measurements of each unit.
        fn part(&self, index: usize, lengths: &[usize]) {
            let path = part::folder(&self.run, index);
            fs::create_dir_all(path.join("models")).unwrap();
            fs::create_dir_all(path.join(outcomes::FOLDER)).unwrap();
            let own = self.own(index);
            fs::write(path.join(manifest::FILE), own.text()).unwrap();
            let mut rows = Vec::new();
            for unit in &own.units {
                fs::write(path.join("models").join(unit.model_name()), &unit.name).unwrap();
                for &length in lengths {
                    rows.extend(self.measured(unit, length));
                }
            }
            fs::write(path.join("results.csv"), csv_text(&rows)).unwrap();
        }

        fn measured(&self, unit: &Unit, length: usize) -> Vec<Measurement> {
            let mut rows = good(unit, length, "depth=0.50");
            for row in &mut rows {
                row.run_id.clone_from(&self.plan.run_id);
            }
            rows
        }

        fn refused(&self) -> String {
            Parts::read(&self.run).err().expect("refused").to_string()
        }
    }

    #[test]
    fn parts_together_are_the_whole_and_what_lacks_is_not_run() {
        let written = Written::new(5, 2);
        written.part(1, &[40, 80]);
        let parts = Parts::read(&written.run).unwrap();
        assert!(parts.parts[0].is_done() && !parts.parts[1].is_done());
        assert_eq!(parts.parts[1].processor, None);
        let mut folder = parts.open_whole(None).unwrap();
        parts.put_into(&mut folder).unwrap();
        let places = Places::new(&written.plan.units);
        let statuses = |folder: &RunFolder| {
            let rows = in_order(folder.rows.clone(), &places);
            let cells = rows.into_iter().filter(|row| row.label.is_empty());
            let cells: Vec<_> = cells
                .map(|row| (row.seed, row.status, row.reason))
                .collect();
            assert_eq!(cells.len(), 10);
            cells
        };
        for (seed, status, reason) in statuses(&folder) {
            let there = written.units(1).iter().any(|unit| unit.seed == seed);
            let expected = if there { Status::Ok } else { Status::NotRun };
            assert_eq!(status, expected, "seed {seed}");
            assert_eq!(reason.contains("part 2/2"), !there, "{reason}");
        }
        // The rest comes later, and takes the place of what said that it was not run.
        written.part(2, &[40, 80]);
        Parts::read(&written.run)
            .unwrap()
            .put_into(&mut folder)
            .unwrap();
        assert!(statuses(&folder).iter().all(|cell| cell.1 == Status::Ok));
        for unit in &written.plan.units {
            let model = written.run.join("models").join(unit.model_name());
            assert_eq!(fs::read_to_string(model).unwrap(), unit.name);
        }
    }

    #[test]
    fn what_is_measured_in_the_whole_stays() {
        let written = Written::new(2, 2);
        written.part(1, &[40, 80]);
        written.part(2, &[40]);
        let parts = Parts::read(&written.run).unwrap();
        let mut folder = parts.open_whole(None).unwrap();
        let there = &written.units(1)[0];
        let mut rows = written.measured(there, 40);
        rows[1].correct = Some(3);
        folder.rows = rows.clone();
        parts.put_into(&mut folder).unwrap();
        let of_cell: Vec<_> = folder
            .rows
            .iter()
            .filter(|row| row.cell() == rows[0].cell())
            .collect();
        assert_eq!(of_cell, rows.iter().collect::<Vec<_>>());
    }

    #[test]
    fn parts_of_other_runs_are_refused() {
        let written = Written::new(4, 2);
        let path = part::folder(&written.run, 2);
        let with = |change: &dyn Fn(&mut Manifest)| {
            written.part(2, &[40]);
            let mut own = written.own(2);
            change(&mut own);
            fs::write(path.join(manifest::FILE), own.text()).unwrap();
            written.refused()
        };
        let words = with(&|own| own.run_id = "r0".into());
        assert!(words.contains("of the run r0"), "{words}");
        let words = with(&|own| own.part = Some(Part { index: 2, of: 3 }));
        assert!(words.contains("part 2/3, where part 2/2"), "{words}");
        let words = with(&|own| own.units.truncate(1));
        assert!(words.contains("not those of this part"), "{words}");
        let words = with(&|own| own.versions.longhaul = "0.0.9".into());
        assert!(words.contains("Longhaul 0.0.9"), "{words}");
        // Rows of another part's units.
        written.part(2, &[40]);
        let rows = written.measured(&written.units(1)[0], 40);
        fs::write(path.join("results.csv"), csv_text(&rows)).unwrap();
        let words = written.refused();
        assert!(
            words.contains("row 1 of") && words.contains("parts/2"),
            "{words}"
        );
        written.part(2, &[40]);
        fs::create_dir(part::folder(&written.run, 3)).unwrap();
        let words = written.refused();
        assert!(words.contains("none of the 2 parts"), "{words}");
    }

    /// `cargo test --release -p longhaul a_thousand_journals -- --nocapture` prints how long it takes.
    #[test]
    fn a_thousand_journals_are_taken_together_in_seconds() {
        let written = Written::new(3000, 1000);
        for index in 1..=1000 {
            written.part(index, &[40, 80]);
        }
        let begun = Instant::now();
        let parts = Parts::read(&written.run).unwrap();
        let mut folder = parts.open_whole(None).unwrap();
        parts.put_into(&mut folder).unwrap();
        let rows = in_order(
            std::mem::take(&mut folder.rows),
            &Places::new(&written.plan.units),
        );
        assert_eq!(rows.len(), 12_000);
        let took = begun.elapsed();
        println!(
            "1,000 journals of 12,000 rows in {:.1} s",
            took.as_secs_f64()
        );
        // On a machine of its own a tenth of it.
        assert!(took.as_secs() < 60, "{took:?}");
    }
}
